package strictyaml

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

var (
	// inDoubt are the whole numbers that YAML 1.1 reads by eights and YAML 1.2 by tens.
	inDoubt     = regexp.MustCompile(`^[-+]?0[0-9_]+$`)
	unmarshaler = reflect.TypeFor[yaml.Unmarshaler]()
)

// numbers refuses what the YAML library would read as another whole number than the one that is written: of 1.9 it leaves 1, of 0.5
// nothing, and 010 is 8. Where a text is wanted they are what is written, so the walk goes along the type that is decoded into. What does
// not fit the type the decoder refuses.
func (d *Document) numbers(n *yaml.Node, t reflect.Type, path string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if reflect.PointerTo(t).Implements(unmarshaler) {
		return
	}
	switch {
	case n.Kind == yaml.ScalarNode && isWhole(t.Kind()):
		if n.Tag == "!!float" || n.Tag == "!!int" && inDoubt.MatchString(n.Value) {
			d.problems = append(d.problems, Problem{
				File: d.file, Line: n.Line, Field: path, Message: fmt.Sprintf("%.20q is not a whole number in digits", n.Value),
				Hint: "write it without a point, an exponent or zeros in front",
			})
		}
	case n.Kind == yaml.SequenceNode && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array):
		for i, c := range n.Content {
			d.numbers(c, t.Elem(), fmt.Sprintf("%s[%d]", path, i))
		}
	case n.Kind == yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i].Value, n.Content[i+1]
			if of := fieldType(t, key); of != nil {
				d.numbers(value, of, strings.TrimPrefix(path+"."+key, "."))
			}
		}
	}
}

func isWhole(k reflect.Kind) bool { return reflect.Int <= k && k <= reflect.Uint64 }

// fieldType is the type of the field that a key names in a struct, or of the values of a map; nil where there is none.
func fieldType(t reflect.Type, key string) reflect.Type {
	if t.Kind() == reflect.Map {
		return t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if options == "inline" {
			if found := fieldType(f.Type, key); found != nil {
				return found
			}
		} else if name == key || name == "" && strings.ToLower(f.Name) == key {
			return f.Type
		}
	}
	return nil
}
