package issuance

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chancery-ca/chancery/policies"
)

// Issuer is an authority that can sign: its certificate and the key of it. It is safe for concurrent use.
type Issuer struct {
	certificate *x509.Certificate
	name        pkix.RDNSequence // the certificate's subject
	key         signingKey
	linters     sync.Map // *linter by linterKey
	crlLinter   *revocationLinter
	keyCleared  atomic.Bool // compromisedIssuer has said that the key is none of the compromised ones
}

// NewIssuer joins a certificate with its key. It refuses a key that is not the certificate's, a certificate that may not sign
// certificates and CRLs (RFC 5280, sections 4.2.1.3 and 4.2.1.9), one without a subject or a subjectKeyIdentifier, and weak ones. It
// signs nothing.
func NewIssuer(cert *x509.Certificate, key crypto.Signer) (*Issuer, error) {
	if cert == nil || len(cert.Raw) == 0 || key == nil {
		return nil, errors.New("opening an issuer: the certificate or the key is missing")
	}
	issuer, err := newIssuer(cert, key)
	if err != nil {
		return nil, fmt.Errorf("opening the issuer %q: %w", cert.Subject, err)
	}
	return issuer, nil
}

func newIssuer(cert *x509.Certificate, key crypto.Signer) (*Issuer, error) {
	if err := checkIssuer(cert); err != nil {
		return nil, err
	}
	signing, err := newSigningKey(key)
	if err != nil {
		return nil, err
	}
	if !samePublicKey(signing.public, cert.PublicKey) {
		return nil, errors.New("the key is not that of the certificate")
	}
	signing.id = cert.SubjectKeyId
	crlLinter, err := newRevocationLinter()
	if err != nil {
		return nil, err
	}
	if err := checkIssuerKey(cert.Raw); err != nil {
		return nil, fmt.Errorf("the certificate: %w", err)
	}
	name, err := policies.ReadName(cert.RawSubject)
	if err != nil {
		return nil, err
	}
	issuer := &Issuer{certificate: cert, name: name, key: signing, crlLinter: crlLinter}
	issuer.keyCleared.Store(cert.CheckSignatureFrom(cert) == nil) // a root has signed its own certificate, which was looked at above
	return issuer, nil
}

// Certificate is the issuer's own certificate. It must not be changed.
func (i *Issuer) Certificate() *x509.Certificate { return i.certificate }

// Reserve takes room for a number of signatures, 2 at most, where the key is one that is limited in how often it signs, and returns an
// error where there is none at the moment. To be asked before Sign: an intent that is recorded is settled as possibly signed, whatever the
// key says.
func (i *Issuer) Reserve(signatures int, now time.Time) error { return i.key.reserve(signatures, now) }

// Algorithm is what the issuer signs with: "ECDSA-SHA256", "ECDSA-SHA384" or "RSA-SHA256".
func (i *Issuer) Algorithm() string { return i.key.algorithm.name }

func checkIssuer(cert *x509.Certificate) error {
	const both = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	switch {
	case !cert.BasicConstraintsValid || !cert.IsCA:
		return errors.New("the certificate is not that of an authority (basicConstraints)")
	case cert.KeyUsage&both != both:
		return errors.New("the certificate's keyUsage lacks keyCertSign or cRLSign")
	case len(cert.SubjectKeyId) == 0:
		return errors.New("the certificate has no subjectKeyIdentifier")
	case bytes.Equal(cert.RawSubject, []byte{0x30, 0}):
		return errors.New("the certificate has no subject")
	}
	switch cert.SignatureAlgorithm {
	case x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512, x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
		x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS, x509.PureEd25519:
		return nil
	}
	return fmt.Errorf("the certificate is signed with %v, which is not accepted", cert.SignatureAlgorithm)
}

func samePublicKey(a, b crypto.PublicKey) bool {
	comparable, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && comparable.Equal(b)
}

// linter is the linter of a profile. Selecting lints takes longer than running them, so each selection is made once.
func (i *Issuer) linter(l policies.Lint) (*linter, error) {
	key := linterKey(l)
	if known, ok := i.linters.Load(key); ok {
		return known.(*linter), nil
	}
	made, err := newLinter(l)
	if err != nil {
		return nil, err
	}
	kept, _ := i.linters.LoadOrStore(key, made)
	return kept.(*linter), nil
}

func linterKey(l policies.Lint) string {
	var b strings.Builder
	for _, s := range l.Sources {
		b.WriteString("\x00+" + s)
	}
	for _, e := range l.Except {
		b.WriteString("\x00-" + e.Lint)
	}
	return b.String()
}
