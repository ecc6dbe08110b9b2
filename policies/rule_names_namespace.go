package policies

// namesNamespace holds that every name belongs to the requester's namespace (BR, section 3.2.2.4: the applicant's authority over each
// name).
var namesNamespace = rule[*evaluation]{
	id: "names.namespace", source: "BR 3.2.2.4",
	seen: seenNames("dns", "ip", "email", "uri"),
	check: func(e *evaluation, f *findings) {
		n := e.Namespace
		refuse := func(field, name, owned string) {
			hint := "the namespace owns none of this type"
			if owned != "" {
				hint = "the namespace owns " + owned
			}
			f.refuse(field, hint, "%s does not belong to the namespace %s", quote(name), quote(n.Name))
		}
		for _, name := range e.names.dns {
			if !n.OwnsDNS(name.value) {
				refuse(name.field(), name.value, some(n.DNS))
			}
		}
		for _, address := range e.names.ip {
			if !n.OwnsIP(address.value) {
				refuse(address.field(), address.value.String(), some(n.IP))
			}
		}
		for _, mailbox := range e.names.email {
			if !n.OwnsEmail(mailbox.value) {
				refuse(mailbox.field(), mailbox.value, some(n.Email))
			}
		}
		for _, uri := range e.names.uri {
			if !n.OwnsURI(uri.value) {
				refuse(uri.field(), uri.value, some(n.URI))
			}
		}
	},
}
