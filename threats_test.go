package chancery_test

import (
	"go/ast"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
)

// testsByRoom are the names of all test functions, by the directory that they are in.
func testsByRoom(t *testing.T) map[string]map[string]bool {
	t.Helper()
	found := map[string]map[string]bool{}
	for name, file := range sources(t) {
		if !strings.HasSuffix(name, "_test.go") {
			continue
		}
		room := path.Dir(name)
		if room == "." {
			room = path.Base(module)
		}
		if found[room] == nil {
			found[room] = map[string]bool{}
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil {
				found[room][f.Name.Name] = true
			}
		}
	}
	return found
}

// TestThreatsHaveTheirTests: each threat of docs/security.md names a control and at least one test, and every test that is named is there.
func TestThreatsHaveTheirTests(t *testing.T) {
	text, err := os.ReadFile("docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, begins := strings.Cut(string(text), "\n## Threats\n")
	table, _, ends := strings.Cut(table, "\n## ")
	if !begins || !ends {
		t.Fatal("docs/security.md has no section of threats")
	}
	tests, named := testsByRoom(t), regexp.MustCompile("`([a-z/]+)\\.((?:Test|Fuzz)[A-Za-z0-9]+)`")
	threats := 0
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "| **") {
			continue
		}
		threats++
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if len(cells) != 3 || strings.TrimSpace(cells[1]) == "" {
			t.Errorf("this threat has no control: %s", line)
			continue
		}
		found := named.FindAllStringSubmatch(cells[2], -1)
		if len(found) == 0 {
			t.Errorf("this threat names no test: %s", line)
		}
		for _, f := range found {
			if !tests[f[1]][f[2]] {
				t.Errorf("%s.%s, which is to show that a threat is met, is not there", f[1], f[2])
			}
		}
	}
	if threats < 20 {
		t.Errorf("%d threats were found in the table", threats)
	}
}

// TestEveryFuzzTargetIsRun: `make fuzz` lists targets by what the Go tool says of files with a line that begins as a target does. One
// behind a build constraint, or written otherwise, it would pass by.
func TestEveryFuzzTargetIsRun(t *testing.T) {
	targets := 0
	for name, file := range sources(t) {
		for _, decl := range file.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok || f.Recv != nil || !strings.HasPrefix(f.Name.Name, "Fuzz") {
				continue
			}
			targets++
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(name, "_test.go") || strings.HasPrefix(string(text), "//go:build") ||
				!regexp.MustCompile(`(?m)^func `+f.Name.Name+`\(\w+ \*testing\.F\) \{`).Match(text) {
				t.Errorf("%s: make fuzz does not see %s", name, f.Name.Name)
			}
		}
	}
	if targets < 20 {
		t.Errorf("%d targets were found", targets)
	}
	script, err := os.ReadFile("scripts/functions-of")
	if err != nil || !strings.Contains(string(script), `grep -lE "^func ${kind}[A-Z]"`) {
		t.Errorf("scripts/functions-of looks for targets otherwise than this test: %v", err)
	}
}
