package audit

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
)

// Fault is a kind of finding. They are stable.
type Fault string

// What can be wrong with a history.
const (
	Changed     Fault = "changed"     // a leaf is not the one that was logged
	Moved       Fault = "moved"       // a leaf stands where another one was
	Missing     Fault = "missing"     // a place has no leaf
	Truncated   Fault = "truncated"   // the end is gone
	Duplicated  Fault = "duplicated"  // an event, or an index, is there twice
	Malformed   Fault = "malformed"   // what was logged is no leaf
	Mislabelled Fault = "mislabelled" // columns beside the leaf say something else than the leaf
	WrongTree   Fault = "wrong-tree"  // hashes of the tree are wrong, and the leaves are right
	WrongRoot   Fault = "wrong-root"  // a checkpoint signs another history
	SplitView   Fault = "split-view"  // two checkpoints are signed that no history can have
	Forged      Fault = "forged"      // a checkpoint that the log's key did not sign
	Unsigned    Fault = "unsigned"    // no checkpoint signs the end, and one should
	Unsequenced Fault = "unsequenced" // an event has no place in the log, long after it was recorded
	Unlogged    Fault = "unlogged"    // a row of the database without its event, or unlike it
	Unrecorded  Fault = "unrecorded"  // an event without the row that it speaks of
)

// Finding is one thing that is wrong.
type Finding struct {
	Kind  Fault
	Index int64 // where; -1: at no index
	Until int64 // Index+1 where the place is known; else it lies in [Index, Until)
	What  string
}

func (f Finding) String() string {
	switch {
	case f.Index < 0:
		return fmt.Sprintf("%s: %s", f.Kind, f.What)
	case f.Until > f.Index+1:
		return fmt.Sprintf("index %d to %d: %s: %s", f.Index, f.Until-1, f.Kind, f.What)
	}
	return fmt.Sprintf("index %d: %s: %s", f.Index, f.Kind, f.What)
}

// maxFindings is how many findings a report names.
const maxFindings = 1000

// Report is what a verification has found.
type Report struct {
	From, Size  int64 // leaves [From, Size) were read
	Root        Hash
	Checkpoints int    // that were met
	Covered     int64  // by the greatest of them
	Newest      []byte // the greatest of them, a signed note; nil: there is none
	Unjudged    int    // checkpoints that cannot be held against the history, because something before them is missing
	Older       int    // checkpoints kept outside that are smaller than the start, and so were not held against anything
	Kinds       map[Kind]int64
	Findings    []Finding // in the order of their places, at most 1,000
	Bad         int64     // how many there are
}

// Sound tells whether nothing is wrong.
func (r *Report) Sound() bool { return r.Bad == 0 }

// Unsigned tells from which index on no checkpoint signs what was read. Where a checkpoint of more is there and is wrong, or cannot be
// judged, that is a finding already, and there is nothing to tell.
func (r *Report) Unsigned() (from int64, found bool) {
	told := r.Unjudged > 0 || slices.ContainsFunc(r.Findings, func(f Finding) bool {
		return f.Kind == Forged || f.Kind == WrongRoot || f.Kind == WrongTree || f.Kind == SplitView || f.Kind == Truncated
	})
	from = max(r.From, r.Covered)
	return from, from < r.Size && !told
}

// First is the first thing that is wrong; nil: nothing is.
func (r *Report) First() *Finding {
	if len(r.Findings) == 0 {
		return nil
	}
	return &r.Findings[0]
}

// Add puts a finding into its place: in the order of indexes, of one index what is known most exactly first, and what has none at the end.
func (r *Report) Add(f Finding) {
	r.Bad++
	at, _ := slices.BinarySearchFunc(r.Findings, f, func(a, b Finding) int {
		if by := cmp.Or(cmp.Compare(uint64(a.Index), uint64(b.Index)), cmp.Compare(a.Until, b.Until)); by != 0 {
			return by
		}
		return -1 // equal ones stay in the order in which they were found
	})
	r.Findings = slices.Insert(r.Findings, at, f)
	if len(r.Findings) > maxFindings {
		r.Findings = r.Findings[:maxFindings]
	}
}

// RootText is the root as it is written in hexadecimal.
func (r *Report) RootText() string { return hex.EncodeToString(r.Root[:]) }
