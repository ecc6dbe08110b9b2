package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"strconv"

	"github.com/chancery-ca/chancery/ndjson"
)

// DamagedError says that a file is no export, or not the export that it was.
type DamagedError = ndjson.DamagedError

const (
	// longestLine of an export, in octets.
	longestLine = maxNote*2 + MaxLeaf
	// mostNotes is how many checkpoints a batch has at most, so that they take no more memory than its leaves.
	mostNotes = 64
)

// ExportReader reads an export. That the file is the one that was written is known when Next has returned io.EOF; that its leaves are those
// of the log, when Verify has held them against its checkpoints.
type ExportReader struct {
	Header ExportHeader
	End    ExportEnd // once Next has returned io.EOF

	file  *ndjson.Reader
	sum   hash.Hash
	next  int64 // index
	notes int
	noted int64  // the index before which the last checkpoint stands; -1: there was none
	ahead []byte // a line that belongs to the next batch
	done  bool
}

// NewExportReader reads the header of an export.
func NewExportReader(r io.Reader) (*ExportReader, error) {
	file, err := ndjson.NewReader(r, "export", longestLine)
	if err != nil {
		return nil, err
	}
	x := &ExportReader{file: file, sum: sha256.New(), noted: -1}
	raw, err := file.Line()
	if err != nil {
		return nil, err
	}
	var l exportLine
	if ndjson.Exactly(raw, &l) != nil || l.Kind != kindHeader || ndjson.Exactly(l.Row, &x.Header) != nil || x.Header.Format != ExportFormat {
		return nil, x.refuse("it does not begin with the header of a " + ExportFormat)
	}
	if _, err := x.Header.Start(); err != nil {
		return nil, x.refuse(err.Error())
	}
	x.sum.Write(raw)
	x.next = x.Header.From
	return x, nil
}

// Next reads the next run of at most so many entries, with the checkpoints that follow it: of a size there is one at most. After the last comes io.EOF, when all that the
// end says has been found true. The batch has no number.
func (x *ExportReader) Next(most int64) (b Batch, err error) {
	if x.done {
		return b, io.EOF
	}
	b.From, b.To = x.next, x.next
	var room []byte
	for {
		raw := x.ahead
		if x.ahead = nil; raw == nil {
			if raw, err = x.file.Line(); err != nil {
				return Batch{}, err
			}
		}
		if leaf, ok := x.leaf(raw); ok {
			if b.To-b.From == most {
				x.ahead = raw
				return b, nil
			}
			x.sum.Write(raw)
			if len(leaf) > cap(room)-len(room) {
				room = make([]byte, 0, max(1<<20, len(leaf)))
			}
			from := len(room)
			room = append(room, leaf...)
			b.Entries = append(b.Entries, Entry{Index: x.next, Leaf: room[from:len(room):len(room)]})
			x.next++
			b.To = x.next
			continue
		}
		var l exportLine
		if err := ndjson.Exactly(raw, &l); err != nil {
			return Batch{}, x.refuse("it is no line of an export: " + err.Error())
		}
		switch l.Kind {
		case kindUnread:
			if b.To-b.From == most {
				x.ahead = raw
				return b, nil
			}
			hash, err := x.unread(l.Row)
			if err != nil {
				return Batch{}, err
			}
			x.sum.Write(raw)
			b.Entries = append(b.Entries, Entry{Index: x.next, Hash: hash})
			x.next++
			b.To = x.next
		case kindCheckpoint:
			var n exportNote
			if err := ndjson.Exactly(l.Row, &n); err != nil {
				return Batch{}, x.refuse("it is no checkpoint: " + err.Error())
			}
			if x.noted == x.next {
				return Batch{}, x.refuse(fmt.Sprintf("a second checkpoint stands before index %d", x.next))
			}
			x.sum.Write(raw)
			x.notes++
			x.noted = x.next
			b.Checkpoints = append(b.Checkpoints, Note{Text: []byte(n.Note), Where: "in the export"})
			if len(b.Checkpoints) == mostNotes {
				return b, nil
			}
		case kindEnd:
			if err := x.close(l.Row); err != nil {
				return Batch{}, err
			}
			x.done = true
			return b, nil
		default:
			return Batch{}, x.refuse(fmt.Sprintf("a line of kind %q, or a leaf without the index %d, does not stand here", l.Kind, x.next))
		}
	}
}

// unread reads the hash of the next leaf where the export has no more of it.
func (x *ExportReader) unread(row []byte) ([]byte, error) {
	var u exportUnread
	if err := ndjson.Exactly(row, &u); err != nil {
		return nil, x.refuse("it is no leaf that cannot be read: " + err.Error())
	}
	hash, err := hex.DecodeString(u.Hash)
	if err != nil || len(hash) != sha256.Size || hex.EncodeToString(hash) != u.Hash || u.Index != x.next {
		return nil, x.refuse(fmt.Sprintf("a leaf that cannot be read, of index %d, does not stand here, or has no hash", u.Index))
	}
	return hash, nil
}

// leaf reads the line of the next leaf.
func (x *ExportReader) leaf(line []byte) (leaf []byte, ok bool) {
	rest, ok := bytes.CutPrefix(line, []byte(leafOpening))
	if !ok {
		return nil, false
	}
	var number [20]byte
	if rest, ok = bytes.CutPrefix(rest, strconv.AppendInt(number[:0], x.next, 10)); !ok {
		return nil, false
	}
	if rest, ok = bytes.CutPrefix(rest, []byte(leafMiddle)); !ok {
		return nil, false
	}
	leaf, ok = bytes.CutSuffix(rest, []byte("}\n"))
	return leaf, ok && len(leaf) <= MaxLeaf
}

// close holds what was read against what the end says.
func (x *ExportReader) close(row []byte) error {
	if err := ndjson.Exactly(row, &x.End); err != nil {
		return x.refuse("its end cannot be read: " + err.Error())
	}
	switch {
	case x.End.SHA256 != hex.EncodeToString(x.sum.Sum(nil)):
		return x.refuse("its octets are not those whose SHA-256 stands at its end")
	case x.End.To != x.next || x.End.Checkpoints != x.notes:
		return x.refuse(fmt.Sprintf("it has %d leaves and %d checkpoints, and says something else", x.next-x.Header.From, x.notes))
	}
	return x.file.End()
}

func (x *ExportReader) refuse(why string) error { return x.file.Refuse(why) }
