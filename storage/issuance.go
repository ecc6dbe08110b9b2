package storage

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
)

// WorkedIntent is an intent as people look at it: what may be signed at this moment, and by whom.
type WorkedIntent struct {
	ca.OpenIntent
	Profile    string
	LeaseUntil time.Time // from then on another replica settles it
	Expired    bool      // that time has come, by the database's clock
}

// SettledIntent is an intent whose certificate never became known: possibly signed, and revoked.
type SettledIntent struct {
	Issuer     string
	Serial     issuance.Serial
	Kind       issuance.Kind
	Namespace  string
	Profile    string
	RequestID  string
	IntendedAt time.Time
	SettledAt  time.Time
	Reason     string // why it was settled, for people
	EventID    string // in the audit log
}

const workedIntents = `
SELECT issuer, serial, kind, namespace, request_id, created_at, owner_name, owner_run, profile, lease_until, lease_until < now()
FROM intents ORDER BY created_at, serial LIMIT $1`

// WorkedIntents are the intents that are open, oldest first, without their bytes.
func (s *Store) WorkedIntents(ctx context.Context, most int) (found []WorkedIntent, err error) {
	rows, err := s.pool.Query(ctx, workedIntents, most)
	if err == nil {
		found, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (w WorkedIntent, err error) {
			var serial []byte
			err = row.Scan(&w.Issuer, &serial, &w.Kind, &w.Namespace, &w.RequestID, &w.CreatedAt, &w.Owner.Name, &w.Owner.Run, &w.Profile,
				&w.LeaseUntil, &w.Expired)
			copy(w.Serial[:], serial)
			return w, err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("reading open intents: %w", err)
	}
	return found, nil
}

const settledIntents = `
SELECT issuer, serial, kind, namespace, profile, request_id, intended_at, settled_at, reason, event_id
FROM orphans WHERE settled_at >= $1 ORDER BY settled_at DESC, serial LIMIT $2`

// SettledIntents are those that were settled since a time, latest first.
func (s *Store) SettledIntents(ctx context.Context, since time.Time, most int) (found []SettledIntent, err error) {
	rows, err := s.pool.Query(ctx, settledIntents, since, most)
	if err == nil {
		found, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (o SettledIntent, err error) {
			var serial []byte
			err = row.Scan(&o.Issuer, &serial, &o.Kind, &o.Namespace, &o.Profile, &o.RequestID, &o.IntendedAt, &o.SettledAt, &o.Reason, &o.EventID)
			copy(o.Serial[:], serial)
			return o, err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("reading settled intents: %w", err)
	}
	return found, nil
}
