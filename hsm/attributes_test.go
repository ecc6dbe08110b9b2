package hsm

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func confined() Attributes {
	return Attributes{
		Label: "ca", ID: []byte{1}, Token: true, Private: true, Sensitive: true,
		Local: true, NeverExtractable: true, AlwaysSensitive: true, Sign: true,
	}
}

func TestKept(t *testing.T) {
	if err := confined().Kept(); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		change func(*Attributes)
		wrong  []string
	}{
		{"public", func(a *Attributes) { a.Private = false }, []string{"CKA_PRIVATE is false"}},
		{"of the session", func(a *Attributes) { a.Token = false }, []string{"CKA_TOKEN is false"}},
		{
			"not sensitive", func(a *Attributes) { a.Sensitive, a.AlwaysSensitive = false, false },
			[]string{"CKA_SENSITIVE is false", "CKA_ALWAYS_SENSITIVE is false"},
		},
		{
			"extractable", func(a *Attributes) { a.Extractable, a.NeverExtractable = true, false },
			[]string{"CKA_EXTRACTABLE is true", "CKA_NEVER_EXTRACTABLE is false"},
		},
		{"imported", func(a *Attributes) { a.Local = false }, []string{"CKA_LOCAL is false"}},
		{"once extractable", func(a *Attributes) { a.NeverExtractable = false }, []string{"CKA_NEVER_EXTRACTABLE is false"}},
		{"not told", func(a *Attributes) { a.Missing = []string{"CKA_LOCAL", "CKA_COPYABLE"} }, []string{"CKA_LOCAL is not told"}},
		{"extractable not told", func(a *Attributes) { a.Missing = []string{"CKA_EXTRACTABLE"} }, []string{"CKA_EXTRACTABLE is not told"}},
	}
	for _, tt := range tests {
		a := confined()
		tt.change(&a)
		err := a.Kept()
		var kept *KeyNotKeptError
		if !errors.Is(err, ErrKeyNotKept) || !errors.As(err, &kept) || !slices.Equal(kept.Wrong, tt.wrong) || kept.Key.Label != "ca" {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		for _, each := range tt.wrong {
			if !strings.Contains(err.Error(), each) {
				t.Errorf("%s: %q does not say %q", tt.name, err, each)
			}
		}
	}
	if n := len(Attributes{}.wrong(confinement)); n != 6 {
		t.Errorf("the zero value has %d faults", n)
	}
}

func TestEveryConditionHasAName(t *testing.T) {
	for _, p := range profiles {
		for _, c := range slices.Concat(p.private, confinement) {
			if attributeNames[c.attribute] == "" {
				t.Errorf("attribute %#x has no name", c.attribute)
			}
		}
	}
}
