package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/hsm"
)

// TestJournalAfterATornLine: an operation after a crash in the middle of a line has a line that can be read.
func TestJournalAfterATornLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.jsonl")
	note := func() {
		t.Helper()
		j, err := openJournal(path)
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		if err := j.Observe(t.Context(), hsm.Operation{Op: hsm.OpSign, Began: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	note()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	note()
	if err := os.Truncate(path, int64(len(whole)+20)); err != nil {
		t.Fatal(err)
	}
	note()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) != 4 || lines[3] != "" || json.Valid([]byte(lines[1])) {
		t.Fatalf("the journal is\n%s", text)
	}
	for _, line := range []string{lines[0], lines[2]} {
		decode[journalEntry](t, line)
	}
}
