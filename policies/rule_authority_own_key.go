package policies

import "bytes"

// authorityOwnKey refuses a subordinate with the key of its parent, or of an authority above it: two authorities of one key cannot be told
// apart by their signatures, and neither could be revoked without the other.
var authorityOwnKey = rule[*authority]{
	id: ruleKeyOfAuthority, source: "RFC 5280, 4.2.1.2",
	check: func(a *authority, f *findings) {
		for i, above := range a.ancestors() {
			if !bytes.Equal(above.RawSubjectPublicKeyInfo, a.key.SPKI) {
				continue
			}
			whose := "the parent's own"
			if i > 0 {
				whose = "that of " + quote(above.Subject.String()) + ", which is above the parent"
			}
			f.refuse("subjectPublicKeyInfo", "generate a key for this authority", "the key is %s", whose)
			return
		}
	},
}
