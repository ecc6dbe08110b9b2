package issuance

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	"pgregory.net/rapid"

	"github.com/chancery-ca/chancery/policies"
)

// sctList is a SignedCertificateTimestampList of timestamps that say nothing.
func sctList(t fataler, scts ...[]byte) []byte {
	t.Helper()
	var b cryptobyte.Builder
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
		for _, sct := range scts {
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(sct) })
		}
	})
	list, err := b.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// someSCT has the form of a timestamp, which the parsers of lints look at.
func someSCT() []byte {
	sct := append([]byte{0}, bytes.Repeat([]byte{7}, 32)...)  // version, log
	sct = append(sct, 0, 0, 1, 0x93, 0, 0, 0, 0, 0, 0)        // time, no extensions
	return append(sct, 4, 3, 0, 8, 0x30, 6, 2, 1, 1, 2, 1, 1) // ECDSA with SHA-256, a signature
}

func precertify(t *testing.T, i *Issuer, tpl policies.Template, l policies.Lint) (*Prepared, *Certificate) {
	t.Helper()
	prepared, err := i.prepareKind(Precertificate, tpl, linterOf(t, l), newSerial(t), now)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := i.Sign(t.Context(), prepared, RecorderFunc(func(_ context.Context, s Signing) error {
		if s.Kind != Precertificate {
			t.Errorf("what is recorded is of the kind %q", s.Kind)
		}
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	return prepared, signed
}

func TestPrecertificateAndFinal(t *testing.T) {
	for name, h := range map[string]hierarchy{"ECDSA": ecdsaHierarchy(t), "RSA": newHierarchy(t, p256(t), rsaKey())} {
		prepared, signed := precertify(t, h.issuing, leafTemplate(t, p256(t).Public()), publicLint)
		if prepared.Kind() != Precertificate || signed.Kind != Precertificate {
			t.Errorf("%s: the kinds are %q and %q", name, prepared.Kind(), signed.Kind)
		}
		pre := parse(t, signed.DER)
		poison := extensionOf(pre.Extensions, oidPoison)
		if poison == nil || !poison.critical || !bytes.Equal(poison.value, []byte{5, 0}) {
			t.Errorf("%s: the poison is %+v", name, poison)
		}
		list := sctList(t, someSCT(), someSCT())
		final, err := h.issuing.PrepareFinal(prepared, signed, list)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		certificate, err := h.issuing.Sign(t.Context(), final, RecorderFunc(func(_ context.Context, s Signing) error {
			if s.Kind != Final || s.Serial != signed.Serial {
				t.Errorf("%s: %q of %s is recorded", name, s.Kind, s.Serial)
			}
			return nil
		}))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		whole := parse(t, certificate.DER)
		if err := whole.CheckSignatureFrom(h.issuing.Certificate()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		scts := extensionOf(whole.Extensions, oidSCTList)
		var octets []byte
		if scts == nil || scts.critical {
			t.Fatalf("%s: the timestamps are %+v", name, scts)
		}
		if _, err := asn1.Unmarshal(scts.value, &octets); err != nil || !bytes.Equal(octets, list) {
			t.Errorf("%s: the timestamps are %x, %v", name, octets, err)
		}
		if extensionOf(whole.Extensions, oidPoison) != nil {
			t.Errorf("%s: the certificate is poisoned", name)
		}
	}
}

type readExtension struct {
	critical bool
	value    []byte
}

func extensionOf(extensions []pkix.Extension, oid asn1.ObjectIdentifier) *readExtension {
	for _, e := range extensions {
		if e.Id.Equal(oid) {
			return &readExtension{e.Critical, e.Value}
		}
	}
	return nil
}

func TestOneFinalForOnePrecertificate(t *testing.T) {
	h := ecdsaHierarchy(t)
	list := sctList(t, someSCT())
	prepared, signed := precertify(t, h.issuing, leafTemplate(t, p256(t).Public()), publicLint)
	if _, err := h.issuing.PrepareFinal(prepared, signed, list); err != nil {
		t.Fatal(err)
	}
	if _, err := h.issuing.PrepareFinal(prepared, signed, list); !errors.Is(err, ErrFinalised) {
		t.Errorf("a second final certificate: %v", err)
	}
	prepared, signed = precertify(t, h.issuing, leafTemplate(t, p256(t).Public()), publicLint)
	if _, err := h.issuing.PrepareFinal(prepared, signed, nil); err == nil {
		t.Error("a final certificate without timestamps was prepared")
	}
	if _, err := h.issuing.PrepareFinal(prepared, signed, list); !errors.Is(err, ErrFinalised) {
		t.Errorf("a second attempt after a first that failed: %v", err)
	}
}

func TestFinalOfSomethingElse(t *testing.T) {
	h := ecdsaHierarchy(t)
	list := sctList(t, someSCT())
	prepared, signed := precertify(t, h.issuing, leafTemplate(t, p256(t).Public()), publicLint)
	_, other := precertify(t, h.issuing, leafTemplate(t, p256(t).Public()), publicLint)
	plain := issue(t, h.issuing, leafTemplate(t, p256(t).Public()), publicLint)
	unmarked, err := h.issuing.prepare(leafTemplate(t, p256(t).Public()), linterOf(t, publicLint), newSerial(t), now)
	if err != nil {
		t.Fatal(err)
	}
	relabelled := *signed
	relabelled.Kind = Final
	for name, c := range map[string]struct {
		issuer   *Issuer
		prepared *Prepared
		signed   *Certificate
	}{
		"nothing prepared":         {h.issuing, nil, signed},
		"nothing signed":           {h.issuing, prepared, nil},
		"another issuer":           {h.root, prepared, signed},
		"another's precertificate": {h.issuing, prepared, other},
		"a certificate":            {h.issuing, prepared, plain},
		"a relabelled one":         {h.issuing, prepared, &relabelled},
		"of what is no such thing": {h.issuing, unmarked, signed},
	} {
		if _, err := c.issuer.PrepareFinal(c.prepared, c.signed, list); err == nil || errors.Is(err, ErrFinalised) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, list := range map[string][]byte{
		"empty": {0, 0}, "cut": {0, 5, 0, 3, 1}, "an empty timestamp": {0, 2, 0, 0}, "something behind": append(bytes.Clone(list), 0),
	} {
		prepared, signed := precertify(t, h.issuing, leafTemplate(t, p256(t).Public()), publicLint)
		if _, err := h.issuing.PrepareFinal(prepared, signed, list); err == nil {
			t.Errorf("a list of timestamps that is %s was written", name)
		}
	}
}

// TestCorrespondence changes single octets of a certificate: no change goes by unseen, be it of a byte that could still be parsed.
func TestCorrespondence(t *testing.T) {
	h := ecdsaHierarchy(t)
	prepared, signed := precertify(t, h.issuing, leafTemplate(t, p256(t).Public()), publicLint)
	list := sctList(t, someSCT())
	final, err := h.issuing.PrepareFinal(prepared, signed, list)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkCorrespondence(prepared.tbs, final.tbs); err != nil {
		t.Fatal(err)
	}
	inList := bytes.Index(final.tbs, list)
	rapid.Check(t, func(rt *rapid.T) {
		at := rapid.IntRange(0, len(final.tbs)-1).Draw(rt, "at")
		flip := rapid.Uint8Range(1, 255).Draw(rt, "flip")
		changed := bytes.Clone(final.tbs)
		changed[at] ^= flip
		same := checkCorrespondence(prepared.tbs, changed) == nil
		if inside := at >= inList-4 && at < inList+len(list); same && !inside {
			rt.Fatalf("octet %d of %d was changed unseen", at, len(final.tbs))
		}
	})
	if checkCorrespondence(prepared.tbs, prepared.tbs) == nil || checkCorrespondence(final.tbs, final.tbs) == nil {
		t.Error("something without poison or without timestamps corresponds to itself")
	}
}

func TestPrecertificateKeyFails(t *testing.T) {
	h := ecdsaHierarchy(t)
	issuer := withSigner(h.issuing, faultyKey{h.issuingKey.(*ecdsa.PrivateKey), new(atomic.Int32), func([]byte) ([]byte, error) { return nil, errors.New("gone") }})
	prepared, err := issuer.prepareKind(Precertificate, leafTemplate(t, p256(t).Public()), linterOf(t, publicLint), newSerial(t), now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := issuer.Sign(t.Context(), prepared, nothing); !errors.Is(err, ErrPossiblySigned) {
		t.Errorf("the error is %v", err)
	}
	if _, err := issuer.PrepareFinal(prepared, nil, sctList(t, someSCT())); err == nil {
		t.Error("a final certificate was prepared for a precertificate that nobody has")
	}
}

// FuzzWithoutExtension holds that what is read is a part of what was there, and that nothing else panics.
func FuzzWithoutExtension(f *testing.F) {
	h := ecdsaHierarchy(f)
	prepared, err := h.issuing.prepareKind(Precertificate, leafTemplate(f, p256(f).Public()), linterOf(f, publicLint), newSerial(f), now)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(prepared.tbs)
	f.Add([]byte{0x30, 0})
	f.Fuzz(func(t *testing.T, tbs []byte) {
		rest, err := withoutExtension(tbs, oidPoison)
		if err != nil {
			return
		}
		if len(rest) >= len(tbs) {
			t.Fatalf("%d octets without the extension, %d with it", len(rest), len(tbs))
		}
		if _, err := withoutExtension(rest, oidPoison); err == nil {
			t.Fatal("the extension is still there")
		}
	})
}
