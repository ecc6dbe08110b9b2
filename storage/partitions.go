package storage

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/ca"
)

const (
	ensurePartitions  = `SELECT covered_from, covered_until FROM ensure_certificate_partitions($1)`
	providePartitions = `SELECT covered_from, covered_until FROM ensure_certificate_partitions(clock_timestamp())`
)

// span is [from, until).
type span struct{ from, until time.Time }

func (s *span) holds(t time.Time) bool { return s != nil && !t.Before(s.from) && t.Before(s.until) }

// EnsurePartitions makes the monthly partitions of certificates around now: last month's to that of three months ahead. Any
// number of replicas may call it at once: each does at its start, and RecordIntent where a serial would find no partition.
func (s *Store) EnsurePartitions(ctx context.Context, now time.Time) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	return s.ensurePartitions(ctx, s.pool, now)
}

// ProvidePartitions does so around the database's now. It is to be called now and then, by the leader of upkeep.
func (s *Store) ProvidePartitions(ctx context.Context, t ca.Term) error {
	var covered span
	err := s.asLeader(ctx, "making the partitions of the coming months", t, again, func(b *pgx.Batch) {
		b.Queue(providePartitions).QueryRow(func(row pgx.Row) error { return row.Scan(&covered.from, &covered.until) })
	})
	if err == nil {
		s.covered.Store(&covered)
	}
	return err
}

func (s *Store) ensurePartitions(ctx context.Context, db querier, now time.Time) error {
	var covered span
	if err := db.QueryRow(ctx, ensurePartitions, now).Scan(&covered.from, &covered.until); err != nil {
		return describe("making the partitions of the coming months", err)
	}
	s.covered.Store(&covered)
	return nil
}

// provideForRequest sees to it that a request can be recorded: its identifier begins with its time. One of another form is left to the
// database to refuse.
func (s *Store) provideForRequest(ctx context.Context, id string) error {
	head, err := hex.DecodeString(strings.ReplaceAll(id[:min(len(id), 13)], "-", ""))
	if err != nil || len(head) != 6 {
		return nil
	}
	return s.provideFor(ctx, time.UnixMilli(int64(binary.BigEndian.Uint64(append([]byte{0, 0}, head...)))))
}

// CoveredUntil is the moment up to which there are partitions, as far as this store has seen; zero before it has looked.
func (s *Store) CoveredUntil() time.Time {
	if covered := s.covered.Load(); covered != nil {
		return covered.until.UTC()
	}
	return time.Time{}
}

// provideFor sees to it, before anything is signed, that a certificate of a serial made at a moment can be recorded.
func (s *Store) provideFor(ctx context.Context, made time.Time) error {
	if s.covered.Load().holds(made) {
		return nil
	}
	return s.EnsurePartitions(ctx, made)
}
