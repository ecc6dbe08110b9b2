package audit

import (
	"bytes"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

// scanned is what stands in a leaf, as it stands there: parts of its octets, strings without their quotes and still escaped.
type scanned struct {
	actor, id, kind, namespace, time []byte
	data                             []pair // in the order of their keys
}

type pair struct{ key, value []byte }

var errNotCanonical = errors.New("audit: the leaf is not in canonical form")

// scan reads canonical octets, and accepts exactly what New writes. Encoding a leaf anew, to compare, would take ten times as long, and a
// history is verified leaf by leaf. The pairs are appended to those given, so that one slice serves for many leaves.
func scan(leaf []byte, pairs []pair) (s scanned, err error) {
	if len(leaf) > MaxLeaf {
		return s, fmt.Errorf("audit: a leaf of %d octets is larger than %d", len(leaf), MaxLeaf)
	}
	r := reader{rest: leaf}
	r.literal(`{"actor":`)
	s.actor = r.text()
	r.literal(`,"data":{`)
	s.data = r.pairs(pairs)
	r.literal(`,"id":`)
	s.id = r.text()
	r.literal(`,"kind":`)
	s.kind = r.text()
	r.literal(`,"namespace":`)
	s.namespace = r.text()
	r.literal(`,"time":`)
	s.time = r.text()
	if !r.failed && bytes.HasPrefix(r.rest, []byte(`,"v":`)) && !bytes.Equal(r.rest, []byte(tail)) {
		return scanned{}, fmt.Errorf("audit: the leaf is not of version %d", Version)
	}
	r.literal(tail)
	if r.failed || len(r.rest) > 0 {
		return scanned{}, errNotCanonical
	}
	if len(s.id) == 0 || len(s.kind) == 0 || len(s.actor) == 0 || !isTime(s.time) {
		return scanned{}, errors.New("audit: a leaf needs an ID, a kind, an actor, and a time such as " + TimeFormat)
	}
	return s, nil
}

// tail is how every leaf ends; it says its Version.
const tail = `,"v":1}`

// event makes an event of what was read.
func (s scanned) event() Event {
	at, _ := time.Parse(TimeFormat, string(s.time)) // isTime has seen it
	e := Event{
		ID: unescape(s.id), Kind: Kind(unescape(s.kind)), Time: at, Actor: unescape(s.actor), Namespace: unescape(s.namespace),
		Data: make(map[string]string, len(s.data)),
	}
	for _, p := range s.data {
		e.Data[unescape(p.key)] = unescape(p.value)
	}
	return e
}

// reader reads JSON as encoding/json writes it with HTML escaping off. After its first failure it reads nothing more.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) fail() { r.failed, r.rest = true, nil }

func (r *reader) literal(text string) {
	if len(r.rest) < len(text) || string(r.rest[:len(text)]) != text {
		r.fail()
		return
	}
	r.rest = r.rest[len(text):]
}

// pairs reads keys and values up to the closing brace. Keys rise, by their octets before escaping.
func (r *reader) pairs(into []pair) []pair {
	if len(r.rest) > 0 && r.rest[0] == '}' {
		r.rest = r.rest[1:]
		return into
	}
	for first := len(into); !r.failed; {
		var p pair
		p.key = r.text()
		r.literal(":")
		p.value = r.text()
		if len(into) > first && !less(into[len(into)-1].key, p.key) {
			r.fail()
			break
		}
		into = append(into, p)
		if len(r.rest) > 0 && r.rest[0] == '}' {
			r.rest = r.rest[1:]
			return into
		}
		r.literal(",")
	}
	return into
}

func less(a, b []byte) bool {
	if bytes.IndexByte(a, '\\') < 0 && bytes.IndexByte(b, '\\') < 0 {
		return bytes.Compare(a, b) < 0
	}
	return unescape(a) < unescape(b)
}

// text reads a string, and returns what stands between the quotes.
func (r *reader) text() []byte {
	if len(r.rest) == 0 || r.rest[0] != '"' {
		r.fail()
		return nil
	}
	b := r.rest[1:]
	for i := 0; i < len(b); {
		switch c := b[i]; {
		case c == '"':
			r.rest = b[i+1:]
			return b[:i]
		case c == '\\':
			n := escapeLength(b[i:])
			if n == 0 {
				r.fail()
				return nil
			}
			i += n
		case c < ' ':
			r.fail()
			return nil
		case c < utf8.RuneSelf:
			i++
		default:
			x, n := utf8.DecodeRune(b[i:])
			if (x == utf8.RuneError && n == 1) || x == lineSeparator || x == paragraphSeparator {
				r.fail()
				return nil
			}
			i += n
		}
	}
	r.fail()
	return nil
}

// JavaScript ends lines at these two, so encoding/json escapes them always.
const (
	lineSeparator      = '\u2028'
	paragraphSeparator = '\u2029'
)

// escapeLength is the length of the escape sequence that b begins with; 0: encoding/json would have written something else.
func escapeLength(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(b) < 6 {
			return 0
		}
		switch x := hexRune(b[2:6]); {
		case x == lineSeparator, x == paragraphSeparator:
			return 6
		case x >= 0 && x < ' ' && x != '\b' && x != '\f' && x != '\n' && x != '\r' && x != '\t':
			return 6
		}
	}
	return 0
}

// hexRune reads four lower-case digits; -1: they are none.
func hexRune(digits []byte) (x rune) {
	for _, d := range digits {
		switch {
		case '0' <= d && d <= '9':
			x = x<<4 | rune(d-'0')
		case 'a' <= d && d <= 'f':
			x = x<<4 | rune(d-'a'+10)
		default:
			return -1
		}
	}
	return x
}

// unescape reads what text has found to be well formed.
func unescape(b []byte) string {
	at := bytes.IndexByte(b, '\\')
	if at < 0 {
		return string(b)
	}
	out := append(make([]byte, 0, len(b)), b[:at]...)
	for i := at; i < len(b); i++ {
		if b[i] != '\\' {
			out = append(out, b[i])
			continue
		}
		i++
		switch b[i] {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			out = utf8.AppendRune(out, hexRune(b[i+1:i+5]))
			i += 4
		default: // a quote or a backslash
			out = append(out, b[i])
		}
	}
	return string(out)
}

// isTime tells whether a text is a moment in TimeFormat, and not the zero one.
func isTime(t []byte) bool {
	const form = "0000-00-00T00:00:00.000000Z"
	if len(t) != len(form) {
		return false
	}
	for i := range len(form) {
		if form[i] == '0' {
			if t[i] < '0' || t[i] > '9' {
				return false
			}
		} else if t[i] != form[i] {
			return false
		}
	}
	number := func(from, to int) (n int) {
		for _, d := range t[from:to] {
			n = 10*n + int(d-'0')
		}
		return n
	}
	year, month, day := number(0, 4), number(5, 7), number(8, 10)
	return month >= 1 && month <= 12 && day >= 1 && day <= daysIn(year, month) && number(11, 13) < 24 && number(14, 16) < 60 &&
		number(17, 19) < 60 && string(t) != "0001-01-01T00:00:00.000000Z"
}

func daysIn(year, month int) int {
	return time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
}
