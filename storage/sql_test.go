package storage_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// assembled are the expressions that put SQL together from more than constants, and why none of them can hold what a caller says.
var assembled = map[string]string{
	`"SET ROLE " + pgx.Identifier{…}.Sanitize() + ";" + durabilitySettings`:           "roles cannot be arguments; the name is quoted, the rest constant",
	`"GRANT " + pgx.Identifier{…}.Sanitize() + " TO " + pgx.Identifier{…}.Sanitize()`: "roles cannot be arguments; the names are quoted",
	`sql + outlook + " FROM chosen"`:                                                  "sql is selectionQuery's",
	`selectWaiting + condition`:                                                       "condition is one of two constants",
	`sql + frozen`:                                                                    "sql is selectionQuery's",
	`fmt.Fprintf(&sql, "%s1 OFFSET %d", listOrder, reach - 1)`:                        "a constant, and a number of our own",
	`fmt.Fprintf(&b, "%s%d", listOrder, f.Limit + 1)`:                                 "a constant, and a number",
	`fmt.Fprintf(&b, chosenBegin, changedBy(wish))`:                                   "changedBy is one of three constants",
	`strings.Replace(status, "$now", "?", 1)`:                                         "status is one of statusConditions",
	`b.id + " < ?::text::uuid"`:                                                       "the id of byID is a constant at each use",
	`b.namespace + " = ?"`:                                                            "the namespace of byID is a constant at each use",
	`fmt.Fprintf(&sql, " ORDER BY %s DESC LIMIT %d", b.id, limit + 1)`: "the id of byID is a constant at each use, and limit " +
		"a number",
}

// takesSQL are the methods that are given SQL, and in which place.
var takesSQL = map[string]int{"Exec": 1, "Query": 1, "QueryRow": 1, "Prepare": 2, "Queue": 0, "where": 0, "WriteString": 0}

// sqlWord is what SQL is known by.
var sqlWord = regexp.MustCompile(`\b(SELECT|INSERT INTO|UPDATE|DELETE FROM|FROM|WHERE|GRANT|SET ROLE|SET LOCAL|ORDER BY|RETURNING|VALUES|LOCK TABLE)\b`)

// TestSQLIsNoCallersText: statements are constants, and what is put together of more stands in a list with the reason why that is safe.
func TestSQLIsNoCallersText(t *testing.T) {
	met := map[string]bool{}
	for place, expression := range assembledSQL(t) {
		met[expression] = true
		if assembled[expression] == "" {
			t.Errorf("%s: SQL is put together: %s: give what varies as an argument ($1), or say in the list why it is safe", place, expression)
		}
	}
	for expression := range assembled {
		if !met[expression] {
			t.Errorf("the list has %s, which is nowhere", expression)
		}
	}
}

// assembledSQL finds, by place, what is sent as SQL and is neither a constant nor the name of something, and what makes text with words of
// SQL of more than constants.
func assembledSQL(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	// What is imported does not matter: constants of this package can be known without it.
	info := types.Info{Types: map[ast.Expr]types.TypeAndValue{}}
	config := types.Config{Importer: nothing{}, Error: func(error) {}}
	_, _ = config.Check("storage", set, files, &info)
	found, constants := map[string]string{}, 0
	constant := func(e ast.Expr) bool { return info.Types[e].Value != nil }
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			switch e := n.(type) {
			case *ast.BinaryExpr:
				if e.Op == token.ADD && !constant(e) && saysSQL(&info, e) {
					found[set.Position(e.Pos()).String()] = types.ExprString(e)
					return false
				}
			case *ast.CallExpr:
				method, ok := e.Fun.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				if in, ok := method.X.(*ast.Ident); ok &&
					(in.Name == "fmt" && strings.Contains(method.Sel.Name, "f") && method.Sel.Name != "Errorf" || in.Name == "strings") {
					if saysSQL(&info, e) {
						found[set.Position(e.Pos()).String()] = types.ExprString(e)
					}
					return true
				}
				place, ok := takesSQL[method.Sel.Name]
				if !ok || len(e.Args) <= place {
					return true
				}
				switch e.Args[place].(type) {
				case *ast.Ident, *ast.SelectorExpr, *ast.BasicLit: // made elsewhere, where this test looks as well
					constants++
				case *ast.CallExpr:
					if of := types.ExprString(e.Args[place]); of != "sql.String()" {
						found[set.Position(e.Pos()).String()] = of
					}
				default:
					if !constant(e.Args[place]) {
						found[set.Position(e.Pos()).String()] = types.ExprString(e.Args[place])
						return false
					}
				}
			}
			return true
		})
	}
	if constants < 50 {
		t.Fatalf("%d statements were found: the test asks wrongly", constants)
	}
	return found
}

// saysSQL tells whether a constant in an expression has a word of SQL.
func saysSQL(info *types.Info, within ast.Expr) (says bool) {
	ast.Inspect(within, func(n ast.Node) bool {
		if e, ok := n.(ast.Expr); ok {
			if value := info.Types[e].Value; value != nil && sqlWord.MatchString(value.ExactString()) {
				says = true
			}
		}
		return !says
	})
	return says
}

// nothing imports nothing.
type nothing struct{}

func (nothing) Import(path string) (*types.Package, error) {
	return types.NewPackage(path, filepath.Base(path)), nil
}
