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

// takeInRevocations forgets the answers about what was revoked since a position. Where that is none of this server's, all are forgotten, and
// the revocations are not read: what was found out until now may have been overtaken by what is not given any more, or tell of what the server
// before had and this one never will. There may be millions, for which a server that has just taken over needs longer than it is given.
func (c *CA) takeInRevocations(ctx context.Context, from FeedPosition) (FeedPosition, error) {
	began := c.now()
	now, err := c.store.FeedPosition(ctx)
	if err != nil {
		return from, err
	}
	if !from.Leads(now) {
		c.ocsp.forgetAll()
		c.ocsp.syncedAt.Store(began.UnixNano())
		c.ocsp.following.Store(true)
		return now, nil
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
	if !from.Leads(next) { // it has taken over in this moment
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
