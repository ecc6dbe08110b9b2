package hsm_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
)

// oaepHash is the hash with which the token has RSA-OAEP.
func oaepHash(p hsm.Profile) crypto.Hash {
	if p.Has(hsm.CanOAEPSHA256) {
		return crypto.SHA256
	}
	return crypto.SHA1
}

// complaints are what pkcs11-tool's own test finds wrong with a token. It ends at the first failure of some kinds.
func complaints(t *testing.T, fixture *hsmtest.Token) map[string]bool {
	t.Helper()
	said, err := pkcs11Tool(t, fixture, "--test")
	found := map[string]bool{}
	for line := range strings.Lines(said) {
		if line = strings.TrimSpace(line); strings.Contains(strings.ToLower(line), "err") && line != "No errors" {
			found[line] = true
		}
	}
	if err != nil && len(found) == 0 {
		t.Fatalf("pkcs11-tool --test: %v\n%s", err, said)
	}
	return found
}

// TestOtherProgramsAgree: what openssl and pkcs11-tool make with a key of the token this package takes, and the other way round; and when
// the token has been worked with, pkcs11-tool's own test finds nothing that it did not find in the empty token.
func TestOtherProgramsAgree(t *testing.T) {
	fixture, dir := hsmtest.Subject(t), t.TempDir()
	before := complaints(t, fixture)
	token := fixture.Open(t)
	profile := token.Info().Profile()
	signing, public := generated(t, token, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "signing"})
	pair, recipient := generated(t, token, hsm.KeySpec{Algorithm: hsm.RSA2048, Label: "mail", Usages: []hsm.Usage{hsm.UseEncrypt}})
	cipher := hsm.Cipher{Hash: oaepHash(profile)}
	name := map[crypto.Hash][2]string{crypto.SHA1: {"sha1", "SHA-1"}, crypto.SHA256: {"sha256", "SHA256"}}[cipher.Hash]

	publicFile(t, dir, recipient)
	place(t, dir, "plain", []byte("by openssl"))
	if out, err := outside(t, dir, "openssl", "pkeyutl", "-encrypt", "-pubin", "-inkey", "public.pem", "-in", "plain", "-out", "theirs",
		"-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:"+name[0]); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	theirs, err := os.ReadFile(filepath.Join(dir, "theirs"))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := token.Decrypt(t.Context(), pair, cipher, theirs); err != nil || string(plain) != "by openssl" {
		t.Errorf("openssl's ciphertext: %q, %v", plain, err)
	}
	ours, err := token.Encrypt(t.Context(), pair, cipher, []byte("by the token"))
	if err != nil {
		t.Fatal(err)
	}
	place(t, dir, "ours", ours)
	message := []byte("what both sign")
	signature, err := token.Sign(t.Context(), signing, hsm.SignOptions{}, bytes.NewReader(message))
	if err != nil {
		t.Fatal(err)
	}
	publicFile(t, dir, public)
	place(t, dir, "message", message)
	place(t, dir, "signature", signature)
	if out, err := outside(t, dir, "openssl", "dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "message"); err != nil {
		t.Errorf("openssl does not take our signature: %v\n%s", err, out)
	}
	// Of some modules one process at a time can have the token.
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}

	tool := func(args ...string) (string, error) {
		return outside(t, dir, "pkcs11-tool", append([]string{"--module", fixture.Module, "--token-label", fixture.Label, "--login", "--pin", hsmtest.UserPIN}, args...)...)
	}
	out, err := tool("--decrypt", "--mechanism", "RSA-PKCS-OAEP", "--hash-algorithm", name[1], "--mgf", "MGF1-"+strings.ReplaceAll(name[1], "-", ""), "--id", hex.EncodeToString(pair.ID),
		"--input-file", "ours", "--output-file", "opened")
	switch plain, readErr := os.ReadFile(filepath.Join(dir, "opened")); {
	case !profile.Has(hsm.TakesOAEPNoSource):
		if err == nil || !strings.Contains(out, "CKR_MECHANISM_PARAM_INVALID") {
			t.Errorf("the profile %s lacks %q, but pkcs11-tool decrypts: %v\n%s", profile.Name, hsm.TakesOAEPNoSource, err, out)
		}
	case err != nil || readErr != nil || string(plain) != "by the token":
		t.Errorf("pkcs11-tool opens our ciphertext as %q: %v\n%s", plain, err, out)
	}
	digest := crypto.SHA256.New()
	digest.Write(message)
	place(t, dir, "digest", digest.Sum(nil))
	if out, err := tool("--sign", "--mechanism", "ECDSA", "--signature-format", "openssl", "--id", hex.EncodeToString(signing.ID), "--input-file", "digest", "--output-file", "their-signature"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	theirSignature, err := os.ReadFile(filepath.Join(dir, "their-signature"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := hsm.Open(t.Context(), fixture.Config())
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Verify(t.Context(), signing, hsm.SignOptions{}, bytes.NewReader(message), theirSignature); err != nil {
		t.Errorf("pkcs11-tool's signature: %v", err)
	}
	// With a pair that decrypts, pkcs11-tool tries every padding that it knows, and takes one that the token lacks for an error.
	if err := again.Destroy(t.Context(), pair); err != nil {
		t.Error(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	for complaint := range complaints(t, fixture) {
		if !before[complaint] {
			t.Errorf("pkcs11-tool --test finds what it did not find in the empty token: %s", complaint)
		}
	}
}

// TestFilesOfAnyToken: the format of encrypted files needs a key pair in the token, or an AES key where it has AES-GCM.
func TestFilesOfAnyToken(t *testing.T) {
	t.Parallel()
	token := hsmtest.Subject(t).Open(t)
	profile := token.Info().Profile()
	pair, _ := generated(t, token, hsm.KeySpec{Algorithm: hsm.RSA2048, Label: "rsa", Usages: []hsm.Usage{hsm.UseEncrypt}})
	type with struct {
		ref    hsm.KeyRef
		cipher hsm.Cipher
	}
	keys := []with{{pair, hsm.Cipher{Hash: oaepHash(profile)}}}
	if profile.Has(hsm.CanGCM) {
		secret, _ := generated(t, token, hsm.KeySpec{Algorithm: hsm.AES256, Label: "aes"})
		keys = append(keys, with{secret, hsm.Cipher{}})
	}
	plain := make([]byte, 2<<16+17)
	rand.Read(plain) // never fails
	for _, k := range keys {
		var sealed, opened bytes.Buffer
		if err := token.EncryptFile(t.Context(), k.ref, k.cipher, &sealed, bytes.NewReader(plain)); err != nil {
			t.Fatal(err)
		}
		if err := token.DecryptFile(t.Context(), hsm.KeyRef{}, &opened, bytes.NewReader(sealed.Bytes())); err != nil || !bytes.Equal(opened.Bytes(), plain) {
			t.Errorf("%s: %v", k.ref, err)
		}
		for what, damaged := range map[string][]byte{
			"cut short": sealed.Bytes()[:sealed.Len()-1], "without its last chunk": sealed.Bytes()[:sealed.Len()-33],
			"changed": append(bytes.Clone(sealed.Bytes()[:sealed.Len()-1]), sealed.Bytes()[sealed.Len()-1]^1),
		} {
			if err := token.DecryptFile(t.Context(), hsm.KeyRef{}, &bytes.Buffer{}, bytes.NewReader(damaged)); err == nil {
				t.Errorf("%s: a file that is %s was opened", k.ref, what)
			}
		}
	}
}

// TestTokensOfSeveralVendors: two tokens, as a rule of different libraries, are open in one process, each with its own PIN, and do not
// disturb each other.
func TestTokensOfSeveralVendors(t *testing.T) {
	subject := hsmtest.Subject(t)
	neighbour := subject.Neighbour(t)
	one, two := subject.Open(t), neighbour.Open(t)
	if one.Info().Serial == two.Info().Serial && one.Info().Module == two.Info().Module {
		t.Fatalf("they are the same: %+v", one.Info())
	}
	message := strings.NewReader("message")
	ref, public := generated(t, one, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "key", ID: []byte{1}})
	_, other := generated(t, two, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "key", ID: []byte{1}})
	for token, public := range map[*hsm.Token]crypto.PublicKey{one: public, two: other} {
		message.Reset("message")
		signature, err := token.Sign(t.Context(), ref, hsm.SignOptions{}, message)
		if err != nil {
			t.Fatal(err)
		}
		if err := hsm.VerifyWith(public, hsm.SignOptions{}, strings.NewReader("message"), signature); err != nil {
			t.Errorf("token %q signed with another key: %v", token.Info().Label, err)
		}
	}
	// A key leaves one for the other where both can, and the pair is whole in both.
	profile := one.Info().Profile()
	transport, recipient := generated(t, two, hsm.KeySpec{Algorithm: hsm.RSA2048, Label: "transport", Usages: []hsm.Usage{hsm.UseWrap}})
	if profile.Has(hsm.CanWrapRSAAESSHA1) {
		leaving, leavingPublic := generated(t, one, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "leaving", Extractable: true})
		wrapped, err := one.Wrap(t.Context(), hsm.WrapSpec{Key: leaving, Recipient: recipient.(*rsa.PublicKey), Method: hsm.RSAAES, Hash: crypto.SHA1})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := two.Unwrap(t.Context(), hsm.UnwrapSpec{
			Under: transport, Method: hsm.RSAAES, Hash: crypto.SHA1, Key: hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "arrived"}, Public: leavingPublic,
		}, wrapped); err != nil {
			t.Error(err)
		}
	}
	// A wrong PIN of one is nothing to the other.
	if err := two.Close(); err != nil {
		t.Fatal(err)
	}
	c := neighbour.Config()
	c.PIN = hsm.PINFromBytes([]byte("not the PIN"))
	if _, err := hsm.Open(t.Context(), c); !errors.Is(err, hsm.ErrWrongPIN) {
		t.Errorf("a wrong PIN: %v", err)
	}
	message.Reset("message")
	if _, err := one.Sign(t.Context(), ref, hsm.SignOptions{}, message); err != nil {
		t.Errorf("the neighbour's wrong PIN was felt: %v", err)
	}
}
