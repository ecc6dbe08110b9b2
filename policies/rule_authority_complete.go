package policies

// authorityComplete refuses to decide without the facts that every other rule relies on.
var authorityComplete = rule[*authority]{
	id: "authority.complete", source: "RFC 5280, 4.1", gate: true,
	check: func(a *authority, f *findings) {
		if len(a.key.SPKI) == 0 {
			f.refuse("subjectPublicKeyInfo", "give the SubjectPublicKeyInfo of the authority's key in DER", "there is no public key that can be read")
		}
		if a.Now.IsZero() {
			f.refuse("now", "report this: it is a fault of the program, not of the plan", "the time of the ceremony is not known")
		}
		if a.Root && a.Parent != nil {
			f.refuse("parent", "a root signs itself", "a root has no parent")
		}
		if !a.Root && a.Parent == nil {
			f.refuse("parent", "name the authority that signs", "a subordinate authority needs a parent")
		}
	},
}
