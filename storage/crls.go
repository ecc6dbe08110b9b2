package storage

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
)

const (
	// selectDue asks of each schedule ($1 to $4) and each scope whether a complete CRL is due, and whether a delta is. A part of the jitter
	// that is the scope's own is taken from its period. One of a time that is still to come was made before the clock was put back: clients
	// refuse it until then.
	selectDue = `
	SELECT s.issuer, s.scope, CASE
		WHEN s.published_number IS NULL THEN 'first'
		WHEN p.delta = interval '0' AND EXISTS (SELECT FROM crl_pending AS e WHERE e.issuer = s.issuer AND e.scope = s.scope) THEN 'revocation'
		WHEN s.this_update > now() THEN 'clock'
		WHEN now() >= s.this_update + p.period - p.jitter * ((hashtext(s.issuer || '/' || s.scope) & 1023) / 1024.0) THEN 'schedule'
		ELSE '' END AS complete, CASE
		WHEN p.delta = interval '0' OR s.published_number IS NULL THEN ''
		WHEN EXISTS (SELECT FROM crl_pending AS e WHERE e.issuer = s.issuer AND e.scope = s.scope AND e.on_delta IS NULL) THEN 'revocation'
		WHEN coalesce(s.delta_number < s.published_number, true) THEN 'base'
		WHEN s.delta_this_update > now() THEN 'clock'
		WHEN now() >= s.delta_this_update + p.delta THEN 'schedule'
		ELSE '' END AS delta
	FROM unnest($1::text[], $2::interval[], $3::interval[], $4::interval[]) AS p (issuer, period, jitter, delta)
		JOIN crl_scopes AS s ON s.issuer = p.issuer
	ORDER BY s.issuer, s.scope`

	// claimScope takes a claim over that has run out, and one that ends later than any that began now: see claimLease. Claims on scopes
	// differ in their length.
	claimScope = `
	UPDATE crl_scopes SET fence = fence + 1, holder = $3, lease_until = now() + $4::interval
	WHERE issuer = $1 AND scope = $2 AND (lease_until < now() OR holder IS NULL OR holder = $3
		OR lease_until > now() + $4::interval + interval '10 minutes')
	RETURNING fence, last_number::text, published_number::text, this_update, now(),
		NOT EXISTS (SELECT FROM crl_scopes AS o WHERE o.issuer = $1 AND o.scope <> $2)`

	releaseScope = `UPDATE crl_scopes SET holder = NULL, lease_until = '-infinity' WHERE issuer = $1 AND scope = $2 AND fence = $3`

	selectScope = `SELECT EXISTS (SELECT FROM crl_scopes WHERE issuer = $1 AND scope = $2)`

	selectPending = `SELECT id, serial, at FROM crl_pending WHERE issuer = $1 AND scope = $2 ORDER BY id`

	selectPublished = `SELECT this_update FROM crl_scopes WHERE issuer = $1 AND scope = $2`

	// selectListed reads what the next CRL of a scope must show: every certificate whose latest entry revokes it. One leaves the list
	// only when a CRL that showed it was made after its end (RFC 5280, section 3.3): when it had ended before the previous CRL ($3)
	// and is not pending, so that the previous CRL has shown it. The rows come in the order of the index.
	selectListed = `
	SELECT e.serial, e.at, e.reason, e.invalidity_date, e.not_after
	FROM (
		SELECT DISTINCT ON (serial) serial, at, reason, invalidity_date, not_after
		FROM revocations AS r
		WHERE issuer = $1 AND crl_scope = $2 AND ($3::timestamptz IS NULL OR not_after >= least($3, now())
			OR EXISTS (SELECT FROM crl_pending AS p WHERE p.issuer = $1 AND p.scope = $2 AND p.serial = r.serial))
		ORDER BY serial, sequence DESC
	) AS e
	WHERE e.reason <> 8
	ORDER BY e.serial`

	// selectScopeChanges reads the state of what has changed in a scope since a position. Numbers from beyond the server's are of rows
	// restored from another, which were read with the list. When the server comes to them, they say nothing new, and have been overtaken
	// perhaps: what counts is the latest entry, whichever number it has.
	selectScopeChanges = `
	SELECT r.serial, r.at, r.reason, r.invalidity_date, r.not_after
	FROM (
		SELECT DISTINCT serial FROM revocations
		WHERE issuer = $1 AND crl_scope = $2 AND xact >= $3::text::xid8 AND xact < pg_snapshot_xmax(pg_current_snapshot())
	) AS c CROSS JOIN LATERAL (
		SELECT e.serial, e.at, e.reason, e.invalidity_date, e.not_after FROM revocations AS e
		WHERE e.issuer = $1 AND e.crl_scope = $2 AND e.serial = c.serial ORDER BY e.sequence DESC LIMIT 1
	) AS r`

	// selectDelta reads the state of what no complete CRL shows. One that was held and released is among them, for a delta may have shown it.
	selectDelta = `
	SELECT DISTINCT ON (r.serial) r.serial, r.at, r.reason, r.invalidity_date, r.not_after
	FROM crl_pending AS p JOIN revocations AS r ON r.issuer = p.issuer AND r.serial = p.serial
	WHERE p.issuer = $1 AND p.scope = $2
	ORDER BY r.serial, r.sequence DESC`

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

	// lockScope has those who import take turns: each sees what the one before has made of the scope.
	lockScope = `SELECT FROM crl_scopes WHERE issuer = $1 AND scope = $2 FOR UPDATE`

	// importScope does the same as publishScope without a claim, and fences off whoever holds one. The current CRL must still be the one whose
	// number is $6, that the new one was held against.
	importScope = `
	UPDATE crl_scopes SET last_number = $3::text::numeric, published_number = $3::text::numeric, this_update = $4, next_update = $5,
		fence = fence + 1, holder = NULL, lease_until = '-infinity'
	WHERE issuer = $1 AND scope = $2 AND last_number < $3::text::numeric AND NOT EXISTS (
		SELECT FROM crls AS c
		WHERE c.issuer = $1 AND c.scope = $2 AND c.number > $6::text::numeric AND c.number <= crl_scopes.published_number)`

	// publishDelta does that for a delta CRL, whose base must be the current complete one.
	publishDelta = `
	UPDATE crl_scopes SET delta_number = $4::text::numeric, delta_this_update = $5, holder = NULL, lease_until = '-infinity'
	WHERE issuer = $1 AND scope = $2 AND fence = $3 AND holder IS NOT NULL AND last_number = $4::text::numeric
		AND published_number = $6::text::numeric`

	insertCRL = `
	INSERT INTO crls (issuer, scope, number, der, der_sha256, this_update, next_update, entries, event_id)
	VALUES ($1, $2, $3::text::numeric, $4, $5, $6, $7, $8, $9::text::uuid)`

	insertDelta = `
	INSERT INTO crl_deltas (issuer, scope, number, base_number, der, this_update, next_update, entries, event_id)
	VALUES ($1, $2, $3::text::numeric, $4::text::numeric, $5, $6, $7, $8, $9::text::uuid)`

	selectSameDelta = `
	SELECT EXISTS (SELECT FROM crl_deltas WHERE issuer = $1 AND scope = $2 AND number = $3::text::numeric AND der = $4)`

	markPending = `UPDATE crl_pending SET on_delta = $2::text::numeric WHERE id = ANY ($1)`

	pruneCRLs = `SELECT prune_crls($1, $2)`

	selectCurrentDelta = `
	SELECT c.number::text, CASE WHEN c.number = $3::text::numeric THEN NULL ELSE c.der END, c.this_update, c.next_update, c.entries,
		c.event_id::text, c.base_number::text
	FROM crl_deltas AS c
	WHERE c.issuer = $1 AND c.scope = $2 AND c.number <= (SELECT delta_number FROM crl_scopes WHERE issuer = $1 AND scope = $2)
	ORDER BY c.number DESC LIMIT 1`

	selectStates = `
	SELECT s.scope, s.published_number::text, s.this_update, s.next_update, coalesce(c.entries, 0), coalesce(octet_length(c.der), 0),
		s.delta_number::text, (SELECT count(*) FROM crl_pending AS p WHERE p.issuer = s.issuer AND p.scope = s.scope)
	FROM crl_scopes AS s LEFT JOIN crls AS c ON c.issuer = s.issuer AND c.scope = s.scope AND c.number = s.published_number
	WHERE s.issuer = $1 ORDER BY s.scope`

	insertScopes = `
	INSERT INTO crl_scopes (issuer, scope) SELECT $1, unnest($2::text[]) ON CONFLICT (issuer, scope) DO NOTHING`

	selectSameCRL = `
	SELECT EXISTS (SELECT FROM crls WHERE issuer = $1 AND scope = $2 AND number = $3::text::numeric AND der_sha256 = $4)`

	deletePending = `DELETE FROM crl_pending WHERE id = ANY ($1)`

	deleteShown = `DELETE FROM crl_pending WHERE issuer = $1 AND scope = $2 AND serial = ANY ($3)`

	// selectCurrentCRL goes by what was published: a row alone makes no CRL the current one.
	selectCurrentCRL = `
	SELECT c.number::text, CASE WHEN c.number = $3::text::numeric THEN NULL ELSE c.der END, c.this_update, c.next_update, c.entries,
		c.event_id::text, NULL::text
	FROM crls AS c
	WHERE c.issuer = $1 AND c.scope = $2 AND c.number <= (SELECT published_number FROM crl_scopes WHERE issuer = $1 AND scope = $2)
	ORDER BY c.number DESC LIMIT 1`
)

// AddCRLScopes makes scopes of an authority known.
func (s *Store) AddCRLScopes(ctx context.Context, issuer string, scopes []string) error {
	return s.read(ctx, "adding CRL scopes", func(ctx context.Context, db querier) error { // which may be repeated at will
		rows, err := db.Query(ctx, insertScopes, issuer, orEmpty(scopes))
		if err != nil {
			return err
		}
		rows.Close()
		return rows.Err()
	})
}

// DueCRLs are the scopes that need a new CRL. Of a scope that needs a complete one and a delta, the complete one comes first.
func (s *Store) DueCRLs(ctx context.Context, schedules []ca.CRLSchedule) (due []ca.CRLDue, err error) {
	if len(schedules) == 0 {
		return nil, nil
	}
	var c columns
	for _, p := range schedules {
		c.add(p.Issuer, p.Period, p.Jitter, p.DeltaPeriod)
	}
	err = s.read(ctx, "looking for CRLs that are due", func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, selectDue, c.arrays()...)
		if err != nil {
			return err
		}
		due = nil
		var issuer, scope, complete, delta string
		_, err = pgx.ForEachRow(rows, []any{&issuer, &scope, &complete, &delta}, func() error {
			if complete != "" {
				due = append(due, ca.CRLDue{Issuer: issuer, Scope: scope, Why: complete})
			}
			if delta != "" {
				due = append(due, ca.CRLDue{Issuer: issuer, Scope: scope, Delta: true, Why: delta})
			}
			return nil
		})
		return err
	})
	return due, err
}

// ListedRevocations reads what a scope's CRL shows, as it comes from the server: a million entries never stand in memory as rows.
func (s *Store) ListedRevocations(ctx context.Context, issuer, scope string, yield func(issuance.RevokedEntry) error) (ca.FeedPosition, error) {
	var at ca.FeedPosition
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return at, describe("listing revocations", err)
	}
	defer conn.Release()
	// The position comes first: what is written while the list is read is among the changes since.
	if at, err = position(ctx, conn); err != nil {
		return at, describe("listing revocations", err)
	}
	var previous *time.Time
	err = conn.QueryRow(ctx, selectPublished, issuer, scope).Scan(&previous)
	if errors.Is(err, pgx.ErrNoRows) {
		return at, fmt.Errorf("listing revocations of %s/%s: %w", issuer, scope, ca.ErrNotFound)
	}
	if err != nil {
		return at, describe("listing revocations", err)
	}
	rows, err := conn.Query(ctx, selectListed, issuer, scope, previous)
	if err != nil {
		return at, describe("listing revocations", err)
	}
	defer rows.Close()
	for rows.Next() {
		e, err := scanRevoked(rows)
		if err != nil {
			return at, describe("listing revocations", err)
		}
		if err := yield(e); err != nil {
			return at, err
		}
	}
	return at, describe("listing revocations", rows.Err())
}

// ClaimCRL makes the claimant the only publisher of a scope for the length of a lease. A claim whose acknowledgement was lost is made
// again by the same replica at once, with a higher fence.
func (s *Store) ClaimCRL(ctx context.Context, ask ca.CRLAsk) (ca.CRLClaim, error) {
	var claim ca.CRLClaim
	doing := fmt.Sprintf("claiming CRL scope %s/%s", ask.Issuer, ask.Scope)
	unknown := func(context.Context, querier) (bool, error) { return false, nil }
	err := s.write(ctx, doing, unknown, func(ctx context.Context) (sent bool, err error) {
		return s.tryTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) (err error) {
			claim, err = claimCRL(ctx, tx, ask)
			return err
		})
	})
	if err != nil {
		return ca.CRLClaim{}, err
	}
	return claim, nil
}

// claimCRL reads everything in the snapshot that the claim itself was made in.
func claimCRL(ctx context.Context, tx pgx.Tx, ask ca.CRLAsk) (ca.CRLClaim, error) {
	claim := ca.CRLClaim{Issuer: ask.Issuer, Scope: ask.Scope}
	var last string
	var published *string
	var publishedAt *time.Time
	err := tx.QueryRow(ctx, claimScope, ask.Issuer, ask.Scope, ask.By.Name, ask.Lease).
		Scan(&claim.Fence, &last, &published, &publishedAt, &claim.Now, &claim.Alone)
	if errors.Is(err, pgx.ErrNoRows) {
		return claim, whyNotClaimed(ctx, tx, ask.Issuer, ask.Scope)
	}
	if err != nil {
		return claim, err
	}
	claim.Now, claim.PublishedAt = claim.Now.UTC(), orZero(publishedAt)
	if claim.LastNumber, err = parseNumber(last); err != nil {
		return claim, err
	}
	if published != nil {
		if claim.Published, err = parseNumber(*published); err != nil {
			return claim, err
		}
	}
	if claim.Position, err = position(ctx, tx); err != nil {
		return claim, err
	}
	rows, err := tx.Query(ctx, selectPending, ask.Issuer, ask.Scope)
	if err != nil {
		return claim, err
	}
	if claim.Pending, err = pgx.CollectRows(rows, pgx.RowToStructByPos[ca.CRLPending]); err != nil {
		return claim, err
	}
	sql, args := selectDelta, []any{ask.Issuer, ask.Scope}
	if !ask.Delta {
		if !ask.Since.Leads(claim.Position) {
			return claim, ca.ErrStalePosition
		}
		sql, args = selectScopeChanges, append(args, strconv.FormatUint(ask.Since.Xact, 10))
	}
	if rows, err = tx.Query(ctx, sql, args...); err != nil {
		return claim, err
	}
	claim.Changes, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (issuance.RevokedEntry, error) { return scanRevoked(row) })
	return claim, err
}

// ReleaseCRL ends a claim of which no CRL comes. One that is stale ends nothing.
func (s *Store) ReleaseCRL(ctx context.Context, c ca.CRLClaim) error {
	return s.inTx(ctx, "giving up CRL scope "+c.Issuer+"/"+c.Scope, again, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, releaseScope, c.Issuer, c.Scope, c.Fence)
		return err
	})
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

func scanRevoked(row pgx.Row) (e issuance.RevokedEntry, err error) {
	var reason int
	var invalidityDate *time.Time
	if err := row.Scan(&e.Serial, &e.RevokedAt, &reason, &invalidityDate, &e.NotAfter); err != nil {
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

// RecordCRL makes a signed CRL, whose intent was the last of its scope, the current one. Superseded ones give up their octets where those
// are many.
func (s *Store) RecordCRL(ctx context.Context, c ca.CRLRecord, fence int64, leaves ...audit.Leaf) error {
	number, err := formatNumber(c.Number)
	if err != nil {
		return err
	}
	if c.Base != nil {
		return s.recordDelta(ctx, c, number, fence, leaves)
	}
	if err := s.recordCRL(ctx, "recording a CRL", c, number, leaves, func(ctx context.Context, tx pgx.Tx) error {
		return mustMatch(tx.Exec(ctx, publishScope, c.Issuer, c.Scope, fence, number, c.ThisUpdate, c.NextUpdate))
	}); err != nil {
		return err
	}
	if _, err := s.pool.Exec(ctx, pruneCRLs, c.Issuer, c.Scope); err != nil { // which the next one does as well
		s.log.WarnContext(ctx, "superseded CRLs keep their octets for now", "authority", c.Issuer, "scope", c.Scope, "error", err)
	}
	return nil
}

func (s *Store) recordDelta(ctx context.Context, c ca.CRLRecord, number string, fence int64, leaves []audit.Leaf) error {
	base, err := formatNumber(c.Base)
	if err != nil {
		return err
	}
	done := found(selectSameDelta, c.Issuer, c.Scope, number, c.DER)
	return s.inTx(ctx, "recording a delta CRL", done, func(ctx context.Context, tx pgx.Tx) error {
		if err := mustMatch(tx.Exec(ctx, publishDelta, c.Issuer, c.Scope, fence, number, c.ThisUpdate, base)); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, insertDelta, c.Issuer, c.Scope, number, base, c.DER, c.ThisUpdate, c.NextUpdate, c.Entries, c.EventID); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, markPending, pendingIDs(c.Pending), number); err != nil {
			return err
		}
		return addLeaves(ctx, tx, leaves)
	})
}

func pendingIDs(pending []ca.CRLPending) []int64 {
	ids := make([]int64, len(pending))
	for n, p := range pending {
		ids[n] = p.ID
	}
	return ids
}

// ImportCRL makes a CRL signed elsewhere the current one in place of the one that it was held against, nil for none, and what it shows is
// pending no more. The same again is not an error.
func (s *Store) ImportCRL(ctx context.Context, c ca.CRLRecord, after *big.Int, leaves ...audit.Leaf) error {
	number, err := formatNumber(c.Number)
	if err != nil {
		return err
	}
	before := "0" // no CRL has this number
	if after != nil {
		before = after.String()
	}
	return s.recordCRL(ctx, "importing a CRL", c, number, leaves, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, insertScope, c.Issuer, c.Scope); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, lockScope, c.Issuer, c.Scope); err != nil {
			return err
		}
		if err := mustMatch(tx.Exec(ctx, importScope, c.Issuer, c.Scope, number, c.ThisUpdate, c.NextUpdate, before)); err != nil {
			return err
		}
		shown := make([][]byte, len(c.Pending))
		for n, p := range c.Pending {
			shown[n] = p.Serial
		}
		_, err := tx.Exec(ctx, deleteShown, c.Issuer, c.Scope, shown)
		return err
	})
}

func (s *Store) recordCRL(ctx context.Context, doing string, c ca.CRLRecord, number string, leaves []audit.Leaf,
	publish func(context.Context, pgx.Tx) error,
) error {
	digest := sha256.Sum256(c.DER)
	done := found(selectSameCRL, c.Issuer, c.Scope, number, digest[:])
	return s.inTx(ctx, doing, done, func(ctx context.Context, tx pgx.Tx) error {
		if err := publish(ctx, tx); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, insertCRL, c.Issuer, c.Scope, number, c.DER, digest[:], c.ThisUpdate, c.NextUpdate, c.Entries, c.EventID); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, deletePending, pendingIDs(c.Pending)); err != nil {
			return err
		}
		return addLeaves(ctx, tx, leaves)
	})
}

// CurrentCRL is the complete CRL of a scope that was published last.
func (s *Store) CurrentCRL(ctx context.Context, issuer, scope string, unless *big.Int) (ca.CRLRecord, error) {
	return s.currentCRL(ctx, selectCurrentCRL, issuer, scope, unless)
}

// CurrentDelta is the delta CRL of a scope that was published last.
func (s *Store) CurrentDelta(ctx context.Context, issuer, scope string, unless *big.Int) (ca.CRLRecord, error) {
	return s.currentCRL(ctx, selectCurrentDelta, issuer, scope, unless)
}

func (s *Store) currentCRL(ctx context.Context, sql, issuer, scope string, unless *big.Int) (ca.CRLRecord, error) {
	known := "0" // no CRL has this number
	if unless != nil {
		known = unless.String()
	}
	c := ca.CRLRecord{Issuer: issuer, Scope: scope}
	err := s.read(ctx, "reading a CRL", func(ctx context.Context, db querier) error {
		var number string
		var base *string
		err := db.QueryRow(ctx, sql, issuer, scope, known).
			Scan(&number, &c.DER, &c.ThisUpdate, &c.NextUpdate, &c.Entries, &c.EventID, &base)
		if errors.Is(err, pgx.ErrNoRows) {
			return ca.ErrNotFound
		}
		if err != nil {
			return err
		}
		c.ThisUpdate, c.NextUpdate = c.ThisUpdate.UTC(), c.NextUpdate.UTC()
		if c.Number, err = parseNumber(number); err == nil && base != nil {
			c.Base, err = parseNumber(*base)
		}
		return err
	})
	if err != nil {
		return ca.CRLRecord{}, err
	}
	return c, nil
}

// CRLStates are where the scopes of an authority stand, by name.
func (s *Store) CRLStates(ctx context.Context, issuer string) (states []ca.CRLState, err error) {
	err = s.read(ctx, "reading the CRL scopes", func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, selectStates, issuer)
		if err != nil {
			return err
		}
		states, err = pgx.CollectRows(rows, scanCRLState)
		return err
	})
	return states, err
}

func scanCRLState(row pgx.CollectableRow) (c ca.CRLState, err error) {
	var number, delta *string
	var thisUpdate, nextUpdate *time.Time
	if err := row.Scan(&c.Scope, &number, &thisUpdate, &nextUpdate, &c.Entries, &c.Octets, &delta, &c.Pending); err != nil {
		return c, err
	}
	c.ThisUpdate, c.NextUpdate = orZero(thisUpdate), orZero(nextUpdate)
	for _, one := range []struct {
		text *string
		to   **big.Int
	}{{number, &c.Number}, {delta, &c.Delta}} {
		if one.text == nil {
			continue
		}
		if *one.to, err = parseNumber(*one.text); err != nil {
			return c, err
		}
	}
	return c, nil
}
