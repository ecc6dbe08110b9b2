package audit

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strconv"
)

// ExportFormat names the form of exports and its version.
//
// An export is a gzip file (RFC 1952) of JSON objects (RFC 8259), one a line: a header, the leaves in the order of their indexes, each as
// the very octets that its hash is made of, each checkpoint after the last leaf that it covers, and an end, which digests all before it. So
// `zcat` and `jq` read it where there is no chancery:
//
//	zcat audit-000000000000-000000010000.ndjson.gz | jq -c 'select(.kind == "leaf").row'
//
// The export of the same leaves and checkpoints is always the same file.
const ExportFormat = "chancery-audit/1"

// ExportHeader opens an export.
type ExportHeader struct {
	Format string `json:"format"`
	From   int64  `json:"from"` // index of the first leaf
	// Frontier are the roots of the whole subtrees of the leaves before From, from left to right, in hexadecimal.
	Frontier []string `json:"frontier"`
	// Keys are the verifier keys that the exporter knew, for finding the right one. Whoever verifies has them from elsewhere.
	Keys []string `json:"keys"`
}

// ExportEnd closes an export. What it says is checked by whoever reads the file.
type ExportEnd struct {
	To          int64  `json:"to"` // one more than the index of the last leaf
	Checkpoints int    `json:"checkpoints"`
	Root        string `json:"root"`   // of all leaves before To, hexadecimal
	SHA256      string `json:"sha256"` // of every octet before this line, uncompressed; hexadecimal
}

// Start is where the export begins.
func (h ExportHeader) Start() (Start, error) {
	s := Start{Size: h.From}
	for _, text := range h.Frontier {
		raw, err := hex.DecodeString(text)
		if err != nil || len(raw) != sha256.Size {
			return Start{}, errors.New("audit: a hash of the export's frontier cannot be read")
		}
		s.Frontier = append(s.Frontier, Hash(raw))
	}
	_, err := s.span()
	return s, err
}

// Header is the header of an export that begins here.
func (s Start) Header(keys []string) ExportHeader {
	h := ExportHeader{Format: ExportFormat, From: s.Size, Frontier: []string{}, Keys: append([]string{}, keys...)}
	for _, hash := range s.Frontier {
		h.Frontier = append(h.Frontier, hex.EncodeToString(hash[:]))
	}
	return h
}

const (
	kindHeader     = "header"
	kindLeaf       = "leaf"
	kindUnread     = "unreadable"
	kindCheckpoint = "checkpoint"
	kindEnd        = "end"

	leafOpening = `{"kind":"leaf","index":`
	leafMiddle  = `,"row":`
)

type exportLine struct {
	Kind string          `json:"kind"`
	Row  json.RawMessage `json:"row"`
}

type exportNote struct {
	Note string `json:"note"`
}

// exportUnread stands in the place of a leaf that is no JSON, or too long for one: a service that was taken over may have logged it, and it
// must not keep what comes after it from being exported. Its octets, which could disguise other lines, are not told.
type exportUnread struct {
	Index int64  `json:"index"`
	Hash  string `json:"hash"` // hexadecimal, of the leaf, as the tree has it
}

// ExportWriter writes an export. It is not safe for concurrent use.
type ExportWriter struct {
	zip  *gzip.Writer
	out  *bufio.Writer // of what goes into zip and sum
	sum  hash.Hash
	tree span
	room workroom
	end  ExportEnd

	signed int64
}

// NewExportWriter begins an export on w, after what start stands for.
func NewExportWriter(w io.Writer, start Start, keys []string) (*ExportWriter, error) {
	tree, err := start.span()
	if err != nil {
		return nil, err
	}
	x := &ExportWriter{zip: gzip.NewWriter(w), sum: sha256.New(), tree: tree, end: ExportEnd{To: start.Size}}
	x.out = bufio.NewWriterSize(io.MultiWriter(x.zip, x.sum), 1<<16)
	return x, x.write(kindHeader, start.Header(keys))
}

// Add writes the next entry. It refuses one that is not the next, has no leaf, or whose leaf is not that of its hash. Of a leaf that cannot
// be a line, it writes the hash.
func (x *ExportWriter) Add(e Entry) error {
	if e.Index != x.end.To || e.Leaf == nil {
		return fmt.Errorf("exporting the audit log: there is no entry with the index %d", x.end.To)
	}
	hash := x.room.leafHash(e.Leaf)
	if e.Hash != nil && !bytes.Equal(e.Hash, hash[:]) {
		return fmt.Errorf("exporting the audit log: the leaf of index %d is not the one whose hash the tree has", e.Index)
	}
	unread := bytes.IndexByte(e.Leaf, '\n') >= 0 || len(e.Leaf) > MaxLeaf || !json.Valid(e.Leaf)
	if unread && e.Hash == nil {
		return fmt.Errorf("exporting the audit log: the leaf of index %d cannot be read", e.Index)
	}
	x.tree = x.tree.push(node{index: e.Index, hash: hash}, nil)
	x.end.To++
	if unread {
		return x.write(kindUnread, exportUnread{Index: e.Index, Hash: hex.EncodeToString(hash[:])})
	}
	var number [20]byte
	_, _ = x.out.WriteString(leafOpening) // a bufio.Writer keeps its first error
	_, _ = x.out.Write(strconv.AppendInt(number[:0], e.Index, 10))
	_, _ = x.out.WriteString(leafMiddle)
	_, _ = x.out.Write(e.Leaf)
	if _, err := x.out.WriteString("}\n"); err != nil {
		return fmt.Errorf("exporting the audit log: %w", err)
	}
	return nil
}

// AddCheckpoint writes a signed checkpoint, after the last entry that it covers.
func (x *ExportWriter) AddCheckpoint(note []byte) error {
	x.end.Checkpoints++
	x.signed = x.end.To
	return x.write(kindCheckpoint, exportNote{string(note)})
}

// Root is the root of all leaves so far, those before the export among them.
func (x *ExportWriter) Root() Hash { return root(nil, x.tree) }

// Signed is the size that the last checkpoint so far signs; 0: there is none.
func (x *ExportWriter) Signed() int64 { return x.signed }

// Size is one more than the index of the last entry.
func (x *ExportWriter) Size() int64 { return x.end.To }

func (x *ExportWriter) write(kind string, row any) error {
	encoded, err := json.Marshal(row)
	if err == nil {
		_, err = fmt.Fprintf(x.out, `{"kind":%q,"row":%s}`+"\n", kind, encoded)
	}
	if err != nil {
		return fmt.Errorf("exporting the audit log: %w", err)
	}
	return nil
}

// Close writes the end and returns it. The writer below is left open.
func (x *ExportWriter) Close() (ExportEnd, error) {
	if err := x.out.Flush(); err != nil {
		return ExportEnd{}, fmt.Errorf("exporting the audit log: %w", err)
	}
	whole := x.Root()
	x.end.Root, x.end.SHA256 = hex.EncodeToString(whole[:]), hex.EncodeToString(x.sum.Sum(nil))
	if err := x.write(kindEnd, x.end); err != nil {
		return ExportEnd{}, err
	}
	if err := errors.Join(x.out.Flush(), x.zip.Close()); err != nil {
		return ExportEnd{}, fmt.Errorf("exporting the audit log: %w", err)
	}
	return x.end, nil
}
