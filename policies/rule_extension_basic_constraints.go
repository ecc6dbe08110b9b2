package policies

// extensionBasicConstraints refuses requests for an authority (RFC 5280, section 4.2.1.9). Authorities are made in ceremonies; what is
// issued here says that it is none.
var extensionBasicConstraints = rule[*evaluation]{
	id: "extensions.basic-constraints", source: "RFC 5280, 4.2.1.9",
	seen: seenBasicConstraints,
	check: func(e *evaluation, f *findings) {
		asked := e.CSR.Extensions().BasicConstraints
		if asked != nil && (asked.CA || asked.PathLen >= 0) {
			f.refuse("basicConstraints", "leave the extension out; authorities are made in ceremonies", "the request asks for an authority (CA:TRUE or a path length)")
		}
	},
}
