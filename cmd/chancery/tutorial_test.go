package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTutorial plays docs/policies.md beside a service whose policies it may change.
func TestTutorial(t *testing.T) {
	t.Parallel()
	playScripts(t, filepath.Join("testdata", "tutorial"))
}

// TestTheTutorialIsPlayed holds that the script plays every command in the shell examples of docs/policies.md, with its very files.
func TestTheTutorialIsPlayed(t *testing.T) {
	tutorial, err := os.ReadFile(filepath.Join("..", "..", "docs", "policies.md"))
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile(filepath.Join("testdata", "tutorial", "policies.txt"))
	if err != nil {
		t.Fatal(err)
	}
	played := "\n" + strings.ReplaceAll(string(script), "\n! ", "\n")
	commands, files := 0, 0
	for _, block := range regexp.MustCompile("(?s)```(sh|yaml)\n(.*?)```").FindAllStringSubmatch(string(tutorial), -1) {
		switch {
		case block[1] == "sh":
			for line := range strings.Lines(block[2]) {
				commands++
				if !strings.Contains(played, "\n"+line) {
					t.Errorf("no script plays %s", line)
				}
			}
		case strings.HasPrefix(block[2], "policies:"): // of the service's configuration: TestPoliciesNeedApprovals serves by it
		default:
			files++
			if !strings.Contains(played, "--\n"+block[2]) {
				t.Errorf("no script has the file\n%s", block[2])
			}
		}
	}
	if commands < 8 || files < 2 {
		t.Errorf("the tutorial has %d commands and %d files", commands, files)
	}
}
