package policies

// namesPattern holds names to the patterns of the profile.
var namesPattern = rule[*evaluation]{
	id: "names.pattern", source: "profile",
	seen: seenNames("dns", "email", "uri"),
	check: func(e *evaluation, f *findings) {
		policy := e.profile.names
		if policy.dns != nil {
			checkPattern(f, policy.dns.pattern, e.names.dns)
		}
		if policy.email != nil {
			checkPattern(f, policy.email.pattern, e.names.email)
		}
		if policy.uri != nil {
			checkPattern(f, policy.uri.pattern, e.names.uri)
		}
	},
}

func checkPattern(f *findings, p *pattern, names []given[string]) {
	if p == nil {
		return
	}
	for _, name := range names {
		if !p.matches(name.value) {
			f.refuse(name.field(), "the profile's pattern is "+p.source, "%s does not match the profile's pattern", quote(name.value))
		}
	}
}
