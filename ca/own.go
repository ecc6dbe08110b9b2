package ca

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/chancery-ca/chancery/policies"
)

// What a certificate is for that the service itself needs, as metrics name it.
const (
	ForAuthority = "authority" // that of an authority: what it issues ends with it at the latest
	ForOCSP      = "ocsp"      // that of an OCSP responder's own key
	ForTLS       = "tls"       // that of the service
)

// beforeIssuer is how long before its issuer a certificate of the service's own ends at least: between asking for it and the decision time
// passes, and what would outlive its issuer is refused.
const beforeIssuer = time.Minute

// ownValidity is what the service asks for itself: 0, the profile's default, or as much as the authority has left where that is less. An
// old authority stays beside its successor until the last of its certificates has ended, and its responder must answer until then.
func (c *CA) ownValidity(rules *policies.Set, profile string, a *Authority) (time.Duration, error) {
	now, end := c.now(), a.Certificate.NotAfter
	if !now.Before(end.Add(-beforeIssuer)) {
		return 0, fmt.Errorf("the authority %s ends at %s, and certifies nothing more", a.Name, end.UTC().Format(time.RFC3339))
	}
	p, known := rules.Profile(profile)
	if !known {
		return 0, nil // which the decision says
	}
	says := p.Summary(now)
	begin := now.Add(-time.Duration(says.Backdate) * time.Second)
	if begin.Before(a.Certificate.NotBefore) {
		begin = a.Certificate.NotBefore
	}
	left := end.Add(-beforeIssuer).Sub(begin).Truncate(time.Second)
	if time.Duration(says.ValidityDefault)*time.Second <= left {
		return 0, nil
	}
	return left, nil
}

// fresh tells whether a certificate of the service's own needs no successor yet: it is in the first two thirds of its life, or it ends with
// its issuer, so that no successor would last longer.
func fresh(certificate, issuer *x509.Certificate, now time.Time) bool {
	switch {
	case certificate == nil || now.After(certificate.NotAfter):
		return false
	case !certificate.NotAfter.Before(issuer.NotAfter.Add(-2 * beforeIssuer)):
		return true
	}
	return now.Before(certificate.NotBefore.Add(certificate.NotAfter.Sub(certificate.NotBefore) * 2 / 3))
}

// FreshServiceCertificate tells whether the certificate that the service answers TLS with needs no successor yet.
func (c *CA) FreshServiceCertificate(certificate *x509.Certificate) bool {
	return fresh(certificate, c.first.Certificate, c.now())
}

// renewalFailed counts that a certificate of the service's own was not to be had.
func (c *CA) renewalFailed(ctx context.Context, kind, name string) {
	if ctx.Err() == nil {
		c.metrics.RenewalFailed(kind, name)
	}
}
