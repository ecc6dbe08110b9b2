package policies

// namesCount bounds the number of names. What is counted as too many is what was asked for: repetitions cost as well. What is counted as too
// few is what the certificate would hold, each once.
var namesCount = rule[*evaluation]{
	id: ruleNamesCount, source: "profile",
	seen: seenCount,
	check: func(e *evaluation, f *findings) {
		policy := e.profile.names
		if n := e.names.asked.Len(); n > policy.max {
			f.refuse("subjectAltName", "split the request", "%d names are asked for; the profile %s allows %d", n, quote(e.profile.name), policy.max)
		}
		if n := e.names.different(); n < policy.min {
			f.refuse("subjectAltName", "ask for names in the subjectAltName extension: the subject's common name does not count",
				"%d different names are asked for; the profile %s asks for at least %d", n, quote(e.profile.name), policy.min)
		}
	},
}
