package policies

import (
	"crypto/rsa"
	"math/big"

	"github.com/titanous/rocacheck"

	"github.com/chancery-ca/chancery/csr"
)

// keyROCA refuses RSA keys made by the flawed library of Infineon, which can be factored (BR, section 6.1.1.3; CVE-2017-15361).
func keyROCA[E keyed]() rule[E] {
	return rule[E]{
		id: ruleKeyROCA, source: "BR 6.1.1.3", after: []string{ruleKeyAllowed},
		seen: seenKey[E],
		check: func(e E, f *findings) {
			k := e.publicKey()
			if k.Algorithm == csr.RSA && rocacheck.IsWeak(&rsa.PublicKey{N: new(big.Int).SetBytes(k.Modulus)}) {
				f.refuse("subjectPublicKeyInfo", newKeyHint, "the RSA key bears the mark of a flawed key generator (ROCA, CVE-2017-15361)")
			}
		},
	}
}
