package policies

import (
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

// TestClosePrimes compares the fast method with the plain one: n = pq is found within so many rounds exactly if the mean of p and q lies
// so near to the root of n.
func TestClosePrimes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := rapid.Int64Range(1_000_000, 2_000_000).Draw(t, "p") | 1
		q := (p + rapid.Int64Range(0, 40_000).Draw(t, "gap")) | 1
		n := new(big.Int).Mul(big.NewInt(p), big.NewInt(q))
		if got, want := closePrimes(n, fermatRounds), plainFermat(n, fermatRounds); got != want {
			t.Fatalf("%d * %d: got %v, want %v", p, q, got, want)
		}
	})
}

func plainFermat(n *big.Int, rounds int) bool {
	a := new(big.Int).Sqrt(n)
	if new(big.Int).Mul(a, a).Cmp(n) < 0 {
		a.Add(a, big.NewInt(1))
	}
	for range rounds {
		b2 := new(big.Int).Mul(a, a)
		b2.Sub(b2, n)
		b := new(big.Int).Sqrt(b2)
		if b.Mul(b, b).Cmp(b2) == 0 {
			return true
		}
		a.Add(a, big.NewInt(1))
	}
	return false
}

// TestSmallFactor compares with division by every number.
func TestSmallFactor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Uint64Range(2, 1<<40).Draw(t, "n")
		want := uint64(0)
		for d := uint64(2); d < 752 && want == 0; d++ {
			if n%d == 0 {
				want = d
			}
		}
		if got := smallFactor(new(big.Int).SetUint64(n)); got != want {
			t.Fatalf("%d: got %d, want %d", n, got, want)
		}
	})
}

// TestSmallFactorOfLargeNumbers: dividing word by word finds what dividing by each prime finds.
func TestSmallFactorOfLargeNumbers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := new(big.Int).SetBytes(rapid.SliceOfN(rapid.Byte(), 1, 260).Draw(t, "n"))
		n.Add(n, big.NewInt(1)) // positive
		want := uint64(0)
		for p := uint64(2); p < 752 && want == 0; p++ {
			if isPrime(p) && new(big.Int).Mod(n, new(big.Int).SetUint64(p)).Sign() == 0 {
				want = p
			}
		}
		got := smallFactor(n)
		if (got == 0) != (want == 0) || got != 0 && new(big.Int).Mod(n, new(big.Int).SetUint64(got)).Sign() != 0 {
			t.Fatalf("smallFactor(%v) = %d, want %d or another", n, got, want)
		}
	})
}
