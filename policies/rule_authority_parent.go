package policies

import "crypto/x509"

// authorityParent holds that the parent may sign certificates, now (RFC 5280, section 6.1.4, steps k and n).
var authorityParent = rule[*authority]{
	id: "authority.parent", source: "RFC 5280, 6.1.4",
	check: func(a *authority, f *findings) {
		p := a.Parent
		if p == nil {
			return
		}
		if !p.IsCA || !p.BasicConstraintsValid || p.KeyUsage&x509.KeyUsageCertSign == 0 {
			f.refuse("parent", "choose an authority with keyCertSign", "the parent is not an authority for certificates")
		}
		if a.Now.Before(p.NotBefore) || a.Now.After(p.NotAfter) {
			f.refuse("parent", "choose an authority that is in force", "the parent is not in force now")
		}
	},
}
