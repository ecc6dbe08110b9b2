package storage

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
)

// chosen is the query of a selection, as far as the part that counts it and the part that freezes it share it: the certificates that
// the selection meets, each once, with what would become of it: what is on record for certain comes before an orphan of its serial. $1 is
// the moment; what follows are the selection's own arguments.
const (
	chosenBegin = `
	WITH chosen AS MATERIALIZED (
		SELECT DISTINCT ON (c.issuer, c.serial) c.issuer, c.serial, c.profile, c.namespace, c.subject, c.names, c.spki_sha256 AS spki,
			coalesce(r.reason, 8) IN (%s) AND c.not_after >= $1 AS todo,
			coalesce(r.reason, 8) IN (%[1]s) AND c.not_after < $1 AS expired` + withState + `
		WHERE true`
	chosenEnd = ` ORDER BY c.issuer, c.serial, c.orphan, c.kind)`

	// bare are the certificates that stay as they are and whose keys are to be remembered as compromised: of each key that is not known yet,
	// and that no certificate makes known by being revoked, one. Whether the reason asks for it follows as a condition.
	bareBegin = `, bare AS MATERIALIZED (
		SELECT k.issuer, k.serial, k.expired
		FROM (SELECT DISTINCT ON (spki) spki, issuer, serial, todo, expired FROM chosen ORDER BY spki, todo DESC, issuer, serial) AS k
		WHERE NOT k.todo AND NOT EXISTS (SELECT FROM compromised_keys AS c WHERE c.spki_sha256 = k.spki)`
	bareEnd = `)`

	// outlook sums chosen up, in the form of ca.RevocationOutlook.
	outlook = `
	SELECT jsonb_build_object(
		'found', count(*), 'to_revoke', count(*) FILTER (WHERE todo), 'expired', count(*) FILTER (WHERE expired),
		'already', count(*) FILTER (WHERE NOT todo AND NOT expired), 'keys', (SELECT count(*) FROM bare),
		'issuers', (SELECT jsonb_object_agg(issuer, n) FROM (SELECT issuer, count(*) AS n FROM chosen WHERE todo GROUP BY 1) AS g),
		'profiles', (SELECT jsonb_object_agg(profile, n) FROM (SELECT profile, count(*) AS n FROM chosen WHERE todo GROUP BY 1) AS g),
		'namespaces', (SELECT jsonb_object_agg(namespace, n) FROM (SELECT namespace, count(*) AS n FROM chosen WHERE todo GROUP BY 1) AS g),
		'examples', (SELECT jsonb_agg(jsonb_build_object('serial', encode(serial, 'hex'), 'issuer', issuer, 'subject', subject, 'names', names))
			FROM (SELECT * FROM chosen WHERE todo ORDER BY issuer, serial LIMIT 10) AS e)
	)::text`

	// frozen writes the certificates that there is something to be done with into lots ($2 is the job, $3 the size of a lot), and gives the
	// digest of all: the SHA-256 of the digests of the lots, each of which is that of the issuers' names and serials, in order. A NUL ends
	// a name, and a serial has 20 octets, so that no two lists have the same octets.
	frozen = `, kept AS (
		SELECT issuer, serial, row_number() OVER (ORDER BY issuer, serial) - 1 AS n
		FROM (SELECT issuer, serial FROM chosen WHERE todo UNION ALL SELECT issuer, serial FROM bare) AS listed
	), lots AS (
		SELECT (n / $3::bigint)::integer AS lot, array_agg(issuer ORDER BY n) AS issuers, array_agg(serial ORDER BY n) AS serials,
			sha256(string_agg(convert_to(issuer, 'UTF8') || '\x00'::bytea || serial, ''::bytea ORDER BY n)) AS digest
		FROM kept GROUP BY 1
	), written AS (
		INSERT INTO revocation_lots (job, lot, issuers, serials) SELECT $2::text::uuid, lot, issuers, serials FROM lots
	)` + outlook + `, (SELECT sha256(coalesce(string_agg(digest, ''::bytea ORDER BY lot), ''::bytea)) FROM lots),
		(SELECT count(*) FROM lots), (SELECT count(*) FROM bare WHERE NOT expired), (SELECT count(*) FROM bare WHERE expired)
	FROM chosen`
)

// changedBy are the latest entries of a certificate that a reason changes; 8 stands for none as well.
func changedBy(wish issuance.Reason) string {
	switch wish {
	case issuance.RemoveFromCRL:
		return "6"
	case issuance.CertificateHold:
		return "8"
	}
	return "6, 8"
}

// serialSlack is how far apart the moment in a serial and that of the certificate may be: an issuance takes less, and both are told by
// the same clock.
const serialSlack = time.Hour

// selectionQuery is chosen for a selection. Args begin with the moment and with first, which the caller's statement uses.
func selectionQuery(s ca.Selection, wish issuance.Reason, now time.Time, first ...any) (sql string, args []any) {
	b := statement{args: append([]any{now}, first...)}
	fmt.Fprintf(&b, chosenBegin, changedBy(wish))
	if s.Namespace != access.AllNamespaces {
		b.where("c.namespace = ?", s.Namespace)
	}
	if len(s.Serials) > 0 {
		b.where("c.serial = ANY (?::bytea[])", s.Serials)
	}
	if len(s.Certificates) > 0 {
		serials := make([][]byte, 0, len(s.Certificates))
		for _, der := range s.Certificates {
			serials = append(serials, serialOf(der))
		}
		b.where("c.serial = ANY (?::bytea[]) AND c.der = ANY (?::bytea[])", serials, s.Certificates)
	}
	if len(s.Keys) > 0 {
		b.where("c.spki_sha256 = ANY (?::bytea[])", octets(s.Keys))
	}
	if len(s.Names) > 0 {
		names := make([]string, len(s.Names))
		for i, name := range s.Names {
			names[i] = strings.ToLower(name)
		}
		b.where("EXISTS (SELECT FROM unnest(c.names) AS n WHERE lower(n) = ANY (?::text[]))", names)
	}
	if s.Requester != "" {
		b.where("EXISTS (SELECT FROM requests AS q WHERE q.id = c.request_id AND q.actor_id = ?)", s.Requester)
	}
	if s.Profile != "" {
		b.where("c.profile = ?", s.Profile)
	}
	if s.Issuer != "" {
		b.where("c.issuer = ?", s.Issuer)
	}
	if !s.IssuedFrom.IsZero() {
		low, _ := issuance.SerialBounds(s.IssuedFrom.Add(-serialSlack), s.IssuedFrom)
		b.where("c.issued_at >= ? AND c.serial >= ?", s.IssuedFrom, low[:])
	}
	if !s.IssuedUntil.IsZero() {
		_, high := issuance.SerialBounds(s.IssuedUntil, s.IssuedUntil.Add(serialSlack))
		b.where("c.issued_at < ? AND c.serial < ?", s.IssuedUntil, high[:])
	}
	b.WriteString(chosenEnd + bareBegin)
	b.where("?::boolean", wish == issuance.KeyCompromise)
	b.WriteString(bareEnd)
	return b.String(), b.args
}

// RevocationOutlook tells what a selection means.
func (s *Store) RevocationOutlook(ctx context.Context, sel ca.Selection, wish issuance.Reason, now time.Time) (o ca.RevocationOutlook, err error) {
	sql, args := selectionQuery(sel, wish, now)
	const doing = "looking what is to be revoked"
	tryOnce := func(ctx context.Context) (bool, error) {
		return s.tryTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, longStatement); err != nil {
				return err
			}
			var text string
			if err := tx.QueryRow(ctx, sql+outlook+" FROM chosen", args...).Scan(&text); err != nil {
				return err
			}
			if o, err = parseOutlook(text); err != nil {
				return err
			}
			o.UnknownSerials, err = unknownSerials(ctx, tx, sel)
			o.Unknown = len(o.UnknownSerials)
			return err
		})
	}
	err = s.write(ctx, doing, func(context.Context, querier) (bool, error) { return false, nil }, tryOnce)
	return shortened(o), err
}

// longStatement lets one transaction's statements run as long as the caller's context.
const longStatement = `SET LOCAL statement_timeout = 0`

func parseOutlook(text string) (o ca.RevocationOutlook, err error) {
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return o, fmt.Errorf("reading what is to be revoked: %w", err)
	}
	return o, nil
}

// selectKnownSerials are of certificates, and of revocations whose certificates were lost with a database: these have no namespace.
const selectKnownSerials = `
	SELECT encode(c.serial, 'hex') FROM issued AS c
	WHERE c.serial = ANY ($1::bytea[]) AND ($2 = '*' OR c.namespace = $2) AND ($3 = '' OR c.issuer = $3)
	UNION
	SELECT encode(r.serial, 'hex') FROM authorities AS a JOIN revocations AS r ON r.issuer = a.name
	WHERE r.serial = ANY ($1::bytea[]) AND $2 = '*' AND ($3 = '' OR a.name = $3)`

// unknownSerials are those of the selection that are nobody's, or another namespace's: which, is not told.
func unknownSerials(ctx context.Context, db querier, sel ca.Selection) ([]string, error) {
	given := slices.Clone(sel.Serials)
	for _, der := range sel.Certificates {
		given = append(given, serialOf(der))
	}
	if len(given) == 0 {
		return nil, nil
	}
	rows, err := db.Query(ctx, selectKnownSerials, given, sel.Namespace, sel.Issuer)
	if err != nil {
		return nil, err
	}
	known, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool, len(known))
	for _, serial := range known {
		seen[serial] = true
	}
	var unknown []string
	for _, serial := range given {
		if text := fmt.Sprintf("%x", serial); !seen[text] {
			unknown, seen[text] = append(unknown, text), true
		}
	}
	return unknown, nil
}

// shortened keeps a thousand of the unknown serials: after a restore each may have to be seen to.
func shortened(o ca.RevocationOutlook) ca.RevocationOutlook {
	const shown = 1000
	o.UnknownSerials = o.UnknownSerials[:min(shown, len(o.UnknownSerials))]
	return o
}
