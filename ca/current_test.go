package ca

import (
	"context"
	"errors"
	"math/big"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-ca/chancery/access"
)

// slow is a store that holds a CRL, and takes its time to give it.
type slow struct {
	Store
	record CRLRecord
	reads  atomic.Int32
	give   chan struct{} // closed when it gives
}

func (s *slow) CurrentCRL(ctx context.Context, _, _ string, unless *big.Int) (CRLRecord, error) {
	s.reads.Add(1)
	select {
	case <-s.give:
	case <-ctx.Done():
		return CRLRecord{}, ctx.Err()
	}
	r := s.record
	if unless != nil && unless.Cmp(r.Number) == 0 {
		r.DER = nil
	}
	return r, nil
}

// A long CRL that another replica made is read once, however many ask for it, and arrives although it takes longer than any of them waits.
func TestALongCRLIsReadOnce(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	a, _ := openAuthority(t, "issuing-1", now)
	clock := func() time.Time { return now }
	maker := publishing(&quiet{now: clock, number: new(big.Int)}, clock, a)
	publish := func() CRLRecord {
		if err := maker.publish(context.Background(), CRLDue{Issuer: a.Name, Scope: FullScope}); err != nil {
			t.Fatal(err)
		}
		r, _, _ := maker.publications.cached(crlID{issuer: a.Name, scope: FullScope})
		return r
	}
	first := publish()
	now = now.Add(time.Minute)
	second := publish()
	store := &slow{record: second, give: make(chan struct{})}
	c := publishing(store, clock, a)
	c.publications.keep(first, now.Add(-time.Minute), 0)

	var asking sync.WaitGroup
	for range 20 {
		asking.Go(func() {
			got, err := c.CurrentCRL(context.Background(), a.Name, FullScope)
			if err != nil || got.Number.Cmp(first.Number) != 0 {
				t.Errorf("while the next one is read: %v, %v", got.Number, err)
			}
		})
	}
	asking.Wait()
	if n := store.reads.Load(); n != 1 {
		t.Errorf("it is read %d times at once", n)
	}
	close(store.give)
	c.publications.work.Wait()
	if got, err := c.CurrentCRL(context.Background(), a.Name, FullScope); err != nil || got.Number.Cmp(second.Number) != 0 {
		t.Errorf("nobody waits for it any more, and it has not arrived: %v, %v", got.Number, err)
	}
}

// A CRL of which nothing is known here is read once, too. Whoever leaves takes it from none who wait, and when all have left nobody reads it.
func TestTheFirstCRLIsReadOnce(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	a, _ := openAuthority(t, "issuing-1", now)
	clock := func() time.Time { return now }
	made := &upgraded{quiet: quiet{now: clock, number: new(big.Int)}}
	if err := publishing(made, clock, a).publish(t.Context(), CRLDue{Issuer: a.Name, Scope: FullScope}); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		store := &slow{record: made.made[0], give: make(chan struct{})}
		c := publishing(store, clock, a)
		ask := func(ctx context.Context) <-chan error {
			answer := make(chan error, 1)
			go func() {
				got, err := c.CurrentCRL(ctx, a.Name, FullScope)
				if err == nil && len(got.DER) == 0 {
					err = errors.New("there is nothing to serve")
				}
				answer <- err
			}()
			synctest.Wait()
			return answer
		}
		alone, leave := context.WithCancel(t.Context())
		left := ask(alone)
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) || !errors.Is(err, ErrUnavailable) {
			t.Errorf("who has left: %v", err)
		}
		c.publications.work.Wait() // nobody waits for it: it ends
		if n := len(c.publications.byID) + len(c.publications.first); n > 0 {
			t.Errorf("%d entries are left of what was asked for", n)
		}

		first, leave := context.WithCancel(t.Context())
		left = ask(first)
		var waiting []<-chan error
		for range 20 {
			waiting = append(waiting, ask(t.Context()))
		}
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("who asked first and has left: %v", err)
		}
		close(store.give)
		for _, answer := range waiting {
			if err := <-answer; err != nil {
				t.Errorf("who waited: %v", err)
			}
		}
		if n := store.reads.Load(); n != 2 { // with the one that ended
			t.Errorf("it was read %d times", n-1)
		}
	})
}

// TestALowerNumberIsNotServedAgain: a CRL that was recorded, and kept here only after another replica's next one had been read.
func TestALowerNumberIsNotServedAgain(t *testing.T) {
	now := time.Now()
	p := newPublications()
	id := crlID{issuer: "issuing-1", scope: FullScope}
	record := func(number int64) CRLRecord {
		return CRLRecord{Issuer: id.issuer, Scope: id.scope, Number: big.NewInt(number), DER: []byte{byte(number)}}
	}
	p.keep(record(1), now, 0)
	p.refresh(id, record(3), now)
	p.keep(record(2), now, time.Second)
	if got, _, _ := p.cached(id); got.Number.Int64() != 3 {
		t.Errorf("number %s is served after 3", got.Number)
	}
	p.spoil(id, now) // 3 cannot be served: what replaces it may
	p.keep(record(2), now, time.Second)
	if got, _, _ := p.cached(id); got.Number.Int64() != 2 {
		t.Errorf("number %s is served though it cannot be", got.Number)
	}
}

// shelf is a store with the CRLs of some authorities.
type shelf struct {
	Store
	authorities []AuthorityRecord
	crls        map[string]CRLRecord
}

func (s *shelf) Authorities(ctx context.Context) ([]AuthorityRecord, error) {
	return s.authorities, ctx.Err()
}

func (s *shelf) CRLStates(_ context.Context, issuer string) ([]CRLState, error) {
	return []CRLState{{Scope: FullScope, Number: s.crls[issuer].Number}}, nil
}

func (s *shelf) CurrentCRL(_ context.Context, issuer, _ string, _ *big.Int) (CRLRecord, error) {
	return s.crls[issuer], nil
}

func (s *shelf) CurrentDelta(context.Context, string, string, *big.Int) (CRLRecord, error) {
	return CRLRecord{}, ErrNotFound
}

// TestACRLThatCannotBeReadHidesNoOther: that of one authority suffered in the database, and those of the others are served and mirrored.
func TestACRLThatCannotBeReadHidesNoOther(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	clock := func() time.Time { return now }
	store := &shelf{crls: map[string]CRLRecord{}}
	for _, name := range []string{"issuing-1", "issuing-2", "issuing-3"} {
		a, _ := openAuthority(t, name, now)
		made := &upgraded{quiet: quiet{now: clock, number: new(big.Int)}}
		if err := publishing(made, clock, a).publish(t.Context(), CRLDue{Issuer: name, Scope: FullScope}); err != nil {
			t.Fatal(err)
		}
		store.authorities, store.crls[name] = append(store.authorities, a.AuthorityRecord), made.made[0]
	}
	bad := store.crls["issuing-2"]
	bad.DER = bad.DER[:60]
	store.crls["issuing-2"] = bad
	own, _ := openAuthority(t, "issuing-4", now)
	c := publishing(store, clock, own)
	c.mirrors = newMirrorings(map[string]CRLMirror{"one": &heldBack{}})
	if err := c.LearnPublished(t.Context()); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "issuing-2") {
		t.Errorf("%v does not tell of the CRL that cannot be read", err)
	}
	for name, want := range map[string]bool{"issuing-1": true, "issuing-2": false, "issuing-3": true} {
		id := crlID{issuer: name, scope: FullScope}
		_, _, known := c.publications.cached(id)
		if _, mirrored := c.mirrors[0].waiting[id]; known != want || mirrored != want {
			t.Errorf("the CRL of %s is known: %t, mirrored: %t; want %t", name, known, mirrored, want)
		}
	}
	auditor := access.Actor{ID: "token-1", Namespace: access.AllNamespaces, Roles: []access.Role{access.Auditor}}
	states, err := c.Authorities(t.Context(), auditor)
	if err != nil || len(states) != 3 || states[0].Current == nil || states[1].Current != nil || states[2].Current == nil {
		t.Errorf("the authorities are %+v, %v", states, err)
	}
}

// TestWhoLeavesHidesNoAuthority: the list of authorities is read for all who ask for it meanwhile, and whoever asked first may leave.
func TestWhoLeavesHidesNoAuthority(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	a, _ := openAuthority(t, "issuing-1", now)
	store := &shelf{authorities: []AuthorityRecord{a.AuthorityRecord}}
	c := publishing(store, func() time.Time { return now }, a)
	if _, err := c.PublicAuthority(t.Context(), a.Name); err != nil {
		t.Fatal(err)
	}
	b, _ := openAuthority(t, "issuing-2", now)
	store.authorities = append(store.authorities, b.AuthorityRecord)
	now = now.Add(directoryFreshness)
	left, leave := context.WithCancel(t.Context())
	leave()
	_, _ = c.PublicAuthority(left, b.Name)
	if _, err := c.PublicAuthority(t.Context(), b.Name); err != nil {
		t.Errorf("the new authority is hidden by who left: %v", err)
	}
}
