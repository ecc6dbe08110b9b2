package storage_test

import (
	"context"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca"
)

// TestOldIdempotencyKeysAreForgotten holds the bound on the table to the second, and that open intents keep their keys.
func TestOldIdempotencyKeysAreForgotten(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	const age = 7 * 24 * time.Hour
	f.finish(f.intend(withKey("young", 1)))
	f.finish(f.intend(withKey("old", 1)))
	f.intend(withKey("old but open", 1))
	f.exec(`UPDATE idempotency_keys SET created_at = now() - $1::interval + interval '1 minute' WHERE key = 'young'`, age)
	f.exec(`UPDATE idempotency_keys SET created_at = now() - $1::interval - interval '1 second' WHERE key LIKE 'old%'`, age)
	if n, err := f.ForgetIdempotencyKeys(ctx, f.lead(), age); n != 1 || err != nil {
		t.Fatalf("forgot %d, %v, want 1", n, err)
	}
	for key, known := range map[string]bool{"young": true, "old": false, "old but open": true} {
		if r, err := f.FindReplay(ctx, ca.IdempotencyKey{Actor: "actor-1", Key: key, Body: [32]byte{1}}); (r != nil) != known || err != nil {
			t.Errorf("%q: %+v, %v, want known: %v", key, r, err, known)
		}
	}
	again := f.intend(withKey("old", 2)) // for another body, too
	f.finish(again)
	f.wantCounts("idempotency_keys", 3, "certificates", 3)
}

// TestManyIdempotencyKeysAreForgotten deletes more than fits into one transaction.
func TestManyIdempotencyKeysAreForgotten(t *testing.T) {
	f := setUp(t)
	const many = 12_345
	f.exec(`INSERT INTO idempotency_keys (actor, key, body, issuer, serial, created_at)
		SELECT 'a', n::text, decode(repeat('00', 32), 'hex'), 'issuing-1', decode(repeat('01', 20), 'hex'), now() - interval '8 days'
		FROM generate_series(1, $1) AS n`, many)
	f.finish(f.intend(withKey("new", 1)))
	if n, err := f.ForgetIdempotencyKeys(context.Background(), f.lead(), 7*24*time.Hour); n != many || err != nil {
		t.Errorf("forgot %d, %v, want %d", n, err, many)
	}
	f.wantCounts("idempotency_keys", 1)
}
