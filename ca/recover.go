package ca

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/chancery-ca/chancery/audit"
)

const (
	settleDeadline = 5 * time.Second
	settleLease    = 30 * time.Second // how long a claimed intent is this replica's to settle
	settleBatch    = 100
	recoverEvery   = 5 * time.Second
)

// Recover settles what crashes left open: this replica's own intents from an earlier run, and those of replicas whose lease has run
// out. Each is recorded as possibly signed and revoked, and its idempotency key is released. Nothing is ever signed again: the bytes on
// record may or may not have a signature somewhere, and a revoked serial is right in both cases. It returns how many it settled.
func (c *CA) Recover(ctx context.Context) (settled int, err error) {
	for {
		intents, err := c.store.ClaimExpiredIntents(ctx, c.replica, settleLease, settleBatch)
		if err != nil {
			return settled, fmt.Errorf("claiming expired intents: %w", err)
		}
		for _, i := range intents {
			switch err := c.settle(ctx, i, "its replica stopped before the certificate was recorded"); {
			case errors.Is(err, ErrIntentLost): // settled by another, or recorded after all
			case err != nil:
				return settled, err
			default:
				settled++
				c.log.WarnContext(ctx, "settled an intent as possibly signed and revoked it", "issuer", i.Issuer, "serial", i.Serial.String(),
					"owner", i.Owner.Name, "request", i.RequestID)
			}
		}
		if len(intents) < settleBatch {
			return settled, nil
		}
	}
}

// settle records one owned intent as possibly signed and revoked.
func (c *CA) settle(ctx context.Context, i OpenIntent, why string) error {
	eventID, now := c.newID(), c.now()
	leaf, err := c.leafWithID(eventID, audit.CertificateOrphaned, "system", i.Namespace, now, map[string]string{
		"issuer": i.Issuer, "serial": i.Serial.String(), "kind": string(i.Kind), "owner": i.Owner.Name, "request": i.RequestID, "why": why,
	})
	if err != nil {
		return err
	}
	s := Settlement{Issuer: i.Issuer, Serial: i.Serial, Kind: i.Kind, At: now, EventID: eventID, Reason: why}
	if err := c.store.SettleIntent(ctx, c.replica, s, leaf); err != nil {
		return fmt.Errorf("settling the intent of %s: %w", i.Serial, err)
	}
	c.metrics.Orphaned(i.Issuer)
	c.publications.wakeUp()
	return nil
}

// Run settles, publishes, looks after requests that wait, and learns what others published and changed, until the context ends. It returns
// when all have come to rest.
func (c *CA) Run(ctx context.Context) {
	var others sync.WaitGroup
	for _, d := range []duty{
		{recoverEvery, slog.LevelError, "settling open intents failed; trying again", false, func(ctx context.Context) error {
			_, err := c.Recover(ctx)
			return err
		}},
		{learnEvery, slog.LevelWarn, "reading what is published failed; trying again", false, c.LearnPublished},
		{learnNamespacesEvery, slog.LevelWarn, "reading the namespaces failed; trying again", true, c.LearnNamespaces},
		{followEvery, slog.LevelError, "following the policies that rule failed; trying again", true, c.FollowPolicies},
		{expireEvery, slog.LevelError, lookingAfterFailed, false, c.ExpireWaiting},
		{resumeEvery, slog.LevelError, lookingAfterFailed, false, c.ResumeApproved},
	} {
		others.Go(func() { c.see(ctx, d) })
	}
	others.Go(func() {
		c.seeWoken(ctx, c.jobs, duty{jobsEvery, slog.LevelError, "revoking many certificates failed; trying again", true, c.RunRevocations})
	})
	others.Go(func() { c.store.WatchRevocations(ctx, c.publications.wakeUp) })
	c.every(ctx, publishEvery, c.publications.wake, func() { c.PublishDue(ctx) })
	others.Wait()
}

const lookingAfterFailed = "looking after waiting requests failed; trying again"

// duty is something that is done again and again while the authority runs.
type duty struct {
	period time.Duration
	level  slog.Level // of the log, when it fails
	words  string
	once   bool // a row of failures is told once: it is done every second
	do     func(context.Context) error
}

// see does a duty until the context ends.
func (c *CA) see(ctx context.Context, d duty) { c.seeWoken(ctx, nil, d) }

// seeWoken does a duty until the context ends, and at once when it is woken.
func (c *CA) seeWoken(ctx context.Context, wake <-chan struct{}, d duty) {
	failing := false
	c.every(ctx, d.period, wake, func() {
		err := d.do(ctx)
		if err != nil && !(d.once && failing) && ctx.Err() == nil {
			c.log.Log(ctx, d.level, d.words, "error", err)
		}
		failing = err != nil
	})
}

// every calls step at once, then at each tick or wake-up, until the context ends.
func (c *CA) every(ctx context.Context, period time.Duration, wake <-chan struct{}, step func()) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		step()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-wake:
		}
	}
}
