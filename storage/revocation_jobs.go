package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
)

const (
	insertJob = `
	INSERT INTO revocation_jobs (id, namespace, actor, person, selection, reason, comment, invalidity_date, asked_at, expires_at, needs,
		digest,
		lots, found, total, event_id, approved_at, already, expired, outcome, closed_at, keys)
	VALUES ($1::text::uuid, $2, $3::text::jsonb, $4, $5::text::jsonb, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16::text::uuid, $17, $18,
		$19, $20, $21, $22)`

	jobColumns = `
	SELECT id::text, namespace, actor::text, selection::text, reason, comment, invalidity_date, asked_at, expires_at, needs, digest, lots,
		found, total, event_id::text, approved_at, next_lot, revoked, already, expired, refused, outcome, closed_at, keys, remembered
	FROM revocation_jobs `

	selectSameJob = `SELECT EXISTS (SELECT FROM revocation_jobs WHERE id = $1::text::uuid AND event_id = $2::text::uuid)`

	// claimJob takes a job that nobody works on: whose lease has run out or ends later than one that began now (see claimLease), or that an
	// earlier run of the same replica left. Of several, a compromised key is the most urgent.
	claimJob = `
	UPDATE revocation_jobs SET fence = fence + 1, holder_name = $2, holder_run = $3, lease_until = now() + $4::interval
	WHERE id = (
		SELECT id FROM revocation_jobs
		WHERE outcome = '' AND approved_at IS NOT NULL AND ($1 = '' OR id = nullif($1, '')::uuid) AND (NOT $5 OR reason = 1)
			AND (lease_until < now() OR lease_until > now() + $4::interval + interval '1 second' OR holder_name = $2 AND holder_run <> $3)
		ORDER BY reason <> 1, approved_at
		LIMIT 1
		FOR UPDATE SKIP LOCKED)
	RETURNING id::text, fence`

	// selectItems reads the certificates of a lot as their rows say: those on record for certain before orphans, as the database judges a
	// revocation.
	selectItems = `
	SELECT DISTINCT ON (c.issuer, c.serial) c.issuer, c.serial, c.profile, c.namespace, c.crl_scope, c.spki_sha256, c.not_after,
		coalesce(r.sequence, 0), coalesce(r.reason, 0), EXISTS (SELECT FROM compromised_keys AS k WHERE k.spki_sha256 = c.spki_sha256)
	FROM revocation_lots AS l CROSS JOIN LATERAL unnest(l.issuers, l.serials) AS i (issuer, serial)
	CROSS JOIN LATERAL (SELECT * FROM issued AS x WHERE x.serial = i.serial AND x.issuer = i.issuer) AS c
	LEFT JOIN LATERAL (
		SELECT sequence, reason FROM revocations AS v WHERE v.issuer = i.issuer AND v.serial = i.serial ORDER BY v.sequence DESC LIMIT 1
	) AS r ON true
	WHERE l.job = $1::text::uuid AND l.lot = $2
	ORDER BY c.issuer, c.serial, c.orphan, c.kind`

	// advanceJob moves the cursor of a job over a lot, for whoever holds the claim.
	advanceJob = `
	UPDATE revocation_jobs SET next_lot = next_lot + 1, revoked = revoked + $4, already = already + $5, expired = expired + $6,
		refused = refused + $7, remembered = remembered + $11, lease_until = now() + $8::interval,
		outcome = CASE WHEN $9::boolean THEN 'finished' ELSE '' END, closed_at = CASE WHEN $9::boolean THEN $10::timestamptz END
	WHERE id = $1::text::uuid AND next_lot = $2 AND fence = $3 AND outcome = ''`

	selectAdvanced = `SELECT EXISTS (SELECT FROM revocation_jobs WHERE id = $1::text::uuid AND fence = $2 AND next_lot > $3)`

	lockKeys = `SELECT count(pg_advisory_xact_lock(key)) FROM unnest($1::bigint[]) AS key`

	// insertRevocations adds entries that follow those that their caller saw. One that does not follow any more is left out.
	insertRevocations = `
	INSERT INTO revocations (issuer, serial, sequence, reason, at, invalidity_date, comment, actor, event_id, crl_scope, not_after,
		spki_sha256)
	SELECT i.issuer, i.serial, i.sequence, $8::smallint, $9::timestamptz, $10::timestamptz, $11, $12, i.event::uuid, i.scope, i.not_after,
		i.spki
	FROM unnest($1::text[], $2::bytea[], $3::bigint[], $4::text[], $5::text[], $6::timestamptz[], $7::bytea[])
		AS i (issuer, serial, sequence, event, scope, not_after, spki)
	WHERE coalesce((SELECT max(r.sequence) FROM revocations AS r WHERE r.issuer = i.issuer AND r.serial = i.serial), 0) = i.sequence - 1
	ORDER BY i.issuer, i.serial
	ON CONFLICT (issuer, serial, sequence) DO NOTHING`

	insertCompromisedKeys = `
	INSERT INTO compromised_keys (spki_sha256, issuer, serial, at)
	SELECT DISTINCT ON (i.spki) i.spki, i.issuer, i.serial, $4::timestamptz
	FROM unnest($1::bytea[], $2::text[], $3::bytea[]) AS i (spki, issuer, serial) ORDER BY i.spki
	ON CONFLICT (spki_sha256) DO NOTHING`

	insertRevokedScopes = `
	INSERT INTO crl_scopes (issuer, scope) SELECT DISTINCT issuer, scope FROM unnest($1::text[], $2::text[]) AS i (issuer, scope)
	ORDER BY 1, 2 ON CONFLICT (issuer, scope) DO NOTHING`

	insertPendings = `
	INSERT INTO crl_pending (issuer, scope, serial) SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[])`

	selectRevocationVotes = `
	SELECT v.person, v.approves, v.digest, v.actor_id, v.actor_name, v.comment, v.at, v.event_id::text,` + evidenceColumns + `
	FROM revocation_votes AS v` + evidenceJoin + `v.actor_id
	WHERE v.job = $1::text::uuid ORDER BY v.at, v.person`

	// lockJob has those who decide on a job take turns.
	lockJob = `
	SELECT needs, outcome = '' AND approved_at IS NULL AND expires_at > now() FROM revocation_jobs WHERE id = $1::text::uuid FOR UPDATE`

	insertRevocationVote = `
	INSERT INTO revocation_votes (job, person, approves, digest, actor_id, actor_name, comment, at, event_id)
	VALUES ($1::text::uuid, $2, $3, $4, $5, $6, $7, $8, $9::text::uuid) ON CONFLICT (job, person) DO NOTHING`

	// approveJob counts a login once, as countApprovals does.
	approveJob = `
	UPDATE revocation_jobs AS j SET approved_at = $2
	WHERE j.id = $1::text::uuid AND j.needs <= (
		SELECT count(DISTINCT v.actor_id) FROM revocation_votes AS v` + evidenceJoin + `v.actor_id
		WHERE v.job = j.id AND v.approves AND (NOT $3 OR e.event_id IS NOT NULL) AND ` + wordHolds + `)`

	rejectJob = `UPDATE revocation_jobs SET outcome = 'rejected', closed_at = $2 WHERE id = $1::text::uuid`

	selectSameRevocationVote = `
	SELECT EXISTS (SELECT FROM revocation_votes WHERE job = $1::text::uuid AND person = $2 AND event_id = $3::text::uuid)`

	cancelJob = `UPDATE revocation_jobs SET outcome = 'cancelled', closed_at = $2 WHERE id = $1::text::uuid AND outcome = ''`

	selectCancelled = `SELECT EXISTS (SELECT FROM revocation_jobs WHERE id = $1::text::uuid AND outcome = 'cancelled' AND closed_at = $2)`
)

// RecordRevocationJob freezes the certificates that a selection meets and records the job, in one transaction.
func (s *Store) RecordRevocationJob(
	ctx context.Context, j ca.RevocationJob, sel ca.Selection, ready func(*ca.RevocationJob) ([]audit.Leaf, error),
) (ca.RevocationJob, ca.RevocationOutlook, error) {
	var o ca.RevocationOutlook
	j.AskedAt = j.AskedAt.Truncate(time.Microsecond)
	sql, args := selectionQuery(sel, j.Reason, j.AskedAt, j.ID, ca.LotSize)
	err := s.inTx(ctx, "recording a revocation job", found(selectSameJob, j.ID, j.EventID), func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, longStatement); err != nil {
			return err
		}
		j.Needs, j.Outcome, j.ClosedAt, j.ApprovedAt = 0, "", time.Time{}, time.Time{} // as before an earlier try
		var text string
		var digest []byte
		var already, expired int // in the lots for their keys alone: they are counted when their lot is worked on
		if err := tx.QueryRow(ctx, sql+frozen, args...).Scan(&text, &digest, &j.Lots, &already, &expired); err != nil {
			return err
		}
		var err error
		if o, err = parseOutlook(text); err != nil {
			return err
		}
		if o.UnknownSerials, err = unknownSerials(ctx, tx, sel); err != nil {
			return err
		}
		o.Unknown = len(o.UnknownSerials)
		j.Digest, j.Found, j.Total, j.Keys = [32]byte(digest), o.Found, o.ToRevoke+o.Keys, o.Keys
		j.Counts = ca.RevocationCounts{Already: o.Already - already, Expired: o.Expired - expired}
		leaves, err := ready(&j)
		if err != nil {
			return err
		}
		if j.Lots == 0 {
			j.Needs, j.Outcome, j.ClosedAt = 0, ca.JobFinished, j.AskedAt
		}
		if j.Needs == 0 {
			j.ApprovedAt = j.AskedAt
		}
		if err := addJob(ctx, tx, j); err != nil {
			return err
		}
		return addLeaves(ctx, tx, leaves)
	})
	if err != nil {
		return ca.RevocationJob{}, ca.RevocationOutlook{}, err
	}
	return j, shortened(o), nil
}

func addJob(ctx context.Context, tx pgx.Tx, j ca.RevocationJob) error {
	actor, err := json.Marshal(j.Actor)
	if err != nil {
		return fmt.Errorf("encoding the actor of a job: %w", err)
	}
	selection, err := json.Marshal(j.Selection)
	if err != nil {
		return fmt.Errorf("encoding the selection of a job: %w", err)
	}
	_, err = tx.Exec(ctx, insertJob, j.ID, j.Namespace, string(actor), j.Actor.Person, string(selection), int(j.Reason), j.Comment,
		orNull(j.InvalidityDate), j.AskedAt, j.ExpiresAt, j.Needs, j.Digest[:], j.Lots, j.Found, j.Total, j.EventID, orNull(j.ApprovedAt),
		j.Counts.Already, j.Counts.Expired, j.Outcome, orNull(j.ClosedAt), j.Keys)
	return err
}

// ClaimRevocationJob makes the claimant the only one to work on a job.
func (s *Store) ClaimRevocationJob(ctx context.Context, id string, by ca.Replica, lease time.Duration) (ca.RevocationJob, int64, error) {
	return s.claimJob(ctx, id, false, by, lease)
}

// ClaimUrgentRevocation makes the claimant the only one to work on a job of compromised keys.
func (s *Store) ClaimUrgentRevocation(ctx context.Context, by ca.Replica, lease time.Duration) (ca.RevocationJob, int64, error) {
	return s.claimJob(ctx, "", true, by, lease)
}

func (s *Store) claimJob(ctx context.Context, id string, urgent bool, by ca.Replica, lease time.Duration) (ca.RevocationJob, int64, error) {
	var claimed string
	var fence int64
	// A claim whose acknowledgement was lost runs out by itself.
	unknown := func(context.Context, querier) (bool, error) { return false, nil }
	err := s.inTx(ctx, "claiming a revocation job", unknown, func(ctx context.Context, tx pgx.Tx) error {
		err := tx.QueryRow(ctx, claimJob, id, by.Name, by.Run, lease, urgent).Scan(&claimed, &fence)
		if errors.Is(err, pgx.ErrNoRows) {
			return ca.ErrNotFound
		}
		return err
	})
	if err != nil {
		return ca.RevocationJob{}, 0, err
	}
	j, err := s.RevocationJob(ctx, claimed)
	return j, fence, err
}

// RevocationItems are the certificates of a lot with their state, in order of issuer and serial.
func (s *Store) RevocationItems(ctx context.Context, job string, lot int) (items []ca.RevocationItem, err error) {
	err = s.read(ctx, "reading a lot of a revocation job", func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, selectItems, job, lot)
		if err != nil {
			return err
		}
		items, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (i ca.RevocationItem, err error) {
			var reason int
			var spki []byte
			err = row.Scan(&i.Issuer, &i.Serial, &i.Profile, &i.Namespace, &i.CRLScope, &spki, &i.NotAfter, &i.Sequence, &reason, &i.KeyKnown)
			copy(i.SPKI[:], spki)
			i.Reason = issuance.Reason(reason)
			return i, err
		})
		return err
	})
	return items, err
}

// RecordRevocationLot records the revocations of a lot, all or none, and the progress of its job with them.
func (s *Store) RecordRevocationLot(ctx context.Context, l ca.RevocationLot, leaves ...audit.Leaf) error {
	done := found(selectAdvanced, l.Job, l.Fence, l.Number) // nobody else moves the cursor under this fence
	return s.inTx(ctx, "recording a lot of revocations", done, func(ctx context.Context, tx pgx.Tx) error {
		err := mustMatch(tx.Exec(ctx, advanceJob, l.Job, l.Number, l.Fence, l.Counts.Revoked, l.Counts.Already, l.Counts.Expired,
			l.Counts.Refused, l.Lease, l.Last, l.At, l.Counts.Remembered))
		if err != nil {
			return err
		}
		if err := lockKeysOf(ctx, tx, l); err != nil {
			return err
		}
		if len(l.Revocations) > 0 {
			if err := addRevocations(ctx, tx, l.Revocations); err != nil {
				return err
			}
		}
		if len(l.Keys) > 0 {
			if err := addCompromisedKeys(ctx, tx, l); err != nil {
				return err
			}
		}
		return addLeaves(ctx, tx, leaves)
	})
}

// lockKeysOf keeps out intents for the keys that a lot makes known as compromised, after waiting for those that are just being recorded.
func lockKeysOf(ctx context.Context, tx pgx.Tx, l ca.RevocationLot) error {
	var locks []int64
	for _, r := range l.Revocations {
		if r.Reason == issuance.KeyCompromise {
			locks = append(locks, lockNumber(r.SPKI))
		}
	}
	for _, k := range l.Keys {
		locks = append(locks, lockNumber(k.SPKI))
	}
	if len(locks) == 0 {
		return nil
	}
	slices.Sort(locks) // in the order that intents take them in
	_, err := tx.Exec(ctx, lockKeys, slices.Compact(locks))
	return err
}

// addCompromisedKeys adds the keys of certificates that stay as they are. ca.ErrExists when one of these became known in between.
func addCompromisedKeys(ctx context.Context, tx pgx.Tx, l ca.RevocationLot) error {
	var c columns
	for _, k := range l.Keys {
		c.add(k.SPKI[:], k.Issuer, k.Serial)
	}
	tag, err := tx.Exec(ctx, insertCompromisedKeys, append(c.arrays(), l.At)...)
	if err == nil && tag.RowsAffected() != int64(len(l.Keys)) {
		return ca.ErrExists
	}
	return err
}

// addRevocations adds revocations that say the same of different certificates. ca.ErrExists when one of these was revoked in between.
func addRevocations(ctx context.Context, tx pgx.Tx, all []ca.Revocation) error {
	said := all[0]
	var c columns
	for _, r := range all {
		c.add(r.Issuer, r.Serial, int64(r.Sequence), r.EventID, r.CRLScope, r.NotAfter, r.SPKI[:])
	}
	column := c.arrays()
	issuers, serials, scopes, keys := column[0], column[1], column[4], column[6]
	tag, err := tx.Exec(ctx, insertRevocations,
		append(column, int(said.Reason), said.At, orNull(said.InvalidityDate), said.Comment, said.Actor)...)
	switch {
	case err != nil:
		return err
	case tag.RowsAffected() != int64(len(all)):
		return ca.ErrExists
	}
	if said.Reason == issuance.KeyCompromise {
		if _, err := tx.Exec(ctx, insertCompromisedKeys, keys, issuers, serials, said.At); err != nil {
			return err
		}
	}
	if _, err := tx.Exec(ctx, insertRevokedScopes, issuers, scopes); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, insertPendings, issuers, scopes, serials)
	return err
}

// RevocationJob is one job with its votes.
func (s *Store) RevocationJob(ctx context.Context, id string) (j ca.RevocationJob, err error) {
	err = s.readPromise(ctx, "reading a revocation job", func(ctx context.Context, db querier) (ended bool, err error) {
		rows, err := db.Query(ctx, jobColumns+`WHERE id = $1::text::uuid`, id)
		if err != nil {
			return false, err
		}
		if j, err = pgx.CollectExactlyOneRow(rows, scanJob); err != nil {
			return false, err
		}
		if rows, err = db.Query(ctx, selectRevocationVotes, id); err != nil {
			return false, err
		}
		j.Votes, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (ca.RevocationVote, error) { return scanRevocationVote(row, id) })
		return !j.ClosedAt.IsZero(), err
	})
	if isNothing(err) {
		return ca.RevocationJob{}, fmt.Errorf("revocation job %q: %w", id, ca.ErrNotFound)
	}
	return j, err
}

func scanJob(row pgx.CollectableRow) (j ca.RevocationJob, err error) {
	var actor, selection string
	var reason int
	var digest []byte
	var invalid, approved, closed *time.Time
	if err := row.Scan(&j.ID, &j.Namespace, &actor, &selection, &reason, &j.Comment, &invalid, &j.AskedAt, &j.ExpiresAt, &j.Needs, &digest,
		&j.Lots, &j.Found, &j.Total, &j.EventID, &approved, &j.NextLot, &j.Counts.Revoked, &j.Counts.Already, &j.Counts.Expired,
		&j.Counts.Refused, &j.Outcome, &closed, &j.Keys, &j.Counts.Remembered); err != nil {
		return j, err
	}
	for text, into := range map[string]any{actor: &j.Actor, selection: &j.Selection} {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			return j, fmt.Errorf("reading revocation job %s: %w", j.ID, err)
		}
	}
	j.Reason, j.InvalidityDate, j.ApprovedAt, j.ClosedAt = issuance.Reason(reason), orZero(invalid), orZero(approved), orZero(closed)
	j.AskedAt, j.ExpiresAt = j.AskedAt.UTC(), j.ExpiresAt.UTC()
	copy(j.Digest[:], digest)
	return j, nil
}

func scanRevocationVote(row pgx.CollectableRow, job string) (v ca.RevocationVote, err error) {
	var digest []byte
	var e evidenceRow
	columns := []any{&v.Person, &v.Approves, &digest, &v.ActorID, &v.ActorName, &v.Comment, &v.At, &v.EventID}
	if err := row.Scan(append(columns, e.into()...)...); err != nil {
		return v, err
	}
	copy(v.Digest[:], digest)
	v.At, v.Withdrawn = v.At.UTC(), e.withdrawn
	v.Evidence, err = e.evidence(job)
	return v, err
}

// RevocationJobs pages through jobs, newest first.
func (s *Store) RevocationJobs(ctx context.Context, namespace, cursor string, limit int) (page []ca.RevocationJob, next string, err error) {
	jobs := byID[ca.RevocationJob]{
		what: "revocation jobs", selected: jobColumns + "WHERE true", id: "id", namespace: "namespace", scan: scanJob,
		idOf: func(j ca.RevocationJob) string { return j.ID },
	}
	return jobs.page(ctx, s, namespace, cursor, limit)
}

// VoteOnRevocation records what a person says to a job that waits.
func (s *Store) VoteOnRevocation(ctx context.Context, job string, v ca.RevocationVote, leaves ...audit.Leaf) error {
	done := found(selectSameRevocationVote, job, v.Person, v.EventID)
	return s.inTx(ctx, "deciding on a revocation job", done, func(ctx context.Context, tx pgx.Tx) error {
		var needs int
		var waits bool
		switch err := tx.QueryRow(ctx, lockJob, job).Scan(&needs, &waits); {
		case errors.Is(err, pgx.ErrNoRows):
			return ca.ErrNotFound
		case err != nil:
			return err
		case !waits:
			return ca.ErrDecided
		}
		err := addWord(ctx, tx, v.EventID, v.Evidence, insertRevocationVote, job, v.Person, v.Approves, v.Digest[:], v.ActorID, v.ActorName,
			v.Comment, v.At, v.EventID)
		if err != nil {
			return err
		}
		outcome, args := approveJob, []any{job, v.At, v.Signed}
		if !v.Approves {
			outcome, args = rejectJob, args[:2]
		}
		if _, err := tx.Exec(ctx, outcome, args...); err != nil {
			return err
		}
		return addLeaves(ctx, tx, leaves)
	})
}

// CancelRevocation ends a job.
func (s *Store) CancelRevocation(ctx context.Context, job string, at time.Time, leaves ...audit.Leaf) error {
	at = at.Truncate(time.Microsecond)
	return s.inTx(ctx, "cancelling a revocation job", found(selectCancelled, job, at), func(ctx context.Context, tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, cancelJob, job, at)
		switch {
		case err != nil:
			return err
		case tag.RowsAffected() == 0:
			return ca.ErrDecided
		}
		return addLeaves(ctx, tx, leaves)
	})
}
