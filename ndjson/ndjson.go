// Package ndjson reads files of one JSON object a line in one gzip member, such that damage is seen: a file that ends early, that was changed
// on its way, or behind which something follows is refused with the line where that was found. What the lines mean is the caller's.
package ndjson

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// DamagedError says that a file is not what it is said to be, or is not the file that was written.
type DamagedError struct {
	What string // is damaged, for people: "archive"
	Line int64  // counted from 1; 0: of no line
	Why  string
}

func (e *DamagedError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("the %s is damaged: %s", e.What, e.Why)
	}
	return fmt.Sprintf("the %s is damaged: line %d: %s", e.What, e.Line, e.Why)
}

// buffered is how much is read at a time, in octets.
const buffered = 1 << 16

// Reader reads lines.
type Reader struct {
	what    string
	longest int
	below   *bufio.Reader // the compressed octets
	lines   *bufio.Reader
	buffer  []byte
	at      int64 // line
}

// NewReader begins to read a file. what is what errors call it, longest the longest line that is taken, in octets with its end.
func NewReader(r io.Reader, what string, longest int) (*Reader, error) {
	x := &Reader{what: what, longest: longest, below: bufio.NewReaderSize(r, buffered)}
	zip, err := gzip.NewReader(x.below)
	if err != nil {
		return nil, x.damaged(err)
	}
	zip.Multistream(false) // what follows is looked at by itself
	x.lines = bufio.NewReaderSize(zip, buffered)
	return x, nil
}

// Line is the next line, with its end. It is good until the next call. A file that ends without one is damaged: the last line says that it is
// the last, and whoever knows what it says calls End instead.
func (x *Reader) Line() ([]byte, error) {
	x.at++
	line, err := x.lines.ReadSlice('\n')
	if err != nil { // it is longer than what is read at a time, or the last
		x.buffer = append(x.buffer[:0], line...)
		for errors.Is(err, bufio.ErrBufferFull) && len(x.buffer) <= x.longest {
			line, err = x.lines.ReadSlice('\n')
			x.buffer = append(x.buffer, line...)
		}
		line = x.buffer
	}
	switch {
	case len(line) > x.longest:
		return nil, x.Refuse("the line is too long")
	case err != nil:
		return nil, x.damaged(err)
	}
	return line, nil
}

// End returns nil where nothing follows the last line: neither under the checksum of the compression nor behind it.
func (x *Reader) End() error {
	if _, err := x.lines.ReadByte(); err != io.EOF { // reads to the checksum
		return x.Refuse("something follows its end")
	}
	if _, err := x.below.ReadByte(); err != io.EOF {
		return x.Refuse("something follows the compressed data")
	}
	return nil
}

// Refuse is a *DamagedError of the line that was read last.
func (x *Reader) Refuse(why string) error { return &DamagedError{What: x.what, Line: x.at, Why: why} }

// damaged tells a file that ends early, or whose compression is wrong, from a disk that cannot be read.
func (x *Reader) damaged(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return x.Refuse("it ends before its end")
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		return fmt.Errorf("reading an %s: %w", x.what, err)
	}
	return x.Refuse(err.Error())
}

// Exactly reads one JSON object into to, and refuses what another reader could read differently: fields that it does not have, that stand
// twice or in other letters, and whatever follows. What is inside of fields is the caller's to read in the same way.
func Exactly(data []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more than one object")
	}
	return plainNames(data)
}

// plainNames goes over a JSON object that was decoded, for encoding/json takes the last of the fields that stand twice, and "ROW" for "row".
func plainNames(object []byte) error {
	var names [][]byte
	depth, isName := 0, true
	for i := 0; i < len(object); i++ {
		switch object[i] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case ':', ',':
			if depth == 1 {
				isName = object[i] == ','
			}
		case '"':
			from := i + 1
			for i++; object[i] != '"'; i++ {
				if object[i] == '\\' {
					i++
				}
			}
			if depth != 1 || !isName {
				continue
			}
			name := object[from:i]
			if bytes.ContainsFunc(name, func(r rune) bool { return !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '_') }) {
				return fmt.Errorf("a field %q in other letters", name)
			}
			for _, other := range names {
				if bytes.Equal(other, name) {
					return fmt.Errorf("the field %q twice", name)
				}
			}
			names = append(names, name)
		}
	}
	return nil
}
