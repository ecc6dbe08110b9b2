package ca

import (
	"context"
	"errors"
	"iter"

	"github.com/chancery-ca/chancery/audit"
)

// ErrNotLogged means that an event has no index yet, or that no checkpoint covers it yet. It will.
var ErrNotLogged = errors.New("the event is not in a signed tree yet")

// LogStore keeps the log: the sequence of all audit leaves, the hashes of its tree, and the checkpoints. What has an index keeps it for ever.
type LogStore interface {
	// LogEdge is the size of the log, and the hashes that its tree goes on from (audit.Edge).
	LogEdge(ctx context.Context) (size int64, edge [][]audit.Hash, err error)
	// UnsequencedLots are leaves that have no index yet, in the order in which they are to get theirs: whole lots, of at most so many
	// leaves, or the first lot alone. A lot of which a leaf has gone missing is left out, and named in missing.
	UnsequencedLots(ctx context.Context, most int) (lots []LeafLot, missing []int64, err error)
	// AppendToLog gives lots their indexes from size on. ErrFenced when the term is over, ErrLogMoved when the log has another size.
	AppendToLog(ctx context.Context, t Term, size int64, lots []LeafLot, complete []audit.Subtree) error
	// QueueBacklog hands leaves that were written by programs from before the log to the sequencer, and tells how many it looked at: 0 once
	// there are no more.
	QueueBacklog(ctx context.Context, t Term, most int) (int, error)
	// LogState tells how the log is doing.
	LogState(ctx context.Context) (LogState, error)
	// RecordCheckpoint makes a signed checkpoint durable. ErrFenced when the term is over, ErrExists when there is another of its size. The
	// same again is no error.
	RecordCheckpoint(ctx context.Context, t Term, c audit.Checkpoint, signed []byte) error
	// RecordLogKey puts the verifier key of checkpoints on record, if it is not. The same again writes nothing.
	RecordLogKey(ctx context.Context, verifier string, eventID string, leaves ...audit.Leaf) error
	// RecordCosignature keeps what a witness signed. ErrNotFound when there is no such checkpoint. A second one of the same witness for the
	// same checkpoint writes nothing.
	RecordCosignature(ctx context.Context, c audit.Checkpoint, witness, line string) error
	LogReader
}

// LogReader reads the log.
type LogReader interface {
	// LatestCheckpoint is the signed note of the latest checkpoint, its witnesses' signatures included; with cosigned, of the latest one
	// that has at least so many. ErrNotFound when there is none.
	LatestCheckpoint(ctx context.Context, cosigned int) ([]byte, error)
	// LogKeys are the verifier keys that checkpoints were signed with, the newest first.
	LogKeys(ctx context.Context) ([]string, error)
	// LogHashes are hashes of the tree. Where there are fewer than a range has, ErrNotFound.
	LogHashes(ctx context.Context, ranges []audit.Range) ([][]audit.Hash, error)
	// LogIndex is the index of an event and its leaf; ErrNotLogged when it has none yet, ErrNotFound when there is no such event.
	LogIndex(ctx context.Context, eventID string) (index int64, leaf []byte, err error)
	// AuditEntries are the leaves with from <= index < to, in the order of their indexes. A leaf that has gone missing is nil. It ends with
	// the log, or with an error.
	AuditEntries(ctx context.Context, from, to int64) iter.Seq2[AuditEntry, error]
}

// ErrLogMoved means that the log has grown since its size was read.
var ErrLogMoved = errors.New("the log has another size")

// LeafLot is leaves that were written by one statement.
type LeafLot struct {
	Lot    int64
	Hashes []audit.Hash // of its leaves, in their order
}

// AuditEntry is a leaf and its place in the log.
type AuditEntry struct {
	Index int64
	Leaf  []byte
}

// LogState is how the log is doing. Ages are by the database's clock, in seconds; -1 where there is nothing of the kind.
type LogState struct {
	Size            int64
	CheckpointSize  int64
	CheckpointAge   float64
	Unsequenced     int64   // leaves
	UnsequencedAge  float64 // of the oldest
	BacklogRemains  bool
	CosignedSize    int64 // of the largest checkpoint that a witness has signed
	UncoveredLeaves int64 // leaves with an index that no checkpoint covers
}
