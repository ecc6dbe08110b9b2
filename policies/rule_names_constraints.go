package policies

// namesConstraints holds names to the name constraints of the issuer's certificate (RFC 5280, section 4.2.1.10): a certificate beyond
// them would be refused by everyone who checks its chain.
var namesConstraints = rule[*evaluation]{
	id: "names.issuer-constraints", source: "RFC 5280, 4.2.1.10",
	seen: seenNames("dns", "ip", "email", "uri"),
	check: func(e *evaluation, f *findings) {
		permitted, excluded := constraintsOf(e.issuer)
		refuse := func(field, name string) {
			f.refuse(field, "ask the operator which names the issuer may certify",
				"%s lies outside of what the issuer %s may certify", quote(name), quote(e.Issuer.Name))
		}
		for _, name := range e.names.dns {
			if !permitted.permitDNS(name.value) || excluded.excludeDNS(name.value) {
				refuse(name.field(), name.value)
			}
		}
		for _, address := range e.names.ip {
			if !permitted.permitIP(address.value) || excluded.excludeIP(address.value) {
				refuse(address.field(), address.value.String())
			}
		}
		for _, mailbox := range e.names.email {
			if !permitted.permitEmail(mailbox.value) || excluded.excludeEmail(mailbox.value) {
				refuse(mailbox.field(), mailbox.value)
			}
		}
		for _, uri := range e.names.uri {
			if !permitted.permitURI(uri.value) || excluded.excludeURI(uri.value) {
				refuse(uri.field(), uri.value)
			}
		}
	},
}
