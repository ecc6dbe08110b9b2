package storage

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/ca"
)

const (
	provideCursor = `INSERT INTO delivery_cursors (receiver, next_index) VALUES ($1, $2) ON CONFLICT (receiver) DO NOTHING`

	selectCursor = `SELECT next_index FROM delivery_cursors WHERE receiver = $1`

	moveCursor = `UPDATE delivery_cursors SET next_index = $2, moved_at = now() WHERE receiver = $1`

	selectCursors = `SELECT receiver, next_index, moved_at FROM delivery_cursors ORDER BY receiver`
)

// DeliveryCursor is how far a receiver of the audit log has come.
type DeliveryCursor struct {
	Receiver string
	Next     int64 // index of the entry that it gets next
	MovedAt  time.Time
}

// NextDelivery is the index of the entry that a receiver gets next; one that is new begins at start. ca.ErrFenced when the term is over.
func (s *Store) NextDelivery(ctx context.Context, t ca.Term, receiver string, start int64) (next int64, err error) {
	err = s.asLeader(ctx, "reading how far a receiver of the audit log is", t, again, func(b *pgx.Batch) {
		b.Queue(provideCursor, receiver, start)
		b.Queue(selectCursor, receiver).QueryRow(func(row pgx.Row) error { return row.Scan(&next) })
	})
	return next, err
}

// MoveDelivery records which entry a receiver gets next. A crash before it delivers the last entries again. ca.ErrFenced when the term is
// over.
func (s *Store) MoveDelivery(ctx context.Context, t ca.Term, receiver string, next int64) error {
	return s.asLeader(ctx, "recording how far a receiver of the audit log is", t, again, func(b *pgx.Batch) {
		b.Queue(moveCursor, receiver, next)
	})
}

// DeliveryCursors are the cursors of all receivers, by name; those that are configured no more among them.
func (s *Store) DeliveryCursors(ctx context.Context) (all []DeliveryCursor, err error) {
	err = s.read(ctx, "reading how far the receivers of the audit log are", func(ctx context.Context, db querier) error {
		rows, err := db.Query(ctx, selectCursors)
		if err != nil {
			return err
		}
		all, err = pgx.CollectRows(rows, pgx.RowToStructByPos[DeliveryCursor])
		return err
	})
	return all, err
}
