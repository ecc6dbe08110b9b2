package ca

import (
	"context"
	"math/big"
	"sync"
	"sync/atomic"
	"testing"
	"time"
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
