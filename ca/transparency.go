package ca

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/policies"
)

// Transparency gets precertificates logged (RFC 6962).
type Transparency interface {
	// Possible tells whether the logs that are known could give what a profile asks for, to a certificate of a validity. It is asked
	// before anything is signed, and asks nobody.
	Possible(t *policies.Transparency, notBefore, notAfter time.Time) error
	// Submit has a precertificate logged and returns timestamps that satisfy the profile, each verified against its log's key. chain is the
	// precertificate and its issuers, DER, up to the root. It ends within the profile's timeout. An error says nothing of whether a log
	// has the precertificate.
	Submit(ctx context.Context, chain [][]byte, t *policies.Transparency, notBefore, notAfter time.Time) (Timestamps, error)
}

// Timestamps are what a certificate shows of its logs.
type Timestamps struct {
	List []byte   // a SignedCertificateTimestampList (RFC 6962, section 3.3)
	Logs []string // who gave them, for the audit log
}

// checkTransparency refuses profiles that ask for timestamps where there is nobody to get them.
func checkTransparency(set *policies.Set, t Transparency) error {
	var problems []policies.Problem
	for _, name := range set.Names() {
		if p, _ := set.Profile(name); p.Transparency() != nil && t == nil {
			problems = append(problems, policies.Problem{
				File: name + ".yaml", Field: "ct", Message: "the profile asks for timestamps of transparency logs, and no logs are configured",
				Hint: "configure transparency.log_list, or leave ct out",
			})
		}
	}
	if len(problems) > 0 {
		return &policies.LoadError{Problems: problems}
	}
	return nil
}

// loggable refuses a grant that the logs cannot satisfy, while nothing has been signed yet.
func (c *CA) loggable(g *policies.Grant) error {
	ct, t := g.Transparency(), g.Template()
	if ct == nil {
		return nil
	}
	if c.transparency == nil {
		return fmt.Errorf("issuing: %w: no transparency logs are configured", ErrUnavailable)
	}
	if err := c.transparency.Possible(ct, t.NotBefore, t.NotAfter); err != nil {
		return fmt.Errorf("issuing: %w: %w", ErrUnavailable, err)
	}
	return nil
}

// finalise turns a signed precertificate into the certificate: the precertificate is recorded, then submitted, then the certificate's
// intent takes the place of the precertificate's, and the certificate is signed. It is not recorded yet. On an error the intent that is
// open is told, with its kind.
//
// A crash before the certificate's intent leaves the precertificate's, after it the certificate's; either is settled as revoked, and with
// it the serial of both. A crash never leads to a second certificate: the intent that one could come of is gone with the first.
func (c *CA) finalise(ctx context.Context, a *Authority, g *policies.Grant, p *issuance.Prepared, signed *issuance.Certificate, open *Intent) (
	*issuance.Certificate, []string, error,
) {
	t := g.Template()
	precertificate := newCertificate(a, g, signed, open.Request, c.now(), c.newID(), c.replica)
	if err := c.recordPrecertificate(ctx, precertificate, signed.Signature); err != nil {
		return nil, nil, fmt.Errorf("recording the precertificate: %w", err)
	}
	chain := slices.Concat([][]byte{signed.DER}, a.Chain)
	timestamps, err := c.transparency.Submit(ctx, chain, g.Transparency(), t.NotBefore, t.NotAfter)
	if err != nil {
		return nil, nil, fmt.Errorf("having the precertificate logged: %w", err)
	}
	prepared, err := a.Issuer.PrepareFinal(p, signed, timestamps.List)
	if err != nil {
		return nil, nil, err
	}
	final, err := a.Issuer.Sign(ctx, prepared, issuance.RecorderFunc(func(ctx context.Context, s issuance.Signing) error {
		intent := *open
		intent.Kind, intent.TBS = s.Kind, s.TBS
		leaf, err := c.intentLeaf(intent)
		if err != nil {
			return err
		}
		if err := c.store.RecordFinalIntent(ctx, intent, leaf); err != nil {
			return err
		}
		open.Kind, open.TBS = s.Kind, s.TBS
		return nil
	}))
	if errors.Is(err, issuance.ErrPossiblySigned) {
		a.failed(c.now())
	}
	if err != nil {
		return nil, nil, err
	}
	a.recovered()
	return final, timestamps.Logs, nil
}

// recordPrecertificate makes a precertificate durable together with what is said of it. While the store is away it tries again until the
// deadline, as for a certificate.
func (c *CA) recordPrecertificate(ctx context.Context, n NewCertificate, s issuance.Signature) error {
	leaves, err := c.issuedLeaves(n, s, nil)
	if err != nil {
		return err
	}
	return c.untilAvailable(ctx, func() error { return c.store.RecordPrecertificate(ctx, n, leaves...) })
}

// issuedLeaves tell of a certificate or precertificate, of the logs whose timestamps it shows, and of the key's use.
func (c *CA) issuedLeaves(n NewCertificate, s issuance.Signature, logs []string) ([]audit.Leaf, error) {
	data := map[string]string{
		"issuer": n.Issuer, "serial": n.Serial.String(), "kind": string(n.Kind), "certificate_sha256": hexSHA256(n.DER), "request": n.RequestID,
		"profile": n.Profile, "policy": n.PolicyDigest, "not_after": n.NotAfter.UTC().Format(time.RFC3339),
	}
	if len(logs) > 0 {
		data["logs"] = strings.Join(logs, ", ")
	}
	issued, err := c.leafWithID(n.EventID, audit.CertificateIssued, access.Service, n.Namespace, n.IssuedAt, data)
	if err != nil {
		return nil, err
	}
	signed, err := c.signatureLeaf(n.Issuer, n.Namespace, s)
	if err != nil {
		return nil, err
	}
	return []audit.Leaf{issued, signed}, nil
}
