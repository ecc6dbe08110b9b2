package storage

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
)

const (
	selectDue = `
	SELECT s.issuer, s.scope, CASE
		WHEN s.published_number IS NULL THEN 'first'
		WHEN EXISTS (SELECT FROM crl_pending AS p WHERE p.issuer = s.issuer AND p.scope = s.scope) THEN 'revocation'
		WHEN now() >= s.this_update + a.crl_period THEN 'schedule'
		ELSE '' END AS why
	FROM crl_scopes AS s JOIN authorities AS a ON a.name = s.issuer
	WHERE s.issuer = ANY ($1)
	ORDER BY s.issuer, s.scope`

	claimScope = `
	UPDATE crl_scopes SET fence = fence + 1, holder = $3, lease_until = now() + $4::interval
	WHERE issuer = $1 AND scope = $2 AND (lease_until < now() OR holder IS NULL OR holder = $3)
	RETURNING fence, last_number::text, this_update, now()`

	selectScope = `SELECT EXISTS (SELECT FROM crl_scopes WHERE issuer = $1 AND scope = $2)`

	selectPending = `SELECT id FROM crl_pending WHERE issuer = $1 AND scope = $2 ORDER BY id`

	// selectEntries reads what the next CRL of a scope must show: every certificate whose latest entry revokes it. One leaves the list
	// only when a CRL that showed it was made after its end (RFC 5280, section 3.3): when it had ended before the previous CRL ($3)
	// and is not pending, so that the previous CRL has shown it.
	selectEntries = `
	SELECT e.serial, e.at, e.reason, e.invalidity_date
	FROM (
		SELECT DISTINCT ON (serial) serial, at, reason, invalidity_date
		FROM revocations AS r
		WHERE issuer = $1 AND crl_scope = $2 AND ($3::timestamptz IS NULL OR not_after >= $3
			OR EXISTS (SELECT FROM crl_pending AS p WHERE p.issuer = $1 AND p.scope = $2 AND p.serial = r.serial))
		ORDER BY serial, sequence DESC
	) AS e
	WHERE e.reason <> 8
	ORDER BY e.serial`

	advanceScope = `
	UPDATE crl_scopes SET last_number = $4::text::numeric
	WHERE issuer = $1 AND scope = $2 AND fence = $3 AND holder IS NOT NULL AND last_number < $4::text::numeric`

	insertCRLIntent = `
	INSERT INTO crl_intents (issuer, scope, number, tbs_sha256, fence, owner_name, owner_run, at)
	VALUES ($1, $2, $3::text::numeric, $4, $5, $6, $7, $8)`

	selectCRLIntent = `
	SELECT EXISTS (SELECT FROM crl_intents
		WHERE issuer = $1 AND scope = $2 AND number = $3::text::numeric AND tbs_sha256 = $4 AND fence = $5)`

	// publishScope makes a CRL the current one and ends the claim: no further CRL can be made on its fence.
	publishScope = `
	UPDATE crl_scopes SET published_number = $4::text::numeric, this_update = $5, next_update = $6, holder = NULL, lease_until = '-infinity'
	WHERE issuer = $1 AND scope = $2 AND fence = $3 AND holder IS NOT NULL AND last_number = $4::text::numeric`

	// importScope does the same without a claim, and fences off whoever holds one.
	importScope = `
	UPDATE crl_scopes SET last_number = $3::text::numeric, published_number = $3::text::numeric, this_update = $4, next_update = $5,
		fence = fence + 1, holder = NULL, lease_until = '-infinity'
	WHERE issuer = $1 AND scope = $2 AND last_number < $3::text::numeric`

	insertCRL = `
	INSERT INTO crls (issuer, scope, number, der, this_update, next_update, entries, event_id)
	VALUES ($1, $2, $3::text::numeric, $4, $5, $6, $7, $8::text::uuid)`

	selectSameCRL = `
	SELECT EXISTS (SELECT FROM crls WHERE issuer = $1 AND scope = $2 AND number = $3::text::numeric AND der = $4)`

	deletePending = `DELETE FROM crl_pending WHERE id = ANY ($1)`

	// selectCurrentCRL orders by the column; number by itself would be the text that is selected.
	selectCurrentCRL = `
	SELECT number::text, CASE WHEN number = $3::text::numeric THEN NULL ELSE der END, this_update, next_update, entries, event_id::text
	FROM crls WHERE issuer = $1 AND scope = $2 ORDER BY crls.number DESC LIMIT 1`
)

// DueCRLs are the scopes of the named authorities that need a new CRL. On schedule, one is due a period after the current one's thisUpdate.
func (s *Store) DueCRLs(ctx context.Context, authorities []string) (due []ca.CRLDue, err error) {
	err = s.read(ctx, "looking for CRLs that are due", func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, selectDue, orEmpty(authorities))
		if err != nil {
			return err
		}
		scopes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ca.CRLDue])
		due = nil
		for _, d := range scopes {
			if d.Why != "" {
				due = append(due, d)
			}
		}
		return err
	})
	return due, err
}

// ClaimCRL makes the claimant the only publisher of a scope for the length of a lease. A claim whose acknowledgement was lost is made
// again by the same replica at once, with a higher fence.
func (s *Store) ClaimCRL(ctx context.Context, issuer, scope string, by ca.Replica, lease time.Duration) (ca.CRLClaim, error) {
	var claim ca.CRLClaim
	doing := fmt.Sprintf("claiming CRL scope %s/%s", issuer, scope)
	unknown := func(context.Context, querier) (bool, error) { return false, nil }
	err := s.write(ctx, doing, unknown, func(ctx context.Context) (sent bool, err error) {
		return s.tryTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) (err error) {
			claim, err = claimCRL(ctx, tx, issuer, scope, by, lease)
			return err
		})
	})
	if err != nil {
		return ca.CRLClaim{}, err
	}
	return claim, nil
}

// claimCRL reads everything in the snapshot that the claim itself was made in.
func claimCRL(ctx context.Context, tx pgx.Tx, issuer, scope string, by ca.Replica, lease time.Duration) (ca.CRLClaim, error) {
	claim := ca.CRLClaim{Issuer: issuer, Scope: scope}
	var last string
	var thisUpdate *time.Time
	err := tx.QueryRow(ctx, claimScope, issuer, scope, by.Name, lease).Scan(&claim.Fence, &last, &thisUpdate, &claim.Now)
	if errors.Is(err, pgx.ErrNoRows) {
		return claim, whyNotClaimed(ctx, tx, issuer, scope)
	}
	if err != nil {
		return claim, err
	}
	claim.Now = claim.Now.UTC()
	if claim.LastNumber, err = parseNumber(last); err != nil {
		return claim, err
	}
	rows, err := tx.Query(ctx, selectPending, issuer, scope)
	if err != nil {
		return claim, err
	}
	if claim.Pending, err = pgx.CollectRows(rows, pgx.RowTo[int64]); err != nil {
		return claim, err
	}
	rows, err = tx.Query(ctx, selectEntries, issuer, scope, thisUpdate)
	if err != nil {
		return claim, err
	}
	claim.Entries, err = pgx.CollectRows(rows, scanCRLEntry)
	return claim, err
}

func whyNotClaimed(ctx context.Context, tx pgx.Tx, issuer, scope string) error {
	var exists bool
	if err := tx.QueryRow(ctx, selectScope, issuer, scope).Scan(&exists); err != nil {
		return err
	}
	if !exists {
		return ca.ErrNotFound
	}
	return ca.ErrFenced
}

func scanCRLEntry(row pgx.CollectableRow) (e issuance.CRLEntry, err error) {
	var reason int
	var invalidityDate *time.Time
	if err := row.Scan(&e.Serial, &e.RevokedAt, &reason, &invalidityDate); err != nil {
		return e, err
	}
	e.RevokedAt, e.Reason, e.InvalidityDate = e.RevokedAt.UTC(), issuance.Reason(reason), orZero(invalidityDate)
	return e, nil
}

// RecordCRLIntent makes a CRL's number and digest durable.
func (s *Store) RecordCRLIntent(ctx context.Context, i ca.CRLIntent, leaves ...audit.Leaf) error {
	number, err := formatNumber(i.Number)
	if err != nil {
		return err
	}
	done := found(selectCRLIntent, i.Issuer, i.Scope, number, i.TBS[:], i.Fence)
	return s.inTx(ctx, "recording the intent of a CRL", done, func(ctx context.Context, tx pgx.Tx) error {
		if err := mustMatch(tx.Exec(ctx, advanceScope, i.Issuer, i.Scope, i.Fence, number)); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, insertCRLIntent, i.Issuer, i.Scope, number, i.TBS[:], i.Fence, i.Owner.Name, i.Owner.Run, i.At); err != nil {
			return err
		}
		return addLeaves(ctx, tx, leaves)
	})
}

// RecordCRL makes a signed CRL, whose intent was the last of its scope, the current one.
func (s *Store) RecordCRL(ctx context.Context, c ca.CRLRecord, fence int64, leaves ...audit.Leaf) error {
	number, err := formatNumber(c.Number)
	if err != nil {
		return err
	}
	return s.recordCRL(ctx, "recording a CRL", c, number, leaves, func(ctx context.Context, tx pgx.Tx) error {
		return mustMatch(tx.Exec(ctx, publishScope, c.Issuer, c.Scope, fence, number, c.ThisUpdate, c.NextUpdate))
	})
}

// ImportCRL makes a CRL signed elsewhere the current one. The same again is not an error.
func (s *Store) ImportCRL(ctx context.Context, c ca.CRLRecord, leaves ...audit.Leaf) error {
	number, err := formatNumber(c.Number)
	if err != nil {
		return err
	}
	return s.recordCRL(ctx, "importing a CRL", c, number, leaves, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, insertScope, c.Issuer, c.Scope); err != nil {
			return err
		}
		return mustMatch(tx.Exec(ctx, importScope, c.Issuer, c.Scope, number, c.ThisUpdate, c.NextUpdate))
	})
}

func (s *Store) recordCRL(ctx context.Context, doing string, c ca.CRLRecord, number string, leaves []audit.Leaf,
	publish func(context.Context, pgx.Tx) error,
) error {
	done := found(selectSameCRL, c.Issuer, c.Scope, number, c.DER)
	return s.inTx(ctx, doing, done, func(ctx context.Context, tx pgx.Tx) error {
		if err := publish(ctx, tx); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, insertCRL, c.Issuer, c.Scope, number, c.DER, c.ThisUpdate, c.NextUpdate, c.Entries, c.EventID); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, deletePending, orEmpty(c.Pending)); err != nil {
			return err
		}
		return addLeaves(ctx, tx, leaves)
	})
}

// CurrentCRL is the CRL of a scope with the highest number.
func (s *Store) CurrentCRL(ctx context.Context, issuer, scope string, unless *big.Int) (ca.CRLRecord, error) {
	known := "0" // no CRL has this number
	if unless != nil {
		known = unless.String()
	}
	c := ca.CRLRecord{Issuer: issuer, Scope: scope}
	err := s.read(ctx, "reading a CRL", func(ctx context.Context, db querier) error {
		var number string
		err := db.QueryRow(ctx, selectCurrentCRL, issuer, scope, known).Scan(&number, &c.DER, &c.ThisUpdate, &c.NextUpdate, &c.Entries, &c.EventID)
		if errors.Is(err, pgx.ErrNoRows) {
			return ca.ErrNotFound
		}
		if err != nil {
			return err
		}
		c.ThisUpdate, c.NextUpdate = c.ThisUpdate.UTC(), c.NextUpdate.UTC()
		c.Number, err = parseNumber(number)
		return err
	})
	if err != nil {
		return ca.CRLRecord{}, err
	}
	return c, nil
}
