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
// The error is always an *invalid.
func decodeStrict(data []byte, into any) error {
	if !utf8.Valid(data) {
		return malformed("json.encoding", "body", "the body is not UTF-8", "send JSON in UTF-8 (RFC 8259, section 8.1)")
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	reader := &strictReader{decoder: decoder}
	value, err := reader.value("", 0)
	if err != nil {
		return syntax(err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return malformed("json.trailing-data", "body", "something follows the JSON value", "send one JSON object and nothing else")
	}
	if _, isObject := value.(map[string]any); !isObject {
		return malformed("json.type", "body", "the body is not a JSON object", "send an object, in braces")
	}
	reader.exactNames("", value, reflect.TypeOf(into).Elem())
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

func syntax(err error) error {
	var bad *invalid
	if errors.As(err, &bad) {
		return bad
	}
	const hint = "send one JSON object (RFC 8259)"
	var where *json.SyntaxError
	switch {
	case errors.Is(err, io.EOF):
		return malformed("json.syntax", "body", "the body is empty", hint)
	case errors.As(err, &where):
		return malformed("json.syntax", "body", fmt.Sprintf("the body is not JSON: it breaks at octet %d", where.Offset), hint)
	}
	return malformed("json.syntax", "body", "the body is not JSON, or ends too early", hint)
}

func mistyped(err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return malformed("json.type", wrong.Field, wrong.Field+" is a JSON "+wrong.Value, "give it the type that the OpenAPI document says")
	}
	return malformed("json.syntax", "body", "the body cannot be read", "give the fields the types that the OpenAPI document says")
}

// strictReader reads a value token by token, because a map would hide what stands twice.
type strictReader struct {
	decoder    *json.Decoder
	violations []policies.Violation
}

func (r *strictReader) report(rule, field, message, hint string) {
	if len(r.violations) < maxViolations {
		r.violations = append(r.violations, policies.Violation{Rule: rule, Field: field, Message: message, Hint: hint})
	}
}

func (r *strictReader) value(path string, depth int) (any, error) {
	if depth > maxDepth {
		return nil, malformed("json.depth", "body", fmt.Sprintf("the body nests deeper than %d", maxDepth), "no field of this API nests so deep")
	}
	token, err := r.decoder.Token()
	if err != nil {
		return nil, err
	}
	switch t := token.(type) {
	case json.Delim:
		if t == '{' {
			return r.object(path, depth)
		}
		return r.array(path, depth)
	case string:
		r.checkText(path, t)
	case nil:
		r.report("json.null", field(path), field(path)+" is null", "leave the field out")
	}
	return token, nil
}

func (r *strictReader) object(path string, depth int) (any, error) {
	members := map[string]any{}
	for r.decoder.More() {
		token, err := r.decoder.Token()
		if err != nil {
			return nil, err
		}
		name, _ := token.(string)
		inner := join(path, name)
		r.checkText(inner, name)
		if _, twice := members[name]; twice {
			r.report("json.duplicate-name", inner, inner+" stands twice", "give each name once")
		}
		if members[name], err = r.value(inner, depth+1); err != nil {
			return nil, err
		}
	}
	_, err := r.decoder.Token() // the closing brace
	return members, err
}

func (r *strictReader) array(path string, depth int) (any, error) {
	elements := []any{}
	for r.decoder.More() {
		element, err := r.value(path+"[]", depth+1)
		if err != nil {
			return nil, err
		}
		elements = append(elements, element)
	}
	_, err := r.decoder.Token() // the closing bracket
	return elements, err
}

// checkText refuses the character that encoding/json puts in place of half a surrogate pair: it is nobody's name, and what it replaced
// is lost.
func (r *strictReader) checkText(path, text string) {
	if strings.ContainsRune(text, utf8.RuneError) {
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
	fields, names := fieldsOf(t)
	for _, name := range sortedKeys(members) {
		f, known := fields[name]
		if !known {
			r.report("json.unknown-field", join(path, name), join(path, name)+" is not a field here", "the fields are "+strings.Join(names, ", "))
			continue
		}
		r.exactNames(join(path, name), members[name], f)
	}
}

// fieldsOf are the types of a struct's fields by their JSON names, and the names in order.
func fieldsOf(t reflect.Type) (byName map[string]reflect.Type, names []string) {
	byName = map[string]reflect.Type{}
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		byName[name] = t.Field(i).Type
		names = append(names, name)
	}
	return byName, names
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
