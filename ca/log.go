package ca

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
)

// ErrNotLogged means that an event has no index yet, or that no checkpoint covers it yet. It will.
var ErrNotLogged = errors.New("the event is not in a signed tree yet")

// LogStore keeps the log: the sequence of all audit leaves, the hashes of its tree, and the checkpoints. What has an index keeps it for
// ever.
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
	// CheckpointsBefore are the checkpoints on record that are smaller than a size, without their witnesses' signatures, the greatest first,
	// some of them at once. None: there is no smaller one.
	CheckpointsBefore(ctx context.Context, size int64) ([]RecordedCheckpoint, error)
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

// RecordedCheckpoint is a checkpoint as it is on record.
type RecordedCheckpoint struct {
	Size int64 // that it is on record with
	Note []byte
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

// Checkpoint is the signed note of the latest checkpoint; with cosigned, of the latest one that so many witnesses have signed.
func (c *CA) Checkpoint(ctx context.Context, actor access.Actor, cosigned int) ([]byte, error) {
	if err := c.authorizeAudit(ctx, actor, "checkpoint"); err != nil {
		return nil, err
	}
	return c.store.LatestCheckpoint(ctx, cosigned)
}

// LogView is the log as an auditor looks at it.
type LogView struct {
	State LogState
	// Latest is the latest checkpoint, and Cosigned the latest that a witness has signed; nil: there is none yet.
	Latest, Cosigned *SignedCheckpoint
}

// SignedCheckpoint is a checkpoint with the signatures that this replica's keys verify: the log's own, and those of witnesses.
type SignedCheckpoint struct {
	audit.Checkpoint
	Note       []byte
	Signatures []audit.Signature // none: no key of the configuration has signed it
}

// Log is the state of the log, with its checkpoints.
func (c *CA) Log(ctx context.Context, actor access.Actor) (view LogView, err error) {
	if err := c.authorizeAudit(ctx, actor, "log"); err != nil {
		return view, err
	}
	if view.State, err = c.store.LogState(ctx); err != nil {
		return view, fmt.Errorf("reading the state of the log: %w", err)
	}
	for cosigned, to := range []**SignedCheckpoint{&view.Latest, &view.Cosigned} {
		note, at, err := c.latest(ctx, cosigned)
		switch {
		case errors.Is(err, ErrNotLogged):
			continue
		case err != nil:
			return view, err
		}
		*to = &SignedCheckpoint{Checkpoint: at, Note: note}
		// One that does not verify is shown as such: it is the auditor who is to know.
		if _, signatures, err := audit.OpenCheckpoint(note, c.logPlan.logKeys()...); err == nil {
			(*to).Signatures = signatures
		}
	}
	return view, nil
}

// LogKeys are the verifier keys of checkpoints, the newest first.
func (c *CA) LogKeys(ctx context.Context, actor access.Actor) ([]string, error) {
	if err := c.authorizeAudit(ctx, actor, "keys"); err != nil {
		return nil, err
	}
	return c.store.LogKeys(ctx)
}

// MostEntries is how many entries of the log are read at once.
const MostEntries = 1000

// AuditEntries are the leaves with from <= index < to, at most MostEntries of them.
func (c *CA) AuditEntries(ctx context.Context, actor access.Actor, from, to int64) ([]AuditEntry, error) {
	if err := c.authorizeAudit(ctx, actor, "entries"); err != nil {
		return nil, err
	}
	return c.entries(ctx, from, min(to, from+MostEntries))
}

func (c *CA) entries(ctx context.Context, from, to int64) (all []AuditEntry, err error) {
	for e, err := range c.store.AuditEntries(ctx, from, to) {
		if err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	return all, nil
}

// Tile is the content of a tile of the log, or of a bundle of its entries. ErrNotFound when the latest checkpoint does not cover it.
func (c *CA) Tile(ctx context.Context, actor access.Actor, t audit.Tile) ([]byte, error) {
	if err := c.authorizeAudit(ctx, actor, "tiles"); err != nil {
		return nil, err
	}
	_, latest, err := c.latest(ctx, 0)
	if err != nil {
		return nil, err
	}
	r := t.Range()
	if !t.In(latest.Size) {
		return nil, fmt.Errorf("the tile: %w", ErrNotFound)
	}
	if !t.Entries() {
		hashes, err := c.store.LogHashes(ctx, []audit.Range{r})
		if err != nil {
			return nil, err
		}
		return audit.TileData(hashes[0]), nil
	}
	entries, err := c.entries(ctx, r.From, r.To)
	if err != nil {
		return nil, err
	}
	var bundle []byte
	next := r.From
	for _, e := range entries {
		if e.Index == next && e.Leaf != nil && len(e.Leaf) <= audit.MaxLeaf {
			bundle, next = audit.AppendEntry(bundle, e.Leaf), next+1
		}
	}
	if next != r.To {
		return nil, fmt.Errorf("entry %d of the log: %w", next, ErrLogDamaged)
	}
	return bundle, nil
}

// ErrLogDamaged means that the log has not what its checkpoint says. It is for an auditor to look at.
var ErrLogDamaged = errors.New("the log does not hold what its checkpoint says")

// latest is the latest checkpoint with the cosignatures of so many witnesses, as its note and read. Its signature was verified when it was
// made, and is by whoever gets it.
func (c *CA) latest(ctx context.Context, witnesses int) (note []byte, _ audit.Checkpoint, err error) {
	note, err = c.store.LatestCheckpoint(ctx, witnesses)
	if errors.Is(err, ErrNotFound) {
		return nil, audit.Checkpoint{}, ErrNotLogged
	}
	if err != nil {
		return nil, audit.Checkpoint{}, err
	}
	read, err := audit.ReadCheckpoint(note)
	return note, read, err
}

func (c *CA) readHashes(ctx context.Context) audit.Hashes {
	return func(ranges []audit.Range) ([][]audit.Hash, error) { return c.store.LogHashes(ctx, ranges) }
}

// LogProof is hashes that prove something of the log, and the checkpoint that they were held against.
type LogProof struct {
	Size       int64
	Hashes     []audit.Hash
	Checkpoint []byte
}

// ProveInclusion proves that a leaf has its index in the tree of a size; 0 means that of the latest checkpoint. ErrNotLogged where that
// does not reach so far.
func (c *CA) ProveInclusion(ctx context.Context, actor access.Actor, index, size int64) (LogProof, error) {
	if err := c.authorizeAudit(ctx, actor, "proof"); err != nil {
		return LogProof{}, err
	}
	return c.prove(ctx, size, func(at audit.Checkpoint, size int64) ([]audit.Hash, error) {
		return audit.ProveInclusion(at, size, index, c.readHashes(ctx))
	})
}

// ProveConsistency proves that the tree of one size is the beginning of that of another; 0 means that of the latest checkpoint.
func (c *CA) ProveConsistency(ctx context.Context, actor access.Actor, from, to int64) (LogProof, error) {
	if err := c.authorizeAudit(ctx, actor, "proof"); err != nil {
		return LogProof{}, err
	}
	return c.prove(ctx, to, func(at audit.Checkpoint, to int64) ([]audit.Hash, error) {
		return audit.ProveConsistency(at, from, to, c.readHashes(ctx))
	})
}

func (c *CA) prove(ctx context.Context, size int64, prove func(at audit.Checkpoint, size int64) ([]audit.Hash, error)) (LogProof, error) {
	note, latest, err := c.latest(ctx, 0)
	if err != nil {
		return LogProof{}, err
	}
	if size == 0 {
		size = latest.Size
	}
	hashes, err := prove(latest, size)
	if errors.Is(err, audit.ErrNotInTree) {
		return LogProof{}, fmt.Errorf("%w: %w", ErrNotLogged, err)
	}
	return LogProof{Size: size, Hashes: hashes, Checkpoint: note}, err
}

// Receipt proves that an event was logged. Whoever may read the log gets any; others those of events of their own namespace, and of every
// other are told that there is none. ErrNotLogged until a checkpoint covers the event.
func (c *CA) Receipt(ctx context.Context, actor access.Actor, event string, cosigned int) (audit.Receipt, error) {
	index, leaf, err := c.store.LogIndex(ctx, event)
	if err != nil && !errors.Is(err, ErrNotLogged) {
		return audit.Receipt{}, err
	}
	waits := err
	e, err := audit.Parse(leaf)
	if err != nil {
		return audit.Receipt{}, fmt.Errorf("event %s: %w: %w", event, ErrLogDamaged, err)
	}
	owner := e.Namespace
	if owner == "" {
		owner = access.AllNamespaces
	}
	if err := c.authorize(ctx, actor, access.ReadReceipt, access.Resource{Namespace: owner, Kind: "event", ID: event}); err != nil {
		return audit.Receipt{}, err
	}
	if waits != nil {
		return audit.Receipt{}, waits
	}
	note, at, err := c.latest(ctx, cosigned)
	if err != nil {
		return audit.Receipt{}, err
	}
	if index >= at.Size {
		return audit.Receipt{}, ErrNotLogged
	}
	proof, err := audit.ProveInclusion(at, at.Size, index, c.readHashes(ctx))
	if err != nil {
		return audit.Receipt{}, fmt.Errorf("%w: %w", ErrLogDamaged, err)
	}
	r := audit.Receipt{Leaf: leaf, Index: index, Proof: proof, Checkpoint: note}
	if err := audit.CheckInclusion(at, index, audit.HashOf(leaf), proof); err != nil {
		return audit.Receipt{}, fmt.Errorf("%w: %w", ErrLogDamaged, err)
	}
	return r, nil
}

// Cosign keeps the signatures of witnesses on a checkpoint of ours, and tells whose they are. It is refused as *InvalidError where there is
// none of a witness that is configured, or where one is wrong.
func (c *CA) Cosign(ctx context.Context, actor access.Actor, signed []byte) (witnesses []string, err error) {
	if err := c.authorizeAudit(ctx, actor, "cosignature"); err != nil {
		return nil, err
	}
	at, signatures, err := audit.OpenCheckpoint(signed, c.logPlan.logKeys()...)
	if err != nil {
		return nil, &InvalidError{Field: "checkpoint", Message: err.Error(), Hint: "send a checkpoint of this log with the cosignature added"}
	}
	for _, s := range signatures {
		if !s.By.IsWitness() {
			continue
		}
		if err := c.store.RecordCosignature(ctx, at, s.By.String(), s.Line); err != nil {
			return nil, err
		}
		witnesses = append(witnesses, s.By.Name())
	}
	if len(witnesses) == 0 {
		return nil, &InvalidError{
			Field: "checkpoint", Message: "no witness that is known here has signed it",
			Hint: "the configuration names witnesses in audit.witnesses",
		}
	}
	return witnesses, nil
}

func (c *CA) authorizeAudit(ctx context.Context, actor access.Actor, what string) error {
	return c.authorize(ctx, actor, access.ReadAudit, access.Resource{Namespace: access.AllNamespaces, Kind: "audit log", ID: what})
}
