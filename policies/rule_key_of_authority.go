package policies

import (
	"bytes"
	"slices"
)

// keyOfAuthority refuses the authority's own keys: a certificate for one would give its holder's name to what the authority signs.
var keyOfAuthority = rule[*evaluation]{
	id: ruleKeyOfAuthority, source: "profile",
	seen: seenKey[*evaluation],
	check: func(e *evaluation, f *findings) {
		own := slices.ContainsFunc(e.AuthorityKeys, func(spki []byte) bool { return bytes.Equal(spki, e.key.SPKI) })
		if own || bytes.Equal(e.issuer.RawSubjectPublicKeyInfo, e.key.SPKI) {
			f.refuse("subjectPublicKeyInfo", "use a key of your own", "the key is one of the authority's own")
		}
	},
}
