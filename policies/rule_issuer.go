package policies

import "crypto/x509"

// issuerSigns holds that the issuer is an authority that may sign certificates now (RFC 5280, section 6.1.4, steps k and n).
var issuerSigns = rule[*evaluation]{
	id: "issuer.signs", source: "RFC 5280, 6.1.4", gate: true,
	seen: seenIssuer,
	check: func(e *evaluation, f *findings) {
		const hint = "ask the operator for an authority that is in force"
		switch {
		case e.issuer == nil:
			f.refuse("issuer", hint, "there is no issuer to sign")
		case !e.issuer.IsCA || !e.issuer.BasicConstraintsValid || e.issuer.KeyUsage&x509.KeyUsageCertSign == 0:
			f.refuse("issuer", hint, "the issuer %s is not an authority for certificates", quote(e.Issuer.Name))
		case e.Now.Before(e.issuer.NotBefore) || e.Now.After(e.issuer.NotAfter):
			f.refuse("issuer", hint, "the issuer %s is not in force now", quote(e.Issuer.Name))
		}
	},
}
