package keeper

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func parseEntry(t *testing.T, line []byte) entry {
	t.Helper()
	var e entry
	if err := json.Unmarshal(line, &e); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	return e
}

func openTestJournal(t *testing.T, path string) *journal {
	t.Helper()
	j, err := openJournal(path, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func closeJournal(t *testing.T, j *journal) {
	t.Helper()
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
}

// addAll writes entries and waits until they are durable.
func addAll(t *testing.T, j *journal, entries ...entry) {
	t.Helper()
	var group sync.WaitGroup
	for _, e := range entries {
		group.Go(func() {
			if err := j.add(e); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

func signedEntry(detail string) entry {
	return entry{Key: "ca", Kind: kindCRL, Detail: detail, Scope: fullScope, SHA256: strings.Repeat("ab", 32), Result: resultSigned}
}

func TestJournalRemembers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := openTestJournal(t, path)
	for range stateEvery/1000 + 1 { // past an entry that writes the memory down again
		var many []entry
		for range 1000 {
			many = append(many, entry{Key: "ca", Kind: kindCertificate, Result: resultSigned})
		}
		addAll(t, j, many...)
	}
	addAll(t, j, signedEntry("9"), signedEntry("10"), signedEntry("7"),
		entry{Key: "log", Kind: kindCheckpoint, Detail: "12", SHA256: "aa", Result: resultSigned},
		entry{Key: "log", Kind: kindCheckpoint, Detail: "13", SHA256: "bb", Result: resultFailed},
		entry{Key: "log", Kind: kindCheckpoint, Detail: "11", SHA256: "cc", Result: resultRefused},
		entry{Key: "ca", Kind: kindCRL, Detail: "99", Scope: fullScope, Result: resultRefused})
	closeJournal(t, j)
	again := openTestJournal(t, path)
	defer closeJournal(t, again)
	m := again.memories()
	if got := m["ca"]; got.Count != 11*1000+3 || got.Numbers[fullScope] != "10" {
		t.Errorf("of the authority's key it remembers %+v", got)
	}
	if got := m["log"]; got.Count != 2 || got.Size != 13 || got.Text != "bb" {
		t.Errorf("of the log's key it remembers %+v", got)
	}
	if _, err := openJournal(path, time.Now); err == nil || !strings.Contains(err.Error(), "another keeper") {
		t.Errorf("two keepers write to one journal: %v", err)
	}
}

// Of more scopes than are remembered, the journal forgets those that the guard does.
func TestJournalForgetsScopes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := openTestJournal(t, path)
	var many []entry
	for n := range maxScopes + 5 {
		e := signedEntry(strconv.Itoa(100 + n))
		e.Scope = fmt.Sprintf("%016x", n)
		many = append(many, e)
	}
	addAll(t, j, many...)
	closeJournal(t, j)
	again := openTestJournal(t, path)
	defer closeJournal(t, again)
	got := again.memories()["ca"].Numbers
	if first, last := many[0], many[len(many)-1]; len(got) != maxScopes || got.last(first.Scope) != "105" || got.last(last.Scope) != last.Detail {
		t.Errorf("%d scopes; the first begins above %s, the last above %s", len(got), got.last(first.Scope), got.last(last.Scope))
	}
}

// Serial numbers are what the vendor makes of them. Whatever is written is read again.
func TestJournalReadsWhatItWrote(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := openTestJournal(t, path)
	const odd = "12\xff34 <&> \u2028 \x00"
	addAll(t, j, entry{Key: odd, Kind: kindToken, Detail: odd, Scope: odd, Result: resultFailed, Why: odd})
	closeJournal(t, j)
	closeJournal(t, openTestJournal(t, path))
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if report, err := VerifyJournal(bytes.NewReader(text), ""); err != nil || report.Entries != 3 {
		t.Errorf("%+v, %v", report, err)
	}
}

func TestJournalTornByACrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := openTestJournal(t, path)
	addAll(t, j, signedEntry("1"), signedEntry("2"))
	closeJournal(t, j)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	last := bytes.LastIndexByte(whole[:len(whole)-1], '\n') + 1
	// Whatever octet the crash came at.
	for at := last + 1; at < len(whole); at += 17 {
		if err := os.WriteFile(path, whole[:at], 0o600); err != nil {
			t.Fatal(err)
		}
		j := openTestJournal(t, path)
		addAll(t, j, signedEntry("3"))
		closeJournal(t, j)
		entries := readEntries(t, path)
		if n := len(entries); n != 5 || entries[2].Result != resultRecovered || entries[4].Detail != "3" {
			t.Fatalf("cut at %d of %d: %+v", at, len(whole), entries)
		}
	}
}

// The line that a crash tears may be the very one that writes the memory down: each start of a keeper writes one.
func TestJournalTornInItsMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := openTestJournal(t, path)
	addAll(t, j, signedEntry("1"), signedEntry("2"))
	closeJournal(t, j)
	closeJournal(t, openTestJournal(t, path)) // writes the memory down
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	last := bytes.LastIndexByte(whole[:len(whole)-1], '\n') + 1
	if !bytes.Contains(whole[last:], []byte(`"memory"`)) {
		t.Fatalf("the last line holds no memory: %s", whole[last:])
	}
	for at := last + 1; at < len(whole); at += 7 {
		if err := os.WriteFile(path, whole[:at], 0o600); err != nil {
			t.Fatal(err)
		}
		j := openTestJournal(t, path)
		m := j.memories()
		closeJournal(t, j)
		if got := m["ca"]; got.Count != 2 || got.Numbers[fullScope] != "2" {
			t.Fatalf("cut at %d of %d it remembers %+v", at, len(whole), got)
		}
		if n := len(readEntries(t, path)); n != 5 {
			t.Fatalf("cut at %d of %d there are %d entries", at, len(whole), n)
		}
	}
}

// TestJournalOfNothingToRemember, as of a keeper that stands by, is not read from its beginning at each start.
func TestJournalOfNothingToRemember(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := openTestJournal(t, path)
	health := make([]entry, 1000)
	for range 12 {
		for i := range health {
			health[i] = entry{Key: "ca", SPKI: strings.Repeat("ab", 32), Kind: kindHealth, Detail: "main", SHA256: strings.Repeat("ab", 32), Result: resultSigned}
		}
		if err := j.add(health...); err != nil {
			t.Fatal(err)
		}
	}
	size := j.size
	closeJournal(t, j)
	again := openTestJournal(t, path)
	defer closeJournal(t, again)
	tail, whole, err := again.tail(size)
	if err != nil || whole || int64(len(tail)) > size/2 {
		t.Errorf("of %d octets it reads %d (all: %t), %v", size, len(tail), whole, err)
	}
	if m := again.memories(); len(m) != 0 || again.seq != 12_003 {
		t.Errorf("after %d entries it remembers %v", again.seq, m)
	}
}

func TestJournalChangedIsSeen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := openTestJournal(t, path)
	for _, detail := range []string{"1", "2", "3"} {
		addAll(t, j, signedEntry(detail))
	}
	closeJournal(t, j)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	report, err := VerifyJournal(bytes.NewReader(whole), "")
	if err != nil || report.Entries != 4 || report.Results[resultSigned] != 3 {
		t.Fatalf("%+v, %v", report, err)
	}
	lines := strings.SplitAfter(string(whole), "\n")
	for what, changed := range map[string]string{
		"a changed word":  strings.Replace(string(whole), `"detail":"2"`, `"detail":"4"`, 1),
		"an entry less":   lines[0] + lines[1] + lines[3],
		"an entry twice":  lines[0] + lines[1] + lines[1] + lines[2],
		"another order":   lines[0] + lines[2] + lines[1] + lines[3],
		"another form":    strings.Replace(string(whole), `{"seq":1,`, `{ "seq":1,`, 1),
		"no beginning":    lines[1] + lines[2] + lines[3],
		"what is no JSON": lines[0] + "yes\n",
		"a field more":    strings.Replace(string(whole), `{"seq":1,`, `{"seq":1,"x":1,`, 1),
	} {
		if _, err := VerifyJournal(strings.NewReader(changed), ""); err == nil {
			t.Errorf("%s was not seen", what)
		}
	}
	if _, err := VerifyJournal(strings.NewReader(lines[0]+lines[1]), report.Head); err == nil {
		t.Error("that the end was cut off was not seen, although the head was known")
	}
	if again, err := VerifyJournal(bytes.NewReader(whole), report.Head); err != nil || !again.Seen {
		t.Errorf("%+v, %v", again, err)
	}
	// A keeper does not write on after an entry that was changed.
	if err := os.WriteFile(path, []byte(strings.Replace(string(whole), `"detail":"2"`, `"detail":"4"`, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if j, err := openJournal(path, time.Now); err == nil {
		_ = j.close()
		t.Error("a keeper writes on after an entry that was changed")
	}
}

func FuzzJournalLine(f *testing.F) {
	f.Add([]byte(`{"seq":1,"time":"x","kind":"crl","result":"signed","prev":"` + noHash + `"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		c := chain{memory: map[string]memory{}}
		if c.line(line) == nil && (c.seq != 1 || c.prev == noHash) {
			t.Errorf("a first line of number %d was accepted: %q", c.seq, line)
		}
	})
}
