package hsm_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
	"github.com/chancery-ca/chancery/hsm/internal/direct"
)

// TestEveryOperationLeavesAnEvent walks the methods of Token and of Signer and calls each. One that has no call here, or that tells the
// observer nothing, fails the test: no operation can be added and forgotten.
func TestEveryOperationLeavesAnEvent(t *testing.T) {
	t.Parallel()
	fixture, seen := hsmtest.New(t), &recorder{}
	c := fixture.Config()
	c.Observer, c.Actor = seen, "a test"
	tok, err := hsm.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if opened := seen.take(); len(opened) != 1 || opened[0].Op != hsm.OpOpen || opened[0].Result() != "ok" || opened[0].Token != fixture.Serial {
		t.Errorf("opening left %+v", opened)
	}
	ctx := hsm.WithActor(t.Context(), "somebody")
	key, _ := generated(t, tok, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "key"})
	aes, _ := generated(t, tok, hsm.KeySpec{Algorithm: hsm.AES256, Label: "aes", Usages: []hsm.Usage{hsm.UseEncrypt, hsm.UseWrap}})
	mac, _ := generated(t, tok, hsm.KeySpec{Algorithm: hsm.HMACSHA256, Label: "mac"})
	loose, _ := generated(t, tok, hsm.KeySpec{Algorithm: hsm.HMACSHA256, Label: "loose", Extractable: true, Modifiable: true})
	message := func() *strings.Reader { return strings.NewReader("what is worked on") }
	digest := sha256.Sum256([]byte("what is worked on"))
	signer, err := tok.Signer(key, nil)
	if err != nil {
		t.Fatal(err)
	}
	certificate := selfSigned(t, signer)
	var signature, code, ciphertext, wrapped []byte
	var file bytes.Buffer

	calls := map[string]func() error{
		"Attest":       func() error { return second(tok.Attest(ctx, key, hsm.KeyRef{}, hsm.Declaration{})) },
		"Attributes":   func() error { return second(tok.Attributes(key)) },
		"Certificates": func() error { return second(tok.Certificates(ctx, hsm.KeyRef{})) },
		"Decrypt":      func() error { return second(tok.Decrypt(ctx, aes, hsm.Cipher{}, ciphertext)) },
		"DecryptFile": func() error {
			return tok.DecryptFile(ctx, aes, &bytes.Buffer{}, bytes.NewReader(file.Bytes()))
		},
		"DeleteCertificate": func() error { return tok.DeleteCertificate(ctx, hsm.KeyRef{Label: "key"}, certificate) },
		"Destroy":           func() error { return tok.Destroy(ctx, hsm.KeyRef{Label: "renamed"}) },
		"Describe":          func() error { return second(tok.Describe(ctx)) },
		"Direct": func() error {
			return tok.Direct(ctx, direct.Pass{}, "a test", func(*pkcs11.Ctx, uint) error { return nil })
		},
		"Digest": func() error { return second(tok.Digest(ctx, crypto.SHA256, message())) },
		"Encrypt": func() (err error) {
			ciphertext, err = tok.Encrypt(ctx, aes, hsm.Cipher{}, []byte("what is worked on"))
			return err
		},
		"EncryptFile": func() error { return tok.EncryptFile(ctx, aes, hsm.Cipher{}, &file, message()) },
		"Free":        func() error { return tok.Free(ctx, hsm.KeyRef{Label: "nobody's"}) },
		"Generate": func() error {
			_, _, err := tok.Generate(hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "another"})
			return err
		},
		"GenerateKey": func() error {
			_, _, err := tok.GenerateKey(ctx, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "a third"})
			return err
		},
		"ImportCertificate": func() error { return second(tok.ImportCertificate(ctx, certificate, hsm.KeyRef{})) },
		"Keys":              func() error { return second(tok.Keys()) },
		"MAC": func() (err error) {
			code, err = tok.MAC(ctx, mac, crypto.SHA256, message())
			return err
		},
		"Mechanisms": func() error { return second(tok.Mechanisms(ctx)) },
		"Objects":    func() error { return second(tok.Objects(ctx, hsm.KeyRef{})) },
		"PublicKey":  func() error { return second(tok.PublicKey(key)) },
		"Random":     func() error { return second(tok.Random(8)) },
		"Read":       func() error { return second(tok.Read(make([]byte, 8))) },
		"SetLabel":   func() error { return tok.SetLabel(ctx, loose, "renamed") },
		"Sign": func() (err error) {
			signature, err = tok.Sign(ctx, key, hsm.SignOptions{}, message())
			return err
		},
		"SignDigest": func() error { return second(tok.SignDigest(ctx, key, hsm.SignOptions{}, digest[:])) },
		"Signer":     func() error { return second(tok.Signer(key, nil)) },
		"Unwrap": func() error {
			return second(tok.Unwrap(ctx, hsm.UnwrapSpec{Under: aes, Key: hsm.KeySpec{Algorithm: hsm.HMACSHA256, Label: "back"}}, wrapped))
		},
		"Verify":       func() error { return tok.Verify(ctx, key, hsm.SignOptions{}, message(), signature) },
		"VerifyDigest": func() error { return tok.VerifyDigest(ctx, key, hsm.SignOptions{}, digest[:], signature) },
		"VerifyMAC":    func() error { return tok.VerifyMAC(ctx, mac, crypto.SHA256, message(), code) },
		"Wrap": func() (err error) {
			wrapped, err = tok.Wrap(ctx, hsm.WrapSpec{Key: loose, Under: aes})
			return err
		},
		"Signer.Sign":        func() error { return second(signer.Sign(nil, digest[:], crypto.SHA256)) },
		"Signer.SignMessage": func() error { return second(signer.SignMessage(nil, []byte("what is worked on"), crypto.SHA384)) },
		"Close":              tok.Close,
	}
	// These reach no token: what they tell was read before, or is the usage policy's to say.
	silent := []string{"MaySign", "Info", "Signer.Public"}
	// What one needs, another makes.
	order := []string{"Encrypt", "EncryptFile", "Sign", "MAC", "Wrap", "Unwrap", "SetLabel", "ImportCertificate"}
	withoutContext := []string{"Attributes", "Generate", "Keys", "PublicKey", "Random", "Read", "Signer", "Signer.Sign", "Signer.SignMessage", "Close"}

	var methods []string
	for typ, prefix := range map[reflect.Type]string{reflect.TypeFor[*hsm.Token](): "", reflect.TypeFor[hsm.Signer](): "Signer."} {
		for i := range typ.NumMethod() {
			name := prefix + typ.Method(i).Name
			if !slices.Contains(silent, name) && !slices.Contains(order, name) && name != "Close" {
				methods = append(methods, name)
			}
		}
	}
	slices.Sort(methods)
	seen.take()
	for _, name := range slices.Concat(order, methods, []string{"Close"}) {
		call, known := calls[name]
		if !known {
			if !slices.Contains(onlyInTests, name) {
				t.Errorf("%s is exported and not called here: call it, or say why it needs no event", name)
			}
			continue
		}
		delete(calls, name)
		if err := call(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		events := seen.take()
		if len(events) == 0 {
			t.Errorf("%s left no event", name)
		}
		for _, e := range events {
			actor := "somebody"
			if e.Op == hsm.OpRandom || slices.Contains(withoutContext, name) || e.Op == hsm.OpList && name == "Attest" {
				actor = "a test"
			}
			if e.Op == "" || e.Token != fixture.Serial || e.Result() != "ok" || e.Began.IsZero() || e.Duration < 0 || e.Actor != actor {
				t.Errorf("%s left %+v", name, e)
			}
		}
	}
	for name := range calls {
		t.Errorf("there is no method %s any more", name)
	}
}

// onlyInTests are the methods that export_test.go adds.
var onlyInTests = []string{"GenerateConservatively", "GenerateMisled", "RawSigner"}

// TestEveryFunctionThatReachesAModuleLeavesAnEvent reads the package's own text: an exported function that takes a context works on a
// module, and is called here.
func TestEveryFunctionThatReachesAModuleLeavesAnEvent(t *testing.T) {
	fixture, seen := hsmtest.New(t), &recorder{}
	pin := func(p string) hsm.PIN { return hsm.PINFromBytes([]byte(p)) }
	set := hsm.SetPINConfig{Module: fixture.Module, Token: hsm.Selector{Serial: fixture.Serial}, Observer: seen, Old: pin(hsmtest.UserPIN), New: pin("another good one")}
	unlock := set
	unlock.Old, unlock.New = pin(hsmtest.SOPIN), pin(hsmtest.UserPIN)
	calls := map[string]func() error{
		"ChangePIN": func() error { return hsm.ChangePIN(t.Context(), set) },
		"InitToken": func() error {
			c := initConfig(fixture.Module, "events")
			c.Observer = seen
			return second(hsm.InitToken(t.Context(), c))
		},
		"List": func() error {
			return second(hsm.List(t.Context(), hsm.ListConfig{Module: fixture.Module, Observer: seen}))
		},
		"Open": func() error {
			c := fixture.Config()
			c.Observer, c.PIN = seen, set.New // in alphabetical order, it has been changed
			tok, err := hsm.Open(t.Context(), c)
			if err != nil {
				return err
			}
			return tok.Close()
		},
		"OpenRecovering": func() error {
			c := fixture.Config()
			c.Observer, c.PIN = seen, set.New
			tok, err := hsm.OpenRecovering(t.Context(), c, slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			return tok.Close()
		},
		"UnlockPIN": func() error { return hsm.UnlockPIN(t.Context(), unlock) },
	}
	var found []string
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv != nil || !f.Name.IsExported() || len(f.Type.Params.List) == 0 || f.Name.Name == "WithActor" {
				continue
			}
			if first, ok := f.Type.Params.List[0].Type.(*ast.SelectorExpr); ok && first.Sel.Name == "Context" {
				found = append(found, f.Name.Name)
			}
		}
	}
	slices.Sort(found)
	if len(found) == 0 {
		t.Fatal("no function was found")
	}
	for _, name := range found {
		call, known := calls[name]
		if !known {
			t.Errorf("%s is exported and not called here", name)
			continue
		}
		if err := call(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(seen.take()) == 0 {
			t.Errorf("%s left no event", name)
		}
	}
}

// A token that recovers hands its operations to the token that is open at the time, whose events they are.
func TestARecoveringTokenLeavesEvents(t *testing.T) {
	fixture, seen := hsmtest.New(t), &recorder{}
	c := fixture.Config()
	maker, err := hsm.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	key, _ := generated(t, maker, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "key"})
	if err := maker.Close(); err != nil {
		t.Fatal(err)
	}
	c.Observer = seen
	tok, err := hsm.OpenRecovering(t.Context(), c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer tok.Close()
	signer, err := tok.Signer(key, nil, hsm.Terms{})
	if err != nil {
		t.Fatal(err)
	}
	seen.take()
	for name, call := range map[string]func() error{
		"Signer":             func() error { return second(tok.Signer(key, nil, hsm.Terms{})) },
		"Attributes":         func() error { return second(tok.Attributes(key)) },
		"Signer.Sign":        func() error { return second(signer.Sign(nil, make([]byte, 32), crypto.SHA256)) },
		"Signer.SignMessage": func() error { return second(signer.SignMessage(nil, []byte("m"), crypto.SHA256)) },
	} {
		if err := call(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(seen.take()) == 0 {
			t.Errorf("%s left no event", name)
		}
	}
}

func TestEventsTellOfFailures(t *testing.T) {
	t.Parallel()
	fixture, seen := hsmtest.New(t), &recorder{}
	c := fixture.Config()
	c.Observer, c.PIN = seen, hsm.PINFromBytes([]byte("wrong"))
	if _, err := hsm.Open(t.Context(), c); !errors.Is(err, hsm.ErrWrongPIN) {
		t.Fatal(err)
	}
	if events := seen.take(); len(events) != 1 || events[0].Result() != "CKR_PIN_INCORRECT" || events[0].Op != hsm.OpOpen {
		t.Errorf("a wrong PIN left %+v", events)
	}
	c = fixture.Config()
	c.Observer, c.RetryAfterFailedPIN = seen, true
	tok, err := hsm.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer tok.Close()
	key, _ := generated(t, tok, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "key"})
	seen.take()
	if _, err := tok.Encrypt(t.Context(), key, hsm.Cipher{}, []byte("m")); err == nil {
		t.Error("an EC key encrypted")
	}
	if events := seen.take(); events[len(events)-1].Op != hsm.OpEncrypt || events[len(events)-1].Result() != "failed" {
		t.Errorf("it left %+v", events)
	}
	// What cannot be recorded does not come out.
	seen.fail = errors.New("the journal is full")
	if signature, err := tok.Sign(t.Context(), key, hsm.SignOptions{}, strings.NewReader("m")); err == nil || signature != nil || !strings.Contains(err.Error(), "the journal is full") {
		t.Errorf("%x, %v", signature, err)
	}
	seen.fail = nil
}

// forgetful cannot record one kind of operation.
type forgetful struct{ op hsm.Op }

func (f forgetful) Observe(_ context.Context, o hsm.Operation) error {
	if o.Op == f.op {
		return errors.New("the journal is full")
	}
	return nil
}

// A key whose making could not be recorded does not stay, and one that was there before does.
func TestNoKeyStaysUnrecorded(t *testing.T) {
	t.Parallel()
	fixture := hsmtest.New(t)
	maker := fixture.Open(t)
	kek, _ := generated(t, maker, hsm.KeySpec{Algorithm: hsm.AES256, Label: "kek", Usages: []hsm.Usage{hsm.UseWrap}})
	key, public := generated(t, maker, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "key", Extractable: true})
	wrapped, err := maker.Wrap(t.Context(), hsm.WrapSpec{Key: key, Under: kek})
	if err != nil {
		t.Fatal(err)
	}
	if err := maker.Close(); err != nil {
		t.Fatal(err)
	}
	generate := func(token *hsm.Token, spec hsm.KeySpec) error {
		_, _, err := token.GenerateKey(t.Context(), spec)
		return err
	}
	unwrap := func(token *hsm.Token, spec hsm.KeySpec) error {
		return second(token.Unwrap(t.Context(), hsm.UnwrapSpec{Under: kek, Key: spec, Public: public}, wrapped))
	}
	for _, one := range []struct {
		op             hsm.Op
		makes          func(*hsm.Token, hsm.KeySpec) error
		indestructible bool
	}{{hsm.OpGenerate, generate, false}, {hsm.OpUnwrap, unwrap, false}, {hsm.OpGenerate, generate, true}, {hsm.OpUnwrap, unwrap, true}} {
		op := one.op
		makes := func(token *hsm.Token, label string) error {
			return one.makes(token, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: label, Indestructible: one.indestructible})
		}
		c := fixture.Config()
		c.Observer = forgetful{op}
		token, err := hsm.Open(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if err := makes(token, "new"); err == nil || !strings.Contains(err.Error(), "the journal is full") {
			t.Errorf("%s: %v", op, err)
		}
		if left, err := token.Objects(t.Context(), hsm.KeyRef{Label: "new"}); err != nil || len(left) != 0 {
			t.Errorf("%s left %v, %v", op, left, err)
		}
		if err := makes(token, "key"); !errors.Is(err, hsm.ErrKeyExists) {
			t.Errorf("%s, with a label that is taken: %v", op, err)
		}
		if there, err := token.Objects(t.Context(), key); err != nil || len(there) != 2 {
			t.Errorf("%s: of the key that was there are left %v, %v", op, there, err)
		}
		if err := token.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEventsDoNotTellWhatWasEncrypted encrypts what can be guessed. Its digest would tell it to whoever reads the record; that of the ciphertext
// tells as well which encryption it was, and which decryption belongs to it.
func TestEventsDoNotTellWhatWasEncrypted(t *testing.T) {
	t.Parallel()
	seen := &recorder{}
	c := hsmtest.New(t).Config()
	c.Observer = seen
	tok, err := hsm.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer tok.Close()
	key, _ := generated(t, tok, hsm.KeySpec{Algorithm: hsm.AES256, Label: "key", Usages: []hsm.Usage{hsm.UseEncrypt}})
	pair, _ := generated(t, tok, hsm.KeySpec{Algorithm: hsm.RSA2048, Label: "pair", Usages: []hsm.Usage{hsm.UseEncrypt}})
	pin := []byte("4711")
	guess := sha256.Sum256(pin)
	for _, ref := range []hsm.KeyRef{key, pair} {
		seen.take()
		cipher := hsm.Cipher{Hash: crypto.SHA1} // as SoftHSM needs
		ciphertext, err := tok.Encrypt(t.Context(), ref, cipher, pin)
		if err != nil {
			t.Fatal(err)
		}
		if plaintext, err := tok.Decrypt(t.Context(), ref, cipher, ciphertext); err != nil || !bytes.Equal(plaintext, pin) {
			t.Fatalf("%x, %v", plaintext, err)
		}
		want := sha256.Sum256(ciphertext)
		for _, e := range seen.take() {
			if bytes.Equal(e.Input, guess[:]) {
				t.Errorf("%s with %s tells the plaintext's digest", e.Op, ref)
			}
			if (e.Op == hsm.OpEncrypt || e.Op == hsm.OpDecrypt) && (!bytes.Equal(e.Input, want[:]) || e.InputHash != crypto.SHA256) {
				t.Errorf("%s with %s has the digest %x, not the ciphertext's", e.Op, ref, e.Input)
			}
		}
	}
	// What did not become a ciphertext leaves no digest either.
	if _, err := tok.Encrypt(t.Context(), key, hsm.Cipher{Mode: hsm.RSAOAEP}, pin); err == nil {
		t.Error("an AES key encrypted with RSA-OAEP")
	}
	for _, e := range seen.take() {
		if len(e.Input) > 0 {
			t.Errorf("a failed %s has the digest %x", e.Op, e.Input)
		}
	}
}

// TestEventsTellWhatBecameOfAKey reads, as an auditor does, for whom a key left the token, and that a key beside which a certificate was
// removed is still there.
func TestEventsTellWhatBecameOfAKey(t *testing.T) {
	t.Parallel()
	seen := &recorder{}
	c := hsmtest.New(t).Config()
	c.Observer = seen
	soft, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := hsm.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer tok.Close()
	key, _ := generated(t, tok, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "key", Extractable: true})
	pair, public := generated(t, tok, hsm.KeySpec{Algorithm: hsm.RSA2048, Label: "recipient", Usages: []hsm.Usage{hsm.UseWrap}})
	certificate := selfSigned(t, soft)
	if _, err := tok.ImportCertificate(t.Context(), certificate, hsm.KeyRef{Label: "key", ID: []byte{1}}); err != nil {
		t.Fatal(err)
	}
	seen.take()

	if err := tok.DeleteCertificate(t.Context(), hsm.KeyRef{Label: "key", ID: []byte{1}}, certificate); err != nil {
		t.Fatal(err)
	}
	if events := seen.take(); len(events) != 1 || events[0].Op != hsm.OpRemove || events[0].Key.Label != "key" {
		t.Errorf("removing a certificate left %+v", events)
	}

	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(spki)
	for _, spec := range []hsm.WrapSpec{{Key: key, Recipient: public.(*rsa.PublicKey), Hash: crypto.SHA1}, {Key: key, Under: pair, Hash: crypto.SHA1}} {
		if _, err := tok.Wrap(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		events := seen.take()
		if len(events) != 1 || events[0].Op != hsm.OpWrap || events[0].Target.Label != "key" {
			t.Fatalf("wrapping left %+v", events)
		}
		if e := events[0]; spec.Recipient != nil && (!bytes.Equal(e.Input, digest[:]) || e.InputHash != crypto.SHA256) || e.Key.Label != spec.Under.Label {
			t.Errorf("nothing tells for whom the key was wrapped: %+v", e)
		}
	}
}
