package keeper

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// maxLine bounds a line of the journal: one that holds the memory of many keys, each with many CRL scopes, is the longest.
const maxLine = 16 << 20

// lineReader reads lines that end with a line feed, and tells of a last one that does not.
type lineReader struct{ from *bufio.Reader }

func newLineReader(r io.Reader) *lineReader { return &lineReader{bufio.NewReaderSize(r, 1<<20)} }

// next returns a line without its line feed. At the end it returns io.EOF and how many octets follow the last line.
func (l *lineReader) next() (line []byte, torn int, err error) {
	for {
		part, err := l.from.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return bytes.TrimSuffix(line, []byte{'\n'}), 0, nil
		case errors.Is(err, io.EOF):
			return nil, len(line), io.EOF
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, 0, err
		case len(line) > maxLine:
			return nil, 0, fmt.Errorf("a line has more than %d octets", maxLine)
		}
	}
}
