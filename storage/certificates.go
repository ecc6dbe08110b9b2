package storage

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
)

const (
	// tryKeys takes the shared locks of subject keys, as lockKeysShared does, but waits for none: a certificate whose key somebody holds, to
	// revoke it, comes again, and holds up no other. Which these are is kept for the transaction's next statement, which sees what was
	// committed before.
	tryKeys = `
	SELECT set_config('chancery.held_keys', coalesce(string_agg(key::text, ' ') FILTER (WHERE NOT pg_try_advisory_xact_lock_shared(key)), ''), true)
	FROM unnest($1::bigint[]) AS key`

	// insertCertificates closes the intents that their caller owns, and everything else hangs on that. Once a key is on record as compromised,
	// no certificate for it comes on record: the intent stays, to be settled.
	//
	// What it looks at it finds by index, key by key: a join would be free to read a whole table for each lot. It is planned once, for some ten
	// items: were the array named where it is unnested, Postgres would think that it saves more by planning for its length each time.
	insertCertificates = `
	WITH item AS (
		SELECT serial, ($2::text[])[n] AS issuer, ($3::text[])[n] AS kind, ($4::bytea[])[n] AS der,
			($5::bytea[])[n] AS spki, ($6::text[])[n] AS scope, ($7::text[])[n] AS profile, ($8::text[])[n] AS policy,
			($9::text[])[n] AS namespace, ($10::text[])[n] AS request, ($11::text[])[n] AS subject, ($12::text[])[n] AS names,
			($13::text[])[n] AS search, ($14::timestamptz[])[n] AS not_before, ($15::timestamptz[])[n] AS not_after,
			($16::timestamptz[])[n] AS issued_at, ($17::text[])[n] AS event, ($18::text[])[n] AS owner_name,
			($19::text[])[n] AS owner_run,
			($24::bigint[])[n] = ANY (string_to_array(current_setting('chancery.held_keys'), ' ')::bigint[]) AS held,
			(SELECT true FROM compromised_keys AS k WHERE k.spki_sha256 = ($5::bytea[])[n]) IS TRUE AS compromised
		FROM unnest((SELECT $1::bytea[])) WITH ORDINALITY AS l (serial, n)
	), closed AS (
		DELETE FROM intents AS t USING item AS i
		WHERE t.serial = i.serial AND t.issuer = i.issuer AND t.kind = i.kind AND t.owner_name = i.owner_name AND t.owner_run = i.owner_run
			AND NOT i.held AND NOT i.compromised
		RETURNING t.serial
	), certificate AS (
		INSERT INTO certificates (serial, issuer, kind, der, spki_sha256, crl_scope, profile, policy_digest, namespace, request_id, subject,
			names, search, not_before, not_after, issued_at, event_id)
		SELECT serial, issuer, kind, der, spki, scope, profile, policy, namespace, nullif(request, '')::uuid, subject, names::text[], search,
			not_before, not_after, issued_at, event::uuid
		FROM item WHERE serial IN (SELECT serial FROM closed)
	), leaves AS (
		INSERT INTO audit_leaves (id, kind, leaf)
		SELECT l.id::uuid, l.kind, l.leaf
		FROM unnest($20::text[], $21::text[], $22::bytea[], $23::bytea[]) AS l (id, kind, leaf, serial)
		WHERE l.serial IN (SELECT serial FROM closed)
	)
	SELECT i.serial, i.serial IN (SELECT serial FROM closed), i.held, i.compromised AND EXISTS (
		SELECT FROM intents AS t
		WHERE t.serial = i.serial AND t.issuer = i.issuer AND t.kind = i.kind AND t.owner_name = i.owner_name AND t.owner_run = i.owner_run)
	FROM item AS i`

	selectSameCertificates = `
	SELECT c.serial FROM unnest($1::bytea[], $2::text[], $3::text[], $4::bytea[]) AS l (serial, issuer, kind, der)
	JOIN certificates AS c ON c.serial = l.serial AND c.issuer = l.issuer AND c.kind = l.kind AND c.der = l.der`

	// certificateColumns are read by scanCertificate; whatever selects them names certificates c and revocations r.
	certificateColumns = `
		c.issuer, c.serial, c.kind, c.der, c.spki_sha256, c.crl_scope, c.profile, c.policy_digest, c.namespace,
		coalesce(c.request_id::text, ''), c.subject, c.names, c.not_before, c.not_after, c.issued_at, c.event_id::text, c.orphan,
		r.sequence, r.reason, r.at, r.invalidity_date, r.comment, r.actor, r.event_id::text, r.crl_scope, r.not_after, r.spki_sha256`

	// withState joins every certificate with the latest entry of its sequence of revocations.
	withState = `
	FROM issued AS c` + latestRevocation
	latestRevocation = ` LEFT JOIN LATERAL (
		SELECT * FROM revocations AS l WHERE l.issuer = c.issuer AND l.serial = c.serial ORDER BY l.sequence DESC LIMIT 1
	) AS r ON true`

	selectCertificates         = `SELECT` + certificateColumns + withState + ` WHERE c.serial = $1 ORDER BY c.issuer, c.kind`
	selectCertificatesOfIssuer = `SELECT` + certificateColumns + withState + ` WHERE c.serial = $1 AND c.issuer = $2 ORDER BY c.kind`
)

// RecordCertificate makes a signed certificate durable and closes its intent, unless its key is on record as compromised by now. Once it has
// succeeded, the same again succeeds too, and changes nothing. Intents and certificates that are recorded at the same time share a transaction.
func (s *Store) RecordCertificate(ctx context.Context, c ca.NewCertificate, leaves ...audit.Leaf) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	_, err := s.issuances.do(ctx, issuanceItem{certificate: &certificateItem{c, leaves}})
	return err
}

// certificateItem is a certificate on its way to the database.
type certificateItem struct {
	ca.NewCertificate
	leaves []audit.Leaf
}

// queueCertificates adds to a batch what records certificates, and returns their outcomes, which are filled in when the batch is answered.
func queueCertificates(b *pgx.Batch, items []*certificateItem) []error {
	outcomes := make([]error, len(items))
	for i := range outcomes {
		outcomes[i] = ca.ErrIntentLost
	}
	locks := make([]int64, len(items))
	for i, c := range items {
		locks[i] = lockNumber(c.SPKI)
	}
	b.Queue(tryKeys, locks)
	b.Queue(insertCertificates, append(certificateArrays(items), locks)...).Query(func(rows pgx.Rows) error {
		place := places(items, func(c *certificateItem) issuance.Serial { return c.Serial })
		var serial []byte
		var closed, held, compromised bool
		_, err := pgx.ForEachRow(rows, []any{&serial, &closed, &held, &compromised}, func() error {
			i := place[issuance.Serial(serial)]
			switch {
			case closed:
				outcomes[i] = nil
			case held:
				outcomes[i] = errKeyHeld
			case compromised:
				outcomes[i] = ca.ErrKeyCompromised
			}
			return nil
		})
		return err
	})
	return outcomes
}

// errKeyHeld says that a subject key may be becoming compromised at this moment: whether it has is known in a moment.
var errKeyHeld = fmt.Errorf("%w: the subject's key is being revoked", ca.ErrUnavailable)

func certificateArrays(items []*certificateItem) []any {
	var columns columns
	for _, c := range items {
		columns.add(c.Serial[:], c.Issuer, string(c.Kind), c.DER, c.SPKI[:], c.CRLScope, c.Profile, c.PolicyDigest, c.Namespace, c.RequestID,
			c.Subject, textArray(c.Names), searchText(c.Subject, c.Names), c.NotBefore, c.NotAfter, c.IssuedAt, c.EventID, c.Owner.Name,
			c.Owner.Run)
	}
	return append(columns.arrays(), leavesOf(items, func(c *certificateItem) ([]byte, []audit.Leaf) { return c.Serial[:], c.leaves })...)
}

// certificatesOnRecord tells which certificates are on record, octet for octet.
func certificatesOnRecord(ctx context.Context, db querier, items []*certificateItem) ([]bool, error) {
	var columns columns
	for _, c := range items {
		columns.add(c.Serial[:], c.Issuer, string(c.Kind), c.DER)
	}
	return onRecord(ctx, db, selectSameCertificates, columns, places(items, func(c *certificateItem) issuance.Serial { return c.Serial }))
}

// searchText is what List searches in: one line for the subject and for each name, in lower case.
func searchText(subject string, names []string) string {
	return strings.ToLower(subject + "\n" + strings.Join(names, "\n"))
}

// Certificates are the certificates with a serial, orphans among them.
func (s *Store) Certificates(ctx context.Context, issuer string, serial []byte, namespace string) ([]ca.Certificate, error) {
	all, err := s.certificates(ctx, issuer, serial)
	if err != nil {
		return nil, err
	}
	var seen []ca.Certificate
	for _, c := range all {
		if namespace == access.AllNamespaces || c.Namespace == namespace {
			seen = append(seen, c)
		}
	}
	return seen, nil
}

func (s *Store) certificates(ctx context.Context, issuer string, serial []byte) (found []ca.Certificate, err error) {
	err = s.read(ctx, "looking up a serial", func(ctx context.Context, db querier) (err error) {
		found, err = certificatesOf(ctx, db, issuer, serial)
		return err
	})
	return found, err
}

func certificatesOf(ctx context.Context, db querier, issuer string, serial []byte) ([]ca.Certificate, error) {
	sql, args := selectCertificates, []any{serial}
	if issuer != "" {
		sql, args = selectCertificatesOfIssuer, append(args, issuer)
	}
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	found, err := pgx.CollectRows(rows, scanCertificate)
	return oneOfEach(found), err
}

// IssuedCertificate is the final certificate of a serial, for whoever asked for it: as durable as what is acknowledged. It returns
// ca.ErrNotFound when none is known to have been issued.
func (s *Store) IssuedCertificate(ctx context.Context, issuer string, serial []byte) (issued ca.Certificate, err error) {
	found := false
	err = s.readPromise(ctx, "looking up what was issued", func(ctx context.Context, db querier) (bool, error) {
		all, err := certificatesOf(ctx, db, issuer, serial)
		if at := slices.IndexFunc(all, isIssued); at >= 0 {
			issued, found = all[at], true
		}
		return found, err
	})
	if err == nil && !found {
		err = fmt.Errorf("serial %x of %s: %w", serial, issuer, ca.ErrNotFound)
	}
	return issued, err
}

func isIssued(c ca.Certificate) bool { return c.Kind == issuance.Final && !c.Orphan }

// nullableRevocation is a revocation that a certificate may lack.
type nullableRevocation struct {
	sequence       *int
	reason         *int
	at             *time.Time
	invalidityDate *time.Time
	comment, actor *string
	eventID, scope *string
	notAfter       *time.Time
	spki           []byte
}

func scanCertificate(row pgx.CollectableRow) (c ca.Certificate, err error) {
	var serial, spki []byte
	var kind string
	var r nullableRevocation
	if err := row.Scan(&c.Issuer, &serial, &kind, &c.DER, &spki, &c.CRLScope, &c.Profile, &c.PolicyDigest, &c.Namespace, &c.RequestID,
		&c.Subject, &c.Names, &c.NotBefore, &c.NotAfter, &c.IssuedAt, &c.EventID, &c.Orphan,
		&r.sequence, &r.reason, &r.at, &r.invalidityDate, &r.comment, &r.actor, &r.eventID, &r.scope, &r.notAfter, &r.spki); err != nil {
		return c, err
	}
	copy(c.Serial[:], serial)
	copy(c.SPKI[:], spki)
	c.Kind, c.NotBefore, c.NotAfter, c.IssuedAt = issuance.Kind(kind), c.NotBefore.UTC(), c.NotAfter.UTC(), c.IssuedAt.UTC()
	if r.sequence != nil {
		c.Revocation = &ca.Revocation{
			Issuer: c.Issuer, Serial: serial, Sequence: *r.sequence, Reason: issuance.Reason(*r.reason), At: r.at.UTC(),
			InvalidityDate: orZero(r.invalidityDate), Comment: *r.comment, Actor: *r.actor, EventID: *r.eventID, CRLScope: *r.scope,
			NotAfter: r.notAfter.UTC(), SPKI: [32]byte(r.spki),
		}
	}
	return c, nil
}

// orZero makes the zero time of NULL.
func orZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

// serialOf is the serial of a certificate in DER; nil of what is none, which no certificate has.
func serialOf(der []byte) []byte {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil
	}
	return c.SerialNumber.Bytes()
}
