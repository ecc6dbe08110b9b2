package keeper

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/chancery-ca/chancery/hsm"
)

// inOwnProcess runs the test in a process of its own, and tells whether this is it. What fillAt does would meet the log of the test binary, too.
func inOwnProcess(t *testing.T) bool {
	t.Helper()
	const own = "CHANCERY_KEEPER_TEST_OWN_PROCESS"
	if os.Getenv(own) != "" {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), own+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// fillAt has every write of this process fail that makes a file longer than so many octets: of one that begins before, the octets up to there
// are written, as on a disk that is full. The function returned ends it.
func fillAt(t *testing.T, octets int64) (free func()) {
	t.Helper()
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: uint64(octets), Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
			t.Fatal(err)
		}
	}
}

// TestJournalOnAFullDisk: of entries that are written together and do not all fit, those that are there whole stay, since somebody may have read
// them; the torn one goes; and what comes when there is room again follows.
func TestJournalOnAFullDisk(t *testing.T) {
	if !inOwnProcess(t) {
		return
	}
	path := filepath.Join(t.TempDir(), "journal")
	j := openTestJournal(t, path)
	addAll(t, j, signedEntry("1"))
	one := j.size
	addAll(t, j, signedEntry("2"))
	one = j.size - one // of one entry, but for the digits of its time
	free := fillAt(t, j.size+3*one-one/2)
	err := j.commit([]entry{signedEntry("3"), signedEntry("4"), signedEntry("5"), signedEntry("6")})
	free()
	if !errors.Is(err, hsm.ErrUnavailable) || !errors.Is(err, syscall.EFBIG) {
		t.Fatalf("on a full disk: %v", err)
	}
	whole, err := os.ReadFile(path)
	if err != nil || !bytes.HasSuffix(whole, []byte("\n")) {
		t.Fatalf("a torn line was left: %v", err)
	}
	addAll(t, j, signedEntry("7"))
	closeJournal(t, j)
	var details []string
	for _, e := range readEntries(t, path) {
		details = append(details, e.Detail)
	}
	if want := []string{"", "1", "2", "3", "4", "7"}; !slices.Equal(details, want) {
		t.Errorf("the journal has %q, want %q", details, want)
	}
	again := openTestJournal(t, path)
	defer closeJournal(t, again)
	if m := again.memories()["ca"]; m.Numbers[fullScope] != "7" {
		t.Errorf("it remembers %+v", m)
	}
}

// TestAStartWritesTheEndAgain: after an fsync that failed, what is read is in memory, and only what is written once more comes to the disk.
func TestAStartWritesTheEndAgain(t *testing.T) {
	if !inOwnProcess(t) {
		return
	}
	path := filepath.Join(t.TempDir(), "journal")
	j := openTestJournal(t, path)
	addAll(t, j, make([]entry, 100)...)
	size := j.size
	closeJournal(t, j)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	wrote := func() (octets int64) {
		text, err := os.ReadFile("/proc/self/io")
		if err != nil {
			t.Fatal(err)
		}
		_, after, _ := strings.Cut(string(text), "wchar: ")
		if _, err := fmt.Sscan(after, &octets); err != nil {
			t.Fatal(err)
		}
		return octets
	}
	began := wrote()
	closeJournal(t, openTestJournal(t, path))
	if octets := wrote() - began; octets < size {
		t.Errorf("of %d octets %d were written", size, octets)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.HasPrefix(after, before) || bytes.Count(after[size:], []byte("\n")) != 1 {
		t.Errorf("the journal is another one: %v", err)
	}
}

// TestExportOnAFullDisk: what was copied stays the beginning of the journal, whatever becomes of the writes that go on meanwhile.
func TestExportOnAFullDisk(t *testing.T) {
	if !inOwnProcess(t) {
		return
	}
	dir := t.TempDir()
	path, copied := filepath.Join(dir, "journal"), filepath.Join(dir, "copy")
	j := openTestJournal(t, path)
	end := make(chan struct{})
	var exporting sync.WaitGroup
	exporting.Go(func() {
		for {
			if _, err := ExportJournal(path, copied); err != nil {
				t.Error(err)
				return
			}
			select {
			case <-end:
				return
			default:
			}
		}
	})
	for i := range 300 {
		var many []entry
		for range 20 {
			many = append(many, signedEntry("1"))
		}
		free := fillAt(t, j.size+int64(i*17))
		_ = j.commit(many) // some of them fit
		free()
	}
	close(end)
	exporting.Wait()
	closeJournal(t, j)
}
