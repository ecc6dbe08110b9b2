package ca

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/issuance"
)

// scoped is a store that keeps the CRLs of the scopes of one authority. A certificate is revoked, and a delta may be due.
type scoped struct {
	quiet
	scopes   []string
	due      []CRLDue
	changed  []issuance.RevokedEntry
	complete map[string]CRLRecord
	made     []CRLRecord
}

func (s *scoped) DueCRLs(context.Context, []CRLSchedule) ([]CRLDue, error) {
	return slices.Clone(s.due), nil
}

func (s *scoped) ClaimCRL(ctx context.Context, ask CRLAsk) (CRLClaim, error) {
	claim, err := s.quiet.ClaimCRL(ctx, ask)
	claim.Alone, claim.Published, claim.Changes = len(s.scopes) == 1, s.complete[ask.Scope].Number, slices.Clone(s.changed)
	return claim, err
}

func (s *scoped) RecordCRL(_ context.Context, r CRLRecord, _ int64, _ ...audit.Leaf) error {
	s.made = append(s.made, r)
	if r.Base == nil {
		s.complete[r.Scope] = r
	}
	return nil
}

func (s *scoped) CurrentCRL(_ context.Context, _, scope string, unless *big.Int) (CRLRecord, error) {
	r := s.complete[scope]
	switch {
	case r.Number == nil:
		return r, ErrNotFound
	case unless != nil && unless.Cmp(r.Number) == 0:
		r.DER = nil
	}
	return r, nil
}

// take is what was made since it was asked last.
func (s *scoped) take() (made []CRLRecord) {
	made, s.made = s.made, nil
	return made
}

// pair reads a complete CRL and its delta, and checks that clients take them together.
func pair(t *testing.T, complete, delta CRLRecord) (of, to *issuance.ReadList) {
	t.Helper()
	var read [2]*issuance.ReadList
	for n, r := range []CRLRecord{complete, delta} {
		var err error
		if read[n], err = issuance.ReadCRL(r.DER); err != nil {
			t.Fatal(err)
		}
	}
	of, to = read[0], read[1]
	if of.Base != nil || to.Base == nil || to.Base.Cmp(of.Number) != 0 || to.Distribution != of.Distribution || to.Contains != of.Contains {
		t.Fatalf("a delta to %v for %q and %d, of a complete CRL %s for %q and %d", to.Base, to.Distribution, to.Contains, of.Number,
			of.Distribution, of.Contains)
	}
	return of, to
}

// A complete CRL of the form that is wanted now is made before deltas go on, once; and a delta has the scope of its base even so, or no
// client would take it (RFC 5280, sections 5.2.4 and 6.3.3 (c)), and a revoked certificate would pass.
func TestADeltaHasTheScopeOfItsBase(t *testing.T) {
	for what, change := range map[string]func(*testing.T, *CA, *Authority, *scoped){
		"shards": func(_ *testing.T, _ *CA, a *Authority, s *scoped) {
			a.lists.Shards, s.scopes = 2, append(s.scopes, "0", "1")
		},
		"shards of another replica's": func(t *testing.T, c *CA, a *Authority, s *scoped) {
			s.scopes = append(s.scopes, "0", "1")
			if err := c.publish(t.Context(), CRLDue{Issuer: a.Name, Scope: "0"}); err != nil {
				t.Fatal(err)
			}
			s.take()
		},
		"contents":   func(_ *testing.T, _ *CA, a *Authority, _ *scoped) { a.lists.Contains = issuance.UserCertificates },
		"deltas now": func(_ *testing.T, _ *CA, a *Authority, _ *scoped) { a.lists.DeltaPeriod = time.Minute },
	} {
		for _, restarted := range []bool{false, true} {
			if restarted && what == "shards of another replica's" {
				continue // it has learnt nothing yet
			}
			now := time.Now().UTC().Truncate(time.Second)
			clock := func() time.Time { return now }
			a, key := openAuthority(t, "issuing-1", now)
			if what != "deltas now" {
				a.lists.DeltaPeriod = time.Minute
			}
			store := &scoped{quiet: quiet{now: clock, number: new(big.Int)}, scopes: []string{FullScope}, complete: map[string]CRLRecord{}}
			c := publishing(store, clock, a)
			if err := c.publish(t.Context(), CRLDue{Issuer: a.Name, Scope: FullScope}); err != nil {
				t.Fatal(err)
			}
			old := store.take()[0]
			change(t, c, a, store)
			if restarted {
				c = publishing(store, clock, a)
			}
			now = now.Add(2 * time.Second)
			store.changed = []issuance.RevokedEntry{{
				CRLEntry: issuance.CRLEntry{Serial: []byte{5}, RevokedAt: now, Reason: issuance.KeyCompromise}, NotAfter: now.Add(time.Hour),
			}}
			revoked := CRLDue{Issuer: a.Name, Scope: FullScope, Delta: true, Why: "revocation"}
			if err := c.publish(t.Context(), revoked); err != nil { // which a replica of other configuration does
				t.Fatal(err)
			}
			early := store.take()[0]
			pair(t, old, early)
			if what != "deltas now" && !opensslTells(t, a, key, now, old, early) {
				t.Errorf("%s: by the delta that was made before, the revoked certificate passes", what)
			}

			now = now.Add(2 * time.Second)
			store.due = []CRLDue{revoked}
			c.PublishDue(t.Context())
			now = now.Add(2 * time.Second)
			c.PublishDue(t.Context())
			made := store.take()
			if len(made) != 2 {
				t.Fatalf("%s: %d CRLs are made, want a complete one and its delta", what, len(made))
			}
			complete, _ := pair(t, made[0], made[1])
			if !a.says(complete, FullScope, len(store.scopes) == 1) {
				t.Errorf("%s: the new complete CRL is %+v", what, complete)
			}
			if !opensslTells(t, a, key, now, made...) {
				t.Errorf("%s: the revoked certificate passes", what)
			}
			store.due = nil
			for range 100 {
				now = now.Add(time.Hour)
				c.PublishDue(t.Context())
			}
			if made := store.take(); len(made) > 0 {
				t.Errorf("%s: %d more are made", what, len(made))
			}
		}
	}
}

// opensslTells tells whether openssl finds the certificate with the serial number 5 revoked by CRLs and their deltas.
func opensslTells(t *testing.T, a *Authority, key *fickle, now time.Time, crls ...CRLRecord) bool {
	t.Helper()
	point := a.Distribution(FullScope)
	at := func(arc int, url string) pkix.Extension {
		type name struct {
			URLs []asn1.RawValue `asn1:"tag:0"`
		}
		type distributionPoint struct {
			Name name `asn1:"tag:0"`
		}
		value, err := asn1.Marshal([]distributionPoint{{name{[]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(url)}}}}})
		if err != nil {
			t.Fatal(err)
		}
		return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, arc}, Value: value}
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(5), Subject: pkix.Name{CommonName: "leaf"}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 1, 0),
		ExtraExtensions: []pkix.Extension{at(31, point.URL), at(46, point.DeltaURL)},
	}, a.Certificate, leafKey.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, all ...[]byte) string {
		var text []byte
		for _, der := range all {
			text = append(text, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var lists [][]byte
	for _, r := range crls {
		lists = append(lists, r.DER)
	}
	out, err := exec.Command("openssl", "verify", "-attime", big.NewInt(now.Unix()).String(), "-crl_check", "-extended_crl", "-use_deltas",
		"-CRLfile", write("crls.pem", "X509 CRL", lists...), "-CAfile", write("ca.pem", "CERTIFICATE", a.Certificate.Raw),
		write("leaf.pem", "CERTIFICATE", leaf)).CombinedOutput()
	t.Logf("%s%v", out, err)
	return strings.Contains(string(out), "certificate revoked")
}

// Replicas of different configuration do not make complete CRLs in turn for as long as both run: each makes one at once, and the next ever
// later. Meanwhile deltas go on, whichever replica makes them.
func TestReplicasOfDifferentConfigurationComeToRest(t *testing.T) {
	start := time.Now().UTC().Truncate(time.Second)
	now := start
	clock := func() time.Time { return now }
	store := &scoped{quiet: quiet{now: clock, number: new(big.Int)}, scopes: []string{FullScope}, complete: map[string]CRLRecord{}}
	var replicas []*CA
	one, _ := openAuthority(t, "issuing-1", now)
	for _, contains := range []issuance.Contents{issuance.Everything, issuance.UserCertificates} {
		a, err := OpenAuthority(one.AuthorityRecord, one.Issuer)
		if err != nil {
			t.Fatal(err)
		}
		a.lists = CRLLists{DeltaPeriod: time.Minute, Contains: contains}
		replicas = append(replicas, publishing(store, clock, a))
	}
	first := CRLDue{Issuer: one.Name, Scope: FullScope}
	if err := replicas[0].publish(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	completes, deltas := 0, 0
	for now.Sub(start) < one.CRL.Period {
		now = now.Add(10 * time.Second)
		store.due = nil
		if now.Sub(start)%time.Hour == 0 {
			store.due = []CRLDue{{Issuer: one.Name, Scope: FullScope, Delta: true, Why: "schedule"}}
		}
		for _, c := range replicas {
			if _, err := c.CurrentCRL(t.Context(), one.Name, FullScope); err != nil { // as each learns it
				t.Fatal(err)
			}
			before := store.complete[FullScope]
			store.take()
			c.PublishDue(t.Context())
			for _, r := range store.take() {
				if r.Base == nil {
					completes++
					continue
				}
				deltas++
				pair(t, before, r)
			}
		}
	}
	if completes < 4 || completes > 26 || deltas < 40 {
		t.Errorf("in a period replicas of different configuration make %d complete CRLs, and %d deltas", completes, deltas)
	}
}

// A replica that goes on while the database fails over, or is restored, may serve a complete CRL that is on no record any more. What is
// revoked afterwards is on a delta all the same, at once: to the complete CRL that is on record, which those go with that are later.
func TestALostCompleteCRLHoldsUpNoDelta(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	clock := func() time.Time { return now }
	a, _ := openAuthority(t, "issuing-1", now)
	a.lists.DeltaPeriod = time.Minute
	store := &scoped{quiet: quiet{now: clock, number: new(big.Int)}, scopes: []string{FullScope}, complete: map[string]CRLRecord{}}
	c := publishing(store, clock, a)
	for range 2 {
		if err := c.publish(t.Context(), CRLDue{Issuer: a.Name, Scope: FullScope}); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Minute)
	}
	made := store.take()
	store.complete[FullScope], store.number = made[0], made[0].Number
	if err := c.publish(t.Context(), CRLDue{Issuer: a.Name, Scope: FullScope, Delta: true, Why: "revocation"}); err != nil {
		t.Fatal(err)
	}
	_, delta := pair(t, made[0], store.take()[0])
	if delta.Number.Cmp(made[1].Number) <= 0 {
		t.Errorf("the delta %s does not go with the complete CRL %s that was served", delta.Number, made[1].Number)
	}
	if served, err := c.CurrentCRL(t.Context(), a.Name, FullScope); err != nil || served.Number.Cmp(made[1].Number) != 0 {
		t.Errorf("the complete CRL %s is served, %v; want %s", served.Number, err, made[1].Number)
	}
}

// One that fails is tried again soon, and keeps no delta waiting until then.
func TestAFormThatCannotBeMadeHoldsUpNoDelta(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	p, id := newPublications(), crlID{issuer: "issuing-1", scope: FullScope}
	for _, c := range []struct {
		after time.Duration
		made  bool
		want  bool
	}{
		{0, false, true},
		{time.Second, false, false},
		{9 * time.Second, false, true}, // the first has failed
		{10 * time.Second, true, true},
		{19 * time.Second, false, false},
		{time.Second, true, true},
		{39 * time.Second, false, false},
		{time.Second, true, true},
		{59 * time.Second, false, false},
		{time.Second, false, true}, // the period
	} {
		now = now.Add(c.after)
		if got := p.mayReform(id, now); got != c.want {
			t.Errorf("after %s more: %v", c.after, got)
		}
		if c.made {
			p.reformed(id, time.Minute)
		}
	}
}

// TestWhatACompleteCRLSays compares the form of a complete CRL with that of the next.
func TestWhatACompleteCRLSays(t *testing.T) {
	a, _ := openAuthority(t, "issuing-1", time.Now())
	const url, delta = "http://ca.example/crl/issuing-1.crl", "http://ca.example/crl/issuing-1/delta.crl"
	const shard, shardDelta = "http://ca.example/crl/issuing-1/7.crl", "http://ca.example/crl/issuing-1/7/delta.crl"
	users, authorities := issuance.UserCertificates, issuance.AuthorityCertificates
	deltas := CRLLists{DeltaPeriod: time.Minute}
	for what, c := range map[string]struct {
		says  issuance.ReadList
		scope string
		alone bool
		lists CRLLists
		want  bool
	}{
		"nothing, of one that is alone":            {issuance.ReadList{}, FullScope, true, CRLLists{}, true},
		"nothing, of one of several":               {issuance.ReadList{}, FullScope, false, CRLLists{}, false},
		"its point":                                {issuance.ReadList{Distribution: url}, FullScope, false, CRLLists{}, true},
		"its point, though it seems to be alone":   {issuance.ReadList{Distribution: url}, FullScope, true, CRLLists{}, true},
		"another point":                            {issuance.ReadList{Distribution: shard}, FullScope, false, CRLLists{}, false},
		"another point, of one that is alone":      {issuance.ReadList{Distribution: shard}, FullScope, true, CRLLists{}, false},
		"a shard's point and delta":                {issuance.ReadList{Distribution: shard, Freshest: shardDelta}, "7", false, deltas, true},
		"a shard's point, and all's delta":         {issuance.ReadList{Distribution: shard, Freshest: delta}, "7", false, deltas, false},
		"a delta":                                  {issuance.ReadList{Freshest: delta}, FullScope, true, deltas, true},
		"a delta where there are none any more":    {issuance.ReadList{Freshest: delta}, FullScope, true, CRLLists{}, false},
		"no delta where there are some now":        {issuance.ReadList{}, FullScope, true, deltas, false},
		"subscribers":                              {issuance.ReadList{Contains: users}, FullScope, true, CRLLists{Contains: users}, true},
		"subscribers, where it is for all":         {issuance.ReadList{Contains: users}, FullScope, true, CRLLists{}, false},
		"all, where it is for subscribers":         {issuance.ReadList{}, FullScope, true, CRLLists{Contains: users}, false},
		"authorities, where it is for subscribers": {issuance.ReadList{Contains: authorities}, FullScope, true, CRLLists{Contains: users}, false},
	} {
		a.lists = c.lists
		if got := a.says(&c.says, c.scope, c.alone); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}
