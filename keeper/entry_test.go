package keeper

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// anyString is of characters that JSON escapes, of others, and of octets that are no characters.
var anyString = rapid.OneOf(rapid.Just(""), rapid.StringMatching(`[ -~]{0,20}`), rapid.String(),
	rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOfN(rapid.Byte(), 0, 10).Draw(t, "octets")) }),
	rapid.SampledFrom([]string{"<&>", "\"\\", "\u2028\u2029", "\x00\x1f\x7f", "\b\f\n\r\t", "\xff", "\xed\xa0\x80", "é", "\U0001f511", `,"memory":{`}))

// TestEntriesAreWrittenAsJSON holds what is written by hand against encoding/json, octet by octet.
func TestEntriesAreWrittenAsJSON(t *testing.T) {
	anyMemory := rapid.Custom(func(t *rapid.T) memory {
		return memory{
			Name:  anyString.Draw(t, "name"),
			Count: rapid.Uint64().Draw(t, "count"), Numbers: rapid.MapOfN(anyString, anyString, 0, 3).Draw(t, "numbers"),
			Size: rapid.Uint64Range(0, 2).Draw(t, "size"), Text: anyString.Draw(t, "text"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		text := func(name string) string { return anyString.Draw(t, name) }
		e := entry{
			Seq: rapid.Uint64().Draw(t, "seq"), Time: text("time"), UID: rapid.Ptr(rapid.Uint32(), true).Draw(t, "uid"), Key: text("key"),
			SPKI: text("spki"), Kind: kind(text("kind")),
			Detail: text("detail"), Scope: text("scope"), SHA256: text("sha256"), Result: text("result"), Why: text("why"),
			Memory: rapid.MapOfN(anyString, anyMemory, 0, 3).Draw(t, "memory"), Prev: text("prev"),
		}
		want, err := json.Marshal(&e)
		if err != nil {
			t.Fatal(err)
		}
		before := []byte("what was there before\n")
		got, err := e.appendTo(before)
		if rest, ok := bytes.CutPrefix(got, before); err != nil || !ok || !bytes.Equal(rest, want) {
			t.Fatalf("it is %q, %v; encoding/json writes %q", got, err, want)
		}
	})
}

func BenchmarkEntry(b *testing.B) {
	uid := uint32(1000)
	e := entry{
		Seq: 1234567, Time: "2026-11-28T20:28:08.639884119Z", UID: &uid, Key: "issuing", SPKI: strings.Repeat("cd", 32), Kind: kindCertificate,
		Detail: "1c01a223d8023f7d9f3e1e3a9ec0b47040acf48e", SHA256: strings.Repeat("ab", 32), Result: resultSigned, Prev: noHash,
	}
	b.Run("by hand", func(b *testing.B) {
		var line []byte
		for b.Loop() {
			var err error
			if line, err = e.appendTo(line[:0]); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("by encoding/json", func(b *testing.B) {
		for b.Loop() {
			if _, err := json.Marshal(&e); err != nil {
				b.Fatal(err)
			}
		}
	})
}
