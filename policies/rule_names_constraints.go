package policies

import "crypto/x509"

// namesConstraints holds names to the name constraints of the issuer's certificate and of those above it (RFC 5280, section 4.2.1.10): a
// certificate beyond them would be refused by everyone who checks its chain.
var namesConstraints = rule[*evaluation]{
	id: "names.issuer-constraints", source: "RFC 5280, 4.2.1.10",
	seen: seenNames("dns", "ip", "email", "uri"),
	check: func(e *evaluation, f *findings) {
		chain := constraintsAlong(e.issuer, e.Issuer.Above)
		hold := func(field, name string, lies func(permitted, excluded NameConstraints) bool) {
			for _, c := range chain {
				if !lies(c.permitted, c.excluded) {
					f.refuse(field, "ask the operator which names the issuer may certify",
						"%s lies outside of what the issuer %s may certify", quote(name), quote(e.Issuer.Name))
					return
				}
			}
		}
		for _, name := range e.names.dns {
			hold(name.field(), name.value, func(permitted, excluded NameConstraints) bool {
				return permitted.permitDNS(name.value) && !excluded.excludeDNS(name.value)
			})
		}
		for _, address := range e.names.ip {
			hold(address.field(), address.value.String(), func(permitted, excluded NameConstraints) bool {
				return permitted.permitIP(address.value) && !excluded.excludeIP(address.value)
			})
		}
		for _, mailbox := range e.names.email {
			hold(mailbox.field(), mailbox.value, func(permitted, excluded NameConstraints) bool {
				return permitted.permitEmail(mailbox.value) && !excluded.excludeEmail(mailbox.value)
			})
		}
		for _, uri := range e.names.uri {
			hold(uri.field(), uri.value, func(permitted, excluded NameConstraints) bool {
				return permitted.permitURI(uri.value) && !excluded.excludeURI(uri.value)
			})
		}
	},
}

// bothConstraints are the name constraints of one certificate.
type bothConstraints struct{ permitted, excluded NameConstraints }

// constraintsAlong are those of the certificates of a chain that have any.
func constraintsAlong(issuer *x509.Certificate, above []*x509.Certificate) (all []bothConstraints) {
	add := func(c *x509.Certificate) {
		if permitted, excluded := constraintsOf(c); !permitted.empty() || !excluded.empty() {
			all = append(all, bothConstraints{permitted, excluded})
		}
	}
	add(issuer)
	for _, c := range above {
		add(c)
	}
	return all
}
