package ca

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"time"

	"github.com/chancery-ca/chancery/csr"
	"github.com/chancery-ca/chancery/issuance"
)

// ResponderProfile is the profile of the certificates of OCSP responders.
const ResponderProfile = "ocsp-responder"

const (
	// renewResponders is how often it is looked whether the certificate of a responder has to be renewed.
	renewResponders = time.Minute
	// maxCommonName is the longest commonName, in characters (RFC 5280, appendix A.1).
	maxCommonName = 64
)

// RenewResponders gets each responder with a key of its own a certificate, and a new one when two thirds of its life have passed. One that
// another replica has got for the same key is taken. Answers under the former stay good: none holds longer than the certificate in it. One
// that was revoked gives way too: clients do not ask for it (id-pkix-ocsp-nocheck), but whoever reads CRLs finds it there. Where no new one
// is to be had, the one of before, or another on record, answers as long as it is valid, and the error says so. Of an authority that has
// ended there is nothing left to answer.
func (c *CA) RenewResponders(ctx context.Context) error {
	var failures []error
	for _, r := range c.ocsp.responders {
		if r.key == nil || c.now().After(r.authority.Certificate.NotAfter) {
			continue
		}
		if err := c.keepResponder(ctx, r); err != nil {
			c.renewalFailed(ctx, ForOCSP, r.authority.Name)
			failures = append(failures, fmt.Errorf("getting a certificate for the OCSP responder of %s: %w", r.authority.Name, err))
		}
	}
	return errors.Join(failures...)
}

// keepResponder sees that a responder has a certificate.
func (c *CA) keepResponder(ctx context.Context, r *responder) error {
	if certificate := certificateOf(r.signs.Load()); fresh(certificate, r.authority.Certificate, c.now()) {
		latest, err := c.store.LatestRevocation(ctx, r.authority.Name, certificate.SerialNumber.Bytes())
		switch {
		case errors.Is(err, ErrNotFound), err == nil && latest.Reason == issuance.RemoveFromCRL:
			return nil
		case err != nil:
			return fmt.Errorf("looking whether the one of now is revoked: %w", err)
		}
	}
	certificate, failed := c.responderCertificate(ctx, r)
	if certificate == nil {
		return failed
	}
	if now := certificateOf(r.signs.Load()); now != nil && now.Equal(certificate) {
		return failed
	}
	signs, err := issuance.NewResponder(r.authority.Certificate, certificate, r.key)
	if err != nil {
		return errors.Join(failed, err)
	}
	r.signs.Store(signs)
	c.metrics.CertificateEnds(ForOCSP, r.authority.Name, certificate.NotAfter)
	c.log.InfoContext(ctx, "the OCSP responder has a certificate", "authority", r.authority.Name, "serial", certificate.SerialNumber.Text(16),
		"not_after", certificate.NotAfter)
	return failed
}

func certificateOf(r *issuance.Responder) *x509.Certificate {
	if r == nil {
		return nil
	}
	return r.Certificate()
}

// responderCertificate finds one on record, or has one issued. With an error that says why none was, there may be one on record that is
// valid still.
func (c *CA) responderCertificate(ctx context.Context, r *responder) (*x509.Certificate, error) {
	spki, err := x509.MarshalPKIXPublicKey(r.key.Public())
	if err != nil {
		return nil, fmt.Errorf("encoding the public key: %w", err)
	}
	known, err := c.store.ResponderCertificates(ctx, r.authority.Name, sha256.Sum256(spki)) // the one that ends last first
	if err != nil {
		return nil, fmt.Errorf("looking for one: %w", err)
	}
	var valid *x509.Certificate
	for _, der := range known {
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("reading one on record: %w", err)
		}
		if fresh(certificate, r.authority.Certificate, c.now()) {
			return certificate, nil
		}
		if valid == nil && c.now().Before(certificate.NotAfter) {
			valid = certificate
		}
	}
	issued, err := c.issueResponderCertificate(ctx, r)
	switch {
	case err == nil:
		return issued, nil
	case valid == nil:
		return nil, err
	}
	return valid, fmt.Errorf("that of now ends at %s: %w", valid.NotAfter.UTC().Format(time.RFC3339), err)
}

// issueResponderCertificate issues one the ordinary way: an order, a decision, an intent, a signature in the token. The responder's key
// signs the request for it.
func (c *CA) issueResponderCertificate(ctx context.Context, r *responder) (*x509.Certificate, error) {
	order, err := c.responderOrder(r)
	if err != nil {
		return nil, fmt.Errorf("requesting one: %w", err)
	}
	outcome, err := c.issueOwn(ctx, order)
	if err != nil {
		return nil, fmt.Errorf("issuing one: %w", err)
	}
	return x509.ParseCertificate(outcome.Certificate.DER)
}

// responderOrder is the order for a responder's certificate.
func (c *CA) responderOrder(r *responder) (Order, error) {
	der, err := c.responderRequest(r)
	if err != nil {
		return Order{}, err
	}
	request, err := csr.Parse(der)
	if err != nil {
		return Order{}, err
	}
	return Order{Actor: c.itself(), Profile: ResponderProfile, Issuer: r.authority.Name, CSR: request}, nil
}

// tryResponder has a responder's key sign that a serial number is unknown which nobody has: what comes of it is the key's health. One without
// a certificate is tried by requesting one.
func (c *CA) tryResponder(ctx context.Context, r *responder) error {
	signs := r.signs.Load()
	if signs == nil {
		return nil
	}
	serial, err := issuance.NewSerial(c.now(), c.random)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, ocspDeadline)
	defer cancel()
	_, _ = c.signOCSP(ctx, r, []issuance.CertID{signs.CertID(serial[:])}, []CertificateStatus{{}}, nil)
	return nil
}

// responderRequest is a request for a certificate of the responder's key, which the key signs.
func (c *CA) responderRequest(r *responder) ([]byte, error) {
	name := "OCSP " + r.authority.Name
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: name[:min(len(name), maxCommonName)]}}
	der, err := x509.CreateCertificateRequest(c.random, template, r.key)
	if err != nil {
		r.health.failed(c.now())
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	r.health.recovered()
	return der, nil
}
