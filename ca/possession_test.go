package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"slices"
	"testing"
	"time"
)

// Each algorithm verifies the signatures of its kind of key, and of no other.
func TestPossessionIsOfTheKeyAlone(t *testing.T) {
	signed := []byte("header.payload")
	certificates, proofs := map[string][]byte{}, map[string]Possession{}
	keep := func(algorithm string, key crypto.Signer, signature []byte, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now()}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		certificates[algorithm], proofs[algorithm] = der, Possession{Algorithm: algorithm, Signed: signed, Signature: signature}
	}
	for algorithm, c := range map[string]struct {
		curve elliptic.Curve
		hash  crypto.Hash
	}{"ES256": {elliptic.P256(), crypto.SHA256}, "ES384": {elliptic.P384(), crypto.SHA384}, "ES512": {elliptic.P521(), crypto.SHA512}} {
		key, err := ecdsa.GenerateKey(c.curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		h := c.hash.New()
		h.Write(signed)
		r, s, err := ecdsa.Sign(rand.Reader, key, h.Sum(nil))
		size := (c.curve.Params().BitSize + 7) / 8
		keep(algorithm, key, append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...), err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	h := crypto.SHA256.New()
	h.Write(signed)
	digest := h.Sum(nil)
	pkcs1, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest)
	keep("RS256", key, pkcs1, err)
	if key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	pss, err := rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	keep("PS256", key, pss, err)
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	keep("EdDSA", edwards, ed25519.Sign(edwards, signed), err)

	for algorithm, p := range proofs {
		for other, der := range certificates {
			if got := p.by(der); got != (algorithm == other) {
				t.Errorf("%s by the key of %s: %v", algorithm, other, got)
			}
		}
		der := certificates[algorithm]
		for name, spoilt := range map[string]Possession{
			"other words":      {algorithm, []byte("header.other"), p.Signature},
			"changed":          {algorithm, signed, append(slices.Clone(p.Signature[:len(p.Signature)-1]), p.Signature[len(p.Signature)-1]^1)},
			"cut":              {algorithm, signed, p.Signature[:len(p.Signature)-1]},
			"empty":            {algorithm, signed, nil},
			"none":             {"none", signed, p.Signature},
			"HMAC by its key":  {"HS256", signed, p.Signature},
			"no name":          {"", signed, p.Signature},
			"in DER, not JOSE": {algorithm, signed, inDER(t, p.Signature)},
		} {
			if spoilt.by(der) {
				t.Errorf("%s, %s: it verifies", algorithm, name)
			}
		}
		if p.by(nil) || p.by(der[:len(der)-1]) {
			t.Errorf("%s: without a certificate it verifies", algorithm)
		}
	}
}

func inDER(t *testing.T, signature []byte) []byte {
	t.Helper()
	half := len(signature) / 2
	der, err := asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:])})
	if err != nil {
		t.Fatal(err)
	}
	return der
}
