package storage_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
)

const duty ca.Duty = "test"

// claim tries to make a replica the leader.
func (f *fixture) claimDuty(by ca.Replica) (ca.Term, error) {
	return f.ClaimLease(context.Background(), duty, by, lease)
}

// expire lets the database's clock pass the end of the lease, as far as the lease can see.
func (f *fixture) expire(d ca.Duty) {
	f.exec(`UPDATE leases SET lease_until = clock_timestamp() - interval '1 millisecond' WHERE duty = $1 AND holder IS NOT NULL`, d)
}

func TestOneReplicaLeads(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	first, err := f.claimDuty(alpha)
	if err != nil || first.Fence != 1 || time.Since(first.Since).Abs() > time.Minute {
		t.Fatalf("the first term is %+v, %v", first, err)
	}
	if _, err := f.claimDuty(beta); !errors.Is(err, ca.ErrFenced) {
		t.Errorf("beta leads beside alpha: %v", err)
	}
	if err := f.RenewLease(ctx, first, lease); err != nil {
		t.Errorf("alpha cannot renew: %v", err)
	}
	if err := f.ResignLease(ctx, first); err != nil {
		t.Fatal(err)
	}
	second, err := f.claimDuty(beta)
	if err != nil || second.Fence != 2 {
		t.Fatalf("after alpha resigned: %+v, %v", second, err)
	}
	if err := f.RenewLease(ctx, first, lease); !errors.Is(err, ca.ErrFenced) {
		t.Errorf("alpha renews a term that is over: %v", err)
	}
	if err := f.ResignLease(ctx, first); err != nil { // of a term that is over: nothing happens
		t.Error(err)
	}
	leads, err := f.Leads(ctx)
	if err != nil || len(leads) != 1 || leads[0].Leader != beta || leads[0].Fence != 2 || !leads[0].Holds {
		t.Errorf("the leads are %+v, %v", leads, err)
	}
	f.expire(duty)
	third, err := f.claimDuty(alpha2)
	if err != nil || third.Fence != 3 {
		t.Errorf("after the lease ran out: %+v, %v", third, err)
	}
}

// The clock was put back, and who held something then may be gone with it: whoever asks is given it at once, and the one before is fenced off.
func TestAClockPutBackHoldsNothingUp(t *testing.T) {
	t.Parallel()
	f := setUp(t)
	ctx := context.Background()
	const ahead = ` + interval '20 hours'`
	first, err := f.claimDuty(alpha)
	if err != nil {
		t.Fatal(err)
	}
	f.exec(`UPDATE leases SET lease_until = lease_until` + ahead)
	if next, err := f.claimDuty(beta); err != nil || next.Fence != first.Fence+1 {
		t.Errorf("a duty: %+v, %v", next, err)
	}
	if err := f.RenewLease(ctx, first, lease); !errors.Is(err, ca.ErrFenced) {
		t.Errorf("the leader before: %v", err)
	}

	f.addAuthority("issuing-1")
	claim := f.claim("issuing-1")
	if _, err := claimBy(f.Store, "issuing-1", ca.FullScope, beta); !errors.Is(err, ca.ErrFenced) {
		t.Errorf("a scope whose claim runs: %v", err)
	}
	f.exec(`UPDATE crl_scopes SET lease_until = lease_until` + ahead)
	if next, err := claimBy(f.Store, "issuing-1", ca.FullScope, beta); err != nil || next.Fence != claim.Fence+1 {
		t.Errorf("a scope: %+v, %v", next, err)
	}
	if err := f.RecordCRLIntent(ctx, crlIntent(claim, alpha)); !errors.Is(err, ca.ErrFenced) {
		t.Errorf("the publisher before: %v", err)
	}

	i := f.intend()
	f.exec(`UPDATE intents SET lease_until = lease_until` + ahead)
	if claimed, err := f.ClaimExpiredIntents(ctx, beta, lease, 10); err != nil || len(claimed) != 1 || claimed[0].Serial != i.Serial {
		t.Errorf("an intent: %+v, %v", claimed, err)
	}
	c := certificateOf(i)
	if err := f.RecordCertificate(ctx, c, leafWithID(t, c.EventID, audit.CertificateIssued)); !errors.Is(err, ca.ErrIntentLost) {
		t.Errorf("the issuer before: %v", err)
	}

	f.issue()
	j, _ := f.order(everywhere, newJob(issuance.Superseded), 0)
	_, fence, err := f.ClaimRevocationJob(ctx, j.ID, alpha, lease)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.ClaimRevocationJob(ctx, "", beta, lease); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("a job whose claim runs: %v", err)
	}
	f.exec(`UPDATE revocation_jobs SET lease_until = lease_until` + ahead)
	if _, next, err := f.ClaimRevocationJob(ctx, "", beta, lease); err != nil || next != fence+1 {
		t.Errorf("a job: fence %d, %v", next, err)
	}
	l, leaves := f.lot(j, 0, fence)
	if err := f.RecordRevocationLot(ctx, l, leaves...); !errors.Is(err, ca.ErrFenced) {
		t.Errorf("the worker before: %v", err)
	}
}

// A leader that was stopped and resumed changes nothing any more, whatever it does.
func TestALateLeaderChangesNothing(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	f.finish(f.intend(withKey("old", 1)))
	f.exec(`UPDATE idempotency_keys SET created_at = now() - interval '30 days'`)
	f.exec(`INSERT INTO replicas (name, run, version, schema, host, started_at, seen_at, beats) VALUES ('gone', '1', '', 1, '', now(), now() - interval '30 days', 1)`)
	late := f.lead()
	f.expire(ca.Upkeep)
	next, err := f.ClaimLease(ctx, ca.Upkeep, beta, lease)
	if err != nil {
		t.Fatal(err)
	}
	acts := map[string]func(ca.Term) error{
		"partitions":   func(x ca.Term) error { return f.ProvidePartitions(ctx, x) },
		"keys":         func(x ca.Term) error { _, err := f.ForgetIdempotencyKeys(ctx, x, time.Hour); return err },
		"reservations": func(x ca.Term) error { _, err := f.ForgetReservations(ctx, x); return err },
		"replicas":     func(x ca.Term) error { return f.ForgetReplicas(ctx, x, time.Hour) },
	}
	for name, act := range acts {
		if err := act(late); !errors.Is(err, ca.ErrFenced) {
			t.Errorf("%s: the late leader got %v, want ErrFenced", name, err)
		}
	}
	f.wantCounts("idempotency_keys", 1, "replicas", 1)
	for name, act := range acts {
		if err := act(next); err != nil {
			t.Errorf("%s: the leader got %v", name, err)
		}
	}
	f.wantCounts("idempotency_keys", 0, "replicas", 0)
}

// Nobody is given a duty while a transaction of its leader is under way: acts of two terms never mix.
func TestALeadersTransactionEndsBeforeTheNextTerm(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	term, err := f.claimDuty(alpha)
	if err != nil {
		t.Fatal(err)
	}
	acting := connect(t, f.db.OwnerURL)
	tx, err := acting.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, `SELECT hold_term($1, $2)`, duty, term.Fence); err != nil {
		t.Fatal(err)
	}
	f.exec(`INSERT INTO leases (duty) VALUES ('other')`) // that other duties go on meanwhile
	if err := f.ResignLease(ctx, ca.Term{Duty: "other"}); err != nil {
		t.Error(err)
	}
	if _, err := f.claimDuty(beta); !errors.Is(err, ca.ErrFenced) { // the lease runs: told at once, without waiting for the transaction
		t.Errorf("beta got %v", err)
	}
	claimed := make(chan error, 1)
	go func() { claimed <- f.ResignLease(ctx, term) }()
	waiting := `SELECT count(*) FROM pg_locks WHERE NOT granted`
	for n := 0; n == 0; {
		if err := f.owner.QueryRow(ctx, waiting).Scan(&n); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-claimed:
			t.Fatalf("the term ended under a transaction of its own: %v", err)
		default:
		}
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-claimed; err != nil {
		t.Error(err)
	}
}

// Whatever replicas do in whatever order: fences rise, no two terms are valid at once, and only the valid one acts.
func TestTermsNeverMix(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	rapid.Check(t, func(t *rapid.T) {
		f.exec(`DELETE FROM leases`)
		replicas := []ca.Replica{alpha, beta, {Name: "gamma", Run: "1"}}
		held := map[string]ca.Term{} // what each believes to lead
		var valid ca.Term            // the model's: the term that was given last, unless it ended
		expired := false
		last := int64(0)
		steps := rapid.IntRange(1, 25).Draw(t, "steps")
		for range steps {
			r := rapid.SampledFrom(replicas).Draw(t, "replica")
			mine, believes := held[r.Name]
			isValid := believes && valid.Fence != 0 && mine.Fence == valid.Fence
			switch rapid.SampledFrom([]string{"claim", "renew", "resign", "act", "expire"}).Draw(t, "step") {
			case "claim":
				term, err := f.claimDuty(r)
				free := valid.Fence == 0 || expired || isValid
				if (err == nil) != free || err != nil && !errors.Is(err, ca.ErrFenced) {
					t.Fatalf("%s claims a duty that is free (%v): %v", r.Name, free, err)
				}
				if err == nil {
					if term.Fence <= last {
						t.Fatalf("fence %d follows %d", term.Fence, last)
					}
					last, valid, expired, held[r.Name] = term.Fence, term, false, term
				}
			case "renew":
				if !believes {
					continue
				}
				if err := f.RenewLease(ctx, mine, lease); (err == nil) != isValid {
					t.Fatalf("%s renews a term that is valid (%v): %v", r.Name, isValid, err)
				}
				expired = expired && !isValid
			case "resign":
				if err := f.ResignLease(ctx, mine); err != nil && believes {
					t.Fatal(err)
				}
				delete(held, r.Name)
				if isValid {
					valid = ca.Term{}
				}
			case "act":
				if !believes {
					continue
				}
				_, err := f.owner.Exec(ctx, `SELECT hold_term($1, $2)`, duty, mine.Fence)
				if (err == nil) != isValid {
					t.Fatalf("%s acts in a term that is valid (%v): %v", r.Name, isValid, err)
				}
			case "expire":
				f.expire(duty)
				expired = valid.Fence != 0
			}
		}
	})
}

func TestFencesOnlyRise(t *testing.T) {
	f := setUp(t)
	if _, err := f.claimDuty(alpha); err != nil {
		t.Fatal(err)
	}
	if _, err := f.owner.Exec(context.Background(), `UPDATE leases SET fence = fence - 1`); sqlState(err) != restrictViolation {
		t.Errorf("a fence fell: %v", err)
	}
}
