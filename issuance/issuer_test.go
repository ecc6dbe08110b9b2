package issuance

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"
)

// standardAuthority is a self-signed certificate by crypto/x509, which checks less than we do.
func standardAuthority(t *testing.T, key crypto.Signer, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Authority"}, NotBefore: now, NotAfter: now.Add(time.Hour),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte{1, 2, 3},
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, der)
}

func TestNewIssuerRefuses(t *testing.T) {
	key := p256(t)
	none := func(*x509.Certificate) {}
	if _, err := NewIssuer(standardAuthority(t, key, none), key); err != nil {
		t.Fatal(err)
	}
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p521 := ecdsaKey(t, elliptic.P521())
	for name, c := range map[string]struct {
		key    crypto.Signer
		change func(*x509.Certificate)
	}{
		"no authority":   {key, func(c *x509.Certificate) { c.IsCA = false; c.KeyUsage = 0 }},
		"no constraints": {key, func(c *x509.Certificate) { c.BasicConstraintsValid = false; c.IsCA = false }},
		"no keyCertSign": {key, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }},
		"no cRLSign":     {key, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign }},
		"no subject":     {key, func(c *x509.Certificate) { c.Subject = pkix.Name{} }},
		"P-521":          {p521, none},
		"RSA-1024":       {short, none},
	} {
		if _, err := NewIssuer(standardAuthority(t, c.key, c.change), c.key); err == nil {
			t.Errorf("%s: the issuer was opened", name)
		}
	}
	sound := standardAuthority(t, key, none)
	if _, err := NewIssuer(sound, p256(t)); err == nil {
		t.Error("an issuer was opened with another key")
	}
	if _, err := NewIssuer(sound, rsaKey()); err == nil {
		t.Error("an issuer was opened with a key of another type")
	}
	if _, err := NewIssuer(nil, key); err == nil {
		t.Error("an issuer was opened without a certificate")
	}
	if _, err := NewIssuer(sound, nil); err == nil {
		t.Error("an issuer was opened without a key")
	}
	if _, err := NewIssuer(&x509.Certificate{}, key); err == nil {
		t.Error("an issuer was opened with an empty certificate")
	}
	for name, change := range map[string]func(*x509.Certificate){
		"no key identifier": func(c *x509.Certificate) { c.SubjectKeyId = nil },
		"SHA-1":             func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA1 },
		"MD5":               func(c *x509.Certificate) { c.SignatureAlgorithm = x509.MD5WithRSA },
		"no algorithm":      func(c *x509.Certificate) { c.SignatureAlgorithm = x509.UnknownSignatureAlgorithm },
	} {
		altered := *sound // crypto/x509 does not make such certificates
		change(&altered)
		if _, err := NewIssuer(&altered, key); err == nil {
			t.Errorf("%s: the issuer was opened", name)
		}
	}
}
