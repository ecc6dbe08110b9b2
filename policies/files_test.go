package policies

import (
	"errors"
	"strings"
	"testing"
)

// A set that is kept as its files comes back as the same set.
func TestFilesMakeTheSetAgain(t *testing.T) {
	set := shippedSet(t)
	again, err := LoadFiles(set.Files())
	if err != nil || again.Digest() != set.Digest() || len(again.Names()) != len(set.Names()) {
		t.Fatalf("the same files make %v, %v", again, err)
	}
	reversed := make([]File, 0, len(set.Files()))
	for _, f := range set.Files() {
		reversed = append([]File{f}, reversed...)
	}
	if again, err = LoadFiles(reversed); err != nil || again.Digest() != set.Digest() {
		t.Errorf("the order of files makes another set: %v", err)
	}
	reversed[0].Content = append([]byte("# changed\n"), reversed[0].Content...)
	if again, err = LoadFiles(reversed); err != nil || again.Digest() == set.Digest() {
		t.Errorf("a changed file makes the same set: %v", err)
	}
}

func TestFilesThatLoadWouldNotRead(t *testing.T) {
	sound := File{Name: "plain.yaml", Content: []byte(plain)}
	for name, files := range map[string][]File{
		"no profiles":              nil,
		"stands here twice":        {sound, sound},
		"no name of a profile":     {sound, {Name: "../plain.yaml", Content: []byte(plain)}},
		"no name of a profile's":   {{Name: "plain.yml", Content: []byte(plain)}},
		"the file is empty":        {sound, {Name: "other.yaml"}},
		"this is no name of":       {{Name: "sub/plain.yaml", Content: []byte(plain)}},
		"is no name of a profile'": {{Name: "/plain.yaml", Content: []byte(plain)}},
	} {
		_, err := LoadFiles(files)
		var problems *LoadError
		if !errors.As(err, &problems) || !strings.Contains(err.Error(), name) {
			t.Errorf("%q is not said: %v", name, err)
		}
	}
}
