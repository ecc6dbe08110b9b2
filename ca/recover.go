package ca

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/chancery-ca/chancery/access"
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
// record may or may not have a signature somewhere, and a revoked serial is right in both cases. It returns how many it settled. One that
// cannot be settled does not keep others from it.
func (c *CA) Recover(ctx context.Context) (settled int, err error) {
	var failed error
	for {
		intents, err := c.store.ClaimExpiredIntents(ctx, c.replica, settleLease, settleBatch)
		if err != nil {
			return settled, errors.Join(failed, fmt.Errorf("claiming expired intents: %w", err))
		}
		for _, i := range intents {
			switch err := c.settle(ctx, i, "its replica stopped before the certificate was recorded"); {
			case errors.Is(err, ErrIntentLost): // settled by another, or recorded after all
			case errors.Is(err, ErrUnavailable): // the others would fail as well
				return settled, errors.Join(failed, err)
			case err != nil:
				failed = errors.Join(failed, err)
			default:
				settled++
				c.log.WarnContext(ctx, "settled an intent as possibly signed and revoked it", "issuer", i.Issuer, "serial", i.Serial.String(),
					"owner", i.Owner.Name, "request", i.RequestID)
			}
		}
		if len(intents) < settleBatch {
			return settled, failed
		}
	}
}

// settle records one owned intent as possibly signed and revoked.
func (c *CA) settle(ctx context.Context, i OpenIntent, why string) error {
	eventID, now := c.newID(), c.now()
	leaf, err := c.leafWithID(eventID, audit.CertificateOrphaned, access.Service, i.Namespace, now, map[string]string{
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
