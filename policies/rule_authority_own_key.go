package policies

import "bytes"

// authorityOwnKey refuses a subordinate with the key of its parent: two authorities of one key cannot be told apart by their signatures,
// and neither could be revoked without the other.
var authorityOwnKey = rule[*authority]{
	id: ruleKeyOfAuthority, source: "RFC 5280, 4.2.1.2",
	check: func(a *authority, f *findings) {
		if a.Parent != nil && bytes.Equal(a.Parent.RawSubjectPublicKeyInfo, a.key.SPKI) {
			f.refuse("subjectPublicKeyInfo", "generate a key for this authority", "the key is the parent's own")
		}
	},
}
