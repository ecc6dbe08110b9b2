package ca

import (
	"context"
	"time"
)

const (
	// followEach is how often revocations are looked for where nobody tells of them.
	followEach = time.Second
	// followGrace is for how long it may have failed before a status that was looked up earlier is not taken for true any more.
	followGrace = 5 * time.Second
)

// followRevocations forgets answers that revocations have overtaken, by whichever replica they were made, until the context ends. While the
// store is away, answers stay; when it is back, nothing is missed.
func (c *CA) followRevocations(ctx context.Context) {
	if len(c.ocsp.responders) == 0 {
		return
	}
	var position FeedPosition
	failing := false
	c.every(ctx, followEach, c.ocsp.wake, func() {
		next, err := c.takeInRevocations(ctx, position)
		if err != nil {
			if !failing && ctx.Err() == nil {
				c.log.WarnContext(ctx, "following the revocations failed; OCSP answers stay as they are, trying again", "error", err)
			}
			failing = true
			return
		}
		failing, position = false, next
	})
}

// takeInRevocations forgets the answers about what was revoked since a position.
func (c *CA) takeInRevocations(ctx context.Context, from FeedPosition) (FeedPosition, error) {
	began := c.now()
	if from == (FeedPosition{}) {
		// What was found out until now may have been overtaken by what is not given any more.
		position, err := c.store.FeedPosition(ctx)
		if err != nil {
			return from, err
		}
		c.ocsp.forgetAll()
		c.ocsp.syncedAt.Store(began.UnixNano())
		c.ocsp.following.Store(true)
		return position, nil
	}
	next, err := c.store.RevocationsSince(ctx, from, func(revoked Revocation) error {
		if r := c.ocsp.responders[revoked.Issuer]; r != nil {
			r.kept.revoked(serialKeyOf(revoked.Serial))
		}
		return nil
	})
	if err != nil {
		return from, err
	}
	if next.Server != from.Server {
		// Answers may tell of revocations that the server before had and this one never will.
		c.ocsp.forgetAll()
	}
	c.ocsp.syncedAt.Store(began.UnixNano())
	return next, nil
}

// forgetAll forgets all that is known of certificates, and every answer about them.
func (o *ocsp) forgetAll() {
	for _, r := range o.responders {
		r.kept.forgetAll()
	}
}
