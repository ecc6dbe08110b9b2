package blocklist

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// Write makes the file of a list, or replaces it whole: who has the old one open keeps it. The keys are sorted in place, and a key that is
// given twice is written once. It returns how many there are. A crash leaves the old file, or none, and perhaps one beside it whose name
// begins with a dot.
func Write(path, title string, keys []Key) (n int, err error) {
	if problem := titleProblem(title); problem != "" {
		return 0, fmt.Errorf("writing a list of keys: the title %s", problem)
	}
	slices.SortFunc(keys, func(a, b Key) int { return bytes.Compare(a[:], b[:]) })
	keys = slices.Compact(keys)
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return 0, fmt.Errorf("writing a list of keys: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing the list of keys %s: %w", path, errors.Join(err, os.Remove(file.Name())))
		}
	}()
	err = write(file, title, keys)
	if err == nil {
		err = file.Chmod(0o644) // keys are public
	}
	if err == nil {
		err = file.Sync() // before the name is given: a list that is there is whole
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return 0, err
	}
	return len(keys), os.Rename(file.Name(), path)
}

func write(w io.Writer, title string, keys []Key) error {
	var head [keysAt]byte
	copy(head[:], magic)
	binary.BigEndian.PutUint64(head[countAt:], uint64(len(keys)))
	copy(head[titleAt:digestAt], title)
	for first, i := 0, 0; first < 256; first++ {
		for i < len(keys) && int(keys[i][0]) <= first {
			i++
		}
		binary.BigEndian.PutUint64(head[fanoutAt+8*first:], uint64(i))
	}
	sum := sha256.New()
	sum.Write(head[:digestAt])
	sum.Write(head[fillAt:])
	for _, key := range keys {
		sum.Write(key[:])
	}
	copy(head[digestAt:], sum.Sum(nil))
	out := bufio.NewWriterSize(w, bufferSize)
	out.Write(head[:]) //nolint:errcheck // Flush tells
	for _, key := range keys {
		out.Write(key[:]) //nolint:errcheck // Flush tells
	}
	return out.Flush()
}
