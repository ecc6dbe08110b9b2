package ceremony

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"os"
	"time"

	"github.com/chancery-ca/chancery/issuance"
)

// renewal is what a later CRL of an authority is made from.
type renewal struct {
	certificate *x509.Certificate
	contents    issuance.CRLContents
	inputs      []fileLine // the files that were read
	standIn     bool       // the certificate is that of a key which has not signed the CRL before
}

// renew makes a later CRL of an authority that exists.
func (a *act) renew(ctx context.Context, planned CRL) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	from, err := a.plan.renewal(planned, a.now)
	if err != nil {
		return err
	}
	for _, f := range from.inputs {
		if err := a.place.input(f); err != nil {
			return err
		}
	}
	issuer, err := a.lister(planned, from.certificate)
	if err != nil {
		return err
	}
	list, err := a.list(ctx, planned.Issuer, issuer, from.contents)
	if err != nil {
		return err
	}
	return a.place.file(planned.Issuer+crlSuffix, list)
}

// lister opens the authority whose CRL it is, unless it has certified in this ceremony and is open: the rehearsal has seen to it that
// both have one certificate.
func (a *act) lister(planned CRL, certificate *x509.Certificate) (*issuance.Issuer, error) {
	if made := a.made[planned.Issuer]; made != nil {
		return made.issuer, nil
	}
	key, err := a.place.key(planned.Issuer, planned.Key, certificate.PublicKey)
	if err != nil {
		return nil, err
	}
	return issuance.NewIssuer(certificate, key.signer)
}

// renewal reads the issuer's certificate and the CRL before, and says what the next CRL lists: what was on it, and what the plan adds.
func (p Plan) renewal(planned CRL, now time.Time) (renewal, error) {
	var r renewal
	data, err := r.read(p, planned.Certificate, "CERTIFICATE")
	if err != nil {
		return renewal{}, err
	}
	if r.certificate, err = x509.ParseCertificate(data); err != nil {
		return renewal{}, fmt.Errorf("reading %s: %w", planned.Certificate, err)
	}
	r.contents = issuance.CRLContents{ThisUpdate: now, NextUpdate: now.Add(time.Duration(planned.Validity))}
	if now.Before(r.certificate.NotBefore) || r.contents.NextUpdate.After(r.certificate.NotAfter.Add(time.Second)) {
		return renewal{}, fmt.Errorf("the CRL, until %s, would reach beyond the validity of its issuer, %s to %s",
			r.contents.NextUpdate.UTC().Format(time.RFC3339), r.certificate.NotBefore.UTC().Format(time.RFC3339), r.certificate.NotAfter.UTC().Format(time.RFC3339))
	}
	var last *big.Int
	if planned.Previous != "" {
		if last, err = r.follow(p, planned.Previous); err != nil {
			return renewal{}, err
		}
	}
	if r.contents.Number = planned.number; planned.number == nil {
		r.contents.Number = nextNumber(last, now)
	} else if last != nil && planned.number.Cmp(last) <= 0 {
		return renewal{}, fmt.Errorf("the number %s is not above that of the CRL before, %s", planned.number, last)
	}
	if r.contents.Number.Cmp(maxNumber) >= 0 {
		return renewal{}, fmt.Errorf("no number is left above that of the CRL before, %s", last)
	}
	return r, r.add(planned.Revoked)
}

// succession is what the CRL lists that an offline authority gets with its certificate: nothing, or what the last one under its key and
// subject lists. A rehearsal cannot tell who signed that one; survey does.
func (p Plan) succession(planned Schedule, certificate *x509.Certificate, standIn bool, now time.Time) (renewal, error) {
	r := renewal{certificate: certificate, standIn: standIn}
	r.contents = issuance.CRLContents{ThisUpdate: now, NextUpdate: now.Add(time.Duration(planned.Validity))}
	var last *big.Int
	if planned.Previous != "" {
		var err error
		if last, err = r.follow(p, planned.Previous); err != nil {
			return renewal{}, err
		}
	}
	if r.contents.Number = nextNumber(last, now); r.contents.Number.Cmp(maxNumber) >= 0 {
		return renewal{}, fmt.Errorf("no number is left above that of the CRL before, %s", last)
	}
	return r, nil
}

// read reads one file of the plan, and remembers it.
func (r *renewal) read(p Plan, name, pemType string) ([]byte, error) {
	data, err := os.ReadFile(p.path(name))
	if err != nil {
		return nil, err
	}
	r.inputs = append(r.inputs, fileLine{Name: name, SHA256: hexDigest(data)})
	der, err := derOf(data, pemType)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return der, nil
}

func (r *renewal) previous(p Plan, name string) (*x509.RevocationList, error) {
	data, err := r.read(p, name, "X509 CRL")
	if err != nil {
		return nil, err
	}
	return x509.ParseRevocationList(data)
}

// follow takes over the entries of the CRL before, and returns its number.
func (r *renewal) follow(p Plan, name string) (*big.Int, error) {
	wrap := func(err error) error { return fmt.Errorf("the CRL before, %s: %w", name, err) }
	previous, err := r.previous(p, name)
	if err != nil {
		return nil, wrap(err)
	}
	if !r.standIn {
		if err := previous.CheckSignatureFrom(r.certificate); err != nil {
			return nil, wrap(err)
		}
	}
	switch {
	case !bytes.Equal(previous.RawIssuer, r.certificate.RawSubject): // which may have the same key
		return nil, wrap(fmt.Errorf("it is that of %q, and not of %q", previous.Issuer, r.certificate.Subject))
	case previous.Number == nil:
		return nil, wrap(errors.New("it has no number"))
	case previous.ThisUpdate.After(r.contents.ThisUpdate):
		return nil, wrap(fmt.Errorf("it was made later, at %s: the clock is wrong", previous.ThisUpdate.UTC().Format(time.RFC3339)))
	}
	if what := issuance.Partial(previous); what != "" {
		return nil, wrap(fmt.Errorf("it is not complete, but %s: what the others revoke would be forgotten; name a complete one", what))
	}
	for _, e := range previous.RevokedCertificateEntries {
		kept, err := keptEntry(e)
		if err != nil {
			return nil, wrap(err)
		}
		r.contents.Entries = append(r.contents.Entries, kept)
	}
	return previous.Number, nil
}

// invalidityDate is the entry extension of RFC 5280, section 5.3.2; reasonCode that of section 5.3.1.
const (
	reasonCode     = "2.5.29.21"
	invalidityDate = "2.5.29.24"
)

// keptEntry takes an entry over as it stands, or refuses: nothing of it may be lost silently.
func keptEntry(e x509.RevocationListEntry) (issuance.CRLEntry, error) {
	if e.SerialNumber.Sign() <= 0 { // without its sign it would be another certificate's
		return issuance.CRLEntry{}, fmt.Errorf("the serial number %d is not above 0, and cannot be listed again", e.SerialNumber)
	}
	kept := issuance.CRLEntry{Serial: e.SerialNumber.Bytes(), RevokedAt: e.RevocationTime, Reason: issuance.Reason(e.ReasonCode)}
	for _, extension := range e.Extensions {
		switch extension.Id.String() {
		case reasonCode:
		case invalidityDate:
			at, err := generalizedTime(extension.Value)
			if err != nil {
				return issuance.CRLEntry{}, fmt.Errorf("serial %x: %w", kept.Serial, err)
			}
			kept.InvalidityDate = at
		default:
			return issuance.CRLEntry{}, fmt.Errorf("serial %x has an extension that is not known, %s", kept.Serial, extension.Id)
		}
	}
	return kept, nil
}

// add joins the newly revoked.
func (r *renewal) add(revoked []Revoked) error {
	known := map[string]bool{}
	for _, e := range r.contents.Entries {
		known[string(e.Serial)] = true
	}
	for _, planned := range revoked {
		if known[string(planned.serial)] {
			return fmt.Errorf("serial %s is on the CRL before; leave it out of the plan", planned.Serial)
		}
		r.contents.Entries = append(r.contents.Entries, issuance.CRLEntry{Serial: planned.serial, RevokedAt: planned.at, Reason: planned.reason})
	}
	return nil
}

func generalizedTime(der []byte) (time.Time, error) {
	var at time.Time
	rest, err := asn1.UnmarshalWithParams(der, &at, "generalized")
	if err != nil || len(rest) > 0 {
		return time.Time{}, errors.New("its invalidity date cannot be read")
	}
	return at, nil
}
