package audit

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func sound() Event {
	return Event{
		ID: "01a20af2-5b26-7d22-bed4-c7eda86fc4ae", Kind: CertificateIssued, Time: time.Date(2026, 11, 23, 12, 0, 0, 1000, time.UTC), Actor: "system",
		Namespace: "dev", Data: map[string]string{"serial": "1c01", "issuer": "<issuing>"},
	}
}

// The bytes are written down: a leaf that is hashed today is verified in years.
func TestCanonicalForm(t *testing.T) {
	leaf, err := New(sound())
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"actor":"system","data":{"issuer":"<issuing>","serial":"1c01"},"id":"01a20af2-5b26-7d22-bed4-c7eda86fc4ae",` +
		`"kind":"certificate.issued","namespace":"dev","time":"2026-11-23T12:00:00.000001Z","v":1}`
	if got := string(leaf.Bytes()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestNewRefusesWhatIsIncomplete(t *testing.T) {
	for name, spoil := range map[string]func(*Event){
		"no ID":    func(e *Event) { e.ID = "" },
		"no kind":  func(e *Event) { e.Kind = "" },
		"no time":  func(e *Event) { e.Time = time.Time{} },
		"no actor": func(e *Event) { e.Actor = "" },
		"too long": func(e *Event) { e.Data["x"] = strings.Repeat("x", MaxLeaf) },
	} {
		e := sound()
		spoil(&e)
		if _, err := New(e); err == nil {
			t.Errorf("%s: made a leaf", name)
		}
	}
}

func TestParseRefusesAnyOtherForm(t *testing.T) {
	leaf, err := New(sound())
	if err != nil {
		t.Fatal(err)
	}
	canonical := string(leaf.Bytes())
	for name, changed := range map[string]string{
		"white space":     " " + canonical,
		"line end":        canonical + "\n",
		"other order":     strings.Replace(canonical, `"actor":"system",`, "", 1) + "",
		"unknown version": strings.Replace(canonical, `"v":1`, `"v":2`, 1),
		"escaped":         strings.Replace(canonical, "<", `\u003c`, 1),
		"unknown field":   strings.Replace(canonical, `"v":1`, `"v":1,"w":1`, 1),
		"duplicate":       strings.Replace(canonical, `"v":1`, `"v":1,"v":1`, 1),
		"local time":      strings.Replace(canonical, "Z", "+00:00", 1),
		"truncated":       canonical[:len(canonical)-1],
	} {
		if _, err := Parse([]byte(changed)); err == nil {
			t.Errorf("%s: %s was read", name, changed)
		}
	}
}

func TestParseReadsWhatNewWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := Event{
			ID: rapid.StringMatching(`[0-9a-f]{8}`).Draw(t, "id"), Kind: RequestRefused, Actor: rapid.StringN(1, 50, 200).Draw(t, "actor"),
			Time:      time.UnixMicro(rapid.Int64Range(1, 1<<50).Draw(t, "time")).UTC(),
			Namespace: rapid.String().Draw(t, "namespace"), Data: rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "data"),
		}
		leaf, err := New(e)
		if err != nil {
			t.Skip(err)
		}
		if again, err := Parse(leaf.Bytes()); err != nil || !reflect.DeepEqual(again, e) {
			t.Fatalf("wrote %+v, read %+v, %v", e, again, err)
		}
	})
}

func FuzzParse(f *testing.F) {
	leaf, err := New(sound())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(leaf.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := Parse(data)
		if err != nil {
			return
		}
		if again, err := New(e); err != nil || string(again.Bytes()) != string(data) {
			t.Errorf("%s was read, and is written as %s, %v", data, again.Bytes(), err)
		}
	})
}
