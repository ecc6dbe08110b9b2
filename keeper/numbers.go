package keeper

import (
	"fmt"
	"math/big"
	"time"
)

// CRL numbers are made of the time: Unix milliseconds, or one more than the last. So a key signs none that is far ahead of it, be it the
// first of its scope: nobody who may ask for signatures for a while can use up the numbers of the time after.

const (
	// maxScopes is how many scopes are remembered: more than an authority has shards.
	maxScopes = 1100
	// otherScopes stands for those that are not, in numbers.
	otherScopes = "others"
)

// numbers are the last CRL numbers of a key, in decimal, by scope. Where there are more than maxScopes, those with the lowest numbers are
// forgotten, and otherScopes has the highest that was: a scope that is not known begins above it. So the numbers of each rise, whatever was
// forgotten, and nobody can use up the room with scopes that he made up.
type numbers map[string]string

// last is the number above which the next of the scope lies; empty: any will do.
func (n numbers) last(scope string) string {
	if last, known := n[scope]; known {
		return last
	}
	return n[otherScopes]
}

// note notes a number. Two that were allowed one after the other may be noted in the other order.
func (n numbers) note(scope, number string) {
	if !longer(number, n.last(scope)) {
		return
	}
	n[scope] = number
	for len(n) > maxScopes {
		n.forget()
	}
}

// forget forgets the scope with the lowest number.
func (n numbers) forget() {
	lowest := ""
	for scope, number := range n {
		if scope != otherScopes && (lowest == "" || longer(n[lowest], number) || number == n[lowest] && scope < lowest) {
			lowest = scope
		}
	}
	if longer(n[lowest], n[otherScopes]) {
		n[otherScopes] = n[lowest]
	}
	delete(n, lowest)
}

// longer compares two numbers in decimal.
func longer(a, b string) bool { return len(a) > len(b) || len(a) == len(b) && a > b }

// highest is the highest CRL number that is signed at a time.
func (p *CRLPolicy) highest(now time.Time) *big.Int {
	highest := big.NewInt(now.Add(skew).UnixMilli())
	if p.NumbersFrom != nil {
		highest.Add(highest, p.NumbersFrom)
	}
	return highest
}

// checkNumber refuses a CRL number that does not rise, and one that is ahead of the time.
func (g *guard) checkNumber(l list, now time.Time) error {
	if last := g.numbers.last(l.scope); !longer(l.number.String(), last) {
		n, _ := ParseCRLNumber(last)
		return &PassedNumberError{last: n}
	}
	if highest := g.key.CRLs.highest(now); l.number.Cmp(highest) > 0 {
		return refuse("the CRL number %s is above %s: it leaps ahead of the time, which numbers are made of. Where an authority's are "+
			"higher, its policy says so (numbers_from)", l.number, highest)
	}
	return nil
}

// ParseCRLNumber reads a CRL number in decimal.
func ParseCRLNumber(text string) (*big.Int, error) {
	n, ok := new(big.Int).SetString(text, 10)
	if !ok || n.Sign() <= 0 || n.BitLen() > maxNumberBits || n.String() != text {
		return nil, fmt.Errorf("%q is not a CRL number", text)
	}
	return n, nil
}

// PassedNumberError says that the key has signed the CRL number, or a higher one, in the same scope, and which was the last: a number above
// it is decided on. It comes with ErrRefused.
type PassedNumberError struct{ last *big.Int }

func (e *PassedNumberError) Error() string {
	return fmt.Sprintf("the CRL number does not rise above %s, the last that the key signed in its scope", e.last)
}

// LastNumber is the last CRL number of the scope.
func (e *PassedNumberError) LastNumber() *big.Int { return new(big.Int).Set(e.last) }
