package storage

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/audit"
)

const (
	insertLeaves = `
	INSERT INTO audit_leaves (id, kind, leaf)
	SELECT l.id::uuid, l.kind, l.leaf FROM unnest($1::text[], $2::text[], $3::bytea[]) AS l (id, kind, leaf)`

	selectLeaf = `SELECT EXISTS (SELECT FROM audit_leaves WHERE id = $1::text::uuid AND leaf = $2)`
)

// leafColumns are leaves as the three arrays that statements take.
func leafColumns(leaves []audit.Leaf) (ids, kinds []string, canonical [][]byte) {
	ids, kinds, canonical = make([]string, len(leaves)), make([]string, len(leaves)), make([][]byte, len(leaves))
	for i, l := range leaves {
		ids[i], kinds[i], canonical[i] = l.ID(), string(l.Kind()), l.Stored()
	}
	return ids, kinds, canonical
}

func addLeaves(ctx context.Context, tx pgx.Tx, leaves []audit.Leaf) error {
	if len(leaves) == 0 {
		return nil
	}
	ids, kinds, canonical := leafColumns(leaves)
	_, err := tx.Exec(ctx, insertLeaves, ids, kinds, canonical)
	return err
}

// RecordEvents commits leaves that go with no other change.
func (s *Store) RecordEvents(ctx context.Context, leaves ...audit.Leaf) error {
	if len(leaves) == 0 {
		return errors.New("recording events: there are none")
	}
	ids, kinds, canonical := leafColumns(leaves)
	first := leaves[0]
	return s.inBatch(ctx, "recording events", found(selectLeaf, first.ID(), first.Bytes()), func(b *pgx.Batch) {
		b.Queue(insertLeaves, ids, kinds, canonical)
	})
}

// found is a landed that asks an EXISTS.
func found(sql string, args ...any) landed {
	return func(ctx context.Context, db querier) (exists bool, err error) {
		err = db.QueryRow(ctx, sql, args...).Scan(&exists)
		return exists, err
	}
}
