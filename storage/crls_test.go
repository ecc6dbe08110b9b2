package storage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
)

func next(c claimed) *big.Int { return new(big.Int).Add(c.LastNumber, big.NewInt(1)) }

func (f *fixture) wantDue(why string) {
	f.t.Helper()
	due, err := f.DueCRLs(context.Background(), []ca.CRLSchedule{{Issuer: "issuing-1", Period: time.Hour}, {Issuer: "unknown", Period: time.Hour}})
	if err != nil {
		f.t.Fatal(err)
	}
	var want []ca.CRLDue
	if why != "" {
		want = []ca.CRLDue{{Issuer: "issuing-1", Scope: ca.FullScope, Why: why}}
	}
	if !reflect.DeepEqual(due, want) {
		f.t.Errorf("due are %v, want %v", due, want)
	}
}

func TestWhenACRLIsDue(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	if due, err := f.DueCRLs(ctx, nil); err != nil || len(due) != 0 {
		t.Errorf("with no authority: %v, %v", due, err)
	}
	f.addAuthority("issuing-1")
	f.addAuthority("issuing-2") // not asked for
	f.wantDue("first")
	if _, err := f.CurrentCRL(ctx, "issuing-1", ca.FullScope, nil); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("before the first: %v, want ErrNotFound", err)
	}
	f.publish(f.claim("issuing-1"), time.Now())
	f.wantDue("")
	f.revoke(f.issue(), issuance.Superseded, 0)
	f.wantDue("revocation")
	f.publish(f.claim("issuing-1"), time.Now().Add(-time.Hour)) // its period is an hour
	f.wantDue("schedule")
	f.publish(f.claim("issuing-1"), time.Now().Add(time.Hour)) // by a clock that was put back since
	f.wantDue("clock")
	f.publish(f.claim("issuing-1"), time.Now())
	f.wantDue("")
}

func TestAClaimShowsTheState(t *testing.T) {
	f := setUp(t)
	f.addAuthority("issuing-1")
	revoked, held, released := f.issue(), f.issue(), f.issue()
	f.issue() // valid
	elsewhere := f.issue(func(c *ca.NewCertificate) { c.CRLScope = "shard-2" })
	r := f.revoke(revoked, issuance.KeyCompromise, 0)
	f.revoke(held, issuance.CertificateHold, 0)
	f.revoke(released, issuance.CertificateHold, 0)
	f.revoke(released, issuance.RemoveFromCRL, 1)
	f.revoke(elsewhere, issuance.Superseded, 0)

	claim := f.claim("issuing-1")
	if claim.Fence != 1 || claim.LastNumber.Sign() != 0 || len(claim.Pending) != 4 || time.Since(claim.Now).Abs() > time.Minute {
		t.Errorf("claimed %+v", claim)
	}
	want := map[string]issuance.Reason{string(revoked.Serial[:]): issuance.KeyCompromise, string(held.Serial[:]): issuance.CertificateHold}
	got := map[string]issuance.Reason{}
	for _, e := range claim.Entries {
		got[string(e.Serial)] = e.Reason
		if string(e.Serial) == string(revoked.Serial[:]) && (!e.RevokedAt.Equal(r.At) || !e.InvalidityDate.IsZero()) {
			t.Errorf("the entry is %+v, the revocation %+v", e, r)
		}
	}
	if !reflect.DeepEqual(got, want) || len(claim.Entries) != 2 {
		t.Errorf("entries %v, want %v", got, want)
	}

	late := f.issue()
	f.revoke(late, issuance.Superseded, 0) // after the snapshot
	record := f.publish(claim, claim.Now)
	f.wantCounts("crl_pending WHERE scope = 'full'", 1, "crls", 1, "crl_intents", 1)
	current, err := f.CurrentCRL(context.Background(), "issuing-1", ca.FullScope, nil)
	record.Pending = nil
	if err != nil || !reflect.DeepEqual(current, record) {
		t.Errorf("current is %+v, %v\nwant %+v", current, err, record)
	}
	if known, err := f.CurrentCRL(context.Background(), "issuing-1", ca.FullScope, record.Number); err != nil || known.DER != nil || known.Number.Cmp(record.Number) != 0 {
		t.Errorf("asked for another than %s: %+v, %v", record.Number, known, err)
	}
	again := f.claim("issuing-1")
	if len(again.Entries) != 3 || len(again.Pending) != 1 || again.LastNumber.Cmp(record.Number) != 0 || again.Fence != 2 {
		t.Errorf("the next claim is %+v", again)
	}
}

// RFC 5280, section 3.3: an entry stays until it has been on one CRL made after the certificate's end.
func TestAnExpiredEntryStaysForOneMoreCRL(t *testing.T) {
	f := setUp(t)
	f.addAuthority("issuing-1")
	start := time.Now().Add(-10 * time.Hour)
	c := f.issue(func(c *ca.NewCertificate) { c.NotAfter = start.Add(90 * time.Minute).UTC() })
	f.revoke(c, issuance.Superseded, 0)
	for n, step := range []struct {
		thisUpdate time.Time
		want       int
	}{
		{start, 1},                    // valid
		{start.Add(time.Hour), 1},     // valid
		{start.Add(2 * time.Hour), 1}, // has ended: the one more
		{start.Add(3 * time.Hour), 0}, // gone
		{start.Add(4 * time.Hour), 0}, // stays gone
	} {
		claim := f.claim("issuing-1")
		if len(claim.Entries) != step.want {
			t.Errorf("CRL %d has %d entries, want %d", n+1, len(claim.Entries), step.want)
		}
		f.publish(claim, step.thisUpdate)
	}
	// One that is revoked when it has ended, as a settled orphan may be, is shown once.
	late := f.issue(func(c *ca.NewCertificate) { c.NotAfter = start })
	f.revoke(late, issuance.Superseded, 0)
	for n, want := range []int{1, 0} {
		claim := f.claim("issuing-1")
		if len(claim.Entries) != want {
			t.Errorf("%d CRLs after a late revocation: %d entries, want %d", n+1, len(claim.Entries), want)
		}
		f.publish(claim, start.Add(5*time.Hour))
	}
}

func TestAStalePublisherIsFencedOff(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	f.addAuthority("issuing-1")
	if _, err := claimBy(f.Store, "issuing-1", "no such scope", alpha); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("a scope that does not exist: %v, want ErrNotFound", err)
	}
	stale := f.claim("issuing-1")
	if _, err := claimBy(f.Store, "issuing-1", ca.FullScope, beta); !errors.Is(err, ca.ErrFenced) {
		t.Fatalf("a claim while another's lease runs: %v, want ErrFenced", err)
	}
	if err := f.RecordCRLIntent(ctx, crlIntent(stale, alpha)); err != nil {
		t.Fatal(err)
	}
	f.exec(`UPDATE crl_scopes SET lease_until = now() - interval '1 second'`)
	fresh, err := claimBy(f.Store, "issuing-1", ca.FullScope, beta)
	if err != nil {
		t.Fatal(err)
	}
	if fresh.Fence <= stale.Fence || fresh.LastNumber.Cmp(next(stale)) != 0 {
		t.Errorf("after a claim %+v comes %+v", stale, fresh)
	}
	record := ca.CRLRecord{Issuer: "issuing-1", Scope: ca.FullScope, Number: next(stale), DER: []byte("stale"), ThisUpdate: now(), NextUpdate: now(), EventID: newID()}
	if err := f.RecordCRL(ctx, record, stale.Fence); !errors.Is(err, ca.ErrFenced) {
		t.Errorf("the stale publisher recorded: %v, want ErrFenced", err)
	}
	i := crlIntent(stale, alpha)
	i.Number = big.NewInt(99)
	if err := f.RecordCRLIntent(ctx, i); !errors.Is(err, ca.ErrFenced) {
		t.Errorf("the stale publisher intended: %v, want ErrFenced", err)
	}
	i = crlIntent(fresh, beta)
	i.Number = fresh.LastNumber
	if err := f.RecordCRLIntent(ctx, i); !errors.Is(err, ca.ErrFenced) {
		t.Errorf("a number that is not above the last: %v, want ErrFenced", err)
	}
	record.Number = next(fresh)
	if err := f.RecordCRL(ctx, record, fresh.Fence); !errors.Is(err, ca.ErrFenced) {
		t.Errorf("a CRL without an intent: %v, want ErrFenced", err)
	}
	f.wantCounts("crls", 0)
	f.publish(fresh, time.Now())
	record.Number = new(big.Int).Add(record.Number, big.NewInt(1))
	if err := f.RecordCRL(ctx, record, fresh.Fence); !errors.Is(err, ca.ErrFenced) {
		t.Errorf("a second CRL on one claim: %v, want ErrFenced", err)
	}
	if claim, err := claimBy(f.Store, "issuing-1", ca.FullScope, alpha); err != nil || claim.Fence != fresh.Fence+1 {
		t.Errorf("a claim after the end of the last: %+v, %v", claim, err)
	}
}

func TestCRLStepsMayBeRepeated(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	f.addAuthority("issuing-1")
	claim := f.claim("issuing-1")
	i := crlIntent(claim, alpha)
	l := leaf(t, audit.CRLIntended)
	for range 2 {
		if err := f.RecordCRLIntent(ctx, i, l); err != nil {
			t.Fatal(err)
		}
	}
	other := i
	other.TBS = random32()
	if err := f.RecordCRLIntent(ctx, other); !errors.Is(err, ca.ErrFenced) {
		t.Errorf("another intent with the number: %v, want ErrFenced", err)
	}
	record := ca.CRLRecord{Issuer: "issuing-1", Scope: ca.FullScope, Number: i.Number, DER: []byte("CRL"), ThisUpdate: now(), NextUpdate: now(), EventID: newID()}
	for range 2 {
		if err := f.RecordCRL(ctx, record, claim.Fence); err != nil {
			t.Fatal(err)
		}
	}
	f.wantCounts("crl_intents", 1, "crls", 1)
}

func TestImportedCRLs(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	f.addAuthority("root-1")
	number := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 159), new(big.Int).Lsh(big.NewInt(1), 64)) // which leaves room
	record := ca.CRLRecord{Issuer: "root-1", Scope: ca.FullScope, Number: number, DER: []byte("root CRL"), ThisUpdate: now(), NextUpdate: now(), EventID: newID()}
	stale := f.claim("root-1")
	for _, serial := range []int64{7, 9} { // an authority below it, and one that the CRL leaves out
		f.exec(`INSERT INTO crl_pending (issuer, scope, serial) VALUES ('root-1', $1, $2)`, ca.FullScope, big.NewInt(serial).Bytes())
	}
	record.Pending = []ca.CRLPending{{Serial: []byte{7}}, {Serial: []byte{8}}}
	for range 2 {
		if err := f.ImportCRL(ctx, record, nil, leafWithID(t, record.EventID, audit.CRLImported)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.RecordCRLIntent(ctx, crlIntent(stale, alpha)); !errors.Is(err, ca.ErrFenced) {
		t.Errorf("a claim from before the import: %v, want ErrFenced", err)
	}
	current, err := f.CurrentCRL(ctx, "root-1", ca.FullScope, nil)
	if err != nil || current.Number.Cmp(number) != 0 || string(current.DER) != "root CRL" {
		t.Errorf("current is %+v, %v", current, err)
	}
	record.DER = []byte("another")
	if err := f.ImportCRL(ctx, record, number); !errors.Is(err, ca.ErrFenced) {
		t.Errorf("another CRL with the number: %v, want ErrFenced", err)
	}
	for _, bad := range []*big.Int{nil, big.NewInt(0), big.NewInt(-1), new(big.Int).Lsh(big.NewInt(1), 159)} {
		record.Number = bad
		if err := f.ImportCRL(ctx, record, number); err == nil || errors.Is(err, ca.ErrUnavailable) {
			t.Errorf("number %v: %v", bad, err)
		}
	}
	f.wantCounts("crls", 1)
	if left := f.column(`SELECT encode(serial, 'hex') FROM crl_pending`); len(left) != 1 || left[0] != "09" {
		t.Errorf("pending are %v: what the imported CRL shows is not, what it leaves out is", left)
	}
}

// Of CRLs that were held against the same one, one takes its place: the others, held against that, might forget what it revokes. It is the CRL
// that counts, and not a number that nothing was published under.
func TestImportedCRLsFollowEachOther(t *testing.T) {
	t.Parallel()
	f := setUp(t)
	ctx := context.Background()
	f.addAuthority("root-1")
	var before *big.Int
	for n := range int64(10) {
		if n == 5 {
			f.exec(`UPDATE crl_scopes SET last_number = last_number + 1, published_number = last_number + 1 WHERE issuer = 'root-1'`)
		}
		outcomes := make([]error, 3)
		var calls sync.WaitGroup
		for i := range outcomes {
			record := ca.CRLRecord{
				Issuer: "root-1", Scope: ca.FullScope, Number: big.NewInt(10*n + int64(i) + 2), DER: fmt.Appendf(nil, "CRL %d %d", n, i), ThisUpdate: now(),
				NextUpdate: now(), EventID: newID(),
			}
			l := leafWithID(t, record.EventID, audit.CRLImported)
			calls.Go(func() { outcomes[i] = f.ImportCRL(ctx, record, before, l) })
		}
		calls.Wait()
		imported := 0
		for _, err := range outcomes {
			switch {
			case err == nil:
				imported++
			case !errors.Is(err, ca.ErrFenced):
				t.Errorf("imported: %v, want ErrFenced", err)
			}
		}
		if imported != 1 {
			t.Fatalf("%d of %d CRLs follow the same one: %v", imported, len(outcomes), outcomes)
		}
		current, err := f.CurrentCRL(ctx, "root-1", ca.FullScope, nil)
		if err != nil {
			t.Fatal(err)
		}
		before = current.Number
	}
}

// Publishers race over replicas, and revocations come in all the while. Numbers must rise with the fence, nobody may hold a claim
// together with another, and in the end every revocation is on the last CRL.
func TestPublishersRace(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	f.addAuthority("issuing-1")
	stores := []ca.Store{f.Store, f.db.Store(t)}
	const revocations, rounds = 15, 8
	var wg sync.WaitGroup
	for n := range 4 {
		by := ca.Replica{Name: string(rune('p' + n)), Run: "1"}
		wg.Go(func() {
			for range rounds {
				claim, err := claimBy(stores[n%2], "issuing-1", ca.FullScope, by)
				if errors.Is(err, ca.ErrFenced) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if err := stores[n%2].RecordCRLIntent(ctx, crlIntent(claim, by)); err != nil {
					t.Errorf("the holder's intent: %v", err)
					return
				}
				record := ca.CRLRecord{
					Issuer: claim.Issuer, Scope: claim.Scope, Number: next(claim), DER: []byte(by.Name), ThisUpdate: now(),
					NextUpdate: now().Add(time.Hour), Entries: len(claim.Entries), Pending: claim.Pending, EventID: newID(),
				}
				if err := stores[n%2].RecordCRL(ctx, record, claim.Fence); err != nil {
					t.Errorf("the holder's CRL: %v", err)
				}
			}
		})
	}
	for range revocations {
		f.revoke(f.issue(), issuance.Superseded, 0)
	}
	wg.Wait()
	f.publish(f.claim("issuing-1"), time.Now())
	current, err := f.CurrentCRL(ctx, "issuing-1", ca.FullScope, nil)
	if err != nil || current.Entries != revocations {
		t.Errorf("the last CRL has %d entries, %v; want %d", current.Entries, err, revocations)
	}
	f.wantCounts("crl_pending", 0,
		"(SELECT number <= lag(number) OVER (ORDER BY fence) AS fell FROM crl_intents) AS x WHERE fell", 0,
		"(SELECT entries < lag(entries) OVER (ORDER BY number) AS lost FROM crls) AS x WHERE lost", 0)
}

func at(t testing.TB, s ca.Store) ca.FeedPosition {
	t.Helper()
	p, err := s.FeedPosition(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAClaimBringsWhatHasChanged(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	f.addAuthority("issuing-1")
	f.revoke(f.issue(), issuance.Superseded, 0)
	since := at(t, f.Store)
	c := f.issue()
	f.revoke(c, issuance.CertificateHold, 0)
	f.revoke(c, issuance.RemoveFromCRL, 1)
	f.revoke(f.issue(func(c *ca.NewCertificate) { c.CRLScope = "7" }), issuance.Superseded, 0)
	ask := ca.CRLAsk{Issuer: "issuing-1", Scope: ca.FullScope, By: alpha, Lease: lease, Since: since}
	claim, err := f.ClaimCRL(ctx, ask)
	if err != nil {
		t.Fatal(err)
	}
	if len(claim.Changes) != 1 || !bytes.Equal(claim.Changes[0].Serial, c.Serial[:]) || claim.Changes[0].Reason != issuance.RemoveFromCRL {
		t.Errorf("changed: %+v", claim.Changes)
	}
	if claim.Alone {
		t.Error("there is another scope, and the claim says that there is none")
	}
	ask.Since.Server = "another"
	if _, err := f.ClaimCRL(ctx, ask); !errors.Is(err, ca.ErrStalePosition) {
		t.Errorf("from another server's position: %v, want ErrStalePosition", err)
	}
	ask.Since = ca.FeedPosition{Server: since.Server, Xact: since.Xact + 1_000_000}
	if _, err := f.ClaimCRL(ctx, ask); !errors.Is(err, ca.ErrStalePosition) {
		t.Errorf("from a position that this copy of the server has not come to: %v, want ErrStalePosition", err)
	}
}

// What a restore from another server brought has been read when this one comes to its numbers, and may have been overtaken: a certificate
// that is revoked since then stays on the CRL, and one that was released stays away.
func TestRestoredEntriesOvertakeNone(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	f.addAuthority("issuing-1")
	revoked, released := f.issue(), f.issue()
	f.exec(`ALTER TABLE revocations DISABLE TRIGGER entries_follow`) // as whoever restores does: the trigger says who writes now
	f.exec(`DO $$ BEGIN
		EXECUTE format('ALTER TABLE revocations ALTER COLUMN xact SET DEFAULT %L', (pg_current_xact_id()::text::bigint + 100)::text);
	END $$`)
	f.revoke(revoked, issuance.CertificateHold, 0)
	f.revoke(revoked, issuance.RemoveFromCRL, 1)
	f.revoke(released, issuance.CertificateHold, 0)
	f.exec(`ALTER TABLE revocations ALTER COLUMN xact SET DEFAULT pg_current_xact_id()`)
	f.exec(`ALTER TABLE revocations ENABLE TRIGGER entries_follow`)
	f.revoke(revoked, issuance.KeyCompromise, 2)
	f.revoke(released, issuance.RemoveFromCRL, 1)
	since := at(t, f.Store)
	for range 200 {
		f.exec(`SELECT pg_current_xact_id()`)
	}
	claim, err := f.ClaimCRL(ctx, ca.CRLAsk{Issuer: "issuing-1", Scope: ca.FullScope, By: alpha, Lease: lease, Since: since})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range claim.Changes {
		want := issuance.KeyCompromise
		if bytes.Equal(e.Serial, released.Serial[:]) {
			want = issuance.RemoveFromCRL
		}
		if e.Reason != want {
			t.Errorf("the state of %x is told as %s, and is %s", e.Serial, e.Reason, want)
		}
	}
	if len(claim.Changes) != 2 {
		t.Errorf("%d have changed: the server has not come to what was restored", len(claim.Changes))
	}
}

// A delta shows everything that the complete CRL does not, until that does.
func TestDeltas(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	f.addAuthority("issuing-1")
	schedules := []ca.CRLSchedule{{Issuer: "issuing-1", Period: time.Hour, DeltaPeriod: time.Minute}}
	wantDue := func(want ...ca.CRLDue) {
		t.Helper()
		if due, err := f.DueCRLs(ctx, schedules); err != nil || !slices.Equal(due, want) {
			t.Errorf("due are %v, %v; want %v", due, err, want)
		}
	}
	complete, delta := ca.CRLDue{Issuer: "issuing-1", Scope: "full"}, ca.CRLDue{Issuer: "issuing-1", Scope: "full", Delta: true}
	why := func(d ca.CRLDue, why string) ca.CRLDue { d.Why = why; return d }
	wantDue(why(complete, "first"))
	held := f.issue()
	f.revoke(held, issuance.CertificateHold, 0)
	base := f.publish(f.claim("issuing-1"), time.Now())
	wantDue(why(delta, "base"))
	publish := func(thisUpdate time.Time, want int) ca.CRLRecord {
		t.Helper()
		claim, err := f.ClaimCRL(ctx, ca.CRLAsk{Issuer: "issuing-1", Scope: ca.FullScope, By: alpha, Lease: lease, Delta: true})
		if err != nil {
			t.Fatal(err)
		}
		if len(claim.Changes) != want || claim.Published.Cmp(base.Number) != 0 {
			t.Errorf("the delta to %s shows %+v, want %d entries", claim.Published, claim.Changes, want)
		}
		c := claimed{CRLClaim: claim}
		if err := f.RecordCRLIntent(ctx, crlIntent(c, alpha)); err != nil {
			t.Fatal(err)
		}
		r := ca.CRLRecord{
			Issuer: "issuing-1", Scope: ca.FullScope, Number: next(c), Base: claim.Published, DER: []byte("delta " + next(c).String()),
			ThisUpdate: thisUpdate.UTC().Truncate(time.Second), NextUpdate: thisUpdate.UTC().Truncate(time.Second).Add(time.Hour), Entries: want, Pending: claim.Pending, EventID: newID(),
		}
		for range 2 { // as after an answer that was lost
			if err := f.RecordCRL(ctx, r, claim.Fence); err != nil {
				t.Fatal(err)
			}
		}
		r.Pending = nil
		if current, err := f.CurrentDelta(ctx, "issuing-1", ca.FullScope, nil); err != nil || !reflect.DeepEqual(current, r) {
			t.Errorf("the delta is %+v, %v\nwant %+v", current, err, r)
		}
		return r
	}
	publish(time.Now(), 0)
	wantDue()
	f.revoke(held, issuance.RemoveFromCRL, 1)
	f.revoke(f.issue(), issuance.KeyCompromise, 0)
	wantDue(why(delta, "revocation"))
	publish(time.Now(), 2)
	wantDue()
	publish(time.Now().Add(-2*time.Minute), 2)
	wantDue(why(delta, "schedule"))
	publish(time.Now().Add(time.Hour), 2)
	wantDue(why(delta, "clock"))
	f.exec(`UPDATE crl_scopes SET this_update = this_update - interval '2 hours'`)
	wantDue(why(complete, "schedule"), why(delta, "clock"))
	f.publish(f.claim("issuing-1"), time.Now())
	wantDue(why(delta, "base"))
	f.wantCounts("crl_pending", 0, "crls", 2, "crl_deltas", 4)
	states, err := f.CRLStates(ctx, "issuing-1")
	if err != nil || len(states) != 1 || states[0].Number == nil || states[0].Delta == nil || states[0].Entries != 1 {
		t.Errorf("the state is %+v, %v", states, err)
	}
	f.revoke(f.issue(), issuance.Superseded, 0)
	wantDue(why(delta, "revocation")) // which presses more than a base does
}

// A long CRL gives up its octets when two later ones are there. Its row and its digest stay.
func TestSupersededCRLsGiveUpTheirOctets(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	f.addAuthority("issuing-1")
	for n, octets := range []int{100_000, 100, 100_000, 100_000, 100_000} {
		claim := f.claim("issuing-1")
		if err := f.RecordCRLIntent(ctx, crlIntent(claim, alpha)); err != nil {
			t.Fatal(err)
		}
		r := ca.CRLRecord{
			Issuer: "issuing-1", Scope: ca.FullScope, Number: next(claim), DER: bytes.Repeat([]byte{byte(n)}, octets), ThisUpdate: now(), NextUpdate: now(), EventID: newID(),
		}
		if err := f.RecordCRL(ctx, r, claim.Fence); err != nil {
			t.Fatal(err)
		}
	}
	f.wantCounts("crls WHERE der = '' AND der_sha256 IS NOT NULL", 2, "crls WHERE sha256(der) = der_sha256", 3, "crls", 5)
	for _, sql := range []string{
		`UPDATE crls SET der = '' WHERE number = (SELECT max(number) FROM crls)`,
		`UPDATE crls SET der = '', entries = 7, der_sha256 = sha256(der) WHERE octet_length(der) = 100`,
		`UPDATE crls SET der = '', der_sha256 = sha256('x') WHERE octet_length(der) = 100`,
	} {
		if _, err := f.owner.Exec(ctx, sql); sqlState(err) != restrictViolation {
			t.Errorf("%s: %v", sql, err)
		}
	}
}

func TestScopesAreAddedOnce(t *testing.T) {
	f := setUp(t)
	f.addAuthority("issuing-1")
	for range 2 {
		if err := f.AddCRLScopes(context.Background(), "issuing-1", []string{"0", "1", ca.FullScope}); err != nil {
			t.Fatal(err)
		}
	}
	f.wantCounts("crl_scopes", 3)
}

// A claim that is given back holds up nobody, and one that is stale ends no other.
func TestAClaimIsGivenBack(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	f.addAuthority("issuing-1")
	first := f.claim("issuing-1")
	if _, err := claimBy(f.Store, "issuing-1", ca.FullScope, beta); !errors.Is(err, ca.ErrFenced) {
		t.Fatalf("while it runs: %v", err)
	}
	if err := f.ReleaseCRL(ctx, first.CRLClaim); err != nil {
		t.Fatal(err)
	}
	second, err := claimBy(f.Store, "issuing-1", ca.FullScope, beta)
	if err != nil || second.Fence <= first.Fence {
		t.Fatalf("given back: %+v, %v", second, err)
	}
	if err := f.ReleaseCRL(ctx, first.CRLClaim); err != nil {
		t.Fatal(err)
	}
	if _, err := claimBy(f.Store, "issuing-1", ca.FullScope, alpha); !errors.Is(err, ca.ErrFenced) {
		t.Errorf("a stale claim ended another: %v", err)
	}
	if err := f.RecordCRLIntent(ctx, crlIntent(first, alpha), leaf(t, audit.CRLIntended)); !errors.Is(err, ca.ErrFenced) {
		t.Errorf("a claim that was given back is good: %v", err)
	}
}
