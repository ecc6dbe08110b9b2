package csr_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"reflect"
	"testing"

	"github.com/chancery-ca/chancery/csr"
	"github.com/chancery-ca/chancery/csr/csrtest"
)

// FuzzParse: reading never panics, errors are whole, and what is read is a request to crypto/x509 as well, with two exceptions that
// it draws narrower: URIs that do not parse, and RSA exponents beyond an int.
func FuzzParse(f *testing.F) {
	for _, c := range append(csrtest.Benign(), csrtest.Hostile()...) {
		if len(c.DER) < 4096 {
			f.Add(c.DER)
		}
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		r, err := csr.Parse(der)
		if ruleOf(t, err) != "" {
			return
		}
		if !bytes.Equal(r.Raw(), der) {
			t.Error("what was read is not the input")
		}
		again, err := csr.Parse(r.Raw())
		if err != nil || !reflect.DeepEqual(r, again) {
			t.Errorf("read again it is something else: %v", err)
		}
		if key := r.Key(); key.Algorithm != csr.RSA || key.Bits <= 4096 {
			ruleOf(t, r.VerifySignature())
		}
		std, err := x509.ParseCertificateRequest(der)
		if err != nil {
			if len(r.Names().URI) == 0 && r.Key().Public != nil {
				t.Fatalf("crypto/x509 refuses it: %v", err)
			}
			return
		}
		if len(std.Subject.Names) != len(r.Subject()) || len(std.DNSNames) != len(r.Names().DNS) || len(std.IPAddresses) != len(r.Names().IP) {
			t.Error("crypto/x509 sees other names")
		}
		if !bytes.Equal(std.RawSubjectPublicKeyInfo, r.Key().SPKI) {
			t.Error("crypto/x509 sees another key")
		}
	})
}

// FuzzParsePEM: reading never panics, and what is read is what encoding/pem finds.
func FuzzParsePEM(f *testing.F) {
	for _, c := range csrtest.Benign()[:3] {
		f.Add(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: c.DER}))
		f.Add(pem.EncodeToMemory(&pem.Block{Type: "NEW CERTIFICATE REQUEST", Bytes: c.DER}))
	}
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := csr.ParsePEM(text)
		if ruleOf(t, err) != "" {
			return
		}
		again, err := csr.ParsePEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: r.Raw()}))
		if err != nil || !bytes.Equal(again.Raw(), r.Raw()) {
			t.Errorf("written again it is something else: %v", err)
		}
	})
}
