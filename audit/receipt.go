package audit

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Receipt proves offline that an event was logged: its leaf, its place in the tree, and a checkpoint. Written, it is a C2SP tlog-proof
// whose extra data are the leaf.
type Receipt struct {
	Leaf       []byte
	Index      int64
	Proof      []Hash
	Checkpoint []byte // the signed note
}

const (
	proofHeader = "c2sp.org/tlog-proof@v1"
	maxProof    = 63 // hashes: as many as a tree can be high
	maxReceipt  = 2*MaxLeaf + maxNote + 4096
)

// Bytes is the receipt as a file, whose name should end in .tlog-proof.
func (r Receipt) Bytes() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nextra %s\nindex %d\n", proofHeader, base64.StdEncoding.EncodeToString(r.Leaf), r.Index)
	for _, h := range r.Proof {
		b.WriteString(base64.StdEncoding.EncodeToString(h[:]) + "\n")
	}
	b.WriteString("\n")
	b.Write(r.Checkpoint)
	return []byte(b.String())
}

// ParseReceipt reads a receipt. What it says is not verified by that.
func ParseReceipt(text []byte) (r Receipt, err error) {
	if len(text) > maxReceipt {
		return r, errors.New("audit: this is too long to be a receipt")
	}
	head, checkpoint, ok := strings.Cut(string(text), "\n\n")
	lines := strings.Split(head, "\n")
	if !ok || len(lines) < 3 || lines[0] != proofHeader {
		return r, errors.New("audit: this is no receipt: it begins with " + proofHeader)
	}
	extra, isExtra := strings.CutPrefix(lines[1], "extra ")
	index, isIndex := strings.CutPrefix(lines[2], "index ")
	if !isExtra || !isIndex || len(lines)-3 > maxProof {
		return r, errors.New("audit: a receipt has the event, its index, and hashes, a line each")
	}
	if r.Leaf, err = base64.StdEncoding.Strict().DecodeString(extra); err != nil || base64.StdEncoding.EncodeToString(r.Leaf) != extra {
		return r, errors.New("audit: the event of a receipt is in base64")
	}
	if r.Index, err = parseNumber(index); err != nil {
		return r, fmt.Errorf("audit: the index of a receipt: %w", err)
	}
	for _, line := range lines[3:] {
		h, err := parseHash(line)
		if err != nil {
			return r, fmt.Errorf("audit: line %s of a receipt: %w", strconv.Quote(line), err)
		}
		r.Proof = append(r.Proof, h)
	}
	r.Checkpoint = []byte(checkpoint)
	return r, nil
}

// Verify verifies the receipt with keys that are known to be the log's, and of witnesses. It returns the event, the checkpoint, and the
// signatures on it that were verified.
func (r Receipt) Verify(known ...*Verifier) (Event, Checkpoint, []Signature, error) {
	c, signatures, err := OpenCheckpoint(r.Checkpoint, known...)
	if err != nil {
		return Event{}, Checkpoint{}, nil, err
	}
	if err := CheckInclusion(c, r.Index, HashOf(r.Leaf), r.Proof); err != nil {
		return Event{}, Checkpoint{}, nil, err
	}
	e, err := Parse(r.Leaf)
	if err != nil {
		return Event{}, Checkpoint{}, nil, err
	}
	return e, c, signatures, nil
}
