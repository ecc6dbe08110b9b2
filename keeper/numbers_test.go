package keeper

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// ofScope gives a CRL an issuingDistributionPoint of its own.
func ofScope(n uint32) func(*x509.RevocationList) {
	value := binary.BigEndian.AppendUint32([]byte{0x30, 6, 0x83, 4}, n)
	return func(l *x509.RevocationList) {
		l.ExtraExtensions = append(l.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: value})
	}
}

// askList asks for a CRL at a time.
func (g *guard) askList(t *testing.T, a *authority, number *big.Int, now time.Time, changes ...func(*x509.RevocationList)) error {
	t.Helper()
	l := newList(1, changes...)
	l.Number, l.ThisUpdate, l.NextUpdate = number, now, now.Add(time.Hour)
	message := a.list(t, l)
	r, err := g.key.read(message, now)
	if err != nil {
		return err
	}
	if err := g.checkProgress(r, nil, now); err != nil {
		return err
	}
	g.note(r)
	return nil
}

// goesOn is what the service does: it numbers by the time, and where the keeper has passed that, above what it is told.
func (g *guard) goesOn(t *testing.T, a *authority, now time.Time, changes ...func(*x509.RevocationList)) {
	t.Helper()
	err := g.askList(t, a, big.NewInt(now.UnixMilli()), now, changes...)
	if passed := (*PassedNumberError)(nil); errors.As(err, &passed) {
		err = g.askList(t, a, new(big.Int).Add(passed.LastNumber(), big.NewInt(1)), now, changes...)
	}
	if err != nil {
		t.Errorf("the next CRL: %v", err)
	}
}

// Whoever may ask for signatures for a while, and asks for the highest numbers that there are, leaves room for the next CRL.
func TestNobodyUsesUpCRLNumbers(t *testing.T) {
	now := time.Now()
	for what, from := range map[string]*big.Int{"of the time": nil, "of an authority whose numbers are higher": power(100, 0)} {
		t.Run(what, func(t *testing.T) {
			a, g := guarded(t, 0, func(p *KeyPolicy) { p.CRLs.NumbersFrom = from })
			highest := g.key.CRLs.highest(now)
			if err := g.askList(t, a, power(159, -1), now); err == nil {
				t.Fatal("the highest number that there is was signed, the first of its scope")
			}
			for back := int64(100); back >= 0; back-- {
				if err := g.askList(t, a, new(big.Int).Sub(highest, big.NewInt(back)), now); err != nil {
					t.Fatal(err)
				}
			}
			for _, more := range []int64{1, 2, 1000} {
				if err := g.askList(t, a, new(big.Int).Add(highest, big.NewInt(more)), now); err == nil {
					t.Fatalf("a number %d above the highest was signed", more)
				}
			}
			g.goesOn(t, a, now.Add(time.Second))
			g.goesOn(t, a, now.Add(time.Second+time.Millisecond))
		})
	}
}

// Scopes that somebody made up leave room for those that there are, whose numbers go on rising.
func TestNobodyUsesUpCRLScopes(t *testing.T) {
	now := time.Now()
	a, g := guarded(t, 0)
	first := big.NewInt(now.UnixMilli())
	if err := g.askList(t, a, first, now); err != nil {
		t.Fatal(err)
	}
	for n := range uint32(maxScopes + 20) {
		if err := g.askList(t, a, g.key.CRLs.highest(now), now, ofScope(n)); err != nil && n < maxScopes {
			t.Fatalf("scope %d: %v", n, err)
		}
	}
	if len(g.numbers) > maxScopes {
		t.Errorf("%d scopes are remembered", len(g.numbers))
	}
	var passed *PassedNumberError
	if err := g.askList(t, a, first, now); !errors.As(err, &passed) || passed.LastNumber().Cmp(first) < 0 {
		t.Errorf("a number that does not rise, of a scope that was forgotten: %v", err)
	}
	later := now.Add(time.Second)
	g.goesOn(t, a, later)
	g.goesOn(t, a, later.Add(time.Second))
	for n := range uint32(10) {
		g.goesOn(t, a, later, ofScope(1<<31+n))
	}
}

// However many scopes there are, and in whatever order their numbers are noted, none begins below its last.
func TestNumbersRiseWhateverIsForgotten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		known, highest := numbers{}, map[string]string{}
		for n := range maxScopes - 3 {
			known.note(big.NewInt(int64(n)).Text(16), "5")
		}
		scopes := rapid.SampledFrom([]string{"full", "u", "v", "w", "x", "y", "z"})
		for range rapid.IntRange(1, 60).Draw(t, "times") {
			scope, number := scopes.Draw(t, "scope"), big.NewInt(rapid.Int64Range(1, 30).Draw(t, "number")).String()
			known.note(scope, number)
			if longer(number, highest[scope]) {
				highest[scope] = number
			}
			for scope, number := range highest {
				if longer(number, known.last(scope)) {
					t.Fatalf("scope %s begins above %q, and had %s", scope, known.last(scope), number)
				}
			}
			if len(known) > maxScopes {
				t.Fatalf("%d are remembered", len(known))
			}
		}
	})
}
