package storage

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
)

const (
	// insertPrecertificate writes a precertificate whose intent is its caller's, and leaves the intent open: it is what is settled when no
	// final certificate comes of it. Nor does one come on record, and so to the logs, once its key is on record as compromised.
	insertPrecertificate = `
	WITH held AS (
		SELECT serial FROM intents
		WHERE serial = $1 AND issuer = $2 AND kind = 'precertificate' AND owner_name = $3 AND owner_run = $4
			AND NOT EXISTS (SELECT FROM compromised_keys AS k WHERE k.spki_sha256 = $6)
		FOR UPDATE
	), certificate AS (
		INSERT INTO certificates (serial, issuer, kind, der, spki_sha256, crl_scope, profile, policy_digest, namespace, request_id, subject,
			names, search, not_before, not_after, issued_at, event_id)
		SELECT serial, $2, 'precertificate', $5, $6, $7, $8, $9, $10, nullif($11, '')::uuid, $12, $13::text[], $14, $15, $16, $17,
			$18::text::uuid
		FROM held
	), leaves AS (
		INSERT INTO audit_leaves (id, kind, leaf)
		SELECT l.id::uuid, l.kind, l.leaf FROM held, unnest($19::text[], $20::text[], $21::bytea[]) AS l (id, kind, leaf)
	)
	SELECT EXISTS (SELECT FROM held), EXISTS (
		SELECT FROM intents AS i JOIN compromised_keys AS k ON k.spki_sha256 = $6
		WHERE i.serial = $1 AND i.issuer = $2 AND i.kind = 'precertificate' AND i.owner_name = $3 AND i.owner_run = $4)`

	// replaceIntent makes the final certificate's intent of a recorded precertificate's. There is one open intent for a serial at any
	// time, and the final one can come of the precertificate's alone, which is gone with it: so there is never a second. It is an intent as
	// any other: none becomes durable once its key is on record as compromised, and the precertificate's stays, to be settled.
	replaceIntent = `
	WITH held AS (
		DELETE FROM intents AS i USING certificates AS c
		WHERE i.serial = $1 AND i.issuer = $2 AND i.kind = 'precertificate' AND i.owner_name = $3 AND i.owner_run = $4
			AND c.serial = i.serial AND c.issuer = i.issuer AND c.kind = 'precertificate'
			AND NOT EXISTS (SELECT FROM revocations AS r WHERE r.issuer = i.issuer AND r.serial = i.serial)
			AND NOT EXISTS (SELECT FROM compromised_keys AS k WHERE k.spki_sha256 = i.spki_sha256)
		RETURNING i.*
	), final AS (
		INSERT INTO intents (serial, issuer, kind, tbs, crl_scope, spki_sha256, namespace, profile, policy_digest, not_after, request_id,
			idempotency_actor, idempotency_key, owner_name, owner_run, lease_until)
		SELECT serial, issuer, 'final', $5, crl_scope, spki_sha256, namespace, profile, policy_digest, not_after, request_id,
			idempotency_actor, idempotency_key, owner_name, owner_run, now() + $6::interval
		FROM held
	), leaves AS (
		INSERT INTO audit_leaves (id, kind, leaf)
		SELECT l.id::uuid, l.kind, l.leaf FROM held, unnest($7::text[], $8::text[], $9::bytea[]) AS l (id, kind, leaf)
	)
	SELECT EXISTS (SELECT FROM held), EXISTS (
		SELECT FROM intents AS i JOIN compromised_keys AS k ON k.spki_sha256 = i.spki_sha256
		WHERE i.serial = $1 AND i.issuer = $2 AND i.kind = 'precertificate' AND i.owner_name = $3 AND i.owner_run = $4)`

	selectSamePrecertificate = `SELECT EXISTS (
		SELECT FROM certificates WHERE serial = $1 AND issuer = $2 AND kind = 'precertificate' AND der = $3)`

	selectFinalIntent = `SELECT EXISTS (
		SELECT FROM intents WHERE serial = $1 AND issuer = $2 AND kind = 'final' AND tbs = $3 AND owner_name = $4 AND owner_run = $5)`
)

// RecordPrecertificate makes a signed precertificate durable. Its intent stays open. Once it has succeeded, the same again succeeds too,
// and changes nothing.
func (s *Store) RecordPrecertificate(ctx context.Context, c ca.NewCertificate, leaves ...audit.Leaf) error {
	ids, kinds, canonical := leafColumns(leaves)
	done := found(selectSamePrecertificate, c.Serial[:], c.Issuer, c.DER)
	return s.inBatch(ctx, "recording a precertificate", done, func(b *pgx.Batch) {
		b.Queue(lockKeysShared, []int64{lockNumber(c.SPKI)})
		b.Queue(insertPrecertificate, c.Serial[:], c.Issuer, c.Owner.Name, c.Owner.Run, c.DER, c.SPKI[:], c.CRLScope, c.Profile, c.PolicyDigest,
			c.Namespace, c.RequestID, c.Subject, c.Names, searchText(c.Subject, c.Names), c.NotBefore, c.NotAfter, c.IssuedAt, c.EventID,
			ids, kinds, canonical).QueryRow(heldOrCompromised)
	})
}

// RecordFinalIntent makes the intent of a final certificate durable in place of its precertificate's.
func (s *Store) RecordFinalIntent(ctx context.Context, i ca.Intent, leaves ...audit.Leaf) error {
	ids, kinds, canonical := leafColumns(leaves)
	done := found(selectFinalIntent, i.Serial[:], i.Issuer, i.TBS, i.Owner.Name, i.Owner.Run)
	return s.inBatch(ctx, "recording a final intent", done, func(b *pgx.Batch) {
		b.Queue(lockKeysShared, []int64{lockNumber(i.Request.SPKI)})
		b.Queue(replaceIntent, i.Serial[:], i.Issuer, i.Owner.Name, i.Owner.Run, i.TBS, i.Lease, ids, kinds, canonical).
			QueryRow(heldOrCompromised)
	})
}

// heldOrCompromised reads what became of a statement about an intent: whether it was its caller's, and whether its key is compromised.
func heldOrCompromised(row pgx.Row) error {
	var held, compromised bool
	switch err := row.Scan(&held, &compromised); {
	case err != nil:
		return err
	case compromised:
		return ca.ErrKeyCompromised
	case !held:
		return ca.ErrIntentLost
	}
	return nil
}

// oneOfEach keeps one row for each issuer and serial: a final certificate stands for its precertificate, and what was possibly signed
// for one that certainly was. rows are ordered by issuer.
func oneOfEach(rows []ca.Certificate) []ca.Certificate {
	rank := func(c ca.Certificate) int {
		switch {
		case c.Kind == issuance.Final && !c.Orphan:
			return 3
		case c.Kind == issuance.Final:
			return 2
		case !c.Orphan:
			return 1
		}
		return 0
	}
	var kept []ca.Certificate
	for _, c := range rows {
		last := len(kept) - 1
		switch {
		case last < 0 || kept[last].Issuer != c.Issuer || kept[last].Serial != c.Serial:
			kept = append(kept, c)
		case rank(c) > rank(kept[last]):
			kept[last] = c
		}
	}
	return kept
}
