package delivery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// File is a file that gets one line of JSON for each entry. What it holds is on the disk before the cursor moves.
type File struct {
	Path   string
	Rotate int64 // octets from which on the file is put aside; 0: never. Whoever moves it away meanwhile (logrotate) is noticed.

	file *os.File
	size int64
	last int64  // index of its last line; -1: none
	line []byte // that line
	// unsure says that lines past the cursor may stand in the file and not be on the disk: since it was opened nothing was synced.
	unsure bool
	sync   func(*os.File) error // nil: fsync
}

// maxLine is more than the longest line: a leaf, its index and the rest.
const maxLine = 32 << 10

// Send appends lines and has them on the disk. What the file has already, after a crash or a failure, is written again in its place: a disk
// that failed to sync may have dropped it, and would say nothing of that at the next sync. Where it is not what the entries are, it was
// dropped, and they are appended.
func (f *File) Send(_ context.Context, entries []Entry) error {
	if err := f.open(); err != nil {
		return err
	}
	if f.Rotate > 0 && f.size >= f.Rotate && entries[0].Index > f.last {
		// What it holds is not sent again: what comes after it is. Put aside sooner, it would not be there to tell what is written already.
		if err := f.putAside(); err != nil {
			return err
		}
		if err := f.open(); err != nil {
			return err
		}
	}
	var lines, written bytes.Buffer
	last, lastLine := f.last, f.line
	for _, e := range entries {
		line := e.line()
		if e.Index <= f.last {
			if e.Index == f.last && !bytes.Equal(line, f.line) {
				return fmt.Errorf("%s holds entry %d of another log: move the file away", f.Path, e.Index)
			}
			written.Write(line)
			written.WriteByte('\n')
			continue
		}
		lines.Write(line)
		lines.WriteByte('\n')
		last, lastLine = e.Index, line
	}
	if f.last > entries[len(entries)-1].Index {
		return fmt.Errorf("%s ends with entry %d, which was not delivered yet: it is of another log; move the file away", f.Path, f.last)
	}
	if f.unsure && written.Len() > 0 {
		stands, err := f.writeAgain(written.Bytes())
		if err != nil {
			return errors.Join(err, f.Close())
		}
		if !stands {
			written.Write(lines.Bytes())
			lines = written
		}
	}
	if _, err := f.file.Write(lines.Bytes()); err != nil {
		return errors.Join(fmt.Errorf("writing to %s: %w", f.Path, err), f.Close()) // the next open cuts off what is torn
	}
	sync := (*os.File).Sync
	if f.sync != nil {
		sync = f.sync
	}
	if err := sync(f.file); err != nil {
		return errors.Join(fmt.Errorf("writing to %s: %w", f.Path, err), f.Close()) // what is written again after the next open
	}
	f.unsure = false
	f.size, f.last, f.line = f.size+int64(lines.Len()), last, lastLine
	return nil
}

// writeAgain writes the last lines of the file over themselves, so that the next sync has them on the disk; a reader sees no change. stands
// is false when they are not there.
func (f *File) writeAgain(lines []byte) (stands bool, err error) {
	from := f.size - int64(len(lines))
	there := make([]byte, len(lines))
	if from < 0 {
		return false, nil
	}
	if _, err := f.file.ReadAt(there, from); err != nil {
		return false, fmt.Errorf("reading %s: %w", f.Path, err)
	}
	if !bytes.Equal(there, lines) {
		return false, nil
	}
	over, err := os.OpenFile(f.Path, os.O_WRONLY, 0) // the other only appends
	if err != nil {
		return false, fmt.Errorf("opening %s to write again what it ends with: %w", f.Path, err)
	}
	at, err := over.Stat()
	here, errHere := f.file.Stat()
	switch {
	case err != nil || errHere != nil:
		err = errors.Join(err, errHere)
	case !os.SameFile(at, here):
		err = errors.New("it was moved away") // the next open sees what is there now
	default:
		_, err = over.WriteAt(lines, from)
	}
	if err = errors.Join(err, over.Close()); err != nil {
		return false, fmt.Errorf("writing again what %s ends with: %w", f.Path, err)
	}
	return true, nil
}

// open opens the file, unless it is open and still the one at its path. A torn last line, of a crash, is cut off.
func (f *File) open() error {
	if f.file != nil {
		at, err := os.Stat(f.Path)
		here, errHere := f.file.Stat()
		if err == nil && errHere == nil && os.SameFile(at, here) {
			return nil
		}
		if err := f.Close(); err != nil {
			return fmt.Errorf("closing the file that was %s: %w", f.Path, err)
		}
	}
	_, err := os.Stat(f.Path)
	isNew := errors.Is(err, fs.ErrNotExist)
	file, err := os.OpenFile(f.Path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return fmt.Errorf("opening a file for the audit log: %w", err)
	}
	f.file, f.last, f.line, f.unsure = file, -1, nil, true
	if err := f.resume(); err != nil {
		return errors.Join(err, f.Close())
	}
	if isNew {
		if err := f.file.Chmod(0o640); err != nil { // whatever the umask: whoever ships it elsewhere may be of the group
			return errors.Join(fmt.Errorf("opening a file for the audit log: %w", err), f.Close())
		}
		return syncDir(f.Path)
	}
	return nil
}

// resume finds the last whole line.
func (f *File) resume() error {
	end, err := f.file.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("reading %s: %w", f.Path, err)
	}
	from := max(0, end-2*maxLine)
	tail := make([]byte, end-from)
	if _, err := f.file.ReadAt(tail, from); err != nil {
		return fmt.Errorf("reading %s: %w", f.Path, err)
	}
	whole := bytes.LastIndexByte(tail, '\n') + 1
	if whole == 0 && end > maxLine {
		return fmt.Errorf("%s does not hold lines: it is no file of the audit log", f.Path)
	}
	if !tornLine(tail[whole:]) {
		return fmt.Errorf("%s does not end with a line of the audit log: move the file away", f.Path)
	}
	if whole > 0 {
		f.line = tail[bytes.LastIndexByte(tail[:whole-1], '\n')+1 : whole-1]
		var last struct {
			Index *int64 `json:"index"`
		}
		if err := json.Unmarshal(f.line, &last); err != nil || last.Index == nil {
			return fmt.Errorf("the last line of %s is none of the audit log: move the file away", f.Path)
		}
		f.last = *last.Index
	}
	f.size = from + int64(whole)
	if f.size < end {
		if err := f.file.Truncate(f.size); err != nil {
			return fmt.Errorf("cutting a torn line off %s: %w", f.Path, err)
		}
	}
	return nil
}

// tornLine tells whether a text can be what a crash has left of a line: its beginning, or zeros where the disk had not come to it.
func tornLine(text []byte) bool {
	n := min(len(text), len(opening))
	return string(text[:n]) == opening[:n] || len(bytes.Trim(text, "\x00")) == 0
}

// putAside renames the file by the index of its last entry.
func (f *File) putAside() error {
	aside := fmt.Sprintf("%s.%012d", f.Path, f.last)
	if _, err := os.Lstat(aside); err == nil {
		return fmt.Errorf("putting %s aside: %s is there already", f.Path, aside)
	}
	if err := os.Rename(f.Path, aside); err != nil {
		return fmt.Errorf("putting a file of the audit log aside: %w", err)
	}
	return errors.Join(syncDir(f.Path), f.Close())
}

func syncDir(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("opening the directory of %s: %w", path, err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Close closes the file, if it is open.
func (f *File) Close() error {
	if f.file == nil {
		return nil
	}
	err := f.file.Close()
	f.file = nil
	return err
}
