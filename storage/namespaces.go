package storage

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
)

const (
	// insertNamespace writes the version that follows the last one, with its leaves, or nothing. Two that would be the same version
	// exclude each other by the key.
	insertNamespace = `
	WITH version AS (
		INSERT INTO namespaces (name, version, source, removed, definition, actor, at, event_id)
		SELECT $1, $2, $3, $4, $5::text::jsonb, $6, $7, $8::text::uuid
		WHERE $2::integer = 1 + coalesce((SELECT max(version) FROM namespaces WHERE name = $1), 0)
		ON CONFLICT DO NOTHING
		RETURNING version
	), leaves AS (
		INSERT INTO audit_leaves (id, kind, leaf)
		SELECT l.id::uuid, l.kind, l.leaf FROM version, unnest($9::text[], $10::text[], $11::bytea[]) AS l (id, kind, leaf)
	)
	SELECT EXISTS (SELECT FROM version)`

	selectSameNamespace = `SELECT EXISTS (SELECT FROM namespaces WHERE name = $1 AND version = $2 AND event_id = $3::text::uuid)`

	selectNamespaceVersions = `SELECT count(*) FROM namespaces`

	namespaceColumns = ` name, version, source, removed, definition::text, actor, at, event_id::text FROM namespaces `

	selectNamespaces       = `SELECT DISTINCT ON (name)` + namespaceColumns + `ORDER BY name, version DESC`
	selectNamespaceHistory = `SELECT` + namespaceColumns + `WHERE name = $1 ORDER BY version DESC`
)

// RecordNamespace adds a version of a namespace; ca.ErrFenced when its number does not follow the last one.
func (s *Store) RecordNamespace(ctx context.Context, v ca.NamespaceVersion, leaves ...audit.Leaf) error {
	ids, kinds, canonical := leafColumns(leaves)
	done := found(selectSameNamespace, v.Name, v.Version, v.EventID)
	return s.inBatch(ctx, "recording a namespace", done, func(b *pgx.Batch) {
		b.Queue(insertNamespace, v.Name, v.Version, v.Source, v.Removed, string(v.Canonical()), v.Actor, v.At, v.EventID, ids, kinds, canonical).
			QueryRow(orElse(ca.ErrFenced))
	})
}

// NamespaceVersions counts all versions of all namespaces.
func (s *Store) NamespaceVersions(ctx context.Context) (n int64, err error) {
	err = s.read(ctx, "counting the versions of namespaces", func(ctx context.Context, db querier) error {
		return db.QueryRow(ctx, selectNamespaceVersions).Scan(&n)
	})
	return n, err
}

// Namespaces are the latest versions of all namespaces, by name.
func (s *Store) Namespaces(ctx context.Context) ([]ca.NamespaceVersion, error) {
	return s.namespaces(ctx, selectNamespaces)
}

// NamespaceHistory is every version of one namespace, latest first.
func (s *Store) NamespaceHistory(ctx context.Context, name string) ([]ca.NamespaceVersion, error) {
	return s.namespaces(ctx, selectNamespaceHistory, name)
}

func (s *Store) namespaces(ctx context.Context, sql string, args ...any) (all []ca.NamespaceVersion, err error) {
	err = s.read(ctx, "reading namespaces", func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		all, err = pgx.CollectRows(rows, scanNamespace)
		return err
	})
	return all, err
}

func scanNamespace(row pgx.CollectableRow) (v ca.NamespaceVersion, err error) {
	var name, definition string
	if err := row.Scan(&name, &v.Version, &v.Source, &v.Removed, &definition, &v.Actor, &v.At, &v.EventID); err != nil {
		return v, err
	}
	v.At = v.At.UTC()
	v.Namespace, err = access.ParseCanonical([]byte(definition))
	return v, err
}
