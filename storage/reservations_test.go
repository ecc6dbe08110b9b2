package storage_test

import (
	"context"
	"encoding/hex"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/policies"
)

func quota(key string, limit int, window time.Duration) policies.Reservation {
	return policies.Reservation{Kind: policies.ReserveQuota, Scope: "namespace", Key: key, Limit: limit, Window: window}
}

func keyOnce(spki [32]byte) policies.Reservation {
	return policies.Reservation{Kind: policies.ReserveKey, Scope: "key", Key: hex.EncodeToString(spki[:]), Limit: 1}
}

func reserving(all ...policies.Reservation) func(*ca.Intent) {
	return func(i *ca.Intent) { i.Reservations = append(i.Reservations, all...) }
}

// reserve records an intent with reservations.
func (f *fixture) reserve(change ...func(*ca.Intent)) error {
	i := newIntent(f.t, alpha)
	for _, c := range change {
		c(&i)
	}
	return f.recording(f.Store, i)()
}

func wantExhausted(t *testing.T, err error, r policies.Reservation, least, most time.Duration) {
	t.Helper()
	var exhausted *ca.ExhaustedError
	if !errors.As(err, &exhausted) || exhausted.Reservation != r || exhausted.RetryAfter < least || exhausted.RetryAfter > most {
		t.Errorf("got %v (%+v), want %+v exhausted, to be tried again in %s to %s", err, exhausted, r, least, most)
	}
}

func TestAQuotaIsKept(t *testing.T) {
	f := setUp(t)
	hour := quota("web", 2, time.Hour)
	for range 2 {
		if err := f.reserve(reserving(hour)); err != nil {
			t.Fatal(err)
		}
	}
	// What is refused leaves nothing behind: its idempotency key is free, and none of its other reservations is taken.
	other := quota("requester", 1, time.Hour)
	wantExhausted(t, f.reserve(reserving(other, hour), withKey("mine", 1)), hour, time.Second, time.Hour+time.Minute)
	if err := f.reserve(reserving(other), withKey("mine", 1)); err != nil {
		t.Errorf("after the refusal: %v", err)
	}
	if err := f.reserve(reserving(quota("db", 2, time.Hour))); err != nil {
		t.Errorf("another's quota: %v", err)
	}
	wantExhausted(t, f.reserve(reserving(quota("none", 0, time.Hour))), quota("none", 0, time.Hour), 0, 0)
	f.wantCounts("intents", 4, "requests", 4, "audit_leaves", 4)

	// An hour later the first two count no more; what lies in the part of the window that is being left still does.
	f.exec(`UPDATE reservations SET part = part - 60 WHERE scope = 'namespace' AND key = 'web'`)
	wantExhausted(t, f.reserve(reserving(hour)), hour, 0, time.Minute)
	f.exec(`UPDATE reservations SET part = part - 1, until = now() - interval '1 second' WHERE scope = 'namespace' AND key = 'web'`)
	if err := f.reserve(reserving(hour)); err != nil {
		t.Errorf("an hour later: %v", err)
	}
	n, err := f.ForgetReservations(context.Background(), f.lead())
	if err != nil || n != 1 {
		t.Errorf("forgot %d counts, %v", n, err)
	}
	f.wantCounts("reservations", 3)
}

func TestAKeyIsCertifiedOnce(t *testing.T) {
	f := setUp(t)
	i := newIntent(t, alpha)
	once := keyOnce(i.Request.SPKI)
	withKeyOnce := func(i *ca.Intent) {
		i.Request.SPKI = [32]byte(mustHex(t, once.Key))
		i.Reservations = []policies.Reservation{once}
	}
	withKeyOnce(&i)
	if err := f.recording(f.Store, i)(); err != nil {
		t.Fatal(err)
	}
	wantExhausted(t, f.reserve(withKeyOnce), once, 0, 0)

	// An intent that came to nothing gives the key back; a certificate keeps it.
	f.settle(i)
	again := newIntent(t, alpha)
	withKeyOnce(&again)
	if err := f.recording(f.Store, again)(); err != nil {
		t.Fatalf("after the settlement: %v", err)
	}
	f.finish(again)
	wantExhausted(t, f.reserve(withKeyOnce), once, 0, 0)

	// One that was certified when nobody reserved it is certified all the same.
	before := f.issue()
	old := keyOnce(before.SPKI)
	wantExhausted(t, f.reserve(func(i *ca.Intent) { i.Request.SPKI = before.SPKI; i.Reservations = []policies.Reservation{old} }), old, 0, 0)
	usage, err := f.ReservationsTaken(context.Background(), []policies.Reservation{once, old, quota("web", 1, time.Hour)})
	if err != nil || usage[0].Used != 1 || usage[1].Used != 1 || usage[2].Used != 0 || usage[2].Key != "web" {
		t.Errorf("taken: %+v, %v", usage, err)
	}
}

func mustHex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (f *fixture) settle(i ca.Intent) {
	f.t.Helper()
	s := ca.Settlement{Issuer: i.Issuer, Serial: i.Serial, Kind: i.Kind, At: now(), EventID: newID(), Reason: "a test"}
	if err := f.SettleIntent(context.Background(), i.Owner, s, leafWithID(f.t, s.EventID, "certificate.orphaned")); err != nil {
		f.t.Fatal(err)
	}
}

// In one lot each is judged by what those before it have really taken.
func TestReservationsWithinALot(t *testing.T) {
	f := setUp(t)
	compromised := f.issue()
	f.revoke(compromised, issuance.KeyCompromise, 0)
	f.intend(withKey("taken", 1))
	first := newIntent(t, alpha)
	small, large := quota("small", 2, time.Hour), quota("large", 4, time.Hour)
	intents := make([]ca.Intent, 10)
	for n := range intents {
		intents[n] = newIntent(t, alpha)
		if n < 9 {
			intents[n].Reservations = []policies.Reservation{large}
		}
	}
	withKey("taken", 1)(&intents[0])           // takes nothing of the quota
	intents[1].Request.SPKI = compromised.SPKI // nor does this
	intents[2].Reservations = append(intents[2].Reservations, quota("nothing", 0, time.Hour))
	intents[3].Reservations = append(intents[3].Reservations, small)
	intents[4].Request.Metadata = map[string]string{"comment": "a\x00b"} // spoils the lot, which is then halved
	withKey("free", 1)(&intents[5])
	var writes []func() error
	for _, i := range intents {
		writes = append(writes, f.recording(f.Store, i))
	}
	outcomes := together(t, f.Store, f.holdKey(first.Request.SPKI), f.recording(f.Store, first), writes)
	granted, turnedAway := 0, 0
	for n, err := range outcomes {
		var exhausted *ca.ExhaustedError
		var invalid *ca.InvalidError
		switch {
		case n == 0 && errors.Is(err, ca.ErrIdempotencyBusy), n == 1 && errors.Is(err, ca.ErrKeyCompromised), n == 4 && errors.As(err, &invalid),
			n == 9 && err == nil:
		case n == 2 && errors.As(err, &exhausted): // of whichever was looked at when it had no room
		case n == 4 && errors.As(err, &exhausted): // the others were before it, and left no room for it to spoil anything
		case (n == 3 || n >= 5 && n < 9) && err == nil:
			granted++
		case (n == 3 || n >= 5 && n < 9) && errors.As(err, &exhausted) && exhausted.Reservation == large:
			turnedAway++
		default:
			t.Errorf("intent %d: %v", n, err)
		}
	}
	if granted != 4 || turnedAway != 1 {
		t.Errorf("%d were let through and %d turned away, want 4 and 1: %v", granted, turnedAway, outcomes)
	}
	usage, err := f.ReservationsTaken(context.Background(), []policies.Reservation{large, small})
	if err != nil || usage[0].Used != 4 {
		t.Errorf("taken: %+v, %v", usage, err)
	}
	f.wantCounts("intents", 1+1+4+1)
}

// Replicas that share a quota never exceed it together, whatever the order in which their lots take it.
func TestAQuotaHoldsAcrossReplicas(t *testing.T) {
	f := setUp(t)
	other := f.db.Store(t)
	const limit, each = 15, 20
	a, b := quota("a", limit, time.Hour), quota("b", limit, time.Hour)
	outcomes := make([]error, 2*each)
	var calls sync.WaitGroup
	for n := range outcomes {
		i := newIntent(t, alpha)
		i.Reservations = []policies.Reservation{a, b}
		store := f.Store
		if n%2 == 1 {
			i.Reservations, store = []policies.Reservation{b, a}, other
		}
		record := f.recording(store, i)
		calls.Go(func() { outcomes[n] = record() })
	}
	calls.Wait()
	granted := 0
	for n, err := range outcomes {
		var exhausted *ca.ExhaustedError
		if err == nil {
			granted++
		} else if !errors.As(err, &exhausted) {
			t.Errorf("intent %d: %v", n, err)
		}
	}
	if granted != limit {
		t.Errorf("%d were let through, want %d", granted, limit)
	}
	f.wantCounts("intents", limit)
}

// An intent without conditions of its own pays nothing for those of others: the function that judges them is not even called. One with
// reservations is written in one transaction.
func TestWhatReservationsCost(t *testing.T) {
	f := setUp(t)
	if err := f.reserve(reserving(quota("web", 5, time.Hour))); err != nil {
		t.Fatal(err)
	}
	const rows = `(SELECT xmin FROM intents UNION ALL SELECT xmin FROM reservations UNION ALL SELECT xmin FROM audit_leaves) AS written`
	if n := f.transactions(rows); n != 1 {
		t.Errorf("the intent took %d transactions", n)
	}
	f.exec(`DROP FUNCTION admit_intents`)
	if err := f.reserve(); err != nil {
		t.Errorf("an intent without reservations: %v", err)
	}
	if err := f.reserve(reserving(quota("web", 5, time.Hour))); err == nil {
		t.Error("an intent with a reservation was recorded without its being judged")
	}
}
