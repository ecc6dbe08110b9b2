package policies

// namesPublic holds names of a public profile to the public DNS: no internal names, no reserved and no reverse zones (BR, sections
// 4.2.2 and 7.1.4.2).
var namesPublic = rule[*evaluation]{
	id: "names.public", source: "BR 4.2.2",
	seen: seenNames("dns"),
	check: func(e *evaluation, f *findings) {
		policy := e.profile.names.dns
		if policy == nil || !policy.public {
			return
		}
		for _, name := range e.names.dns {
			if problem := publicProblem(name.value); problem != "" {
				f.refuse(name.field(), "use a name of the public DNS, or a profile for private names", "%s %s", quote(name.value), problem)
			}
		}
	},
}
