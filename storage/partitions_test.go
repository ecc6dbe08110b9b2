package storage_test

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/chancery-ca/chancery/issuance"
)

// The database cuts partitions where issuance says that serials begin.
func TestSerialBounds(t *testing.T) {
	f := setUp(t)
	rapid.Check(t, func(t *rapid.T) {
		at := time.UnixMilli(rapid.Int64Range(1, 253402300799999).Draw(t, "milliseconds")).UTC() // to the end of the year 9999
		want, _ := issuance.SerialBounds(at, at)
		var got []byte
		if err := f.owner.QueryRow(context.Background(), `SELECT serial_bound($1)`, at).Scan(&got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want[:]) {
			t.Fatalf("at %s the bound is %x, want %x", at, got, want)
		}
	})
}

const attached = "pg_inherits WHERE inhparent = 'certificates'::regclass"

func TestPartitionsAreMadeAhead(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	f.wantCounts(attached, 5)
	if err := f.EnsurePartitions(ctx, time.Now()); err != nil {
		t.Fatal(err)
	}
	f.wantCounts(attached, 5)
	// Over a turn of the year, by several replicas at once.
	at := time.Date(time.Now().Year()+3, 12, 31, 23, 59, 59, 0, time.UTC)
	stores := []interface {
		EnsurePartitions(context.Context, time.Time) error
	}{f.Store, f.db.Store(t)}
	var wg sync.WaitGroup
	for n := range 6 {
		wg.Go(func() {
			if err := stores[n%2].EnsurePartitions(ctx, at); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	f.wantCounts(attached, 10)

	name := "certificates_" + at.AddDate(0, 0, 1).Format("2006_01")
	var bounds string
	if err := f.owner.QueryRow(ctx, `SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = $1`, name).Scan(&bounds); err != nil {
		t.Fatal(err)
	}
	from := time.Date(at.Year()+1, 1, 1, 0, 0, 0, 0, time.UTC)
	low, high := issuance.SerialBounds(from, from.AddDate(0, 1, 0))
	if !strings.Contains(bounds, low.String()) || !strings.Contains(bounds, high.String()) {
		t.Errorf("%s holds %s, want from %s to %s", name, bounds, low, high)
	}
	var triggers int
	if err := f.owner.QueryRow(ctx, `SELECT count(*) FROM pg_trigger WHERE tgrelid = $1::regclass`, name).Scan(&triggers); err != nil || triggers == 0 {
		t.Errorf("a new partition has %d triggers, %v", triggers, err)
	}
}

// Before anything is signed it is certain that the certificate will find its partition, even with a clock far ahead.
func TestAnIntentBringsItsPartition(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	for _, at := range []time.Time{time.Now().AddDate(2, 0, 0), time.Now().AddDate(-2, 0, 0), time.Now()} {
		i := newIntent(t, alpha)
		i.Serial = newSerial(t, at)
		if err := f.RecordIntent(ctx, i); err != nil {
			t.Fatal(err)
		}
		f.finish(i)
	}
	f.wantCounts("certificates", 3)
}
