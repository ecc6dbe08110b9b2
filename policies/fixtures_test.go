package policies

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/csr"
	"github.com/chancery-ca/chancery/csr/csrtest"
)

// now is a day on which public certificates may last 199 days.
var now = time.Date(2026, 11, 23, 12, 30, 15, 123456789, time.UTC)

// dev is a namespace such as a team has.
func dev() access.Namespace {
	return access.Namespace{
		Name: "dev", DNS: []string{"dev.example", "localhost", "example.com"}, Email: []string{"dev.example"},
		IP:       []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("8.8.8.0/24")},
		URI:      []string{"spiffe://dev.example"},
		Subjects: []string{"Example Ltd"},
	}
}

func shippedSet(t testing.TB) *Set {
	t.Helper()
	set, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// authorityTestKey is the key of the authorities that tests make.
var authorityTestKey = sync.OnceValue(func() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
})

// issuingAuthority is an authority in force for five years. change may alter it before it is signed.
func issuingAuthority(t testing.TB, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Issuing 1"},
		NotBefore: now.Add(-time.Hour).Truncate(time.Second), NotAfter: now.Add(5 * 365 * day).Truncate(time.Second),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if change != nil {
		change(template)
	}
	key := authorityTestKey()
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func parseCSR(t testing.TB, b csrtest.Builder) *csr.Request {
	t.Helper()
	der, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	r, err := csr.Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// benign is a request that every rule allows.
func benign(t testing.TB) Request {
	t.Helper()
	return Request{
		CSR: parseCSR(t, csrtest.Base()), Profile: "tls-server", Actor: access.Actor{ID: "a1", Namespace: "dev"}, Namespace: dev(), Now: now,
		Issuer: Issuer{
			Name: "issuing-1", Certificate: issuingAuthority(t, nil), CRLScope: "issuing-1/0", CRLURL: "http://ca.example/crl/issuing-1.crl",
			IssuerURLs: []string{"http://ca.example/ca/issuing-1.cer"}, OCSPURLs: []string{"http://ca.example/ocsp/issuing-1"},
		},
	}
}

func spkiOf(t testing.TB, public crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// refusing are the rules that refused, in order.
func refusing(d *Decision) []string {
	var ids []string
	for _, r := range d.Results() {
		if r.Verdict == Refuse {
			ids = append(ids, r.Rule)
		}
	}
	return ids
}

func resultOf(t testing.TB, d *Decision, rule string) RuleResult {
	t.Helper()
	for _, r := range d.Results() {
		if r.Rule == rule {
			return r
		}
	}
	t.Fatalf("no rule %s was asked", rule)
	return RuleResult{}
}

// plain is the smallest sound profile; tests change parts of it.
const plain = `name: plain
description: For tests.
keys:
  ecdsa: {curves: [P-256], key_usage: [digitalSignature]}
ext_key_usage: [serverAuth]
validity: {default: 30d, max: 90d, backdate: 5m}
subject:
  attributes:
    - {type: commonName, presence: optional}
  common_name: copy-of-san
names:
  min: 1
  dns: {}
lint:
  sources: [RFC5280]
`

func file(name, content string) fstest.MapFS { return fstest.MapFS{name: {Data: []byte(content)}} }

// changed is the plain profile with parts replaced, in pairs of old and new.
func changed(t testing.TB, pairs ...string) *Set {
	t.Helper()
	content := plain
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(content, pairs[i]) {
			t.Fatalf("the plain profile does not hold %q", pairs[i])
		}
		content = strings.Replace(content, pairs[i], pairs[i+1], 1)
	}
	set, err := Load(file("plain.yaml", content))
	if err != nil {
		t.Fatal(err)
	}
	return set
}
