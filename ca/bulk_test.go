package ca

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/issuance"
)

// failing is a store that is away from the moment on when a job's lot is to be recorded.
type failing struct {
	Store
	job   RevocationJob
	since time.Time
}

func (f *failing) ClaimRevocationJob(context.Context, string, Replica, time.Duration) (RevocationJob, int64, error) {
	return f.job, 1, nil
}

func (f *failing) RevocationJob(context.Context, string) (RevocationJob, error) { return f.job, nil }

func (f *failing) RevocationItems(context.Context, string, int) ([]RevocationItem, error) {
	return []RevocationItem{{Issuer: "issuing-1", Serial: []byte{1}, CRLScope: FullScope, NotAfter: f.job.AskedAt.AddDate(1, 0, 0)}}, nil
}

func (f *failing) RecordRevocationLot(context.Context, RevocationLot, ...audit.Leaf) error {
	if time.Since(f.since) > time.Hour {
		return errors.New("it was tried for an hour")
	}
	return fmt.Errorf("the database is away: %w", ErrUnavailable)
}

// A job remembers the key of a certificate that stays as it is once, and not where it is known or becomes so by a revocation.
func TestKeysOfWhatStaysAsItIs(t *testing.T) {
	key := func(n byte) [32]byte { return [32]byte{n} }
	item := func(n byte, known bool) RevocationItem {
		return RevocationItem{Serial: []byte{n}, SPKI: key(n), KeyKnown: known}
	}
	left := []RevocationItem{item(1, false), item(2, true), item(3, false), item(1, false), item(4, false)}
	got := keysOf(left, []Revocation{{SPKI: key(3)}, {SPKI: key(5)}})
	if want := []RevocationItem{item(1, false), item(4, false)}; !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// Whoever orders few certificates to be revoked is not kept waiting for as long as the store is away.
func TestRevokingAtOnceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		job := RevocationJob{
			ID: "job", Actor: access.Actor{ID: "actor-1"}, Reason: issuance.Superseded, AskedAt: began, ApprovedAt: began, Lots: 1, Total: 1,
		}
		c := publishing(&failing{job: job, since: began}, time.Now)
		c.jobs = newBell()
		got, err := c.revokeAtOnce(context.Background(), job)
		if took := time.Since(began); took > time.Minute || err != nil || got.Status(time.Now()) != JobRunning {
			t.Errorf("after %s: %s, %v", took, got.Status(time.Now()), err)
		}
		select {
		case <-c.jobs:
		default:
			t.Error("nobody goes on with it")
		}
	})
}

// interrupted is a store of a job of two lots, in whose first something happens.
type interrupted struct {
	failing
	first func() error // nil: no more
}

func (i *interrupted) RecordRevocationLot(context.Context, RevocationLot, ...audit.Leaf) error {
	if i.first == nil {
		return nil
	}
	err := i.first()
	if err == nil {
		i.first = nil
	}
	return err
}

// A job does not rest for as long as a clock was put right by, nor as the store was away.
func TestAJobRestsForItsWorkAlone(t *testing.T) {
	for name, c := range map[string]struct {
		reason issuance.Reason
		jump   time.Duration
		away   time.Duration
	}{
		"a clock put back":    {reason: issuance.KeyCompromise, jump: -time.Hour},
		"a clock put forward": {reason: issuance.Superseded, jump: time.Hour},
		"the store was away":  {reason: issuance.Superseded, away: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began, off := time.Now(), time.Duration(0)
				job := RevocationJob{ID: "job", Actor: access.Actor{ID: "actor-1"}, Reason: c.reason, AskedAt: began, ApprovedAt: began, Lots: 2, Total: 2}
				store := &interrupted{failing: failing{job: job}, first: func() error {
					off = c.jump
					if time.Since(began) < c.away {
						return ErrUnavailable
					}
					return nil
				}}
				worker := publishing(store, func() time.Time { return time.Now().Add(off) })
				err := worker.work(t.Context(), job, 1, worker.lotPace())
				if rested := time.Since(began) - c.away; err != nil || rested > jobLease {
					t.Errorf("it rested for %s, %v", rested, err)
				}
			})
		})
	}
}
