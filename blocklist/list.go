package blocklist

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"os"
	"sort"
	"strings"
	"unicode"
	"unicode/utf8"
)

// List is one list, open. It is safe for concurrent use; nobody may look a key up after Close.
type List struct {
	source io.ReaderAt
	title  string
	digest [sha256.Size]byte
	fanout [257]int64  // how many digests have a first octet below the index
	file   os.FileInfo // as it was when it was opened
	close  func() error
}

// Open opens a list and reads it once to the end: a file that is not, to the bit, what was written is an error that wraps ErrFormat.
func Open(path string) (*List, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening a list of keys: %w", err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w: not a regular file", ErrFormat)
	}
	var list *List
	if err == nil {
		list, err = read(file, info.Size())
	}
	if err != nil {
		_ = file.Close() // it was only read
		return nil, fmt.Errorf("opening the list of keys %s: %w", path, err)
	}
	list.file, list.close = info, file.Close
	return list, nil
}

// Title says what keys these are.
func (l *List) Title() string { return l.title }

// Len is how many keys there are.
func (l *List) Len() int64 { return l.fanout[256] }

// Digest is the SHA-256 that the file holds of itself: two lists with the same digest are the same.
func (l *List) Digest() [sha256.Size]byte { return l.digest }

// Close ends the use of the list.
func (l *List) Close() error { return l.close() }

// Contains tells whether a key is in the list. Digests are as good as evenly spread, so the first look is at where the key should be; a list
// that somebody arranged otherwise is halved from there on.
func (l *List) Contains(key Key) (bool, error) {
	low, high := l.fanout[key[0]], l.fanout[int(key[0])+1]
	part, _ := bits.Mul64(binary.BigEndian.Uint64(key[1:]), uint64(high-low))
	at := low + int64(part)
	var buffer [blockOf * keySize]byte
	for low < high {
		first := max(low, min(at-blockOf/2, high-blockOf))
		n := int(min(high-first, blockOf))
		block := buffer[:n*keySize]
		if _, err := l.source.ReadAt(block, keysAt+first*keySize); err != nil {
			return false, fmt.Errorf("reading the list of keys %q: %w", l.title, err)
		}
		i := sort.Search(n, func(i int) bool { return bytes.Compare(block[i*keySize:(i+1)*keySize], key[:]) >= 0 })
		switch {
		case i < n && bytes.Equal(block[i*keySize:(i+1)*keySize], key[:]):
			return true, nil
		case i == 0:
			high = first
		case i == n:
			low = first + int64(n)
		default:
			return false, nil
		}
		at = low + (high-low)/2
	}
	return false, nil
}

// read reads a whole file, checks it, and keeps its head.
func read(source io.ReaderAt, size int64) (*List, error) {
	var head [keysAt]byte
	if size < keysAt {
		return nil, fmt.Errorf("%w: it is too short", ErrFormat)
	}
	if _, err := source.ReadAt(head[:], 0); err != nil {
		return nil, fmt.Errorf("reading its head: %w", err)
	}
	l := &List{source: source, close: func() error { return nil }, digest: [sha256.Size]byte(head[digestAt:fillAt])}
	count := binary.BigEndian.Uint64(head[countAt:])
	switch {
	case string(head[:countAt]) != magic:
		return nil, fmt.Errorf("%w: it does not begin as one", ErrFormat)
	case count > maxKeys || size != keysAt+int64(count)*keySize:
		return nil, fmt.Errorf("%w: it is not as long as it says", ErrFormat)
	}
	l.title = strings.TrimRight(string(head[titleAt:digestAt]), "\x00")
	if problem := titleProblem(l.title); problem != "" {
		return nil, fmt.Errorf("%w: its title %s", ErrFormat, problem)
	}
	for i := range 256 {
		n := binary.BigEndian.Uint64(head[fanoutAt+8*i:])
		if n < uint64(l.fanout[i]) || n > count {
			return nil, fmt.Errorf("%w: its table does not rise", ErrFormat)
		}
		l.fanout[i+1] = int64(n)
	}
	if l.Len() != int64(count) {
		return nil, fmt.Errorf("%w: its table does not cover it", ErrFormat)
	}
	return l, l.check(head, size)
}

// check reads the digests to the end: they rise, stand where the table says, and have the sum that the head holds.
func (l *List) check(head [keysAt]byte, size int64) error {
	sum := sha256.New()
	sum.Write(head[:digestAt])
	sum.Write(head[fillAt:])
	keys := bufio.NewReaderSize(io.NewSectionReader(l.source, keysAt, size-keysAt), bufferSize)
	var before, key Key
	for i := range l.Len() {
		if _, err := io.ReadFull(keys, key[:]); err != nil {
			return fmt.Errorf("reading its digests: %w", err)
		}
		if i > 0 && bytes.Compare(before[:], key[:]) >= 0 || i < l.fanout[key[0]] || i >= l.fanout[int(key[0])+1] {
			return fmt.Errorf("%w: digest %d is out of order", ErrFormat, i)
		}
		sum.Write(key[:])
		before = key
	}
	if !bytes.Equal(sum.Sum(nil), l.digest[:]) {
		return fmt.Errorf("%w: its sum is not the one that it holds", ErrFormat)
	}
	return nil
}

// titleProblem says why a list cannot have a title.
func titleProblem(title string) string {
	switch {
	case title == "":
		return "is empty"
	case len(title) > maxTitle:
		return fmt.Sprintf("has more than %d octets", maxTitle)
	case !utf8.ValidString(title) || strings.ContainsFunc(title, func(r rune) bool { return !unicode.IsGraphic(r) }):
		return "holds characters that cannot be printed"
	}
	return ""
}
