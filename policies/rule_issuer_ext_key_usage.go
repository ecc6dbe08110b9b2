package policies

import (
	"crypto/x509"
	"encoding/asn1"
	"strings"
)

// issuerExtKeyUsage holds the profile's extended key usages to those of the issuer's certificate and of those above it (RFC 5280, section
// 4.2.1.12; BR, section 7.1.2.10.6): verifiers nest them, and refuse a certificate for a purpose that an authority above it is not for.
//
// OCSPSigning is left alone. No authority carries it (authority.ext-key-usage), so that one which is constrained could have no responder;
// and it is the authority's own signature on the responder's certificate that lends it the right to answer, not a purpose that is handed
// down (RFC 6960, section 4.2.2.2).
//
// A certificate without extended key usages would break nothing: nesting leaves it the purposes of its issuer. No profile issues one.
var issuerExtKeyUsage = rule[*evaluation]{
	id: "extensions.issuer-ext-key-usage", source: "RFC 5280, 4.2.1.12",
	seen: seenIssuerExtKeyUsage,
	check: func(e *evaluation, f *findings) {
		chain := usagesAlong(e.issuer, e.Issuer.Above)
		for _, oid := range e.profile.extKeyUsage {
			if oid.Equal(oidOCSPSigning) {
				continue
			}
			for _, permitted := range chain {
				if !containsOID(permitted, oid) {
					f.refuse("extKeyUsage", "use a profile for "+some(namesOf(extKeyUsages, permitted))+" alone, or ask the operator for another issuer",
						"the profile %s gives the extended key usage %s, which lies outside of what the issuer %s may certify",
						quote(e.profile.name), nameOf(extKeyUsages, oid), quote(e.Issuer.Name))
					break
				}
			}
		}
	},
}

// usagesAlong are the extended key usages of those certificates of a chain that are constrained by them.
func usagesAlong(issuer *x509.Certificate, above []*x509.Certificate) (all [][]asn1.ObjectIdentifier) {
	add := func(c *x509.Certificate) {
		if usages := usagesOf(c); len(usages) > 0 && !containsOID(usages, oidAnyExtKeyUsage) {
			all = append(all, usages)
		}
	}
	add(issuer)
	for _, c := range above {
		add(c)
	}
	return all
}

// usagesOf are the extended key usages of a certificate, those among them that crypto/x509 has no name for.
func usagesOf(c *x509.Certificate) []asn1.ObjectIdentifier {
	var all []asn1.ObjectIdentifier
	for _, usage := range c.ExtKeyUsage {
		if oid, err := parseOID(usage.OID().String()); err == nil { // always: these are constants of crypto/x509
			all = append(all, oid)
		}
	}
	return append(all, c.UnknownExtKeyUsage...)
}

func seenIssuerExtKeyUsage(e *evaluation) string {
	seen := []string{some(namesOf(extKeyUsages, e.profile.extKeyUsage))}
	for _, permitted := range usagesAlong(e.issuer, e.Issuer.Above) {
		seen = append(seen, "from an authority for "+some(namesOf(extKeyUsages, permitted)))
	}
	if len(seen) == 1 {
		seen = append(seen, "from authorities for all purposes")
	}
	return strings.Join(seen, "; ")
}
