package ca

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// Duty is what one replica at a time does for all of them, its leader. What must happen once is not guarded by there being one leader,
// which no lease can promise, but by the fence of its term, which the store checks in the transaction of each act.
type Duty string

// Upkeep is the duty of keeping the database in order: the partitions of the coming months, and what is old enough to be forgotten.
const Upkeep Duty = "upkeep"

// Term is a replica's time as the leader of a duty. It is over once another has been given the duty, whether its leader knows or not.
type Term struct {
	Duty  Duty
	Fence int64     // rises with every term of the duty
	Since time.Time // by the database's clock
}

// Lead is a term as others see it.
type Lead struct {
	Term
	Leader Replica
	Until  time.Time // the end of its lease, unless it is renewed
	Holds  bool      // that end has not come, by the database's clock
}

// LeaseStore says who leads, by its own clock alone, and refuses what is done in a term that is over.
type LeaseStore interface {
	// ClaimLease makes the claimant the leader of a duty for the length of the lease; ErrFenced while another's lease runs. The fence
	// rises with every claim.
	ClaimLease(ctx context.Context, duty Duty, by Replica, lease time.Duration) (Term, error)
	// RenewLease lets a term last for the length of the lease from now; ErrFenced when it is over.
	RenewLease(ctx context.Context, t Term, lease time.Duration) error
	// ResignLease ends a term: from then on another can claim the duty.
	ResignLease(ctx context.Context, t Term) error
}

const (
	leaseTime = 5 * time.Second // after a leader's death nobody leads for so long
	leaseTry  = time.Second     // between renewals of a lease, and between looks at another's
	resigning = 2 * time.Second
)

// Lead has this replica do a duty whenever it is the leader, until the context ends. lead is called at the beginning of each term, and its
// context ends with it; when it returns, or the context ends, the duty is given up at once. What it does to the store carries its term.
func (c *CA) Lead(ctx context.Context, duty Duty, lead func(ctx context.Context, t Term) error) {
	failing := false
	c.every(ctx, leaseTry, nil, func() {
		term, err := c.store.ClaimLease(ctx, duty, c.replica, leaseTime)
		switch {
		case err == nil:
			c.serveTerm(ctx, term, lead)
		case errors.Is(err, ErrFenced):
			err = nil
		case !failing && ctx.Err() == nil:
			c.log.WarnContext(ctx, "asking for the lead failed; trying again", "duty", duty, "error", err)
		}
		failing = err != nil
	})
}

func (c *CA) serveTerm(ctx context.Context, t Term, lead func(context.Context, Term) error) {
	log := c.log.With("duty", t.Duty, "fence", t.Fence)
	log.InfoContext(ctx, "this replica leads")
	c.metrics.Leads(c.replica.Name, string(t.Duty), t.Since)
	defer c.metrics.Leads(c.replica.Name, string(t.Duty), time.Time{})

	serving, end := context.WithCancel(ctx)
	defer end()
	done := make(chan error, 1)
	go func() { done <- lead(serving, t) }()
	err, over := c.untilOver(ctx, t, done, log)
	if over {
		end()
		err = <-done
	}
	if err != nil && !errors.Is(err, ErrFenced) && ctx.Err() == nil {
		log.ErrorContext(ctx, "what the leader does failed", "error", err)
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), resigning)
	defer cancel()
	if err := c.store.ResignLease(ending, t); err != nil {
		log.WarnContext(ctx, "giving up the lead failed; the lease runs out by itself", "error", err)
	}
	log.InfoContext(ctx, "this replica leads no more")
}

// untilOver renews the lease until the work is done, or the term is over: another leads, or may by now.
func (c *CA) untilOver(ctx context.Context, t Term, done <-chan error, log *slog.Logger) (err error, over bool) {
	tick := time.NewTicker(leaseTry)
	defer tick.Stop()
	held := stopwatch() // a lease runs on while a clock is put back
	for {
		select {
		case err := <-done:
			return err, false
		case <-ctx.Done():
			return nil, true
		case <-tick.C:
		}
		asked := stopwatch()
		renewing, cancel := context.WithTimeout(ctx, leaseTime)
		err := c.store.RenewLease(renewing, t, leaseTime)
		cancel()
		switch {
		case err == nil:
			held = asked
		case errors.Is(err, ErrFenced):
			log.WarnContext(ctx, "another replica has been given the lead")
			return nil, true
		case held() > leaseTime:
			log.WarnContext(ctx, "the lead could not be kept", "error", err)
			return nil, true
		}
	}
}
