package policies

import (
	"math/big"

	"github.com/chancery-ca/chancery/csr"
)

// The range of RSA exponents: from 2^16+1 to 2^256-1, odd (BR, section 6.1.6; FIPS 186-5, section 5.1).
var minExponent = big.NewInt(1<<16 + 1)

const maxExponentBits = 256

// keyExponent refuses RSA exponents that are even, too small or too large (BR, section 6.1.6).
func keyExponent[E keyed]() rule[E] {
	return rule[E]{
		id: ruleKeyExponent, source: "BR 6.1.6", after: []string{ruleKeyAllowed},
		seen: seenExponent[E],
		check: func(e E, f *findings) {
			k := e.publicKey()
			if k.Algorithm != csr.RSA {
				return
			}
			const field, hint = "subjectPublicKeyInfo", "make a key with the exponent 65537"
			n := new(big.Int).SetBytes(k.Exponent)
			switch {
			case n.Bit(0) == 0:
				f.refuse(field, hint, "the RSA exponent is even")
			case n.Cmp(minExponent) < 0:
				f.refuse(field, hint, "the RSA exponent %s is smaller than 65537", n)
			case n.BitLen() > maxExponentBits:
				f.refuse(field, hint, "the RSA exponent has %d bits, more than %d", n.BitLen(), maxExponentBits)
			case k.Public == nil:
				f.refuse(field, hint, "the RSA exponent of %d bits is larger than the signature can be checked with", n.BitLen())
			}
		},
	}
}
