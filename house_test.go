package chancery_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// module is the import path that every room's begins with.
const module = "github.com/chancery-ca/chancery"

// everyRoom, in the floor plan, is the right to import all rooms.
const everyRoom = "*"

// mayImport is the floor plan: each package, and the packages of this module that it may import. It is changed on purpose or not at
// all: a forbidden import is a question about the design, not about this table.
var mayImport = map[string][]string{
	".":                   {},
	"access":              {},
	"approval":            {},
	"archive":             {"audit", "ndjson"},
	"audit":               {"ndjson"},
	"blocklist":           {},
	"ca":                  {"access", "approval", "audit", "csr", "issuance", "policies"},
	"caa":                 {"policies"},
	"ceremony":            {"audit", "hsm", "issuance", "keeper", "policies", "strictyaml"},
	"client":              {},
	"cmd/chancery":        {everyRoom},
	"csr":                 {},
	"csr/csrtest":         {"csr"},
	"delivery":            {"audit"},
	"hsm":                 {"hsm/internal/direct", "hsm/sealed"},
	"hsm/hsmtest":         {"hsm", "hsm/internal/direct"},
	"hsm/internal/direct": {},
	"hsm/probe":           {"hsm", "hsm/internal/direct"},
	"hsm/sealed":          {},
	"hsm/usage":           {"hsm", "strictyaml"},
	"identity":            {"access"},
	"issuance":            {"policies"},
	"keeper":              {"hsm"},
	"migrations":          {},
	"ndjson":              {},
	"mirror":              {"ca", "issuance"},
	"oidc":                {"access"},
	"oidc/native":         {"access", "oidc"},
	"oidc/oidctest":       {},
	"policies":            {"access", "csr", "strictyaml"},
	"policies/analysis":   {"policies"},
	"policies/trial":      {"access", "csr", "policies", "strictyaml"},
	"reconcile":           {},
	"revocation":          {},
	"storage": {
		"access", "approval", "archive", "audit", "ca", "csr", "issuance", "migrations", "policies", "reconcile", "storage/postgres",
	},
	"storage/postgres":     {},
	"storage/storagetest":  {"storage", "storage/postgres"},
	"strictyaml":           {},
	"transparency":         {},
	"web":                  {"access", "approval", "audit", "ca", "csr", "policies"},
	"web/console":          {"access", "audit", "ca", "oidc", "web"},
	"transparency/logtest": {},
}

// testParts are the packages that give tests real things to work on. Every room's tests may import them, and nothing else may.
var testParts = []string{"csr/csrtest", "hsm/hsmtest", "oidc/oidctest", "storage/storagetest", "transparency/logtest"}

// testsMayImport are the further rooms that a room's tests need beside the test parts: a token of hsmtest is opened and asked by hsm's
// names.
var testsMayImport = map[string][]string{"issuance": {"access", "csr", "hsm"}}

// doors says for each outside module, or part of one, which packages use it; what a package has below it belongs to it. Whoever else
// needs what the module does asks that package for it.
var doors = map[string][]string{
	"cel.dev/cel-go":                                {"policies"},
	"filippo.io/nistec":                             {"issuance"},
	"github.com/ThalesIgnite/crypto11":              {"hsm"},
	"github.com/caarlos0/env/v11":                   {"cmd/chancery"},
	"github.com/coreos/go-oidc/v3":                  {"oidc"},
	"github.com/danielgtaylor/huma/v2":              {"web"},
	"github.com/go-chi/chi/v5":                      {"web"},
	"github.com/go-jose/go-jose/v4":                 {"oidc"},
	"github.com/google/uuid":                        {"cmd/chancery"},
	"github.com/jackc/pgx/v5":                       {"storage"},
	"github.com/miekg/dns":                          {"caa"},
	"github.com/miekg/pkcs11":                       {"hsm"},
	"github.com/pressly/goose/v3":                   {"storage"},
	"github.com/prometheus/client_golang":           {"web"},
	"github.com/smallstep/pkcs7":                    {"approval", "web"},
	"github.com/spf13/cobra":                        {"cmd/chancery"},
	"github.com/titanous/rocacheck":                 {"policies"},
	"github.com/zmap/zcrypto":                       {"issuance"},
	"github.com/zmap/zlint/v3":                      {"issuance"},
	"go.yaml.in/yaml/v3":                            {"policies", "strictyaml"},
	"golang.org/x/crypto/cryptobyte":                {"csr", "issuance", "keeper", "transparency"},
	"golang.org/x/crypto/ocsp":                      {"cmd/chancery", "revocation"},
	"golang.org/x/crypto/ssh":                       {"approval"},
	"golang.org/x/net/idna":                         {"policies"},
	"golang.org/x/net/publicsuffix":                 {"policies"},
	"golang.org/x/oauth2":                           {"oidc"},
	"golang.org/x/sync/errgroup":                    {"cmd/chancery"},
	"golang.org/x/sync/semaphore":                   {"keeper"},
	"golang.org/x/term":                             {"cmd/chancery"},
	"golang.org/x/text/cases":                       {"keeper"},
	"golang.org/x/text/unicode/norm":                {"keeper"},
	"golang.org/x/time/rate":                        {"keeper", "web"},
	"github.com/google/certificate-transparency-go": {"transparency"},
	"github.com/transparency-dev/merkle":            {"keeper", "transparency"},
	"golang.org/x/mod/sumdb":                        {"audit", "transparency"},
}

// testDoors are the further uses of outside modules that tests, and the parts made for them, are free to make.
var testDoors = map[string][]string{
	"github.com/rogpeppe/go-internal/testscript": {everyRoom},
	"go.uber.org/goleak":                         {everyRoom},
	"pgregory.net/rapid":                         {everyRoom},
	"github.com/google/uuid":                     {everyRoom},
	// A whole provider, for logins as they are.
	"github.com/zitadel/oidc/v3": {"oidc/oidctest"},
	// What zlint's lints read is found from their source.
	"golang.org/x/tools/go": {"issuance"},
	// What reads OCSP answers is not what writes them.
	"golang.org/x/crypto/ocsp": {"issuance"},
	// What computes a tree in tests is not what keeps it.
	"golang.org/x/mod/sumdb":             {"cmd/chancery", "keeper", "storage"},
	"github.com/transparency-dev/merkle": {"audit", "cmd/chancery"},
	// The end-to-end tests answer as a resolver would.
	"github.com/miekg/dns": {"cmd/chancery"},
	// The end-to-end tests look at the rows from outside, as an auditor with psql would.
	"github.com/jackc/pgx/v5": {"cmd/chancery"},
}

// forbidden names every import that the floor plan does not allow. imports holds for each file, by its path in the repository, what it
// imports.
func forbidden(imports map[string][]string) []string {
	var found []string
	for _, file := range slices.Sorted(maps.Keys(imports)) {
		for _, imported := range imports[file] {
			if why := whyForbidden(file, imported); why != "" {
				found = append(found, fmt.Sprintf("%s imports %s: %s", file, imported, why))
			}
		}
	}
	return found
}

func whyForbidden(file, imported string) string {
	room, isTest := path.Dir(file), strings.HasSuffix(file, "_test.go")
	rooms, known := mayImport[room]
	if !known {
		return fmt.Sprintf("%s is not a room of the floor plan", room)
	}
	if target, ours := roomOf(imported); ours {
		return whyNotRoom(room, isTest, rooms, target)
	}
	if !strings.Contains(strings.Split(imported, "/")[0], ".") {
		return "" // the standard library
	}
	if isTest || slices.Contains(testParts, room) {
		if holders, _ := doorOf(testDoors, imported); within(room, holders) {
			return ""
		}
	}
	holders, known := doorOf(doors, imported)
	if !known {
		if _, known := doorOf(testDoors, imported); known {
			return "this module is for tests"
		}
		return "this module has no door: say in house_test.go which room uses it, and in docs/dependencies.md why"
	}
	if !within(room, holders) {
		return "the door of this module is " + strings.Join(holders, ", ")
	}
	return ""
}

func whyNotRoom(room string, isTest bool, rooms []string, target string) string {
	if _, known := mayImport[target]; !known {
		return fmt.Sprintf("%s is not a room of the floor plan", target)
	}
	switch {
	case slices.Contains(rooms, target):
		return ""
	case isTest && (target == room || slices.Contains(testParts, target) || slices.Contains(testsMayImport[room], target)):
		return ""
	case slices.Contains(testParts, target):
		return target + " is for tests"
	case slices.Contains(rooms, everyRoom):
		return ""
	}
	return fmt.Sprintf("%s may import %s", room, orNothing(rooms))
}

// roomOf is the package's path in the repository, if it is one of ours.
func roomOf(imported string) (room string, ours bool) {
	if imported == module {
		return ".", true
	}
	return strings.CutPrefix(imported, module+"/")
}

// doorOf finds the longest entry that the imported package is, or is part of.
func doorOf(doors map[string][]string, imported string) (holders []string, known bool) {
	for at := imported; at != "."; at = path.Dir(at) {
		if holders, known := doors[at]; known {
			return holders, true
		}
	}
	return nil, false
}

// within tells whether the package is one of the holders or below one.
func within(room string, holders []string) bool {
	return slices.ContainsFunc(holders, func(holder string) bool {
		return holder == everyRoom || room == holder || strings.HasPrefix(room, holder+"/")
	})
}

func orNothing(rooms []string) string {
	if len(rooms) == 0 {
		return "no other room"
	}
	return "only " + strings.Join(rooms, ", ")
}

func TestNoImportOutsideTheFloorPlan(t *testing.T) {
	imports := map[string][]string{}
	for name, file := range sources(t) {
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatalf("%s: import %s: %v", name, spec.Path.Value, err)
			}
			imports[name] = append(imports[name], imported)
		}
	}
	for _, found := range forbidden(imports) {
		t.Error(found)
	}
}

func TestForbiddenImportsAreSeen(t *testing.T) {
	const ours = module + "/"
	for _, c := range []struct {
		file, imported string
		why            string // part of the answer; empty: allowed
	}{
		{"web/issue.go", ours + "ca", ""},
		{"web/issue.go", ours + "storage", "web may import only"},
		{"web/issue.go", ours + "issuance", "web may import only"},
		{"web/issue_test.go", ours + "storage", "web may import only"},
		{"web/issue_test.go", ours + "storage/storagetest", ""},
		{"web/issue.go", ours + "storage/storagetest", "is for tests"},
		{"web/issue_test.go", ours + "web", ""},
		{"storage/store.go", ours + "web", "storage may import only"},
		{"storage/store.go", ours + "storage/postgres", ""},
		{"ca/issue.go", ours + "hsm", "ca may import only"},
		{"ca/issue_test.go", ours + "hsm", "ca may import only"},
		{"issuance/hsm_test.go", ours + "hsm", ""},
		{"issuance/sign.go", ours + "hsm", "issuance may import only"},
		{"ca/issue.go", ours + "storage", "ca may import only"},
		{"csr/parse.go", ours + "policies", "csr may import no other room"},
		{"csr/parse_test.go", ours + "csr/csrtest", ""},
		{"hsm/hsmtest/hsmtest.go", ours + "storage/storagetest", "is for tests"},
		{"cmd/chancery/serve.go", ours + "storage", ""},
		{"cmd/chancery/serve.go", ours + "hsm/hsmtest", "is for tests"},
		{"cmd/chancery/serve.go", ours + "sundries", "sundries is not a room"},
		{"cmd/chancery/serve.go", module, ""},
		{"sundries/sundries.go", "fmt", "sundries is not a room"},
		{"web/console/home.go", ours + "storage", "web/console may import only"},
		{"web/sundries/page.go", ours + "ca", "web/sundries is not a room"},

		{"ca/issue.go", "crypto/x509", ""},
		{"ca/issue.go", "github.com/jackc/pgx/v5", "door of this module is storage"},
		{"ca/issue_test.go", "github.com/jackc/pgx/v5/pgxpool", "door of this module is storage"},
		{"storage/storagetest/cluster.go", "github.com/jackc/pgx/v5/pgxpool", ""},
		{"web/issue.go", "github.com/miekg/pkcs11", "door of this module is hsm"},
		{"cmd/chancery/dev.go", "github.com/ThalesIgnite/crypto11", "door of this module is hsm"},
		{"cmd/chancery/dev.go", "github.com/jackc/pgx/v5", "door of this module is storage"},
		{"cmd/chancery/kill_test.go", "github.com/jackc/pgx/v5/stdlib", ""},
		{"policies/expression.go", "cel.dev/cel-go/cel", ""},
		{"web/profiles.go", "cel.dev/cel-go/cel", "door of this module is policies"},
		{"policies/load.go", "github.com/zmap/zlint/v3/lint", "door of this module is issuance"},
		{"csr/parse.go", "golang.org/x/crypto/cryptobyte/asn1", ""},
		{"csr/csrtest/builder.go", "golang.org/x/crypto/cryptobyte", ""},
		{"csr/parse.go", "golang.org/x/crypto/bcrypt", "no door"},
		{"csr/parse.go", "github.com/ThalesGroup/crypto11", "no door"},
		{"csr/parse.go", "pgregory.net/rapid", "for tests"},
		{"csr/parse_test.go", "pgregory.net/rapid", ""},
		{"hsm/hsmtest/hsmtest.go", "go.uber.org/goleak", ""},
		{"client/client.go", "github.com/jackc/pgx/v5x", "no door"},
	} {
		found := forbidden(map[string][]string{c.file: {c.imported}})
		switch {
		case c.why == "" && len(found) != 0:
			t.Errorf("allowed, but reported: %s", found)
		case c.why != "" && len(found) != 1:
			t.Errorf("%s imports %s: reported %d times, want once", c.file, c.imported, len(found))
		case c.why != "" && !strings.Contains(found[0], c.why):
			t.Errorf("%q does not say %q", found[0], c.why)
		}
	}
}

func TestFloorPlanIsConsistent(t *testing.T) {
	plan := slices.Concat(slices.Collect(maps.Values(mayImport))...)
	for _, holders := range slices.Concat(slices.Collect(maps.Values(doors)), slices.Collect(maps.Values(testDoors)),
		slices.Collect(maps.Values(testsMayImport))) {
		plan = append(plan, holders...)
	}
	for _, room := range append(plan, testParts...) {
		if _, known := mayImport[room]; !known && room != everyRoom {
			t.Errorf("%q is named in the floor plan but has no line of its own", room)
		}
	}
	for room := range mayImport {
		if back := wayBack(room, room, map[string]bool{}); back != "" {
			t.Errorf("the floor plan goes in a circle: %s%s", room, back)
		}
	}
}

// wayBack finds how home can be reached from at.
func wayBack(home, at string, seen map[string]bool) string {
	for _, next := range mayImport[at] {
		if next == home {
			return " -> " + next
		}
		if !seen[next] {
			seen[next] = true
			if rest := wayBack(home, next, seen); rest != "" {
				return " -> " + next + rest
			}
		}
	}
	return ""
}

func TestEveryPackageSaysWhatItOwns(t *testing.T) {
	comments := map[string][]string{}
	for name, file := range sources(t) {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		room := path.Dir(name)
		comments[room] = append(comments[room], packageComments(file)...)
	}
	for room, found := range comments {
		if len(found) != 1 {
			t.Errorf("%s has %d package comments, want one", room, len(found))
			continue
		}
		kind, name := "Package ", path.Base(room)
		switch {
		case room == ".":
			name = path.Base(module)
		case strings.HasPrefix(room, "cmd/"):
			kind = "Command "
		}
		opening, _, _ := strings.Cut(found[0], "\n\n")
		rest, named := strings.CutPrefix(opening, kind+name+" ")
		if !named || len(strings.Fields(rest)) < 4 || !strings.ContainsAny(rest, ".?") {
			t.Errorf("%s: the package comment should open with %q and say in a sentence what the package owns, not %q", room, kind+name+" ...",
				opening)
		}
	}
}

func packageComments(file *ast.File) []string {
	if file.Doc == nil {
		return nil
	}
	return []string{file.Doc.Text()}
}

func TestEveryExportedNameIsExplained(t *testing.T) {
	for name, file := range sources(t) {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		for _, bare := range unexplained(file) {
			t.Errorf("%s: %s is exported and has no comment", name, bare)
		}
	}
}

// explainedElsewhere are methods whose meaning the interface that they satisfy fixes.
var explainedElsewhere = []string{
	"As", "Error", "Format", "GoString", "Is", "LogValue", "MarshalJSON", "MarshalText", "MarshalYAML", "String", "UnmarshalJSON",
	"UnmarshalText", "UnmarshalYAML", "Unwrap",
}

// unexplained names the exported functions, methods, types, constants and variables without a comment. In a group, the group's will do.
func unexplained(file *ast.File) (names []string) {
	for _, decl := range file.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			switch {
			case decl.Doc != nil || !decl.Name.IsExported():
			case decl.Recv == nil:
				names = append(names, decl.Name.Name)
			case ast.IsExported(receiver(decl)) && !slices.Contains(explainedElsewhere, decl.Name.Name):
				names = append(names, receiver(decl)+"."+decl.Name.Name)
			}
		case *ast.GenDecl:
			if decl.Doc == nil {
				names = append(names, unexplainedSpecs(decl)...)
			}
		}
	}
	return names
}

func unexplainedSpecs(decl *ast.GenDecl) (names []string) {
	for _, spec := range decl.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			if spec.Doc == nil && spec.Comment == nil && spec.Name.IsExported() {
				names = append(names, spec.Name.Name)
			}
		case *ast.ValueSpec:
			for _, name := range spec.Names {
				if spec.Doc == nil && spec.Comment == nil && name.IsExported() {
					names = append(names, name.Name)
				}
			}
		}
	}
	return names
}

func receiver(decl *ast.FuncDecl) string {
	for at := decl.Recv.List[0].Type; ; {
		switch x := at.(type) {
		case *ast.StarExpr:
			at = x.X
		case *ast.IndexExpr:
			at = x.X
		case *ast.IndexListExpr:
			at = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}

func TestUnexplainedNamesAreSeen(t *testing.T) {
	const text = `// Package p is an example.
package p

type Bare struct{}

func (Bare) Do() {}

func (b *Bare) String() string { return "" }

func (Bare) hidden() {}

type hidden struct{}

func (hidden) Do() {}

type List[T any] []T

func (l *List[T]) Push() {}

func Run() {}

const Limit = 1

var (
	Explained = 1 // is explained
	// AlsoExplained is explained.
	AlsoExplained = 2
	A, b          = 3, 4
)

// A group.
const (
	One = 1
	Two = 2
)

// Told is told.
func Told() {}
`
	file, err := parser.ParseFile(token.NewFileSet(), "p.go", text, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	got, want := unexplained(file), []string{"Bare", "Bare.Do", "List", "List.Push", "Run", "Limit", "A"}
	if !slices.Equal(got, want) {
		t.Errorf("unexplained: %q, want %q", got, want)
	}
}

func TestNothingRunsBeforeMain(t *testing.T) {
	for name, file := range sources(t) {
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
				t.Errorf("%s has an init function: what is needed is passed in, and what is wired is wired in cmd", name)
			}
		}
	}
}

func TestNamesSayWhatIsInside(t *testing.T) {
	empty := []string{"base", "common", "helper", "helpers", "lib", "manager", "misc", "shared", "util", "utils"}
	for name, file := range sources(t) {
		words := append(strings.Split(name, "/"), strings.TrimSuffix(file.Name.Name, "_test"))
		for _, word := range words {
			word = strings.TrimSuffix(strings.TrimSuffix(word, ".go"), "_test")
			if slices.Contains(empty, word) {
				t.Errorf("%s: the name %q says nothing about what is inside", name, word)
			}
		}
	}
}

// sources reads every Go file of this module, by its path in the repository.
func sources(t *testing.T) map[string]*ast.File {
	t.Helper()
	files := map[string]*ast.File{}
	set := token.NewFileSet()
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && name != "." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" || name == "tools") {
			return fs.SkipDir
		}
		if entry.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		files[filepath.ToSlash(name)], err = parser.ParseFile(set, name, nil, parser.ParseComments)
		return err
	})
	if err != nil {
		t.Fatalf("reading the sources: %v", err)
	}
	if len(files) < 2 {
		t.Fatal("there are no sources here")
	}
	return files
}
