package policies

// authorityKey holds that an authority's key is strong enough for as long as authorities last (BR, section 6.1.5; NIST SP 800-131A): P-256,
// P-384, or RSA of 3072 to 4096 bits.
var authorityKey = rule[*authority]{
	id: ruleKeyAllowed, source: "BR 6.1.5",
	check: func(a *authority, f *findings) { authorityKeys.check(a.key, f) },
}
