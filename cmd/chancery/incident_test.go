package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTheRunbooksArePlayed holds that a script plays every command of docs/incident.md, word for word.
func TestTheRunbooksArePlayed(t *testing.T) {
	runbooks, err := os.ReadFile(filepath.Join("..", "..", "docs", "incident.md"))
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile(filepath.Join(scripts, "incident.txt"))
	if err != nil {
		t.Fatal(err)
	}
	commands := 0
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(runbooks), -1) {
		for line := range strings.Lines(block[1]) {
			commands++
			if !strings.Contains(string(script), "\n"+line) {
				t.Errorf("no script plays %s", line)
			}
		}
	}
	if commands < 20 {
		t.Errorf("the runbooks have %d commands", commands)
	}
}
