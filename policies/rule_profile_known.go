package policies

// profileKnown refuses a profile that the set does not hold.
var profileKnown = rule[*evaluation]{
	id: "profile.unknown", source: "profile", gate: true,
	seen: seenProfile,
	check: func(e *evaluation, f *findings) {
		if e.profile == nil {
			f.refuse("profile", "GET /api/v1/profiles lists the profiles", "there is no profile %s", quote(e.Profile))
		}
	},
}
