package policies

// profileNamespace holds that the namespace may use the profile. A restricted profile is open only to those that list it.
var profileNamespace = rule[*evaluation]{
	id: "profile.namespace", source: "profile",
	seen: seenNamespace,
	check: func(e *evaluation, f *findings) {
		if !e.Namespace.MayUse(e.profile.name) || e.profile.restricted && !e.Namespace.Lists(e.profile.name) {
			f.refuse("profile", "ask the operator to list the profile in the namespace, or use another",
				"the namespace %s may not use the profile %s", quote(e.Namespace.Name), quote(e.profile.name))
		}
	},
}
