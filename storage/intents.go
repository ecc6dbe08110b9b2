package storage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/policies"
)

const (
	// lockKeysShared and lockKey order intents and certificates for a subject key and its revocation as compromised: once the revocation is on
	// record, none for the key becomes durable. What is on record before is found by its key afterwards; an intent among it leads to no
	// certificate any more, and is settled as revoked.
	lockKeysShared = `SELECT count(pg_advisory_xact_lock_shared(key)) FROM unnest($1::bigint[]) AS key`
	lockKey        = `SELECT pg_advisory_xact_lock($1)`

	// insertIntents writes all of an intent or nothing of it: the claim of the idempotency key comes first, and the rest hangs on it. A
	// claim waits for a claim of the same key that another transaction has not yet committed; all take their claims in one order.
	insertIntents = intentItems + `, claim AS (
		INSERT INTO idempotency_keys (actor, key, body, issuer, serial)
		SELECT key_actor, key, body, issuer, serial FROM item
		WHERE key <> '' AND NOT refused
		ORDER BY key_actor, key
		ON CONFLICT (actor, key) DO NOTHING
		RETURNING serial
	), clear AS (
		SELECT * FROM item
		WHERE NOT refused AND (key = '' OR serial IN (SELECT serial FROM claim))
	), request AS (` + intentRequests + `)` + intentRows + `
	SELECT serial, refused, serial IN (SELECT serial FROM clear), 0, 0::bigint FROM item`

	// insertIntentsAdmitted is insertIntents for lots with intents that have more conditions: admit_intents judges these first, and claims
	// their idempotency keys. A request that has waited is on record already.
	insertIntentsAdmitted = intentItems + `, admitted AS MATERIALIZED (
		SELECT a.item AS serial, a.outcome, a.retry
		FROM admit_intents($33::bytea[], $34::text[], $35::bytea[], $36::text[], $37::text[], $38::bytea[], $39::text[]::uuid[],
			$40::bytea[], $41::text[], $42::text[], $43::text[], $44::bigint[], $45::bigint[]) AS a
	), claim AS (
		INSERT INTO idempotency_keys (actor, key, body, issuer, serial)
		SELECT key_actor, key, body, issuer, serial FROM item
		WHERE key <> '' AND NOT refused AND serial NOT IN (SELECT serial FROM admitted)
		ORDER BY key_actor, key
		ON CONFLICT (actor, key) DO NOTHING
		RETURNING serial
	), clear AS (
		SELECT i.* FROM item AS i LEFT JOIN admitted AS a ON a.serial = i.serial
		WHERE NOT i.refused
			AND CASE WHEN a.serial IS NULL THEN key = '' OR i.serial IN (SELECT serial FROM claim) ELSE a.outcome = 0 END
	), request AS (` + intentRequests + ` ON CONFLICT (id) DO NOTHING)` + intentRows + `
	SELECT i.serial, i.refused, i.serial IN (SELECT serial FROM clear), coalesce(a.outcome, 0),
		coalesce(a.retry, 0)
	FROM item AS i LEFT JOIN admitted AS a ON a.serial = i.serial`

	// intentItems looks the keys up one by one, and takes its items from an array, as insertCertificates does.
	intentItems = `
	WITH item AS (
		SELECT request, ($2::timestamptz[])[n] AS at, ($3::text[])[n] AS actor_id, ($4::text[])[n] AS actor_name,
			($5::text[])[n] AS namespace, ($6::text[])[n] AS roles, ($7::text[])[n] AS profile, ($8::text[])[n] AS request_issuer,
			($9::bytea[])[n] AS csr, ($10::bytea[])[n] AS spki, ($11::interval[])[n] AS validity, ($12::text[])[n] AS metadata,
			($13::text[])[n] AS verdict, ($14::text[])[n] AS results, ($15::text[])[n] AS policy, ($16::boolean[])[n] AS compromised,
			($17::text[])[n] AS key_actor, ($18::text[])[n] AS key, ($19::bytea[])[n] AS body, ($20::text[])[n] AS issuer,
			($21::bytea[])[n] AS serial, ($22::text[])[n] AS kind, ($23::bytea[])[n] AS tbs, ($24::text[])[n] AS scope,
			($25::timestamptz[])[n] AS not_after, ($26::text[])[n] AS owner_name, ($27::text[])[n] AS owner_run,
			($28::interval[])[n] AS lease,
			(SELECT true FROM compromised_keys AS k WHERE k.spki_sha256 = ($10::bytea[])[n]) IS TRUE AS refused
		FROM unnest((SELECT $1::text[])) WITH ORDINALITY AS l (request, n)
	)`

	intentRequests = `
		INSERT INTO requests (id, at, actor_id, actor_name, namespace, roles, profile, issuer, csr, spki_sha256, validity, metadata,
			verdict, results, policy_digest, compromised_key)
		SELECT request::uuid, at, actor_id, actor_name, namespace, roles::text[], profile, request_issuer, csr, spki, validity,
			metadata::jsonb, verdict, results::jsonb, policy, compromised
		FROM clear`

	intentRows = `, intent AS (
		INSERT INTO intents (serial, issuer, kind, tbs, crl_scope, spki_sha256, namespace, profile, policy_digest, not_after, request_id,
			idempotency_actor, idempotency_key, owner_name, owner_run, lease_until)
		SELECT serial, issuer, kind, tbs, scope, spki, namespace, profile, policy, not_after, request::uuid, key_actor, key, owner_name,
			owner_run, now() + lease
		FROM clear
	), leaves AS (
		INSERT INTO audit_leaves (id, kind, leaf)
		SELECT l.id::uuid, l.kind, l.leaf
		FROM unnest($29::text[], $30::text[], $31::bytea[], $32::bytea[]) AS l (id, kind, leaf, serial)
		WHERE l.serial IN (SELECT serial FROM clear)
	)`

	selectIntents = `
	SELECT i.serial FROM unnest($1::bytea[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[]) AS l (serial, issuer, kind, request, name, run)
	JOIN intents AS i ON i.serial = l.serial AND i.issuer = l.issuer AND i.kind = l.kind AND i.request_id = l.request::uuid
		AND i.owner_name = l.name AND i.owner_run = l.run`

	// claimIntents takes over what nobody works on any more: see claimLease. An intent's lease may be longer than that of its settlement.
	claimIntents = `
	UPDATE intents AS i SET owner_name = $1, owner_run = $2, lease_until = now() + $3::interval
	FROM (
		SELECT serial, issuer, kind, owner_name, owner_run FROM intents
		WHERE lease_until < now() OR lease_until > now() + $3::interval + interval '10 minutes' OR (owner_name = $1 AND owner_run <> $2)
		ORDER BY created_at
		LIMIT $4
		FOR UPDATE SKIP LOCKED
	) AS before
	WHERE i.serial = before.serial AND i.issuer = before.issuer AND i.kind = before.kind
	RETURNING i.issuer, i.serial, i.kind, i.tbs, i.namespace, i.request_id::text, i.created_at, before.owner_name, before.owner_run`

	lockIntent = `SELECT FROM intents WHERE serial = $1 AND issuer = $2 AND kind = $3 FOR UPDATE`

	// settleIntent closes an owned intent, and everything else hangs on that. A serial that is revoked already stays as it is. A request
	// that had all its approvals waits again, and a key that the intent reserved is free; quotas count what was possibly issued.
	settleIntent = `
	WITH closed AS (
		DELETE FROM intents WHERE serial = $1 AND issuer = $2 AND kind = $3 AND owner_name = $4 AND owner_run = $5
		RETURNING serial, issuer, kind, tbs, spki_sha256, crl_scope, profile, policy_digest, namespace, request_id,
			coalesce($9::timestamptz, not_after) AS not_after, created_at, idempotency_actor, idempotency_key
	), orphan AS (
		INSERT INTO orphans (serial, issuer, kind, tbs, spki_sha256, crl_scope, profile, policy_digest, namespace, request_id, not_after,
			intended_at, settled_at, reason, event_id)
		SELECT serial, issuer, kind, tbs, spki_sha256, crl_scope, profile, policy_digest, namespace, request_id, not_after, created_at,
			$6::timestamptz, $7, $8::text::uuid
		FROM closed AS i
		WHERE NOT EXISTS ( -- a precertificate that is on record is no orphan
			SELECT FROM certificates AS c WHERE c.serial = i.serial AND c.issuer = i.issuer AND c.kind = i.kind)
	), freed AS (
		DELETE FROM idempotency_keys AS k USING closed AS c
		WHERE k.actor = c.idempotency_actor AND k.key = c.idempotency_key AND k.issuer = c.issuer AND k.serial = c.serial
	), waits AS (
		UPDATE waiting_requests AS w SET issuer = NULL, serial = NULL FROM closed AS c WHERE w.serial = c.serial
	), returned AS (
		UPDATE reservations AS t SET taken = t.taken - 1, holder = NULL FROM closed AS c WHERE t.holder = c.serial
	), latest AS (
		SELECT r.sequence, r.reason FROM revocations AS r WHERE r.issuer = $2 AND r.serial = $1 ORDER BY r.sequence DESC LIMIT 1
	), revoked AS (
		INSERT INTO revocations (issuer, serial, sequence, reason, at, comment, actor, event_id, crl_scope, not_after, spki_sha256)
		SELECT issuer, serial, coalesce((SELECT sequence FROM latest), 0) + 1, 0, $6::timestamptz, $7, 'system', $8::text::uuid, crl_scope,
			not_after, spki_sha256
		FROM closed
		WHERE coalesce((SELECT reason FROM latest), 8) IN (6, 8)
		RETURNING issuer, serial, crl_scope
	), scope AS (
		INSERT INTO crl_scopes (issuer, scope) SELECT issuer, crl_scope FROM revoked ON CONFLICT DO NOTHING
	), pending AS (
		INSERT INTO crl_pending (issuer, scope, serial) SELECT issuer, crl_scope, serial FROM revoked
	), leaves AS (
		INSERT INTO audit_leaves (id, kind, leaf)
		SELECT l.id::uuid, l.kind, l.leaf FROM closed, unnest($10::text[], $11::text[], $12::bytea[]) AS l (id, kind, leaf)
	)
	SELECT EXISTS (SELECT FROM closed)`

	// A settlement does not always leave an orphan, but always its leaves.
	selectSettlement = `SELECT EXISTS (SELECT FROM audit_leaves WHERE id = ANY ($1::text[]::uuid[]))`

	selectIdempotencyKey = `SELECT body, issuer, serial, coalesce(request_id::text, '') FROM idempotency_keys WHERE actor = $1 AND key = $2`

	// selectKeyHistory keeps of each list of names in a namespace the newest certificate, and bounds what one namespace can make it bring.
	selectKeyHistory = `
	SELECT namespace, names, encode(serial, 'hex'), not_after FROM (
		SELECT namespace, names, serial, not_after, row_number() OVER (PARTITION BY namespace ORDER BY not_after DESC, serial) AS place
		FROM (
			SELECT DISTINCT ON (namespace, names) namespace, names, serial, not_after FROM (
				SELECT namespace, names, serial, not_after FROM certificates WHERE spki_sha256 = $1
				UNION ALL
				SELECT namespace, names, serial, not_after FROM archived_keys WHERE spki_sha256 = $1
				UNION ALL
				SELECT namespace, names, serial, not_after FROM imported_certificates WHERE spki_sha256 = $1
			) AS every
			ORDER BY namespace, names, not_after DESC, serial
		) AS newest
	) AS numbered
	WHERE place <= 100 ORDER BY namespace, place`

	selectCompromisedKeys = `SELECT spki_sha256 FROM compromised_keys WHERE spki_sha256 = ANY ($1)`
)

// errUnanswered is the outcome of an intent of which the database said nothing: without its word nothing may be signed.
var errUnanswered = fmt.Errorf("%w: the database did not say what became of it", ca.ErrUnavailable)

// errKeyTaken says that another request holds the idempotency key.
var errKeyTaken = errors.New("the idempotency key is taken")

// RecordIntent makes an intent, its request and its claim of an idempotency key durable. Intents and certificates that are recorded at the
// same time share a transaction.
func (s *Store) RecordIntent(ctx context.Context, i ca.Intent, leaves ...audit.Leaf) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	if err := s.provideFor(ctx, i.Serial.Time()); err != nil {
		return err
	}
	if !i.Approved { // one that has waited is on record
		if err := s.provideForRequest(ctx, i.Request.ID); err != nil {
			return err
		}
	}
	item, err := newIntentItem(i, leaves)
	if err != nil {
		return err
	}
	const tries = 3 // a key found taken may be free again at the next look
	for n := 1; ; n++ {
		_, err := s.issuances.do(ctx, issuanceItem{intent: &item})
		if !errors.Is(err, errKeyTaken) {
			return err
		}
		if err := s.whoTook(ctx, i.Idempotency, n == tries); err != nil {
			return err
		}
	}
}

// intentItem is an intent on its way to the database.
type intentItem struct {
	ca.Intent
	request requestText
	leaves  []audit.Leaf
}

func newIntentItem(i ca.Intent, leaves []audit.Leaf) (intentItem, error) {
	text, err := newRequestText(i.Request)
	return intentItem{i, text, leaves}, err
}

// queueIntents adds to a batch what records intents whose keys are locked, and returns their outcomes, which are filled in when the batch is
// answered.
func queueIntents(b *pgx.Batch, items []*intentItem) []error {
	outcomes := make([]error, len(items))
	for i := range outcomes {
		outcomes[i] = errUnanswered
	}
	sql, arguments := insertIntents, intentColumns(items)
	if conditions := admissionColumns(items); conditions != nil {
		sql, arguments = insertIntentsAdmitted, append(arguments, conditions...)
	}
	b.Queue(sql, arguments...).Query(func(rows pgx.Rows) error {
		place := places(items, func(i *intentItem) issuance.Serial { return i.Serial })
		var serial []byte
		var compromised, recorded bool
		var admission int
		var retry int64
		_, err := pgx.ForEachRow(rows, []any{&serial, &compromised, &recorded, &admission, &retry}, func() error {
			i := place[issuance.Serial(serial)]
			switch {
			case compromised:
				outcomes[i] = ca.ErrKeyCompromised
			case admission > 0:
				outcomes[i] = &ca.ExhaustedError{Reservation: items[i].Reservations[admission-1], RetryAfter: time.Duration(retry) * time.Second}
			case admission == waitsNoMore:
				outcomes[i] = ca.ErrDecided
			case !recorded:
				outcomes[i] = errKeyTaken
			default:
				outcomes[i] = nil
			}
			return nil
		})
		return err
	})
	return outcomes
}

// waitsNoMore is the outcome of admit_intents for a request that has been decided.
const waitsNoMore = -2

// admissionColumns are the arguments of admit_intents: the intents with conditions of their own, and their reservations. It is nil for a lot
// that has none.
func admissionColumns(items []*intentItem) []any {
	var admitted, reserved columns
	for _, i := range items {
		if len(i.Reservations) == 0 && !i.Approved {
			continue
		}
		var waits *string
		if i.Approved {
			waits = &i.Request.ID
		}
		k := i.Idempotency
		admitted.add(i.Serial[:], i.Issuer, i.Request.SPKI[:], k.Actor, k.Key, k.Body[:], waits)
		for _, r := range i.Reservations {
			reserved.add(i.Serial[:], string(r.Kind), r.Scope, r.Key, int64(r.Limit), int64(r.Window/time.Second))
		}
	}
	switch {
	case len(admitted.rows) == 0:
		return nil
	case len(reserved.rows) == 0:
		return append(admitted.arrays(), [][]byte{}, []string{}, []string{}, []string{}, []int64{}, []int64{})
	}
	return append(admitted.arrays(), reserved.arrays()...)
}

// keyLocks are the locks of all subject keys, in the one order in which all transactions take them.
func keyLocks(items []*intentItem) []int64 {
	locks := make([]int64, len(items))
	for n, i := range items {
		locks[n] = lockNumber(i.Request.SPKI)
	}
	slices.Sort(locks)
	return slices.Compact(locks)
}

func intentColumns(items []*intentItem) []any {
	var c columns
	for _, i := range items {
		r, k := &i.Request, &i.Idempotency
		c.add(r.ID, r.At, r.ActorID, r.ActorName, r.Namespace, i.request.roles, r.Profile, r.Issuer, r.CSR, r.SPKI[:], r.Validity,
			i.request.metadata, string(r.Verdict), i.request.results, r.PolicyDigest, r.CompromisedKey,
			k.Actor, k.Key, k.Body[:], i.Issuer, i.Serial[:], string(i.Kind), i.TBS, i.CRLScope, i.NotAfter, i.Owner.Name, i.Owner.Run, i.Lease)
	}
	return append(c.arrays(), leavesOf(items, func(i *intentItem) ([]byte, []audit.Leaf) { return i.Serial[:], i.leaves })...)
}

// intentsOnRecord tells which intents are open, and their owner's own.
func intentsOnRecord(ctx context.Context, db querier, items []*intentItem) ([]bool, error) {
	var c columns
	for _, i := range items {
		c.add(i.Serial[:], i.Issuer, string(i.Kind), i.Request.ID, i.Owner.Name, i.Owner.Run)
	}
	return onRecord(ctx, db, selectIntents, c, places(items, func(i *intentItem) issuance.Serial { return i.Serial }))
}

// lockNumber is the advisory lock of a subject key. Two keys that share one merely wait for each other.
func lockNumber(spki [32]byte) int64 { return int64(binary.BigEndian.Uint64(spki[:8])) }

// ClaimExpiredIntents makes the claimant the owner of intents that nobody works on any more. When the acknowledgement of a claim is
// lost, the claimed intents come back when their new lease has run out.
func (s *Store) ClaimExpiredIntents(ctx context.Context, by ca.Replica, lease time.Duration, max int) ([]ca.OpenIntent, error) {
	var claimed []ca.OpenIntent
	unknown := func(context.Context, querier) (bool, error) { return false, nil }
	err := s.inTx(ctx, "claiming expired intents", unknown, func(ctx context.Context, tx pgx.Tx) error {
		rows, err := tx.Query(ctx, claimIntents, by.Name, by.Run, lease, max)
		if err != nil {
			return err
		}
		claimed, err = pgx.CollectRows(rows, scanOpenIntent)
		return err
	})
	if err != nil {
		return nil, err
	}
	return claimed, nil
}

func scanOpenIntent(row pgx.CollectableRow) (i ca.OpenIntent, err error) {
	var serial []byte
	var kind string
	if err := row.Scan(&i.Issuer, &serial, &kind, &i.TBS, &i.Namespace, &i.RequestID, &i.CreatedAt, &i.Owner.Name, &i.Owner.Run); err != nil {
		return i, err
	}
	copy(i.Serial[:], serial)
	i.Kind, i.CreatedAt = issuance.Kind(kind), i.CreatedAt.UTC()
	return i, nil
}

// SettleIntent records an owned intent as possibly signed and revoked. Where the settlement tells no end of validity, the intent's counts.
func (s *Store) SettleIntent(ctx context.Context, by ca.Replica, o ca.Settlement, leaves ...audit.Leaf) error {
	ids, kinds, canonical := leafColumns(leaves)
	done := found(selectSettlement, ids)
	return s.inBatch(ctx, "settling an intent", done, func(b *pgx.Batch) {
		// Whoever holds it may be recording its precertificate just now: what has come of that is seen by a statement that begins afterwards.
		b.Queue(lockIntent, o.Serial[:], o.Issuer, string(o.Kind))
		b.Queue(settleIntent, o.Serial[:], o.Issuer, string(o.Kind), by.Name, by.Run, o.At, o.Reason, o.EventID, orNull(o.NotAfter),
			ids, kinds, canonical).QueryRow(orElse(ca.ErrIntentLost))
	})
}

// orElse reads one truth value, and returns err for false.
func orElse(err error) func(pgx.Row) error {
	return func(row pgx.Row) error {
		var ok bool
		if scanErr := row.Scan(&ok); scanErr != nil {
			return scanErr
		}
		if !ok {
			return err
		}
		return nil
	}
}

// FindReplay looks an idempotency key up.
func (s *Store) FindReplay(ctx context.Context, k ca.IdempotencyKey) (*ca.Replay, error) {
	if k.Key == "" {
		return nil, nil
	}
	var body, serial []byte
	var issuer, waiting string
	err := s.read(ctx, "looking up an idempotency key", func(ctx context.Context, db querier) error {
		return db.QueryRow(ctx, selectIdempotencyKey, k.Actor, k.Key).Scan(&body, &issuer, &serial, &waiting)
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, err
	case string(body) != string(k.Body[:]):
		return &ca.Replay{Mismatch: true}, nil
	case waiting != "":
		return &ca.Replay{Waiting: waiting}, nil
	}
	issued, err := s.IssuedCertificate(ctx, issuer, serial)
	switch {
	case errors.Is(err, ca.ErrNotFound):
		return &ca.Replay{Open: true}, nil
	case err != nil:
		return nil, fmt.Errorf("looking up the outcome of an idempotency key: %w", err)
	}
	return &ca.Replay{Certificate: issued}, nil
}

// KeyCompromised tells whether a subject key was revoked with keyCompromise. Keys that are asked for at the same time share a query.
func (s *Store) KeyCompromised(ctx context.Context, spki [32]byte) (bool, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	return s.compromised.do(ctx, spki)
}

// KeyHistory are the earlier certificates of a subject key. Intents that are open, or were settled, are not among them.
func (s *Store) KeyHistory(ctx context.Context, spki [32]byte) ([]policies.KeyUse, error) {
	history := []policies.KeyUse{}
	err := s.read(ctx, "looking up a key's history", func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, selectKeyHistory, spki[:])
		if err != nil {
			return err
		}
		history, err = pgx.AppendRows(history[:0], rows, func(row pgx.CollectableRow) (u policies.KeyUse, err error) {
			err = row.Scan(&u.Namespace, &u.Names, &u.Serial, &u.NotAfter)
			u.NotAfter = u.NotAfter.UTC()
			return u, err
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return history, nil
}

func compromisedKeys(ctx context.Context, db querier, keys [][32]byte) (map[[32]byte]bool, error) {
	rows, err := db.Query(ctx, selectCompromisedKeys, octets(keys))
	if err != nil {
		return nil, err
	}
	found := map[[32]byte]bool{}
	var key []byte
	_, err = pgx.ForEachRow(rows, []any{&key}, func() error {
		found[[32]byte(key)] = true
		return nil
	})
	return found, err
}

// orNull makes NULL of the zero time.
func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
