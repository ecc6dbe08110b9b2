package ca

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
)

// Sequencing is the duty of giving audit leaves their places in the log, and of signing its checkpoints.
const Sequencing Duty = "sequencing"

// LogPlan says who signs the checkpoints of the log. The zero value: nobody; leaves get their places nevertheless.
type LogPlan struct {
	// Signer signs checkpoints; its name is the origin of the log. Nil: none are signed.
	Signer *audit.Signer
	// Earlier are the keys that signed before, without which the last checkpoint cannot be verified after a change of keys.
	Earlier []*audit.Verifier
	// Witnesses are those whose cosignatures are taken.
	Witnesses []*audit.Verifier
	// Every is how long after a checkpoint the next one may be signed. 0: DefaultCheckpointEvery.
	Every time.Duration
}

// DefaultCheckpointEvery is how far checkpoints are apart while there is something to put under them.
const DefaultCheckpointEvery = 2 * time.Second

const (
	sequenceEvery = 200 * time.Millisecond // between looks for leaves: what is written is in the log well within a second
	sequenceMost  = 4096                   // leaves in a round, one lot more or less
	checkpointTry = 250 * time.Millisecond // between looks whether a checkpoint is due
	watchLogEvery = 2 * time.Second
)

// logKeys are all keys that may have signed a checkpoint of this log, or cosigned it.
func (p LogPlan) logKeys() []*audit.Verifier {
	var all []*audit.Verifier
	if p.Signer != nil {
		all = append(all, p.Signer.Verifier)
	}
	for _, v := range slices.Concat(p.Earlier, p.Witnesses) {
		if !slices.ContainsFunc(all, func(other *audit.Verifier) bool { return other.String() == v.String() }) {
			all = append(all, v)
		}
	}
	return all
}

// sequencer is the leader of Sequencing in one term. The tree that it knows is read from the store at the beginning, and again whenever a
// round did not end as it should: what counts is what is on record.
type sequencer struct {
	*CA
	term    Term
	backlog bool // leaves from before the log may be waiting
	missing map[int64]bool
	failing bool

	mu   sync.Mutex
	tree *audit.Tree // nil: to be read
	size int64       // of the tree on record, as far as is known
	root audit.Hash

	last     *audit.Checkpoint // nil: to be read
	foreign  int64             // the greatest size that a checkpoint is on record with which no key of this log has signed; 0: there is none
	at       time.Time         // when it was signed, by this term
	signed   int64             // size of the last one that the key signed, be it on record or not; 0: not known
	unsigned error             // why the last try to sign one failed
}

// sequence gives leaves their places and signs checkpoints, as the leader of Sequencing. The two go on beside each other: a token that is
// away holds up the checkpoints alone. A crash in a round leaves its leaves waiting; a crash between a checkpoint's signature and its
// record leaves a signature over a tree that the log has, and the next checkpoint of that size says the same.
func (c *CA) sequence(ctx context.Context, t Term) error {
	s := &sequencer{CA: c, term: t, backlog: true, missing: map[int64]bool{}}
	var signing sync.WaitGroup
	if c.logPlan.Signer != nil {
		signing.Go(func() { c.every(ctx, checkpointTry, nil, func() { s.checkpoint(ctx) }) })
	}
	c.every(ctx, sequenceEvery, nil, func() { s.rounds(ctx) })
	signing.Wait()
	return nil
}

// rounds gives places to leaves until few are left.
func (s *sequencer) rounds(ctx context.Context) {
	for ctx.Err() == nil {
		n, err := s.round(ctx)
		if err != nil && !errors.Is(err, ErrFenced) && !s.failing && ctx.Err() == nil { // of a term that is over whoever keeps the lease speaks
			s.log.ErrorContext(ctx, "giving events their places in the log failed; trying again", "error", err)
		}
		s.failing = err != nil
		if err != nil || n < sequenceMost/2 && !s.backlog {
			return
		}
	}
}

// round gives places to the leaves of some lots, and tells how many.
func (s *sequencer) round(ctx context.Context) (int, error) {
	tree, err := s.current(ctx)
	if err != nil {
		return 0, err
	}
	if s.backlog {
		seen, err := s.store.QueueBacklog(ctx, s.term, sequenceMost)
		if err != nil {
			return 0, err
		}
		s.backlog = seen > 0
	}
	lots, missing, err := s.store.UnsequencedLots(ctx, sequenceMost)
	if err != nil {
		return 0, err
	}
	for _, lot := range missing {
		if !s.missing[lot] {
			s.log.ErrorContext(ctx, "an event was removed before it had its place in the log; its lot stays where it is, as evidence", "lot", lot)
		}
		s.missing[lot] = true
	}
	if len(lots) == 0 {
		return 0, nil
	}
	var complete []audit.Subtree
	for _, lot := range lots {
		for _, h := range lot.Hashes {
			complete = append(complete, tree.Append(h)...)
		}
	}
	added := int(tree.Size() - s.size)
	err = s.store.AppendToLog(ctx, s.term, s.size, lots, complete)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.tree = nil // it may be ahead of what is on record
		return 0, err
	}
	s.size, s.root = tree.Size(), tree.Root()
	return added, nil
}

// current is the tree on record.
func (s *sequencer) current(ctx context.Context) (*audit.Tree, error) {
	if s.tree != nil {
		return s.tree, nil
	}
	size, edge, err := s.store.LogEdge(ctx)
	if err != nil {
		return nil, err
	}
	tree, err := audit.TreeFrom(size, edge)
	if err != nil {
		return nil, fmt.Errorf("reading the tree of the log: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tree, s.size, s.root = tree, size, tree.Root()
	return tree, nil
}

// checkpoint signs a checkpoint of the tree on record, if one is due.
func (s *sequencer) checkpoint(ctx context.Context) {
	every := s.logPlan.Every
	if every == 0 {
		every = DefaultCheckpointEvery
	}
	s.mu.Lock()
	c := audit.Checkpoint{Origin: s.logPlan.Signer.Name(), Size: s.size, Root: s.root}
	s.mu.Unlock()
	if c.Size == 0 || s.last != nil && (c.Size == s.last.Size || s.now().Sub(s.at).Abs() < every) {
		return
	}
	began := s.now()
	err := s.sign(ctx, c)
	if err != nil && !errors.Is(err, ErrFenced) && ctx.Err() == nil && (s.unsigned == nil || s.unsigned.Error() != err.Error()) {
		s.log.ErrorContext(ctx, "no checkpoint of the log could be signed; trying again", "size", c.Size, "error", err)
	}
	s.unsigned = err
	if !errors.Is(err, errOvertaken) {
		s.at = began // also of one that failed: a token that is away is not asked at every turn
	}
}

// sign signs a checkpoint, verifies it, and makes it durable. The log must extend the last checkpoint, or nothing is signed: whoever
// rewrote the history in the database does not get it signed.
func (s *sequencer) sign(ctx context.Context, c audit.Checkpoint) error {
	err := s.readLast(ctx)
	if err != nil {
		return err
	}
	if c.Size <= s.last.Size {
		if c.Size < s.last.Size {
			return fmt.Errorf("the log has %d events, and its last checkpoint %d: history has been cut off", c.Size, s.last.Size)
		}
		return nil
	}
	if c.Size <= s.foreign { // of one size there is one on record
		return fmt.Errorf("%w: the log has %d, and it is of %d", errOvertaken, c.Size, s.foreign)
	}
	var shown audit.Consistency
	if s.last.Size > 0 {
		if shown, err = audit.Extends(*s.last, c, s.readHashes(ctx)); err != nil {
			return fmt.Errorf("the log is not what its last checkpoint says: %w", err)
		}
	}
	signed, err := s.show(ctx, c, shown)
	if err != nil {
		return err
	}
	if err := s.store.RecordCheckpoint(ctx, s.term, c, signed); err != nil {
		s.last = nil
		return err
	}
	s.last = &c
	return nil
}

// show has the key sign a checkpoint, and shows it that this one extends the last one that it signed. Where a keeper has the key, that need
// not be the last one on record: it has signed one that never came on record, or those on record were signed for other hosts. The keeper
// then tells the size, and is shown that.
func (s *sequencer) show(ctx context.Context, c audit.Checkpoint, shown audit.Consistency) (signed []byte, err error) {
	if s.signed > 0 && s.signed != shown.From.Size && s.signed <= c.Size {
		if shown, err = audit.ExtendsFrom(s.signed, c, s.readHashes(ctx)); err != nil {
			return nil, err
		}
	}
	if shown.From.Size == 0 {
		signed, err = audit.SignCheckpoint(c, s.logPlan.Signer)
	} else {
		signed, err = audit.SignExtension(c, shown, s.logPlan.Signer)
	}
	var unproven audit.Unproven
	if errors.As(err, &unproven) && unproven.LastSize() <= c.Size {
		s.signed = unproven.LastSize()
		if shown, err = audit.ExtendsFrom(s.signed, c, s.readHashes(ctx)); err != nil {
			return nil, err
		}
		signed, err = audit.SignExtension(c, shown, s.logPlan.Signer)
	}
	if err == nil {
		s.signed = c.Size
	}
	return signed, err
}

// readLast reads the last checkpoint on record and verifies it with the keys that are configured, not with those that are on record beside
// it. One that none of them has signed was put there by somebody else, who can add rows: it is told of and passed over, lest it hold up all
// that come after it. What witnesses are said to have signed is not read.
func (s *sequencer) readLast(ctx context.Context) error {
	if s.last != nil {
		return nil
	}
	s.foreign = 0
	var wrong error
	for before := int64(math.MaxInt64); ; {
		all, err := s.store.CheckpointsBefore(ctx, before)
		if err != nil {
			return err
		}
		for _, one := range all {
			last, _, err := audit.OpenCheckpoint(one.Note, s.logPlan.logKeys()...)
			if err == nil && last.Size == one.Size {
				if wrong != nil {
					s.log.ErrorContext(ctx, "a checkpoint on record is not signed by this log's key; it is passed over", "size", s.foreign, "error", wrong)
				}
				s.last = &last
				return nil
			}
			before, s.foreign = one.Size, max(s.foreign, one.Size)
			wrong = cmp.Or(wrong, err, errCheckpointSize)
		}
		switch {
		case len(all) > 0:
		case wrong != nil:
			return fmt.Errorf("the last checkpoint is not signed by this log's key; after a change of keys, name the earlier one in "+
				"audit.earlier_keys: %w", wrong)
		default:
			s.last = &audit.Checkpoint{}
			return nil
		}
	}
}

// errOvertaken means that no key was asked: as soon as the log has more events, one is.
var errOvertaken = errors.New("a checkpoint that none of the log's keys has signed is on record for as many events or more")

var errCheckpointSize = errors.New("it is on record with another size than it says")

// AdoptLogKey puts the key that signs the checkpoints on record, for auditors to find, and says so where there is none.
func (c *CA) AdoptLogKey(ctx context.Context) error {
	if c.logPlan.Signer == nil {
		c.log.WarnContext(ctx, "no key signs the checkpoints of the audit log: events get their places in it, and nobody outside can hold us "+
			"to them; "+
			"configure audit.key")
		return nil
	}
	verifier := c.logPlan.Signer.String()
	known, err := c.store.LogKeys(ctx)
	if err == nil && !slices.Contains(known, verifier) {
		err = c.recordLogKey(ctx, verifier)
	}
	if err != nil {
		return fmt.Errorf("putting the key of the audit log on record: %w", err)
	}
	return nil
}

func (c *CA) recordLogKey(ctx context.Context, verifier string) error {
	id := c.newID()
	leaf, err := c.leafWithID(id, audit.LogKeyAdded, access.Service, "", c.now(), map[string]string{"verifier": verifier})
	if err != nil {
		return err
	}
	return c.store.RecordLogKey(ctx, verifier, id, leaf)
}

// watchLog tells the metrics how the log is doing.
func (c *CA) watchLog() Chore {
	return Chore{watchLogEvery, slog.LevelWarn, "asking for the state of the log failed; trying again", true, func(ctx context.Context) error {
		state, err := c.store.LogState(ctx)
		if err == nil {
			c.metrics.Log(state)
		}
		return err
	}}
}
