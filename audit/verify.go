package audit

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
)

// Entry is one place of a history, as somebody keeps it.
type Entry struct {
	Index int64
	Leaf  []byte // nil: the place has no leaf; with neither ID nor leaf, the hash alone is told
	Hash  []byte // what the keeper's tree has for it; nil: the keeper tells none
	ID    string // what the keeper's columns say; empty: there are none
	Kind  Kind
}

// Note is a signed checkpoint, as somebody keeps it.
type Note struct {
	Text  []byte
	Where string // where it comes from, for people
	Size  int64  // what the keeper's columns say; 0: there are none
}

// Batch is a run of places.
type Batch struct {
	Number      int   // of the batch, from 0 on
	From, To    int64 // the places are [From, To)
	Entries     []Entry
	Checkpoints []Note    // of sizes in (From, To]; with the last batch, of all greater ones
	Subtrees    []Subtree // that end in (From, To]; none: the keeper tells none
}

// Source hands a history out. Next is called by several goroutines at a time; batches are numbered in the order of their places, each comes
// once, and after the last comes io.EOF. Again begins anew.
type Source interface {
	Next(ctx context.Context) (Batch, error)
	Again(ctx context.Context) error
}

// BatchSize is how many leaves batches have that are handed out fastest.
const BatchSize = 4096

// Start is where a verification begins that relies on an earlier checkpoint. The zero value begins with the first leaf.
type Start struct {
	Size     int64
	Frontier []Hash // roots of the whole subtrees of the first Size leaves, from left to right
}

// Root is the root of the leaves before the start.
func (s Start) Root() (Hash, error) {
	nodes, err := s.span()
	return root(nil, nodes), err
}

func (s Start) span() (span, error) {
	nodes := frontier(s.Size)
	if s.Size < 0 || len(nodes) != len(s.Frontier) {
		return nil, fmt.Errorf("audit: the tree of %d leaves has %d whole subtrees, not %d", s.Size, len(nodes), len(s.Frontier))
	}
	for i := range nodes {
		nodes[i].hash = s.Frontier[i]
	}
	return nodes, nil
}

// Verification says what a history is held against.
type Verification struct {
	// Open reads a signed checkpoint of this log; it refuses any that the log's key did not sign.
	Open func(note []byte) (Checkpoint, error)
	// Kept are checkpoints that were kept outside: the history must extend each of them.
	Kept     []Note
	Start    Start
	Workers  int              // at a time; less than 1: one
	Progress func(done int64) // called as places are done, by one goroutine; may be nil
}

// Verify reads a whole history. The error is nil where it could be read: what is wrong with it stands in the report.
func Verify(ctx context.Context, source Source, v Verification) (*Report, error) {
	begun, err := v.Start.span()
	if err != nil {
		return nil, err
	}
	c := &collector{
		report: &Report{From: v.Start.Size, Size: v.Start.Size, Kinds: map[Kind]int64{}}, begun: begun, kept: slices.Clone(begun),
		read: slices.Clone(begun), waiting: map[int]*checked{},
		progress: v.Progress,
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	results := make(chan *checked)
	var workers sync.WaitGroup
	w := worker{Verification: v, source: source, seed: maphash.MakeSeed()}
	w.outside, c.failed = w.openAll(v.Kept)
	for range max(1, v.Workers) {
		workers.Go(func() {
			if err := w.run(ctx, results); err != nil {
				cancel(err)
			}
		})
	}
	go func() {
		workers.Wait()
		close(results)
	}()
	for r := range results {
		c.take(r)
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if len(c.waiting) > 0 {
		return nil, errors.New("audit: batches are missing from the history")
	}
	c.conclude(w.outside)
	if twice := c.suspects(); len(twice) > 0 {
		if err := c.duplicates(ctx, source, w.seed, twice); err != nil {
			return nil, err
		}
	}
	return c.report, nil
}

// opened is a signed checkpoint.
type opened struct {
	Checkpoint
	note Note
}

// brief is the checkpoint without its texts, of which whoever wrote a history may have written many.
func (o opened) brief() opened {
	o.Origin, o.note.Text = "", nil
	return o
}

func (o opened) String() string {
	return fmt.Sprintf("the checkpoint of size %d (%s)", o.Size, o.note.Where)
}
