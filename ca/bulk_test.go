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

func (f *failing) ClaimUrgentRevocation(context.Context, Replica, time.Duration) (RevocationJob, int64, error) {
	return RevocationJob{}, 0, ErrNotFound
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

// queued is a store of jobs, of which one of compromised keys is ordered while another is worked on. It remembers the lots in their order.
type queued struct {
	failing
	running, urgent RevocationJob
	ordered         bool
	failed          error // of the first claim on the urgent one
	fenced          bool  // another replica goes on with the one that gave way
	lots            []string
}

func (q *queued) ClaimRevocationJob(context.Context, string, Replica, time.Duration) (RevocationJob, int64, error) {
	if len(q.lots) > 0 {
		return RevocationJob{}, 0, ErrNotFound
	}
	return q.running, 1, nil
}

func (q *queued) ClaimUrgentRevocation(context.Context, Replica, time.Duration) (RevocationJob, int64, error) {
	if err := q.failed; q.ordered && err != nil {
		q.failed = nil
		return RevocationJob{}, 0, err
	}
	if !q.ordered {
		return RevocationJob{}, 0, ErrNotFound
	}
	q.ordered = false
	return q.urgent, 1, nil
}

func (q *queued) RecordRevocationLot(_ context.Context, l RevocationLot, _ ...audit.Leaf) error {
	if q.fenced && l.Job == q.running.ID && len(q.lots) > 1 {
		return ErrFenced
	}
	q.ordered = q.ordered || len(q.lots) == 0
	q.lots = append(q.lots, fmt.Sprint(l.Job, l.Number))
	return nil
}

// A job of compromised keys waits for one lot of another that is less urgent, which goes on after it.
func TestAJobGivesWayToCompromisedKeys(t *testing.T) {
	for name, c := range map[string]struct {
		reason issuance.Reason // of the one that is worked on
		failed error
		fenced bool
		want   []string
	}{
		"superseded":         {reason: issuance.Superseded, want: []string{"first0", "urgent0", "urgent1", "first1", "first2"}},
		"compromised itself": {reason: issuance.KeyCompromise, want: []string{"first0", "first1", "first2"}},
		"the claim fails": {
			reason: issuance.Superseded, failed: ErrUnavailable, want: []string{"first0", "first1", "urgent0", "urgent1", "first2"},
		},
		"another replica goes on": {reason: issuance.Superseded, fenced: true, want: []string{"first0", "urgent0", "urgent1"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				job := func(id string, reason issuance.Reason, lots int) RevocationJob {
					return RevocationJob{
						ID: id, Actor: access.Actor{ID: "actor-1"}, Reason: reason, AskedAt: began, ApprovedAt: began, Lots: lots, Total: lots,
					}
				}
				store := &queued{
					running: job("first", c.reason, 3), urgent: job("urgent", issuance.KeyCompromise, 2), failed: c.failed, fenced: c.fenced,
				}
				store.job = store.running
				if err := publishing(store, time.Now).RunRevocations(t.Context()); err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(store.lots, c.want) {
					t.Errorf("lots %q, want %q", store.lots, c.want)
				}
			})
		})
	}
}
