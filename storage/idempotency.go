package storage

import (
	"context"
	"time"
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

// ForgetIdempotencyKeys deletes the idempotency keys that are older than age, by the database's clock, and tells how many there were. It
// is to be called now and then; any number of replicas may at once. A crash in the middle leaves some for the next time.
func (s *Store) ForgetIdempotencyKeys(ctx context.Context, age time.Duration) (forgotten int64, err error) {
	for {
		n, err := s.forgetSomeKeys(ctx, age)
		forgotten += n
		if isConflict(err) { // a deadlock: another replica is deleting the same keys in another order
			return forgotten, nil
		}
		if err != nil || n < forgetAtOnce {
			return forgotten, describe("forgetting old idempotency keys", err)
		}
	}
}

func (s *Store) forgetSomeKeys(ctx context.Context, age time.Duration) (int64, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	done, err := s.pool.Exec(ctx, forgetKeys, age, forgetAtOnce)
	return done.RowsAffected(), err
}
