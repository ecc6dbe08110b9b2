package hsm_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
)

func selfSigned(t *testing.T, key crypto.Signer) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "a test"}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

// pkcs11Tool sees what this package made.
func pkcs11Tool(t *testing.T, fixture *hsmtest.Token, args ...string) (string, error) {
	t.Helper()
	return outside(t, t.TempDir(), "pkcs11-tool", append([]string{"--module", fixture.Module, "--token-label", fixture.Label, "--login", "--pin", hsmtest.UserPIN}, args...)...)
}

// Every algorithm's key has the attributes that it should have, as this package and as pkcs11-tool see it; a token full of them passes
// pkcs11-tool's own test.
func TestKeysOfEveryAlgorithm(t *testing.T) {
	fixture := hsmtest.New(t)
	token := fixture.Open(t)
	for _, algorithm := range hsm.Algorithms() {
		ref, public := generated(t, token, hsm.KeySpec{Algorithm: algorithm, Label: string(algorithm)})
		if (public == nil) != algorithm.Secret() {
			t.Errorf("%s: public key %v", algorithm, public)
		}
		objects, err := token.Objects(t.Context(), ref)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects {
			if o.Algorithm != algorithm || o.Get("CKA_LABEL") != ref.Label || o.Get("CKA_ID") != hex.EncodeToString(ref.ID) || o.Get("CKA_TOKEN") != "true" {
				t.Errorf("%s: %+v", algorithm, o)
			}
			if o.Class == "CKO_PUBLIC_KEY" {
				continue
			}
			for name, want := range map[string]string{
				"CKA_SENSITIVE": "true", "CKA_EXTRACTABLE": "false", "CKA_NEVER_EXTRACTABLE": "true", "CKA_LOCAL": "true", "CKA_PRIVATE": "true",
				"CKA_MODIFIABLE": "false", "CKA_COPYABLE": "false", "CKA_DERIVE": "false",
			} {
				if got := o.Get(name); got != want {
					t.Errorf("%s: %s is %q, want %q", algorithm, name, got, want)
				}
			}
			if o.Get("CKA_ALLOWED_MECHANISMS") == "" || o.Get("CKA_KEY_GEN_MECHANISM") == "" {
				t.Errorf("%s: %+v", algorithm, o.Attributes)
			}
		}
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	out, err := pkcs11Tool(t, fixture, "--list-objects")
	for _, want := range []string{"Private Key Object; RSA", "Private Key Object; EC", "Secret Key Object; AES length 32", "hmac-sha256", "never extractable"} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("pkcs11-tool does not show %q: %v\n%s", want, err, out)
		}
	}
	if out, err := pkcs11Tool(t, fixture, "--test"); err != nil || !strings.Contains(out, "No errors") {
		t.Errorf("pkcs11-tool --test: %v\n%s", err, out)
	}
}

func TestDestroyAndLabel(t *testing.T) {
	t.Parallel()
	token := hsmtest.New(t).Open(t)
	fixed, _ := generated(t, token, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "fixed"})
	loose, _ := generated(t, token, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "loose", Modifiable: true})
	secret, _ := generated(t, token, hsm.KeySpec{Algorithm: hsm.AES256, Label: "secret", Modifiable: true})
	eternal, _ := generated(t, token, hsm.KeySpec{Algorithm: hsm.RSA2048, Label: "eternal", Indestructible: true})
	if err := token.SetLabel(t.Context(), fixed, "other"); err == nil || !strings.Contains(err.Error(), "CKA_MODIFIABLE") {
		t.Errorf("an unmodifiable key: %v", err)
	}
	if err := token.SetLabel(t.Context(), loose, "fixed"); !errors.Is(err, hsm.ErrKeyExists) {
		t.Errorf("a label that is taken: %v", err)
	}
	for ref, label := range map[*hsm.KeyRef]string{&loose: "renamed", &secret: "renamed secret"} {
		if err := token.SetLabel(t.Context(), *ref, label); err != nil {
			t.Fatal(err)
		}
		ref.Label = label
		if found, err := token.Objects(t.Context(), *ref); err != nil || len(found) == 0 || len(found) == 1 && found[0].Class != "CKO_SECRET_KEY" {
			t.Errorf("%s: %v, %v", label, found, err)
		}
	}
	if err := token.Destroy(t.Context(), eternal); err == nil || !strings.Contains(err.Error(), "CKA_DESTROYABLE") || !strings.Contains(err.Error(), "CKR_ACTION_PROHIBITED") {
		t.Errorf("an indestructible key: %v", err)
	}
	for _, ref := range []hsm.KeyRef{fixed, loose, secret} {
		if err := token.Destroy(t.Context(), ref); err != nil {
			t.Error(err)
		}
		if err := token.Destroy(t.Context(), ref); !errors.Is(err, hsm.ErrKeyNotFound) {
			t.Errorf("a second time: %v", err)
		}
	}
	if left, err := token.Objects(t.Context(), hsm.KeyRef{}); err != nil || len(left) != 2 || left[0].Label != "eternal" {
		t.Errorf("left are %v, %v", left, err)
	}
}

// A destruction that was cut short between the halves is ended by the next, whichever half is left and by whatever it is named.
func TestDestroyWhatIsLeft(t *testing.T) {
	t.Parallel()
	token := hsmtest.New(t).Open(t)
	for _, c := range []struct {
		what, gone string
		name       func(hsm.KeyRef) hsm.KeyRef
	}{
		{"the public half, by both names", "CKO_PRIVATE_KEY", func(r hsm.KeyRef) hsm.KeyRef { return r }},
		{"the public half, by its label", "CKO_PRIVATE_KEY", func(r hsm.KeyRef) hsm.KeyRef { return hsm.KeyRef{Label: r.Label} }},
		{"the public half, by its id", "CKO_PRIVATE_KEY", func(r hsm.KeyRef) hsm.KeyRef { return hsm.KeyRef{ID: r.ID} }},
		{"the private half, by both names", "CKO_PUBLIC_KEY", func(r hsm.KeyRef) hsm.KeyRef { return r }},
		{"the private half, by its id", "CKO_PUBLIC_KEY", func(r hsm.KeyRef) hsm.KeyRef { return hsm.KeyRef{ID: r.ID} }},
	} {
		ref, _ := generated(t, token, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: c.what})
		if err := hsm.DestroyHalf(token, c.gone, ref); err != nil {
			t.Fatal(err)
		}
		if left, err := token.Objects(t.Context(), ref); err != nil || len(left) != 1 || left[0].Class == c.gone {
			t.Fatalf("%s: left are %v, %v", c.what, left, err)
		}
		if err := token.Destroy(t.Context(), c.name(ref)); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if left, err := token.Objects(t.Context(), ref); err != nil || len(left) != 0 {
			t.Errorf("%s: left are %v, %v", c.what, left, err)
		}
		if err := token.Destroy(t.Context(), c.name(ref)); !errors.Is(err, hsm.ErrKeyNotFound) {
			t.Errorf("%s, when nothing is left: %v", c.what, err)
		}
	}
	// A rename that was cut short leaves two labels on one key. It is destroyed as one, and its public half is not taken for what is left of
	// another.
	ref, _ := generated(t, token, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "old", Modifiable: true})
	if err := hsm.LabelHalf(token, "CKO_PUBLIC_KEY", ref, "new"); err != nil {
		t.Fatal(err)
	}
	if err := token.Destroy(t.Context(), hsm.KeyRef{Label: "new"}); !errors.Is(err, hsm.ErrKeyNotFound) {
		t.Errorf("by the label that its public half has alone: %v", err)
	}
	if err := token.Destroy(t.Context(), ref); err != nil {
		t.Error(err)
	}
	// A secret key is no half, and takes no public key with it.
	pair, _ := generated(t, token, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "pair"})
	if err := hsm.DestroyHalf(token, "CKO_PRIVATE_KEY", pair); err != nil {
		t.Fatal(err)
	}
	secret, _ := generated(t, token, hsm.KeySpec{Algorithm: hsm.AES256, Label: "secret"})
	if err := token.Destroy(t.Context(), secret); err != nil {
		t.Error(err)
	}
	if left, err := token.Objects(t.Context(), hsm.KeyRef{}); err != nil || len(left) != 1 || left[0].Label != "pair" {
		t.Errorf("left are %v, %v", left, err)
	}
}

func TestCertificates(t *testing.T) {
	t.Parallel()
	fixture := hsmtest.New(t)
	token := fixture.Open(t)
	key, _ := generated(t, token, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "key"})
	other, _ := generated(t, token, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "other"})
	signer, err := token.Signer(key, nil)
	if err != nil {
		t.Fatal(err)
	}
	certificate := selfSigned(t, signer)
	if _, err := token.ImportCertificate(t.Context(), certificate, hsm.KeyRef{ID: other.ID}); !errors.Is(err, hsm.ErrKeyMismatch) {
		t.Errorf("with another key's id: %v", err)
	}
	stored, err := token.ImportCertificate(t.Context(), certificate, hsm.KeyRef{})
	if err != nil || !stored.Paired || stored.Label != "key" || !bytes.Equal(stored.ID, key.ID) {
		t.Fatalf("%+v, %v", stored, err)
	}
	if _, err := token.ImportCertificate(t.Context(), certificate, hsm.KeyRef{Label: "again"}); !errors.Is(err, hsm.ErrCertificateExists) {
		t.Errorf("twice: %v", err)
	}
	// Renewed with the same key: the two must differ in their names, to be told apart later.
	renewed := selfSigned(t, signer)
	if _, err := token.ImportCertificate(t.Context(), renewed, hsm.KeyRef{}); err == nil || !strings.Contains(err.Error(), "another label") {
		t.Errorf("a renewed certificate with the names of the old one: %v", err)
	}
	if c, err := token.ImportCertificate(t.Context(), renewed, hsm.KeyRef{Label: "renewed"}); err != nil || !c.Paired {
		t.Errorf("%+v, %v", c, err)
	}
	if err := token.DeleteCertificate(t.Context(), hsm.KeyRef{Label: "renewed"}, certificate); !errors.Is(err, hsm.ErrCertificateNotFound) {
		t.Errorf("one that took the name of the one that was meant: %v", err)
	}
	if err := token.DeleteCertificate(t.Context(), hsm.KeyRef{Label: "renewed"}, renewed); err != nil {
		t.Error(err)
	}
	// A certificate whose key is elsewhere needs names of its own.
	away := hsmtest.New(t).Open(t)
	if _, err := away.ImportCertificate(t.Context(), certificate, hsm.KeyRef{}); err == nil || !strings.Contains(err.Error(), "name a label and an id") {
		t.Errorf("without its key: %v", err)
	}
	if c, err := away.ImportCertificate(t.Context(), certificate, hsm.KeyRef{Label: "theirs", ID: []byte{1}}); err != nil || c.Paired {
		t.Errorf("%+v, %v", c, err)
	}
	all, err := token.Certificates(t.Context(), hsm.KeyRef{Label: "key"})
	if err != nil || len(all) != 1 || !all[0].Paired || !all[0].Certificate.Equal(certificate) {
		t.Errorf("%+v, %v", all, err)
	}
	path := filepath.Join(t.TempDir(), "certificate.der")
	if out, err := pkcs11Tool(t, fixture, "--read-object", "--type", "cert", "--id", hex.EncodeToString(key.ID), "--output-file", path); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if der, err := os.ReadFile(path); err != nil || !bytes.Equal(der, certificate.Raw) {
		t.Errorf("pkcs11-tool reads %x, %v", der, err)
	}
	if err := token.DeleteCertificate(t.Context(), hsm.KeyRef{Label: "key"}, certificate); err != nil {
		t.Error(err)
	}
	if err := token.DeleteCertificate(t.Context(), hsm.KeyRef{Label: "key"}, certificate); !errors.Is(err, hsm.ErrCertificateNotFound) || errors.Is(err, hsm.ErrKeyNotFound) {
		t.Errorf("what is not there: %v", err)
	}
	if _, err := token.Signer(key, nil); err != nil {
		t.Errorf("the key went with its certificate: %v", err)
	}
}

// A key without a CKA_ID goes without what has its label and belongs to another, and is renamed without it.
func TestAKeyWithoutIDLeavesOthersAlone(t *testing.T) {
	t.Parallel()
	token := hsmtest.New(t).Open(t)
	ctx := pkcs11.New(token.Info().Module)
	if ctx == nil {
		t.Fatal("the module is not there")
	}
	defer ctx.Destroy()
	session, err := ctx.OpenSession(token.Info().Slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		t.Fatal(err)
	}
	pair := func(publicLabel, privateLabel string, id []byte) {
		half := func(label string, more ...*pkcs11.Attribute) []*pkcs11.Attribute {
			more = append(more, pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label))
			if id != nil {
				more = append(more, pkcs11.NewAttribute(pkcs11.CKA_ID, id))
			}
			return more
		}
		p256 := []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}
		_, _, err := ctx.GenerateKeyPair(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_EC_KEY_PAIR_GEN, nil)},
			half(publicLabel, pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, p256)),
			half(privateLabel, pkcs11.NewAttribute(pkcs11.CKA_SIGN, true), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true)))
		if err != nil {
			t.Fatal(err)
		}
	}
	pair("x", "x", nil)
	pair("x", "authority", []byte{7, 7})
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"renaming", func() error { return token.SetLabel(t.Context(), hsm.KeyRef{Label: "x"}, "y") }},
		{"destroying", func() error { return token.Destroy(t.Context(), hsm.KeyRef{Label: "y"}) }},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if _, err := token.PublicKey(hsm.KeyRef{Label: "authority"}); err != nil {
			t.Errorf("%s took the other key's public half: %v", step.name, err)
		}
	}
	if keys, err := token.Keys(); err != nil || len(keys) != 1 {
		t.Errorf("left are %v, %v", keys, err)
	}
}

func TestAttestation(t *testing.T) {
	t.Parallel()
	fixture := hsmtest.New(t)
	token := fixture.Open(t)
	key, public := generated(t, token, hsm.KeySpec{Algorithm: hsm.RSA2048, Label: "key"})
	secret, _ := generated(t, token, hsm.KeySpec{Algorithm: hsm.AES256, Label: "secret", Extractable: true})
	declared := hsm.Declaration{FIPSLevel: 3, FIPSCertificate: "4703"}
	if _, err := token.Attest(t.Context(), secret, hsm.KeyRef{}, declared); err == nil || !strings.Contains(err.Error(), "does not sign") {
		t.Errorf("a secret key by itself: %v", err)
	}
	for name, c := range map[string]struct {
		ref, by  hsm.KeyRef
		confined bool
	}{"a key by itself": {key, hsm.KeyRef{}, true}, "a secret key": {secret, key, false}} {
		a, err := token.Attest(t.Context(), c.ref, c.by, declared)
		if err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		e, _, err := hsm.VerifyAttestation(data, public)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if e.Slot.Token.Serial != fixture.Serial || e.Declared != declared || e.Confined != c.confined || len(e.Slot.Token.Mechanisms) < 10 || len(e.Key) == 0 ||
			!slices.ContainsFunc(e.Key[0].Attributes, func(a hsm.Attribute) bool { return a.Name == "CKA_KEY_GEN_MECHANISM" }) {
			t.Errorf("%s: %+v", name, e)
		}
		a.Evidence = bytes.Replace(a.Evidence, []byte(`"CKA_EXTRACTABLE","value":"`), []byte(`"CKA_EXTRACTABLE","value":"X`), 1)
		changed, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := hsm.VerifyAttestation(changed, nil); !errors.Is(err, hsm.ErrSignature) {
			t.Errorf("%s, changed: %v", name, err)
		}
		stranger, strangers := generated(t, token, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "stranger to " + name})
		if _, _, err := hsm.VerifyAttestation(data, strangers); !errors.Is(err, hsm.ErrKeyMismatch) {
			t.Errorf("%s, another signer than %s: %v", name, stranger, err)
		}
	}
}

// Nobody reads in an attestation what its verification did not: it is one JSON value, in which each field stands once and under its name.
func TestAttestationIsReadInOneWay(t *testing.T) {
	t.Parallel()
	token := hsmtest.New(t).Open(t)
	key, _ := generated(t, token, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "key"})
	a, err := token.Attest(t.Context(), key, hsm.KeyRef{}, hsm.Declaration{})
	if err != nil {
		t.Fatal(err)
	}
	text := func(a hsm.Attestation) string {
		t.Helper()
		data, err := json.MarshalIndent(a, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	// signed is the attestation with other evidence, signed as well.
	signed := func(old, new string) string {
		t.Helper()
		other := a
		other.Evidence = bytes.Replace(a.Evidence, []byte(old), []byte(new), 1)
		message := append([]byte("chancery hsm attestation v1\n"), other.Evidence...)
		if other.Signature.Value, err = token.Sign(t.Context(), key, hsm.SignOptions{}, bytes.NewReader(message)); err != nil {
			t.Fatal(err)
		}
		return text(other)
	}
	sound := text(a)
	for name, c := range map[string]struct{ text, says string }{
		"as it is written":              {sound + "\n", ""},
		"evidence signed anew":          {signed("", ""), ""},
		"two evidences":                 {strings.Replace(sound, "{", `{"evidence": "e30=",`, 1), `"evidence" stands in the JSON twice`},
		"evidence in other letters":     {strings.Replace(sound, `"evidence"`, `"Evidence"`, 1), "in other letters"},
		"two signers' labels":           {strings.Replace(sound, `"label"`, `"label": "x", "label"`, 1), `"label" stands in the JSON twice`},
		"a brace behind it":             {sound + "}", "something follows"},
		"a second one behind it":        {sound + sound, "something follows"},
		"an unknown field":              {strings.Replace(sound, "{", `{"more": 1,`, 1), "unknown field"},
		"octets that are no text":       {strings.Replace(sound, `"label": "`, `"label": "`+"\xff", 1), "not UTF-8"},
		"confined twice, signed":        {signed(`"confined":true`, `"confined":false,"confined":true`), `"confined" stands in the JSON twice`},
		"an attribute twice, signed":    {signed(`"name":"CKA_`, `"name":"x","name":"CKA_`), `"name" stands in the JSON twice`},
		"in other letters, signed":      {signed(`"confined":true`, `"conﬁned":true`), "unknown field"},
		"a letter like another, signed": {signed(`"slot":`, `"ſlot":`), "in other letters"},
		"a brace behind it, signed":     {signed(`"confined":true}`, `"confined":true}}`), "something follows"},
	} {
		if _, _, err := hsm.VerifyAttestation([]byte(c.text), nil); (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}

// A key that another process destroys while it is attested is a key that is not there. It is not parallel: the
// faulty module is SoftHSM as well.
func TestAttestationOfAKeyThatGoes(t *testing.T) {
	faulty := hsmtest.NewFaulty(t)
	token, err := hsm.Open(t.Context(), faulty.Config(hsmtest.New(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	key, _ := generated(t, token, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "key"})
	faulty.Begin(t, hsmtest.Vanish)
	if _, err := token.Attest(t.Context(), key, hsm.KeyRef{}, hsm.Declaration{}); !errors.Is(err, hsm.ErrKeyNotFound) {
		t.Error(err)
	}
}

func FuzzVerifyAttestation(f *testing.F) {
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"evidence":"e30=","signature":{"label":"","id":"","public_key":"","scheme":"ecdsa","value":""}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, _, err := hsm.VerifyAttestation(data, nil); err == nil {
			t.Error("it was accepted")
		}
	})
}

func TestCompliance(t *testing.T) {
	t.Parallel()
	software, hardware := hsm.TokenInfo{Label: "soft"}, hsm.TokenInfo{Label: "hard", Hardware: true}
	kept := hsm.Attributes{Label: "k", Local: true, NeverExtractable: true, AlwaysSensitive: true}
	for name, c := range map[string]struct {
		err  error
		says string
	}{
		"nothing required":    {hsm.Requirement{}.CheckToken(software, hsm.Declaration{}), ""},
		"hardware, software":  {hsm.Requirement{Hardware: true}.CheckToken(software, hsm.Declaration{}), "CKF_HW_SLOT"},
		"hardware, hardware":  {hsm.Requirement{Hardware: true}.CheckToken(hardware, hsm.Declaration{}), ""},
		"FIPS, undeclared":    {hsm.Requirement{FIPSLevel: 3}.CheckToken(hardware, hsm.Declaration{}), "no level with the number"},
		"FIPS, no number":     {hsm.Requirement{FIPSLevel: 3}.CheckToken(hardware, hsm.Declaration{FIPSLevel: 3}), "no level with the number"},
		"FIPS, a lower level": {hsm.Requirement{FIPSLevel: 3}.CheckToken(hardware, hsm.Declaration{FIPSLevel: 2, FIPSCertificate: "1"}), "level 2 is declared"},
		"FIPS, a higher one":  {hsm.Requirement{FIPSLevel: 2}.CheckToken(hardware, hsm.Declaration{FIPSLevel: 3, FIPSCertificate: "1"}), ""},
		"a kept key":          {hsm.Requirement{Local: true, NeverExtractable: true}.CheckKey(kept), ""},
		"an imported key":     {hsm.Requirement{Local: true}.CheckKey(hsm.Attributes{Label: "k"}), "CKA_LOCAL is false"},
		"an extractable key":  {hsm.Requirement{NeverExtractable: true}.CheckKey(hsm.Attributes{Label: "k", Local: true}), "CKA_NEVER_EXTRACTABLE is false"},
		"a silent token":      {hsm.Requirement{Local: true}.CheckKey(hsm.Attributes{Label: "k", Local: true, Missing: []string{"CKA_LOCAL"}}), "not told"},
	} {
		if (c.err == nil) != (c.says == "") || c.err != nil && (!errors.Is(c.err, hsm.ErrNotCompliant) || !strings.Contains(c.err.Error(), c.says)) {
			t.Errorf("%s: %v, want %q", name, c.err, c.says)
		}
	}
}

func TestStrongPINs(t *testing.T) {
	t.Parallel()
	module := hsmtest.New(t).Module
	for pin, says := range map[string]string{
		"1234567": "fewer than 8", "11111111": "one character", "12345678": "row", "hgfedcba": "row", "password1": "tried first", " spaced out": "space",
	} {
		c := initConfig(module, "weak")
		c.UserPIN = hsm.PINFromBytes([]byte(pin)).Strong()
		if _, err := hsm.InitToken(t.Context(), c); err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), pin) {
			t.Errorf("%q: %v, want %q", pin, err, says)
		}
	}
	c := initConfig(module, "same")
	c.SOPIN = c.UserPIN
	if _, err := hsm.InitToken(t.Context(), c); err == nil || !strings.Contains(err.Error(), "are the same") {
		t.Errorf("one PIN for both: %v", err)
	}
}

func TestChangePINAndUnlock(t *testing.T) {
	t.Parallel()
	fixture := hsmtest.New(t)
	pin, seen := func(p string) hsm.PIN { return hsm.PINFromBytes([]byte(p)) }, &recorder{}
	c := hsm.SetPINConfig{
		Module: fixture.Module, Token: hsm.Selector{Serial: fixture.Serial}, Old: pin(hsmtest.UserPIN), New: pin("a better one"), Observer: seen,
	}
	tries := func(p string) error {
		config := fixture.Config()
		config.PIN, config.RetryAfterFailedPIN = pin(p), true
		token, err := hsm.Open(t.Context(), config)
		if err != nil {
			return err
		}
		return token.Close()
	}
	same := c
	same.New = c.Old
	if err := hsm.ChangePIN(t.Context(), same); err == nil || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("the same PIN: %v", err)
	}
	open := fixture.Open(t)
	if err := hsm.ChangePIN(t.Context(), c); !errors.Is(err, hsm.ErrInUse) {
		t.Errorf("an open token: %v", err)
	}
	if err := open.Close(); err != nil {
		t.Fatal(err)
	}
	if err := hsm.ChangePIN(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if err := tries("a better one"); err != nil {
		t.Error(err)
	}
	if err := hsm.ChangePIN(t.Context(), c); !errors.Is(err, hsm.ErrWrongPIN) {
		t.Errorf("the old PIN: %v", err)
	}
	// It failed once, so the token says that its PIN is at risk: it is not tried again unasked.
	if err := hsm.ChangePIN(t.Context(), c); !errors.Is(err, hsm.ErrPINAtRisk) {
		t.Errorf("again: %v", err)
	}
	c.Old, c.New = pin(hsmtest.SOPIN), pin("the third one")
	if err := hsm.UnlockPIN(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if err := tries("the third one"); err != nil {
		t.Error(err)
	}
	c.Officer, c.New = true, pin("officer's new")
	if err := hsm.ChangePIN(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	c.Old = pin(hsmtest.SOPIN)
	if err := hsm.UnlockPIN(t.Context(), c); !errors.Is(err, hsm.ErrWrongPIN) {
		t.Errorf("the officer's old PIN: %v", err)
	}
	var changed []string
	for _, e := range seen.take() {
		if e.Op == hsm.OpPIN && e.Err == nil {
			changed = append(changed, e.Mechanism+" "+e.User)
		}
	}
	if want := []string{"C_SetPIN CKU_USER", "C_InitPIN CKU_USER", "C_SetPIN CKU_SO"}; !slices.Equal(changed, want) {
		t.Errorf("the records say %q, want %q", changed, want)
	}
}

func TestPINFromCommandAndCredential(t *testing.T) {
	t.Parallel()
	fixture, dir := hsmtest.New(t), t.TempDir()
	place(t, dir, "pin", []byte(hsmtest.UserPIN+"\n"))
	lookup := func(name string) string { return map[string]string{"CREDENTIALS_DIRECTORY": dir}[name] }
	nothing := func(string) string { return "" }
	for name, c := range map[string]struct {
		pin  hsm.PIN
		says string
	}{
		"a command":              {hsm.PINFromCommand([]string{"cat", filepath.Join(dir, "pin")}), ""},
		"a command that fails":   {hsm.PINFromCommand([]string{"sh", "-c", "echo " + hsmtest.UserPIN + " >&2; exit 3"}), "exit status 3"},
		"a command that talks":   {hsm.PINFromCommand([]string{"printf", "one\ntwo\n"}), "one line"},
		"a command that is mute": {hsm.PINFromCommand([]string{"true"}), "one line"},
		"a command with a child": {hsm.PINFromCommand([]string{"sh", "-c", "sleep 20 & echo " + hsmtest.UserPIN}), "holds its output open"},
		"no command":             {hsm.PINFromCommand(nil), "no command"},
		"a command of none":      {hsm.PINFromCommand([]string{filepath.Join(dir, "nothing")}), "no such file"},
		"a credential":           {hsm.PINFromCredential("pin", lookup), ""},
		"a missing credential":   {hsm.PINFromCredential("other", lookup), "no such file"},
		"a credential elsewhere": {hsm.PINFromCredential("../pin", lookup), "cannot be the name"},
		"no credentials":         {hsm.PINFromCredential("pin", nothing), "LoadCredential=pin:FILE"},
	} {
		config := fixture.Config()
		config.PIN = c.pin
		token, err := hsm.Open(t.Context(), config)
		if err == nil {
			err = token.Close()
		}
		if (err == nil) != (c.says == "") || err != nil && (!strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), hsmtest.UserPIN)) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	fixture := hsmtest.New(t)
	m, err := hsm.List(t.Context(), hsm.ListConfig{Module: fixture.Module, Mechanisms: true})
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, slot := range m.Slots {
		if slot.Token == nil || slot.Token.Serial != fixture.Serial {
			continue
		}
		found = true
		if slot.Token.Label != fixture.Label || !slices.Contains(slot.Token.Flags, "CKF_USER_PIN_INITIALIZED") || slot.Token.Sessions == "" ||
			!slices.ContainsFunc(slot.Token.Mechanisms, func(m hsm.Mechanism) bool { return m.Name == "CKM_EDDSA" && slices.Contains(m.Flags, "CKF_SIGN") }) {
			t.Errorf("%+v", slot.Token)
		}
	}
	if !found || m.Description == "" || m.Cryptoki == "" {
		t.Errorf("%+v", m)
	}
}

// TestLifeCycleOfAnyToken: a token is made and its PINs are set anew, or the vendor's profile says that this is for the vendor's own tools.
// Not parallel: a library shows a token that was made when it is initialised next.
func TestLifeCycleOfAnyToken(t *testing.T) {
	fixture := hsmtest.Subject(t)
	profile := hsm.Profile{}
	pin := func(p string) hsm.PIN { return hsm.PINFromBytes([]byte(p)) }
	opens := func(p string) error {
		c := fixture.Config()
		c.PIN = pin(p)
		token, err := hsm.Open(t.Context(), c)
		if err != nil {
			return err
		}
		profile = token.Info().Profile()
		return token.Close()
	}
	if err := opens(hsmtest.UserPIN); err != nil {
		t.Fatal(err)
	}
	// there tells whether the profile has what err is of, and holds the one against the other.
	there := func(c hsm.Capability, err error) bool {
		t.Helper()
		switch {
		case err != nil && profile.Has(c):
			t.Fatalf("the profile %s has %q, but: %v", profile.Name, c, err)
		case err == nil && !profile.Has(c):
			t.Fatalf("the profile %s lacks %q, but it works", profile.Name, c)
		case err != nil && !errors.Is(err, hsm.ErrNotSupported) && !errors.Is(err, hsm.ErrNoToken):
			t.Errorf("%q is lacking, but a caller cannot tell: %v", c, err)
		case err != nil:
			t.Logf("%q is lacking, as declared: %v", c, err)
		}
		return err == nil
	}
	set := func(old, fresh string, officer bool) hsm.SetPINConfig {
		return hsm.SetPINConfig{
			Module: fixture.Module, Token: fixture.Config().Token, Old: pin(old), New: pin(fresh), Officer: officer, RetryAfterFailedPIN: true,
		}
	}
	const another, third = "another-pin-of-a-test", "third-pin-of-a-test"
	if there(hsm.CanChangePIN, hsm.ChangePIN(t.Context(), set(hsmtest.UserPIN, another, false))) {
		if err := errors.Join(opens(another), hsm.ChangePIN(t.Context(), set(another, hsmtest.UserPIN, false))); err != nil {
			t.Fatalf("with the new PIN: %v", err)
		}
	}
	officers := hsmtest.SOPIN
	if there(hsm.CanChangeOfficersPIN, hsm.ChangePIN(t.Context(), set(officers, third, true))) {
		officers = third
	}
	if there(hsm.CanUnlockPIN, hsm.UnlockPIN(t.Context(), set(officers, another, false))) {
		if err := errors.Join(opens(another), hsm.UnlockPIN(t.Context(), set(officers, hsmtest.UserPIN, false))); err != nil {
			t.Fatalf("with the PIN that the officer has set: %v", err)
		}
	}
	if officers == third {
		if err := hsm.ChangePIN(t.Context(), set(third, hsmtest.SOPIN, true)); err != nil {
			t.Fatalf("with the officer's new PIN: %v", err)
		}
	}
	if err := opens(hsmtest.UserPIN); err != nil {
		t.Fatalf("when all is as it was: %v", err)
	}
	info, err := hsm.InitToken(t.Context(), initConfig(fixture.Module, "made"))
	if there(hsm.CanInitToken, err) {
		c := fixture.Config()
		c.Token, c.PIN = hsm.Selector{Label: info.Label}, pin(hsmtest.UserPIN)
		made, err := hsm.Open(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		ref, public := generate(t, made, hsm.ECDSAP256, "first")
		signAndVerify(t, made, ref, public)
		if err := made.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
