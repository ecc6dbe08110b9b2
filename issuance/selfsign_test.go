package issuance

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/chancery-ca/chancery/policies"
)

func TestSelfSign(t *testing.T) {
	key := p256(t)
	serial := newSerial(t)
	var intent []byte
	certificate, err := selfSign(t.Context(), rootTemplate(t, key.Public()), linterOf(t, rootLint), key, serial, now,
		RecorderFunc(func(_ context.Context, s Signing) error { intent = bytes.Clone(s.TBS); return nil }))
	if err != nil {
		t.Fatal(err)
	}
	root := parse(t, certificate.DER)
	if err := root.CheckSignatureFrom(root); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(intent, root.RawTBSCertificate) || sha256.Sum256(intent) != [32]byte(certificate.Signature.Digest) ||
		certificate.Serial != serial {
		t.Error("what was recorded is not what was signed")
	}
	if !bytes.Equal(root.RawSubject, root.RawIssuer) || !bytes.Equal(root.SubjectKeyId, root.AuthorityKeyId) || len(root.SubjectKeyId) != 20 {
		t.Errorf("subject and issuer differ: %v %v %x %x", root.Subject, root.Issuer, root.SubjectKeyId, root.AuthorityKeyId)
	}
}

// TestSelfSignRefuses refuses before anything is recorded.
func TestSelfSignRefuses(t *testing.T) {
	key := p256(t)
	linter := linterOf(t, rootLint)
	never := RecorderFunc(func(context.Context, Signing) error { t.Error("an intent was recorded"); return nil })
	for name, c := range map[string]struct {
		key    crypto.Signer
		change func(*policies.Template)
	}{
		"another key":  {p256(t), func(*policies.Template) {}},
		"no authority": {key, func(tpl *policies.Template) { tpl.CA, tpl.KeyUsage = false, 0 }},
		"no end":       {key, func(tpl *policies.Template) { tpl.NotAfter = tpl.NotBefore }},
		"a bad key":    {key, func(tpl *policies.Template) { tpl.SPKI = []byte{0x30, 0} }},
		"a bad name":   {key, func(tpl *policies.Template) { tpl.Subject = commonName("\xff") }},
		"a lint":       {key, func(tpl *policies.Template) { tpl.Subject = commonName("No organisation") }},
	} {
		tpl := rootTemplate(t, key.Public())
		c.change(&tpl)
		if _, err := selfSign(t.Context(), tpl, linter, c.key, newSerial(t), now, never); err == nil || errors.Is(err, ErrPossiblySigned) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSelfSignWithFaultyKey(t *testing.T) {
	key := p256(t)
	linter := linterOf(t, rootLint)
	calls := new(atomic.Int32)
	faulty := faultyKey{key, calls, func([]byte) ([]byte, error) { return soundly(p256(t), make([]byte, 32)) }}
	_, err := selfSign(t.Context(), rootTemplate(t, key.Public()), linter, faulty, newSerial(t), now, nothing)
	if !errors.Is(err, ErrPossiblySigned) {
		t.Errorf("a wrong signature: %v", err)
	}
	refused := errors.New("the transcript cannot be written")
	_, err = selfSign(t.Context(), rootTemplate(t, key.Public()), linter, faulty, newSerial(t), now,
		RecorderFunc(func(context.Context, Signing) error { return refused }))
	if !errors.Is(err, refused) || errors.Is(err, ErrPossiblySigned) || calls.Load() != 1 {
		t.Errorf("without a record: %v, the key was asked %d times", err, calls.Load())
	}
}

// TestThrowawayKeys makes throw-away keys of the kinds of issuers' keys, and no others.
func TestThrowawayKeys(t *testing.T) {
	for _, public := range []crypto.PublicKey{p256(t).Public(), rsaKey().Public()} {
		key, err := sameKind(public)
		if err != nil {
			t.Fatal(err)
		}
		if samePublicKey(key.Public(), public) {
			t.Error("the throw-away key is the key itself")
		}
	}
	if key, err := sameKind(ed25519Key(t)); err == nil {
		t.Errorf("a throw-away %T was made", key)
	}
	key, err := sameKind(p256(t).Public())
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := key.(*ecdsa.PrivateKey); !ok {
		t.Errorf("the throw-away key is a %T", key)
	}
}
