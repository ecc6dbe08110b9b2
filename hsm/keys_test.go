package hsm_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
)

func generate(tb testing.TB, token *hsm.Token, algorithm hsm.Algorithm, label string) (hsm.KeyRef, crypto.PublicKey) {
	tb.Helper()
	ref, public, err := token.Generate(hsm.KeySpec{Algorithm: algorithm, Label: label})
	if err != nil {
		tb.Fatal(err)
	}
	return ref, public
}

func TestGenerate(t *testing.T) {
	t.Parallel()
	token := hsmtest.New(t).Open(t)
	check := map[hsm.Algorithm]func(crypto.PublicKey) bool{
		hsm.ECDSAP256: func(k crypto.PublicKey) bool { return k.(*ecdsa.PublicKey).Curve == elliptic.P256() },
		hsm.ECDSAP384: func(k crypto.PublicKey) bool { return k.(*ecdsa.PublicKey).Curve == elliptic.P384() },
		hsm.RSA2048: func(k crypto.PublicKey) bool {
			return k.(*rsa.PublicKey).N.BitLen() == 2048 && k.(*rsa.PublicKey).E == 65537
		},
		hsm.RSA3072: func(k crypto.PublicKey) bool {
			return k.(*rsa.PublicKey).N.BitLen() == 3072 && k.(*rsa.PublicKey).E == 65537
		},
		hsm.RSA4096: func(k crypto.PublicKey) bool {
			return k.(*rsa.PublicKey).N.BitLen() == 4096 && k.(*rsa.PublicKey).E == 65537
		},
	}
	for algorithm, ok := range check {
		t.Run(string(algorithm), func(t *testing.T) {
			t.Parallel()
			ref, public := generate(t, token, algorithm, string(algorithm))
			if !ok(public) {
				t.Errorf("the public key is %v", public)
			}
			if len(ref.ID) != 20 || ref.Label != string(algorithm) {
				t.Errorf("the key is called %s", ref)
			}
			a, err := token.Attributes(ref)
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Kept(); err != nil {
				t.Error(err)
			}
			if !a.Sign || a.Decrypt || a.Unwrap || a.Derive || a.SignRecover || a.Modifiable || a.Copyable || a.AlwaysAuthenticate ||
				len(a.Missing) > 0 || a.Label != ref.Label || !bytes.Equal(a.ID, ref.ID) {
				t.Errorf("the attributes are %+v", a)
			}
			found, err := token.PublicKey(hsm.KeyRef{ID: ref.ID})
			if err != nil {
				t.Fatal(err)
			}
			if !found.(interface{ Equal(crypto.PublicKey) bool }).Equal(public) {
				t.Error("the key found is another")
			}
			signAndVerify(t, token, ref, public)
		})
	}
}

func TestGenerateForUnknownVendor(t *testing.T) {
	t.Parallel()
	token := hsmtest.New(t).Open(t)
	for _, algorithm := range []hsm.Algorithm{hsm.ECDSAP256, hsm.RSA2048} {
		ref, public, err := token.GenerateConservatively(hsm.KeySpec{Algorithm: algorithm, Label: string(algorithm)})
		if err != nil {
			t.Fatal(err)
		}
		signAndVerify(t, token, ref, public)
	}
}

func TestGenerateRefuses(t *testing.T) {
	t.Parallel()
	token := hsmtest.Subject(t).Open(t)
	taken, _ := generate(t, token, hsm.ECDSAP256, "taken")
	before, err := token.Keys()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		spec hsm.KeySpec
		want error
	}{
		{"label taken", hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "taken"}, hsm.ErrKeyExists},
		{"label taken, other id", hsm.KeySpec{Algorithm: hsm.RSA2048, Label: "taken", ID: []byte("free")}, hsm.ErrKeyExists},
		{"id taken", hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "free", ID: taken.ID}, hsm.ErrKeyExists},
		{"no label", hsm.KeySpec{Algorithm: hsm.ECDSAP256}, nil},
		{"no algorithm", hsm.KeySpec{Label: "free"}, nil},
		{"unknown algorithm", hsm.KeySpec{Algorithm: "rsa-1024", Label: "free"}, nil},
	}
	for _, tt := range tests {
		_, _, err := token.Generate(tt.spec)
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	keys, err := token.Keys()
	if err != nil || len(keys) != len(before) {
		t.Errorf("the keys were %v and are now %v, %v", before, keys, err)
	}
}

func TestGenerateDestroysWhatIsNotKept(t *testing.T) {
	t.Parallel()
	token := hsmtest.New(t).Open(t)
	spec := hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "ca", ID: []byte("ca")}
	_, _, err := token.GenerateMisled(spec)
	var kept *hsm.KeyNotKeptError
	if !errors.As(err, &kept) || !strings.Contains(err.Error(), "CKA_EXTRACTABLE is true") {
		t.Fatalf("error is %v", err)
	}
	if keys, err := token.Keys(); err != nil || len(keys) != 0 {
		t.Errorf("the keys are now %v, %v", keys, err)
	}
	// Not even the public half is left: both names are free.
	if _, _, err := token.Generate(spec); err != nil {
		t.Error(err)
	}
}

func TestGenerateConcurrently(t *testing.T) {
	t.Parallel()
	token := hsmtest.Subject(t).Open(t)
	const rivals = 8
	results := make(chan error, rivals)
	for range rivals {
		go func() {
			_, _, err := token.Generate(hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "one"})
			results <- err
		}()
	}
	made := 0
	for range rivals {
		switch err := <-results; {
		case err == nil:
			made++
		case !errors.Is(err, hsm.ErrKeyExists):
			t.Error(err)
		}
	}
	if made != 1 {
		t.Errorf("%d keys of one label", made)
	}
}

// SoftHSM fails when keys are searched while one is made, so the two must not meet.
func TestGenerateBesideOtherWork(t *testing.T) {
	t.Parallel()
	token := hsmtest.Subject(t).Open(t)
	for round := range 3 {
		var group sync.WaitGroup
		for i := range 6 {
			group.Go(func() {
				for j := range 2 {
					ref, public, err := token.Generate(hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: fmt.Sprintf("%d-%d-%d", round, i, j)})
					if err != nil {
						t.Error(err)
						return
					}
					signer, err := token.Signer(ref, public)
					if err != nil {
						t.Error(err)
						return
					}
					if _, err := signer.SignMessage(nil, nil, crypto.SHA256); err != nil {
						t.Error(err)
					}
				}
			})
		}
		group.Wait()
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	token := hsmtest.New(t).Open(t)
	if keys, err := token.Keys(); err != nil || len(keys) != 0 {
		t.Errorf("an empty token holds %v, %v", keys, err)
	}
	generate(t, token, hsm.ECDSAP384, "b")
	generate(t, token, hsm.RSA2048, "c")
	generate(t, token, hsm.ECDSAP256, "a")
	hsmtest.Key{Label: "d", ID: []byte("d"), Ed25519: true}.Generate(t, token)
	keys, err := token.Keys()
	if err != nil {
		t.Fatal(err)
	}
	want := []struct {
		label, typ string
		algorithm  hsm.Algorithm
	}{
		{"a", "CKK_EC", hsm.ECDSAP256}, {"b", "CKK_EC", hsm.ECDSAP384}, {"c", "CKK_RSA", hsm.RSA2048}, {"d", "CKK_EC_EDWARDS", hsm.Ed25519},
	}
	if len(keys) != len(want) {
		t.Fatalf("the keys are %v", keys)
	}
	for i, w := range want {
		if k := keys[i]; k.Label != w.label || k.Type != w.typ || k.Algorithm != w.algorithm || len(k.ID) == 0 {
			t.Errorf("key %d is %+v", i, k)
		}
	}
	// A key that crypto11 does not know can be looked at and sign, and harms no other.
	if _, err := token.Attributes(hsm.KeyRef{Label: "d"}); err != nil {
		t.Error(err)
	}
	if _, err := token.Signer(hsm.KeyRef{Label: "d"}, nil); err != nil {
		t.Error(err)
	}
	if _, err := token.Signer(hsm.KeyRef{Label: "a"}, nil); err != nil {
		t.Error(err)
	}
}

// Another program cannot read the private key either.
func TestPrivateKeyCannotBeRead(t *testing.T) {
	t.Parallel()
	fixture := hsmtest.New(t)
	token := fixture.Open(t)
	ref, _ := generate(t, token, hsm.ECDSAP256, "ca")
	tool := func(args ...string) (string, error) {
		args = append([]string{"--module", fixture.Module, "--token-label", fixture.Label, "--login", "--pin", "env:USER_PIN"}, args...)
		cmd := exec.CommandContext(t.Context(), "pkcs11-tool", args...)
		cmd.Env = append(os.Environ(), "USER_PIN="+hsmtest.UserPIN)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := tool("--list-objects", "--type", "privkey")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, says := range []string{
		"ca", "sensitive, always sensitive, never extractable, local", "Usage:      sign\n",
		"Allowed mechanisms: ECDSA\n",
	} {
		if !strings.Contains(out, says) {
			t.Errorf("the attributes do not say %q:\n%s", says, out)
		}
	}
	// Not every version of the tool says by its exit status that it could not: what counts is what it wrote.
	read := func(class string) []byte {
		file := filepath.Join(t.TempDir(), "key")
		out, _ := tool("--read-object", "--type", class, "--label", "ca", "--output-file", file)
		t.Log(out)
		key, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		return key
	}
	if key := read("privkey"); len(key) > 0 {
		t.Errorf("the private key was read: %x", key)
	}
	if key := read("pubkey"); len(key) == 0 {
		t.Error("the public key was not read, so the other proves nothing")
	}
	if value, err := hsmtest.PrivateValue(t, token, ref); err == nil || !strings.Contains(err.Error(), "CKR_ATTRIBUTE_SENSITIVE") {
		t.Errorf("the private key was read: %x, %v", value, err)
	}
}
