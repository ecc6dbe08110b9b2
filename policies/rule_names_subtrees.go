package policies

// namesSubtrees holds names to the subtrees that the profile permits, and keeps them out of those that it excludes. They mean what RFC 5280,
// section 4.2.1.10, has them mean in an authority's certificate.
var namesSubtrees = rule[*evaluation]{
	id: "names.subtrees", source: "profile",
	check: func(e *evaluation, f *findings) {
		permitted, excluded := e.profile.names.permitted, e.profile.names.excluded
		refuse := func(field, name, trees string) {
			hint := "leave it out: the profile excludes it"
			if trees != "" {
				hint = "the profile permits " + trees
			}
			f.refuse(field, hint, "%s lies outside of the names that the profile %s gives", quote(name), quote(e.profile.name))
		}
		for _, name := range e.names.dns {
			if !permitted.permitDNS(name.value) || excluded.excludeDNS(name.value) {
				refuse(name.field(), name.value, some(permitted.DNS))
			}
		}
		for _, address := range e.names.ip {
			if !permitted.permitIP(address.value) || excluded.excludeIP(address.value) {
				refuse(address.field(), address.value.String(), some(permitted.IP))
			}
		}
		for _, mailbox := range e.names.email {
			if !permitted.permitEmail(mailbox.value) || excluded.excludeEmail(mailbox.value) {
				refuse(mailbox.field(), mailbox.value, some(permitted.Email))
			}
		}
		for _, uri := range e.names.uri {
			if !permitted.permitURI(uri.value) || excluded.excludeURI(uri.value) {
				refuse(uri.field(), uri.value, some(permitted.URI))
			}
		}
	},
}
