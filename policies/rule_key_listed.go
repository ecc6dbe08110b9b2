package policies

// keyListed refuses a key that stands in one of the lists of keys that others have or can compute: known-compromised keys, Debian's weak
// ones (BR, sections 4.9.1.1 and 6.1.1.3).
var keyListed = rule[*evaluation]{
	id: ruleKeyListed, source: "BR 6.1.1.3",
	seen: seenKey[*evaluation],
	check: func(e *evaluation, f *findings) {
		for _, list := range e.KeyLists {
			f.refuse("subjectPublicKeyInfo", "make a new key, and never use this one again", "the key stands in the list %s", quote(list))
		}
	},
}
