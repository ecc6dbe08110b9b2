package policies

import (
	"encoding/binary"
	"math/big"
	"math/bits"

	"github.com/chancery-ca/chancery/csr"
)

// keyModulus refuses an RSA modulus that is even or has a prime factor below 752 (BR, section 6.1.6; NIST SP 800-56B, section 6.4.2).
func keyModulus[E keyed]() rule[E] {
	return rule[E]{
		id: ruleKeyModulus, source: "BR 6.1.6", after: []string{ruleKeyAllowed},
		seen: seenKey[E],
		check: func(e E, f *findings) {
			if k := e.publicKey(); k.Algorithm == csr.RSA {
				if p := smallFactor(new(big.Int).SetBytes(k.Modulus)); p != 0 {
					f.refuse("subjectPublicKeyInfo", newKeyHint, "the RSA modulus can be divided by %d", p)
				}
			}
		},
	}
}

// smallPrimes are the primes below 752, in groups whose products fit into a word, so that a long division serves a whole group.
var smallPrimes = primeGroups(752)

type primeGroup struct {
	product uint64
	primes  []uint64
}

func primeGroups(below uint64) []primeGroup {
	var groups []primeGroup
	product, primes := uint64(1), []uint64(nil)
	closeGroup := func() {
		groups = append(groups, primeGroup{product, primes})
		product, primes = 1, nil
	}
	for n := uint64(2); n < below; n++ {
		if !isPrime(n) {
			continue
		}
		if product > (1<<63)/n {
			closeGroup()
		}
		product *= n
		primes = append(primes, n)
	}
	closeGroup()
	return groups
}

func isPrime(n uint64) bool {
	for d := uint64(2); d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return n > 1
}

// smallFactor is a prime below 752 that divides n, which is positive, or 0. It divides word by word: big.Int.Mod would make a quotient each
// time that nobody wants.
func smallFactor(n *big.Int) uint64 {
	octets := n.FillBytes(make([]byte, (n.BitLen()+63)/64*8))
	for _, g := range smallPrimes {
		r := uint64(0)
		for at := 0; at < len(octets); at += 8 {
			_, r = bits.Div64(r, binary.BigEndian.Uint64(octets[at:]), g.product)
		}
		for _, p := range g.primes {
			if r%p == 0 {
				return p
			}
		}
	}
	return 0
}
