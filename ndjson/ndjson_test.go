package ndjson

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/iotest"
)

func packed(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	zip := gzip.NewWriter(&b)
	_, err := zip.Write([]byte(text))
	if err := errors.Join(err, zip.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Lines of every length about what is read at a time come back as they were written, and the longest that is taken is exactly that long.
func TestLines(t *testing.T) {
	for _, n := range []int{1, 100, buffered - 1, buffered, buffered + 1, 3*buffered + 7} {
		long := strings.Repeat("x", n-1) + "\n"
		file := packed(t, "{}\n"+long+"end\n")
		x, err := NewReader(iotest.OneByteReader(bytes.NewReader(file)), "file", max(n, 4))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"{}\n", long, "end\n"} {
			if line, err := x.Line(); err != nil || string(line) != want {
				t.Fatalf("a line of %d octets: %d octets, %v", len(want), len(line), err)
			}
		}
		if err := x.End(); err != nil {
			t.Errorf("nothing follows: %v", err)
		}
		if n < 5 {
			continue
		}
		if x, err = NewReader(bytes.NewReader(file), "file", n-1); err != nil {
			t.Fatal(err)
		}
		_, _ = x.Line()
		var damaged *DamagedError
		if _, err := x.Line(); !errors.As(err, &damaged) || damaged.Line != 2 || damaged.Why != "the line is too long" {
			t.Errorf("a line of %d octets where %d are taken: %v", n, n-1, err)
		}
	}
}

func TestDamage(t *testing.T) {
	whole := packed(t, "one\ntwo\n")
	changed := bytes.Clone(whole)
	changed[len(changed)-8] ^= 1 // the checksum
	for name, c := range map[string]struct {
		file  []byte
		lines int // that can be read
		why   string
	}{
		"no gzip":          {[]byte("one\ntwo\nthree\n"), -1, "gzip: invalid header"},
		"nothing":          {nil, -1, "it ends before its end"},
		"cut off":          {whole[:12], 0, "it ends before its end"},
		"without its end":  {packed(t, "one\ntw"), 1, "it ends before its end"},
		"more lines":       {packed(t, "one\ntwo\nthree\n"), 2, "something follows its end"},
		"another member":   {append(bytes.Clone(whole), whole...), 2, "something follows the compressed data"},
		"checksum changed": {changed, 2, "something follows its end"},
	} {
		t.Run(name, func(t *testing.T) {
			x, err := NewReader(bytes.NewReader(c.file), "export", 100)
			for range c.lines {
				if err == nil {
					_, err = x.Line()
				}
			}
			if err == nil && c.lines == 2 {
				err = x.End()
			} else if err == nil {
				_, err = x.Line()
			}
			var damaged *DamagedError
			if !errors.As(err, &damaged) || damaged.Why != c.why || !strings.HasPrefix(err.Error(), "the export is damaged: ") {
				t.Errorf("got %v, want %q", err, c.why)
			}
		})
	}
	away := &fs.PathError{Op: "read", Path: "x", Err: errors.New("input/output error")}
	if _, err := NewReader(iotest.ErrReader(away), "export", 100); !errors.Is(err, away) || errors.As(err, new(*DamagedError)) {
		t.Errorf("a disk that cannot be read: %v", err)
	}
}

func TestExactly(t *testing.T) {
	for text, sound := range map[string]bool{
		`{"a":1}`: true, "{\"a\":1}\n": true, `{"a":1}{}`: false, `{"a":1}}`: false, `{"b":1}`: false, `{"a":1`: false, ``: false,
		`{"a":1,"a":2}`: false, `{"a":1, "r" : "x","a":2}`: false, `{"A":1}`: false, `{"\u0061":1}`: false, `{"a":1,"A":1}`: false,
		`{"r":{"A":1,"A":2,"a":"\"}{,"},"a":1}`: true, `{"r":["a","a",{"a":1}],"a":1}`: true, `{"r":"a","a":1}`: true, `{"r":{"x":[{}]},"r":1}`: false,
		"{\"r\":\"\\\\\",\"a\":1}": true, "{\"r\":\"\\\"\",\"a\":1,\"r\":2}": false,
	} {
		var to struct {
			A int
			R json.RawMessage
		}
		if err := Exactly([]byte(text), &to); (err == nil) != sound {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// FuzzExactly: an object that is read is read in the same way by a reader that takes the first of two fields, and none in other letters.
func FuzzExactly(f *testing.F) {
	f.Add([]byte(`{"a":1,"r":{"a":[2,"\"}"]}}`))
	f.Add([]byte(`{"r":{},"R":[]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var to struct{ A, R json.RawMessage }
		if Exactly(text, &to) != nil || !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
			return
		}
		first := map[string]json.RawMessage{}
		d := json.NewDecoder(bytes.NewReader(text))
		_, _ = d.Token()
		for d.More() {
			name, _ := d.Token()
			var value json.RawMessage
			if err := d.Decode(&value); err != nil {
				t.Fatal(err)
			}
			if _, twice := first[name.(string)]; !twice {
				first[name.(string)] = value
			}
		}
		if !bytes.Equal(first["a"], to.A) || !bytes.Equal(first["r"], to.R) {
			t.Errorf("%s: %s, %s", text, to.A, to.R)
		}
	})
}

// FuzzReader: whatever a file holds, reading it ends, and ends with an error that says where.
func FuzzReader(f *testing.F) {
	f.Add([]byte("one\ntwo\n"), 5)
	f.Fuzz(func(t *testing.T, text []byte, cut int) {
		var b bytes.Buffer
		zip := gzip.NewWriter(&b)
		_, _ = zip.Write(text)
		_ = zip.Close()
		file := b.Bytes()
		x, err := NewReader(bytes.NewReader(file[:min(len(file), max(cut, 0))]), "file", 64)
		var all []byte
		for err == nil {
			var line []byte
			if line, err = x.Line(); err == nil {
				all = append(all, line...)
			}
		}
		if errors.Is(err, io.EOF) || !errors.As(err, new(*DamagedError)) || !bytes.HasPrefix(text, all) {
			t.Fatalf("%v after %q", err, all)
		}
	})
}
