package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// memory is a history in memory. It keeps what a database does: rows, hashes, roots of subtrees and checkpoints.
type memory struct {
	entries     []Entry
	size        int64 // places
	subtrees    []Subtree
	checkpoints []Note
	batch       int64

	mu     sync.Mutex
	number int
	from   int64
	start  int64
}

func (m *memory) Again(context.Context) error {
	m.number, m.from = 0, m.start
	return nil
}

func (m *memory) Next(context.Context) (Batch, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.from >= m.size && m.number > 0 {
		return Batch{}, io.EOF
	}
	to := min(m.from-m.from%m.batch+m.batch, m.size)
	b := Batch{Number: m.number, From: m.from, To: to}
	low, _ := slices.BinarySearchFunc(m.entries, m.from, func(e Entry, at int64) int { return int(e.Index - at) })
	high, _ := slices.BinarySearchFunc(m.entries, to, func(e Entry, at int64) int { return int(e.Index - at) })
	b.Entries = m.entries[low:high]
	for _, c := range m.checkpoints {
		if c.Size > m.from && (c.Size <= to || to == m.size) {
			b.Checkpoints = append(b.Checkpoints, c)
		}
	}
	for _, s := range m.subtrees {
		if end := (s.N + 1) << (8 * s.Level); end > m.from && end <= to {
			b.Subtrees = append(b.Subtrees, s)
		}
	}
	m.number++
	m.from = to
	return b, nil
}

func eventLeaf(n int) Leaf {
	leaf, err := New(Event{
		ID: fmt.Sprintf("01a20af2-5b26-7d22-bed4-%012x", n), Kind: CertificateIssued, Time: time.UnixMicro(int64(n) + 1), Actor: "system",
		Namespace: "dev", Data: map[string]string{
			"serial": fmt.Sprintf("1c%038x", n), "profile": "tls-server",
			"certificate_sha256": strings.Repeat("ab", 32),
		},
	})
	if err != nil {
		panic(err) // the event is written above
	}
	return leaf
}

// fakeNote makes what stands for a signed checkpoint here, and open reads it.
func fakeNote(size int64, root Hash) []byte { return fmt.Appendf(nil, "signed %d %x", size, root[:]) }

func open(text []byte) (Checkpoint, error) {
	parts := strings.Fields(string(text))
	if len(parts) != 3 || parts[0] != "signed" {
		return Checkpoint{}, errors.New("the signature is not of the log's key")
	}
	size, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil {
		return Checkpoint{}, err
	}
	r := Checkpoint{Size: size}
	_, err = hex.Decode(r.Root[:], []byte(parts[2]))
	return r, err
}

// rootByDefinition is the root by the definition of RFC 6962, section 2.1.
func rootByDefinition(leaves [][]byte) Hash {
	switch n := len(leaves); n {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, leaves[0]...))
	default:
		k := 1
		for 2*k < n {
			k *= 2
		}
		left, right := rootByDefinition(leaves[:k]), rootByDefinition(leaves[k:])
		return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
	}
}

// newMemory is a sound history with checkpoints of some sizes.
func newMemory(n int, batch int64, checkpoints ...int) *memory {
	m := &memory{size: int64(n), batch: batch}
	leaves := make([][]byte, n)
	var nodes span
	for i := range n {
		leaf := eventLeaf(i)
		leaves[i] = leaf.Bytes()
		h := sha256.Sum256(append([]byte{0}, leaf.Bytes()...))
		m.entries = append(m.entries, Entry{Index: int64(i), Leaf: leaf.Bytes(), Hash: h[:], ID: leaf.ID(), Kind: leaf.Kind()})
		nodes = nodes.push(node{index: int64(i), hash: h}, func(x node) {
			m.subtrees = append(m.subtrees, Subtree{Level: x.level / 8, N: x.index, Hash: x.hash})
		})
	}
	for _, size := range checkpoints {
		m.checkpoints = append(m.checkpoints,
			Note{Text: fakeNote(int64(size), rootByDefinition(leaves[:size])), Where: "kept", Size: int64(size)})
	}
	return m
}

func verify(t testing.TB, m *memory, v Verification) *Report {
	t.Helper()
	v.Open = open
	if v.Workers == 0 {
		v.Workers = 3
	}
	r, err := Verify(context.Background(), m, v)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSoundHistory(t *testing.T) {
	for _, n := range []int{0, 1, 2, 255, 256, 257, 1000, 2500} {
		sizes := []int{}
		for size := 1; size <= n; size += 1 + size/3 {
			sizes = append(sizes, size)
		}
		m := newMemory(n, 512, sizes...)
		r := verify(t, m, Verification{})
		if !r.Sound() || r.Size != int64(n) || r.Checkpoints != len(sizes) {
			t.Errorf("%d leaves: %+v", n, r)
		}
		leaves := make([][]byte, n)
		for i := range leaves {
			leaves[i] = m.entries[i].Leaf
		}
		if r.Root != rootByDefinition(leaves) {
			t.Errorf("%d leaves have the root %x", n, r.Root)
		}
	}
}

func wantFirst(t testing.TB, r *Report, kind Fault, index, until int64) {
	t.Helper()
	f := r.First()
	if f == nil || f.Kind != kind || f.Index != index || f.Until != until {
		t.Errorf("the first finding is %v, want %s at %d to %d; all: %v", f, kind, index, until-1, r.Findings)
	}
}

func TestTampering(t *testing.T) {
	const n = 1500
	sizes := []int{100, 700, 1100, 1400}
	for name, c := range map[string]struct {
		tamper       func(m *memory)
		kind         Fault
		index, until int64
	}{
		"a changed leaf": {func(m *memory) { m.entries[800].Leaf = eventLeaf(9999).Bytes() }, Changed, 800, 801},
		"a changed leaf that no checkpoint covers": {func(m *memory) { m.entries[1450].Leaf = eventLeaf(9999).Bytes() }, Changed, 1450, 1451},
		"a leaf that is no leaf any more":          {func(m *memory) { m.entries[800].Leaf = []byte("x") }, Changed, 800, 801},
		"a changed hash":                           {func(m *memory) { m.entries[800].Hash = make([]byte, 32) }, WrongTree, 800, 801},
		"a leaf changed together with its hash": {func(m *memory) {
			leaf := eventLeaf(9999)
			h := sha256.Sum256(append([]byte{0}, leaf.Bytes()...))
			m.entries[800].Leaf, m.entries[800].ID, m.entries[800].Hash = leaf.Bytes(), leaf.ID(), h[:]
			m.subtrees = nil
		}, WrongRoot, 700, 1100},
		"the same, its subtree left": {func(m *memory) {
			leaf := eventLeaf(9999)
			h := sha256.Sum256(append([]byte{0}, leaf.Bytes()...))
			m.entries[800].Leaf, m.entries[800].ID, m.entries[800].Hash = leaf.Bytes(), leaf.ID(), h[:]
		}, WrongRoot, 768, 1024},
		"a deleted leaf": {func(m *memory) { m.entries[800].Leaf = nil }, Missing, 800, 801},
		"a deleted row":  {func(m *memory) { m.entries = slices.Delete(m.entries, 800, 801) }, Missing, 800, 801},
		"the first gone": {func(m *memory) { m.entries = m.entries[1:] }, Missing, 0, 1},
		"two rows swapped": {
			func(m *memory) { m.entries[300].Leaf, m.entries[900].Leaf = m.entries[900].Leaf, m.entries[300].Leaf }, Moved, 300,
			301,
		},
		"a row deleted and the rest moved up": {func(m *memory) {
			for i := 800; i < n-1; i++ {
				m.entries[i].Leaf, m.entries[i].ID = m.entries[i+1].Leaf, m.entries[i+1].ID
			}
			m.entries, m.size = m.entries[:n-1], n-1
		}, Moved, 800, 801},
		"truncation": {func(m *memory) { m.size, m.entries = 1399, m.entries[:1399] }, Truncated, 1399, 1400},
		"columns":    {func(m *memory) { m.entries[800].Kind = AccessDenied }, Mislabelled, 800, 801},
		"a subtree":  {func(m *memory) { m.subtrees[1].Hash = Hash{} }, WrongTree, 256, 512},
		"a forged checkpoint": {func(m *memory) {
			m.checkpoints = append(m.checkpoints, Note{Text: []byte("unsigned 9 00"), Size: 1200})
		}, Forged, 1199, 1200},
		"a split view": {func(m *memory) {
			m.checkpoints = append(m.checkpoints, Note{Text: fakeNote(700, Hash{1}), Size: 700})
		}, SplitView, 100, 700},
		"a split view at the end": {func(m *memory) {
			m.checkpoints = append(m.checkpoints, Note{Text: fakeNote(1400, Hash{1}), Size: 1400})
		}, SplitView, 1100, 1400},
		"a leaf that is logged twice": {func(m *memory) {
			*m = *newMemory(n, 512)
			m.entries[900].Leaf, m.entries[900].ID = m.entries[300].Leaf, m.entries[300].ID
			m.entries[900].Hash, m.subtrees = m.entries[300].Hash, nil
		}, Duplicated, 900, 901},
		"an index that is there twice": {func(m *memory) { m.entries = slices.Insert(m.entries, 801, m.entries[800]) }, Duplicated, 800, 801},
		"what was logged is no leaf": {func(m *memory) {
			h := sha256.Sum256([]byte("\x00x"))
			m.entries[1450].Leaf, m.entries[1450].Hash = []byte("x"), h[:]
		}, Malformed, 1450, 1451},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory(n, 512, sizes...)
			c.tamper(m)
			wantFirst(t, verify(t, m, Verification{}), c.kind, c.index, c.until)
		})
	}
}

// What a keeper does who can rewrite everything, checkpoints as well, is seen by whoever kept one.
func TestACheckpointKeptOutside(t *testing.T) {
	const n = 1500
	honest := newMemory(n, 512, 600, 1000)
	kept := []Note{{Text: honest.checkpoints[0].Text, Where: "june.txt"}, {Text: honest.checkpoints[1].Text, Where: "july.txt"}}
	if r := verify(t, newMemory(n, 512), Verification{Kept: kept}); !r.Sound() || r.Checkpoints != 2 {
		t.Errorf("the honest history: %+v", r)
	}
	t.Run("truncated", func(t *testing.T) {
		wantFirst(t, verify(t, newMemory(990, 512, 990), Verification{Kept: kept}), Truncated, 990, 1000)
	})
	t.Run("forged", func(t *testing.T) {
		r := verify(t, newMemory(n, 512), Verification{Kept: []Note{{Text: []byte("signed by nobody 1"), Where: "x"}}})
		wantFirst(t, r, Forged, 0, 1)
	})
	t.Run("rewritten and signed anew", func(t *testing.T) {
		m := &memory{size: n, batch: 512}
		other := newMemory(n, 512)
		m.entries = other.entries
		leaf := eventLeaf(9999)
		h := sha256.Sum256(append([]byte{0}, leaf.Bytes()...))
		m.entries[800].Leaf, m.entries[800].ID, m.entries[800].Hash = leaf.Bytes(), leaf.ID(), h[:]
		leaves := make([][]byte, n)
		for i := range leaves {
			leaves[i] = m.entries[i].Leaf
		}
		m.checkpoints = []Note{{Text: fakeNote(n, rootByDefinition(leaves)), Where: "kept", Size: n}}
		wantFirst(t, verify(t, m, Verification{Kept: kept}), SplitView, 600, 1000)
	})
}

// Whoever trusts a checkpoint reads what came after it, and no more.
func TestSinceACheckpoint(t *testing.T) {
	const n = 3000
	rapid.Check(t, func(t *rapid.T) {
		since := rapid.IntRange(0, n).Draw(t, "since")
		later := rapid.IntRange(max(since, 1), n).Draw(t, "later")
		m := newMemory(n, 512, later)
		var nodes span
		for _, e := range m.entries[:since] {
			nodes = nodes.push(node{index: e.Index, hash: Hash(e.Hash)}, nil)
		}
		start := Start{Size: int64(since)}
		for _, x := range nodes {
			start.Frontier = append(start.Frontier, x.hash)
		}
		leaves := make([][]byte, since)
		for i := range leaves {
			leaves[i] = m.entries[i].Leaf
		}
		if got, err := start.Root(); err != nil || got != rootByDefinition(leaves) {
			t.Fatalf("the start has the root %x, %v", got, err)
		}
		m.entries = m.entries[since:]
		m.from, m.start = int64(since), int64(since)
		r, err := Verify(context.Background(), m,
			Verification{Open: open, Start: start, Workers: 2, Kept: []Note{{Text: fakeNote(int64(since), rootByDefinition(leaves))}}})
		if err != nil || !r.Sound() || r.From != int64(since) || r.Size != n || r.Checkpoints == 0 {
			t.Fatalf("since %d: %+v, %v", since, r, err)
		}
	})
}

func TestVerifyEndsWhenTheSourceFails(t *testing.T) {
	broken := errors.New("the disk is gone")
	if _, err := Verify(context.Background(), &failing{memory: newMemory(5000, 256), after: 7, err: broken},
		Verification{Open: open, Workers: 4}); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Verify(ctx, newMemory(5000, 256), Verification{Open: open, Workers: 4}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

type failing struct {
	*memory
	after int
	err   error
}

func (f *failing) Next(ctx context.Context) (Batch, error) {
	b, err := f.memory.Next(ctx)
	if err == nil && b.Number == f.after {
		return Batch{}, f.err
	}
	return b, err
}

// Every single bit of a leaf counts, wherever it is.
func TestEverySingleBit(t *testing.T) {
	m := newMemory(600, 256, 300, 600)
	rapid.Check(t, func(t *rapid.T) {
		index := rapid.IntRange(0, 599).Draw(t, "index")
		was := m.entries[index].Leaf
		bit := rapid.IntRange(0, 8*len(was)-1).Draw(t, "bit")
		changed := bytes.Clone(was)
		changed[bit/8] ^= 1 << (bit % 8)
		m.entries[index].Leaf = changed
		defer func() { m.entries[index].Leaf = was }()
		_ = m.Again(context.Background())
		r, err := Verify(context.Background(), m, Verification{Open: open, Workers: 2})
		if err != nil || r.Bad != 1 || r.First().Kind != Changed || r.First().Index != int64(index) {
			t.Fatalf("bit %d of leaf %d: %+v, %v", bit, index, r, err)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	n := 1 << 17
	if testing.Short() {
		n = 1 << 12
	}
	m := newMemory(n, BatchSize)
	for size := 2000; size <= n; size += 2000 {
		m.checkpoints = append(m.checkpoints, Note{Text: fakeNote(int64(size), Hash{}), Size: int64(size)})
	}
	for _, workers := range []int{1, runtime.GOMAXPROCS(0)} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			for b.Loop() {
				_ = m.Again(context.Background())
				if r := verify(b, m, Verification{Workers: workers}); r.Size != int64(n) {
					b.Fatal(r)
				}
			}
			b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "leaves/s")
			b.ReportMetric(float64(len(m.entries[0].Leaf)), "octets/leaf")
		})
	}
}
