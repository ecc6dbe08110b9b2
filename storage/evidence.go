package storage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/approval"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
)

const (
	insertApproverKey = `
	INSERT INTO approver_keys (fingerprint, person, name, form, public, until, actor, at, event_id)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::uuid)`

	selectSameApproverKey = `SELECT EXISTS (SELECT FROM approver_keys WHERE fingerprint = $1 AND event_id = $2::text::uuid)`

	selectApproverKeys = `
	SELECT k.person, k.name, k.form, k.public, k.actor, k.at, k.event_id::text, e.at, coalesce(e.why, '')
	FROM approver_keys AS k LEFT JOIN approver_key_ends AS e ON e.fingerprint = k.fingerprint
	WHERE $1 IN ('', k.person) ORDER BY k.at, k.fingerprint`

	endApproverKey = `
	INSERT INTO approver_key_ends (fingerprint, why, actor, at, event_id)
	SELECT fingerprint, $2, $3, $4::timestamptz, $5::text::uuid FROM approver_keys WHERE fingerprint = $1`

	selectSameKeyEnd = `SELECT EXISTS (SELECT FROM approver_key_ends WHERE fingerprint = $1 AND event_id = $2::text::uuid)`

	insertEvidence = `
	INSERT INTO approval_evidence (event_id, kind, subject, person, key, statement, signature)
	VALUES ($1::text::uuid, $2, $3::text::uuid, $4, $5, $6, $7)`

	// evidenceColumns are those of a word's evidence, where it has some: its event is the word's. The last says that the word is withdrawn.
	evidenceColumns = ` coalesce(e.kind, ''), coalesce(e.person, ''), e.statement, e.signature, coalesce(k.form, ''), k.public,
		NOT (` + wordHolds + `) `

	// evidenceJoin finds what stands behind a word v; what follows it is the column with the credential that the word was given with.
	evidenceJoin = `
	LEFT JOIN approval_evidence AS e ON e.event_id = v.event_id
	LEFT JOIN approver_keys AS k ON k.fingerprint = e.key
	LEFT JOIN approver_key_ends AS ended ON ended.fingerprint = e.key
	LEFT JOIN api_tokens AS gone ON gone.revoked_at IS NOT NULL AND gone.id = `

	// wordHolds: neither has the key ended that signed the word, nor was the API token withdrawn that it was given with.
	wordHolds = `ended.fingerprint IS NULL AND gone.id IS NULL`
)

// RecordApproverKey adds a key of a person who approves.
func (s *Store) RecordApproverKey(ctx context.Context, k ca.ApproverKey, leaves ...audit.Leaf) error {
	fingerprint := k.Key.Fingerprint()
	done := found(selectSameApproverKey, fingerprint, k.EventID)
	return s.inTx(ctx, "registering an approver's key", done, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, insertApproverKey, fingerprint, k.Person, k.Name, k.Key.Form, k.Key.Public, orNull(k.Key.Until()), k.Actor, k.At,
			k.EventID)
		if sqlState(err) == "23505" {
			return ca.ErrExists
		}
		if err != nil {
			return err
		}
		return addLeaves(ctx, tx, leaves)
	})
}

// ApproverKeys are the keys of a person, or of all.
func (s *Store) ApproverKeys(ctx context.Context, person string) (all []ca.ApproverKey, err error) {
	err = s.read(ctx, "reading the keys of approvers", func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, selectApproverKeys, person)
		if err != nil {
			return err
		}
		all, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (k ca.ApproverKey, err error) {
			var form string
			var public []byte
			var ended *time.Time
			if err := row.Scan(&k.Person, &k.Name, &form, &public, &k.Actor, &k.At, &k.EventID, &ended, &k.Why); err != nil {
				return k, err
			}
			k.At, k.EndedAt = k.At.UTC(), orZero(ended)
			if k.Key, err = approval.LoadKey(form, public); err != nil {
				return k, fmt.Errorf("reading a key of %s: %w", k.Person, err)
			}
			return k, nil
		})
		return err
	})
	return all, err
}

// EndApproverKey ends a key.
func (s *Store) EndApproverKey(ctx context.Context, fingerprint, why, actor string, at time.Time, event string,
	leaves ...audit.Leaf,
) error {
	return s.inTx(ctx, "ending an approver's key", found(selectSameKeyEnd, fingerprint, event), func(ctx context.Context, tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, endApproverKey, fingerprint, why, actor, at, event)
		switch {
		case sqlState(err) == "23505":
			return ca.ErrExists
		case err != nil:
			return err
		case tag.RowsAffected() == 0:
			return ca.ErrNotFound
		}
		return addLeaves(ctx, tx, leaves)
	})
}

// addWord keeps what a person says, ca.ErrExists when the person has spoken before, and with it its evidence, if any, whose event it shares.
func addWord(ctx context.Context, tx pgx.Tx, event string, e *ca.Evidence, insert string, args ...any) error {
	tag, err := tx.Exec(ctx, insert, args...)
	switch {
	case err != nil:
		return err
	case tag.RowsAffected() == 0:
		return ca.ErrExists
	case e == nil:
		return nil
	}
	_, err = tx.Exec(ctx, insertEvidence, evidenceArgs(event, e)...)
	return err
}

func evidenceArgs(event string, e *ca.Evidence) []any {
	return []any{event, e.Kind, e.Subject, e.Person, e.Key.Fingerprint(), e.Statement, e.Signature}
}

// evidenceRow is what evidenceColumns give.
type evidenceRow struct {
	kind, person, form           string
	statement, signature, public []byte
	withdrawn                    bool
}

func (r *evidenceRow) into() []any {
	return []any{&r.kind, &r.person, &r.statement, &r.signature, &r.form, &r.public, &r.withdrawn}
}

// evidence is what a row tells; nil for a word that is not signed.
func (r *evidenceRow) evidence(subject string) (*ca.Evidence, error) {
	if r.kind == "" {
		return nil, nil
	}
	key, err := approval.LoadKey(r.form, r.public)
	if err != nil {
		return nil, errors.Join(errors.New("reading the evidence of an approval"), err)
	}
	return &ca.Evidence{
		Kind: r.kind, Subject: subject, Person: r.person,
		Evidence: approval.Evidence{Statement: r.statement, Signature: r.signature, Key: key},
	}, nil
}
