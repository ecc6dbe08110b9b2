package storage

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
)

const (
	// insertRevocation adds the entry that follows the one the caller saw ($13). Of two that saw the same, one meets the primary key.
	insertRevocation = `
	INSERT INTO revocations (issuer, serial, sequence, reason, at, invalidity_date, comment, actor, event_id, crl_scope, not_after, spki_sha256)
	SELECT $1, $2, $3::integer, $4::smallint, $5::timestamptz, $6::timestamptz, $7, $8, $9::text::uuid, $10, $11::timestamptz, $12::bytea
	WHERE coalesce((SELECT max(sequence) FROM revocations WHERE issuer = $1 AND serial = $2), 0) = $13::integer
	ON CONFLICT (issuer, serial, sequence) DO NOTHING
	RETURNING at, invalidity_date`

	selectRevocation = `
	SELECT at, invalidity_date FROM revocations WHERE issuer = $1 AND serial = $2 AND sequence = $3 AND event_id = $4::text::uuid`

	selectLatestRevocation = `
	SELECT issuer, serial, sequence, reason, at, invalidity_date, comment, actor, event_id::text, crl_scope, not_after, spki_sha256
	FROM revocations WHERE issuer = $1 AND serial = $2 ORDER BY sequence DESC LIMIT 1`

	insertCompromisedKey = `
	INSERT INTO compromised_keys (spki_sha256, issuer, serial, at) VALUES ($1, $2, $3, $4) ON CONFLICT (spki_sha256) DO NOTHING`

	selectCompromisedKey = `SELECT EXISTS (SELECT FROM compromised_keys WHERE spki_sha256 = $1)`

	insertScope = `INSERT INTO crl_scopes (issuer, scope) VALUES ($1, $2) ON CONFLICT (issuer, scope) DO NOTHING`

	insertPending = `INSERT INTO crl_pending (issuer, scope, serial) VALUES ($1, $2, $3)`
)

// RecordRevocation appends to a certificate's sequence of revocations. A keyCompromise waits for intents for the key that are just
// being recorded, and keeps out all later ones.
func (s *Store) RecordRevocation(ctx context.Context, r ca.Revocation, after int, leaves ...audit.Leaf) (ca.Revocation, error) {
	recorded := r
	recorded.Sequence = after + 1
	keep := func(row pgx.Row) error {
		var stored nullableRevocation
		if err := row.Scan(&stored.at, &stored.invalidityDate); err != nil {
			return err
		}
		recorded.At, recorded.InvalidityDate = stored.at.UTC(), orZero(stored.invalidityDate)
		return nil
	}
	done := func(ctx context.Context, db querier) (bool, error) {
		err := keep(db.QueryRow(ctx, selectRevocation, r.Issuer, r.Serial, after+1, r.EventID))
		if err == pgx.ErrNoRows {
			return false, nil
		}
		return err == nil, err
	}
	err := s.inTx(ctx, "recording a revocation", done, func(ctx context.Context, tx pgx.Tx) error {
		if r.Reason == issuance.KeyCompromise {
			if _, err := tx.Exec(ctx, lockKey, lockNumber(r.SPKI)); err != nil {
				return err
			}
		}
		err := keep(tx.QueryRow(ctx, insertRevocation, r.Issuer, r.Serial, after+1, int(r.Reason), r.At, orNull(r.InvalidityDate), r.Comment,
			r.Actor, r.EventID, r.CRLScope, r.NotAfter, r.SPKI[:], after))
		if err == pgx.ErrNoRows {
			return ca.ErrFenced
		}
		if err != nil {
			return err
		}
		if r.Reason == issuance.KeyCompromise {
			if _, err := tx.Exec(ctx, insertCompromisedKey, r.SPKI[:], r.Issuer, r.Serial, r.At); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, insertScope, r.Issuer, r.CRLScope); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, insertPending, r.Issuer, r.CRLScope, r.Serial); err != nil {
			return err
		}
		return addLeaves(ctx, tx, leaves)
	})
	if err != nil {
		return ca.Revocation{}, err
	}
	return recorded, nil
}

// RecordCompromisedKey remembers a key as compromised, in the order with intents that RecordRevocation keeps.
func (s *Store) RecordCompromisedKey(ctx context.Context, spki [32]byte, issuer string, serial []byte, at time.Time, leaves ...audit.Leaf) error {
	return s.inTx(ctx, "remembering a compromised key", found(selectCompromisedKey, spki[:]), func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, lockKey, lockNumber(spki)); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, insertCompromisedKey, spki[:], issuer, serial, at)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		return addLeaves(ctx, tx, leaves)
	})
}

// LatestRevocation is the latest entry of a serial's sequence.
func (s *Store) LatestRevocation(ctx context.Context, issuer string, serial []byte) (r ca.Revocation, err error) {
	err = s.read(ctx, "looking up a revocation", func(ctx context.Context, db querier) (err error) {
		r, err = latestEntry(ctx, db, issuer, serial)
		return err
	})
	return r, err
}

// RevocationOnRecord is the latest entry of a serial's sequence, as durable as what is acknowledged.
func (s *Store) RevocationOnRecord(ctx context.Context, issuer string, serial []byte) (r ca.Revocation, err error) {
	err = s.readPromise(ctx, "looking up a revocation", func(ctx context.Context, db querier) (_ bool, err error) {
		r, err = latestEntry(ctx, db, issuer, serial)
		return err == nil, err
	})
	return r, err
}

func latestEntry(ctx context.Context, db querier, issuer string, serial []byte) (r ca.Revocation, err error) {
	var reason int
	var invalidityDate *time.Time
	var spki []byte
	err = db.QueryRow(ctx, selectLatestRevocation, issuer, serial).Scan(&r.Issuer, &r.Serial, &r.Sequence, &reason, &r.At, &invalidityDate,
		&r.Comment, &r.Actor, &r.EventID, &r.CRLScope, &r.NotAfter, &spki)
	if err == pgx.ErrNoRows {
		return r, ca.ErrNotFound
	}
	r.Reason, r.InvalidityDate, r.At, r.NotAfter = issuance.Reason(reason), orZero(invalidityDate), r.At.UTC(), r.NotAfter.UTC()
	copy(r.SPKI[:], spki)
	return r, err
}
