// Package trial tries policies before they rule: cases that are kept beside the profiles, and requests of the past.
//
// It owns the form of cases, the replay of history and the words of both reports. It decides nothing by itself: every verdict is that of
// policies, and nothing that is tried here can be signed. The package is pure but for the files of cases, which come in as an fs.FS.
package trial

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net/netip"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/policies"
	"github.com/chancery-ca/chancery/strictyaml"
)

// issuerLife is how long before and after a moment the issuer of a trial is valid: longer than any profile can ask for.
const issuerLife = 101 * 366 * 24 * time.Hour

// issuerSubject is the issuer's name, which no request may have.
const issuerSubject = "The issuer of a trial, which signs nothing"

// NewIssuer makes an authority for decisions that nothing is signed for: valid long before and after a moment, without name constraints.
// Its key is forgotten at once.
func NewIssuer(random io.Reader, now time.Time) (policies.Issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), random)
	if err != nil {
		return policies.Issuer{}, fmt.Errorf("making the key of a trial's issuer: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: issuerSubject},
		NotBefore: now.Add(-issuerLife), NotAfter: now.Add(issuerLife),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(random, template, template, key.Public(), key)
	if err != nil {
		return policies.Issuer{}, fmt.Errorf("making a trial's issuer: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return policies.Issuer{}, fmt.Errorf("reading a trial's issuer: %w", err)
	}
	const base = "http://trial.example"
	return policies.Issuer{
		Name: "trial", Certificate: certificate, CRLScope: "full", CRLURL: base + "/crl/trial.crl", IssuerURLs: []string{base + "/ca/trial.cer"},
	}, nil
}

// Decide has a request decided where nobody can be asked. What it comes to depend on and does not hold stands in nobody's way: its key was
// never certified, and its names have no CAA records.
func Decide(set *policies.Set, r policies.Request) *policies.Decision {
	d := set.Decide(r)
	awaits := d.Awaits()
	if awaits.None() {
		return d
	}
	if awaits.KeyHistory {
		r.KeyHistory = []policies.KeyUse{}
	}
	for _, name := range awaits.CAA {
		r.CAA = append(r.CAA, policies.CAAAnswer{Name: name})
	}
	return set.Decide(r)
}

// Everything is the namespace of a trial that names none: it owns every name, so that only the profile speaks.
func Everything() access.Namespace {
	return access.Namespace{
		Name: "everything", DNS: []string{"*"}, Email: []string{"*"}, URI: []string{"*"}, Subjects: []string{"*"},
		IP: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")},
	}
}

// namespaceFile is the namespace of cases: what it owns and may use, in the words of the service's configuration.
type namespaceFile struct {
	Name     string   `yaml:"name"`
	DNS      []string `yaml:"dns"`
	IP       []string `yaml:"ip"`
	Email    []string `yaml:"email"`
	URI      []string `yaml:"uri"`
	Subjects []string `yaml:"subjects"`
	Profiles []string `yaml:"profiles"`
}

// compileNamespace reads one namespace, and tells whether it is sound.
func compileNamespace(doc *strictyaml.Document, field string, w namespaceFile) (n access.Namespace, ok bool) {
	n, ok = access.Namespace{Name: w.Name, DNS: w.DNS, Email: w.Email, URI: w.URI, Subjects: w.Subjects, Profiles: w.Profiles}, true
	for j, text := range w.IP {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			doc.Refuse(fmt.Sprintf("%s.ip[%d]", field, j), "write a prefix such as 10.1.0.0/16", "%q is not a prefix of addresses", text)
			ok = false
			continue
		}
		n.IP = append(n.IP, prefix)
	}
	if err := n.Validate(); err != nil {
		doc.Refuse(field, "", "%v", err)
		ok = false
	}
	return n, ok
}
