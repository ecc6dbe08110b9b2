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
	VALUES ($1::text::uuid, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::text::jsonb, $13, $14::text::jsonb, $15, $16)`

	selectRequest = `SELECT EXISTS (SELECT FROM requests WHERE id = $1::text::uuid AND verdict = $2 AND spki_sha256 = $3)`
)

// requestValues are the columns of a request, in the order of insertRequest.
func requestValues(r ca.Request) ([]any, error) {
	metadata, results := r.Metadata, r.Results
	if metadata == nil {
		metadata = map[string]string{}
	}
	if results == nil {
		results = []policies.RuleResult{}
	}
	m, err := json.Marshal(metadata)
	if err != nil {
		return nil, fmt.Errorf("encoding the metadata of a request: %w", err)
	}
	verdicts, err := json.Marshal(results)
	if err != nil {
		return nil, fmt.Errorf("encoding the results of a decision: %w", err)
	}
	return []any{
		r.ID, r.At, r.ActorID, r.ActorName, r.Namespace, orEmpty(r.Roles), r.Profile, r.Issuer, r.CSR, r.SPKI[:], r.Validity, string(m),
		string(r.Verdict), string(verdicts), r.PolicyDigest, r.CompromisedKey,
	}, nil
}

// RecordRefusal keeps a request that a policy refused.
func (s *Store) RecordRefusal(ctx context.Context, r ca.Request, leaves ...audit.Leaf) error {
	values, err := requestValues(r)
	if err != nil {
		return err
	}
	ids, kinds, canonical := leafColumns(leaves)
	return s.inBatch(ctx, "recording a refusal", found(selectRequest, r.ID, string(r.Verdict), r.SPKI[:]), func(b *pgx.Batch) {
		b.Queue(insertRequest, values...)
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
