package storage_test

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
)

func TestRevocationsFormASequence(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	c := f.issue()
	f.revoke(c, issuance.CertificateHold, 0)
	f.revoke(c, issuance.RemoveFromCRL, 1)
	last := f.revoke(c, issuance.Superseded, 2)
	if last.Sequence != 3 {
		t.Errorf("the third entry has number %d", last.Sequence)
	}
	stale := revocationOf(c, issuance.KeyCompromise)
	if _, err := f.RecordRevocation(ctx, stale, 2); !errors.Is(err, ca.ErrFenced) {
		t.Errorf("an entry after one that is not the latest: %v, want ErrFenced", err)
	}
	if _, err := f.RecordRevocation(ctx, stale, 7); !errors.Is(err, ca.ErrFenced) {
		t.Errorf("an entry after one that does not exist: %v, want ErrFenced", err)
	}
	f.wantCounts("revocations", 3, "crl_pending", 3, "compromised_keys", 0)
	found, err := f.Certificates(ctx, "", c.Serial[:], access.AllNamespaces)
	if err != nil || len(found) != 1 {
		t.Fatalf("%d certificates, %v", len(found), err)
	}
	if got := found[0].Revocation; got == nil || !reflect.DeepEqual(*got, last) {
		t.Errorf("the state is %+v\nwant %+v", got, last)
	}
}

func TestARevocationComesBackAsRecorded(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	r := revocationOf(f.issue(), issuance.KeyCompromise)
	r.At = time.Date(2026, 11, 1, 12, 0, 0, 123456789, time.FixedZone("", 3600))
	r.InvalidityDate = time.Date(2026, 10, 1, 0, 0, 0, 0, time.UTC)
	l := leafWithID(t, r.EventID, audit.CertificateRevoked)
	first, err := f.RecordRevocation(ctx, r, 0, l)
	if err != nil {
		t.Fatal(err)
	}
	if want := time.Date(2026, 11, 1, 11, 0, 0, 123457000, time.UTC); first.Sequence != 1 || first.At.Sub(want).Abs() > time.Microsecond ||
		!first.InvalidityDate.Equal(r.InvalidityDate) {
		t.Errorf("recorded %+v", first)
	}
	again, err := f.RecordRevocation(ctx, r, 0, l) // as after an answer that was lost
	if err != nil || !reflect.DeepEqual(again, first) {
		t.Errorf("the same again: %+v, %v\nwant %+v", again, err, first)
	}
	f.wantCounts("revocations", 1, "crl_pending", 1, "compromised_keys", 1)
}

func TestOneOfManyRevocationsWins(t *testing.T) {
	f := setUp(t)
	other := f.db.Store(t)
	c := f.issue()
	const racers = 12
	outcomes := make([]error, racers)
	var wg sync.WaitGroup
	for n := range racers {
		r := revocationOf(c, issuance.KeyCompromise)
		l := leafWithID(t, r.EventID, audit.CertificateRevoked)
		wg.Go(func() {
			store := f.Store
			if n%2 == 0 {
				store = other
			}
			_, outcomes[n] = store.RecordRevocation(context.Background(), r, 0, l)
		})
	}
	wg.Wait()
	won := 0
	for _, err := range outcomes {
		if err == nil {
			won++
		} else if !errors.Is(err, ca.ErrFenced) {
			t.Errorf("a loser got %v, want ErrFenced", err)
		}
	}
	if won != 1 {
		t.Errorf("%d won, want 1", won)
	}
	f.wantCounts("revocations", 1, "crl_pending", 1, "audit_leaves", 3)
}

// TestALostCertificateIsKnownByItsRevocation: of a certificate that an older copy of the database has lost there is its revocation alone.
func TestALostCertificateIsKnownByItsRevocation(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	lost := certificateOf(newIntent(t, alpha))
	if err := f.RecordAuthority(ctx, newAuthority(lost.Issuer), leaf(t, audit.AuthorityAdded)); err != nil && !errors.Is(err, ca.ErrExists) {
		t.Fatal(err)
	}
	if never, err := f.Unissued(ctx, [][]byte{lost.Serial[:]}); err != nil || len(never) != 1 {
		t.Fatalf("before its revocation never issued: %x, %v", never, err)
	}
	f.revoke(lost, issuance.Superseded, 0)
	if never, err := f.Unissued(ctx, [][]byte{lost.Serial[:]}); err != nil || len(never) != 0 {
		t.Errorf("never issued: %x, %v", never, err)
	}
	if status, err := f.CertificateStatus(ctx, lost.Issuer, lost.Serial[:]); err != nil || !status.Issued || !status.Revoked {
		t.Errorf("its status is %+v, %v", status, err)
	}
}
