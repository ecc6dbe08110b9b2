package policies

// extensionUnknown refuses extensions that are not understood: critical ones always, others unless the profile drops them (RFC 5280,
// section 4.2). None is ever copied.
var extensionUnknown = rule[*evaluation]{
	id: "extensions.unknown", source: "RFC 5280, 4.2",
	seen: seenExtensions,
	check: func(e *evaluation, f *findings) {
		for _, x := range e.CSR.Extensions().Unknown {
			name := nameOf(judgedExtensions, x.OID)
			if name == x.OID.String() {
				name = nameOf(extensions, x.OID)
			}
			switch {
			case x.Critical:
				f.refuse("extension."+name, "leave it out", "the request asks for the critical extension %s, which is not issued", name)
			case !containsOID(e.profile.drop.extensions, x.OID):
				f.refuse("extension."+name, "leave it out", "the request asks for the extension %s, which is not issued", name)
			}
		}
	},
}
