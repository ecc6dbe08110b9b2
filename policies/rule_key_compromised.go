package policies

// keyCompromised refuses a key of which it is known that others have it (BR, sections 4.9.1.1 and 6.1.1.3).
var keyCompromised = rule[*evaluation]{
	id: ruleKeyCompromised, source: "BR 6.1.1.3",
	seen: seenKey[*evaluation],
	check: func(e *evaluation, f *findings) {
		if e.CompromisedKey {
			f.refuse("subjectPublicKeyInfo", "make a new key, and never use this one again", "the key is known to be compromised")
		}
	},
}
