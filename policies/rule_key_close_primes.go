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
		seen: seenKey[E],
		check: func(e E, f *findings) {
			if k := e.publicKey(); k.Algorithm == csr.RSA && closePrimes(new(big.Int).SetBytes(k.Modulus), fermatRounds) {
				f.refuse("subjectPublicKeyInfo", newKeyHint, "the RSA key's primes lie so close together that they can be computed")
			}
		},
	}
}

// closePrimes tells whether n = a^2 - b^2 for one of the first values of a from the root of n upwards.
func closePrimes(n *big.Int, rounds int) bool {
	a := new(big.Int).Sqrt(n)
	if new(big.Int).Mul(a, a).Cmp(n) < 0 {
		a.Add(a, big.NewInt(1))
	}
	square := new(big.Int).Mul(a, a)
	square.Sub(square, n) // b^2, if n has this form
	step := new(big.Int).Lsh(a, 1)
	step.Add(step, big.NewInt(1)) // (a+1)^2 - a^2
	modulus := big.NewInt(squareModulus)
	r, s := new(big.Int).Mod(square, modulus).Uint64(), new(big.Int).Mod(step, modulus).Uint64()
	for k := range int64(rounds) {
		if mayBeSquare(r) && isSquare(squareAt(square, step, k)) {
			return true
		}
		r, s = (r+s)%squareModulus, (s+2)%squareModulus
	}
	return false
}

// squareAt is (a+k)^2 - n, from its value and its step at k = 0.
func squareAt(square, step *big.Int, k int64) *big.Int {
	at := new(big.Int).Mul(step, big.NewInt(k))
	at.Add(at, square)
	return at.Add(at, big.NewInt(k*(k-1)))
}

// isSquare tells whether a number that is not negative is a square. Most that are none are told by their remainders.
func isSquare(n *big.Int) bool {
	r := new(big.Int).Mod(n, big.NewInt(17*19*23*29*31)).Uint64()
	for i, m := range [...]uint64{17, 19, 23, 29, 31} {
		if !furtherSquares[i][r%m] {
			return false
		}
	}
	root := new(big.Int).Sqrt(n)
	return root.Mul(root, root).Cmp(n) == 0
}

// squareModulus is the product of the moduli whose remainders tell most numbers that are no squares.
const squareModulus = 64 * 63 * 65 * 11

// squares are the remainders that squares leave by each of the moduli, furtherSquares by those that are tried afterwards.
var (
	squares        = [...][]bool{remaindersOfSquares(64), remaindersOfSquares(63), remaindersOfSquares(65), remaindersOfSquares(11)}
	furtherSquares = [...][]bool{
		remaindersOfSquares(17), remaindersOfSquares(19), remaindersOfSquares(23), remaindersOfSquares(29), remaindersOfSquares(31),
	}
)

func remaindersOfSquares(modulus int) []bool {
	table := make([]bool, modulus)
	for i := range modulus {
		table[i*i%modulus] = true
	}
	return table
}

// mayBeSquare tells by its remainder whether a number may be a square: five in six hundred others pass.
func mayBeSquare(r uint64) bool {
	return squares[0][r%64] && squares[1][r%63] && squares[2][r%65] && squares[3][r%11]
}
