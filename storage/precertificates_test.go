package storage_test

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/storage"
)

// precertify records a precertificate and its intent.
func (f *fixture) precertify(change ...func(*ca.Intent)) (ca.Intent, ca.NewCertificate) {
	f.t.Helper()
	i := f.intend(append(change, func(i *ca.Intent) { i.Kind = issuance.Precertificate })...)
	c := certificateOf(i)
	for range 2 { // the second is a repetition after an answer that was lost
		if err := f.RecordPrecertificate(context.Background(), c, leafWithID(f.t, c.EventID, audit.CertificateIssued)); err != nil {
			f.t.Fatal(err)
		}
	}
	return i, c
}

func (f *fixture) finalIntent(i ca.Intent) (ca.Intent, error) {
	i.Kind, i.TBS = issuance.Final, append([]byte("final of "), i.TBS...)
	return i, f.RecordFinalIntent(context.Background(), i, leaf(f.t, audit.CertificateIntended))
}

func settlementOf(i ca.Intent) ca.Settlement {
	return ca.Settlement{Issuer: i.Issuer, Serial: i.Serial, Kind: i.Kind, At: now(), EventID: newID(), Reason: "its replica died"}
}

func TestPrecertificateThenFinal(t *testing.T) {
	f, ctx := setUp(t), context.Background()
	key := ca.IdempotencyKey{Actor: "actor-1", Key: "k", Body: random32()}
	i, pre := f.precertify(func(i *ca.Intent) { i.Idempotency = key })
	f.wantCounts("intents", 1, "certificates", 1, "requests", 1, "idempotency_keys", 1)
	if replay, err := f.FindReplay(ctx, key); err != nil || replay == nil || !replay.Open {
		t.Errorf("a precertificate answers a request: %+v, %v", replay, err)
	}
	if found, err := f.Certificates(ctx, "", i.Serial[:], access.AllNamespaces); err != nil || len(found) != 1 || found[0].Kind != issuance.Precertificate {
		t.Errorf("a precertificate is found as %+v, %v", found, err)
	}
	final, err := f.finalIntent(i)
	if err != nil {
		t.Fatal(err)
	}
	f.wantCounts("intents", 1, "requests", 1)
	c := f.finish(final)
	f.wantCounts("intents", 0, "certificates", 2, "orphans", 0, "revocations", 0)
	found, err := f.Certificates(ctx, pre.Issuer, i.Serial[:], "web")
	if err != nil || len(found) != 1 || found[0].Kind != issuance.Final || string(found[0].DER) != string(c.DER) {
		t.Errorf("the serial is found as %+v, %v", found, err)
	}
	if replay, err := f.FindReplay(ctx, key); err != nil || replay == nil || replay.Open || replay.Certificate.Kind != issuance.Final {
		t.Errorf("the request is answered with %+v, %v", replay, err)
	}
	page, err := f.List(ctx, ca.Filter{Namespace: "web", Limit: 10, Now: now()})
	if err != nil || len(page.Certificates) != 1 || page.Certificates[0].Kind != issuance.Final {
		t.Errorf("it is listed as %+v, %v", page, err)
	}
	if _, err := f.finalIntent(i); !errors.Is(err, ca.ErrIntentLost) {
		t.Errorf("a second final certificate: %v", err)
	}
	f.wantCounts("intents", 0)
}

func TestFinalIntentIsRefused(t *testing.T) {
	f := setUp(t)
	early := f.intend(func(i *ca.Intent) { i.Kind = issuance.Precertificate })
	if _, err := f.finalIntent(early); !errors.Is(err, ca.ErrIntentLost) {
		t.Errorf("before the precertificate is on record: %v", err)
	}
	revoked, pre := f.precertify()
	f.revoke(pre, issuance.Superseded, 0)
	if _, err := f.finalIntent(revoked); !errors.Is(err, ca.ErrIntentLost) {
		t.Errorf("of a serial that is revoked: %v", err)
	}
	others, _ := f.precertify()
	others.Owner = beta
	if _, err := f.finalIntent(others); !errors.Is(err, ca.ErrIntentLost) {
		t.Errorf("of another's precertificate: %v", err)
	}
	plain := f.intend()
	if err := f.RecordPrecertificate(context.Background(), certificateOf(plain), leaf(t, audit.CertificateIssued)); !errors.Is(err, ca.ErrIntentLost) {
		t.Errorf("a precertificate of a certificate's intent: %v", err)
	}
	twice, _ := f.precertify()
	first, err := f.finalIntent(twice)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.RecordFinalIntent(context.Background(), first, leaf(t, audit.CertificateIntended)); err != nil {
		t.Errorf("the same intent again: %v", err) // its answer may have been lost
	}
	first.TBS = []byte("other bytes")
	if err := f.RecordFinalIntent(context.Background(), first, leaf(t, audit.CertificateIntended)); !errors.Is(err, ca.ErrIntentLost) {
		t.Errorf("other bytes under the same serial: %v", err)
	}
}

// TestNoPrecertificateFollowsACompromise: the logs get none for a key that became known as compromised while it was signed.
func TestNoPrecertificateFollowsACompromise(t *testing.T) {
	f := setUp(t)
	other := f.issue()
	i := f.intend(func(i *ca.Intent) { i.Kind, i.Request.SPKI = issuance.Precertificate, other.SPKI })
	f.exec(`INSERT INTO compromised_keys (spki_sha256, issuer, serial, at) VALUES ($1, $2, $3, now())`, other.SPKI[:], other.Issuer, other.Serial[:])
	if err := f.RecordPrecertificate(context.Background(), certificateOf(i)); !errors.Is(err, ca.ErrKeyCompromised) {
		t.Errorf("a precertificate for the key: %v, want ErrKeyCompromised", err)
	}
	f.wantCounts("certificates WHERE kind = 'precertificate'", 0, "intents", 1)
}

// A final certificate is signed under an intent of its own: there is none once the key is on record as compromised, by another certificate, and the
// precertificate is settled as revoked.
func TestNoFinalIntentFollowsACompromise(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	other := f.issue()
	i, _ := f.precertify(func(i *ca.Intent) { i.Request.SPKI = other.SPKI })
	early, _ := f.precertify(func(i *ca.Intent) { i.Request.SPKI = other.SPKI })
	early, err := f.finalIntent(early)
	if err != nil {
		t.Fatal(err)
	}
	// One that waits for the revocation sees it.
	outcome := make(chan error, 1)
	tx, err := f.owner.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, storage.LockNumber(other.SPKI)); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := f.finalIntent(i)
		outcome <- err
	}()
	const waiting = "pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
	for f.count(waiting) == 0 && len(outcome) == 0 {
		runtime.Gosched()
	}
	if _, err := tx.Exec(ctx, `INSERT INTO compromised_keys (spki_sha256, issuer, serial, at) VALUES ($1, $2, $3, now())`, other.SPKI[:], other.Issuer,
		other.Serial[:]); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-outcome; !errors.Is(err, ca.ErrKeyCompromised) {
		t.Errorf("a final intent for the key: %v, want ErrKeyCompromised", err)
	}
	f.wantCounts("intents WHERE kind = 'precertificate'", 1, "intents WHERE kind = 'final'", 1)
	if err := f.SettleIntent(ctx, i.Owner, settlementOf(i), leaf(t, audit.CertificateOrphaned)); err != nil {
		t.Fatal(err)
	}
	if r, err := f.LatestRevocation(ctx, i.Issuer, i.Serial[:]); err != nil || r.Sequence != 1 {
		t.Errorf("the precertificate is settled as %+v, %v", r, err)
	}
	// The intent that was on record before leads to no certificate either, and is settled.
	if err := f.RecordCertificate(ctx, certificateOf(early)); !errors.Is(err, ca.ErrKeyCompromised) {
		t.Errorf("a certificate for the key: %v, want ErrKeyCompromised", err)
	}
	if err := f.SettleIntent(ctx, early.Owner, settlementOf(early), leaf(t, audit.CertificateOrphaned)); err != nil {
		t.Fatal(err)
	}
	f.wantCounts("intents", 0, "orphans WHERE kind = 'final'", 1)
}

// TestSettlingPrecertificates settles at each step, as a replica's death leaves it: the serial ends up revoked, once.
func TestSettlingPrecertificates(t *testing.T) {
	for name, c := range map[string]struct {
		reach   func(*fixture, ca.IdempotencyKey) ca.Intent
		orphans int
		kind    issuance.Kind
	}{
		"signed, not recorded": {func(f *fixture, k ca.IdempotencyKey) ca.Intent {
			return f.intend(func(i *ca.Intent) { i.Kind, i.Idempotency = issuance.Precertificate, k })
		}, 1, issuance.Precertificate},
		"recorded": {func(f *fixture, k ca.IdempotencyKey) ca.Intent {
			i, _ := f.precertify(func(i *ca.Intent) { i.Idempotency = k })
			return i
		}, 0, issuance.Precertificate},
		"final intended": {func(f *fixture, k ca.IdempotencyKey) ca.Intent {
			i, _ := f.precertify(func(i *ca.Intent) { i.Idempotency = k })
			final, err := f.finalIntent(i)
			if err != nil {
				f.t.Fatal(err)
			}
			return final
		}, 1, issuance.Final},
	} {
		t.Run(name, func(t *testing.T) {
			f, ctx := setUp(t), context.Background()
			f.addAuthority("issuing-1")
			key := ca.IdempotencyKey{Actor: "actor-1", Key: "k", Body: random32()}
			i := c.reach(f, key)
			claimed, err := f.ClaimExpiredIntents(ctx, alpha2, lease, 10)
			if err != nil || len(claimed) != 1 || claimed[0].Kind != c.kind {
				t.Fatalf("claimed %+v, %v", claimed, err)
			}
			o := settlementOf(i)
			for range 2 {
				if err := f.SettleIntent(ctx, alpha2, o, leafWithID(t, o.EventID, audit.CertificateOrphaned)); err != nil {
					t.Fatal(err)
				}
			}
			f.wantCounts("intents", 0, "orphans", c.orphans, "revocations", 1, "idempotency_keys", 0)
			found, err := f.Certificates(ctx, "", i.Serial[:], access.AllNamespaces)
			if err != nil || len(found) != 1 || found[0].Kind != c.kind || found[0].Status(now()) != "revoked" {
				t.Errorf("the serial is found as %+v, %v", found, err)
			}
			page, err := f.List(ctx, ca.Filter{Namespace: "web", Status: "revoked", Limit: 10, Now: now()})
			if err != nil || len(page.Certificates) != 1 {
				t.Errorf("among the revoked are %+v, %v", page.Certificates, err)
			}
			if entries := f.claim("issuing-1").Entries; len(entries) != 1 {
				t.Errorf("the CRL shows %d entries", len(entries))
			}
		})
	}
}

// A settlement that meets the precertificate being recorded settles what has been recorded then: it is no orphan besides.
func TestSettlingWhileThePrecertificateIsRecorded(t *testing.T) {
	f := setUp(t)
	i := f.intend(func(i *ca.Intent) { i.Kind = issuance.Precertificate })
	c, s := certificateOf(i), settlementOf(i)
	release := f.holdIntent(i)()
	var both sync.WaitGroup
	try := func(what string, do func() error, waiting int) {
		both.Go(func() {
			if err := do(); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		})
		for f.column(`SELECT count(DISTINCT pid)::text FROM pg_locks WHERE NOT granted`)[0] != strconv.Itoa(waiting) {
			if t.Context().Err() != nil {
				t.Fatal("it does not wait for the intent")
			}
		}
	}
	try("recording the precertificate", func() error {
		return f.RecordPrecertificate(context.Background(), c, leafWithID(t, c.EventID, audit.CertificateIssued))
	}, 1)
	try("settling its intent", func() error {
		return f.SettleIntent(context.Background(), i.Owner, s, leafWithID(t, s.EventID, audit.CertificateOrphaned))
	}, 2)
	release()
	both.Wait()
	f.wantCounts("intents", 0, "certificates", 1, "orphans", 0, "revocations", 1)
}
