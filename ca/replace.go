package ca

import (
	"context"
	"encoding/hex"
	"errors"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/issuance"
)

// issueReplacing issues a certificate, and when that is durable revokes the one that it replaces, as superseded. Who asks must be allowed to
// revoke that, which is looked at before anything is issued.
//
// The certificate is there whatever becomes of the revocation. One that failed is made up for when the request is repeated under its
// idempotency key: its certificate is found again, and to revoke twice is harmless.
func (c *CA) issueReplacing(ctx context.Context, o Order) (Outcome, error) {
	old, err := c.replaceable(ctx, o)
	if err != nil {
		return Outcome{}, err
	}
	outcome, err := c.issue(ctx, o)
	if err != nil || outcome.Waiting != nil {
		return outcome, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), issueDeadline)
	defer cancel()
	order := RevokeOrder{
		Actor: o.Actor, Issuer: old.Issuer, Serial: o.Replaces, Reason: issuance.Superseded,
		Comment: "replaced by " + outcome.Certificate.Serial.String() + " of " + outcome.Certificate.Issuer,
	}
	switch _, err := c.Revoke(ctx, order); {
	case err == nil, errors.Is(err, ErrExpired):
		outcome.Replaced = o.Replaces
	default:
		c.metrics.Failed("supersede")
		c.log.ErrorContext(ctx, "a certificate was replaced, and revoking it failed: the requester may repeat the request, or revoke it", "issuer", old.Issuer,
			"serial", old.Serial.String(), "by", outcome.Certificate.Serial.String(), "error", err)
	}
	return outcome, nil
}

// replaceable is the certificate that an order replaces. One of another namespace and one that nobody has get the same answer.
func (c *CA) replaceable(ctx context.Context, o Order) (Certificate, error) {
	resource := access.Resource{Namespace: o.Actor.Namespace, Kind: "certificate", ID: hex.EncodeToString(o.Replaces)}
	if err := c.authorize(ctx, o.Actor, access.RevokeCertificate, resource); err != nil {
		return Certificate{}, err
	}
	old, err := c.find(ctx, o.Actor, access.RevokeCertificate, "", o.Replaces)
	var archived *ArchivedError
	var denied *access.Denied
	switch {
	case errors.Is(err, ErrNotFound), errors.As(err, &archived), errors.As(err, &denied), err == nil && old.Namespace != o.Actor.Namespace:
		return old, &InvalidError{
			Field: "replaces", Message: "there is no such certificate in the requester's namespace", Hint: "give the serial of the one to be revoked, or leave it out",
		}
	case errors.Is(err, ErrAmbiguousSerial):
		return old, &InvalidError{Field: "replaces", Message: "several authorities have issued this serial", Hint: "leave it out, and revoke the one by itself"}
	}
	return old, err
}

// waitsToReplace refuses an order that replaces a certificate where persons must approve: when they have, nobody is there to be told
// whether the old one is revoked.
func waitsToReplace() error {
	return &InvalidError{
		Field: "replaces", Message: "this request needs approval, and only what is issued at once can replace a certificate",
		Hint: "leave it out, and revoke the old certificate as superseded when the new one is there",
	}
}
