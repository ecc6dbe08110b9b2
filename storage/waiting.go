package storage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/policies"
)

const (
	// insertWaiting writes a request that waits or nothing of it: the claim of the idempotency key comes first.
	insertWaiting = `
	WITH claim AS (
		INSERT INTO idempotency_keys (actor, key, body, issuer, request_id)
		SELECT $17, $18, $19::bytea, $8, $1::text::uuid WHERE $18 <> ''
		ON CONFLICT (actor, key) DO NOTHING
		RETURNING actor
	), clear AS (
		SELECT WHERE $18 = '' OR EXISTS (SELECT FROM claim)
	), request AS (
		INSERT INTO requests (id, at, actor_id, actor_name, namespace, roles, profile, issuer, csr, spki_sha256, validity, metadata, verdict,
			results, policy_digest, compromised_key)
		SELECT $1::text::uuid, $2::timestamptz, $3, $4, $5, $6::text::text[], $7, $8, $9::bytea, $10::bytea, $11::interval, $12::text::jsonb, $13,
			$14::text::jsonb, $15, $16::boolean
		FROM clear
	), waiting AS (
		INSERT INTO waiting_requests (request_id, namespace, profile, actor, subject, names, asked_at, expires_at)
		SELECT $1::text::uuid, $5, $7, $20::text::jsonb, $21, $22::text[], $2::timestamptz, $23::timestamptz FROM clear
	), leaves AS (
		INSERT INTO audit_leaves (id, kind, leaf)
		SELECT l.id::uuid, l.kind, l.leaf FROM clear, unnest($24::text[], $25::text[], $26::bytea[]) AS l (id, kind, leaf)
	)
	SELECT EXISTS (SELECT FROM clear)`

	selectSameWaiting = `SELECT EXISTS (SELECT FROM waiting_requests WHERE request_id = $1::text::uuid)`

	// insertApproval writes a word on a request that still waits; one against it ends the waiting. The lock on the row keeps an intent of
	// the request, and other words that end it, from coming in between.
	insertApproval = `
	WITH open AS (
		SELECT request_id FROM waiting_requests
		WHERE request_id = $1::text::uuid AND outcome = '' AND serial IS NULL
		FOR UPDATE
	), word AS (
		INSERT INTO approvals (request_id, binding, person, approved, actor, groups, comment, at, event_id)
		SELECT request_id, $2, $3, $4::boolean, $5, $6::text[], $7, $8::timestamptz, $9::text::uuid FROM open
		ON CONFLICT DO NOTHING
		RETURNING request_id
	), closed AS (
		UPDATE waiting_requests AS w SET outcome = 'rejected', why = $7, closed_at = $8::timestamptz
		FROM word WHERE w.request_id = word.request_id AND NOT $4::boolean
	), evidence AS (
		INSERT INTO approval_evidence (event_id, kind, subject, person, key, statement, signature)
		SELECT $9::text::uuid, $13, request_id, $3, $14, $15::bytea, $16::bytea FROM word WHERE $13 <> ''
	), leaves AS (
		INSERT INTO audit_leaves (id, kind, leaf)
		SELECT l.id::uuid, l.kind, l.leaf FROM word, unnest($10::text[], $11::text[], $12::bytea[]) AS l (id, kind, leaf)
	)
	SELECT EXISTS (SELECT FROM open)`

	selectSameApproval = `
	SELECT EXISTS (SELECT FROM approvals WHERE request_id = $1::text::uuid AND binding = $2 AND person = $3 AND approved = $4)`

	closeWaiting = `
	WITH closed AS (
		UPDATE waiting_requests SET outcome = $2, why = $3, closed_at = $4
		WHERE request_id = $1::text::uuid AND outcome = '' AND serial IS NULL
		RETURNING request_id
	), leaves AS (
		INSERT INTO audit_leaves (id, kind, leaf)
		SELECT l.id::uuid, l.kind, l.leaf FROM closed, unnest($5::text[], $6::text[], $7::bytea[]) AS l (id, kind, leaf)
	)
	SELECT EXISTS (SELECT FROM closed)`

	selectSameClosing = `SELECT EXISTS (SELECT FROM waiting_requests WHERE request_id = $1::text::uuid AND outcome = $2 AND closed_at = $3)`

	// waitingStatus is ca.WaitingRequest.Status in SQL.
	waitingStatus = `
	CASE WHEN w.outcome <> '' THEN w.outcome
	     WHEN w.serial IS NULL THEN 'waiting'
	     WHEN EXISTS (SELECT FROM certificates AS c WHERE c.serial = w.serial AND c.issuer = w.issuer AND c.kind = 'final') THEN 'issued'
	     ELSE 'issuing' END`

	selectWaiting = `
	SELECT r.id::text, r.at, r.actor_id, r.actor_name, r.namespace, r.roles, r.profile, r.issuer, r.csr, r.spki_sha256, r.validity,
		r.metadata::text, r.verdict, r.results::text, r.policy_digest, r.compromised_key,
		w.actor::text, w.subject, w.names, w.expires_at, ` + waitingStatus + `, w.why, w.closed_at, w.serial,
		EXISTS (SELECT FROM api_tokens AS t WHERE t.id = r.actor_id AND t.revoked_at IS NOT NULL)
	FROM waiting_requests AS w JOIN requests AS r ON r.id = w.request_id WHERE `

	selectApprovals = `
	SELECT v.person, v.actor, v.groups, v.at, v.binding, v.approved, v.comment, v.event_id::text,` + evidenceColumns + `
	FROM approvals AS v` + evidenceJoin + `v.actor
	WHERE v.request_id = $1::text::uuid ORDER BY v.at, v.event_id`

	selectOverdue = `
	SELECT request_id::text FROM waiting_requests WHERE outcome = '' AND serial IS NULL AND expires_at <= now() ORDER BY expires_at LIMIT $1`

	// selectExpiring makes an event's identifier of the moment since which it is to be told, and of the request: it is of version 7, and stands
	// in the order of time like all others. Programs of before made it of the request alone, and what they have told is not told again.
	selectExpiring = `
	SELECT w.request_id::text, w.namespace, w.profile, w.expires_at, e.id::text, b.at
	FROM waiting_requests AS w
	CROSS JOIN LATERAL (
		SELECT w.expires_at - least($1::interval, (w.expires_at - w.asked_at) / 4) AS at, md5('request.expiring ' || w.request_id::text) AS digest
	) AS b
	CROSS JOIN LATERAL (
		SELECT (lpad(to_hex(floor(extract(epoch FROM b.at) * 1000)::bigint), 12, '0') || '7' || substr(b.digest, 14, 3) || '8'
			|| substr(b.digest, 18))::uuid AS id
	) AS e
	WHERE w.outcome = '' AND w.serial IS NULL AND w.expires_at > now() AND w.expires_at <= now() + $1::interval
		AND b.at <= now() AND NOT EXISTS (SELECT FROM audit_leaves AS l WHERE l.id IN (e.id, b.digest::uuid))
	ORDER BY w.expires_at LIMIT $2`

	// selectApproved takes some by lot: those that lack an approval, or that a quota has no room for, go on being among them, and must not keep
	// the others from their turn.
	selectApproved = `
	SELECT w.request_id::text FROM waiting_requests AS w
	WHERE w.outcome = '' AND w.serial IS NULL AND w.expires_at > now()
		AND (SELECT max(a.at) FROM approvals AS a WHERE a.request_id = w.request_id AND a.approved) < now() - $1::interval
	ORDER BY random() LIMIT $2`
)

// RecordWaiting makes a request that needs approval durable, with its claim of an idempotency key.
func (s *Store) RecordWaiting(ctx context.Context, w ca.WaitingRequest, k ca.IdempotencyKey, leaves ...audit.Leaf) error {
	text, err := newRequestText(w.Request)
	if err != nil {
		return err
	}
	actor, err := json.Marshal(w.Actor)
	if err != nil {
		return fmt.Errorf("encoding the actor of a request: %w", err)
	}
	if err := s.provideForRequest(ctx, w.ID); err != nil {
		return err
	}
	ids, kinds, canonical := leafColumns(leaves)
	const tries = 3 // a key found taken may be free again at the next look
	for n := 1; ; n++ {
		err := s.inBatch(ctx, "recording a request that waits", found(selectSameWaiting, w.ID), func(b *pgx.Batch) {
			b.Queue(insertWaiting, w.ID, w.At, w.ActorID, w.ActorName, w.Namespace, text.roles, w.Profile, w.Issuer, w.CSR, w.SPKI[:], w.Validity,
				text.metadata, string(w.Verdict), text.results, w.PolicyDigest, w.CompromisedKey, k.Actor, k.Key, k.Body[:], string(actor),
				w.Subject, orEmpty(w.Names), w.ExpiresAt, ids, kinds, canonical).QueryRow(orElse(errKeyTaken))
		})
		if !errors.Is(err, errKeyTaken) {
			return err
		}
		if err := s.whoTook(ctx, k, n == tries); err != nil {
			return err
		}
	}
}

// whoTook says what an idempotency key that was found taken led to. It is nil when the key is free again, unless that is said for the last
// time.
func (s *Store) whoTook(ctx context.Context, k ca.IdempotencyKey, last bool) error {
	earlier, err := s.FindReplay(ctx, k)
	switch {
	case err != nil:
		return err
	case earlier != nil && earlier.Mismatch:
		return ca.ErrIdempotencyMismatch
	case earlier != nil && !earlier.Open:
		return earlier
	case earlier != nil || last:
		return ca.ErrIdempotencyBusy
	}
	return nil
}

// RecordApproval adds a person's word on a request; ca.ErrDecided when it waits no more.
func (s *Store) RecordApproval(ctx context.Context, request string, a ca.ApprovalRecord, leaves ...audit.Leaf) error {
	ids, kinds, canonical := leafColumns(leaves)
	done := found(selectSameApproval, request, a.Binding, a.Person, a.Approved)
	var kind, key string
	var statement, signature []byte
	if e := a.Evidence; e != nil {
		kind, key, statement, signature = e.Kind, e.Key.Fingerprint(), e.Statement, e.Signature
	}
	return s.inBatch(ctx, "recording an approval", done, func(b *pgx.Batch) {
		b.Queue(insertApproval, request, a.Binding, a.Person, a.Approved, a.Actor, orEmpty(a.Groups), a.Comment, a.At, a.EventID, ids, kinds,
			canonical,
			kind, key, statement, signature).QueryRow(orElse(ca.ErrDecided))
	})
}

// CloseWaiting ends the waiting of a request; ca.ErrDecided when it waits no more.
func (s *Store) CloseWaiting(ctx context.Context, request, status, why string, at time.Time, leaves ...audit.Leaf) error {
	ids, kinds, canonical := leafColumns(leaves)
	at = at.Truncate(time.Microsecond)
	return s.inBatch(ctx, "ending the waiting of a request", found(selectSameClosing, request, status, at), func(b *pgx.Batch) {
		b.Queue(closeWaiting, request, status, why, at, ids, kinds, canonical).QueryRow(orElse(ca.ErrDecided))
	})
}

// WaitingRequest is one request that needs, or needed, approval, with its approvals.
func (s *Store) WaitingRequest(ctx context.Context, id string) (w ca.WaitingRequest, err error) {
	err = s.read(ctx, "reading a request that waits", func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, selectWaiting+`w.request_id = $1::text::uuid`, id)
		if err != nil {
			return err
		}
		if w, err = pgx.CollectExactlyOneRow(rows, scanWaiting); err != nil {
			return err
		}
		if rows, err = db.Query(ctx, selectApprovals, id); err != nil {
			return err
		}
		w.Approvals, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (ca.ApprovalRecord, error) { return scanApproval(row, id) })
		return err
	})
	if isNothing(err) {
		return w, fmt.Errorf("request %q: %w", id, ca.ErrNotFound)
	}
	return w, err
}

func scanWaiting(row pgx.CollectableRow) (w ca.WaitingRequest, err error) {
	var spki []byte
	var metadata, verdict, results, actor string
	var closed *time.Time
	if err := row.Scan(&w.ID, &w.At, &w.ActorID, &w.ActorName, &w.Namespace, &w.Roles, &w.Profile, &w.Issuer, &w.CSR, &spki, &w.Validity,
		&metadata, &verdict, &results, &w.PolicyDigest, &w.CompromisedKey,
		&actor, &w.Subject, &w.Names, &w.ExpiresAt, &w.Status, &w.Why, &closed, &w.Serial, &w.Withdrawn); err != nil {
		return w, err
	}
	copy(w.SPKI[:], spki)
	w.At, w.ExpiresAt, w.ClosedAt, w.Verdict = w.At.UTC(), w.ExpiresAt.UTC(), orZero(closed), policies.Verdict(verdict)
	for text, into := range map[string]any{metadata: &w.Metadata, results: &w.Objections, actor: &w.Actor} {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			return w, fmt.Errorf("reading request %s: %w", w.ID, err)
		}
	}
	return w, nil
}

func scanApproval(row pgx.CollectableRow, request string) (a ca.ApprovalRecord, err error) {
	var e evidenceRow
	if err := row.Scan(append([]any{&a.Person, &a.Actor, &a.Groups, &a.At, &a.Binding, &a.Approved, &a.Comment, &a.EventID},
		e.into()...)...); err != nil {
		return a, err
	}
	a.At, a.Withdrawn = a.At.UTC(), e.withdrawn
	if a.Evidence, err = e.evidence(request); err == nil && a.Evidence != nil {
		a.Key = a.Evidence.Key.Fingerprint()
	}
	return a, err
}

// waitingConditions say each status in a form that an index serves, where there is one.
var waitingConditions = map[string]string{
	"":                `true`,
	ca.StatusWaiting:  `w.outcome = '' AND w.serial IS NULL`,
	ca.StatusIssuing:  waitingStatus + ` = 'issuing'`,
	ca.StatusIssued:   waitingStatus + ` = 'issued'`,
	ca.StatusRejected: `w.outcome = 'rejected'`,
	ca.StatusExpired:  `w.outcome = 'expired'`,
	ca.StatusRefused:  `w.outcome = 'refused'`,
}

// WaitingRequests pages through requests that need, or needed, approval, newest first.
func (s *Store) WaitingRequests(ctx context.Context, f ca.WaitingFilter) (page []ca.WaitingRequest, next string, err error) {
	condition, ok := waitingConditions[f.Status]
	if !ok {
		return nil, "", &ca.InvalidError{
			Field: "status", Message: "there is no such status", Hint: "use waiting, issuing, issued, rejected, expired or refused",
		}
	}
	requests := byID[ca.WaitingRequest]{
		what: "requests", selected: selectWaiting + condition, id: "w.request_id", namespace: "w.namespace", scan: scanWaiting,
		idOf: func(w ca.WaitingRequest) string { return w.ID },
	}
	return requests.page(ctx, s, f.Namespace, f.Cursor, f.Limit)
}

// OverdueRequests are requests whose time to wait has run out by the database's clock.
func (s *Store) OverdueRequests(ctx context.Context, max int) ([]string, error) {
	return s.requestIDs(ctx, "looking for overdue requests", selectOverdue, max)
}

// ExpiringRequests are requests that will soon wait no more, and of which no event says so yet.
func (s *Store) ExpiringRequests(ctx context.Context, within time.Duration, max int) (all []ca.ExpiringRequest, err error) {
	err = s.read(ctx, "looking for requests that expire", func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, selectExpiring, within, max)
		if err != nil {
			return err
		}
		all, err = pgx.CollectRows(rows, pgx.RowToStructByPos[ca.ExpiringRequest])
		return err
	})
	return all, err
}

// ApprovedRequests are requests that wait although somebody approved them at least an age ago.
func (s *Store) ApprovedRequests(ctx context.Context, age time.Duration, max int) ([]string, error) {
	return s.requestIDs(ctx, "looking for approved requests", selectApproved, age, max)
}

func (s *Store) requestIDs(ctx context.Context, doing, sql string, args ...any) (ids []string, err error) {
	err = s.read(ctx, doing, func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		ids, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	return ids, err
}
