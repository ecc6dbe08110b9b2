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

// maxComment is the longest comment on a revocation, in octets.
const maxComment = 1000

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
// changed: into a revocation, or by removeFromCRL back into validity. It returns ErrNotFound, ErrAmbiguousSerial, ErrExpired,
// ErrRevokedOtherwise, *InvalidError, or *access.Denied.
func (c *CA) Revoke(ctx context.Context, o RevokeOrder) (Revocation, error) {
	for {
		certificate, err := c.find(ctx, o.Actor, access.RevokeCertificate, o.Issuer, o.Serial)
		if err != nil {
			return Revocation{}, err
		}
		if err := c.checkRevokeOrder(o, certificate); err != nil {
			return Revocation{}, err
		}
		after, done, err := nextRevocation(certificate.Revocation, o.Reason)
		if err != nil || done {
			return valueOrZero(certificate.Revocation), err
		}
		if c.now().After(certificate.NotAfter) {
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
		c.publications.wakeUp()
		return recorded, nil
	}
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

func (c *CA) checkRevokeOrder(o RevokeOrder, certificate Certificate) error {
	switch o.Reason {
	case issuance.Unspecified, issuance.KeyCompromise, issuance.AffiliationChanged, issuance.Superseded, issuance.CessationOfOperation,
		issuance.CertificateHold, issuance.RemoveFromCRL, issuance.PrivilegeWithdrawn:
	default:
		return &InvalidError{
			Field: "reason", Message: fmt.Sprintf("%s is not a reason for an end-entity certificate", o.Reason),
			Hint: "use keyCompromise, affiliationChanged, superseded, cessationOfOperation, certificateHold, privilegeWithdrawn or unspecified",
		}
	}
	if o.Reason == issuance.CertificateHold {
		if p, ok := c.rules().Profile(certificate.Profile); ok && !p.AllowsHold() {
			return &InvalidError{
				Field: "reason", Message: "certificates of profile " + certificate.Profile + " cannot be put on hold",
				Hint: "the Baseline Requirements, section 4.9.13, forbid certificateHold; revoke for good, with another reason",
			}
		}
	}
	if len(o.Comment) > maxComment {
		return &InvalidError{Field: "comment", Message: fmt.Sprintf("the comment has more than %d octets", maxComment), Hint: "shorten it"}
	}
	if !o.InvalidityDate.IsZero() && o.InvalidityDate.After(c.now()) {
		return &InvalidError{Field: "invalidity_date", Message: "the invalidity date lies in the future", Hint: "give the moment since when the key is not trusted"}
	}
	return nil
}

// recordRevocation writes one entry with its leaf. It ends by itself when the caller leaves: either nothing or all was written.
func (c *CA) recordRevocation(ctx context.Context, o RevokeOrder, certificate Certificate, after int) (Revocation, error) {
	r := Revocation{
		Issuer: certificate.Issuer, Serial: o.Serial, Sequence: after + 1, Reason: o.Reason, At: c.now().Truncate(time.Second),
		InvalidityDate: o.InvalidityDate.Truncate(time.Second), Comment: o.Comment, Actor: o.Actor.ID, EventID: c.newID(),
		CRLScope: certificate.CRLScope, NotAfter: certificate.NotAfter, SPKI: certificate.SPKI,
	}
	kind := audit.CertificateRevoked
	if o.Reason == issuance.RemoveFromCRL {
		kind = audit.CertificateReleased
	}
	data := map[string]string{"issuer": r.Issuer, "serial": hex.EncodeToString(r.Serial), "reason": r.Reason.String(), "comment_sha256": hexSHA256([]byte(o.Comment))}
	if !r.InvalidityDate.IsZero() {
		data["invalidity_date"] = r.InvalidityDate.UTC().Format(time.RFC3339)
	}
	leaf, err := c.leafWithID(r.EventID, kind, o.Actor.ID, certificate.Namespace, c.now(), data)
	if err != nil {
		return Revocation{}, err
	}
	return c.store.RecordRevocation(ctx, r, after, leaf)
}

func valueOrZero(r *Revocation) Revocation {
	if r == nil {
		return Revocation{}
	}
	return *r
}
