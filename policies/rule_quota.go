package policies

// quotaLeft refuses early what a quota, or a key that is certified only once, would refuse when the intent is recorded. It judges by the
// usage that was looked up beforehand; the reservations of the grant are what holds.
var quotaLeft = rule[*evaluation]{
	id: "quota", source: "profile",
	check: func(e *evaluation, f *findings) {
		for _, r := range e.Besides {
			if r.Used >= r.Limit {
				hint := "ask the operator for a higher quota"
				if r.Limit > 0 {
					hint = "wait until earlier certificates are older than " + formatDuration(r.Window) + ", or " + hint
				}
				f.refuse("quota", hint, "%d certificates of the %d that the namespace %s may have in %s are used",
					r.Used, r.Limit, quote(r.Key), formatDuration(r.Window))
			}
		}
		for _, r := range e.reservations() {
			switch used := e.used(r); {
			case used < r.Limit:
			case r.Kind == ReserveKey:
				f.refuse("subjectPublicKeyInfo", newKeyHint, "the key has been certified before, and the profile %s certifies a key once", quote(e.profile.name))
			default:
				f.refuse("quota", "wait until earlier certificates are older than "+formatDuration(r.Window)+", or ask the operator for a higher quota",
					"%d certificates of the %d that the profile %s allows to the %s %s in %s are used",
					used, r.Limit, quote(e.profile.name), e.profile.quota.of, quote(r.Key), formatDuration(r.Window))
			}
		}
	},
	seen: func(e *evaluation) string {
		var all []string
		for _, r := range e.Besides {
			all = append(all, usedOf(r.Used, r.Reservation))
		}
		for _, r := range e.reservations() {
			all = append(all, usedOf(e.used(r), r))
		}
		return some(all)
	},
}
