package audit

import (
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// Hashes reads hashes of a log's tree. It need not be trusted: what is read is held against a root.
type Hashes func(ranges []Range) ([][]Hash, error)

// ErrNotInTree means that a proof was asked for of something that the checkpoint does not cover.
var ErrNotInTree = errors.New("the checkpoint does not cover that yet")

// ProveInclusion proves that a leaf is the one with an index in the tree of a size, which may be smaller than the checkpoint's: the hashes
// from the leaf's sibling up (RFC 6962, section 2.1.1). All that is read must fit the checkpoint.
func ProveInclusion(c Checkpoint, size, index int64, read Hashes) ([]Hash, error) {
	if index < 0 || index >= size || size > c.Size {
		return nil, ErrNotInTree
	}
	proof, err := tlog.ProveRecord(size, index, c.reader(read))
	if err != nil {
		return nil, fmt.Errorf("proving that leaf %d is in the tree of %d: %w", index, size, err)
	}
	return proof, nil
}

// ProveConsistency proves that the tree of one size is the beginning of that of another (RFC 6962, section 2.1.2).
func ProveConsistency(c Checkpoint, from, to int64, read Hashes) ([]Hash, error) {
	if from < 1 || from > to || to > c.Size {
		return nil, ErrNotInTree
	}
	proof, err := tlog.ProveTree(to, from, c.reader(read))
	if err != nil {
		return nil, fmt.Errorf("proving that the tree of %d is the beginning of that of %d: %w", from, to, err)
	}
	return proof, nil
}

// CheckInclusion verifies that a leaf's hash is the one with an index in the checkpoint's tree.
func CheckInclusion(c Checkpoint, index int64, leaf Hash, proof []Hash) error {
	if err := tlog.CheckRecord(proof, c.Size, c.Root, index, leaf); err != nil {
		return fmt.Errorf("audit: the proof does not show that leaf %d is in the tree of %d: %w", index, c.Size, err)
	}
	return nil
}

// CheckConsistency verifies that the tree of a checkpoint is the beginning of that of a later one.
func CheckConsistency(from, to Checkpoint, proof []Hash) error {
	if from.Origin != to.Origin {
		return fmt.Errorf("audit: the checkpoints are of two logs, %q and %q", from.Origin, to.Origin)
	}
	if err := tlog.CheckTree(proof, to.Size, to.Root, from.Size, from.Root); err != nil {
		return fmt.Errorf("audit: the proof does not show that the tree of %d is the beginning of that of %d: %w", from.Size, to.Size, err)
	}
	return nil
}

// Extends holds the log's hashes against both checkpoints: the later tree must have the earlier one as its beginning. It returns what shows
// that it does.
func Extends(from, to Checkpoint, read Hashes) (Consistency, error) {
	proof, err := ProveConsistency(to, from.Size, to.Size, read)
	if err != nil {
		return Consistency{}, err
	}
	return Consistency{From: from, Proof: proof}, CheckConsistency(from, to, proof)
}

// ExtendsFrom is Extends for an earlier tree of which the size alone is known: its root is that of the checkpoint's first so many leaves.
func ExtendsFrom(size int64, to Checkpoint, read Hashes) (Consistency, error) {
	if size < 1 || size > to.Size {
		return Consistency{}, ErrNotInTree
	}
	root, err := tlog.TreeHash(size, to.reader(read))
	if err != nil {
		return Consistency{}, fmt.Errorf("reading the root of the first %d leaves: %w", size, err)
	}
	return Extends(Checkpoint{Origin: to.Origin, Size: size, Root: root}, to, read)
}

// reader reads hashes of the checkpoint's tree, by tiles, and holds them against its root.
func (c Checkpoint) reader(read Hashes) tlog.HashReader {
	return tlog.TileHashReader(tlog.Tree{N: c.Size, Hash: c.Root}, tiles(read))
}

// tiles is a tlog.TileReader.
type tiles Hashes

func (tiles) Height() int { return TileHeight }

func (tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func (read tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	ranges := make([]Range, len(wanted))
	for i, t := range wanted {
		ranges[i] = tileRange(t)
	}
	found, err := read(ranges)
	if err != nil {
		return nil, err
	}
	all := make([][]byte, len(found))
	for i, hashes := range found {
		all[i] = tileData(hashes)
	}
	return all, nil
}

func tileRange(t tlog.Tile) Range {
	return Range{Level: t.L, From: t.N * TileWidth, To: t.N*TileWidth + int64(t.W)}
}

func tileData(hashes []Hash) []byte {
	data := make([]byte, 0, len(hashes)*tlog.HashSize)
	for _, h := range hashes {
		data = append(data, h[:]...)
	}
	return data
}
