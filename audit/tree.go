package audit

import (
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// Hash is a hash of the tree: SHA-256, of a leaf over an octet 0 and the leaf, of a node over an octet 1 and its two halves (RFC 6962,
// section 2.1).
type Hash = tlog.Hash

// TileHeight is the height of tiles, and TileWidth the number of hashes in a complete one (C2SP tlog-tiles).
const (
	TileHeight = 8
	TileWidth  = 1 << TileHeight
)

// HashOf is the hash of a canonical leaf.
func HashOf(leaf []byte) Hash { return tlog.RecordHash(leaf) }

// Subtree is the root of a complete subtree of TileWidth^Level leaves, the Nth of its level. Level 0 is the leaves' own hashes.
type Subtree struct {
	Level int
	N     int64
	Hash  Hash
}

// Range is hashes of one level: those with From <= N < To.
type Range struct {
	Level    int
	From, To int64
}

// Edge are the ranges that a tree of a size goes on from: at each level the hashes that no complete subtree of the next level covers.
func Edge(size int64) (edge []Range) {
	for level := 0; ; level++ {
		count := size >> (level * TileHeight)
		if count == 0 && level > 0 {
			return edge
		}
		edge = append(edge, Range{Level: level, From: count &^ (TileWidth - 1), To: count})
	}
}

// Tree is a Merkle tree as far as it must be known to append to it: the hashes of its edge. The zero value is the empty tree.
type Tree struct {
	size int64
	edge [][]Hash // of each level, as Edge tells
}

// TreeFrom makes a tree of a size from the hashes of its edge.
func TreeFrom(size int64, edge [][]Hash) (*Tree, error) {
	want := Edge(size)
	if size < 0 || len(edge) != len(want) {
		return nil, errors.New("audit: the edge of a tree has another number of levels")
	}
	t := &Tree{size: size}
	for level, r := range want {
		if int64(len(edge[level])) != r.To-r.From {
			return nil, fmt.Errorf("audit: a tree of %d leaves has %d hashes at the edge of level %d, not %d", size, r.To-r.From, level,
				len(edge[level]))
		}
		t.edge = append(t.edge, append(make([]Hash, 0, TileWidth), edge[level]...))
	}
	return t, nil
}

// Size is the number of leaves.
func (t *Tree) Size() int64 { return t.size }

// Append adds a leaf, and returns the subtrees that it completes.
func (t *Tree) Append(leaf Hash) (complete []Subtree) {
	t.size++
	for level, hash := 0, leaf; ; level++ {
		if level == len(t.edge) {
			t.edge = append(t.edge, make([]Hash, 0, TileWidth))
		}
		t.edge[level] = append(t.edge[level], hash)
		if len(t.edge[level]) < TileWidth {
			return complete
		}
		hash = rootOf(t.edge[level])
		t.edge[level] = t.edge[level][:0]
		complete = append(complete, Subtree{Level: level + 1, N: t.size>>((level+1)*TileHeight) - 1, Hash: hash})
	}
}

// Root is the root hash. That of the empty tree is the hash of nothing.
func (t *Tree) Root() Hash {
	var root Hash
	none := true
	for _, hashes := range t.edge { // from the smallest subtrees on the right to the largest on the left
		for end := len(hashes); end > 0; {
			width := 1 << bits.TrailingZeros(uint(end))
			if subtree := rootOf(hashes[end-width : end]); none {
				root, none = subtree, false
			} else {
				root = tlog.NodeHash(subtree, root)
			}
			end -= width
		}
	}
	if none {
		root, _ = tlog.TreeHash(0, nil) // it asks for nothing, so it cannot fail
	}
	return root
}

// rootOf is the root over a power of two of hashes.
func rootOf(hashes []Hash) Hash {
	if len(hashes) == 1 {
		return hashes[0]
	}
	half := len(hashes) / 2
	return tlog.NodeHash(rootOf(hashes[:half]), rootOf(hashes[half:]))
}

// Clone is a copy that grows by itself.
func (t *Tree) Clone() *Tree {
	c := &Tree{size: t.size}
	for _, hashes := range t.edge {
		c.edge = append(c.edge, append(make([]Hash, 0, TileWidth), hashes...))
	}
	return c
}
