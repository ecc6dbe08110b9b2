package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"slices"
)

// collector puts batches together in their order.
type collector struct {
	report       *Report
	next         int
	waiting      map[int]*checked
	begun        span
	kept, read   span
	keptBroken   bool
	readBroken   bool
	good         []opened // checkpoints that sign the keeper's tree, without their texts
	newest       opened   // the greatest of them
	goodRead     []opened // those that sign the leaves and not the keeper's tree
	bad          []opened
	unjudged     []opened
	failed       []Finding
	named        int // of these, those that are no subtrees
	mismatches   []mismatch
	fingerprints []uint64
	progress     func(int64)
}

func (c *collector) take(r *checked) {
	c.waiting[r.number] = r
	for c.waiting[c.next] != nil {
		c.add(c.waiting[c.next])
		delete(c.waiting, c.next)
		c.next++
		if c.progress != nil {
			c.progress(c.report.Size - c.report.From)
		}
	}
}

func (c *collector) add(r *checked) {
	for _, o := range r.early {
		switch {
		case o.Size != c.report.From || r.number > 0:
			at := max(o.Size-1, 0)
			r.found(Mislabelled, at, "%v stands among later entries", o)
		case root(nil, c.begun) == o.Root:
			c.meets(o)
		default:
			c.bad = append(c.bad, o.brief())
		}
	}
	for _, m := range r.at {
		switch {
		case !c.keptBroken && !m.keptBroken && root(c.kept, m.kept) == m.Root:
			c.meets(m.opened)
		case !c.readBroken && !m.readBroken && root(c.read, m.read) == m.Root:
			c.goodRead = append(c.goodRead, m.brief())
		case (c.keptBroken || m.keptBroken) && (c.readBroken || m.readBroken):
			c.unjudged = append(c.unjudged, m.brief())
		default:
			c.bad = append(c.bad, m.brief())
		}
	}
	c.keptBroken, c.readBroken = c.keptBroken || r.keptBroken, c.readBroken || r.readBroken
	for _, n := range r.kept {
		if c.keptBroken {
			break
		}
		c.kept = c.kept.push(n, func(n node) { c.failed = append(c.failed, r.subtrees.hold(n)...) })
	}
	for _, n := range r.read {
		if c.readBroken {
			break
		}
		c.read = c.read.push(n, nil)
	}
	for _, f := range r.failed {
		switch {
		case f.Kind == WrongTree:
			c.failed = append(c.failed, f)
		case c.named < maxFindings:
			c.named++
			c.failed = append(c.failed, f)
		default:
			c.report.Bad++
		}
	}
	if len(c.mismatches) < maxFindings {
		c.mismatches = append(c.mismatches, r.mismatches...)
	} else {
		c.report.Bad += int64(len(r.mismatches))
	}
	for _, o := range r.beyond {
		c.bad = append(c.bad, o.brief())
	}
	for kind, n := range r.kinds {
		c.report.Kinds[kind] += n
	}
	c.fingerprints = append(c.fingerprints, r.fingerprints...)
	c.report.Size = r.to
}

// meets keeps a checkpoint that signs the keeper's tree.
func (c *collector) meets(o opened) {
	if o.Size >= c.newest.Size {
		c.newest = o
	}
	c.good = append(c.good, o.brief())
}

// conclude judges what could not be judged before all was seen.
func (c *collector) conclude(outside []opened) {
	c.judgeOutside(outside)
	c.report.Root = root(nil, c.kept)
	covered, coveredRead := int64(0), int64(0)
	for _, o := range c.good {
		covered = max(covered, o.Size)
	}
	for _, o := range c.goodRead {
		coveredRead = max(coveredRead, o.Size)
	}
	c.report.Checkpoints, c.report.Covered, c.report.Newest = len(c.good), covered, c.newest.note.Text
	c.judgeMismatches(covered, coveredRead)
	c.judgeCheckpoints(max(covered, coveredRead))
	for _, f := range c.failed {
		if f.Kind != WrongTree || !c.explained(f) {
			c.report.Add(f)
		}
	}
}

// judgeOutside sees to the checkpoints kept outside that no batch had in it.
func (c *collector) judgeOutside(outside []opened) {
	for _, o := range outside {
		switch {
		case o.Size > c.report.Size:
			c.bad = append(c.bad, o.brief())
		case o.Size > c.report.From:
		case o.Size < c.report.From:
			c.report.Older++
		case root(nil, c.begun) == o.Root:
			c.meets(o)
		default:
			c.bad = append(c.bad, o.brief())
		}
	}
}

// explained tells whether a subtree differs because of what is known more exactly.
func (c *collector) explained(subtree Finding) bool {
	return slices.ContainsFunc(c.report.Findings, func(f Finding) bool {
		return (f.Kind == WrongTree || f.Kind == WrongRoot) && f.Index >= subtree.Index && f.Until <= subtree.Until
	})
}

// narrowed is the first subtree in a span of leaves whose root, in the keeper's tree, is not that of the hashes below it: those were
// changed after it was made.
func (c *collector) narrowed(from, until int64) (int64, int64) {
	for _, f := range c.failed {
		if f.Kind == WrongTree && f.Index < until && f.Until > from {
			return max(from, f.Index), min(until, f.Until)
		}
	}
	return from, until
}

func (c *collector) judgeMismatches(covered, coveredRead int64) {
	places := make(map[Hash]int64, len(c.mismatches))
	for _, m := range c.mismatches {
		places[m.kept] = m.index
	}
	for _, m := range c.mismatches {
		what, kind := "the leaf is not the one whose hash the tree has here", Changed
		if at, moved := places[m.read]; moved {
			kind, what = Moved, fmt.Sprintf("the leaf of index %d stands here", at)
		}
		switch {
		case m.index < covered:
			what += fmt.Sprintf("; the tree is the one that the checkpoint of size %d signs", covered)
		case m.index < coveredRead:
			kind, what = WrongTree, "the hash that the tree has here is not that of the leaf, which is the one that was signed"
		default:
			what += "; no checkpoint tells which of the two is right"
		}
		c.report.Add(Finding{Kind: kind, Index: m.index, Until: m.index + 1, What: what})
	}
}

// judgeCheckpoints tells of signed checkpoints that the history does not lead to. Where a later one is met, the leaves before it are the
// signed ones: then the log has signed two histories. Otherwise some leaf after the last one that is met was changed.
func (c *collector) judgeCheckpoints(covered int64) {
	met := slices.Concat(c.good, c.goodRead)
	slices.SortStableFunc(met, bySize)
	slices.SortStableFunc(c.bad, bySize)
	told := false
	for _, o := range c.bad {
		i := slices.IndexFunc(met, func(m opened) bool { return m.Size >= o.Size }) // none: not even of size 0, where nothing is covered
		switch {
		case o.Size > c.report.Size:
			c.report.Add(Finding{
				Kind: Truncated, Index: c.report.Size, Until: o.Size,
				What: fmt.Sprintf("the history ends here, and %v signs more: the entries up to %d are gone", o, o.Size-1),
			})
		case i >= 0 && o.Size <= covered:
			from := before(met, o.Size)
			c.report.Add(Finding{Kind: SplitView, Index: from, Until: o.Size, What: fmt.Sprintf(
				"%v and %v are both signed, and no history has both: the log has shown two, which part between %d and %d", o, met[i], from, o.Size-1)})
		case !told:
			told = true // those after it are missed for the same reason
			from, until := c.narrowed(max(before(met, o.Size), min(c.report.From, o.Size-1)), o.Size)
			c.report.Add(Finding{Kind: WrongRoot, Index: from, Until: until, What: fmt.Sprintf(
				"%v signs another history: an entry from %d to %d was changed together with its hash, or the log has shown two histories", o, from,
				until-1)})
		default:
			c.report.Bad++
		}
	}
	c.report.Unjudged = len(c.unjudged)
}

// before is the size of the greatest checkpoint that is smaller.
func before(met []opened, size int64) (greatest int64) {
	for _, m := range met {
		if m.Size < size {
			greatest = max(greatest, m.Size)
		}
	}
	return greatest
}

// suspects are fingerprints of identifiers that came more than once.
func (c *collector) suspects() (twice map[uint64]struct{}) {
	slices.Sort(c.fingerprints)
	for i := 1; i < len(c.fingerprints); i++ {
		if c.fingerprints[i] == c.fingerprints[i-1] {
			if twice == nil {
				twice = map[uint64]struct{}{}
			}
			twice[c.fingerprints[i]] = struct{}{}
		}
	}
	return twice
}

// duplicates reads the history once more, for the events that seem to stand in it twice. Eight octets are remembered of each identifier, so
// that a long history can be verified on a small machine; in a hundred million, two of different events are alike in one case of 3,000.
func (c *collector) duplicates(ctx context.Context, source Source, seed maphash.Seed, twice map[uint64]struct{}) error {
	if err := source.Again(ctx); err != nil {
		return err
	}
	places := map[string][]int64{}
	var room workroom
	for {
		b, err := source.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		for _, e := range b.Entries {
			s, err := scan(e.Leaf, nil)
			if h := room.leafHash(e.Leaf); err != nil || (e.Hash != nil && !bytes.Equal(e.Hash, h[:])) {
				continue // told by itself
			}
			if _, suspected := twice[maphash.Bytes(seed, s.id)]; suspected {
				places[string(s.id)] = append(places[string(s.id)], e.Index)
			}
		}
	}
	for id, at := range places {
		slices.Sort(at)
		for _, index := range at[1:] {
			c.report.Add(Finding{
				Kind: Duplicated, Index: index, Until: index + 1,
				What: fmt.Sprintf("the event %s stands at index %d already", id, at[0]),
			})
		}
	}
	return nil
}
