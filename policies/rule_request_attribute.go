package policies

// requestAttribute refuses attributes of the request (RFC 2986, section 4.1) that the profile does not drop.
var requestAttribute = rule[*evaluation]{
	id: "request.attributes", source: "RFC 2986, 4.1",
	seen: seenAttributes,
	check: func(e *evaluation, f *findings) {
		for _, oid := range e.CSR.Attributes() {
			if !containsOID(e.profile.drop.attributes, oid) {
				name := nameOf(requestAttributes, oid)
				f.refuse("attribute."+name, "leave it out", "the request carries the attribute %s, which has no meaning here", name)
			}
		}
	},
}
