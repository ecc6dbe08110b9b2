package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTheRunbooksArePlayed holds that a script plays every command of docs/incident.md and docs/maintenance.md, word for word.
func TestTheRunbooksArePlayed(t *testing.T) {
	for name, fewest := range map[string]int{"incident": 20, "maintenance": 12} {
		runbooks, err := os.ReadFile(filepath.Join("..", "..", "docs", name+".md"))
		if err != nil {
			t.Fatal(err)
		}
		script, err := os.ReadFile(filepath.Join(scripts, name+".txt"))
		if err != nil {
			t.Fatal(err)
		}
		played := "\n" + strings.ReplaceAll(string(script), "\n! ", "\n") // some are to fail
		commands := 0
		for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(indented(string(runbooks)), -1) {
			for line := range strings.Lines(block[1]) {
				if !strings.HasPrefix(line, "chancery ") {
					continue
				}
				commands++
				if !strings.Contains(played, "\n"+line) {
					t.Errorf("%s: no script plays %s", name, line)
				}
			}
		}
		if commands < fewest {
			t.Errorf("%s has %d commands", name, commands)
		}
	}
}
