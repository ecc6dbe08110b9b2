package storage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/issuance"
)

const (
	selectOrphanRows = `
	SELECT o.serial, o.issuer, o.kind, o.tbs, o.request_id::text, o.profile, o.policy_digest, o.event_id::text,
		coalesce(s.index, -1), l.leaf
	FROM (
		SELECT serial, issuer, kind, tbs, request_id, profile, policy_digest, event_id FROM orphans WHERE (serial, issuer, kind) > ($1, $2, $3)
		ORDER BY serial, issuer, kind LIMIT $4
	) AS o LEFT JOIN audit_leaves AS l ON l.id = o.event_id LEFT JOIN audit_sequence AS s ON s.id = o.event_id
	ORDER BY o.serial, o.issuer, o.kind`

	// selectIntendedLeaves are the events of intents, within a span of identifiers, that have a serial number in them.
	selectIntendedLeaves = `
	SELECT coalesce(s.index, -1), l.leaf FROM audit_leaves AS l LEFT JOIN audit_sequence AS s ON s.id = l.id
	WHERE l.id >= $1::text::uuid AND l.id < $2::text::uuid AND l.kind = 'certificate.intended' AND position($3::bytea IN l.leaf) > 0`

	// intendedBefore and intendedAfter are how far from the time in its serial number the event of an intent is looked for. Both come from the
	// same machine, moments apart; what is beyond is for a clock that was set.
	intendedBefore = time.Minute
	intendedAfter  = 10 * time.Minute
)

// orphanRow is a certificate that was possibly signed.
type orphanRow struct {
	serial       []byte
	issuer, kind string
	tbs          []byte
	intended     map[string]string // what the event of its intent must say besides
	request      string
	event        string
	index        int64
	leaf         []byte
}

func (o orphanRow) String() string {
	return fmt.Sprintf("the possibly signed %s certificate %x of %s", o.kind, o.serial, o.issuer)
}

// orphans holds what was possibly signed against the events of its intent and of its settlement: what its revocation follows from is in its
// to-be-signed bytes, and whoever changes both together agrees with himself, but not with the digest that the first of them has.
func (r *rowsCheck) orphans(ctx context.Context) error {
	known, err := readListedBy(ctx, r.h.pool)
	if err != nil {
		return err
	}
	var last orphanRow
	for {
		rows, err := r.h.pool.Query(ctx, selectOrphanRows, append([]byte{}, last.serial...), last.issuer, last.kind, rowsPage)
		if err != nil {
			return err
		}
		page, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (o orphanRow, err error) {
			var profile, policy string
			err = row.Scan(&o.serial, &o.issuer, &o.kind, &o.tbs, &o.request, &profile, &policy, &o.event, &o.index, &o.leaf)
			digest := sha256.Sum256(o.tbs)
			o.intended = map[string]string{"tbs_sha256": hex.EncodeToString(digest[:]), "request": o.request, "profile": profile, "policy": policy}
			return o, err
		})
		if err != nil {
			return err
		}
		for _, o := range page {
			r.hold(o.String(), o.event, o.index, o.leaf, []audit.Kind{audit.CertificateOrphaned}, map[string]string{
				"issuer": o.issuer, "serial": hex.EncodeToString(o.serial), "kind": o.kind, "request": o.request,
			})
			if err := known.misplaced(o.issuer, o.serial, o.tbs); err != nil {
				r.tell(audit.Unlogged, o.index, "%s %v", o, err)
			}
			if err := r.intended(ctx, o); err != nil {
				return err
			}
			last = o
		}
		if r.saw(len(page)); len(page) < rowsPage {
			return nil
		}
	}
}

// intended holds an orphan against the event of its intent. Of several, each must be as the row is: one that somebody added does not take
// the place of the first.
func (r *rowsCheck) intended(ctx context.Context, o orphanRow) error {
	var at time.Time
	if len(o.serial) == serialLength {
		at = issuance.Serial(o.serial).Time()
	}
	serial := hex.EncodeToString(o.serial)
	from, until := idBound(at.Add(-intendedBefore), 0), idBound(at.Add(intendedAfter), 0)
	rows, err := r.h.pool.Query(ctx, selectIntendedLeaves, from, until, []byte(serial))
	if err != nil {
		return err
	}
	found := false
	var index int64
	var leaf []byte
	_, err = pgx.ForEachRow(rows, []any{&index, &leaf}, func() error {
		e, err := audit.Parse(leaf)
		if err != nil || e.Data["serial"] != serial || e.Data["issuer"] != o.issuer || e.Data["kind"] != o.kind {
			return nil // what cannot be read is told by the verification of the log
		}
		found = true
		r.hold(o.String(), e.ID, index, leaf, []audit.Kind{audit.CertificateIntended}, o.intended)
		return nil
	})
	if err == nil && !found {
		r.tell(audit.Unlogged, -1, "%s has no event that it was to be signed", o)
	}
	return err
}

// orphanRevoked tells what of a revocation is not as the settlement of its orphan made it. An event of a settlement names neither reason
// nor invalidity date, for there is none.
func orphanRevoked(reason issuance.Reason, kinds []audit.Kind) error {
	if slices.Contains(kinds, audit.CertificateOrphaned) && reason != issuance.Unspecified {
		return fmt.Errorf("has the reason %s, and a settlement gives none", reason)
	}
	return nil
}
