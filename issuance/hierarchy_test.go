package issuance

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/x509"
	"slices"
	"testing"
)

// TestChain makes a root, an issuing authority and a server's certificate, each kind of key above each other, and has them verified as
// a chain.
func TestChain(t *testing.T) {
	for _, c := range []struct {
		name          string
		root, issuing crypto.Signer
		want          string
	}{
		{"P-256 under P-384", ecdsaKey(t, elliptic.P384()), p256(t), "ECDSA-SHA256"},
		{"P-384 under RSA", rsaKey(), ecdsaKey(t, elliptic.P384()), "ECDSA-SHA384"},
		{"RSA under P-256", p256(t), rsaKey(), "RSA-SHA256"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHierarchy(t, c.root, c.issuing)
			leaf := issue(t, h.issuing, leafTemplate(t, p256(t).Public()), publicLint)
			verifyChain(t, h, leaf.DER, "example.com")
			if leaf.Signature.Algorithm != c.want || h.issuing.Algorithm() != c.want {
				t.Errorf("the algorithm is %q and %q, want %q", leaf.Signature.Algorithm, h.issuing.Algorithm(), c.want)
			}
			if !bytes.Equal(leaf.Signature.KeyID, h.issuing.Certificate().SubjectKeyId) {
				t.Error("the signature names another key")
			}
			prepared, err := h.issuing.PrepareCRL(smallCRL())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := h.issuing.SignCRL(t.Context(), prepared, nothing); err != nil {
				t.Error(err)
			}
		})
	}
}

func verifyChain(t *testing.T, h hierarchy, leaf []byte, host string) {
	t.Helper()
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(h.root.Certificate())
	intermediates.AddCert(h.issuing.Certificate())
	if _, err := parse(t, leaf).Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: now, DNSName: host, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}); err != nil {
		t.Error(err)
	}
}

// TestKeysOfLeaves issues to every kind of key that a profile may allow.
func TestKeysOfLeaves(t *testing.T) {
	h := ecdsaHierarchy(t)
	keys := []crypto.PublicKey{
		p256(t).Public(), ecdsaKey(t, elliptic.P384()).Public(), ecdsaKey(t, elliptic.P521()).Public(), rsaKey().Public(), ed25519Key(t),
	}
	for _, key := range keys {
		tpl := leafTemplate(t, key)
		tpl.WriteSubjectKeyID = true
		certificate := parse(t, issue(t, h.issuing, tpl, rfcLint).DER)
		if !samePublicKey(key, certificate.PublicKey) {
			t.Errorf("the certificate holds another key than the %T granted", key)
		}
		if certificate.KeyUsage != x509.KeyUsageDigitalSignature || !slices.Equal(certificate.DNSNames, []string{"www.example.com", "example.com"}) {
			t.Errorf("the certificate says %v %v", certificate.KeyUsage, certificate.DNSNames)
		}
	}
}
