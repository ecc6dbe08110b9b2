package issuance

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/policies"
)

// now is the time of all tests.
var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// rsaKey is made once, because making one takes long.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func p256(t testing.TB) *ecdsa.PrivateKey { return ecdsaKey(t, elliptic.P256()) }

func ecdsaKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newSerial(t testing.TB) Serial {
	t.Helper()
	s, err := NewSerial(now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func commonName(name string) pkix.RDNSequence {
	return pkix.RDNSequence{{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: name}}}
}

var (
	rfcLint    = policies.Lint{Sources: []string{"RFC3279", "RFC5280", "RFC5480", "RFC5891", "RFC8813"}}
	publicLint = policies.Lint{Sources: []string{"RFC5280", "CABF_BR"}, Except: []policies.LintException{
		{Lint: "w_ext_subject_key_identifier_missing_sub_cert", Reason: "the Baseline Requirements, section 7.1.2.7.6, advise against it"},
	}}
	rootLint = policies.Lint{Sources: []string{"RFC3279", "RFC5280", "RFC5480", "CABF_BR", "Mozilla", "Community"}, Except: []policies.LintException{
		{Lint: "n_ca_digital_signature_not_set", Reason: "the key signs certificates and CRLs alone"},
	}}
)

func linterOf(t testing.TB, l policies.Lint) *linter {
	t.Helper()
	made, err := newLinter(l)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// withKey fills in what a template says of a key.
func withKey(t testing.TB, tpl policies.Template, public crypto.PublicKey) policies.Template {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	id := sha256.Sum256(spki)
	tpl.SPKI, tpl.PublicKey, tpl.SubjectKeyID = spki, public, id[:20]
	return tpl
}

func rootTemplate(t testing.TB, public crypto.PublicKey) policies.Template {
	return withKey(t, policies.Template{
		Subject: pkix.RDNSequence{
			{{Type: asn1.ObjectIdentifier{2, 5, 4, 6}, Value: "AT"}},
			{{Type: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: "Größenwahn & Söhne"}},
			{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "Example Root"}},
		},
		NotBefore: now, NotAfter: now.AddDate(20, 0, 0).Add(-time.Second),
		CA: true, PathLen: -1, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, public)
}

func intermediateTemplate(t testing.TB, public crypto.PublicKey) policies.Template {
	return withKey(t, policies.Template{
		Subject: pkix.RDNSequence{
			{{Type: asn1.ObjectIdentifier{2, 5, 4, 6}, Value: "AT"}},
			{{Type: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: "Example"}},
			{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "Example Issuing 1"}},
		},
		NotBefore: now, NotAfter: now.AddDate(5, 0, 0).Add(-time.Second),
		CA: true, PathLen: 0, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		ExtKeyUsage: []asn1.ObjectIdentifier{oidServerAuth},
		Policies:    []asn1.ObjectIdentifier{oidDomainValidated},
		CRLURL:      "http://pki.example.com/crl/root.crl",
		IssuerURLs:  []string{"http://pki.example.com/ca/root.cer"},
	}, public)
}

var (
	oidServerAuth      = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}
	oidDomainValidated = asn1.ObjectIdentifier{2, 23, 140, 1, 2, 1}
)

// leafTemplate is a certificate of a public TLS server, which no lint minds.
func leafTemplate(t testing.TB, public crypto.PublicKey) policies.Template {
	return withKey(t, policies.Template{
		NotBefore: now.Add(-5 * time.Minute), NotAfter: now.Add(90*24*time.Hour - 5*time.Minute - time.Second),
		DNS:      []string{"www.example.com", "example.com"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []asn1.ObjectIdentifier{oidServerAuth}, PathLen: -1,
		Policies:   []asn1.ObjectIdentifier{oidDomainValidated},
		CRLURL:     "http://pki.example.com/crl/issuing-1.crl",
		IssuerURLs: []string{"http://pki.example.com/ca/issuing-1.cer"},
	}, public)
}

func constraints() *policies.NameConstraints {
	return &policies.NameConstraints{
		DNS: []string{"example.com", "example.org"}, IP: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/33")},
		Email: []string{"example.com"}, URI: []string{".example.com"},
	}
}

// nothing records nothing, and says that it did.
var nothing = RecorderFunc(func(context.Context, Signing) error { return nil })

// hierarchy is a root and an issuing authority below it, made by this package.
type hierarchy struct {
	root, issuing *Issuer
	issuingKey    crypto.Signer
}

var shared struct {
	sync.Once
	hierarchy
}

// ecdsaHierarchy is one hierarchy of P-256 keys for all tests that do not need their own: making one lints much.
func ecdsaHierarchy(t testing.TB) hierarchy {
	t.Helper()
	shared.Do(func() { shared.hierarchy = newHierarchy(t, p256(t), p256(t)) })
	return shared.hierarchy
}

func newHierarchy(t testing.TB, rootKey, issuingKey crypto.Signer) hierarchy {
	t.Helper()
	root, err := selfSign(t.Context(), rootTemplate(t, rootKey.Public()), linterOf(t, rootLint), rootKey, newSerial(t), now, nothing)
	if err != nil {
		t.Fatal(err)
	}
	h := hierarchy{root: issuerOf(t, root.DER, rootKey), issuingKey: issuingKey}
	issuing := issue(t, h.root, intermediateTemplate(t, issuingKey.Public()), publicLint)
	h.issuing = issuerOf(t, issuing.DER, issuingKey)
	return h
}

func issuerOf(t testing.TB, der []byte, key crypto.Signer) *Issuer {
	t.Helper()
	issuer, err := NewIssuer(parse(t, der), key)
	if err != nil {
		t.Fatal(err)
	}
	return issuer
}

func issue(t testing.TB, i *Issuer, tpl policies.Template, l policies.Lint) *Certificate {
	t.Helper()
	prepared, err := i.prepare(tpl, linterOf(t, l), newSerial(t), now)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := i.Sign(t.Context(), prepared, nothing)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

// fataler is what *testing.T and *rapid.T share.
type fataler interface {
	Helper()
	Fatal(...any)
}

func parse(t fataler, der []byte) *x509.Certificate {
	t.Helper()
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

func ed25519Key(t testing.TB) crypto.PublicKey {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return public
}

func number(octets []byte) *big.Int { return new(big.Int).SetBytes(octets) }
