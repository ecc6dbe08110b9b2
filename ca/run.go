package ca

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Run settles, publishes, looks after requests that wait, learns what others published and changed, leads what one replica leads for all,
// and does further chores, until the context ends. It returns when all have come to rest: nil, or ErrSuperseded as soon as another process
// has taken this replica's name. It gives signs of life until the last of them has ended.
func (c *CA) Run(ctx context.Context, more ...Chore) error {
	working, end := context.WithCancel(ctx)
	defer end()
	staying, leave := context.WithCancel(context.WithoutCancel(ctx))
	defer leave()
	stayed := make(chan error, 1)
	go func() { stayed <- c.stay(staying); end() }()

	var others sync.WaitGroup
	for _, d := range append([]Chore{
		{recoverEvery, slog.LevelError, "settling open intents failed; trying again", false, func(ctx context.Context) error {
			_, err := c.Recover(ctx)
			return err
		}},
		{clockEvery, slog.LevelError, "nothing is issued here until the clock is right", true, c.CheckClock},
		{learnEvery, slog.LevelWarn, "reading what is published failed; trying again", false, c.LearnPublished},
		{learnNamespacesEvery, slog.LevelWarn, "reading the namespaces failed; trying again", true, c.LearnNamespaces},
		{followEvery, slog.LevelError, "following the policies that rule failed; trying again", true, c.FollowPolicies},
		{renewResponders, slog.LevelError, "renewing an OCSP responder's certificate failed; trying again", false, c.RenewResponders},
		{expireEvery, slog.LevelError, lookingAfterFailed, false, c.ExpireWaiting},
		{useEvery, slog.LevelWarn, "recording when API tokens were used failed; trying again", true, c.recordUses},
		{resumeEvery, slog.LevelWarn, "telling which requests expire failed; trying again", true, c.TellExpiring},
		{resumeEvery, slog.LevelError, lookingAfterFailed, false, c.ResumeApproved},
		{keysEvery, slog.LevelError, "looking after the keys failed", true, c.watchKeys},
		c.watchLog(),
	}, more...) {
		others.Go(func() { c.see(working, d) })
	}
	others.Go(func() {
		c.seeWoken(working, c.jobs, Chore{jobsEvery, slog.LevelError, "revoking many certificates failed; trying again", true, c.RunRevocations})
	})
	others.Go(func() { c.Lead(working, Upkeep, c.keepUp) })
	others.Go(func() { c.Lead(working, Sequencing, c.sequence) })
	others.Go(func() { c.followRevocations(working) })
	others.Go(func() {
		c.store.WatchRevocations(working, func() {
			c.publications.wakeUp()
			c.ocsp.wake.ring()
		})
	})
	for _, m := range c.mirrors {
		others.Go(func() { c.every(working, mirrorEvery, m.wake, func() { c.putWaiting(working, m) }) })
	}
	c.keepPublishing(working)
	others.Wait()
	c.ocsp.work.Wait()
	c.publications.work.Wait()
	if err := c.recordUses(context.WithoutCancel(ctx)); err != nil {
		c.log.WarnContext(ctx, "when API tokens were last used is not on record", "error", err)
	}
	leave()
	err := <-stayed
	if err == nil {
		c.leave(ctx)
	}
	return err
}

const lookingAfterFailed = "looking after waiting requests failed; trying again"

// Chore is something that each replica does for itself, again and again, while it runs. What is to be done once for all is led (Lead).
type Chore struct {
	Every  time.Duration
	Level  slog.Level // of the log, when it fails
	Failed string     // what is said then
	Once   bool       // a row of failures is told once: it is done every second
	Do     func(context.Context) error
}

// see does a chore until the context ends.
func (c *CA) see(ctx context.Context, d Chore) { c.seeWoken(ctx, nil, d) }

// seeWoken does a chore until the context ends, and at once when it is woken.
func (c *CA) seeWoken(ctx context.Context, wake <-chan struct{}, d Chore) {
	failing := false
	c.every(ctx, d.Every, wake, func() {
		err := d.Do(ctx)
		if err != nil && !(d.Once && failing) && ctx.Err() == nil {
			c.log.Log(ctx, d.Level, d.Failed, "error", err)
		}
		failing = err != nil
	})
}

// bell wakes whoever waits for it. Rung again before somebody has heard it, it does nothing more.
type bell chan struct{}

func newBell() bell { return make(bell, 1) }

func (b bell) ring() {
	select {
	case b <- struct{}{}:
	default:
	}
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
