package hsm_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
)

// openssl runs openssl on files of a directory and returns what it says.
func outside(t *testing.T, dir, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func place(t *testing.T, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func publicFile(t *testing.T, dir string, public crypto.PublicKey) {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	place(t, dir, "public.pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func generated(t *testing.T, token *hsm.Token, spec hsm.KeySpec) (hsm.KeyRef, crypto.PublicKey) {
	t.Helper()
	ref, public, err := token.GenerateKey(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return ref, public
}

// Every scheme's signature is accepted by openssl, by this package in software and by the token; a changed one by nobody.
func TestSignaturesAreAcceptedByOpenSSL(t *testing.T) {
	t.Parallel()
	token := hsmtest.Subject(t).Open(t)
	profile := token.Info().Profile()
	message := bytes.Repeat([]byte("what is to be signed. "), 5000)
	for _, c := range []struct {
		algorithm hsm.Algorithm
		options   hsm.SignOptions
		openssl   string
	}{
		{hsm.RSA2048, hsm.SignOptions{}, "dgst -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest"},
		{hsm.RSA3072, hsm.SignOptions{Scheme: hsm.RSAPSS, Hash: crypto.SHA384}, "dgst -sha384 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest"},
		{hsm.RSA2048, hsm.SignOptions{Scheme: hsm.RSAPKCS1, Hash: crypto.SHA512}, "dgst -sha512"},
		{hsm.ECDSAP256, hsm.SignOptions{}, "dgst -sha256"},
		{hsm.ECDSAP256, hsm.SignOptions{Hash: crypto.SHA512}, "dgst -sha512"},
		{hsm.ECDSAP384, hsm.SignOptions{}, "dgst -sha384"},
		{hsm.ECDSAP521, hsm.SignOptions{}, "dgst -sha512"},
		{hsm.Ed25519, hsm.SignOptions{}, ""},
	} {
		name := fmt.Sprintf("%s-%s-%d", c.algorithm, c.options.Scheme, c.options.Hash)
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if !profile.Has(hsm.Capability(c.algorithm)) {
				if ref, _, err := token.GenerateKey(t.Context(), hsm.KeySpec{Algorithm: c.algorithm, Label: name}); err == nil {
					t.Errorf("the profile %s lacks it, but %s was made", profile.Name, ref)
				}
				if left, err := token.Objects(t.Context(), hsm.KeyRef{Label: name}); err != nil || len(left) != 0 {
					t.Errorf("what failed left %v, %v", left, err)
				}
				return
			}
			ref, public := generated(t, token, hsm.KeySpec{Algorithm: c.algorithm, Label: name})
			signature, err := token.Sign(t.Context(), ref, c.options, bytes.NewReader(message))
			if err != nil {
				t.Fatal(err)
			}
			publicFile(t, dir, public)
			place(t, dir, "message", message)
			place(t, dir, "signature", signature)
			args := append(strings.Fields(c.openssl), "-verify", "public.pem", "-signature", "signature", "message")
			if c.openssl == "" {
				args = strings.Fields("pkeyutl -verify -pubin -inkey public.pem -rawin -in message -sigfile signature")
			}
			if out, err := outside(t, dir, "openssl", args...); err != nil {
				t.Errorf("openssl: %v\n%s", err, out)
			}
			if err := token.Verify(t.Context(), ref, c.options, bytes.NewReader(message), signature); err != nil {
				t.Error(err)
			}
			if err := hsm.VerifyWith(public, c.options, bytes.NewReader(message), signature); err != nil {
				t.Error(err)
			}
			changed := bytes.Clone(signature)
			changed[len(changed)-1] ^= 1
			for what, err := range map[string]error{
				"token, changed signature":    token.Verify(t.Context(), ref, c.options, bytes.NewReader(message), changed),
				"token, changed message":      token.Verify(t.Context(), ref, c.options, bytes.NewReader(message[1:]), signature),
				"software, changed signature": hsm.VerifyWith(public, c.options, bytes.NewReader(message), changed),
				"software, changed message":   hsm.VerifyWith(public, c.options, bytes.NewReader(message[1:]), signature),
				"token, nonsense":             token.Verify(t.Context(), ref, c.options, bytes.NewReader(message), []byte("nonsense")),
			} {
				if !errors.Is(err, hsm.ErrSignature) {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
}

// A signature that is not valid is no lost token, though the token may say so; and one that is valid is not so on the host's word.
// It is not parallel: the faulty module is SoftHSM as well, which has one owner in a process.
func TestVerifyWithoutTheTokensWord(t *testing.T) {
	faulty := hsmtest.NewFaulty(t)
	token, err := hsm.Open(t.Context(), faulty.Config(hsmtest.New(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	for _, algorithm := range []hsm.Algorithm{hsm.RSA2048, hsm.ECDSAP256, hsm.Ed25519} {
		ref, _ := generated(t, token, hsm.KeySpec{Algorithm: algorithm, Label: string(algorithm)})
		signature, err := token.Sign(t.Context(), ref, hsm.SignOptions{}, strings.NewReader("m"))
		if err != nil {
			t.Fatal(err)
		}
		faulty.Begin(t, hsmtest.Unclear)
		if err := token.Verify(t.Context(), ref, hsm.SignOptions{}, strings.NewReader("n"), signature); !errors.Is(err, hsm.ErrSignature) {
			t.Errorf("%s, of another message: %v", algorithm, err)
		}
		if err := token.Verify(t.Context(), ref, hsm.SignOptions{}, strings.NewReader("m"), signature); !errors.Is(err, hsm.ErrUnavailable) {
			t.Errorf("%s: %v", algorithm, err)
		}
		faulty.Begin(t, "")
	}
}

func TestSignRefuses(t *testing.T) {
	t.Parallel()
	token := hsmtest.New(t).Open(t)
	ec, _ := generated(t, token, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "ec"})
	ed, _ := generated(t, token, hsm.KeySpec{Algorithm: hsm.Ed25519, Label: "ed"})
	closed, _ := generated(t, token, hsm.KeySpec{Algorithm: hsm.RSA2048, Label: "enc", Usages: []hsm.Usage{hsm.UseEncrypt}})
	narrow, _ := generated(t, token, hsm.KeySpec{Algorithm: hsm.RSA2048, Label: "pss only", Mechanisms: []string{"CKM_RSA_PKCS_PSS"}})
	generated(t, token, hsm.KeySpec{Algorithm: hsm.AES256, Label: "secret"})
	generated(t, token, hsm.KeySpec{Algorithm: hsm.HMACSHA256, Label: "mac"})
	digest := make([]byte, 32)
	mac := func(key string, hash crypto.Hash) error {
		return second(token.MAC(t.Context(), hsm.KeyRef{Label: key}, hash, strings.NewReader("m")))
	}
	for name, c := range map[string]struct {
		err  error
		says string
	}{
		"PSS with an EC key":    {second(token.SignDigest(t.Context(), ec, hsm.SignOptions{Scheme: hsm.RSAPSS}, digest)), `does not sign with "rsa-pss", but with ecdsa`},
		"ECDSA with an RSA key": {second(token.SignDigest(t.Context(), narrow, hsm.SignOptions{Scheme: hsm.ECDSA}, digest)), "but with rsa-pss or rsa-pkcs1"},
		"a secret key":          {second(token.SignDigest(t.Context(), hsm.KeyRef{Label: "secret"}, hsm.SignOptions{}, digest)), "no CKO_PRIVATE_KEY with label \"secret\", but a CKO_SECRET_KEY;"},
		"a MAC with a pair":     {mac("ec", crypto.SHA256), "no CKO_SECRET_KEY with label \"ec\", but a CKO_PRIVATE_KEY and a CKO_PUBLIC_KEY; `chancery hsm key list`"},
		"a MAC, short key":      {mac("mac", crypto.SHA512), "too short or too long for this: choose another hash"},
		"SHA-1":                 {second(token.SignDigest(t.Context(), ec, hsm.SignOptions{Hash: crypto.SHA1}, digest[:20])), "not signed with"},
		"a short digest":        {second(token.SignDigest(t.Context(), ec, hsm.SignOptions{}, digest[1:])), "31 octets"},
		"a digest with Ed25519": {second(token.SignDigest(t.Context(), ed, hsm.SignOptions{}, digest)), "give the message"},
		"a hash with Ed25519":   {second(token.Sign(t.Context(), ed, hsm.SignOptions{Hash: crypto.SHA256}, strings.NewReader("m"))), "name no hash"},
		"an encryption key":     {second(token.SignDigest(t.Context(), closed, hsm.SignOptions{}, digest)), "CKR_KEY_FUNCTION_NOT_PERMITTED"},
		"a forbidden mechanism": {second(token.SignDigest(t.Context(), narrow, hsm.SignOptions{Scheme: hsm.RSAPKCS1}, digest)), "CKR_MECHANISM_INVALID"},
		"no key":                {second(token.SignDigest(t.Context(), hsm.KeyRef{}, hsm.SignOptions{}, digest)), "no key is named"},
		"an unknown key":        {second(token.SignDigest(t.Context(), hsm.KeyRef{Label: "nobody"}, hsm.SignOptions{}, digest)), "no such key"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, c.err, c.says)
		}
	}
	if _, err := token.SignDigest(t.Context(), narrow, hsm.SignOptions{}, digest); err != nil {
		t.Error(err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestMACAndDigest(t *testing.T) {
	fixture := hsmtest.New(t)
	dir := t.TempDir()
	// A key whose value is known, so that openssl can make the same MAC: wrapped by openssl, under a key that pkcs11-tool stored.
	value, kek := bytes.Repeat([]byte{7}, 32), bytes.Repeat([]byte{9}, 32)
	place(t, dir, "value", value)
	storeKEK(t, fixture, dir, kek)
	if out, err := outside(t, dir, "openssl", "enc", "-e", "-id-aes256-wrap-pad", "-K", hex.EncodeToString(kek), "-iv", "A65959A6", "-in", "value", "-out", "wrapped"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	wrapped, err := os.ReadFile(filepath.Join(dir, "wrapped"))
	if err != nil {
		t.Fatal(err)
	}
	token := fixture.Open(t)
	known, err := token.Unwrap(t.Context(), hsm.UnwrapSpec{Under: hsm.KeyRef{Label: "kek"}, Key: hsm.KeySpec{Algorithm: hsm.HMACSHA256, Label: "known"}}, wrapped)
	if err != nil {
		t.Fatal(err)
	}
	message := bytes.Repeat([]byte("0123456789abcdef"), 10000)
	place(t, dir, "message", message)
	mac, err := token.MAC(t.Context(), known, crypto.SHA256, bytes.NewReader(message))
	if err != nil {
		t.Fatal(err)
	}
	out, err := outside(t, dir, "openssl", "dgst", "-sha256", "-mac", "HMAC", "-macopt", "hexkey:"+hex.EncodeToString(value), "message")
	if err != nil || !strings.Contains(out, hex.EncodeToString(mac)) {
		t.Errorf("openssl says %s, %v; the token %x", out, err, mac)
	}
	if err := token.VerifyMAC(t.Context(), known, crypto.SHA256, bytes.NewReader(message), mac); err != nil {
		t.Error(err)
	}
	if err := token.VerifyMAC(t.Context(), known, crypto.SHA256, bytes.NewReader(message[1:]), mac); !errors.Is(err, hsm.ErrSignature) {
		t.Errorf("another message: %v", err)
	}
	ours, _ := generated(t, token, hsm.KeySpec{Algorithm: hsm.HMACSHA512, Label: "ours"})
	said, err := token.MAC(t.Context(), ours, crypto.SHA512, strings.NewReader(""))
	if err != nil || len(said) != 64 {
		t.Errorf("%x, %v", said, err)
	}
	if mac, err := token.MAC(t.Context(), ours, 0, strings.NewReader("")); err != nil || !bytes.Equal(mac, said) {
		t.Errorf("with the hash that the key is as long as: %x, %v", mac, err)
	}
	if mac256, err := token.MAC(t.Context(), known, 0, bytes.NewReader(message)); err != nil || !bytes.Equal(mac256, mac) {
		t.Errorf("with the hash that the key is as long as: %x, %v", mac256, err)
	}
	digest, err := token.Digest(t.Context(), crypto.SHA256, bytes.NewReader(message))
	if want := sha256.Sum256(message); err != nil || !bytes.Equal(digest, want[:]) {
		t.Errorf("%x, %v", digest, err)
	}
}

func TestEncryption(t *testing.T) {
	t.Parallel()
	fixture := hsmtest.New(t)
	token := fixture.Open(t)
	aes, _ := generated(t, token, hsm.KeySpec{Algorithm: hsm.AES256, Label: "aes"})
	pair, public := generated(t, token, hsm.KeySpec{Algorithm: hsm.RSA2048, Label: "rsa", Usages: []hsm.Usage{hsm.UseEncrypt}})
	for name, c := range map[string]struct {
		ref    hsm.KeyRef
		cipher hsm.Cipher
		plain  string
	}{
		"gcm":              {aes, hsm.Cipher{}, "a secret"},
		"gcm, empty":       {aes, hsm.Cipher{}, ""},
		"gcm with context": {aes, hsm.Cipher{Context: []byte("for whom")}, strings.Repeat("x", 100_000)},
		"oaep":             {pair, hsm.Cipher{Hash: crypto.SHA1}, "a secret"},
	} {
		sealed, err := token.Encrypt(t.Context(), c.ref, c.cipher, []byte(c.plain))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if again, err := token.Encrypt(t.Context(), c.ref, c.cipher, []byte(c.plain)); err != nil || bytes.Equal(sealed, again) {
			t.Errorf("%s: the same ciphertext twice, %v", name, err)
		}
		if plain, err := token.Decrypt(t.Context(), c.ref, c.cipher, sealed); err != nil || string(plain) != c.plain {
			t.Errorf("%s: %q, %v", name, plain, err)
		}
		for _, at := range []int{0, len(sealed) - 1} {
			changed := bytes.Clone(sealed)
			changed[at] ^= 1
			if _, err := token.Decrypt(t.Context(), c.ref, c.cipher, changed); !errors.Is(err, hsm.ErrCiphertext) || errors.Is(err, hsm.ErrUnavailable) {
				t.Errorf("%s, octet %d changed: %v", name, at, err)
			}
		}
		if _, err := token.Decrypt(t.Context(), c.ref, c.cipher, sealed[:len(sealed)-1]); !errors.Is(err, hsm.ErrCiphertext) {
			t.Errorf("%s, cut short: %v", name, err)
		}
	}
	sealed, err := token.Encrypt(t.Context(), aes, hsm.Cipher{Context: []byte("a")}, []byte("m"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := token.Decrypt(t.Context(), aes, hsm.Cipher{Context: []byte("b")}, sealed); !errors.Is(err, hsm.ErrCiphertext) {
		t.Errorf("another context: %v", err)
	}
	if _, err := token.Encrypt(t.Context(), pair, hsm.Cipher{}, []byte("m")); !errors.Is(err, hsm.ErrNotSupported) || !strings.Contains(err.Error(), "sha1") {
		t.Errorf("what the token lacks: %v", err)
	}

	// An OAEP ciphertext made by one is accepted by the other.
	theirs, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, public.(*rsa.PublicKey), []byte("from outside"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := token.Decrypt(t.Context(), pair, hsm.Cipher{Hash: crypto.SHA1}, theirs); err != nil || string(plain) != "from outside" {
		t.Errorf("%q, %v", plain, err)
	}
	dir := t.TempDir()
	publicFile(t, dir, public)
	place(t, dir, "plain", []byte("by openssl"))
	if out, err := outside(t, dir, "openssl", "pkeyutl", "-encrypt", "-pubin", "-inkey", "public.pem", "-in", "plain", "-out", "sealed",
		"-pkeyopt", "rsa_padding_mode:oaep", "-pkeyopt", "rsa_oaep_md:sha1"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	data, err := os.ReadFile(filepath.Join(dir, "sealed"))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := token.Decrypt(t.Context(), pair, hsm.Cipher{Hash: crypto.SHA1}, data); err != nil || string(plain) != "by openssl" {
		t.Errorf("%q, %v", plain, err)
	}
	ours, err := token.Encrypt(t.Context(), pair, hsm.Cipher{Hash: crypto.SHA1}, []byte("by the token"))
	if err != nil {
		t.Fatal(err)
	}
	place(t, dir, "ours", ours)
	out, err := outside(t, dir, "pkcs11-tool", "--module", fixture.Module, "--token-label", fixture.Label, "--login", "--pin", hsmtest.UserPIN,
		"--decrypt", "--mechanism", "RSA-PKCS-OAEP", "--hash-algorithm", "SHA-1", "--mgf", "MGF1-SHA1", "--id", hex.EncodeToString(pair.ID), "--input-file", "ours", "--output-file", "opened")
	if plain, readErr := os.ReadFile(filepath.Join(dir, "opened")); err != nil || readErr != nil || string(plain) != "by the token" {
		t.Errorf("pkcs11-tool opened %q: %v\n%s", plain, err, out)
	}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	token := hsmtest.New(t).Open(t)
	aes, _ := generated(t, token, hsm.KeySpec{Algorithm: hsm.AES256, Label: "aes"})
	other, _ := generated(t, token, hsm.KeySpec{Algorithm: hsm.AES128, Label: "other"})
	pair, _ := generated(t, token, hsm.KeySpec{Algorithm: hsm.RSA2048, Label: "rsa", Usages: []hsm.Usage{hsm.UseEncrypt}})
	plain := make([]byte, 3<<16+17)
	rand.Read(plain)
	for _, c := range []struct {
		ref    hsm.KeyRef
		cipher hsm.Cipher
	}{{aes, hsm.Cipher{}}, {pair, hsm.Cipher{Hash: crypto.SHA1}}} {
		var sealed, opened bytes.Buffer
		if err := token.EncryptFile(t.Context(), c.ref, c.cipher, &sealed, bytes.NewReader(plain)); err != nil {
			t.Fatal(err)
		}
		file := sealed.Bytes()
		if err := token.DecryptFile(t.Context(), hsm.KeyRef{}, &opened, bytes.NewReader(file)); err != nil || !bytes.Equal(opened.Bytes(), plain) {
			t.Errorf("%v", err)
		}
		if err := token.DecryptFile(t.Context(), other, &opened, bytes.NewReader(file)); !errors.Is(err, hsm.ErrKeyMismatch) {
			t.Errorf("with a foreign key: %v", err)
		}
		// The file says another key: the data key does not open.
		foreign := bytes.Replace(bytes.Clone(file), c.ref.ID, other.ID, 1)
		if err := token.DecryptFile(t.Context(), hsm.KeyRef{}, &opened, bytes.NewReader(foreign)); err == nil {
			t.Error("a file of another key was opened")
		}
	}
}

// Keys go from one token to another by each method; what arrives is the same key, with the template that was asked for.
func TestWrap(t *testing.T) {
	t.Parallel()
	one, two := hsmtest.New(t).Open(t), hsmtest.New(t).Open(t)
	kek, _ := generated(t, one, hsm.KeySpec{Algorithm: hsm.AES256, Label: "kek", Usages: []hsm.Usage{hsm.UseWrap}, Extractable: true})
	pair, public := generated(t, two, hsm.KeySpec{Algorithm: hsm.RSA2048, Label: "transport", Usages: []hsm.Usage{hsm.UseWrap}})
	recipient := public.(*rsa.PublicKey)

	wrappedKEK, err := one.Wrap(t.Context(), hsm.WrapSpec{Key: kek, Recipient: recipient, Method: hsm.OAEPWrap, Hash: crypto.SHA1})
	if err != nil {
		t.Fatal(err)
	}
	arrived, err := two.Unwrap(t.Context(), hsm.UnwrapSpec{
		Under: pair, Method: hsm.OAEPWrap, Hash: crypto.SHA1, Key: hsm.KeySpec{Algorithm: hsm.AES256, Label: "kek", Usages: []hsm.Usage{hsm.UseWrap}},
	}, wrappedKEK)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		algorithm hsm.Algorithm
		method    hsm.WrapMethod
	}{
		{hsm.ECDSAP256, hsm.AESKWP},
		{hsm.RSA2048, hsm.AESKWP},
		{hsm.AES128, hsm.AESKWP},
		{hsm.ECDSAP384, hsm.RSAAES},
		{hsm.RSA2048, hsm.RSAAES},
		{hsm.HMACSHA256, hsm.RSAAES},
		{hsm.AES256, hsm.OAEPWrap},
	} {
		label := fmt.Sprintf("%s by %s", c.algorithm, c.method)
		t.Run(label, func(t *testing.T) {
			ref, public := generated(t, one, hsm.KeySpec{Algorithm: c.algorithm, Label: label, Extractable: true})
			wrap, unwrap := hsm.WrapSpec{Key: ref, Recipient: recipient, Method: c.method, Hash: crypto.SHA1}, hsm.UnwrapSpec{
				Under: pair, Method: c.method, Hash: crypto.SHA1, Key: hsm.KeySpec{Algorithm: c.algorithm, Label: label, ID: ref.ID}, Public: public,
			}
			if c.method == hsm.AESKWP {
				wrap.Recipient, wrap.Under, unwrap.Under = nil, kek, arrived
			}
			wrapped, err := one.Wrap(t.Context(), wrap)
			if err != nil {
				t.Fatal(err)
			}
			changed := bytes.Clone(wrapped)
			changed[len(changed)-1] ^= 1
			if _, err := two.Unwrap(t.Context(), unwrap, changed); !errors.Is(err, hsm.ErrWrapped) {
				t.Errorf("a changed blob: %v", err)
			}
			wrong := unwrap
			switch {
			case c.method == hsm.OAEPWrap: // which tells nothing of a secret key's length, as SoftHSM does not either
				wrong.Key.Algorithm = hsm.RSA2048
			case c.algorithm == hsm.AES128:
				wrong.Key.Algorithm = hsm.AES256
			default:
				wrong.Key.Algorithm = hsm.AES128
			}
			wrong.Public = nil
			if _, err := two.Unwrap(t.Context(), wrong, wrapped); err == nil {
				t.Error("the wrong algorithm was taken")
			}
			if left, err := two.Objects(t.Context(), hsm.KeyRef{Label: label}); err != nil || len(left) != 0 {
				t.Errorf("after failures the token holds %v, %v", left, err)
			}
			back, err := two.Unwrap(t.Context(), unwrap, wrapped)
			if err != nil {
				t.Fatal(err)
			}
			a, err := two.Attributes(back)
			if !c.algorithm.Secret() {
				if err != nil || a.Extractable || a.NeverExtractable || a.Local || a.Decrypt || !a.Sensitive || !a.Private || !a.Sign {
					t.Errorf("attributes %+v, %v", a, err)
				}
				signature, err := two.Sign(t.Context(), back, hsm.SignOptions{}, strings.NewReader("m"))
				if err != nil || hsm.VerifyWith(public, hsm.SignOptions{}, strings.NewReader("m"), signature) != nil {
					t.Errorf("it signs wrongly: %v", err)
				}
				return
			}
			if c.algorithm == hsm.HMACSHA256 {
				here, err1 := one.MAC(t.Context(), ref, crypto.SHA256, strings.NewReader("m"))
				there, err2 := two.MAC(t.Context(), back, crypto.SHA256, strings.NewReader("m"))
				if err1 != nil || err2 != nil || !bytes.Equal(here, there) {
					t.Errorf("%x %v, %x %v", here, err1, there, err2)
				}
				return
			}
			sealed, err := one.Encrypt(t.Context(), ref, hsm.Cipher{}, []byte("m"))
			if err != nil {
				t.Fatal(err)
			}
			if plain, err := two.Decrypt(t.Context(), back, hsm.Cipher{}, sealed); err != nil || string(plain) != "m" {
				t.Errorf("%q, %v", plain, err)
			}
		})
	}

	// A key that was wrapped under a stranger's key is not taken, and leaves nothing.
	strange, _ := generated(t, one, hsm.KeySpec{Algorithm: hsm.AES256, Label: "a stranger's", Usages: []hsm.Usage{hsm.UseWrap}})
	orphan, orphanPublic := generated(t, one, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "orphan", Extractable: true})
	foreign, err := one.Wrap(t.Context(), hsm.WrapSpec{Key: orphan, Under: strange})
	if err != nil {
		t.Fatal(err)
	}
	_, err = two.Unwrap(t.Context(), hsm.UnwrapSpec{Under: arrived, Key: hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "orphan"}, Public: orphanPublic}, foreign)
	if !errors.Is(err, hsm.ErrWrapped) {
		t.Errorf("a foreign wrapped key: %v", err)
	}
	if left, err := two.Objects(t.Context(), hsm.KeyRef{Label: "orphan"}); err != nil || len(left) != 0 {
		t.Errorf("it left %v, %v", left, err)
	}

	kept, _ := generated(t, one, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "kept"})
	if _, err := one.Wrap(t.Context(), hsm.WrapSpec{Key: kept, Under: kek}); err == nil || !strings.Contains(err.Error(), "made to stay") {
		t.Errorf("a kept key: %v", err)
	}
	// Another pair's public half is noticed.
	loose, _ := generated(t, one, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "loose", Extractable: true})
	wrapped, err := one.Wrap(t.Context(), hsm.WrapSpec{Key: loose, Under: kek})
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := one.PublicKey(kept)
	if err != nil {
		t.Fatal(err)
	}
	_, err = two.Unwrap(t.Context(), hsm.UnwrapSpec{Under: arrived, Key: hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "loose"}, Public: stranger}, wrapped)
	if !errors.Is(err, hsm.ErrKeyMismatch) {
		t.Errorf("another's public half: %v", err)
	}
	if left, err := two.Objects(t.Context(), hsm.KeyRef{Label: "loose"}); err != nil || len(left) != 0 {
		t.Errorf("it left %v, %v", left, err)
	}
	// Nor did anything stay that has no name.
	all, err := two.Objects(t.Context(), hsm.KeyRef{})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range all {
		if o.Label == "" {
			t.Errorf("there is a %s, %s, without a name: %v", o.Class, o.Type, o.Attributes)
		}
	}
}

// A key that was made to stay is not wrapped by a module either that would wrap it. It is not parallel: the faulty module is
// SoftHSM as well.
func TestWrapDoesNotLeaveItToTheModule(t *testing.T) {
	faulty := hsmtest.NewFaulty(t)
	token, err := hsm.Open(t.Context(), faulty.Config(hsmtest.New(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	kek, _ := generated(t, token, hsm.KeySpec{Algorithm: hsm.AES256, Label: "kek", Usages: []hsm.Usage{hsm.UseWrap}})
	_, public := generated(t, token, hsm.KeySpec{Algorithm: hsm.RSA2048, Label: "transport", Usages: []hsm.Usage{hsm.UseWrap}})
	faulty.Begin(t, hsmtest.Wrapping)
	for _, algorithm := range []hsm.Algorithm{hsm.ECDSAP256, hsm.AES256} {
		label := "kept " + string(algorithm)
		kept, _ := generated(t, token, hsm.KeySpec{Algorithm: algorithm, Label: label})
		for what, spec := range map[string]hsm.WrapSpec{
			"under a key":     {Under: kek},
			"for a recipient": {Recipient: public.(*rsa.PublicKey), Method: hsm.OAEPWrap, Hash: crypto.SHA1},
		} {
			spec.Key = kept
			if wrapped, err := token.Wrap(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "made to stay") || wrapped != nil {
				t.Errorf("%s, %s: %x, %v", algorithm, what, wrapped, err)
			}
		}
	}
	loose, _ := generated(t, token, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "loose", Extractable: true})
	if _, err := token.Wrap(t.Context(), hsm.WrapSpec{Key: loose, Under: kek}); err != nil {
		t.Errorf("a key that may leave: %v", err)
	}
}

// An RSA key is proven by what it may be used for, and kept as narrow as it is asked to be.
func TestUnwrapANarrowKey(t *testing.T) {
	t.Parallel()
	token := hsmtest.New(t).Open(t)
	kek, _ := generated(t, token, hsm.KeySpec{Algorithm: hsm.AES256, Label: "kek", Usages: []hsm.Usage{hsm.UseWrap}})
	key, public := generated(t, token, hsm.KeySpec{Algorithm: hsm.RSA2048, Label: "key", Extractable: true})
	wrapped, err := token.Wrap(t.Context(), hsm.WrapSpec{Key: key, Under: kek})
	if err != nil {
		t.Fatal(err)
	}
	for mechanism, signs := range map[string]hsm.Scheme{"CKM_RSA_PKCS": hsm.RSAPKCS1, "CKM_RSA_PKCS_PSS": hsm.RSAPSS, "CKM_SHA256_RSA_PKCS": ""} {
		back, err := token.Unwrap(t.Context(), hsm.UnwrapSpec{
			Under: kek, Key: hsm.KeySpec{Algorithm: hsm.RSA2048, Label: mechanism, Mechanisms: []string{mechanism}}, Public: public,
		}, wrapped)
		if err != nil {
			t.Errorf("%s: %v", mechanism, err)
			continue
		}
		for _, scheme := range []hsm.Scheme{hsm.RSAPKCS1, hsm.RSAPSS} {
			_, err := token.Sign(t.Context(), back, hsm.SignOptions{Scheme: scheme}, strings.NewReader("m"))
			if (err == nil) != (scheme == signs) {
				t.Errorf("%s signs by %s: %v", mechanism, scheme, err)
			}
		}
	}
}

// storeKEK has pkcs11-tool store an AES key of a known value.
func storeKEK(t *testing.T, fixture *hsmtest.Token, dir string, value []byte) {
	t.Helper()
	if out, err := outside(t, dir, "pkcs11-tool", "--module", fixture.Module, "--token-label", fixture.Label, "--login", "--pin", hsmtest.UserPIN,
		"--write-object", place(t, dir, "kek", value), "--type", "secrkey", "--key-type", "AES:32", "--usage-wrap", "--label", "kek", "--id", "01"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// Another process writes into the tokens' directory here, which disturbs SoftHSM in this one; so nothing runs in parallel.
//
// The blob of AESKWP is RFC 5649's: openssl unwraps it.
func TestWrapIsUnderstoodByOpenSSL(t *testing.T) {
	fixture, dir := hsmtest.New(t), t.TempDir()
	kek := bytes.Repeat([]byte{9}, 32)
	storeKEK(t, fixture, dir, kek)
	token := fixture.Open(t)
	ref, public := generated(t, token, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "ec", Extractable: true})
	wrapped, err := token.Wrap(t.Context(), hsm.WrapSpec{Key: ref, Under: hsm.KeyRef{Label: "kek"}})
	if err != nil {
		t.Fatal(err)
	}
	place(t, dir, "wrapped", wrapped)
	if out, err := outside(t, dir, "openssl", "enc", "-d", "-id-aes256-wrap-pad", "-K", hex.EncodeToString(kek), "-iv", "A65959A6", "-in", "wrapped", "-out", "key.der"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	der, err := os.ReadFile(filepath.Join(dir, "key.der"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		t.Fatal(err)
	}
	if !key.(*ecdsa.PrivateKey).PublicKey.Equal(public) {
		t.Error("it is another key")
	}
}

// recorder keeps what it is told.
type recorder struct {
	mu   sync.Mutex
	all  []hsm.Operation
	fail error
}

func (r *recorder) Observe(_ context.Context, o hsm.Operation) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, o)
	return r.fail
}

func (r *recorder) take() []hsm.Operation {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.all
	r.all = nil
	return taken
}
