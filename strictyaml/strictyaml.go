// Package strictyaml reads YAML files that people write and that a program must not misread: policies, configuration, ceremonies.
//
// It refuses what makes YAML surprising (anchors, aliases, merge keys, duplicate keys, several documents, tags of one's own, whole numbers
// that are read as others than are written) and what the reader does not know (unknown fields), reports every problem at once, and says
// file and line of each. It owns no file format of its own. The package is pure: the bytes come in.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Limits of what is read at all.
const (
	MaxSize  = 256 << 10 // octets
	maxDepth = 32
)

// Problem is one thing wrong with a file.
type Problem struct {
	File    string
	Line    int    // 1 for the first; 0 when it concerns the file as a whole
	Field   string // path of the field, such as "names.dns.max"; empty when there is none
	Message string
	Hint    string // how to mend it; may be empty
}

func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	b.WriteString(": ")
	if p.Field != "" {
		b.WriteString(p.Field + ": ")
	}
	b.WriteString(p.Message)
	if p.Hint != "" {
		b.WriteString(" (" + p.Hint + ")")
	}
	return b.String()
}

// Error is every problem found in one or several files.
type Error struct{ Problems []Problem }

func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Document is a file that was read.
type Document struct {
	file     string
	lines    map[string]int
	texts    map[string]int // the first line of fields that hold a text of several lines, as written
	problems []Problem
}

// Decode reads data into the struct that into points to, by its yaml tags. It returns the document, for the lines of its fields and for
// further problems, also when there are problems: ask Err in the end.
func Decode(file string, data []byte, into any) *Document {
	d := &Document{file: file, lines: map[string]int{}, texts: map[string]int{}}
	if len(data) > MaxSize {
		d.problems = append(d.problems, Problem{File: file, Message: fmt.Sprintf("the file has more than %d octets", MaxSize)})
		return d
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var root yaml.Node
	if err := decoder.Decode(&root); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("the file is empty")
		}
		d.syntax(err)
		return d
	}
	var second yaml.Node
	if err := decoder.Decode(&second); !errors.Is(err, io.EOF) {
		d.problems = append(d.problems, Problem{File: file, Line: max(second.Line, 1), Message: "more than one document in the file", Hint: "remove the --- and what follows"})
		return d
	}
	top := root.Content[0]
	if d.lines[""] = top.Line; top.Kind != yaml.MappingNode {
		d.problems = append(d.problems, Problem{File: file, Line: top.Line, Message: "the file does not hold a mapping of fields"})
		return d
	}
	if d.walk(top, "", 0); len(d.problems) > 0 {
		return d
	}
	if d.numbers(top, reflect.TypeOf(into), ""); len(d.problems) > 0 {
		return d
	}
	strict := yaml.NewDecoder(bytes.NewReader(data))
	strict.KnownFields(true)
	if err := strict.Decode(into); err != nil {
		d.syntax(err)
	}
	return d
}

// walk refuses surprises and remembers the lines of fields.
func (d *Document) walk(n *yaml.Node, path string, depth int) {
	refuse := func(message, hint string) {
		d.problems = append(d.problems, Problem{File: d.file, Line: n.Line, Field: path, Message: message, Hint: hint})
	}
	if depth > maxDepth {
		refuse("nested too deeply", "")
		return
	}
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		refuse("anchors and aliases are not allowed", "write the value out")
		return
	}
	if n.Style&yaml.TaggedStyle != 0 {
		refuse("tags are not allowed", "write the value without "+strconv.Quote(n.Tag))
	}
	if path != "" {
		d.lines[path] = n.Line
	}
	switch n.Kind {
	case yaml.ScalarNode:
		if n.Tag == "!!null" {
			refuse("the value is empty", "write a value, {} for a mapping with defaults, or leave the field out")
		}
		if n.Style&yaml.LiteralStyle != 0 {
			d.texts[path] = n.Line + 1
		}
	case yaml.SequenceNode:
		for i, c := range n.Content {
			d.walk(c, fmt.Sprintf("%s[%d]", path, i), depth+1)
		}
	case yaml.MappingNode:
		seen := map[string]bool{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			field := strings.TrimPrefix(path+"."+key.Value, ".")
			switch {
			case key.Kind != yaml.ScalarNode || key.Anchor != "":
				d.problems = append(d.problems, Problem{File: d.file, Line: key.Line, Field: path, Message: "a key must be a plain word"})
				continue
			case key.Tag == "!!merge":
				d.problems = append(d.problems, Problem{File: d.file, Line: key.Line, Field: path, Message: "merge keys are not allowed", Hint: "write the fields out"})
				continue
			case seen[key.Value]:
				d.problems = append(d.problems, Problem{File: d.file, Line: key.Line, Field: field, Message: "the key stands here twice", Hint: "remove one of the two"})
				continue
			}
			seen[key.Value] = true
			d.walk(value, field, depth+1)
			d.lines[field] = key.Line
		}
	}
}

var (
	atLine       = regexp.MustCompile(`^(?:yaml: )?line (\d+): (.*)$`)
	unknownField = regexp.MustCompile(`^field (\S+) not found in type .*$`)
	wrongType    = regexp.MustCompile(`^cannot unmarshal !!(\S+)(?: (.*))? into (.*)$`)
)

// syntax turns the YAML library's words into problems.
func (d *Document) syntax(err error) {
	messages := []string{err.Error()}
	var typed *yaml.TypeError
	if errors.As(err, &typed) {
		messages = typed.Errors
	}
	for _, m := range messages {
		m = strings.ToValidUTF8(m, "?")
		p := Problem{File: d.file, Message: strings.TrimPrefix(m, "yaml: ")}
		if found := atLine.FindStringSubmatch(m); found != nil {
			p.Line, _ = strconv.Atoi(found[1])
			p.Message = found[2]
		}
		if found := unknownField.FindStringSubmatch(p.Message); found != nil {
			p.Field, p.Message, p.Hint = found[1], "unknown field", "check the spelling and the indentation"
		}
		if found := wrongType.FindStringSubmatch(p.Message); found != nil {
			p.Message = fmt.Sprintf("a value of this type does not belong here: %s %s", found[1], found[2])
		}
		d.problems = append(d.problems, p)
	}
}

// Line is the line of a field, by its path ("authorities[0].key.label"), or of the nearest field around it that is there, or of the file's first field.
func (d *Document) Line(path string) int {
	for path != "" {
		if line, ok := d.lines[path]; ok {
			return line
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return d.lines[""]
}

// Has tells whether a field was written in the file.
func (d *Document) Has(path string) bool {
	_, ok := d.lines[path]
	return ok
}

// Refuse adds a problem with a field.
func (d *Document) Refuse(field, hint, format string, args ...any) {
	d.problems = append(d.problems, Problem{File: d.file, Line: d.Line(field), Field: field, Message: fmt.Sprintf(format, args...), Hint: hint})
}

// RefuseText adds a problem with a line, from 1 on, of the text that a field holds. It is reported at that line of the file where the text
// stands there line by line ("|"), and at the field otherwise.
func (d *Document) RefuseText(field string, line int, hint, format string, args ...any) {
	at := d.Line(field)
	if first, ok := d.texts[field]; ok {
		at = first + line - 1
	}
	d.problems = append(d.problems, Problem{File: d.file, Line: at, Field: field, Message: fmt.Sprintf(format, args...), Hint: hint})
}

// OK tells that no problem has been found so far.
func (d *Document) OK() bool { return len(d.problems) == 0 }

// Problems are the problems found so far, by line.
func (d *Document) Problems() []Problem {
	sorted := slices.Clone(d.problems)
	slices.SortStableFunc(sorted, func(a, b Problem) int { return a.Line - b.Line })
	return sorted
}

// Err is nil, or an *Error with every problem found.
func (d *Document) Err() error {
	if d.OK() {
		return nil
	}
	return &Error{Problems: d.Problems()}
}
