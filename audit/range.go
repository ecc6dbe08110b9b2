package audit

import (
	"crypto/sha256"
	"fmt"
)

// node is a whole subtree: the leaves [index<<level, (index+1)<<level).
type node struct {
	level int
	index int64
	hash  Hash
}

// span is the least number of whole subtrees that a run of leaves consists of, from left to right. Of a run from 0 on it gives the root.
type span []node

// push puts the subtree on the right of all others. Where it completes a larger one, that takes their place. Those of 256^k leaves are
// shown to whole, if that is not nil: they are what tiles are made of.
func (s span) push(n node, whole func(node)) span {
	for n.index&1 == 1 && len(s) > 0 && s[len(s)-1].level == n.level {
		n = node{level: n.level + 1, index: n.index >> 1, hash: nodeHash(s[len(s)-1].hash, n.hash)}
		s = s[:len(s)-1]
		if whole != nil && n.level%TileHeight == 0 {
			whole(n)
		}
	}
	return append(s, n)
}

// root is the root of the tree whose leaves are those of the spans, which follow each other from 0 on.
func root(left, right span) (h Hash) {
	all := make(span, 0, len(left)+len(right))
	for _, s := range []span{left, right} {
		for _, n := range s {
			all = all.push(n, nil)
		}
	}
	if len(all) == 0 {
		return sha256.Sum256(nil)
	}
	h = all[len(all)-1].hash
	for i := len(all) - 2; i >= 0; i-- {
		h = nodeHash(all[i].hash, h)
	}
	return h
}

// frontier is where the subtrees of the first size leaves are, from left to right.
func frontier(size int64) (nodes span) {
	for level, at := 62, int64(0); level >= 0; level-- {
		if size&(1<<level) != 0 {
			nodes = append(nodes, node{level: level, index: at >> level})
			at += 1 << level
		}
	}
	return nodes
}

// StartAt is the start after size leaves, by hashes of a keeper's tree: hashes gives the roots of the runs [from, to) of 256^level leaves
// each.
func StartAt(size int64, hashes func(level int, from, to int64) ([]Hash, error)) (Start, error) {
	s := Start{Size: size}
	for _, n := range frontier(size) {
		level, below := n.level/TileHeight, n.level%TileHeight
		from, to := n.index<<below, (n.index+1)<<below
		parts, err := hashes(level, from, to)
		if err != nil {
			return Start{}, err
		}
		if int64(len(parts)) != to-from {
			return Start{}, fmt.Errorf("audit: the tree has %d of %d hashes below the leaf %d", len(parts), to-from, (n.index+1)<<n.level)
		}
		var whole span
		for i, h := range parts {
			whole = whole.push(node{index: int64(i), hash: h}, nil)
		}
		s.Frontier = append(s.Frontier, whole[0].hash)
	}
	return s, nil
}

func nodeHash(left, right Hash) Hash {
	var b [1 + 2*sha256.Size]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[1+sha256.Size:], right[:])
	return sha256.Sum256(b[:])
}
