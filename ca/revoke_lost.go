package ca

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/chancery-ca/chancery/issuance"
)

// lostReasons are why a certificate can be revoked that nobody has. Its key is not known, so that none can be called compromised.
var lostReasons = []issuance.Reason{
	issuance.Unspecified, issuance.AffiliationChanged, issuance.Superseded, issuance.CessationOfOperation, issuance.PrivilegeWithdrawn,
}

// LostCertificate is a certificate that an authority has signed and of which nothing is on record: the database that had it was lost, and
// an older copy took its place. A keeper's journal tells its serial.
type LostCertificate struct {
	Issuer  string
	Serial  issuance.Serial
	Scope   string // of the CRL that it is to be on
	Reason  issuance.Reason
	Comment string
	// Signed are SHA-256 of what was signed, where the journal's account tells: of a precertificate and its certificate, two. With them the
	// record accounts for these signatures; without, for one of which nobody can tell whether it is the one.
	Signed [][sha256.Size]byte
}

// maxSigned is how many signatures one serial number may have: a precertificate's and its certificate's.
const maxSigned = 2

// RevokeLost records that a certificate is revoked of which nothing else is known: its serial stays on the CRL until its issuer ends,
// because when it ends itself nobody can tell. Repeating is harmless: the first revocation stays. It returns ErrNotFound of an unknown
// authority, and *InvalidError.
func (r Registrar) RevokeLost(ctx context.Context, l LostCertificate) (Revocation, error) {
	if err := l.check(); err != nil {
		return Revocation{}, err
	}
	issuer, err := r.issuerOf(ctx, l)
	if err != nil {
		return Revocation{}, err
	}
	recorded, err := r.Store.LatestRevocation(ctx, l.Issuer, l.Serial[:])
	if err == nil || !errors.Is(err, ErrNotFound) {
		return recorded, err
	}
	more := map[string]string{"crl_scope": l.Scope} // which otherwise the certificate tells
	if len(l.Signed) > 0 {
		more["tbs_sha256"] = l.signed()
	}
	recorded, err = r.recordRevocation(ctx, Revocation{
		Issuer: l.Issuer, Serial: l.Serial[:], Reason: l.Reason, Comment: l.Comment, CRLScope: l.Scope, NotAfter: issuer.NotAfter,
	}, more)
	if err != nil {
		return Revocation{}, fmt.Errorf("recording the revocation of %s: %w", l.Serial, err)
	}
	return recorded, nil
}

// signed are the digests in hex, with commas between them.
func (l LostCertificate) signed() string {
	all := make([]string, len(l.Signed))
	for i, digest := range l.Signed {
		all[i] = hex.EncodeToString(digest[:])
	}
	return strings.Join(all, ",")
}

func (l LostCertificate) check() error {
	switch {
	case len(l.Signed) > maxSigned:
		return &InvalidError{
			Field: "sha256", Message: fmt.Sprintf("%d signatures cannot have one serial number", len(l.Signed)),
			Hint: "name the certificate's and, where it has one, its precertificate's: a further one is another certificate",
		}
	case !l.Serial.Valid():
		return &InvalidError{
			Field: "serial", Message: l.Serial.String() + " is no serial number that an authority of ours gives",
			Hint: "take it from the keeper's journal",
		}
	case !slices.Contains(lostReasons, l.Reason):
		return &InvalidError{
			Field: "reason", Message: fmt.Sprintf("%s is not a reason to revoke a certificate that is on no record", l.Reason),
			Hint: "leave it out, or use superseded, cessationOfOperation, affiliationChanged, privilegeWithdrawn",
		}
	case len(l.Comment) > maxComment:
		return longComment()
	}
	return nil
}

// issuerOf is the certificate of the authority. Whatever is on record is not lost, and is revoked as everything else is.
func (r Registrar) issuerOf(ctx context.Context, l LostCertificate) (*x509.Certificate, error) {
	known, err := r.Store.Authorities(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the authorities: %w", err)
	}
	authority, err := authorityNamed(known, l.Issuer)
	if err != nil {
		return nil, err
	}
	status, err := r.Store.CertificateStatus(ctx, l.Issuer, l.Serial[:])
	if err != nil {
		return nil, err
	}
	if status.Issued && !status.Revoked {
		return nil, &InvalidError{Field: "serial", Message: l.Serial.String() + " is on record", Hint: "chancery revoke " + l.Serial.String()}
	}
	certificate, err := x509.ParseCertificate(authority.Certificate)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate of %s: %w", l.Issuer, err)
	}
	return certificate, nil
}
