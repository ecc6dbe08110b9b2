package storage

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/policies"
)

const (
	insertRequest = `
	INSERT INTO requests (id, at, actor_id, actor_name, namespace, roles, profile, issuer, csr, spki_sha256, validity, metadata, verdict,
		results, policy_digest, compromised_key)
	VALUES ($1::text::uuid, $2, $3, $4, $5, $6::text::text[], $7, $8, $9, $10, $11, $12::text::jsonb, $13, $14::text::jsonb, $15, $16)`

	selectRequest = `SELECT EXISTS (SELECT FROM requests WHERE id = $1::text::uuid AND verdict = $2 AND spki_sha256 = $3)`
)

// requestText holds those parts of a request that go to the database as text.
type requestText struct{ roles, metadata, results string }

func newRequestText(r ca.Request) (requestText, error) {
	metadata, objections := r.Metadata, r.Objections
	if metadata == nil {
		metadata = map[string]string{}
	}
	if objections == nil {
		objections = []policies.RuleResult{}
	}
	m, err := json.Marshal(metadata)
	if err != nil {
		return requestText{}, fmt.Errorf("encoding the metadata of a request: %w", err)
	}
	verdicts, err := json.Marshal(objections)
	if err != nil {
		return requestText{}, fmt.Errorf("encoding the results of a decision: %w", err)
	}
	return requestText{textArray(r.Roles), string(m), string(verdicts)}, nil
}

// RecordRefusal keeps a request that a policy refused.
func (s *Store) RecordRefusal(ctx context.Context, r ca.Request, leaves ...audit.Leaf) error {
	text, err := newRequestText(r)
	if err != nil {
		return err
	}
	if err := s.provideForRequest(ctx, r.ID); err != nil {
		return err
	}
	ids, kinds, canonical := leafColumns(leaves)
	return s.inBatch(ctx, "recording a refusal", found(selectRequest, r.ID, string(r.Verdict), r.SPKI[:]), func(b *pgx.Batch) {
		b.Queue(insertRequest, r.ID, r.At, r.ActorID, r.ActorName, r.Namespace, text.roles, r.Profile, r.Issuer, r.CSR, r.SPKI[:], r.Validity,
			text.metadata, string(r.Verdict), text.results, r.PolicyDigest, r.CompromisedKey)
		b.Queue(insertLeaves, ids, kinds, canonical)
	})
}

// orEmpty keeps a nil slice from becoming NULL.
func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
