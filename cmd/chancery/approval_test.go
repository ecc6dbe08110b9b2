package main

import (
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/approval"
	"github.com/chancery-ca/chancery/client"
)

// TestWhatIsSignedIsWhatIsShown: a service that was taken over gets no signature over a statement that speaks of something else as well.
func TestWhatIsSignedIsWhatIsShown(t *testing.T) {
	t.Parallel()
	s := approval.Statement{
		Kind: approval.KindRevocation, ID: "0190a5d2-0000-7000-8000-000000000001", Approves: true, Person: "bob",
		Expires: time.Date(2026, 12, 5, 10, 0, 0, 0, time.UTC), Binding: "sha256:00ff",
		Facts: []approval.Fact{{Name: "certificates", Value: "3"}, {Name: "reason", Value: "superseded"}},
	}
	text, err := s.Text()
	if err != nil {
		t.Fatal(err)
	}
	shown := client.RevocationJob{ID: s.ID, Digest: "00ff", Total: 3, Reason: "superseded"}
	for name, c := range map[string]struct {
		change func(string) string
		signs  bool
	}{
		"it":             {func(said string) string { return said }, true},
		"another number": {func(said string) string { return strings.Replace(said, "certificates: 3", "certificates: 30", 1) }, false},
		"another number first": {func(said string) string {
			return strings.Replace(said, "certificates", "certificates: 30\ncertificates", 1)
		}, false},
		"another binding":   {func(said string) string { return strings.Replace(said, "00ff", "00fe", 1) }, false},
		"something besides": {func(said string) string { return said + "only_keys_remembered: 30\n" }, false},
	} {
		job := shown
		job.Statement = c.change(string(text))
		if signed, err := jobDecided(&job).text(true); (err == nil) != c.signs || c.signs && string(signed) != string(text) {
			t.Errorf("%s: %q, %v", name, signed, err)
		}
	}
}
