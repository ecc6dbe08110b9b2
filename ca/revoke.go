package ca

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/issuance"
)

const (
	// maxComment is the longest comment on a revocation, in octets.
	maxComment = 1000
	// firstYear is the first of which a revocation may speak. A year before the year 0, which a zone can make of it, cannot be written, and
	// a CRL is refused as a whole for one entry: a revocation, once on record, would keep its scope from having another CRL for ever.
	firstYear = 1950
)

// RevokeOrder is a wish to revoke a certificate, to put it on hold, or (removeFromCRL) to end a hold.
type RevokeOrder struct {
	Actor          access.Actor
	Issuer         string // needed only where several authorities have issued the serial
	Serial         []byte
	Reason         issuance.Reason
	Comment        string
	InvalidityDate time.Time // when the key became bad; zero: not told
}

// Revoke takes a certificate back. The revocation is durable when it returns; the CRL follows within seconds.
//
// A certificate that is revoked already stays as it is, and its revocation is returned: repeating is harmless. Only a hold can be
// changed: into a revocation, or by removeFromCRL back into validity; and what no CRL says is recorded once more. It returns ErrNotFound,
// ErrAmbiguousSerial, ErrExpired, ErrRevokedOtherwise, *InvalidError, or *access.Denied.
func (c *CA) Revoke(ctx context.Context, o RevokeOrder) (Revocation, error) {
	return c.revoke(ctx, o, func() (Certificate, error) { return c.find(ctx, o.Actor, access.RevokeCertificate, o.Issuer, o.Serial) })
}

// revoke takes the certificate back that look finds, for whoever was found to be allowed to.
func (c *CA) revoke(ctx context.Context, o RevokeOrder, look func() (Certificate, error)) (Revocation, error) {
	for {
		certificate, err := look()
		if err != nil {
			return Revocation{}, err
		}
		if err := c.checkRevokeOrder(o, certificate); err != nil {
			return Revocation{}, err
		}
		after, done, err := nextRevocation(certificate.Revocation, o.Reason)
		if err != nil {
			return Revocation{}, err
		}
		if done && !missed(certificate, o.Reason) {
			return c.revokedBefore(ctx, o, certificate)
		}
		if c.now().After(certificate.NotAfter) {
			if err := c.rememberKey(ctx, o, certificate); err != nil {
				return Revocation{}, err
			}
			return Revocation{}, ErrExpired
		}
		recorded, err := c.recordRevocation(ctx, o, certificate, after)
		if errors.Is(err, ErrFenced) {
			continue // another revocation of this certificate came first: look again
		}
		if err != nil {
			return Revocation{}, fmt.Errorf("recording the revocation: %w", err)
		}
		c.metrics.Revoked(certificate.Issuer, o.Reason.String())
		c.lags.revoked(certificate.Issuer, certificate.CRLScope, 1, c.now())
		c.publications.wakeUp()
		return recorded, nil
	}
}

// revokedBefore answers an order that changes nothing. What the certificate was found with may be the work of an earlier try that was told
// that it is not known to be on record.
func (c *CA) revokedBefore(ctx context.Context, o RevokeOrder, certificate Certificate) (Revocation, error) {
	if err := c.rememberKey(ctx, o, certificate); err != nil {
		return Revocation{}, err
	}
	return c.store.RevocationOnRecord(ctx, certificate.Issuer, o.Serial)
}

// rememberKey keeps a key out of later certificates that turns out to be compromised when its certificate has been revoked already, for
// another reason, or has expired: the certificate stays as it is, and the key is bad all the same (Baseline Requirements, section 6.1.1.3).
func (c *CA) rememberKey(ctx context.Context, o RevokeOrder, certificate Certificate) error {
	if o.Reason != issuance.KeyCompromise {
		return nil
	}
	known, err := c.store.KeyCompromised(ctx, certificate.SPKI)
	if err != nil || known {
		return err
	}
	leaf, err := c.leaf(audit.KeyCompromised, o.Actor.ID, certificate.Namespace, c.now(), keyData(certificate.Issuer, o.Serial, certificate.SPKI))
	if err != nil {
		return err
	}
	if err := c.store.RecordCompromisedKey(ctx, certificate.SPKI, certificate.Issuer, o.Serial, c.now(), leaf); err != nil {
		return fmt.Errorf("remembering the key: %w", err)
	}
	return nil
}

// keyData is what the audit log is told of a key that is remembered though its certificate stays as it is.
func keyData(issuer string, serial []byte, spki [32]byte) map[string]string {
	return map[string]string{"issuer": issuer, "serial": hex.EncodeToString(serial), "spki_sha256": hex.EncodeToString(spki[:])}
}

// nextRevocation says what a wished reason does to the latest entry of a certificate's sequence: after is the entry that the new one
// follows, done says that nothing is to be done.
func nextRevocation(latest *Revocation, wish issuance.Reason) (after int, done bool, err error) {
	released := latest == nil || latest.Reason == issuance.RemoveFromCRL
	held := latest != nil && latest.Reason == issuance.CertificateHold
	if latest != nil {
		after = latest.Sequence
	}
	switch {
	case wish == issuance.RemoveFromCRL && !held:
		if latest != nil && released {
			return after, true, nil
		}
		return 0, false, fmt.Errorf("%w: removeFromCRL ends a certificateHold, and there is none", ErrRevokedOtherwise)
	case released:
		return after, false, nil
	case held:
		return after, wish == issuance.CertificateHold, nil
	}
	return after, true, nil // revoked for good
}

// missed tells of a certificate that is revoked, or on hold, whether no CRL says so: what was recorded is of another CRL, or as of another end, as
// somebody may have written it who had the service's rights. Another revocation for good sets that right.
func missed(certificate Certificate, wish issuance.Reason) bool {
	r := certificate.Revocation
	return r != nil && wish != issuance.CertificateHold && wish != issuance.RemoveFromCRL &&
		(r.CRLScope != certificate.CRLScope || !r.NotAfter.Equal(certificate.NotAfter))
}

func (c *CA) checkRevokeOrder(o RevokeOrder, certificate Certificate) error {
	if err := c.checkRevocation(o.Reason, o.Comment, o.InvalidityDate); err != nil {
		return err
	}
	if o.Reason == issuance.CertificateHold && !c.allowsHold(certificate.Profile) {
		return &InvalidError{
			Field: "reason", Message: "certificates of profile " + certificate.Profile + " cannot be put on hold",
			Hint: "the Baseline Requirements, section 4.9.13, forbid certificateHold, and of a profile that is gone nobody knows; " +
				"revoke for good, with another reason",
		}
	}
	return nil
}

// allowsHold tells whether certificates of a profile can be put on hold. Those of a profile that is gone cannot: they may be such as are
// trusted publicly.
func (c *CA) allowsHold(profile string) bool {
	p, ok := c.rules().Profile(profile)
	return ok && p.AllowsHold()
}

// checkRevocation checks what a revocation says, whatever the certificate is.
func (c *CA) checkRevocation(reason issuance.Reason, comment string, invalidityDate time.Time) error {
	switch reason {
	case issuance.Unspecified, issuance.KeyCompromise, issuance.AffiliationChanged, issuance.Superseded, issuance.CessationOfOperation,
		issuance.CertificateHold, issuance.RemoveFromCRL, issuance.PrivilegeWithdrawn:
	default:
		return &InvalidError{
			Field: "reason", Message: fmt.Sprintf("%s is not a reason for an end-entity certificate", reason),
			Hint: "use keyCompromise, affiliationChanged, superseded, cessationOfOperation, certificateHold, privilegeWithdrawn or unspecified",
		}
	}
	if len(comment) > maxComment {
		return longComment()
	}
	switch at := invalidityDate.UTC(); {
	case at.IsZero():
	case at.After(c.now()):
		return &InvalidError{
			Field: "invalidity_date", Message: "the invalidity date lies in the future",
			Hint: "give the moment since when the key is not trusted",
		}
	case at.Year() < firstYear:
		return &InvalidError{
			Field: "invalidity_date", Message: fmt.Sprintf("the invalidity date lies before %d", firstYear),
			Hint: "give the moment since when the key is not trusted",
		}
	}
	return nil
}

func longComment() error {
	return &InvalidError{Field: "comment", Message: fmt.Sprintf("the comment has more than %d octets", maxComment), Hint: "shorten it"}
}

// recordRevocation writes one entry with its leaf. It ends by itself when the caller leaves: either nothing or all was written.
func (c *CA) recordRevocation(ctx context.Context, o RevokeOrder, certificate Certificate, after int) (Revocation, error) {
	r := Revocation{
		Issuer: certificate.Issuer, Serial: o.Serial, Sequence: after + 1, Reason: o.Reason, At: c.now().Truncate(time.Second),
		InvalidityDate: o.InvalidityDate.Truncate(time.Second), Comment: o.Comment, Actor: o.Actor.ID, EventID: c.newID(),
		CRLScope: certificate.CRLScope, NotAfter: certificate.NotAfter, SPKI: certificate.SPKI,
	}
	kind, data := revocationData(r)
	leaf, err := c.leafWithID(r.EventID, kind, o.Actor.ID, certificate.Namespace, c.now(), data)
	if err != nil {
		return Revocation{}, err
	}
	return c.store.RecordRevocation(ctx, r, after, leaf)
}

// revocationData is what the audit log is told of a revocation, and as what.
func revocationData(r Revocation) (audit.Kind, map[string]string) {
	data := map[string]string{
		"issuer": r.Issuer, "serial": hex.EncodeToString(r.Serial), "reason": r.Reason.String(), "comment": r.Comment,
	}
	if !r.InvalidityDate.IsZero() {
		data["invalidity_date"] = r.InvalidityDate.UTC().Format(time.RFC3339)
	}
	if r.Reason == issuance.RemoveFromCRL {
		return audit.CertificateReleased, data
	}
	return audit.CertificateRevoked, data
}
