package audit

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// update has the table of kinds in docs/audit.md written anew: go test ./audit -run Kind -update.
var update = flag.Bool("update", false, "write docs/audit.md anew")

// declared are the kinds among the package's constants.
func declared(t *testing.T) (kinds []Kind) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "audit.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, decl := range file.Decls {
		constants, ok := decl.(*ast.GenDecl)
		if !ok || constants.Tok != token.CONST {
			continue
		}
		for _, spec := range constants.Specs {
			value := spec.(*ast.ValueSpec)
			if name, ok := value.Type.(*ast.Ident); !ok || name.Name != "Kind" {
				continue
			}
			text, err := strconv.Unquote(value.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			kinds = append(kinds, Kind(text))
		}
	}
	return kinds
}

// TestEveryKindIsDocumented holds the list of kinds against the constants, and the table in docs/audit.md against the list.
func TestEveryKindIsDocumented(t *testing.T) {
	const path, begin, end = "../docs/audit.md", "<!-- kinds -->\n", "<!-- end of kinds -->\n"
	var listed []Kind
	var table strings.Builder
	table.WriteString("| kind | what happened | data |\n| --- | --- | --- |\n")
	for _, k := range Kinds() {
		listed = append(listed, k.Kind)
		if k.What == "" || len(k.Fields) == 0 {
			t.Errorf("%s is not explained", k.Kind)
		}
		for _, field := range k.Fields {
			if slices.Contains(privateFields(k.Kind), field) {
				t.Errorf("%s: the field %s stands in leaves as %s%s", k.Kind, field, field, Salted)
			}
		}
		fmt.Fprintf(&table, "| `%s` | %s | `%s` |\n", k.Kind, k.What, strings.Join(k.Fields, "`, `"))
	}
	for _, kind := range declared(t) {
		if !slices.Contains(listed, kind) {
			t.Errorf("%s is not in Kinds: say what it means, and then run go test ./audit -run Kind -update", kind)
		}
	}
	document, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := bytes.Cut(document, []byte(begin))
	_, after, ok2 := bytes.Cut(rest, []byte(end))
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the kinds", path)
	}
	want := slices.Concat(before, []byte(begin), []byte(table.String()), []byte(end), after)
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	} else if !bytes.Equal(document, want) {
		t.Errorf("%s has another table of kinds: run go test ./audit -run Kind -update", path)
	}
}
