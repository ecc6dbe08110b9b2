package storage

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chancery-ca/chancery/ca"
)

// forgetAtOnce is how many idempotency keys one transaction deletes: enough to be quick, and few enough to hold up nobody.
const forgetAtOnce = 5000

// forgetKeys leaves the keys of open intents and of waiting requests alone, however old: their requests may still be repeated, and the
// settlement of an intent frees its key.
const forgetKeys = `
	DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY (
		SELECT k.ctid FROM idempotency_keys AS k
		WHERE k.created_at < now() - $1::interval
			AND NOT EXISTS (SELECT FROM waiting_requests AS w WHERE w.request_id = k.request_id AND w.outcome = '' AND w.serial IS NULL)
			AND NOT EXISTS (SELECT FROM intents AS i WHERE i.serial = k.serial AND i.issuer = k.issuer AND i.idempotency_key = k.key)
		LIMIT $2))`

// ForgetIdempotencyKeys deletes the idempotency keys that are older than age, by the database's clock, and tells how many there were. It is
// to be called now and then, by the leader of upkeep: ca.ErrFenced when its term is over. A crash in the middle leaves some for the next time.
func (s *Store) ForgetIdempotencyKeys(ctx context.Context, t ca.Term, age time.Duration) (forgotten int64, err error) {
	return s.forgetMany(ctx, "forgetting old idempotency keys", t, forgetKeys, age)
}

// forgetMany deletes what is old, so many at once; the statement's last argument is how many.
func (s *Store) forgetMany(ctx context.Context, doing string, t ca.Term, sql string, args ...any) (forgotten int64, err error) {
	for {
		var n int64
		err := s.asLeader(ctx, doing, t, again, func(b *pgx.Batch) {
			b.Queue(sql, append(args, forgetAtOnce)...).Exec(func(done pgconn.CommandTag) error { n = done.RowsAffected(); return nil })
		})
		if err == nil {
			forgotten += n
		}
		if err != nil || n < forgetAtOnce {
			return forgotten, err
		}
	}
}
