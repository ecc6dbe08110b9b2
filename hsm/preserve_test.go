package hsm_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
)

// An indestructible key is like any other but for that, and there is one of it.
func TestIndestructibleKeys(t *testing.T) {
	t.Parallel()
	token := hsmtest.New(t).Open(t)
	told := func(ref hsm.KeyRef) (all []string) {
		objects, err := token.Objects(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects {
			for _, a := range o.Attributes {
				if !slices.Contains([]string{"CKA_LABEL", "CKA_ID", "CKA_MODULUS", "CKA_EC_POINT", "CKA_UNIQUE_ID"}, a.Name) {
					all = append(all, o.Class+" "+a.Name+" "+a.Value)
				}
			}
		}
		slices.Sort(all)
		return all
	}
	for name, spec := range map[string]hsm.KeySpec{
		"EC": {Algorithm: hsm.ECDSAP256}, "Ed25519": {Algorithm: hsm.Ed25519}, "RSA": {Algorithm: hsm.RSA2048}, "AES": {Algorithm: hsm.AES256},
		"MAC": {Algorithm: hsm.HMACSHA256}, "extractable": {Algorithm: hsm.AES128, Extractable: true},
		"modifiable": {Algorithm: hsm.ECDSAP384, Modifiable: true}, "copyable": {Algorithm: hsm.ECDSAP384, Copyable: true},
	} {
		spec.Label = name
		other, _ := generated(t, token, spec)
		want := told(other)
		for i, said := range want {
			if class, ok := strings.CutSuffix(said, " CKA_DESTROYABLE true"); ok && class != "CKO_PUBLIC_KEY" {
				want[i] = class + " CKA_DESTROYABLE false"
			}
		}
		spec.Label, spec.Indestructible = name+", for ever", true
		ref, public := generated(t, token, spec)
		if got := told(ref); !slices.Equal(got, want) || slices.Equal(got, told(other)) {
			t.Errorf("%s: it is\n%q, not\n%q", name, got, want)
		}
		if public != nil {
			signature, err := token.Sign(t.Context(), ref, hsm.SignOptions{}, strings.NewReader("m"))
			if err != nil || hsm.VerifyWith(public, hsm.SignOptions{}, strings.NewReader("m"), signature) != nil {
				t.Errorf("%s: it signs wrongly: %v", name, err)
			}
		}
		if err := token.Destroy(t.Context(), ref); err == nil || !strings.Contains(err.Error(), "CKA_DESTROYABLE is false") {
			t.Errorf("%s: destroying it: %v", name, err)
		}
	}
}

// What is wrong with a key is found while it can be destroyed: nothing stays for ever but what was asked for.
func TestNothingWrongIsIndestructible(t *testing.T) {
	t.Parallel()
	fixture := hsmtest.New(t)
	c := fixture.Config()
	seen := &recorder{}
	c.Observer = seen
	token, err := hsm.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	kek, _ := generated(t, token, hsm.KeySpec{Algorithm: hsm.AES256, Label: "kek", Usages: []hsm.Usage{hsm.UseWrap}})
	key, public := generated(t, token, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "key", Extractable: true})
	_, strangers := generated(t, token, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "stranger"})
	wrapped, err := token.Wrap(t.Context(), hsm.WrapSpec{Key: key, Under: kek})
	if err != nil {
		t.Fatal(err)
	}
	spec := hsm.UnwrapSpec{Under: kek, Key: hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "back", Indestructible: true}, Public: strangers}
	left := func(label string) int {
		objects, err := token.Objects(t.Context(), hsm.KeyRef{Label: label})
		if err != nil {
			t.Fatal(err)
		}
		return len(objects)
	}
	if _, err := token.Unwrap(t.Context(), spec, wrapped); !errors.Is(err, hsm.ErrKeyMismatch) || left("back") != 0 {
		t.Errorf("with another's public half: %v; %d objects stay", err, left("back"))
	}
	_, _, err = token.GenerateMisled(hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "misled", Indestructible: true})
	if !errors.Is(err, hsm.ErrKeyNotKept) || left("misled") != 0 {
		t.Errorf("by a token that does not follow: %v; %d objects stay", err, left("misled"))
	}
	seen.take()
	spec.Public = public
	back, err := token.Unwrap(t.Context(), spec, wrapped)
	if err != nil || left("back") != 2 {
		t.Fatalf("as it should be: %v; %d objects are there", err, left("back"))
	}
	var ops []hsm.Op
	for _, o := range seen.take() {
		if o.Op == hsm.OpUnwrap || o.Op == hsm.OpPreserve || o.Op == hsm.OpDestroy {
			ops = append(ops, o.Op)
		}
	}
	if want := []hsm.Op{hsm.OpUnwrap, hsm.OpPreserve}; !slices.Equal(ops, want) {
		t.Errorf("recorded was %q, want %q", ops, want)
	}
	signature, err := token.Sign(t.Context(), back, hsm.SignOptions{}, strings.NewReader("m"))
	if err != nil || hsm.VerifyWith(public, hsm.SignOptions{}, strings.NewReader("m"), signature) != nil {
		t.Errorf("it signs wrongly: %v", err)
	}
	if err := token.Destroy(t.Context(), back); err == nil || !strings.Contains(err.Error(), "CKA_DESTROYABLE is false") {
		t.Errorf("destroying it: %v", err)
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	// It is too late for a key to go when the second record fails: that is said, and the first is there.
	c.Observer = forgetful{hsm.OpPreserve}
	if token, err = hsm.Open(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	_, _, err = token.GenerateKey(t.Context(), hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "recorded once", Indestructible: true})
	const says = "in the token for ever, as was asked for, but: recording that the operation preserve was carried out"
	if err == nil || !strings.Contains(err.Error(), says) || left("recorded once") != 2 {
		t.Errorf("%v; %d objects are there", err, left("recorded once"))
	}
}
