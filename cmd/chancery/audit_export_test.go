package main

import (
	"io"
	"strings"
	"testing"
)

// TestOneExportAtATimeGoesIntoADirectory: two that went on from the same place would leave a history that does not verify.
func TestOneExportAtATimeGoesIntoADirectory(t *testing.T) {
	a, dir := &app{Env: Env{Stdout: io.Discard, Stderr: io.Discard}}, t.TempDir()
	export := func() error { return a.auditExport(t.Context(), auditExportFlags{out: dir}) }
	unlock, err := lockExports(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := export(); err == nil || !strings.Contains(err.Error(), "another export into "+dir+" is under way") {
		t.Errorf("a second run: %v", err)
	}
	unlock()
	if err := export(); err == nil || strings.Contains(err.Error(), "under way") { // no database is named
		t.Errorf("when the first has ended: %v", err)
	}
	if again, err := lockExports(dir); err != nil {
		t.Errorf("a run that failed holds the directory: %v", err)
	} else {
		again()
	}
}
