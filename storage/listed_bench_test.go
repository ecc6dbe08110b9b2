package storage_test

import (
	"context"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
)

// BenchmarkColdStart reads the list of a scope with a million revoked certificates from Postgres, into the form that CRLs are made from.
func BenchmarkColdStart(b *testing.B) {
	entries := 1_000_000
	if testing.Short() {
		entries = 1_000
	}
	f := setUp(b)
	f.addAuthority("issuing-1")
	f.exec(`
		INSERT INTO revocations (issuer, serial, sequence, reason, at, comment, actor, event_id, crl_scope, not_after, spki_sha256)
		SELECT 'issuing-1', '\x1c'::bytea || substr(sha256(n::text::bytea), 1, 19), 1, n % 5, now(), '', 'x', gen_random_uuid(), 'full',
			now() + interval '1 day', sha256('')
		FROM generate_series(1, $1::integer) AS n`, entries)
	for f.count(`pg_class WHERE relname = 'revocations' AND relallvisible = relpages`) == 0 { // as the server does by itself after so many rows
		f.exec(`VACUUM ANALYZE revocations`)
	}
	ctx := context.Background()
	for b.Loop() {
		var list issuance.Revoked
		batch := make([]issuance.RevokedEntry, 0, 10_000)
		flush := func() error {
			err := list.Apply(time.Now(), batch)
			batch = batch[:0]
			return err
		}
		if _, err := f.ListedRevocations(ctx, "issuing-1", ca.FullScope, func(e issuance.RevokedEntry) error {
			if batch = append(batch, e); len(batch) == cap(batch) {
				return flush()
			}
			return nil
		}); err != nil {
			b.Fatal(err)
		}
		if err := flush(); err != nil || list.Len() != entries {
			b.Fatal(list.Len(), err)
		}
	}
}
