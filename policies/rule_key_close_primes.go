package policies

import (
	"math/big"

	"github.com/chancery-ca/chancery/csr"
)

// fermatRounds is how many steps of Fermat's method are tried (BR, section 6.1.1.3, asks for 100 at least).
const fermatRounds = 100

// keyClosePrimes refuses RSA keys whose primes lie so close together that Fermat's method finds them (BR, section 6.1.1.3).
func keyClosePrimes[E keyed]() rule[E] {
	return rule[E]{
		id: ruleKeyClosePrimes, source: "BR 6.1.1.3", after: []string{ruleKeyAllowed, ruleKeyModulus},
		check: func(e E, f *findings) {
			if k := e.publicKey(); k.Algorithm == csr.RSA && closePrimes(new(big.Int).SetBytes(k.Modulus), fermatRounds) {
				f.refuse("subjectPublicKeyInfo", newKeyHint, "the RSA key's primes lie so close together that they can be computed")
			}
		},
	}
}

// closePrimes tells whether n = a^2 - b^2 for one of the first values of a from the root of n upwards.
func closePrimes(n *big.Int, rounds int) bool {
	one := big.NewInt(1)
	a := new(big.Int).Sqrt(n)
	if new(big.Int).Mul(a, a).Cmp(n) < 0 {
		a.Add(a, one)
	}
	square := new(big.Int).Mul(a, a)
	square.Sub(square, n) // b^2, if n has this form
	step := new(big.Int).Lsh(a, 1)
	step.Add(step, one) // (a+1)^2 - a^2
	two := big.NewInt(2)
	root, check := new(big.Int), new(big.Int)
	for range rounds {
		if mayBeSquare(square, check) && check.Mul(root.Sqrt(square), root).Cmp(square) == 0 {
			return true
		}
		square.Add(square, step)
		step.Add(step, two)
	}
	return false
}

// squares tells which remainders squares leave. Together the moduli let one number in a hundred pass that is no square, and spare the
// others the costly root.
var squares = [...][]bool{remaindersOfSquares(64), remaindersOfSquares(63), remaindersOfSquares(65), remaindersOfSquares(11)}

var oddModuli = big.NewInt(63 * 65 * 11)

func remaindersOfSquares(modulus int) []bool {
	table := make([]bool, modulus)
	for i := range modulus {
		table[i*i%modulus] = true
	}
	return table
}

func mayBeSquare(n, scratch *big.Int) bool {
	if n.Sign() < 0 {
		return false
	}
	low := uint64(0)
	if words := n.Bits(); len(words) > 0 {
		low = uint64(words[0])
	}
	if !squares[0][low%64] {
		return false
	}
	r := scratch.Mod(n, oddModuli).Uint64()
	return squares[1][r%63] && squares[2][r%65] && squares[3][r%11]
}
