package ca

import (
	"context"
	"errors"
	"time"
)

const (
	// IdempotencyAge is how long a caller's name for a request is remembered at least. A request repeated later is a new one.
	IdempotencyAge = 7 * 24 * time.Hour
	replicaAge     = 3 * 24 * time.Hour // of the record of a replica that is gone
	upkeepEvery    = 6 * time.Hour
)

// UpkeepStore is the database as it is kept in order. Each call is an act of a term: ErrFenced, and nothing done, when that is over.
type UpkeepStore interface {
	// ProvidePartitions makes room for the certificates of the coming months.
	ProvidePartitions(ctx context.Context, t Term) error
	// ForgetIdempotencyKeys deletes the keys older than age of requests that have ended.
	ForgetIdempotencyKeys(ctx context.Context, t Term, age time.Duration) (forgotten int64, err error)
	// ForgetReservations deletes the counts of quotas that no span holds any more.
	ForgetReservations(ctx context.Context, t Term) (forgotten int64, err error)
	// ForgetReplicas takes those off the record of which nobody has heard for an age.
	ForgetReplicas(ctx context.Context, t Term, age time.Duration) error
}

// keepUp keeps the database in order, as the leader of upkeep: at the beginning of its term, so that services that are restarted every day
// have upkeep too, and every few hours. What fails is tried again the next time.
func (c *CA) keepUp(ctx context.Context, t Term) error {
	steps := []struct {
		doing string
		do    func() (int64, error)
	}{
		{"making partitions ahead", func() (int64, error) { return 0, c.store.ProvidePartitions(ctx, t) }},
		{"forgetting old idempotency keys", func() (int64, error) { return c.store.ForgetIdempotencyKeys(ctx, t, IdempotencyAge) }},
		{"forgetting old reservations", func() (int64, error) { return c.store.ForgetReservations(ctx, t) }},
		{"forgetting replicas that are gone", func() (int64, error) { return 0, c.store.ForgetReplicas(ctx, t, replicaAge) }},
	}
	c.every(ctx, upkeepEvery, nil, func() {
		for _, step := range steps {
			n, err := step.do()
			switch {
			case errors.Is(err, ErrFenced) || ctx.Err() != nil: // the term is over; whoever keeps the lease says so
				return
			case err != nil:
				c.log.ErrorContext(ctx, step.doing+" failed; trying again", "error", err)
			case n > 0:
				c.log.InfoContext(ctx, step.doing, "number", n)
			}
		}
	})
	return nil
}
