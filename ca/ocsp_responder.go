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
// that was revoked gives way too: clients do not ask for it (id-pkix-ocsp-nocheck), but whoever reads CRLs finds it there.
func (c *CA) RenewResponders(ctx context.Context) error {
	var failures []error
	for _, r := range c.ocsp.responders {
		if r.key == nil {
			continue
		}
		if certificate := certificateOf(r.signs.Load()); fresh(certificate, c.now()) {
			latest, err := c.store.LatestRevocation(ctx, r.authority.Name, certificate.SerialNumber.Bytes())
			if err != nil && !errors.Is(err, ErrNotFound) {
				failures = append(failures, fmt.Errorf("looking whether the OCSP responder of %s is revoked: %w", r.authority.Name, err))
			}
			if err != nil || latest.Reason == issuance.RemoveFromCRL {
				continue
			}
		}
		if err := c.renewResponder(ctx, r); err != nil {
			failures = append(failures, fmt.Errorf("getting a certificate for the OCSP responder of %s: %w", r.authority.Name, err))
		}
	}
	return errors.Join(failures...)
}

func certificateOf(r *issuance.Responder) *x509.Certificate {
	if r == nil {
		return nil
	}
	return r.Certificate()
}

// fresh tells whether a certificate is in the first two thirds of its life.
func fresh(certificate *x509.Certificate, now time.Time) bool {
	return certificate != nil && now.Before(certificate.NotBefore.Add(certificate.NotAfter.Sub(certificate.NotBefore)*2/3))
}

func (c *CA) renewResponder(ctx context.Context, r *responder) error {
	certificate, err := c.responderCertificate(ctx, r)
	if err != nil {
		return err
	}
	signs, err := issuance.NewResponder(r.authority.Certificate, certificate, r.key)
	if err != nil {
		return err
	}
	r.signs.Store(signs)
	c.log.InfoContext(ctx, "the OCSP responder has a certificate", "authority", r.authority.Name, "serial", certificate.SerialNumber.Text(16),
		"not_after", certificate.NotAfter)
	return nil
}

// responderCertificate finds one on record, or has one issued.
func (c *CA) responderCertificate(ctx context.Context, r *responder) (*x509.Certificate, error) {
	spki, err := x509.MarshalPKIXPublicKey(r.key.Public())
	if err != nil {
		return nil, fmt.Errorf("encoding the public key: %w", err)
	}
	known, err := c.store.ResponderCertificates(ctx, r.authority.Name, sha256.Sum256(spki))
	if err != nil {
		return nil, fmt.Errorf("looking for one: %w", err)
	}
	for _, der := range known {
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("reading one on record: %w", err)
		}
		if fresh(certificate, c.now()) {
			return certificate, nil
		}
	}
	return c.issueResponderCertificate(ctx, r)
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
	name := "OCSP " + r.authority.Name
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: name[:min(len(name), maxCommonName)]}}
	der, err := x509.CreateCertificateRequest(c.random, template, r.key)
	if err != nil {
		return Order{}, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	request, err := csr.Parse(der)
	if err != nil {
		return Order{}, err
	}
	return Order{Actor: c.itself(), Profile: ResponderProfile, Issuer: r.authority.Name, CSR: request}, nil
}
