package ca

import (
	"context"
	"crypto"
	"io"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
)

// pressing is a store in which the CRLs of some authorities are due.
type pressing struct {
	quiet
	due  chan CRLDue
	made chan string // the authorities of CRLs, in order
}

func (p *pressing) RecordCRL(_ context.Context, r CRLRecord, _ int64, _ ...audit.Leaf) error {
	p.made <- r.Issuer
	return nil
}

func (p *pressing) DueCRLs(_ context.Context, schedules []CRLSchedule) (all []CRLDue, err error) {
	select {
	case d := <-p.due:
		for _, s := range schedules {
			if s.Issuer == d.Issuer {
				return []CRLDue{d}, nil
			}
		}
		p.due <- d // for whoever asks next
	default:
	}
	return nil, nil
}

// hanging is a key that does not answer until it is let go.
type hanging struct {
	crypto.Signer
	asked, letGo chan struct{}
}

func (h *hanging) Sign(random io.Reader, digest []byte, options crypto.SignerOpts) ([]byte, error) {
	h.asked <- struct{}{}
	<-h.letGo
	return h.Signer.Sign(random, digest, options)
}

// A key that hangs does not keep other authorities' revocations from their CRLs.
func TestAKeyThatHangsHoldsUpNoOtherAuthority(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	clock := func() time.Time { return now }
	ill, key := openAuthority(t, "issuing-1", now)
	well, _ := openAuthority(t, "issuing-2", now)
	hung := &hanging{Signer: key.Signer, asked: make(chan struct{}), letGo: make(chan struct{})}
	key.Signer = hung
	store := &pressing{quiet: quiet{now: clock, number: new(big.Int)}, due: make(chan CRLDue, 1), made: make(chan string, 2)}
	c := publishing(store, clock, ill, well)

	ctx, end := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.keepPublishing(ctx)
	}()
	store.due <- CRLDue{Issuer: ill.Name, Scope: FullScope, Why: "revocation"}
	<-hung.asked
	store.due <- CRLDue{Issuer: well.Name, Scope: FullScope, Why: "revocation"}
	c.publications.wakeUp()
	select {
	case made := <-store.made:
		if made != well.Name {
			t.Errorf("the key that hangs made the CRL of %s", made)
		}
	case <-time.After(10 * time.Second):
		t.Error("the CRL of another authority waits for the key that hangs")
	}
	close(hung.letGo)
	end()
	<-ended
}

// gone is a store that is away.
type gone struct{ quiet }

func (*gone) DueCRLs(context.Context, []CRLSchedule) ([]CRLDue, error) { return nil, ErrUnavailable }

// alarms are the steps that are told to have failed.
type alarms struct {
	noMetrics
	steps []string
}

func (f *alarms) Failed(step string) { f.steps = append(f.steps, step) }

// That a CRL runs out is told also while the store is away, which is when it does.
func TestACRLThatRunsOutIsToldWhileTheStoreIsAway(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	a, _ := openAuthority(t, "issuing-1", now)
	c := publishing(&gone{}, func() time.Time { return now }, a)
	told := &alarms{}
	c.metrics = told
	record := CRLRecord{Issuer: a.Name, Scope: FullScope, Number: big.NewInt(1), ThisUpdate: now.Add(-time.Hour), NextUpdate: now.Add(2 * time.Hour)}
	c.publications.keep(record, now, 0)
	c.PublishDue(t.Context())
	if len(told.steps) > 0 {
		t.Errorf("%v are told while two thirds of the time are left", told.steps)
	}
	now = now.Add(2 * time.Hour)
	c.PublishDue(t.Context())
	if !slices.Contains(told.steps, "crl ending") {
		t.Errorf("%v are told, and not that the CRL runs out", told.steps)
	}
}
