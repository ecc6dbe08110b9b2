package keeper

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// TestExportJournal copies what is new, time after time, and nothing when the copy and the journal part.
func TestExportJournal(t *testing.T) {
	dir := t.TempDir()
	path, copied := filepath.Join(dir, "journal"), filepath.Join(dir, "copy")
	j := openTestJournal(t, path)
	var heads []string
	for _, detail := range []string{"1", "2", "3"} {
		addAll(t, j, signedEntry(detail))
		end, err := ExportJournal(path, copied)
		if err != nil {
			t.Fatal(err)
		}
		heads = append(heads, end.Head)
		same(t, path, copied)
	}
	closeJournal(t, j)
	if again, err := ExportJournal(path, copied); err != nil || again.Head != heads[2] || again.Entries != 4 {
		t.Fatalf("%+v, %v", again, err)
	}
	if info, err := os.Stat(copied); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("others can read the copy: %v, %v", info.Mode(), err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	// What an interrupted export left of a line is no obstacle.
	write(t, copied, whole[:len(whole)-7])
	if _, err := ExportJournal(path, copied); err != nil {
		t.Error(err)
	}
	same(t, path, copied)
	for what, changed := range map[string][]byte{
		"changed":       bytes.Replace(whole, []byte(`"detail":"2"`), []byte(`"detail":"4"`), 1),
		"cut off":       whole[:bytes.LastIndexByte(whole[:len(whole)-1], '\n')+1],
		"another":       []byte("another\n"),
		"of no entries": {},
	} {
		write(t, path, changed)
		if _, err := ExportJournal(path, copied); !errors.Is(err, ErrNotThisJournal) {
			t.Errorf("a journal that is %s: %v", what, err)
		}
	}
	// Where the journal itself breaks, the copy ends before it.
	write(t, path, bytes.Replace(whole, []byte(`"detail":"3"`), []byte(`"detail":"4"`), 1))
	write(t, copied, whole[:bytes.IndexByte(whole, '\n')+1])
	write(t, path, bytes.Replace(whole, []byte(`"detail":"2"`), []byte(`"detail":"4"`), 1))
	var broken *BrokenJournalError
	if end, err := ExportJournal(path, copied); !errors.As(err, &broken) || broken.Entry != 4 || end.Entries != 3 {
		t.Errorf("a broken journal: %+v, %v", end, err)
	}
}

// TestExportsAtOnce: as when somebody exports by hand while the timer does.
func TestExportsAtOnce(t *testing.T) {
	dir := t.TempDir()
	path, copied := filepath.Join(dir, "journal"), filepath.Join(dir, "copy")
	j := openTestJournal(t, path)
	for range 5 {
		for range 200 {
			if err := j.commit([]entry{signedEntry("1"), signedEntry("2"), signedEntry("3"), signedEntry("4")}); err != nil {
				t.Fatal(err)
			}
		}
		var exports sync.WaitGroup
		for range 4 {
			exports.Go(func() {
				if _, err := ExportJournal(path, copied); err != nil && !errors.Is(err, errExports) {
					t.Error(err)
				}
			})
		}
		exports.Wait()
		same(t, path, copied)
	}
	closeJournal(t, j)
}

// TestReadJournalFromAPlace: reading goes on where it ended, and sees that what follows does not follow.
func TestReadJournalFromAPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := openTestJournal(t, path)
	addAll(t, j, signedEntry("1"))
	addAll(t, j, signedEntry("2"))
	closeJournal(t, j)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var places []JournalPlace
	end, _, err := ReadJournal(bytes.NewReader(whole), JournalPlace{}, func(_ JournalEntry, p JournalPlace) error {
		places = append(places, p)
		return nil
	})
	if err != nil || len(places) != 3 || end != places[2] || end.Octets != int64(len(whole)) {
		t.Fatalf("%+v, %v", places, err)
	}
	for _, p := range places {
		if again, _, err := ReadJournal(bytes.NewReader(whole[p.Octets:]), p,
			func(JournalEntry, JournalPlace) error { return nil }); err != nil || again != end {
			t.Errorf("from %+v: %+v, %v", p, again, err)
		}
	}
	elsewhere := places[0]
	elsewhere.Head = places[1].Head
	var broken *BrokenJournalError
	if _, _, err := ReadJournal(bytes.NewReader(whole[places[0].Octets:]), elsewhere,
		func(JournalEntry, JournalPlace) error { return nil }); !errors.As(err, &broken) {
		t.Errorf("a journal that does not go on from the head: %v", err)
	}
}

func write(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func same(t *testing.T, a, b string) {
	t.Helper()
	first, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := os.ReadFile(b); err != nil || !bytes.Equal(first, second) {
		t.Fatalf("the copy differs from the journal: %v", err)
	}
}
