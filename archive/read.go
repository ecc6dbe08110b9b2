package archive

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/chancery-ca/chancery/ndjson"
)

// maxLine is the longest line that a reader takes, in octets: a request of 1 MiB is twice as long in hexadecimal.
const maxLine = 16 << 20

// DamagedError says that a file is not an archive, or is not the archive that it was.
type DamagedError = ndjson.DamagedError

// what errors call the file.
const what = "archive"

// Record is a row of an archive.
type Record struct {
	Kind  Kind
	Row   json.RawMessage // until the next call of Next
	LedTo *LedTo          // of a request: the certificate that came of it, whichever month that is in; nil: none
}

// Reader reads an archive. What it has handed out is proven only when Next has returned io.EOF.
type Reader struct {
	Header Header
	End    End // once Next has returned io.EOF

	file  *ndjson.Reader
	sum   hash.Hash
	seen  End
	certs digest
	reqs  digest
	last  int
	err   error
}

// NewReader reads the header of an archive.
func NewReader(r io.Reader) (*Reader, error) {
	file, err := ndjson.NewReader(r, what, maxLine)
	if err != nil {
		return nil, err
	}
	a := &Reader{file: file, sum: sha256.New(), seen: End{Counts: map[Kind]int64{}}}
	l, err := a.line()
	if err != nil {
		return nil, err
	}
	if l.Kind != KindHeader || json.Unmarshal(l.Row, &a.Header) != nil || a.Header.Format != Format {
		return nil, a.refuse("it does not begin with the header of a " + Format)
	}
	low, err1 := hex.DecodeString(a.Header.SerialsFrom)
	high, err2 := hex.DecodeString(a.Header.SerialsUntil)
	if err1 != nil || err2 != nil || bytes.Compare(low, high) >= 0 {
		return nil, a.refuse("its header names no range of serials")
	}
	return a, nil
}

// Next is the next row; io.EOF after the last, when all that the file's end says of it has been found true. Any other error stays.
func (a *Reader) Next() (Record, error) {
	if a.err != nil {
		return Record{}, a.err
	}
	r, err := a.next()
	a.err = err
	return r, err
}

func (a *Reader) next() (Record, error) {
	before := a.sum.Sum(nil)
	l, err := a.line()
	if err != nil {
		return Record{}, err
	}
	if l.Kind == KindEnd {
		return Record{}, a.close(l.Row, before)
	}
	place := slices.Index(kinds, l.Kind)
	if place < a.last {
		return Record{}, a.refuse(fmt.Sprintf("a row of kind %q does not stand here", l.Kind))
	}
	a.last = place
	if l.LedTo != nil && l.Kind != KindRequest {
		return Record{}, a.refuse(fmt.Sprintf("a row of kind %q leads to nothing", l.Kind))
	}
	if err := a.seen.count(l.Kind, l.Row, &a.certs, &a.reqs); err != nil {
		return Record{}, a.refuse(err.Error())
	}
	if l.Kind == KindCertificate && (a.seen.LastSerial < a.Header.SerialsFrom || a.seen.LastSerial >= a.Header.SerialsUntil) {
		return Record{}, a.refuse("certificate " + a.seen.LastSerial + " is not of the month " + a.Header.Month.String())
	}
	return Record(l), nil
}

// close holds what was read against what the end says.
func (a *Reader) close(row, sum []byte) error {
	a.seen.CertificatesDigest, a.seen.RequestsDigest = hex.EncodeToString(a.certs[:]), hex.EncodeToString(a.reqs[:])
	a.seen.SHA256 = hex.EncodeToString(sum)
	var end End
	if err := ndjson.Exactly(row, &end); err != nil {
		return a.refuse("its end cannot be read: " + err.Error())
	}
	switch {
	case end.SHA256 != a.seen.SHA256:
		return a.refuse("its octets are not those whose SHA-256 stands at its end")
	case !maps.Equal(end.Counts, a.seen.Counts):
		return a.refuse(fmt.Sprintf("it holds %v rows and says %v", a.seen.Counts, end.Counts))
	case end.CertificatesDigest != a.seen.CertificatesDigest || end.RequestsDigest != a.seen.RequestsDigest:
		return a.refuse("its rows are not those whose digests stand at its end")
	case end.FirstSerial != a.seen.FirstSerial || end.LastSerial != a.seen.LastSerial:
		return a.refuse("its first or last serial is not the one at its end")
	}
	if err := a.file.End(); err != nil {
		return err
	}
	a.End = end
	return io.EOF
}

// line reads a line. The row is good until the next.
func (a *Reader) line() (line, error) {
	raw, err := a.file.Line()
	if err != nil {
		return line{}, err
	}
	a.sum.Write(raw)
	var l line
	if err := ndjson.Exactly(raw, &l); err != nil {
		return line{}, a.refuse(err.Error())
	}
	if len(l.Row) == 0 || l.Row[0] != '{' {
		return line{}, a.refuse("there is no row in it")
	}
	return l, nil
}

func (a *Reader) refuse(why string) error { return a.file.Refuse(why) }

// File is an archive on disk.
type File struct {
	*Reader
	file   *os.File
	sum    hash.Hash
	octets int64
}

// Open opens an archive. Close it.
func Open(path string) (*File, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening an archive: %w", err)
	}
	return openFile(file, path)
}

// Path is where the archive is in a directory. Its name, which the service has written, must be a plain one: it leads nowhere else.
func (m Made) Path(dir string) (string, error) {
	if m.File == "." || m.File == ".." || m.File == "" || strings.ContainsAny(m.File, "/\\\x00") {
		return "", fmt.Errorf("the archive of %s is on record as %q, which is no name of a file", m.Month, m.File)
	}
	return filepath.Join(dir, m.File), nil
}

// open opens an archive on record. It must be a regular file, and opening does not wait for another end: what has its name is whatever the
// service has put there.
func (m Made) open(dir string) (f *File, path string, err error) {
	if path, err = m.Path(dir); err != nil {
		return nil, "", err
	}
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, path, fmt.Errorf("opening an archive: %w", err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("no regular file")
	}
	if err != nil {
		return nil, path, errors.Join(fmt.Errorf("opening an archive: %s: %w", path, err), file.Close())
	}
	f, err = openFile(file, path)
	return f, path, err
}

func openFile(file *os.File, path string) (*File, error) {
	var err error
	f := &File{file: file, sum: sha256.New()}
	if f.Reader, err = NewReader(io.TeeReader(file, f)); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), file.Close())
	}
	return f, nil
}

// Write takes the octets that were read into the account of the file. It is for the reader alone.
func (f *File) Write(p []byte) (int, error) {
	f.octets += int64(len(p))
	return f.sum.Write(p)
}

// Sum is the SHA-256 of the whole file and its length, once Next has returned io.EOF.
func (f *File) Sum() (sum [32]byte, octets int64) {
	f.sum.Sum(sum[:0])
	return sum, f.octets
}

// Close closes the file.
func (f *File) Close() error { return f.file.Close() }

// Verified is a file that was read to its end, and all of it found to be as its end says.
type Verified struct {
	Header Header
	End    End
	Octets int64
	SHA256 [32]byte // of the file
}

// Is tells whether a file is this archive: octet by octet, and with the rows that the database counted and digested when it let go of them.
// What a file says at its own end is no proof: whoever can write it can write that anew.
func (m Made) Is(v Verified) bool {
	return v.SHA256 == m.SHA256 &&
		v.End.Counts[KindCertificate] == m.Certificates && v.End.CertificatesDigest == hex.EncodeToString(m.CertificatesDigest[:]) &&
		v.End.Counts[KindRequest] == m.Requests && v.End.RequestsDigest == hex.EncodeToString(m.RequestsDigest[:])
}

// Verify reads a file to its end. It ends early, with the context's error, when the context does: a file may take minutes.
func Verify(ctx context.Context, path string) (Verified, error) {
	return Each(ctx, path, func(Record) error { return nil })
}

// Each hands out every row of a file, which is verified by the time that it returns nil. It ends early as Verify does, and with an error of
// do.
func Each(ctx context.Context, path string, do func(Record) error) (v Verified, err error) {
	f, err := Open(path)
	if err != nil {
		return v, err
	}
	return f.each(ctx, path, do)
}

// Each hands out every row of an archive on record, in a directory. When it returns nil, the file was that very archive.
func (m Made) Each(ctx context.Context, dir string, do func(Record) error) error {
	f, path, err := m.open(dir)
	if err != nil {
		return err
	}
	v, err := f.each(ctx, path, do)
	if err == nil && !m.Is(v) {
		err = fmt.Errorf("%s is not the archive that the database has on record", path)
	}
	return err
}

// each reads to the end, and closes.
func (f *File) each(ctx context.Context, path string, do func(Record) error) (v Verified, err error) {
	defer func() { err = errors.Join(err, f.Close()) }()
	for {
		r, err := f.Next()
		if err == io.EOF {
			break
		}
		if err = cmp.Or(err, ctx.Err()); err == nil {
			err = do(r)
		}
		if err != nil {
			return v, fmt.Errorf("%s: %w", path, err)
		}
	}
	v = Verified{Header: f.Header, End: f.End}
	v.SHA256, v.Octets = f.Sum()
	return v, nil
}
