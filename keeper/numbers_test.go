package keeper

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// ofScope gives a CRL an issuingDistributionPoint of its own.
func ofScope(n uint32) func(*x509.RevocationList) {
	return distributed(inside(0x30, distributionPoint(fmt.Sprintf("http://ca.example/crl/%d.crl", n))))
}

// distributed gives a CRL an issuingDistributionPoint.
func distributed(value string) func(*x509.RevocationList) {
	return func(l *x509.RevocationList) {
		l.ExtraExtensions = append(l.ExtraExtensions, pkix.Extension{
			Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: []byte(value),
		})
	}
}

// inside is an element of DER with a content of at most 127 octets.
func inside(tag byte, content ...string) string {
	whole := strings.Join(content, "")
	return string([]byte{tag, byte(len(whole))}) + whole
}

// distributionPoint is the field of that name, with the full name of URLs.
func distributionPoint(urls ...string) string {
	var names []string
	for _, url := range urls {
		names = append(names, inside(0x86, url))
	}
	return inside(0xa0, inside(0xa0, names...))
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

// TestAScopeHasOneSpelling: what says the same in other octets is refused, and so is what no CRL of ours says. Otherwise each were a scope
// of its own, whose numbers begin anew.
func TestAScopeHasOneSpelling(t *testing.T) {
	const users, authorities, url = "\x81\x01\xff", "\x82\x01\xff", "http://ca.example/crl/a/7.crl"
	point, now := distributionPoint(url), time.Now()
	a, g := guarded(t, 0)
	number := big.NewInt(now.UnixMilli())
	for what, value := range map[string]string{
		"empty":                              inside(0x30),
		"FALSE spelt out":                    inside(0x30, "\x81\x01\x00"),
		"FALSE spelt out, of another":        inside(0x30, "\x84\x01\x00"),
		"TRUE in BER":                        inside(0x30, "\x81\x01\x01"),
		"TRUE twice":                         inside(0x30, users, users),
		"TRUE of two octets":                 inside(0x30, "\x81\x02\xff\xff"),
		"a shard with FALSE spelt out":       inside(0x30, point, "\x81\x01\x00"),
		"subscribers and authorities":        inside(0x30, users, authorities),
		"authorities and subscribers":        inside(0x30, authorities, users),
		"all three":                          inside(0x30, users, authorities, "\x85\x01\xff"),
		"attribute certificates":             inside(0x30, "\x85\x01\xff"),
		"an indirect CRL":                    inside(0x30, "\x84\x01\xff"),
		"some reasons":                       inside(0x30, "\x83\x02\x06\x40"),
		"a shard in another order":           inside(0x30, users, point),
		"a shard twice":                      inside(0x30, point, point),
		"a shard of two URLs":                inside(0x30, distributionPoint(url, url)),
		"a shard of no URL":                  inside(0x30, distributionPoint()),
		"a shard of an empty URL":            inside(0x30, distributionPoint("")),
		"a shard of a URL with a space":      inside(0x30, distributionPoint(url+" ")),
		"a shard of a URL with an end":       inside(0x30, distributionPoint(url+"\x00")),
		"a shard of a DNS name":              inside(0x30, inside(0xa0, inside(0xa0, inside(0x82, "ca.example")))),
		"a shard of a relative name":         inside(0x30, inside(0xa0, inside(0xa1, inside(0x30, "\x06\x03\x55\x04\x03\x0c\x01a")))),
		"a shard of nothing":                 inside(0x30, inside(0xa0)),
		"a length in BER":                    "\x30\x81\x03" + users,
		"no issuingDistributionPoint":        inside(0x30, "\xff\xff\xff"),
		"something behind":                   inside(0x30, users) + "\x05\x00",
		"a SET":                              inside(0x31, users),
		"nothing at all":                     "",
		"of a field that nobody has defined": inside(0x30, users, "\x86\x01\xff"),
	} {
		if err := g.askList(t, a, number, now, distributed(value)); err == nil || !strings.Contains(err.Error(), "the issuingDistributionPoint") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := g.askList(t, a, number, now, distributed(inside(0x30, users)), func(l *x509.RevocationList) {
		l.ExtraExtensions[0].Critical = false
	}); err == nil {
		t.Error("an issuingDistributionPoint that is not critical")
	}
	for what, value := range map[string]string{
		"subscribers": inside(0x30, users), "authorities": inside(0x30, authorities), "a shard": inside(0x30, point),
		"a shard's subscribers": inside(0x30, point, users), "a shard's authorities": inside(0x30, point, authorities),
	} {
		if err := g.askList(t, a, number, now, distributed(value)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if err := g.askList(t, a, number, now, distributed(value)); err == nil {
			t.Errorf("%s: the number was signed twice", what)
		}
	}
}

// TestScopesOfBefore: the numbers that a journal has of a scope stay those of this scope, whichever program wrote them down.
func TestScopesOfBefore(t *testing.T) {
	now := time.Now()
	a, g := guarded(t, 0)
	last := big.NewInt(now.UnixMilli()).String()
	g, err := newGuard(g.key, memory{Numbers: numbers{
		"full": last, "7d425965b4d12bc1": last, "2539f30914e57ba1": last, "c8cb284c27b79083": last,
	}})
	if err != nil {
		t.Fatal(err)
	}
	point := distributionPoint("http://ca.example/crl/a/7.crl")
	for what, change := range map[string]func(*x509.RevocationList){
		"full": func(*x509.RevocationList) {}, "a shard": distributed(inside(0x30, point)),
		"a shard's subscribers": distributed(inside(0x30, point, "\x81\x01\xff")), "authorities": distributed(inside(0x30, "\x82\x01\xff")),
	} {
		var passed *PassedNumberError
		if err := g.askList(t, a, big.NewInt(now.UnixMilli()), now, change); !errors.As(err, &passed) {
			t.Errorf("%s: the number on record was signed again: %v", what, err)
		}
		g.goesOn(t, a, now.Add(time.Second), change)
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
