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
	maxDepth      = 8    // nested objects and arrays
	maxMembers    = 2048 // names, and objects and arrays in arrays, all together: each takes far more memory than it takes room
	maxViolations = 20   // reported at once
	maxQuoted     = 64   // characters of the caller's own words in an answer
)

// decodeStrict reads one JSON object into a struct, and refuses what two readers could read differently: names that stand twice at any
// depth, names that are not the field's exactly, unknown names, null, text that is not UTF-8, and whatever follows the object.
// The error is always an *invalid, and what was read counts for nothing then. Nothing is made of a body before it is found in order: what
// is made takes many times its room.
func decodeStrict(data []byte, into any) error {
	if !utf8.Valid(data) {
		return malformed("json.encoding", "body", "the body is not UTF-8", "send JSON in UTF-8 (RFC 8259, section 8.1)")
	}
	if !json.Valid(data) {
		return syntax(data)
	}
	reader := &strictReader{rest: data}
	isObject := reader.next() == '{'
	if err := reader.value("", reflect.TypeOf(into).Elem(), 0); err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if !isObject {
		return malformed("json.type", "body", "the body is not a JSON object", "send an object, in braces")
	}
	if len(reader.violations) > 0 {
		return &invalid{kind: kindMalformed, violations: reader.violations}
	}
	if err := json.Unmarshal(data, into); err != nil {
		return mistyped(err)
	}
	return nil
}

func malformed(rule, field, message, hint string) error {
	return &invalid{kind: kindMalformed, violations: []policies.Violation{{Rule: rule, Field: field, Message: message, Hint: hint}}}
}

// syntax says what is wrong with data that is not one JSON value.
func syntax(data []byte) error {
	const hint = "send one JSON object (RFC 8259)"
	wrong := json.Unmarshal(data, new(json.RawMessage))
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
	at := new(json.SyntaxError)
	errors.As(wrong, &at)
	return malformed("json.syntax", "body", fmt.Sprintf("the body is not JSON: it breaks at octet %d", at.Offset), hint)
}

func tooDeep() error {
	return malformed("json.depth", "body", fmt.Sprintf("the body nests deeper than %d", maxDepth), "no field of this API nests so deep")
}

func tooMany() error {
	return malformed("json.members", "body", fmt.Sprintf("the body has more than %d names, objects and arrays", maxMembers),
		"no body of this API needs so many")
}

func mistyped(err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return malformed("json.type", wrong.Field, wrong.Field+" is a JSON "+wrong.Value, "give it the type that the OpenAPI document says")
	}
	return malformed("json.syntax", "body", "the body cannot be read", "give the fields the types that the OpenAPI document says")
}

// strictReader walks through a value that is valid JSON, beside the type that it is to be read into, and makes nothing of it: that is for
// encoding/json.
type strictReader struct {
	rest       []byte // what has not been walked through
	members    int    // that have been, of those that are bounded
	violations []policies.Violation
}

// errEnough ends the walk: there are as many violations as are reported.
var errEnough = errors.New("enough violations")

func (r *strictReader) report(rule, field, message, hint string) {
	if len(r.violations) < maxViolations {
		r.violations = append(r.violations, policies.Violation{Rule: rule, Field: field, Message: message, Hint: hint})
	}
}

// value walks through the next value. t is its type, or nil where nobody knows the name under which it stands.
func (r *strictReader) value(path string, t reflect.Type, depth int) error {
	if depth > maxDepth {
		return tooDeep()
	}
	switch r.next() {
	case '{':
		return r.object(path, t, depth)
	case '[':
		return r.array(path, t, depth)
	case '"':
		r.checkText(path, r.text())
	case 'n':
		r.report("json.null", field(path), field(path)+" is null", "leave the field out")
		fallthrough
	default: // a number or a literal ends where something else begins
		r.rest = bytes.TrimLeft(r.rest, "+-.0123456789Eaeflnrstu")
	}
	return nil
}

// object refuses names that a struct does not have. encoding/json would take "CSR" for "csr".
func (r *strictReader) object(path string, t reflect.Type, depth int) error {
	seen := map[string]struct{}{}
	isStruct := t != nil && t.Kind() == reflect.Struct
	return r.each(func() error {
		if r.members++; r.members > maxMembers {
			return tooMany()
		}
		written := r.text()
		name := unquoted(written)
		inner := join(path, name)
		r.checkText(inner, written)
		_, twice := seen[name]
		seen[name] = struct{}{}
		var of reflect.Type
		if isStruct {
			of = fieldNamed(t, name)
		}
		switch {
		case twice:
			r.report("json.duplicate-name", inner, inner+" stands twice", "give each name once")
		case isStruct && of == nil:
			r.report("json.unknown-field", inner, inner+" is not a field here", "the fields are "+strings.Join(fieldNames(t), ", "))
		}
		r.skip() // the colon
		return r.value(inner, of, depth+1)
	})
}

func (r *strictReader) array(path string, t reflect.Type, depth int) error {
	inner := path + "[]"
	var of reflect.Type
	if t != nil && t.Kind() == reflect.Slice {
		of = t.Elem()
	}
	return r.each(func() error {
		if c := r.next(); c == '{' || c == '[' {
			r.members++
		}
		if r.members > maxMembers {
			return tooMany()
		}
		return r.value(inner, of, depth+1)
	})
}

// each walks through an object or an array, by what it is given for each member, as long as violations are taken.
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
		if len(r.violations) == maxViolations {
			return errEnough
		}
		if r.skip() != ',' {
			return nil
		}
	}
}

// next is the next octet that is not white space.
func (r *strictReader) next() byte {
	for r.rest[0] == ' ' || r.rest[0] == '\t' || r.rest[0] == '\r' || r.rest[0] == '\n' {
		r.rest = r.rest[1:]
	}
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

// fieldNamed is the type of the field of a struct that has this name in JSON; nil where there is none.
func fieldNamed(t reflect.Type, name string) reflect.Type {
	for i := range t.NumField() {
		if f := t.Field(i); jsonName(f) == name {
			return f.Type
		}
	}
	return nil
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
