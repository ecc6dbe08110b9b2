package storage

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/chancery-ca/chancery/audit"
)

const (
	// selectHistorySize tells in one snapshot how long the log is and what was signed of it.
	selectHistorySize = `
	SELECT coalesce((SELECT max(index) + 1 FROM audit_sequence), 0), coalesce((SELECT max(size) FROM audit_checkpoints), 0), clock_timestamp()`

	selectHistoryLeaf = `SELECT l.leaf FROM audit_sequence AS s JOIN audit_leaves AS l ON l.id = s.id WHERE s.index = $1`

	selectHistoryEntries = `
	SELECT s.index, s.hash, s.id, l.kind, l.leaf
	FROM audit_sequence AS s LEFT JOIN audit_leaves AS l ON l.id = s.id
	WHERE s.index >= $1 AND s.index < $2 ORDER BY s.index`

	selectHistoryCheckpoints = `
	SELECT c.size, c.note || coalesce((SELECT string_agg(s.line, '' ORDER BY s.at, s.witness) FROM audit_cosignatures AS s
	WHERE s.size = c.size), '')
	FROM audit_checkpoints AS c WHERE c.size > $1 AND c.size <= $2 ORDER BY c.size`

	selectHistoryKeys = `SELECT verifier FROM audit_keys ORDER BY added_at, verifier`

	// selectHistorySubtrees are those that end among some places.
	selectHistorySubtrees = `
	SELECT s.level, s.n, s.hash FROM generate_series(1, 7) AS l
	JOIN audit_subtrees AS s ON s.level = l AND s.n >= $1::bigint >> (8 * l) AND s.n < $2::bigint >> (8 * l)`

	selectHistoryHashes        = `SELECT hash FROM audit_sequence WHERE index >= $1 AND index < $2 ORDER BY index`
	selectHistorySubtreeHashes = `SELECT hash FROM audit_subtrees WHERE level = $1 AND n >= $2 AND n < $3 ORDER BY n`
)

// ErrAuditorRights says that a login may not read what verification reads.
var ErrAuditorRights = errors.New("this login may not read the audit log: have an administrator run GRANT chancery_auditor TO it")

// History is the audit log as the database has it, for verification: an audit.Source. It needs a login that may read the tables of the log,
// and only reads, without the service. What is recorded after it was opened is not part of it.
type History struct {
	pool   *pgxpool.Pool
	size   int64
	signed int64 // the size of the greatest checkpoint
	opened time.Time

	mu     sync.Mutex
	start  int64
	from   int64
	number int
}

var _ audit.Source = (*History)(nil)

// OpenHistory connects. At most so many connections are used at a time. Nothing is written: transactions are read-only.
func OpenHistory(ctx context.Context, url string, conns int) (*History, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, errBadURL
	}
	settle(config.ConnConfig)
	config.ConnConfig.RuntimeParams["default_transaction_read_only"] = "on"
	config.MaxConns = int32(min(max(conns, 1), 64))
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, describe("opening the database", err)
	}
	h := &History{pool: pool}
	if err := h.pool.QueryRow(ctx, selectHistorySize).Scan(&h.size, &h.signed, &h.opened); err != nil {
		pool.Close()
		return nil, describeHistory("reading the size of the log", err)
	}
	return h, nil
}

// describeHistory says which right is missing, where that is what is wrong.
func describeHistory(doing string, err error) error {
	switch sqlState(err) {
	case "42501":
		return fmt.Errorf("%s: %w", doing, ErrAuditorRights)
	case "42P01":
		return fmt.Errorf("%s: %w: it holds no audit log: run `chancery migrate`", doing, ErrSchema)
	}
	return describe(doing, err)
}

// Close ends the connections.
func (h *History) Close() { h.pool.Close() }

// Size is how many places the log has.
func (h *History) Size() int64 { return h.size }

// Signed is the size of the greatest checkpoint; 0: there is none.
func (h *History) Signed() int64 { return h.signed }

// Keys are the verifier keys that the database has on record, the oldest first. Whoever does not trust the database has them from
// elsewhere.
func (h *History) Keys(ctx context.Context) (keys []string, err error) {
	rows, err := h.pool.Query(ctx, selectHistoryKeys)
	if err == nil {
		keys, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	return keys, describeHistory("reading the keys of the log", err)
}

// Unsigned tells of the events from an index on, which no checkpoint signs, if the first of them had been there for longer than so when the
// history was opened. When that was, it says itself: one that says that it comes as much later is not believed to be young.
func (h *History) Unsigned(ctx context.Context, from int64, longerThan time.Duration) (found []audit.Finding, err error) {
	rows, err := h.pool.Query(ctx, selectHistoryLeaf, from)
	if err != nil {
		return nil, describeHistory("looking for events that nobody signs", err)
	}
	leaves, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	for _, leaf := range leaves { // one; none, or one that cannot be read, is a finding of its own
		if e, err := audit.Parse(leaf); err == nil && h.opened.Sub(e.Time).Abs() > longerThan {
			found = append(found, audit.Finding{Kind: audit.Unsigned, Index: from, Until: h.size, What: fmt.Sprintf(
				"the event of %s and those after it are signed by no checkpoint: the log's key was away or refused, or checkpoints were deleted",
				e.Time.UTC().Format(time.RFC3339))})
		}
	}
	return found, describeHistory("looking for events that nobody signs", err)
}

// Until has the history end after so many places.
func (h *History) Until(size int64) error {
	if size < h.start || size > h.size {
		return fmt.Errorf("the log has %d entries: it cannot be read from %d to %d", h.size, h.start, size)
	}
	h.size, h.signed = size, min(h.signed, size)
	return nil
}

// Checkpoint is the newest signed checkpoint; nil: there is none.
func (h *History) Checkpoint(ctx context.Context) ([]byte, error) {
	notes, err := h.checkpoints(ctx, h.signed-1, h.signed)
	if err != nil || len(notes) == 0 {
		return nil, err
	}
	return notes[0].Text, nil
}

// Since has the history begin after so many places, and returns what they amount to according to the database: it is to be held against a
// checkpoint of this size.
func (h *History) Since(ctx context.Context, size int64) (s audit.Start, err error) {
	if size > h.size {
		return s, fmt.Errorf("the log has %d entries, fewer than the checkpoint's %d: its end is gone", h.size, size)
	}
	s, err = audit.StartAt(size, func(level int, from, to int64) ([]audit.Hash, error) { return h.hashes(ctx, level, from, to) })
	if err != nil {
		return s, err
	}
	h.start = size
	return s, h.Again(ctx)
}

// hashes are the roots of runs of 256^level leaves.
func (h *History) hashes(ctx context.Context, level int, from, to int64) (all []audit.Hash, err error) {
	sql, args := selectHistorySubtreeHashes, []any{level, from, to}
	if level == 0 {
		sql, args = selectHistoryHashes, args[1:]
	}
	rows, err := h.pool.Query(ctx, sql, args...)
	if err == nil {
		all, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (hash audit.Hash, err error) {
			var b []byte
			if err := row.Scan(&b); err != nil {
				return hash, err
			}
			if copy(hash[:], b) != len(hash) {
				return hash, errors.New("a hash of the tree has another length")
			}
			return hash, nil
		})
	}
	return all, describeHistory("reading hashes of the tree", err)
}

// Again begins anew.
func (h *History) Again(context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.from, h.number = h.start, 0
	return nil
}

// take gives out the next run of places. An empty history is one empty run, for its checkpoints.
func (h *History) take() (b audit.Batch, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.from >= h.size && h.number > 0 {
		return b, false
	}
	b = audit.Batch{Number: h.number, From: h.from, To: min(h.from-h.from%audit.BatchSize+audit.BatchSize, h.size)}
	h.number, h.from = h.number+1, b.To
	return b, true
}

// Next reads the next run of places.
func (h *History) Next(ctx context.Context) (b audit.Batch, err error) {
	b, ok := h.take()
	if !ok {
		return b, io.EOF
	}
	if b.Entries, err = h.entries(ctx, b.From, b.To); err != nil {
		return b, describeHistory("reading the log", err)
	}
	upTo := b.To
	if b.To == h.size {
		upTo = max(upTo, h.signed)
	}
	if b.Checkpoints, err = h.checkpoints(ctx, b.From, upTo); err != nil {
		return b, err
	}
	rows, err := h.pool.Query(ctx, selectHistorySubtrees, b.From, b.To)
	if err == nil {
		b.Subtrees, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (s audit.Subtree, err error) {
			var hash []byte
			err = row.Scan(&s.Level, &s.N, &hash)
			copy(s.Hash[:], hash) // of any other length, it is none that could be right
			return s, err
		})
	}
	return b, describeHistory("reading the hashes of the tree", err)
}

func (h *History) checkpoints(ctx context.Context, after, upTo int64) (notes []audit.Note, err error) {
	rows, err := h.pool.Query(ctx, selectHistoryCheckpoints, after, upTo)
	if err == nil {
		notes, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (n audit.Note, err error) {
			n.Where = "in the database"
			return n, row.Scan(&n.Size, &n.Text)
		})
	}
	return notes, describeHistory("reading checkpoints", err)
}

// entries reads rows as they come from the server, without a copy for each value: a history is long.
func (h *History) entries(ctx context.Context, from, to int64) ([]audit.Entry, error) {
	rows, err := h.pool.Query(ctx, selectHistoryEntries, from, to)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var (
		all   = make([]audit.Entry, 0, to-from)
		place int64
		keep  shelf
	)
	for rows.Next() {
		raw := rows.RawValues()
		if err := rows.Scan(&place, nil, nil, nil, nil); err != nil {
			return nil, err
		}
		e := audit.Entry{Index: place, Hash: keep.copy(raw[1]), ID: uuidText(raw[2]), Leaf: keep.copy(raw[4])}
		if e.Leaf != nil {
			e.Kind = audit.Kind(raw[3])
		}
		all = append(all, e)
	}
	return all, rows.Err()
}

// shelf keeps many small things in few large pieces.
type shelf struct{ room []byte }

func (s *shelf) copy(b []byte) []byte {
	if b == nil {
		return nil
	}
	if len(b) > cap(s.room)-len(s.room) {
		s.room = make([]byte, 0, max(1<<20, len(b)))
	}
	at := len(s.room)
	s.room = append(s.room, b...)
	return s.room[at:len(s.room):len(s.room)]
}

// uuidText is the text of a UUID that came as sixteen octets.
func uuidText(b []byte) string {
	if len(b) != 16 {
		return hex.EncodeToString(b)
	}
	var t [36]byte
	hex.Encode(t[:8], b[:4])
	hex.Encode(t[9:13], b[4:6])
	hex.Encode(t[14:18], b[6:8])
	hex.Encode(t[19:23], b[8:10])
	hex.Encode(t[24:], b[10:])
	t[8], t[13], t[18], t[23] = '-', '-', '-', '-'
	return string(t[:])
}
