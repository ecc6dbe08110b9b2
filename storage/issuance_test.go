package storage_test

import (
	"context"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
)

// TestIntentsAsPeopleLookAtThem: an intent is open, then its lease runs out, then it is settled, and at each moment it is in one list.
func TestIntentsAsPeopleLookAtThem(t *testing.T) {
	f, ctx := setUp(t), context.Background()
	f.addAuthority("issuing-1")
	f.issue()
	i := f.intend()
	open, err := f.WorkedIntents(ctx, 10)
	if err != nil || len(open) != 1 {
		t.Fatalf("%+v, %v", open, err)
	}
	if w := open[0]; w.Serial != i.Serial || w.Issuer != i.Issuer || w.Kind != i.Kind || w.Owner != i.Owner || w.Profile != i.Request.Profile ||
		w.Namespace != i.Request.Namespace || w.RequestID != i.Request.ID || w.Expired || !w.LeaseUntil.After(w.CreatedAt) {
		t.Errorf("%+v is not %+v", w, i)
	}
	f.exec("UPDATE intents SET lease_until = now() - interval '1 second'")
	if open, err = f.WorkedIntents(ctx, 10); err != nil || len(open) != 1 || !open[0].Expired {
		t.Errorf("after its lease: %+v, %v", open, err)
	}
	o := ca.Settlement{Issuer: i.Issuer, Serial: i.Serial, Kind: i.Kind, At: now(), EventID: newID(), Reason: "its replica died"}
	if err := f.SettleIntent(ctx, alpha, o, leafWithID(t, o.EventID, audit.CertificateOrphaned)); err != nil {
		t.Fatal(err)
	}
	if open, err = f.WorkedIntents(ctx, 10); err != nil || len(open) != 0 {
		t.Errorf("after its settlement: %+v, %v", open, err)
	}
	settled, err := f.SettledIntents(ctx, o.At.Add(-time.Minute), 10)
	if err != nil || len(settled) != 1 {
		t.Fatalf("%+v, %v", settled, err)
	}
	if s := settled[0]; s.Serial != i.Serial || s.Issuer != i.Issuer || s.Reason != o.Reason || s.EventID != o.EventID || !s.SettledAt.Equal(o.At) ||
		s.Profile != i.Request.Profile || s.RequestID != i.Request.ID {
		t.Errorf("%+v is not %+v", s, o)
	}
	if settled, err = f.SettledIntents(ctx, o.At.Add(time.Minute), 10); err != nil || len(settled) != 0 {
		t.Errorf("since later: %+v, %v", settled, err)
	}
}
