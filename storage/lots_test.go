package storage_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/storage"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// together has all writes to a store share one transaction: a first write is held up, by a lock that it needs, until all wait.
func together(t *testing.T, s *storage.Store, hold func() (release func()), first func() error, writes []func() error) []error {
	t.Helper()
	patience := time.Now().Add(time.Minute)
	await := func(wantUnderWay bool, want int) {
		for {
			underWay, waiting := s.Issuances()
			if underWay == wantUnderWay && waiting == want {
				return
			}
			if time.Now().After(patience) {
				panic(fmt.Sprintf("under way: %v, waiting: %d; want %v, %d", underWay, waiting, wantUnderWay, want)) // with what all are doing
			}
			runtime.Gosched()
		}
	}
	await(false, 0) // who worked on the writes before has still to see that there are no more, and must not take these
	release := hold()
	var calls sync.WaitGroup
	calls.Go(func() {
		if err := first(); err != nil {
			t.Errorf("the write before: %v", err)
		}
	})
	await(true, 0)
	outcomes := make([]error, len(writes))
	for i, write := range writes {
		calls.Go(func() { outcomes[i] = write() })
		await(true, i+1)
	}
	release()
	calls.Wait()
	return outcomes
}

// holdKey takes the lock of a subject key, as a revocation of it would.
func (f *fixture) holdKey(spki [32]byte) func() (release func()) {
	return func() func() {
		tx, err := f.owner.Begin(context.Background())
		if err != nil {
			f.t.Fatal(err)
		}
		if _, err := tx.Exec(context.Background(), `SELECT pg_advisory_xact_lock($1)`, storage.LockNumber(spki)); err != nil {
			f.t.Fatal(err)
		}
		return func() {
			if err := tx.Rollback(context.Background()); err != nil {
				f.t.Error(err)
			}
		}
	}
}

// holdIntent locks the row of an open intent.
func (f *fixture) holdIntent(i ca.Intent) func() (release func()) {
	return func() func() {
		tx, err := f.owner.Begin(context.Background())
		if err != nil {
			f.t.Fatal(err)
		}
		if _, err := tx.Exec(context.Background(), `SELECT FROM intents WHERE serial = $1 FOR UPDATE`, i.Serial[:]); err != nil {
			f.t.Fatal(err)
		}
		return func() {
			if err := tx.Rollback(context.Background()); err != nil {
				f.t.Error(err)
			}
		}
	}
}

func (f *fixture) recording(s *storage.Store, i ca.Intent) func() error {
	l := leaf(f.t, audit.CertificateIntended)
	return func() error { return s.RecordIntent(context.Background(), i, l) }
}

func (f *fixture) completing(s *storage.Store, c ca.NewCertificate) func() error {
	l := leafWithID(f.t, c.EventID, audit.CertificateIssued)
	return func() error { return s.RecordCertificate(context.Background(), c, l) }
}

// transactions counts those that wrote the rows which a table holds.
func (f *fixture) transactions(table string) (n int) {
	f.t.Helper()
	if err := f.owner.QueryRow(context.Background(), "SELECT count(DISTINCT xmin::text) FROM "+table).Scan(&n); err != nil {
		f.t.Fatal(err)
	}
	return n
}

func TestIntentsShareATransactionAndEachHasItsOwnOutcome(t *testing.T) {
	f := setUp(t)
	compromised := f.issue()
	f.revoke(compromised, issuance.KeyCompromise, 0)
	earlier := f.intend(withKey("earlier", 1))
	first := newIntent(t, alpha)
	var intents []ca.Intent
	for n := range 12 {
		i := newIntent(t, alpha)
		i.Request.CSR, i.Request.Roles = nil, []string{"requester", `a "quoted" \ role`, ""}[:n%4] // NULL, and arrays of different lengths
		intents = append(intents, i)
	}
	withKey("own", 1)(&intents[1])
	withKey("shared", 1)(&intents[2])
	withKey("shared", 1)(&intents[3])
	withKey("earlier", 1)(&intents[4])
	withKey("earlier", 2)(&intents[5])
	intents[6].Request.SPKI = compromised.SPKI
	var writes []func() error
	for _, i := range intents {
		writes = append(writes, f.recording(f.Store, i))
	}
	outcomes := together(t, f.Store, f.holdKey(first.Request.SPKI), f.recording(f.Store, first), writes)
	winners := 0
	for n, err := range outcomes {
		want := error(nil)
		switch n {
		case 2, 3:
			if err == nil {
				winners++
				continue
			}
			want = ca.ErrIdempotencyBusy
		case 4:
			want = ca.ErrIdempotencyBusy
		case 5:
			want = ca.ErrIdempotencyMismatch
		case 6:
			want = ca.ErrKeyCompromised
		}
		if !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("intent %d: %v, want %v", n, err, want)
		}
	}
	if winners != 1 {
		t.Errorf("%d of two requests have the shared key", winners)
	}
	f.wantCounts("intents", 1+1+8, "requests", 1+1+1+8, "audit_leaves", 3+1+1+8)
	if n := f.transactions(fmt.Sprintf(`intents WHERE serial <> '\x%s'`, earlier.Serial)); n != 2 {
		t.Errorf("the first intent and the eight others took %d transactions, want 2", n)
	}
	var roles []string
	if err := f.owner.QueryRow(context.Background(), `SELECT roles FROM requests WHERE id = $1`, intents[11].Request.ID).Scan(&roles); err != nil ||
		!slices.Equal(roles, intents[11].Request.Roles) {
		t.Errorf("the roles %q are kept as %q, %v", intents[11].Request.Roles, roles, err)
	}
}

// One that the database will not take must not cost the others anything but time.
func TestABadIntentSpoilsNobodyElses(t *testing.T) {
	f := setUp(t)
	first := newIntent(t, alpha)
	var writes []func() error
	for n := range 9 {
		i := newIntent(t, alpha)
		if n == 4 {
			i.Request.Metadata = map[string]string{"comment": "a\x00b"}
		}
		writes = append(writes, f.recording(f.Store, i))
	}
	outcomes := together(t, f.Store, f.holdKey(first.Request.SPKI), f.recording(f.Store, first), writes)
	for n, err := range outcomes {
		var invalid *ca.InvalidError
		if n == 4 && !errors.As(err, &invalid) || n != 4 && err != nil {
			t.Errorf("intent %d: %v", n, err)
		}
	}
	f.wantCounts("intents", 9, "requests", 9, "audit_leaves", 9)
}

func TestCertificatesShareATransactionAndEachHasItsOwnOutcome(t *testing.T) {
	f := setUp(t)
	done := f.issue()
	first := f.intend()
	lost := newIntent(t, alpha)
	foreign := f.intend(func(i *ca.Intent) { i.Owner = beta })
	theirs := certificateOf(foreign)
	theirs.Owner = alpha
	other := done
	other.DER = []byte("another certificate of the same serial")
	writes := []func() error{
		f.completing(f.Store, certificateOf(f.intend())),
		f.completing(f.Store, certificateOf(lost)), // its intent is not on record
		f.completing(f.Store, certificateOf(f.intend())),
		f.completing(f.Store, done), // the same again
		f.completing(f.Store, theirs),
		f.completing(f.Store, other),
		f.completing(f.Store, certificateOf(f.intend())),
	}
	outcomes := together(t, f.Store, f.holdIntent(first), f.completing(f.Store, certificateOf(first)), writes)
	for n, want := range []error{nil, ca.ErrIntentLost, nil, nil, ca.ErrIntentLost, ca.ErrIntentLost, nil} {
		if !errors.Is(outcomes[n], want) || want == nil && outcomes[n] != nil {
			t.Errorf("certificate %d: %v, want %v", n, outcomes[n], want)
		}
	}
	f.wantCounts("certificates", 1+1+3, "intents", 1)
	if n := f.transactions("certificates"); n != 3 {
		t.Errorf("the certificate before, the first one and the three others took %d transactions, want 3", n)
	}
}

// The lot's commit happened and its answer was lost: those that are on record succeed, those that were turned down learn why.
func TestTheLostAnswerOfALot(t *testing.T) {
	f := setUp(t)
	p, through := storagetest.NewProxy(t, f.db.URL)
	disturbed, err := storage.Open(context.Background(), storage.Config{URL: through, Unsafe: true, MaxConns: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(disturbed.Close)
	for fault, happened := range map[storagetest.Fault]bool{storagetest.LoseReply: true, storagetest.LoseAck: true, storagetest.LoseRequest: false} {
		t.Run(fmt.Sprint(fault), func(t *testing.T) {
			first := newIntent(t, alpha)
			intents, open := []ca.Intent{newIntent(t, alpha), newIntent(t, alpha), newIntent(t, alpha)}, f.count("intents")
			key := f.intend(withKey(newID(), 1)).Idempotency // taken
			intents[1].Idempotency = key
			var writes []func() error
			for _, i := range intents {
				writes = append(writes, f.recording(disturbed, i))
			}
			hold := f.holdKey(first.Request.SPKI)
			outcomes := together(t, disturbed, func() func() {
				release := hold()
				return func() { p.Arm(fault, intents[2].Serial[:]); release() }
			}, f.recording(disturbed, first), writes)
			if p.Met() == 0 {
				t.Fatal("the fault was not met")
			}
			if happened {
				if outcomes[0] != nil || outcomes[2] != nil || !errors.Is(outcomes[1], ca.ErrIdempotencyBusy) {
					t.Errorf("the outcomes are %v", outcomes)
				}
				f.wantCounts("intents", open+2+2)
				return
			}
			for n, err := range outcomes {
				if !errors.Is(err, ca.ErrUnavailable) {
					t.Errorf("intent %d: %v, want ErrUnavailable", n, err)
				}
			}
			f.wantCounts("intents", open+2)
		})
	}
}

// A serial that is recorded twice is recorded once: two different intents exclude each other, the same certificate again is no other one.
func TestOneSerialTwiceInALot(t *testing.T) {
	f := setUp(t)
	first, one, two := newIntent(t, alpha), newIntent(t, alpha), newIntent(t, alpha)
	two.Serial = one.Serial
	outcomes := together(t, f.Store, f.holdKey(first.Request.SPKI), f.recording(f.Store, first),
		[]func() error{f.recording(f.Store, one), f.recording(f.Store, two)})
	if (outcomes[0] == nil) == (outcomes[1] == nil) {
		t.Errorf("two intents for one serial: %v", outcomes)
	}
	f.wantCounts("intents", 2, "requests", 2)

	before, i := f.intend(), f.intend()
	c := certificateOf(i)
	outcomes = together(t, f.Store, f.holdIntent(before), f.completing(f.Store, certificateOf(before)),
		[]func() error{f.completing(f.Store, c), f.completing(f.Store, c)})
	if outcomes[0] != nil || outcomes[1] != nil {
		t.Errorf("one certificate twice: %v", outcomes)
	}
	f.wantCounts("certificates", 2)
}

// Both writes of an issuance share transactions, and neither costs the other its outcome.
func TestIntentsAndCertificatesShareATransaction(t *testing.T) {
	f := setUp(t)
	first, intent, bad, lost := newIntent(t, alpha), newIntent(t, alpha), newIntent(t, alpha), newIntent(t, alpha)
	open := f.intend()
	write := func() []error {
		return together(t, f.Store, f.holdKey(first.Request.SPKI), f.recording(f.Store, first), []func() error{
			f.recording(f.Store, intent), f.completing(f.Store, certificateOf(open)), f.completing(f.Store, certificateOf(lost)),
		})
	}
	if outcomes := write(); outcomes[0] != nil || outcomes[1] != nil || !errors.Is(outcomes[2], ca.ErrIntentLost) {
		t.Errorf("the outcomes are %v", outcomes)
	}
	shared := fmt.Sprintf(`(SELECT xmin FROM intents WHERE serial = '\x%s' UNION ALL SELECT xmin FROM certificates) AS written`, intent.Serial)
	if n := f.transactions(shared); n != 1 {
		t.Errorf("an intent and a certificate took %d transactions, want 1", n)
	}

	first, intent, open = newIntent(t, alpha), newIntent(t, alpha), f.intend()
	bad.Request.Metadata = map[string]string{"comment": "a\x00b"}
	outcomes := together(t, f.Store, f.holdKey(first.Request.SPKI), f.recording(f.Store, first), []func() error{
		f.recording(f.Store, bad), f.completing(f.Store, certificateOf(open)), f.recording(f.Store, intent),
	})
	var invalid *ca.InvalidError
	if !errors.As(outcomes[0], &invalid) || outcomes[1] != nil || outcomes[2] != nil {
		t.Errorf("beside a bad intent the outcomes are %v", outcomes)
	}
	f.wantCounts("certificates", 2, "intents", 4)
}

// The answer of a lot of both kinds is lost.
func TestTheLostAnswerOfAMixedLot(t *testing.T) {
	f := setUp(t)
	p, through := storagetest.NewProxy(t, f.db.URL)
	disturbed, err := storage.Open(context.Background(), storage.Config{URL: through, Unsafe: true, MaxConns: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(disturbed.Close)
	for fault, happened := range map[storagetest.Fault]bool{storagetest.LoseReply: true, storagetest.LoseAck: true, storagetest.LoseRequest: false} {
		t.Run(fmt.Sprint(fault), func(t *testing.T) {
			first, intent, open, lost := newIntent(t, alpha), newIntent(t, alpha), f.intend(), newIntent(t, alpha)
			hold := f.holdKey(first.Request.SPKI)
			outcomes := together(t, disturbed, func() func() {
				release := hold()
				return func() { p.Arm(fault, intent.Serial[:]); release() }
			}, f.recording(disturbed, first), []func() error{
				f.recording(disturbed, intent), f.completing(disturbed, certificateOf(open)), f.completing(disturbed, certificateOf(lost)),
			})
			if p.Met() == 0 {
				t.Fatal("the fault was not met")
			}
			for n, want := range []error{nil, nil, ca.ErrIntentLost} {
				if !happened {
					want = ca.ErrUnavailable
				}
				if !errors.Is(outcomes[n], want) || want == nil && outcomes[n] != nil {
					t.Errorf("outcome %d is %v, want %v", n, outcomes[n], want)
				}
			}
		})
	}
}
