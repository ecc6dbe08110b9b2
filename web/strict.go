package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/chancery-ca/chancery/policies"
)

// The limits of a JSON body. No body of this API comes near them.
const (
	maxDepth      = 8  // nested objects and arrays
	maxViolations = 20 // reported at once
	maxQuoted     = 64 // characters of the caller's own words in an answer
)

// decodeStrict reads one JSON object into a struct, and refuses what two readers could read differently: names that stand twice at any
// depth, names that are not the field's exactly, unknown names, null, text that is not UTF-8, and whatever follows the object.
// The error is always an *invalid, and what was read counts for nothing then.
func decodeStrict(data []byte, into any) error {
	if !utf8.Valid(data) {
		return malformed("json.encoding", "body", "the body is not UTF-8", "send JSON in UTF-8 (RFC 8259, section 8.1)")
	}
	wrong := json.Unmarshal(data, into)
	if notJSON := (*json.SyntaxError)(nil); errors.As(wrong, &notJSON) {
		return syntax(data, notJSON)
	}
	reader := &strictReader{rest: data}
	value, err := reader.value("", 0)
	if err != nil {
		return err
	}
	if _, isObject := value.(map[string]any); !isObject {
		return malformed("json.type", "body", "the body is not a JSON object", "send an object, in braces")
	}
	reader.exactNames("", value, reflect.TypeOf(into).Elem())
	if len(reader.violations) > 0 {
		return &invalid{kind: kindMalformed, violations: reader.violations}
	}
	if wrong != nil {
		return mistyped(wrong)
	}
	return nil
}

func malformed(rule, field, message, hint string) error {
	return &invalid{kind: kindMalformed, violations: []policies.Violation{{Rule: rule, Field: field, Message: message, Hint: hint}}}
}

// syntax says what is wrong with data that is not one JSON value.
func syntax(data []byte, wrong *json.SyntaxError) error {
	const hint = "send one JSON object (RFC 8259)"
	switch err := json.NewDecoder(bytes.NewReader(data)).Decode(new(json.RawMessage)); {
	case err == nil:
		return malformed("json.trailing-data", "body", "something follows the JSON value", "send one JSON object and nothing else")
	case errors.Is(err, io.EOF):
		return malformed("json.syntax", "body", "the body is empty", hint)
	case errors.Is(err, io.ErrUnexpectedEOF):
		return malformed("json.syntax", "body", "the body is not JSON, or ends too early", hint)
	case strings.Contains(wrong.Error(), "max depth"): // encoding/json's own, of ten thousand
		return tooDeep()
	}
	return malformed("json.syntax", "body", fmt.Sprintf("the body is not JSON: it breaks at octet %d", wrong.Offset), hint)
}

func tooDeep() error {
	return malformed("json.depth", "body", fmt.Sprintf("the body nests deeper than %d", maxDepth), "no field of this API nests so deep")
}

func mistyped(err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return malformed("json.type", wrong.Field, wrong.Field+" is a JSON "+wrong.Value, "give it the type that the OpenAPI document says")
	}
	return malformed("json.syntax", "body", "the body cannot be read", "give the fields the types that the OpenAPI document says")
}

// strictReader walks through a value that is valid JSON. It keeps nothing of it but the names, in a tree: what the values are is for
// encoding/json to read.
type strictReader struct {
	rest       []byte // what has not been walked through
	violations []policies.Violation
}

func (r *strictReader) report(rule, field, message, hint string) {
	if len(r.violations) < maxViolations {
		r.violations = append(r.violations, policies.Violation{Rule: rule, Field: field, Message: message, Hint: hint})
	}
}

// value walks through the next value. Of an object it returns a map[string]any, of an array []any, of everything else nil.
func (r *strictReader) value(path string, depth int) (any, error) {
	if depth > maxDepth {
		return nil, tooDeep()
	}
	switch r.next() {
	case '{':
		return r.object(path, depth)
	case '[':
		return r.array(path, depth)
	case '"':
		r.checkText(path, r.text())
	case 'n':
		r.report("json.null", field(path), field(path)+" is null", "leave the field out")
		fallthrough
	default: // a number or a literal ends where something else begins
		r.rest = bytes.TrimLeft(r.rest, "+-.0123456789Eaeflnrstu")
	}
	return nil, nil
}

func (r *strictReader) object(path string, depth int) (any, error) {
	members := map[string]any{}
	err := r.each(func() (err error) {
		written := r.text()
		name := unquoted(written)
		inner := join(path, name)
		r.checkText(inner, written)
		if _, twice := members[name]; twice {
			r.report("json.duplicate-name", inner, inner+" stands twice", "give each name once")
		}
		r.skip() // the colon
		members[name], err = r.value(inner, depth+1)
		return err
	})
	return members, err
}

func (r *strictReader) array(path string, depth int) (any, error) {
	elements := []any{}
	err := r.each(func() error {
		element, err := r.value(path+"[]", depth+1)
		elements = append(elements, element)
		return err
	})
	return elements, err
}

// each walks through an object or an array, by what it is given for each member.
func (r *strictReader) each(member func() error) error {
	r.skip() // the brace or the bracket
	if c := r.next(); c == '}' || c == ']' {
		r.skip()
		return nil
	}
	for {
		if err := member(); err != nil {
			return err
		}
		if r.skip() != ',' {
			return nil
		}
	}
}

// next is the next octet that is not white space.
func (r *strictReader) next() byte {
	r.rest = bytes.TrimLeft(r.rest, " \t\r\n")
	return r.rest[0]
}

// skip passes that octet.
func (r *strictReader) skip() byte {
	c := r.next()
	r.rest = r.rest[1:]
	return c
}

// text passes a text, and returns it as it is written, in its quotation marks.
func (r *strictReader) text() []byte {
	r.next()
	end := 1
	for ; r.rest[end] != '"'; end++ {
		if r.rest[end] == '\\' {
			end++
		}
	}
	written := r.rest[:end+1]
	r.rest = r.rest[end+1:]
	return written
}

// unquoted is what a text says.
func unquoted(written []byte) (text string) {
	if bytes.IndexByte(written, '\\') < 0 {
		return string(written[1 : len(written)-1])
	}
	_ = json.Unmarshal(written, &text) // it is valid
	return text
}

// checkText refuses the character that encoding/json puts in place of half a surrogate pair: it is nobody's name, and what it replaced
// is lost.
func (r *strictReader) checkText(path string, written []byte) {
	if bytes.ContainsRune(written, utf8.RuneError) || bytes.Contains(written, []byte(`\u`)) && strings.ContainsRune(unquoted(written), utf8.RuneError) {
		r.report("json.encoding", field(path), field(path)+" holds U+FFFD or half a surrogate pair", "send whole characters")
	}
}

// exactNames refuses names that a struct does not have. encoding/json would take "CSR" for "csr".
func (r *strictReader) exactNames(path string, value any, t reflect.Type) {
	if elements, isArray := value.([]any); isArray && t.Kind() == reflect.Slice {
		for _, element := range elements {
			r.exactNames(path+"[]", element, t.Elem())
		}
		return
	}
	members, isObject := value.(map[string]any)
	if !isObject || t.Kind() != reflect.Struct {
		return
	}
	for _, name := range sortedKeys(members) {
		f, known := fieldNamed(t, name)
		if !known {
			r.report("json.unknown-field", join(path, name), join(path, name)+" is not a field here",
				"the fields are "+strings.Join(fieldNames(t), ", "))
			continue
		}
		r.exactNames(join(path, name), members[name], f)
	}
}

// fieldNamed is the type of the field of a struct that has this name in JSON.
func fieldNamed(t reflect.Type, name string) (reflect.Type, bool) {
	for i := range t.NumField() {
		if f := t.Field(i); jsonName(f) == name {
			return f.Type, true
		}
	}
	return nil, false
}

func fieldNames(t reflect.Type) (names []string) {
	for i := range t.NumField() {
		names = append(names, jsonName(t.Field(i)))
	}
	return names
}

func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// join makes the path of a member. The names are the caller's own words, so they are cut and quoted where they are not plain.
func join(path, name string) string {
	if !plain(name) {
		name = quote(name)
	}
	if path == "" {
		return name
	}
	return path + "." + name
}

func field(path string) string {
	if path == "" {
		return "body"
	}
	return path
}

func plain(name string) bool {
	return name != "" && len(name) <= maxQuoted && !strings.ContainsFunc(name, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_' || r == '-')
	})
}

// quote makes the caller's own words fit for an answer and a log.
func quote(s string) string {
	if len(s) <= maxQuoted {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("%q...", s[:maxQuoted])
}
