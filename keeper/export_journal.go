package keeper

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"
)

// ErrNotThisJournal is returned when a copy is not the beginning of the journal: one of the two was changed, cut off or begun anew.
var ErrNotThisJournal = errors.New("the copy is not the beginning of this journal")

// errExports is no reason to wait: whoever can read the copy can lock it, and that exports stand still must be seen.
var errExports = errors.New("somebody else has the copy locked, as another export does while it writes to it: try again")

// ExportJournal appends to a copy what the journal has more, and makes it durable: for an auditor who may not reach the keeper's directory.
// What the copy has must be what the journal begins with, octet by octet, and what follows must follow in the chain. The copy is made when
// there is none, readable by its group. A keeper may be writing meanwhile; of a line without an end nothing is copied, and what is copied is
// first made durable in the journal as well, so that no crash leaves less there than in the copy. The place returned is the end of the copy.
// Of two exports to one copy at once, one fails. When the journal is found broken, all that comes before is copied, and the error is a *BrokenJournalError.
func ExportJournal(journal, path string) (end JournalPlace, err error) {
	from, err := os.Open(journal)
	if err != nil {
		return end, fmt.Errorf("exporting the journal: %w", err)
	}
	defer from.Close()
	to, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return end, fmt.Errorf("exporting the journal: %w", err)
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	if syscall.Flock(int(to.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return end, fmt.Errorf("exporting the journal to %s: %w", path, errExports)
	}
	begin, err := agree(from, to)
	if err != nil {
		return begin, fmt.Errorf("exporting the journal to %s: %w", path, err)
	}
	end, broken := settled(from, begin)
	if broken != nil && !errors.As(broken, new(*BrokenJournalError)) {
		return begin, fmt.Errorf("exporting the journal: %w", broken)
	}
	if err := datasync(int(from.Fd())); err != nil {
		return begin, fmt.Errorf("exporting the journal: making it durable: %w", err)
	}
	if _, err := from.Seek(begin.Octets, io.SeekStart); err != nil {
		return begin, fmt.Errorf("exporting the journal: %w", err)
	}
	if _, err := io.CopyN(to, from, end.Octets-begin.Octets); err != nil {
		return begin, fmt.Errorf("exporting the journal to %s: %w", path, err)
	}
	if err := to.Sync(); err != nil {
		return begin, fmt.Errorf("exporting the journal to %s: %w", path, err)
	}
	return end, broken
}

// settled reads a journal from a place on, and again, until two readings agree: where a keeper replaces a torn line at this very moment, a reading
// can have a piece of each, which is no entry, or none that stays. What is broken, stays broken.
func settled(journal io.ReadSeeker, begin JournalPlace) (end JournalPlace, err error) {
	const readings = 10
	for reading := range readings {
		if _, err := journal.Seek(begin.Octets, io.SeekStart); err != nil {
			return begin, err
		}
		seen := end == begin
		last, _, read := ReadJournal(journal, begin, func(_ JournalEntry, at JournalPlace) error {
			seen = seen || at == end
			return nil
		})
		var broken *BrokenJournalError
		if read != nil && !errors.As(read, &broken) {
			return begin, read
		}
		if reading > 0 && seen && (err == nil || read != nil && last == end) {
			return end, err
		}
		end, err = last, read
	}
	return begin, fmt.Errorf("its end was another one at each of %d readings", readings)
}

// agree reads the copy, and the journal beside it, and leaves both after the copy's last whole line, which is the place that it returns.
// What a crash left of a line is removed from the copy.
func agree(journal, copied *os.File) (end JournalPlace, err error) {
	mine, theirs := bufio.NewReaderSize(copied, 1<<20), bufio.NewReaderSize(journal, 1<<20)
	var last, beside []byte
	for {
		line, err := mine.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return end, err
		}
		beside = slices.Grow(beside[:0], len(line))[:len(line)]
		switch _, err := io.ReadFull(theirs, beside); {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return end, fmt.Errorf("%w: the journal ends before entry %d", ErrNotThisJournal, end.Entries+1)
		case err != nil:
			return end, err
		case !bytes.Equal(line, beside):
			return end, fmt.Errorf("%w: they differ in entry %d", ErrNotThisJournal, end.Entries+1)
		}
		last = line
		end.Octets, end.Entries = end.Octets+int64(len(line)), end.Entries+1
	}
	if last != nil {
		var e entry
		if err := json.Unmarshal(last, &e); err != nil || e.Seq != end.Entries {
			return end, fmt.Errorf("%w: entry %d cannot be read", ErrNotThisJournal, end.Entries)
		}
		head := sha256.Sum256(bytes.TrimSuffix(last, []byte{'\n'}))
		end.Head = hex.EncodeToString(head[:])
	}
	if err := copied.Truncate(end.Octets); err != nil {
		return end, err
	}
	_, err = journal.Seek(end.Octets, io.SeekStart)
	return end, err
}
