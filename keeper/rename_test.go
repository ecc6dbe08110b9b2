package keeper

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
)

// authoritiesIn makes the keys of two authorities in one token.
func authoritiesIn(t *testing.T, fixture *hsmtest.Token) (first, second *authority) {
	t.Helper()
	token := fixture.Open(t)
	made := func(label string) *authority {
		ref, public, err := token.Generate(hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: label})
		if err != nil {
			t.Fatal(err)
		}
		key, err := token.Signer(ref, public)
		if err != nil {
			t.Fatal(err)
		}
		return &authority{fixture: fixture, ref: ref, certificate: selfSigned(t, key, 0)}
	}
	first, second = made("first"), made("second")
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	return first, second
}

// listed has the key sign a CRL.
func (a *authority) listed(key crypto.Signer, number int64) error {
	der, err := x509.CreateRevocationList(rand.Reader, newList(number), a.certificate, key)
	if err != nil {
		return err
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return err
	}
	return list.CheckSignatureFrom(a.certificate)
}

// TestMemoryFollowsTheKey: what a key has signed is remembered of the key, whatever the policy calls it.
func TestMemoryFollowsTheKey(t *testing.T) {
	t.Parallel()
	fixture := hsmtest.New(t)
	first, second := authoritiesIn(t, fixture)
	config, log := first.config(t, fixture.Config())
	called := func(nameOfFirst, nameOfSecond string) (r *running, ofFirst, ofSecond hsm.Signer) {
		t.Helper()
		config.Keys = []KeyPolicy{first.policy(), second.policy()}
		for i, name := range []string{nameOfFirst, nameOfSecond} {
			config.Keys[i].Name, config.Keys[i].Total = name, 3
		}
		r = start(t, config, log)
		return r, r.signer(t, first.certificate.PublicKey), r.signer(t, second.certificate.PublicKey)
	}
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused := func(what, why string, err error) {
		t.Helper()
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want a refusal with %q", what, err, why)
		}
	}
	r, ofFirst, ofSecond := called("one", "two")
	must("a first CRL", first.listed(ofFirst, 10))
	must("a certificate", first.issue(ofFirst, leaf()))
	must("a CRL of the second", second.listed(ofSecond, 7))
	r.stop()

	r, ofFirst, ofSecond = called("two", "one")
	refused("the same CRL number after the names were swapped", "does not rise above 10", first.listed(ofFirst, 10))
	must("a number that rises for the second alone", second.listed(ofSecond, 9))
	must("the third signature of the first", first.issue(ofFirst, leaf()))
	refused("the fourth", "as often as its policy permits", first.issue(ofFirst, leaf()))
	r.stop()

	r, ofFirst, ofSecond = called("renamed", "two")
	refused("the fourth, after a rename", "as often as its policy permits", first.issue(ofFirst, leaf()))
	refused("a CRL number that went back, after a rename", "does not rise above 9", second.listed(ofSecond, 8))
	must("the third signature of the second", second.issue(ofSecond, leaf()))
	refused("the fourth of the second", "as often as its policy permits", second.issue(ofSecond, leaf()))
	r.stop()
	for _, e := range readEntries(t, config.Journal) {
		if named := e.Key != ""; named != (len(e.SPKI) == 64) {
			t.Errorf("%+v", e)
		}
	}
}

// TestJournalThatKnowsNames: what was written before entries named the key itself is honoured, once, for the key that has the name then.
func TestJournalThatKnowsNames(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal")
	first, second, third := logKey(t), logKey(t), logKey(t)
	checkpoint := func(name, size string) entry {
		return entry{Key: name, Kind: kindCheckpoint, Detail: size, SHA256: strings.Repeat(size[:1], 64), Result: resultSigned}
	}
	old := openTestJournal(t, path)
	addAll(t, old, checkpoint("one", "10"))
	addAll(t, old, checkpoint("two", "20"))
	addAll(t, old, checkpoint("three", "30"))
	closeJournal(t, old)

	// begun is a keeper's start with these names, and what it then remembers of each, by size.
	begun := func(names map[*guard]string) map[*guard]uint64 {
		t.Helper()
		j := openTestJournal(t, path)
		defer closeJournal(t, j)
		var keys []*held
		for g, name := range names {
			g.key.Name = name
			keys = append(keys, &held{key: g.key})
		}
		if err := j.adopt(keys, slog.New(slog.DiscardHandler)); err != nil {
			t.Fatal(err)
		}
		sizes := map[*guard]uint64{}
		for g := range names {
			sizes[g] = j.memories()[g.key.inHex].Size
		}
		return sizes
	}
	for _, c := range []struct {
		what  string
		names map[*guard]string
		want  map[*guard]uint64
	}{
		{"the names of then, but one", map[*guard]string{first: "one", second: "two"}, map[*guard]uint64{first: 10, second: 20}},
		{"swapped names", map[*guard]string{first: "two", second: "one"}, map[*guard]uint64{first: 10, second: 20}},
		{"a new key with the name of another", map[*guard]string{third: "one", second: "else"}, map[*guard]uint64{third: 0, second: 20}},
		{"a key that comes back under its name", map[*guard]string{first: "else", third: "three"}, map[*guard]uint64{first: 10, third: 30}},
		{"and then has another", map[*guard]string{third: "one", first: "three"}, map[*guard]uint64{first: 10, third: 30}},
	} {
		if got := begun(c.names); !maps.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.what, slices.Collect(maps.Values(got)), slices.Collect(maps.Values(c.want)))
		}
	}
	// What is known of the key itself goes before what is known of its name.
	j := openTestJournal(t, path)
	addAll(t, j, checkpoint("one", "99"))
	closeJournal(t, j)
	if got := begun(map[*guard]string{first: "one"}); got[first] != 10 {
		t.Errorf("a name's memory took the place of the key's: %v", got[first])
	}
	adoptions := 0
	for _, e := range readEntries(t, path) {
		if strings.Contains(e.Why, "the key's own from now on") {
			adoptions++
		}
	}
	if adoptions != 2 {
		t.Errorf("names were given to keys %d times, want 2", adoptions)
	}
}
