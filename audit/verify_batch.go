package audit

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"slices"
)

// checked is what a worker found in a batch.
type checked struct {
	number       int
	from, to     int64
	kept, read   span // of the keeper's hashes, and of those of the leaves; nil with broken
	keptBroken   bool // a place has no hash
	readBroken   bool // a place has no leaf
	at           []moment
	early        []opened // checkpoints of sizes before the batch
	beyond       []opened // and after it
	failed       []Finding
	mismatches   []mismatch
	subtrees     treeHashes // those that the batch's own leaves do not make up
	kinds        map[Kind]int64
	fingerprints []uint64
}

// moment is the tree at the size of a checkpoint.
type moment struct {
	opened
	kept, read             span
	keptBroken, readBroken bool
}

type mismatch struct {
	index      int64
	kept, read Hash
}

type worker struct {
	Verification
	source  Source
	seed    maphash.Seed
	outside []opened
}

func (w *worker) run(ctx context.Context, results chan<- *checked) error {
	var room workroom
	for {
		batch, err := w.source.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case results <- w.check(batch, &room):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// workroom is memory that serves for one leaf after the other.
type workroom struct {
	pairs    []pair
	prefixed []byte
}

func (r *workroom) leafHash(leaf []byte) Hash {
	r.prefixed = append(append(r.prefixed[:0], 0), leaf...)
	return sha256.Sum256(r.prefixed)
}

func (w *worker) check(b Batch, room *workroom) *checked {
	r := &checked{number: b.Number, from: b.From, to: b.To, kinds: map[Kind]int64{}, fingerprints: make([]uint64, 0, len(b.Entries))}
	checkpoints, failed := w.openAll(b.Checkpoints)
	r.failed = failed
	for _, o := range w.outside {
		if o.Size > b.From && o.Size <= b.To {
			checkpoints = append(checkpoints, o)
		}
	}
	slices.SortStableFunc(checkpoints, bySize)
	for len(checkpoints) > 0 && checkpoints[0].Size <= b.From {
		r.early = append(r.early, checkpoints[0])
		checkpoints = checkpoints[1:]
	}
	stored := stored(b.Subtrees)
	whole := func(n node) { r.failed = append(r.failed, stored.hold(n)...) }
	entries := b.Entries
	for index := b.From; index < b.To; index++ {
		e := Entry{Index: -1}
		for len(entries) > 0 && entries[0].Index <= index {
			if e.Index == index || entries[0].Index < index {
				r.found(Duplicated, entries[0].Index, "two entries have this index")
			} else {
				e = entries[0]
			}
			entries = entries[1:]
		}
		w.place(r, index, e, room, whole)
		for len(checkpoints) > 0 && checkpoints[0].Size == index+1 {
			r.at = append(r.at, moment{checkpoints[0], slices.Clone(r.kept), slices.Clone(r.read), r.keptBroken, r.readBroken})
			checkpoints = checkpoints[1:]
		}
	}
	r.beyond, r.subtrees = checkpoints, stored
	return r
}

func bySize(a, b opened) int { return cmp.Compare(a.Size, b.Size) }

// place looks at one place of the history.
func (w *worker) place(r *checked, index int64, e Entry, room *workroom, whole func(node)) {
	var kept, read Hash
	copy(kept[:], e.Hash)
	hasHash := len(e.Hash) == len(kept)
	if e.Index < 0 || e.Leaf == nil {
		switch {
		case e.Index < 0:
			r.found(Missing, index, "there is no entry with this index")
		case e.ID == "":
			r.found(Malformed, index, "of the leaf its hash alone is told: it cannot be read, or is withheld")
		default:
			r.found(Missing, index, "the event of this index, %s, is gone", e.ID)
		}
		r.readBroken = true
	} else {
		read = room.leafHash(e.Leaf)
		w.leaf(r, index, e, room, !hasHash || kept == read)
		if hasHash && kept != read {
			r.mismatches = append(r.mismatches, mismatch{index, kept, read})
		}
		if !r.readBroken {
			r.read = r.read.push(node{index: index, hash: read}, nil)
		}
		if !hasHash {
			kept, hasHash = read, true
		}
	}
	if !hasHash {
		r.keptBroken = true
	}
	if !r.keptBroken {
		r.kept = r.kept.push(node{index: index, hash: kept}, whole)
	}
}

// leaf reads a leaf. Of one that is not the one that was logged, that alone is told.
func (w *worker) leaf(r *checked, index int64, e Entry, room *workroom, logged bool) {
	s, err := scan(e.Leaf, room.pairs[:0])
	room.pairs = s.data
	if err != nil {
		if logged {
			r.found(Malformed, index, "the leaf cannot be read: %v", err)
		}
		return
	}
	r.kinds[Kind(s.kind)]++
	if logged {
		r.fingerprints = append(r.fingerprints, maphash.Bytes(w.seed, s.id))
	}
	if logged && e.ID != "" && (e.ID != string(s.id) || string(e.Kind) != string(s.kind)) {
		r.found(Mislabelled, index, "the row says %s %s, and its leaf %s %s", e.Kind, e.ID, s.kind, s.id)
	}
}

// treeHashes are the keeper's roots of subtrees, by level in the tree and number.
type treeHashes map[[2]int64]Hash

func stored(all []Subtree) treeHashes {
	t := make(treeHashes, len(all))
	for _, s := range all {
		t[[2]int64{int64(TileHeight * s.Level), s.N}] = s.Hash
	}
	return t
}

// hold compares one with the root of the keeper's own hashes below it, once.
func (t treeHashes) hold(n node) []Finding {
	at := [2]int64{int64(n.level), n.index}
	kept, told := t[at]
	delete(t, at)
	if !told || kept == n.hash {
		return nil
	}
	from, until := n.index<<n.level, (n.index+1)<<n.level
	return []Finding{{
		Kind: WrongTree, Index: from, Until: until,
		What: fmt.Sprintf("the tree's hash for the leaves %d to %d is not that of the hashes below it: proofs made of it are wrong", from,
			until-1),
	}}
}

func (r *checked) found(kind Fault, index int64, format string, args ...any) {
	r.failed = append(r.failed, Finding{Kind: kind, Index: index, Until: index + 1, What: fmt.Sprintf(format, args...)})
}

// openAll reads checkpoints, and tells of those that are none of this log.
func (w *worker) openAll(notes []Note) (all []opened, failed []Finding) {
	for _, n := range notes {
		c, err := w.Open(n.Text)
		switch {
		case err != nil:
			at := max(n.Size-1, 0)
			failed = append(failed, Finding{
				Kind: Forged, Index: at, Until: at + 1,
				What: fmt.Sprintf("the checkpoint of size %d (%s) is not the log's: %v", n.Size, n.Where, err),
			})
		case n.Size != 0 && n.Size != c.Size:
			at := max(c.Size-1, 0)
			failed = append(failed, Finding{
				Kind: Mislabelled, Index: at, Until: at + 1,
				What: fmt.Sprintf("the row of the checkpoint of size %d says %d", c.Size, n.Size),
			})
			all = append(all, opened{c, n})
		default:
			all = append(all, opened{c, n})
		}
	}
	return all, failed
}
