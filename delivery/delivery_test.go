package delivery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/chancery-ca/chancery/audit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// entry makes an entry of the log.
func entry(t testing.TB, index int64, kind audit.Kind) Entry {
	t.Helper()
	e := audit.Event{
		ID: fmt.Sprintf("018f0000-0000-7000-8000-%012d", index), Kind: kind, Time: noon.Add(time.Duration(index) * time.Millisecond),
		Actor:     "a<1>",
		Namespace: "team-a", Data: map[string]string{"request": fmt.Sprintf("r-%d", index), "city": "Zürich"},
	}
	leaf, err := audit.New(e)
	if err != nil {
		t.Fatal(err)
	}
	return Entry{index, leaf.Bytes(), e}
}

func entries(t testing.TB, from, n int64) (all []Entry) {
	for i := range n {
		all = append(all, entry(t, from+i, audit.CertificateIssued))
	}
	return all
}

// history is a log and a cursor that last in memory, where crashes are a matter of what the test forgets.
type history struct {
	mu      sync.Mutex
	all     []Entry
	next    int64
	known   bool
	refuse  error // of Move
	reached chan struct{}
	until   int64
}

func (h *history) Entries(_ context.Context, from int64, most int) ([]Entry, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	from = min(from, int64(len(h.all)))
	return h.all[from:min(from+int64(most), int64(len(h.all)))], nil
}

func (h *history) Size(context.Context) (int64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return int64(len(h.all)), nil
}

func (h *history) Next(_ context.Context, start int64) (int64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.known {
		h.known, h.next = true, start
	}
	return h.next, nil
}

func (h *history) Move(_ context.Context, next int64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refuse != nil {
		return h.refuse
	}
	h.next = next
	if h.reached != nil && next == h.until {
		close(h.reached)
		h.reached = nil
	}
	return nil
}

var errFenced = errors.New("another delivers")

func (h *history) Over(err error) bool { return errors.Is(err, errFenced) }

// counts is an Observer that tells what it was told.
type counts struct {
	mu                         sync.Mutex
	delivered, failed, givenUp int
	lag                        int64
	age                        time.Duration
}

func (c *counts) Delivered(_ string, n int) { c.mu.Lock(); c.delivered += n; c.mu.Unlock() }
func (c *counts) DeliveryFailed(string)     { c.mu.Lock(); c.failed++; c.mu.Unlock() }
func (c *counts) DeliveryGivenUp(string)    { c.mu.Lock(); c.givenUp++; c.mu.Unlock() }
func (c *counts) DeliveredElsewhere(string) {}
func (c *counts) DeliveryLag(_ string, n int64, age time.Duration) {
	c.mu.Lock()
	c.lag, c.age = max(c.lag, n), max(c.age, age)
	c.mu.Unlock()
}

// sink is a receiver in memory that fails when it is told to.
type sink struct {
	got  []Entry
	fail func(call int) error
	call int
}

func (s *sink) Send(_ context.Context, entries []Entry) error {
	s.call++
	if s.fail != nil {
		if err := s.fail(s.call); err != nil {
			return err
		}
	}
	s.got = append(s.got, entries...)
	return nil
}

func (s *sink) Close() error { return nil }

func (h *history) delivery(s Sender, c *counts, log io.Writer) *Delivery {
	return &Delivery{
		Name: "siem", Open: func() Sender { return s }, Log: h, Cursor: h, Now: func() time.Time { return noon.Add(time.Hour) }, Observe: c,
		Logger: slog.New(slog.NewTextHandler(log, nil)),
	}
}

// runUntil runs a delivery until its cursor has come to an index.
func (h *history) runUntil(t *testing.T, d *Delivery, until int64) {
	t.Helper()
	reached := make(chan struct{})
	h.mu.Lock()
	h.reached, h.until = reached, until
	h.mu.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- d.Run(ctx) }()
	select {
	case <-reached:
	case <-time.After(30 * time.Second):
		t.Error("the cursor does not get there")
	case err := <-ran:
		t.Errorf("ended: %v", err)
		ran <- err
	}
	cancel()
	<-ran
}

func indexes(all []Entry) (list []int64) {
	for _, e := range all {
		list = append(list, e.Index)
	}
	return list
}

func TestEverythingInOrder(t *testing.T) {
	h := &history{all: entries(t, 0, 1234)}
	s, c := &sink{}, &counts{}
	h.runUntil(t, h.delivery(s, c, io.Discard), 1234)
	for i, e := range s.got {
		if e.Index != int64(i) {
			t.Fatalf("entry %d comes at place %d", e.Index, i)
		}
	}
	if len(s.got) != 1234 || c.delivered != 1234 || c.lag != 1234 || c.age < time.Minute {
		t.Errorf("%d came; %+v", len(s.got), c)
	}
}

// A receiver that is away gets all of it when it is back; the alarm is raised once, the failure told once.
func TestAReceiverThatIsAway(t *testing.T) {
	h := &history{all: entries(t, 0, 10)}
	c, log := &counts{}, &bytes.Buffer{}
	s := &sink{fail: func(call int) error {
		if call <= 2 {
			return errors.New("away")
		}
		return nil
	}}
	h.runUntil(t, h.delivery(s, c, log), 10)
	if !slices.Equal(indexes(s.got), []int64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}) || c.failed != 2 {
		t.Errorf("%v, %+v", indexes(s.got), c)
	}
	for _, once := range []string{"does not take it", "far behind", "takes it again"} {
		if n := strings.Count(log.String(), once); n != 1 {
			t.Errorf("%q is told %d times", once, n)
		}
	}
}

// Whatever stops when, nothing is left out, the order stays, and what comes again is the same.
func TestCrashesLoseNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.Int64Range(1, 40).Draw(rt, "entries")
		h := &history{all: entries(t, 0, n)}
		each := rapid.Bool().Draw(rt, "each")
		s := &sink{fail: func(int) error {
			if rapid.IntRange(0, 3).Draw(rt, "fate") == 0 {
				return errors.New("refused")
			}
			return nil
		}}
		for h.next < n {
			d := h.delivery(s, &counts{}, io.Discard)
			d.Each = each
			h.refuse = nil
			if rapid.Bool().Draw(rt, "crash before the cursor moves") {
				h.refuse = errors.New("killed")
			}
			next, pauses := int64(-1), backoff{}
			_, _ = d.step(t.Context(), s, &next, &pauses)
		}
		seen := int64(-1)
		for _, e := range s.got {
			if e.Index > seen+1 {
				rt.Fatalf("entry %d comes after %d", e.Index, seen)
			}
			seen = max(seen, e.Index)
			if !bytes.Equal(e.Leaf, h.all[e.Index].Leaf) {
				rt.Fatalf("entry %d is another", e.Index)
			}
		}
		if seen != n-1 {
			rt.Fatalf("the last is %d of %d", seen, n)
		}
	})
}

func TestAnotherDelivers(t *testing.T) {
	h := &history{all: entries(t, 0, 3), refuse: errFenced}
	if err := h.delivery(&sink{}, &counts{}, io.Discard).Run(t.Context()); !errors.Is(err, errFenced) {
		t.Errorf("got %v", err)
	}
}

func TestWhatIsWanted(t *testing.T) {
	h := &history{}
	for i, kind := range []audit.Kind{
		audit.CertificateIssued, audit.RequestWaiting, audit.CertificateIssued, audit.PolicyProposed,
		audit.RequestApproved, audit.KeySigned,
	} {
		h.all = append(h.all, entry(t, int64(i), kind))
	}
	s, c := &sink{}, &counts{}
	d := h.delivery(s, c, io.Discard)
	d.Kinds, d.Each = []string{"request.*", "policy.proposed"}, true
	h.runUntil(t, d, 6)
	if !slices.Equal(indexes(s.got), []int64{1, 3, 4}) || s.call != 3 {
		t.Errorf("%v in %d calls", indexes(s.got), s.call)
	}
}

func TestANewReceiverOfNotifications(t *testing.T) {
	h := &history{all: entries(t, 0, 5)}
	s := &sink{}
	d := h.delivery(s, &counts{}, io.Discard)
	d.FromUp = true
	next, pauses := int64(-1), backoff{}
	for range 2 {
		if _, err := d.step(t.Context(), s, &next, &pauses); err != nil {
			t.Fatal(err)
		}
		h.all = append(h.all, entry(t, int64(len(h.all)), audit.RequestWaiting))
	}
	if !slices.Equal(indexes(s.got), []int64{5}) {
		t.Errorf("got %v", indexes(s.got))
	}
}

// A cursor beyond the end of the log would silence a receiver: that is a failure each time, and an alarm, until the cursor is right again.
func TestACursorBeyondTheEnd(t *testing.T) {
	h := &history{all: entries(t, 0, 5), next: 1 << 62, known: true}
	s, c, log := &sink{}, &counts{}, &bytes.Buffer{}
	d := h.delivery(s, c, log)
	next, pauses := int64(-1), backoff{}
	for range 2 {
		if _, err := d.step(t.Context(), s, &next, &pauses); err == nil || next != -1 {
			t.Errorf("it goes on at %d", next)
		}
	}
	if c.lag != 5 || c.age < time.Minute || len(s.got) > 0 {
		t.Errorf("told is %+v, and %d came", c, len(s.got))
	}
	if n := strings.Count(log.String(), "beyond its end"); n != 1 {
		t.Errorf("the alarm is raised %d times", n)
	}
	h.next = 3
	if _, err := d.step(t.Context(), s, &next, &pauses); err != nil || !slices.Equal(indexes(s.got), []int64{3, 4}) {
		t.Errorf("mended: %v, %v", indexes(s.got), err)
	}
}

// A notification that nobody takes is left out after a while; an entry of the whole log never is.
func TestGivingUp(t *testing.T) {
	for _, giveUp := range []time.Duration{0, time.Hour} {
		h := &history{all: entries(t, 0, 2)}
		s := &sink{fail: func(int) error { return errors.New("no such mailbox") }}
		c, now := &counts{}, noon
		d := h.delivery(s, c, io.Discard)
		d.Each, d.GiveUp, d.Now = true, giveUp, func() time.Time { now = now.Add(20 * time.Minute); return now }
		next, pauses := int64(-1), backoff{}
		for range 20 {
			_, _ = d.step(t.Context(), s, &next, &pauses)
		}
		if left := h.next; giveUp == 0 && (left != 0 || c.givenUp != 0) || giveUp > 0 && (left != 2 || c.givenUp != 2) {
			t.Errorf("giving up after %s: the cursor is at %d, %+v", giveUp, left, c)
		}
	}
}

func TestPausesGrow(t *testing.T) {
	var b backoff
	var all []time.Duration
	for range 12 {
		all = append(all, b.failed(errors.New("x")))
	}
	if all[0] != time.Second || all[3] != 8*time.Second || all[11] != longestWait || !slices.IsSorted(all) {
		t.Errorf("%v", all)
	}
	if wait := b.failed(&laterError{errors.New("x"), 7 * time.Second}); wait != 7*time.Second {
		t.Errorf("asked for 7 s, waits %s", wait)
	}
}

func lines(t *testing.T, path string) (all []string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	f := &File{Path: path}
	send := func(f *File, all []Entry) {
		t.Helper()
		if err := f.Send(t.Context(), all); err != nil {
			t.Fatal(err)
		}
	}
	send(f, entries(t, 0, 3))
	send(f, entries(t, 3, 2))
	// Killed after the write, before the cursor moved; and in the middle of a line.
	torn, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := torn.WriteString(`{"index":5,"ev`); err != nil {
		t.Fatal(err)
	}
	_, again := torn.Close(), &File{Path: path}
	send(again, entries(t, 3, 4))
	if got := lines(t, path); len(got) != 7 || got[6] != string(entry(t, 6, audit.CertificateIssued).line()) ||
		!strings.HasPrefix(got[5], `{"index":5,"event":{"actor":"a<1>"`) {
		t.Errorf("%d lines, the last %s", len(got), got[len(got)-1])
	}
	// Moved away by logrotate.
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	send(again, entries(t, 7, 1))
	if got := lines(t, path); len(got) != 1 {
		t.Errorf("%d lines after the file was moved away", len(got))
	}
	// A file of another log is not gone on with.
	for name, other := range map[string][]Entry{"another entry": {entry(t, 7, audit.KeySigned)}, "an earlier one": entries(t, 2, 2)} {
		if err := (&File{Path: path}).Send(t.Context(), other); err == nil || !strings.Contains(err.Error(), "of another log") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.WriteFile(path, []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (&File{Path: path}).Send(t.Context(), entries(t, 8, 1)); err == nil {
		t.Error("lines are added to a file of something else")
	}
	_, _ = f.Close(), again.Close()
}

// TestWhatWasNotSyncedIsWrittenAgain: a disk that fails to sync may drop what was written, and the next sync tells nothing of it. Lines
// stay whole and in their places, none is lost, and what the disk did spoil is appended.
func TestWhatWasNotSyncedIsWrittenAgain(t *testing.T) {
	for name, c := range map[string]struct {
		old, new string // what the disk made of it
		want     []int64
	}{
		"kept":    {"", "", []int64{0, 1, 2, 3, 4, 5}},
		"spoiled": {`"index":2`, `"index":1`, []int64{0, 1, 1, 3, 2, 3, 4, 5}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.jsonl")
			broken := false
			f := &File{Path: path, sync: func(file *os.File) error {
				if broken {
					return errors.New("input/output error")
				}
				return file.Sync()
			}}
			defer f.Close()
			if err := f.Send(t.Context(), entries(t, 0, 2)); err != nil {
				t.Fatal(err)
			}
			broken = true
			if err := f.Send(t.Context(), entries(t, 2, 2)); err == nil {
				t.Fatal("nobody was told that the disk fails")
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			long := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
			err = errors.Join(os.WriteFile(path, bytes.Replace(text, []byte(c.old), []byte(c.new), 1), 0o600), os.Chtimes(path, long, long))
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Send(t.Context(), entries(t, 2, 2)); err == nil {
				t.Fatal("nobody was told that the disk fails still")
			}
			if at, err := os.Stat(path); err != nil || at.ModTime().Equal(long) {
				t.Errorf("nothing was written again: %v", err)
			}
			broken = false
			if err := f.Send(t.Context(), entries(t, 2, 4)); err != nil {
				t.Fatal(err)
			}
			var got []int64
			for _, line := range lines(t, path) {
				var l struct {
					Index int64 `json:"index"`
				}
				if err := json.Unmarshal([]byte(line), &l); err != nil {
					t.Errorf("%s: %v", line, err)
				}
				got = append(got, l.Index)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("lines of %v, want %v", got, c.want)
			}
		})
	}
}

func TestFilesArePutAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	f := &File{Path: path, Rotate: 1000}
	for i := range int64(15) {
		if err := f.Send(t.Context(), entries(t, i, 1)); err != nil {
			t.Fatal(err)
		}
	}
	aside, err := filepath.Glob(path + ".*")
	if err != nil || len(aside) < 2 {
		t.Fatalf("%v, %v", aside, err)
	}
	var all []string
	for _, name := range aside { // in the order of their names
		all = append(all, lines(t, name)...)
	}
	if _, err := os.Stat(path); err == nil {
		all = append(all, lines(t, path)...)
	}
	wantEachOnce(t, all, 15)
	_ = f.Close()
}

// Whatever stops between a batch in the file and its cursor, the batch is sent again, and no line comes twice: not into another file either.
func TestNoLineComesTwiceWhereAFileIsPutAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	for from := int64(0); from < 40; from += 4 {
		f := &File{Path: path, Rotate: 1000}
		for range 2 { // the cursor could not be moved
			if err := f.Send(t.Context(), entries(t, from, 4)); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil { // or the process ended
			t.Fatal(err)
		}
		again := &File{Path: path, Rotate: 1000}
		if err := again.Send(t.Context(), entries(t, from, 4)); err != nil {
			t.Fatal(err)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
	all, err := filepath.Glob(path + "*")
	if err != nil || len(all) < 3 {
		t.Fatalf("%v, %v", all, err)
	}
	slices.Sort(all)
	var got []string
	for _, name := range append(all[1:], all[0]) { // the one that is written to comes last
		got = append(got, lines(t, name)...)
	}
	wantEachOnce(t, got, 40)
}

// wantEachOnce holds that lines are those of so many entries, in order.
func wantEachOnce(t *testing.T, lines []string, entries int) {
	t.Helper()
	for i, line := range lines {
		if !strings.HasPrefix(line, fmt.Sprintf(`{"index":%d,`, i)) {
			t.Fatalf("line %d is %s", i, line)
		}
	}
	if len(lines) != entries {
		t.Errorf("%d lines", len(lines))
	}
}

// What is not the audit log's is left as it is. What a crash tore is cut off.
func TestOtherFilesAreLeftAsTheyAre(t *testing.T) {
	ours := string(entry(t, 7, audit.CertificateIssued).line()) + "\n"
	for text, taken := range map[string]bool{
		"a secret":                           false,
		"hello\nworld":                       false,
		"hello\n" + `{"index":5,"ev`:         false,
		ours + "world":                       false,
		ours:                                 true,
		ours + `{"index":8,"ev`:              true,
		ours + `{"in`:                        true,
		ours + "\x00\x00\x00":                true, // a disk that had the length and not the text
		ours + `{"index":8,"ev` + "\x00\x00": true,
		`{"index":5,"ev`:                     true,
		"":                                   true,
	} {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f := &File{Path: path}
		err := f.Send(t.Context(), entries(t, 8, 1))
		got, unread := os.ReadFile(path)
		if err := errors.Join(f.Close(), unread); err != nil {
			t.Fatal(err)
		}
		switch {
		case (err == nil) != taken:
			t.Errorf("%q: %v", text, err)
		case !taken && string(got) != text:
			t.Errorf("%q became %q", text, got)
		}
	}
}

// Whoever ships the file elsewhere is of the service's group, whatever the umask.
func TestTheGroupReadsTheFile(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	f := &File{Path: filepath.Join(t.TempDir(), "audit.jsonl")}
	if err := errors.Join(f.Send(t.Context(), entries(t, 0, 1)), f.Close()); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(f.Path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}
