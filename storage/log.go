package storage

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
)

const (
	selectLogSize = `SELECT coalesce(max(index) + 1, 0) FROM audit_sequence`

	// selectLots takes whole lots of the first thousand, until there are enough leaves. The leaves themselves are read only where a lot does
	// not say their hashes. A lot of which one is gone stays where it is for ever: it takes nobody's place, and is told where it is passed by.
	selectLots = `
	WITH waiting AS NOT MATERIALIZED (
		SELECT u.lot, u.ids, u.hashes, u.hashes IS NULL AND EXISTS (
			SELECT FROM unnest(u.ids) AS l (id) WHERE NOT EXISTS (SELECT FROM audit_leaves AS a WHERE a.id = l.id)
		) AS stuck
		FROM audit_unsequenced AS u
	), first AS (
		SELECT lot, ids, hashes FROM waiting WHERE NOT stuck ORDER BY lot LIMIT 1000
	), counted AS (
		SELECT lot, ids, hashes, sum(cardinality(ids)) OVER (ORDER BY lot) AS total, row_number() OVER (ORDER BY lot) AS place FROM first
	), taken AS (
		SELECT lot, ids, hashes FROM counted WHERE total <= $1 OR place = 1
	)
	SELECT t.lot, false, t.hashes, CASE WHEN t.hashes IS NULL THEN (
		SELECT array_agg(a.leaf ORDER BY l.place) FROM unnest(t.ids) WITH ORDINALITY AS l (id, place) LEFT JOIN audit_leaves AS a ON a.id = l.id
	) END
	FROM taken AS t
	UNION ALL (
		SELECT w.lot, true, NULL, NULL FROM waiting AS w
		WHERE w.stuck AND w.lot < coalesce((SELECT max(lot) FROM taken), 9223372036854775807) ORDER BY w.lot LIMIT 100
	)
	ORDER BY lot`

	appendToLog  = `SELECT append_to_log($1, $2, $3, $4, $5, $6)`
	logIsMoved   = "CH002"
	selectTail   = `SELECT EXISTS (SELECT FROM audit_sequence WHERE index = $1 AND hash = $2)`
	queueBacklog = `SELECT queue_backlog($1)`

	selectLogState = `
	WITH size AS (
		SELECT coalesce(max(index) + 1, 0) AS leaves FROM audit_sequence
	), checkpoint AS (
		SELECT size, at FROM audit_checkpoints ORDER BY size DESC LIMIT 1
	), waiting AS (
		SELECT coalesce(sum(cardinality(ids)), 0) AS leaves, min(written_at) AS since FROM audit_unsequenced
	)
	SELECT s.leaves, coalesce(c.size, 0), coalesce(extract(epoch FROM clock_timestamp() - c.at)::float8, -1), w.leaves,
		coalesce(extract(epoch FROM clock_timestamp() - w.since)::float8, -1), EXISTS (SELECT FROM audit_backlog),
		coalesce((SELECT max(size) FROM audit_cosignatures), 0)
	FROM size AS s CROSS JOIN waiting AS w LEFT JOIN checkpoint AS c ON true`

	insertCheckpoint     = `INSERT INTO audit_checkpoints (size, root, note) VALUES ($1, $2, $3)`
	selectSameCheckpoint = `SELECT EXISTS (SELECT FROM audit_checkpoints WHERE size = $1 AND note = $2)`
	selectCheckpoint     = `
	SELECT c.note, coalesce((SELECT string_agg(s.line, '' ORDER BY s.at, s.witness) FROM audit_cosignatures AS s WHERE s.size = c.size), '')
	FROM audit_checkpoints AS c ORDER BY c.size DESC LIMIT 1`
	selectCheckpointsBefore = `SELECT size, note FROM audit_checkpoints WHERE size < $1 ORDER BY size DESC LIMIT 100`
	selectCosigned          = `
	SELECT c.note, (SELECT string_agg(s.line, '' ORDER BY s.at, s.witness) FROM audit_cosignatures AS s WHERE s.size = c.size)
	FROM audit_checkpoints AS c
	WHERE c.size = (SELECT size FROM audit_cosignatures GROUP BY size HAVING count(*) >= $1 ORDER BY size DESC LIMIT 1)`
	insertCosignature = `
	INSERT INTO audit_cosignatures (size, witness, line) SELECT c.size, $3, $4 FROM audit_checkpoints AS c WHERE c.size = $1 AND c.root = $2
	ON CONFLICT (size, witness) DO NOTHING`
	selectTree = `SELECT EXISTS (SELECT FROM audit_checkpoints WHERE size = $1 AND root = $2)`

	insertLogKey = `
	WITH added AS (
		INSERT INTO audit_keys (verifier, event_id) VALUES ($1, $2::text::uuid) ON CONFLICT (verifier) DO NOTHING RETURNING verifier
	)
	INSERT INTO audit_leaves (id, kind, leaf)
	SELECT l.id::uuid, l.kind, l.leaf FROM unnest($3::text[], $4::text[], $5::bytea[]) AS l (id, kind, leaf) WHERE EXISTS (SELECT FROM added)`
	selectLogKeys = `SELECT verifier FROM audit_keys ORDER BY added_at DESC, verifier`

	selectLeafHashes    = `SELECT hash FROM audit_sequence WHERE index >= $1 AND index < $2 ORDER BY index`
	selectSubtreeHashes = `SELECT hash FROM audit_subtrees WHERE level = $3 AND n >= $1 AND n < $2 ORDER BY n`

	selectLogIndex = `
	SELECT s.index, a.leaf FROM audit_leaves AS a LEFT JOIN audit_sequence AS s ON s.id = a.id WHERE a.id = $1::text::uuid`

	selectEntries = `
	SELECT s.index, a.leaf FROM audit_sequence AS s LEFT JOIN audit_leaves AS a ON a.id = s.id
	WHERE s.index >= $1 AND s.index < $2 ORDER BY s.index LIMIT $3`

	entriesPage = 4096
)

// LogEdge reads the size of the log and the hashes that its tree goes on from.
func (s *Store) LogEdge(ctx context.Context) (size int64, edge [][]audit.Hash, err error) {
	err = s.read(ctx, "reading the edge of the log", func(ctx context.Context, db querier) error {
		if err := db.QueryRow(ctx, selectLogSize).Scan(&size); err != nil {
			return err
		}
		edge, err = readHashes(ctx, db, audit.Edge(size))
		return err
	})
	return size, edge, err
}

// UnsequencedLots reads what the leaves that have no index yet hash to.
func (s *Store) UnsequencedLots(ctx context.Context, most int) (lots []ca.LeafLot, missing []int64, err error) {
	err = s.read(ctx, "reading the leaves to be sequenced", func(ctx context.Context, db querier) error {
		lots, missing = nil, nil
		rows, err := db.Query(ctx, selectLots, most)
		if err != nil {
			return err
		}
		var lot int64
		var stuck bool
		var noted []byte
		var leaves [][]byte
		_, err = pgx.ForEachRow(rows, []any{&lot, &stuck, &noted, &leaves}, func() error {
			hashes, whole := lotHashes(noted, leaves)
			if stuck || !whole {
				missing = append(missing, lot)
				return nil
			}
			lots = append(lots, ca.LeafLot{Lot: lot, Hashes: hashes})
			return nil
		})
		return err
	})
	return lots, missing, err
}

// lotHashes are the hashes that a lot notes, or those of its leaves where it notes none; whole is false where a leaf has gone missing.
func lotHashes(noted []byte, leaves [][]byte) (hashes []audit.Hash, whole bool) {
	for hash := range slices.Chunk(noted, len(audit.Hash{})) {
		hashes = append(hashes, audit.Hash(hash))
	}
	for _, leaf := range leaves {
		if leaf == nil {
			return nil, false
		}
		hashes = append(hashes, audit.HashOf(leaf))
	}
	return hashes, true
}

// AppendToLog gives lots their indexes, as the leader of a term. A crash leaves the lots where they were.
func (s *Store) AppendToLog(ctx context.Context, t ca.Term, size int64, lots []ca.LeafLot, complete []audit.Subtree) error {
	const doing = "sequencing the log"
	var numbers []int64
	var hashes [][]byte
	for _, l := range lots {
		numbers = append(numbers, l.Lot)
		for _, h := range l.Hashes {
			hashes = append(hashes, h[:])
		}
	}
	if len(hashes) == 0 {
		return nil
	}
	levels, places, roots := []int16{}, []int64{}, [][]byte{}
	for _, c := range complete {
		levels, places, roots = append(levels, int16(c.Level)), append(places, c.N), append(roots, c.Hash[:])
	}
	landed := found(selectTail, size+int64(len(hashes))-1, hashes[len(hashes)-1])
	err := s.asLeader(ctx, doing, t, landed, func(b *pgx.Batch) {
		b.Queue(appendToLog, size, numbers, hashes, levels, places, roots)
	})
	if sqlState(err) == logIsMoved {
		return fmt.Errorf("%s: %w: %w", doing, ca.ErrLogMoved, err)
	}
	return err
}

// QueueBacklog hands older leaves to the sequencer, as the leader of a term.
func (s *Store) QueueBacklog(ctx context.Context, t ca.Term, most int) (seen int, err error) {
	err = s.asLeader(ctx, "looking for older leaves", t, again, func(b *pgx.Batch) {
		b.Queue(queueBacklog, most).QueryRow(func(row pgx.Row) error { return row.Scan(&seen) })
	})
	return seen, err
}

// LogState asks how the log is doing.
func (s *Store) LogState(ctx context.Context) (l ca.LogState, err error) {
	err = s.read(ctx, "asking for the state of the log", func(ctx context.Context, db querier) error {
		return db.QueryRow(ctx, selectLogState).Scan(&l.Size, &l.CheckpointSize, &l.CheckpointAge, &l.Unsequenced, &l.UnsequencedAge,
			&l.BacklogRemains, &l.CosignedSize)
	})
	l.UncoveredLeaves = l.Size - l.CheckpointSize
	return l, err
}

// RecordCheckpoint keeps a signed checkpoint, as the leader of a term.
func (s *Store) RecordCheckpoint(ctx context.Context, t ca.Term, c audit.Checkpoint, signed []byte) error {
	const doing = "recording a checkpoint"
	err := s.asLeader(ctx, doing, t, found(selectSameCheckpoint, c.Size, string(signed)), func(b *pgx.Batch) {
		b.Queue(insertCheckpoint, c.Size, c.Root[:], string(signed))
	})
	if isTaken(err) && sqlState(err) != "" {
		return fmt.Errorf("%s of size %d: %w", doing, c.Size, ca.ErrExists)
	}
	return err
}

// RecordLogKey keeps the verifier key of checkpoints.
func (s *Store) RecordLogKey(ctx context.Context, verifier, eventID string, leaves ...audit.Leaf) error {
	ids, kinds, canonical := leafColumns(leaves)
	return s.inBatch(ctx, "recording the key of the log", again, func(b *pgx.Batch) {
		b.Queue(insertLogKey, verifier, eventID, ids, kinds, canonical)
	})
}

// RecordCosignature keeps what a witness signed.
func (s *Store) RecordCosignature(ctx context.Context, c audit.Checkpoint, witness, line string) error {
	known := false
	err := s.inBatch(ctx, "recording a cosignature", again, func(b *pgx.Batch) {
		b.Queue(selectTree, c.Size, c.Root[:]).QueryRow(func(row pgx.Row) error { return row.Scan(&known) })
		b.Queue(insertCosignature, c.Size, c.Root[:], witness, line)
	})
	if err == nil && !known {
		return fmt.Errorf("a checkpoint of size %d with this root: %w", c.Size, ca.ErrNotFound)
	}
	return err
}

// LatestCheckpoint reads the latest checkpoint, or the latest one with so many cosignatures.
func (s *Store) LatestCheckpoint(ctx context.Context, cosigned int) ([]byte, error) {
	var note, lines string
	err := s.read(ctx, "reading the latest checkpoint", func(ctx context.Context, db querier) error {
		sql, args := selectCheckpoint, []any(nil)
		if cosigned > 0 {
			sql, args = selectCosigned, []any{cosigned}
		}
		return db.QueryRow(ctx, sql, args...).Scan(&note, &lines)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("a checkpoint: %w", ca.ErrNotFound)
	}
	return []byte(note + lines), err
}

// CheckpointsBefore reads checkpoints smaller than a size.
func (s *Store) CheckpointsBefore(ctx context.Context, size int64) (all []ca.RecordedCheckpoint, err error) {
	err = s.read(ctx, "reading checkpoints", func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, selectCheckpointsBefore, size)
		if err != nil {
			return err
		}
		all, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (c ca.RecordedCheckpoint, err error) {
			return c, row.Scan(&c.Size, &c.Note)
		})
		return err
	})
	return all, err
}

// LogKeys reads the verifier keys of checkpoints.
func (s *Store) LogKeys(ctx context.Context) (keys []string, err error) {
	err = s.read(ctx, "reading the keys of the log", func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, selectLogKeys)
		if err != nil {
			return err
		}
		keys, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	return keys, err
}

// LogHashes reads hashes of the tree.
func (s *Store) LogHashes(ctx context.Context, ranges []audit.Range) (all [][]audit.Hash, err error) {
	err = s.read(ctx, "reading hashes of the log", func(ctx context.Context, db querier) (err error) {
		all, err = readHashes(ctx, db, ranges)
		return err
	})
	if err != nil {
		return nil, err
	}
	for i, r := range ranges {
		if int64(len(all[i])) != r.To-r.From {
			return nil, fmt.Errorf("hashes %d to %d of level %d of the log: %w", r.From, r.To, r.Level, ca.ErrNotFound)
		}
	}
	return all, nil
}

// readHashes reads ranges in one round trip where db is a pool.
func readHashes(ctx context.Context, db querier, ranges []audit.Range) ([][]audit.Hash, error) {
	all := make([][]audit.Hash, len(ranges))
	var batch pgx.Batch
	for i, r := range ranges {
		sql, args := selectLeafHashes, []any{r.From, r.To}
		if r.Level > 0 {
			sql, args = selectSubtreeHashes, append(args, r.Level)
		}
		batch.Queue(sql, args...).Query(func(rows pgx.Rows) error {
			var hash []byte
			_, err := pgx.ForEachRow(rows, []any{&hash}, func() error {
				if len(hash) != len(audit.Hash{}) {
					return fmt.Errorf("a hash of the log has %d octets: %w", len(hash), errors.ErrUnsupported)
				}
				all[i] = append(all[i], audit.Hash(hash))
				return nil
			})
			return err
		})
	}
	sender, ok := db.(interface {
		SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
	})
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return all, sender.SendBatch(ctx, &batch).Close()
}

// LogIndex finds an event in the log.
func (s *Store) LogIndex(ctx context.Context, eventID string) (int64, []byte, error) {
	var index *int64
	var leaf []byte
	err := s.read(ctx, "looking up an event", func(ctx context.Context, db querier) error {
		return db.QueryRow(ctx, selectLogIndex, eventID).Scan(&index, &leaf)
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows) || sqlState(err) == "22P02": // no such event, or no identifier of one
		return 0, nil, fmt.Errorf("the event: %w", ca.ErrNotFound)
	case err == nil && index == nil:
		return 0, leaf, ca.ErrNotLogged
	case err != nil:
		return 0, nil, err
	}
	return *index, leaf, nil
}

// AuditEntries reads leaves page by page, so that no transaction stays open while they are looked at.
func (s *Store) AuditEntries(ctx context.Context, from, to int64) iter.Seq2[ca.AuditEntry, error] {
	return func(yield func(ca.AuditEntry, error) bool) {
		for from < to {
			page, err := s.entries(ctx, from, to)
			for _, e := range page {
				if !yield(e, nil) {
					return
				}
			}
			if err != nil {
				yield(ca.AuditEntry{}, err)
				return
			}
			if len(page) == 0 {
				return
			}
			from = page[len(page)-1].Index + 1
		}
	}
}

func (s *Store) entries(ctx context.Context, from, to int64) (page []ca.AuditEntry, err error) {
	err = s.read(ctx, "reading the log", func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, selectEntries, from, to, entriesPage)
		if err != nil {
			return err
		}
		page, err = pgx.CollectRows(rows, pgx.RowToStructByPos[ca.AuditEntry])
		return err
	})
	return page, err
}
