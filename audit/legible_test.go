package audit

import "testing"

func TestLegible(t *testing.T) {
	for text, want := range map[string]string{
		"":                      "",
		"Zürich, plain":         "Zürich, plain",
		"one\ntwo\n\nthree":     "one\n| two\n| \n| three",
		"a\tb\r\n\x1b[2J\u202e": "a\uFFFDb\uFFFD\n| \uFFFD[2J\uFFFD",
	} {
		if got := Legible(text, "| "); got != want {
			t.Errorf("%q is shown as %q, want %q", text, got, want)
		}
	}
}
