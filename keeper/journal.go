package keeper

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/chancery-ca/chancery/hsm"
)

// What an entry of the journal can say of an operation, or of the journal itself.
const (
	resultSigned    = "signed"    // the signature left the keeper, or was about to
	resultFailed    = "failed"    // the guard allowed it, and no signature left
	resultRefused   = "refused"   // the guard, or a limit, refused it
	resultOpened    = "opened"    // the keeper began to use the journal
	resultRecovered = "recovered" // a line that a crash had torn was removed
	resultState     = "state"     // what the guards remember, written down again from time to time
	resultClosed    = "closed"    // a token went away, or could not be opened
)

const (
	// kindJournal is of the entries that are about the journal itself.
	kindJournal kind = "journal"
	// kindToken is of the entries that tell of a token that was opened, which is to say logged in to, or went away. Detail is its name, Scope
	// its serial number.
	kindToken kind = "token"
)

const (
	stateEvery = 10_000 // entries between two of resultState
	maxBatch   = 4096   // calls whose entries share one fsync
	maxEntry   = 64 << 10
	noHash     = "0000000000000000000000000000000000000000000000000000000000000000"
)

// journal is the file to which every operation is written before its result is told to anyone. Entries that wait at the same time share one
// write and one fsync.
//
// A crash before the fsync leaves an operation whose signature nobody has received, and perhaps a torn last line, which the next start
// removes and tells of. Of a write that fails (a full disk) the torn line is removed, and all that waited for it fails; an fsync that fails
// leaves the file in a state that nobody knows, so nothing is signed any more until a restart has read it, and written its end, again. A whole
// line is never taken out again.
type journal struct {
	file *os.File
	now  func() time.Time

	mu      sync.Mutex
	waiting []*pending
	writing bool      // somebody is in commit
	idle    sync.Cond // writing has become false
	closed  bool

	// Of whoever is writing.
	seq    uint64
	prev   string
	size   int64 // octets that are on the disk
	memory map[string]memory
	since  int // entries since the last that holds the memory
	broken error
	text   []byte // kept for the next
}

// pending are entries on their way.
type pending struct {
	entries []entry
	done    chan error
}

// openJournal opens the file, or makes it, and reads the end of it: the chain goes on from there. A keeper that still writes to it, and is
// about to end, is waited for.
func openJournal(path string, now func() time.Time) (*journal, error) {
	j, err := afterAnother(func() (*journal, error) { return readJournal(path, now) })
	if err != nil {
		return nil, fmt.Errorf("opening the journal %s: %w", path, err)
	}
	return j, nil
}

func readJournal(path string, now func() time.Time) (_ *journal, err error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, file.Close())
		}
	}()
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, fmt.Errorf("%w is writing to it", errAnother)
	}
	j := &journal{file: file, now: now, prev: noHash, memory: map[string]memory{}}
	j.idle.L = &j.mu
	note, err := j.recover()
	if err != nil {
		return nil, err
	}
	if err := j.settle(path); err != nil {
		return nil, fmt.Errorf("making it durable: %w", err)
	}
	if note != nil {
		if err := j.commit([]entry{*note}); err != nil {
			return nil, err
		}
	}
	return j, j.commit([]entry{{Kind: kindJournal, Result: resultOpened, Memory: maps.Clone(j.memory)}})
}

// recover reads the file from the last entry that holds the memory on, and removes a torn last line. It returns what is to be noted of it.
func (j *journal) recover() (*entry, error) {
	info, err := j.file.Stat()
	if err != nil {
		return nil, err
	}
	tail, whole, err := j.tail(info.Size())
	if err != nil {
		return nil, err
	}
	torn := tail[bytes.LastIndexByte(tail, '\n')+1:]
	tail = tail[:len(tail)-len(torn)]
	check := chain{memory: map[string]memory{}}
	if !whole {
		check.trusting = true // of what came before, verify-journal is the judge
	}
	for len(tail) > 0 {
		end := bytes.IndexByte(tail, '\n')
		if err := check.line(tail[:end]); err != nil {
			return nil, fmt.Errorf("%w; keep the file for the investigation and begin another", err)
		}
		tail = tail[end+1:]
	}
	j.seq, j.memory = check.seq, check.memory
	if check.prev != "" {
		j.prev = check.prev
	}
	j.size = info.Size() - int64(len(torn))
	if len(torn) == 0 {
		return nil, nil
	}
	if err := errors.Join(j.file.Truncate(j.size), j.file.Sync()); err != nil {
		return nil, fmt.Errorf("removing a torn line: %w", err)
	}
	digest := sha256.Sum256(torn)
	return &entry{
		Kind: kindJournal, Result: resultRecovered, SHA256: hex.EncodeToString(digest[:]),
		Why: "a crash tore the last line, of which " + strconv.Itoa(len(torn)) + " octets were there; its signature was not released",
	}, nil
}

// settle makes durable what was read, and that the file is there. What an fsync could not write the kernel takes for written (fsync(2)): this start
// has read it from memory, and no later fsync would bring it to the disk. So the end of the file, of which that may be true, is written once more,
// as it is.
func (j *journal) settle(path string) error {
	const last = 8 << 20 // more than entries that wait at once have
	from := max(j.size-last, 0)
	end := make([]byte, j.size-from)
	if _, err := j.file.ReadAt(end, from); err != nil {
		return err
	}
	// What is open for appending writes nowhere else. A file that can only be appended to (chattr +a) is left as it is.
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = file.WriteAt(end, from)
		err = errors.Join(err, file.Sync(), file.Close())
	}
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// What the lines have that hold the memory. One that holds none says that there was nothing to remember. No text that is quoted in a line has
// quotation marks of its own.
var memoryMarks = [][]byte{[]byte(`,"kind":"journal","result":"opened"`), []byte(`,"kind":"journal","result":"state"`)}

// tail reads the end of the file, from the last line that holds the memory on, or the whole file. A torn line holds nothing.
func (j *journal) tail(size int64) (tail []byte, whole bool, err error) {
	for window := int64(1 << 20); ; window *= 4 {
		from := max(size-window, 0)
		tail = make([]byte, size-from)
		if _, err := j.file.ReadAt(tail, from); err != nil && !errors.Is(err, io.EOF) {
			return nil, false, err
		}
		lines := tail[:bytes.LastIndexByte(tail, '\n')+1]
		at := -1
		for _, mark := range memoryMarks {
			at = max(at, bytes.LastIndex(lines, mark))
		}
		if at >= 0 {
			if begin := bytes.LastIndexByte(tail[:at], '\n'); begin >= 0 {
				return tail[begin+1:], false, nil
			}
		}
		if from == 0 {
			return tail, true, nil
		}
	}
}

// adopt gives each key what is remembered of its name, where a program wrote that which knew keys by their names alone, and writes it down.
// From then on it is the key's: another name loses nothing, and another key with that name gets nothing. What is remembered of a name that
// no key has now waits for one, so that a key which the policy does not name for a while does not begin anew.
//
// A crash before the entry is on the disk leaves all as it was, for the next start.
func (j *journal) adopt(keys []*held, log *slog.Logger) error {
	after := maps.Clone(j.memory)
	var adopted []string
	for _, h := range keys {
		ofName, there := after[h.key.Name]
		if _, known := after[h.key.inHex]; !there || ofName.Name != "" || known {
			continue
		}
		delete(after, h.key.Name)
		ofName.Name = h.key.Name
		after[h.key.inHex] = ofName
		adopted = append(adopted, fmt.Sprintf("%q is %s", h.key.Name, h.key.inHex))
	}
	if len(adopted) == 0 {
		return nil
	}
	log.Info("what the journal remembers by name is the keys' own from now on", "keys", len(adopted))
	why := "what was remembered by name is the key's own from now on: " + strings.Join(adopted, ", ")
	if err := j.add(entry{Kind: kindJournal, Result: resultState, Why: why, Memory: after}); err != nil {
		return fmt.Errorf("writing down which keys the journal tells of: %w", err)
	}
	j.memory = after
	return nil
}

// memories is what the guards remembered when the journal was opened.
func (j *journal) memories() map[string]memory { return maps.Clone(j.memory) }

// add writes entries, and returns when they are on the disk, or with an error when they are not. Who finds nobody writing writes by itself;
// those who come meanwhile share the next write.
func (j *journal) add(entries ...entry) error {
	now := j.now().UTC().Format(time.RFC3339Nano)
	for i := range entries {
		e := &entries[i]
		e.Time = now
		for _, text := range []*string{&e.Key, &e.Detail, &e.Scope, &e.Why} {
			*text = strings.ToValidUTF8(*text, "?") // as JSON has it, so that the line is read as it was written
		}
	}
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return fmt.Errorf("%w: the journal is closed", hsm.ErrUnavailable)
	}
	if j.writing {
		p := &pending{entries, make(chan error, 1)}
		j.waiting = append(j.waiting, p)
		j.mu.Unlock()
		return <-p.done
	}
	j.writing = true
	j.mu.Unlock()
	err := j.commit(entries)
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.waiting) > 0 {
		go j.drain()
		return err
	}
	j.rest()
	return err
}

// drain writes what waits until nothing does. It is the one who is writing.
func (j *journal) drain() {
	j.mu.Lock()
	defer j.mu.Unlock()
	for len(j.waiting) > 0 {
		batch := j.waiting[:min(len(j.waiting), maxBatch)]
		j.waiting = j.waiting[len(batch):]
		j.mu.Unlock()
		var entries []entry
		for _, p := range batch {
			entries = append(entries, p.entries...)
		}
		err := j.commit(entries)
		for _, p := range batch {
			p.done <- err
		}
		j.mu.Lock()
	}
	j.rest()
}

// rest ends the writing. The lock is held.
func (j *journal) rest() {
	j.writing = false
	j.idle.Broadcast()
}

// close writes what waits and closes the file.
func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil
	}
	j.closed = true
	for j.writing {
		j.idle.Wait()
	}
	return j.file.Close()
}

// commit makes entries durable. When it fails, it fails for all.
func (j *journal) commit(entries []entry) error {
	if j.broken != nil {
		return j.broken
	}
	seq, prev, since, text := j.seq, j.prev, j.since, j.text[:0]
	for i := range entries {
		var err error
		if text, seq, prev, err = appendEntry(text, &entries[i], seq, prev, j.now()); err != nil {
			return err
		}
		if entries[i].remember(j.memory); entries[i].Memory != nil {
			since = 0
		}
		if since++; since >= stateEvery {
			since = 0
			state := entry{Kind: kindJournal, Result: resultState, Memory: j.memory}
			if text, seq, prev, err = appendEntry(text, &state, seq, prev, j.now()); err != nil {
				return err
			}
		}
	}
	if n, err := j.file.Write(text); err != nil {
		if untorn := j.untear(text[:n]); untorn != nil {
			j.broken = fmt.Errorf("%w: the journal: %w", hsm.ErrUnavailable, errors.Join(err, untorn))
		}
		return fmt.Errorf("%w: writing to the journal: %w", hsm.ErrUnavailable, err)
	}
	if err := datasync(int(j.file.Fd())); err != nil {
		j.broken = fmt.Errorf("%w: the journal could not be made durable; restart the keeper: %w", hsm.ErrUnavailable, err)
		return j.broken
	}
	j.seq, j.prev, j.since, j.size = seq, prev, since, j.size+int64(len(text))
	if j.text = text; cap(text) > maxEntry {
		j.text = nil
	}
	return nil
}

// untear removes the torn line with which a write that failed has ended. The whole lines before it stay, although nothing that they tell of is
// released: somebody may have read them, and copied them to where nothing is ever taken out.
func (j *journal) untear(written []byte) error {
	whole := written[:bytes.LastIndexByte(written, '\n')+1]
	if err := j.file.Truncate(j.size + int64(len(whole))); err != nil {
		return err
	}
	if len(whole) == 0 {
		return nil
	}
	lines, last := bytes.Count(whole, []byte("\n")), whole[:len(whole)-1]
	digest := sha256.Sum256(last[bytes.LastIndexByte(last, '\n')+1:])
	j.seq, j.prev, j.since, j.size = j.seq+uint64(lines), hex.EncodeToString(digest[:]), j.since+lines, j.size+int64(len(whole))
	return nil
}

func appendEntry(text []byte, e *entry, seq uint64, prev string, now time.Time) ([]byte, uint64, string, error) {
	e.Seq, e.Prev = seq+1, prev
	if e.Time == "" {
		e.Time = now.UTC().Format(time.RFC3339Nano)
	}
	line, err := e.appendTo(text)
	if err != nil {
		return text, seq, prev, fmt.Errorf("writing an entry of the journal: %w", err)
	}
	digest := sha256.Sum256(line[len(text):])
	return append(line, '\n'), e.Seq, hex.EncodeToString(digest[:]), nil
}

// remember does to the memory what the entry says. It is the same when an entry is written and when it is read again.
func (e *entry) remember(m map[string]memory) {
	if e.Kind == kindJournal || e.Kind == kindToken || e.Kind == kindHealth || e.Result != resultSigned && e.Result != resultFailed {
		return
	}
	key := e.SPKI
	if key == "" {
		key = e.Key // all that entries once had
	}
	of := m[key]
	if e.SPKI != "" {
		of.Name = e.Key
	}
	of.Count++
	switch e.Kind {
	case kindCRL:
		if of.Numbers = maps.Clone(of.Numbers); of.Numbers == nil {
			of.Numbers = numbers{}
		}
		of.Numbers.note(e.Scope, e.Detail)
	case kindCheckpoint:
		if size, err := strconv.ParseUint(e.Detail, 10, 64); err == nil && size >= of.Size {
			of.Size, of.Text = size, e.SHA256
		}
	}
	m[key] = of
}

// chain checks lines one by one.
type chain struct {
	seq      uint64
	prev     string
	trusting bool // the next line is the first, and not the file's
	memory   map[string]memory
	results  map[string]uint64
}

func (c *chain) line(line []byte) error {
	_, err := c.entry(line)
	return err
}

// entry checks a line and returns what it says.
func (c *chain) entry(line []byte) (e entry, err error) {
	wrong := func(format string, args ...any) (entry, error) {
		return e, &BrokenJournalError{Entry: c.seq + 1, Why: fmt.Sprintf(format, args...)}
	}
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&e); err != nil {
		return wrong("it cannot be read: %v", err)
	}
	if canonical, err := json.Marshal(&e); err != nil || !bytes.Equal(canonical, line) {
		return wrong("it is not in the form that the keeper writes")
	}
	if c.trusting {
		c.seq, c.prev, c.trusting = e.Seq-1, e.Prev, false
	}
	if c.prev == "" {
		c.prev = noHash
	}
	if e.Seq != c.seq+1 {
		return wrong("it says that it is number %d: an entry was put in or taken out", e.Seq)
	}
	if e.Prev != c.prev {
		return wrong("the entry before it is not the one that was there: it was changed, or this one was")
	}
	if e.Kind == kindJournal && (e.Result == resultOpened || e.Result == resultState) {
		if c.memory = maps.Clone(e.Memory); c.memory == nil {
			c.memory = map[string]memory{}
		}
	}
	e.remember(c.memory)
	digest := sha256.Sum256(line)
	c.seq, c.prev = e.Seq, hex.EncodeToString(digest[:])
	if c.results != nil {
		c.results[e.Result]++
	}
	return e, nil
}
