package storage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/policies"
)

func withKey(key string, body byte) func(*ca.Intent) {
	return func(i *ca.Intent) {
		i.Idempotency = ca.IdempotencyKey{Actor: "actor-1", Key: key, Body: [32]byte{body}}
	}
}

func TestAnIntentIsAllOrNothing(t *testing.T) {
	f := setUp(t)
	f.intend(withKey("k", 1))
	f.wantCounts("intents", 1, "requests", 1, "idempotency_keys", 1, "audit_leaves", 1)

	second := newIntent(t, alpha)
	withKey("k", 1)(&second)
	if err := f.RecordIntent(context.Background(), second, leaf(t, audit.CertificateIntended)); !errors.Is(err, ca.ErrIdempotencyBusy) {
		t.Errorf("a second intent with an open key: %v, want ErrIdempotencyBusy", err)
	}
	withKey("k", 2)(&second)
	if err := f.RecordIntent(context.Background(), second, leaf(t, audit.CertificateIntended)); !errors.Is(err, ca.ErrIdempotencyMismatch) {
		t.Errorf("the key with another body: %v, want ErrIdempotencyMismatch", err)
	}
	bad := newIntent(t, alpha)
	bad.Request.Metadata = map[string]string{"comment": "a\x00b"}
	var invalid *ca.InvalidError
	if err := f.RecordIntent(context.Background(), bad, leaf(t, audit.CertificateIntended)); !errors.As(err, &invalid) {
		t.Errorf("metadata with NUL: %v, want *ca.InvalidError", err)
	}
	f.wantCounts("intents", 1, "requests", 1, "idempotency_keys", 1, "audit_leaves", 1)
}

func TestTheRequestIsKeptWithAllFacts(t *testing.T) {
	f := setUp(t)
	i := f.intend(func(i *ca.Intent) { i.Request.CompromisedKey = false; i.Request.Roles = nil })
	var results, metadata, verdict string
	var csr []byte
	var validity time.Duration
	if err := f.owner.QueryRow(context.Background(), `SELECT results::text, metadata::text, verdict, csr, validity FROM requests WHERE id = $1`,
		i.Request.ID).Scan(&results, &metadata, &verdict, &csr, &validity); err != nil {
		t.Fatal(err)
	}
	if metadata != `{"ticket": "1"}` || verdict != "allow" || string(csr) != "a CSR" || validity != i.Request.Validity ||
		!bytes.Contains([]byte(results), []byte(`"rule": "key.size"`)) {
		t.Errorf("the request is kept as %s %s %s %q %s", results, metadata, verdict, csr, validity)
	}
}

func TestAReplayLeadsToTheCertificate(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	key := ca.IdempotencyKey{Actor: "actor-1", Key: "k", Body: [32]byte{1}}
	if r, err := f.FindReplay(ctx, key); r != nil || err != nil {
		t.Fatalf("a free key: %v, %v", r, err)
	}
	i := f.intend(withKey("k", 1))
	if r, err := f.FindReplay(ctx, key); err != nil || r == nil || !r.Open || r.Mismatch {
		t.Errorf("while open: %+v, %v", r, err)
	}
	c := f.finish(i)
	r, err := f.FindReplay(ctx, key)
	if err != nil || r == nil || r.Open || r.Certificate.Serial != c.Serial || !bytes.Equal(r.Certificate.DER, c.DER) {
		t.Errorf("afterwards: %+v, %v", r, err)
	}
	if r, err := f.FindReplay(ctx, ca.IdempotencyKey{Actor: "actor-1", Key: "k", Body: [32]byte{9}}); err != nil || r == nil || !r.Mismatch {
		t.Errorf("for another body: %+v, %v", r, err)
	}
	if r, err := f.FindReplay(ctx, ca.IdempotencyKey{Actor: "actor-2", Key: "k", Body: [32]byte{1}}); r != nil || err != nil {
		t.Errorf("another actor's key of the same name: %+v, %v", r, err)
	}
	again := newIntent(t, beta)
	withKey("k", 1)(&again)
	var replay *ca.Replay
	if err := f.RecordIntent(ctx, again); !errors.As(err, &replay) || replay.Certificate.Serial != c.Serial {
		t.Errorf("recording again: %v, want the replay of %s", err, c.Serial)
	}
}

func TestOneOfManyClaimsAnIdempotencyKey(t *testing.T) {
	f := setUp(t)
	stores := []interface {
		RecordIntent(context.Context, ca.Intent, ...audit.Leaf) error
	}{f.Store, f.db.Store(t)}
	const racers = 16
	outcomes := make([]error, racers)
	var wg sync.WaitGroup
	for n := range racers {
		i, l := newIntent(t, alpha), leaf(t, audit.CertificateIntended)
		withKey("k", 1)(&i)
		wg.Go(func() { outcomes[n] = stores[n%2].RecordIntent(context.Background(), i, l) })
	}
	wg.Wait()
	won := 0
	for _, err := range outcomes {
		if err == nil {
			won++
		} else if !errors.Is(err, ca.ErrIdempotencyBusy) {
			t.Errorf("a loser got %v, want ErrIdempotencyBusy", err)
		}
	}
	if won != 1 {
		t.Errorf("%d requests won the key, want 1", won)
	}
	f.wantCounts("intents", 1, "requests", 1, "idempotency_keys", 1, "audit_leaves", 1)
}

func TestTheHistoryOfAKey(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	if history, err := f.KeyHistory(ctx, random32()); err != nil || history == nil || len(history) != 0 {
		t.Fatalf("of a new key: %v, %v", history, err)
	}
	spki := random32()
	issued := func(namespace string, notAfter time.Time, names ...string) ca.NewCertificate {
		return f.issue(func(c *ca.NewCertificate) {
			c.SPKI, c.Namespace, c.NotAfter, c.Names = spki, namespace, notAfter, names
		})
	}
	at := now()
	issued("web", at.Add(-time.Hour), "a.example")
	renewed := issued("web", at.Add(time.Hour), "a.example")
	more := issued("web", at, "a.example", "b.example")
	issued("ops", at, "a.example")
	f.revoke(more, issuance.Superseded, 0)
	f.issue() // of another key
	f.exec(`INSERT INTO imported_certificates (serial, issuer, der, spki_sha256, crl_scope, namespace, subject, names, search, not_before, not_after,
		imported_at, event_id) VALUES ('\x0102', 'old-1', 'der', $1, 'full', 'old', '', '{}', '', $2, $2, $2, $3)`, spki[:], at, newID())

	history, err := f.KeyHistory(ctx, spki)
	if err != nil || len(history) != 4 {
		t.Fatalf("%+v, %v; want 4", history, err)
	}
	if h := history[0]; h.Namespace != "old" || h.Serial != "0102" || len(h.Names) != 0 {
		t.Errorf("the imported one: %+v", h)
	}
	if h := history[1]; h.Namespace != "ops" {
		t.Errorf("the other namespace's: %+v", h)
	}
	if h := history[2]; h.Serial != renewed.Serial.String() || !h.NotAfter.Equal(renewed.NotAfter) || !slices.Equal(h.Names, renewed.Names) {
		t.Errorf("%+v, want the newest for its names", h)
	}
	if h := history[3]; h.Serial != more.Serial.String() || !slices.Equal(h.Names, more.Names) {
		t.Errorf("%+v, want the one for two names", h)
	}

	// A namespace that used the key for very many lists of names does not hide another.
	f.exec(`INSERT INTO certificates SELECT substr(serial, 1, 12) || int8send(n), issuer, kind, der, spki_sha256, crl_scope, profile, policy_digest,
		namespace, request_id, subject, ARRAY['n' || n], search, not_before, not_after, issued_at, event_id
		FROM certificates, generate_series(1, 200) AS n WHERE serial = $1`, renewed.Serial[:])
	history, err = f.KeyHistory(ctx, spki)
	if err != nil || len(history) != 102 || history[1].Namespace != "ops" {
		t.Errorf("%d in the history, %v; want 102", len(history), err)
	}
}

func TestACompromisedKeyGetsNoIntent(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	c := f.issue()
	if bad, err := f.KeyCompromised(ctx, c.SPKI); bad || err != nil {
		t.Fatalf("before: %v, %v", bad, err)
	}
	f.revoke(c, issuance.KeyCompromise, 0)
	if bad, err := f.KeyCompromised(ctx, c.SPKI); !bad || err != nil {
		t.Errorf("after: %v, %v", bad, err)
	}
	i := newIntent(t, alpha)
	withKey("k", 1)(&i)
	i.Request.SPKI = c.SPKI
	if err := f.RecordIntent(ctx, i, leaf(t, audit.CertificateIntended)); !errors.Is(err, ca.ErrKeyCompromised) {
		t.Errorf("an intent for the key: %v, want ErrKeyCompromised", err)
	}
	f.wantCounts("intents", 0, "idempotency_keys", 0, "requests", 1)
}

// Whatever was acknowledged after the revocation was acknowledged would be a breach; so the intents recorded are read after it, and
// none may be added.
func TestNoIntentFollowsACompromise(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	for range 10 {
		c := f.issue()
		var wg sync.WaitGroup
		start := make(chan struct{})
		for range 4 {
			i := newIntent(t, alpha)
			i.Request.SPKI = c.SPKI
			wg.Go(func() {
				<-start
				if err := f.RecordIntent(ctx, i); err != nil && !errors.Is(err, ca.ErrKeyCompromised) {
					t.Errorf("recording an intent: %v", err)
				}
			})
		}
		close(start)
		f.revoke(c, issuance.KeyCompromise, 0)
		before := f.count("intents")
		wg.Wait()
		if after := f.count("intents"); after != before {
			t.Errorf("%d intents became durable after the revocation", after-before)
		}
	}
}

// A key becomes compromised while a certificate for it is signed: what was signed does not come on record as a certificate. Certificates of
// other keys, in the same transaction, and one that is on record already do not mind.
func TestNoCertificateFollowsACompromise(t *testing.T) {
	t.Parallel()
	f := setUp(t)
	ctx := context.Background()
	compromised := f.issue()
	same := func(i *ca.Intent) { i.Request.SPKI = compromised.SPKI }
	first, other := f.intend(), f.intend()
	late := f.intend(same, withKey("k", 1))
	known := f.finish(f.intend(same))
	lost := newIntent(t, alpha)
	same(&lost)
	f.revoke(compromised, issuance.KeyCompromise, 0)
	leaves := f.count("audit_leaves")
	outcomes := together(t, f.Store, f.holdIntent(first), f.completing(f.Store, certificateOf(first)), []func() error{
		f.completing(f.Store, certificateOf(late)), f.completing(f.Store, certificateOf(other)), f.completing(f.Store, known),
		f.completing(f.Store, certificateOf(lost)),
	})
	for n, want := range []error{ca.ErrKeyCompromised, nil, nil, ca.ErrIntentLost} {
		if !errors.Is(outcomes[n], want) || want == nil && outcomes[n] != nil {
			t.Errorf("certificate %d: %v, want %v", n, outcomes[n], want)
		}
	}
	f.wantCounts("certificates", 4, "intents", 1, "audit_leaves", leaves+2)
	if n := f.transactions(fmt.Sprintf(`certificates WHERE spki_sha256 <> '\x%x'`, compromised.SPKI)); n != 2 {
		t.Errorf("the first certificate and the other took %d transactions, want 2", n)
	}
	if err := f.SettleIntent(ctx, alpha, settlementOf(late), leaf(t, audit.CertificateOrphaned)); err != nil {
		t.Fatal(err)
	}
	f.wantCounts("intents", 0, "orphans", 1, "idempotency_keys", 0)
	if r, err := f.LatestRevocation(ctx, late.Issuer, late.Serial[:]); err != nil || r.Sequence != 1 {
		t.Errorf("what was signed is settled as %+v, %v", r, err)
	}
}

// While somebody revokes a key, a certificate for it comes again, and others go on.
func TestACertificateWaitsForWhatItsKeyBecomes(t *testing.T) {
	t.Parallel()
	f := setUp(t)
	ctx := context.Background()
	one, two := f.intend(), f.intend()
	release := f.holdKey(one.Request.SPKI)()
	if err := f.RecordCertificate(ctx, certificateOf(one)); !errors.Is(err, ca.ErrUnavailable) {
		t.Errorf("a certificate whose key is held: %v, want ErrUnavailable", err)
	}
	f.finish(two)
	f.wantCounts("certificates", 1, "intents", 1)
	release()
	f.finish(one)
	f.wantCounts("certificates", 2, "intents", 0)

	for range 10 {
		c := f.issue()
		var calls sync.WaitGroup
		start := make(chan struct{})
		for range 4 {
			i := f.intend(func(i *ca.Intent) { i.Request.SPKI = c.SPKI })
			calls.Go(func() {
				<-start
				err := f.RecordCertificate(ctx, certificateOf(i))
				if err != nil && !errors.Is(err, ca.ErrKeyCompromised) && !errors.Is(err, ca.ErrUnavailable) {
					t.Errorf("recording a certificate: %v", err)
				}
			})
		}
		close(start)
		f.revoke(c, issuance.KeyCompromise, 0)
		before := f.count("certificates")
		calls.Wait()
		if after := f.count("certificates"); after != before {
			t.Errorf("%d certificates came on record after the revocation", after-before)
		}
	}
}

func TestARefusalIsKept(t *testing.T) {
	f := setUp(t)
	r := newRequest()
	r.Verdict, r.CSR = policies.Refuse, nil
	l := leaf(t, audit.RequestRefused)
	for range 2 { // the second time as after an answer that was lost
		if err := f.RecordRefusal(context.Background(), r, l); err != nil {
			t.Fatal(err)
		}
	}
	f.wantCounts("requests", 1, "audit_leaves", 1)
}

func TestExpiredIntentsAreClaimedOnce(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	f.intend()
	expired := f.intend(func(i *ca.Intent) { i.Owner = beta })
	f.exec(`UPDATE intents SET lease_until = now() - interval '1 second' WHERE serial = $1`, expired.Serial[:])

	claimed, err := f.ClaimExpiredIntents(ctx, alpha, lease, 10)
	if err != nil || len(claimed) != 1 {
		t.Fatalf("claimed %d, %v; want 1", len(claimed), err)
	}
	got := claimed[0]
	if got.Serial != expired.Serial || got.Owner != beta || string(got.TBS) != string(expired.TBS) || got.RequestID != expired.Request.ID ||
		got.Namespace != "web" || got.Kind != issuance.Final || got.Issuer != expired.Issuer {
		t.Errorf("claimed %+v", got)
	}
	if again, err := f.ClaimExpiredIntents(ctx, beta, lease, 10); err != nil || len(again) != 0 {
		t.Errorf("claimed %d again, %v", len(again), err)
	}
	// A restarted replica takes what its earlier run left, at once.
	if own, err := f.ClaimExpiredIntents(ctx, alpha2, lease, 10); err != nil || len(own) != 2 {
		t.Errorf("the restarted replica claimed %d, %v; want 2", len(own), err)
	}
	c := certificateOf(expired)
	if err := f.RecordCertificate(ctx, c); !errors.Is(err, ca.ErrIntentLost) {
		t.Errorf("the former owner recorded: %v, want ErrIntentLost", err)
	}
	f.wantCounts("certificates", 0, "intents", 2)
}

func TestManyClaimantsShareExpiredIntents(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	const intents, claimants = 40, 4
	for range intents {
		f.intend(func(i *ca.Intent) { i.Owner = beta })
	}
	f.exec(`UPDATE intents SET lease_until = now() - interval '1 second'`)
	var mu sync.Mutex
	seen := map[issuance.Serial]int{}
	var wg sync.WaitGroup
	for n := range claimants {
		by := ca.Replica{Name: string(rune('p' + n)), Run: "1"}
		wg.Go(func() {
			for {
				claimed, err := f.ClaimExpiredIntents(ctx, by, lease, 3)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for _, i := range claimed {
					seen[i.Serial]++
				}
				mu.Unlock()
				if len(claimed) == 0 {
					return
				}
			}
		})
	}
	wg.Wait()
	for serial, times := range seen {
		if times != 1 {
			t.Errorf("%s was claimed %d times", serial, times)
		}
	}
	if len(seen) != intents {
		t.Errorf("%d of %d were claimed", len(seen), intents)
	}
}

func TestASettledIntentIsARevokedOrphan(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	f.addAuthority("issuing-1")
	i := f.intend(withKey("k", 1))
	o := ca.Settlement{Issuer: i.Issuer, Serial: i.Serial, Kind: i.Kind, At: now(), EventID: newID(), Reason: "its replica died"}
	l := leafWithID(t, o.EventID, audit.CertificateOrphaned)
	if err := f.SettleIntent(ctx, beta, o, l); !errors.Is(err, ca.ErrIntentLost) {
		t.Errorf("settling another's intent: %v, want ErrIntentLost", err)
	}
	for range 2 { // the second time as after an answer that was lost
		if err := f.SettleIntent(ctx, alpha, o, l); err != nil {
			t.Fatal(err)
		}
	}
	f.wantCounts("intents", 0, "orphans", 1, "revocations", 1, "crl_pending", 1, "idempotency_keys", 0, "audit_leaves", 3)
	if err := f.RecordCertificate(ctx, certificateOf(i)); !errors.Is(err, ca.ErrIntentLost) {
		t.Errorf("recording the certificate afterwards: %v, want ErrIntentLost", err)
	}
	found, err := f.Certificates(ctx, "", i.Serial[:], access.AllNamespaces)
	if err != nil || len(found) != 1 {
		t.Fatalf("found %d, %v; want 1", len(found), err)
	}
	if c := found[0]; !c.Orphan || c.DER != nil || c.Status(time.Now()) != "revoked" || !c.NotAfter.Equal(i.NotAfter) || c.SPKI != i.Request.SPKI {
		t.Errorf("the orphan is %+v", c)
	}
	withEnd := f.intend()
	end := now().Add(time.Hour)
	if err := f.SettleIntent(ctx, alpha, ca.Settlement{
		Issuer: withEnd.Issuer, Serial: withEnd.Serial, Kind: withEnd.Kind, At: now(),
		EventID: newID(), NotAfter: end,
	}); err != nil {
		t.Fatal(err)
	}
	found, err = f.Certificates(ctx, "issuing-1", withEnd.Serial[:], "web")
	if err != nil || len(found) != 1 || !found[0].NotAfter.Equal(end) || !found[0].Revocation.NotAfter.Equal(end) {
		t.Errorf("an orphan with an end of its own: %+v, %v", found, err)
	}
	f.intend(withKey("k", 1)) // the key is free again
}

// Of a certificate and a settlement of the same intent, one wins.
func TestCertificateAndSettlementExcludeEachOther(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	for range 20 {
		i := f.intend()
		var certificate, settlement error
		var wg sync.WaitGroup
		wg.Go(func() { certificate = f.RecordCertificate(ctx, certificateOf(i)) })
		wg.Go(func() {
			settlement = f.SettleIntent(ctx, alpha, ca.Settlement{Issuer: i.Issuer, Serial: i.Serial, Kind: i.Kind, At: now(), EventID: newID()})
		})
		wg.Wait()
		if (certificate == nil) == (settlement == nil) {
			t.Fatalf("the certificate ended with %v and the settlement with %v", certificate, settlement)
		}
	}
	if both := f.count("certificates JOIN orphans USING (issuer, serial, kind)"); both != 0 {
		t.Errorf("%d serials are both", both)
	}
}
