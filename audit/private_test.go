package audit

import (
	"bytes"
	"strings"
	"testing"
)

// Who a person is stands in no leaf, nor what somebody wrote; and two leaves of the same person do not show that they are.
func TestPrivateTextsStandInNoLeaf(t *testing.T) {
	e := sound()
	e.Kind, e.Data = RequestApproved, map[string]string{
		"person": "Ada Lovelace", "comment": "seen\x00\n", "name": "ada's laptop",
		"request": "r-1", "empty": "",
	}
	one, err := New(e)
	if err != nil {
		t.Fatal(err)
	}
	if e.Data["person"] != "Ada Lovelace" {
		t.Error("the caller's map was changed")
	}
	read, err := Parse(one.Bytes())
	if err != nil || read.Data["person"] != "" || read.Data["request"] != "r-1" {
		t.Fatalf("%+v, %v", read, err)
	}
	if len(one.Private()) != 3 {
		t.Errorf("private: %v", one.Private())
	}
	for _, p := range one.Private() {
		if bytes.Contains(one.Bytes(), []byte(p.Value)) || !p.In(read) {
			t.Errorf("%s of %s", p.Field, one.Bytes())
		}
		p.Value += "x"
		if p.In(read) {
			t.Errorf("another %s passes for the one that was logged", p.Field)
		}
	}
	if other, err := New(e); err != nil || bytes.Equal(one.Bytes(), other.Bytes()) {
		t.Errorf("two leaves of one person are alike: %v", err)
	}
	leaf, private, ok := strings.Cut(string(one.Stored()), "\x00")
	if !ok || leaf != string(one.Bytes()) || strings.Count(private, "\n") != 2 || strings.Contains(private, "\x00") {
		t.Errorf("stored as %q", one.Stored())
	}

	e.Kind, e.Data = NamespaceChanged, map[string]string{"name": "dev", "comment": ""}
	plain, err := New(e)
	if err != nil || len(plain.Private()) != 0 || !bytes.Equal(plain.Stored(), plain.Bytes()) ||
		!bytes.Contains(plain.Bytes(), []byte(`"name":"dev"`)) {
		t.Errorf("%s, %v", plain.Stored(), err)
	}
}
