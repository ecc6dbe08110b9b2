package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

type leafJSON struct {
	Actor     string            `json:"actor"`
	Data      map[string]string `json:"data"`
	ID        string            `json:"id"`
	Kind      Kind              `json:"kind"`
	Namespace string            `json:"namespace"`
	Time      string            `json:"time"`
	Version   int               `json:"v"`
}

// parseByEncoding reads a leaf by encoding it anew: slow, and beyond doubt.
func parseByEncoding(canonical []byte) (Event, error) {
	if len(canonical) > MaxLeaf {
		return Event{}, errors.New("too long")
	}
	var j leafJSON
	if err := json.Unmarshal(canonical, &j); err != nil {
		return Event{}, err
	}
	if j.Version != Version {
		return Event{}, errors.New("version")
	}
	at, err := time.Parse(TimeFormat, j.Time)
	if err != nil {
		return Event{}, err
	}
	e := Event{ID: j.ID, Kind: j.Kind, Time: at, Actor: j.Actor, Namespace: j.Namespace, Data: j.Data}
	again, err := New(e)
	if err != nil {
		return Event{}, err
	}
	if string(again.bytes) != string(canonical) {
		return Event{}, errors.New("not canonical")
	}
	return e, nil
}

// What New writes is what encoding/json writes.
func TestNewWritesAsEncodingJSONDoes(t *testing.T) {
	odd := rapid.SampledFrom([]rune("ab09 <>&'\"\\/\x00\x01\b\t\n\f\r\x1f\x7f\u0080\u2027\u2028\u2029\u202a\ufffd😀"))
	text := rapid.OneOf(rapid.String(), rapid.StringOf(odd))
	rapid.Check(t, func(t *rapid.T) {
		e := Event{
			ID: "1" + text.Draw(t, "id"), Kind: Kind("k" + text.Draw(t, "kind")), Actor: "a" + text.Draw(t, "actor"),
			Time:      time.UnixMicro(rapid.Int64Range(1, 1<<50).Draw(t, "time")),
			Namespace: text.Draw(t, "namespace"), Data: rapid.MapOf(text, text).Draw(t, "data"),
		}
		leaf, err := New(e)
		if err != nil {
			t.Skip(err)
		}
		var want strings.Builder
		enc := json.NewEncoder(&want)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(leafJSON{e.Actor, e.Data, e.ID, e.Kind, e.Namespace, e.Time.UTC().Format(TimeFormat), Version}); err != nil {
			t.Fatal(err)
		}
		if got := string(leaf.Bytes()) + "\n"; got != want.String() {
			t.Fatalf("got  %s\nwant %s", got, want.String())
		}
	})
}

func leafText(actor, data, at string) string {
	return fmt.Sprintf(`{"actor":%s,"data":{%s},"id":"1","kind":"k","namespace":"","time":"%s","v":1}`, actor, data, at)
}

// The scanner and the encoder agree on every leaf, in what they accept and in what they read.
func TestScannerAndEncoderAgree(t *testing.T) {
	const at = "2026-11-23T12:00:00.000001Z"
	for _, text := range []string{
		leafText(`"a"`, ``, at), leafText(`""`, ``, at), leafText(`null`, ``, at), leafText(`1`, ``, at), leafText(`"a"`, `"b":"1","a":"2"`, at),
		leafText(`"a"`, `"a":"1","a":"2"`, at), leafText(`"a"`, `"a":"1","b":"2"`, at), leafText(`"a"`, `"a":"1",`, at),
		leafText(`"a"`, `"a":1`, at),
		leafText(`"a"`, `"\n":"1"," ":"2"`, at), leafText(`"a"`, `" ":"1","\n":"2"`, at), leafText(`"a"`, `"\u2028":"1","~":"2"`, at),
		leafText(`"a"`, `"~":"1","\u2028":"2"`, at), leafText(`"\u0000\u001f\b\f\n\r\t\"\\"`, ``, at), leafText(`"\u0008"`, ``, at),
		leafText(`"\u001F"`, ``, at), leafText(`"\/"`, ``, at), leafText(`"\u003c"`, ``, at), leafText(`"<&>`+"\x7f"+`"`, ``, at),
		leafText(`"ä€😀"`, ``, at), leafText(`"\u00e4"`, ``, at), leafText(`"\ufffd"`, ``, at), leafText("\"\ufffd\"", ``, at),
		leafText("\"\xff\"", ``, at), leafText("\"\u2028\"", ``, at), leafText(`"\u2029"`, ``, at), leafText("\"\n\"", ``, at),
		leafText(`"\ud83d\ude00"`, ``, at), leafText(`"\`, ``, at), leafText(`"\u00`, ``, at), leafText("\"\xed\xa0\x80\"", ``, at),
		leafText(`"a"`, ``, "2024-02-29T00:00:00.000000Z"), leafText(`"a"`, ``, "2026-02-29T00:00:00.000000Z"),
		leafText(`"a"`, ``, "0000-02-29T00:00:00.000000Z"), leafText(`"a"`, ``, "1900-02-29T00:00:00.000000Z"),
		leafText(`"a"`, ``, "2026-01-01T24:00:00.000000Z"), leafText(`"a"`, ``, "2026-01-01T00:00:60.000000Z"),
		leafText(`"a"`, ``, "0001-01-01T00:00:00.000000Z"), leafText(`"a"`, ``, "2026-01-01T00:00:00,000000Z"),
		leafText(`"a"`, ``, "2026-01-01T00:00:00.00000Z"), leafText(`"a"`, ``, "2026-13-01T00:00:00.000000Z"),
		leafText(`"a"`, ``, "2026-00-01T00:00:00.000000Z"), leafText(`"a"`, ``, "2026-01-00T00:00:00.000000Z"),
		leafText(`"a"`, ``, `2026-01-01T00:00:00.00000\u005a`), "", "{", "null", `{"actor":"a"}`, leafText(`"a"`, ``, at) + "}",
	} {
		agree(t, []byte(text))
	}
}

func agree(t *testing.T, leaf []byte) {
	t.Helper()
	slow, why := parseByEncoding(leaf)
	fast, err := Parse(leaf)
	if (why == nil) != (err == nil) || !reflect.DeepEqual(slow, fast) {
		t.Errorf("%q: by encoding %+v, %v; by scanning %+v, %v", leaf, slow, why, fast, err)
	}
}

func FuzzScan(f *testing.F) {
	leaf, err := New(sound())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(leaf.Bytes())
	f.Add([]byte(leafText(`"\u0000\u001f\b\f\n\r\t\"\\\u2028ä"`, `"\n":"1"," ":"2"`, "2024-02-29T00:00:00.000000Z")))
	f.Fuzz(func(t *testing.T, data []byte) { agree(t, data) })
}

// What is not UTF-8 is replaced, for an event must not get lost; what would not be read back as it was is refused.
func TestNewWritesWhatCanBeReadBack(t *testing.T) {
	e := sound()
	e.Actor, e.Data["x"] = "\xff", "a\xc3\xc3"
	leaf, err := New(e)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Parse(leaf.Bytes()); err != nil || again.Actor != "\ufffd" || again.Data["x"] != "a\ufffd" {
		t.Errorf("read %+v, %v", again, err)
	}
	if e.Data["x"] != "a\xc3\xc3" {
		t.Error("the caller's map was changed")
	}
	for name, spoil := range map[string]func(*Event){
		"key":      func(e *Event) { e.Data["\xff"] = "" },
		"far year": func(e *Event) { e.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		e := sound()
		spoil(&e)
		if leaf, err := New(e); err == nil {
			t.Errorf("%s: wrote %s", name, leaf.Bytes())
		}
	}
}

func BenchmarkParse(b *testing.B) {
	e := sound()
	for i := range 10 {
		e.Data[strings.Repeat("k", i+1)] = strings.Repeat("v", 32)
	}
	leaf, err := New(e)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("scan", func(b *testing.B) {
		var pairs []pair
		for b.Loop() {
			s, err := scan(leaf.Bytes(), pairs[:0])
			if err != nil {
				b.Fatal(err)
			}
			pairs = s.data
		}
	})
	b.Run("encode", func(b *testing.B) {
		for b.Loop() {
			if _, err := parseByEncoding(leaf.Bytes()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
