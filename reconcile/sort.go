package reconcile

import (
	"bufio"
	"bytes"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// sorted takes records in any order and gives them back in the order of their octets. What does not fit into memory waits in files, which
// have no name and are gone with the process.
type sorted struct {
	dir   string // for the files
	most  int    // octets that are held in memory
	held  []byte
	spans [][2]int // of the records that are held
	runs  []*os.File
}

// add takes a record of at most 4 GiB.
func (s *sorted) add(record []byte) error {
	if len(s.held)+len(record)+24*len(s.spans) > s.most && len(s.spans) > 0 {
		if err := s.spill(); err != nil {
			return err
		}
	}
	from := len(s.held)
	s.held = append(s.held, record...)
	s.spans = append(s.spans, [2]int{from, len(s.held)})
	return nil
}

func (s *sorted) order() {
	slices.SortFunc(s.spans, func(a, b [2]int) int { return bytes.Compare(s.held[a[0]:a[1]], s.held[b[0]:b[1]]) })
}

// spill writes what is held to a file.
func (s *sorted) spill() error {
	file, err := os.CreateTemp(s.dir, "reconcile-*")
	if err != nil {
		return fmt.Errorf("sorting on disk: %w", err)
	}
	s.runs = append(s.runs, file)
	if err := os.Remove(file.Name()); err != nil {
		return fmt.Errorf("sorting on disk: %w", err)
	}
	s.order()
	to := bufio.NewWriterSize(file, 1<<18)
	var head [binary.MaxVarintLen64]byte
	for _, at := range s.spans {
		record := s.held[at[0]:at[1]]
		_, _ = to.Write(head[:binary.PutUvarint(head[:], uint64(len(record)))]) // Flush tells
		_, _ = to.Write(record)
	}
	if err := to.Flush(); err != nil {
		return fmt.Errorf("sorting on disk: %w", err)
	}
	s.held, s.spans = s.held[:0], s.spans[:0]
	return nil
}

// each calls yield with every record in order. A record is yield's until the next.
func (s *sorted) each(yield func(record []byte) error) error {
	if len(s.runs) > 0 && len(s.spans) > 0 {
		if err := s.spill(); err != nil {
			return err
		}
	}
	s.order()
	for _, at := range s.spans { // nothing is on disk
		if err := yield(s.held[at[0]:at[1]]); err != nil {
			return err
		}
	}
	var m merge
	for _, file := range s.runs {
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("sorting on disk: %w", err)
		}
		if err := m.join(&run{from: bufio.NewReaderSize(file, 1<<18)}); err != nil {
			return err
		}
	}
	heap.Init(&m)
	for len(m) > 0 {
		if err := yield(m[0].record); err != nil {
			return err
		}
		switch err := m[0].next(); {
		case errors.Is(err, io.EOF):
			heap.Pop(&m)
		case err != nil:
			return err
		default:
			heap.Fix(&m, 0)
		}
	}
	return nil
}

// close gives the files back.
func (s *sorted) close() (err error) {
	for _, file := range s.runs {
		err = errors.Join(err, file.Close())
	}
	s.runs = nil
	return err
}

// run is a sorted file, and the record in it that comes next.
type run struct {
	from   *bufio.Reader
	record []byte
}

func (r *run) next() error {
	size, err := binary.ReadUvarint(r.from)
	if err != nil {
		return err
	}
	if uint64(cap(r.record)) < size {
		r.record = make([]byte, size)
	}
	r.record = r.record[:size]
	if _, err := io.ReadFull(r.from, r.record); err != nil {
		return fmt.Errorf("sorting on disk: a file is shorter than it was written: %v", err)
	}
	return nil
}

// merge is a heap of runs by their first records.
type merge []*run

func (m *merge) join(r *run) error {
	err := r.next()
	if errors.Is(err, io.EOF) {
		return nil
	}
	*m = append(*m, r)
	return err
}

func (m merge) Len() int           { return len(m) }
func (m merge) Less(i, j int) bool { return bytes.Compare(m[i].record, m[j].record) < 0 }
func (m merge) Swap(i, j int)      { m[i], m[j] = m[j], m[i] }
func (m *merge) Push(x any)        { *m = append(*m, x.(*run)) }
func (m *merge) Pop() any {
	old := *m
	last := old[len(old)-1]
	*m = old[:len(old)-1]
	return last
}
