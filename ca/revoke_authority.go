package ca

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/issuance"
)

// authorityReasons are why an authority can be revoked. It is never put on hold: it does not come back. Nor is it left unsaid why: a CRL
// gives a reason for every authority (BR, section 7.2.2), and that of unspecified is absent.
var authorityReasons = []issuance.Reason{
	issuance.CACompromise, issuance.KeyCompromise, issuance.AffiliationChanged, issuance.Superseded, issuance.CessationOfOperation,
	issuance.PrivilegeWithdrawn,
}

// IsCompromise tells the reasons to revoke an authority for which its key is certified never again.
func IsCompromise(reason issuance.Reason) bool {
	return reason == issuance.CACompromise || reason == issuance.KeyCompromise
}

// RevokedAuthority is an authority that was revoked, and whose CRL has to say so.
type RevokedAuthority struct {
	Authority  AuthorityRecord
	Parent     AuthorityRecord
	Revocation Revocation
	Serial     []byte // of the authority's certificate
}

// RevokeAuthority records that an authority's certificate is revoked. An online parent puts it on its next CRL by itself; an offline one
// makes that CRL in a ceremony. A compromised key of it is certified never again. Repeating is harmless: the first revocation stays, and it
// makes up for a key that a crash kept from being remembered.
func (r Registrar) RevokeAuthority(ctx context.Context, name string, reason issuance.Reason, comment string) (RevokedAuthority, error) {
	if !slices.Contains(authorityReasons, reason) {
		names := make([]string, len(authorityReasons))
		for i, known := range authorityReasons {
			names[i] = known.String()
		}
		return RevokedAuthority{}, &InvalidError{
			Field: "reason", Message: fmt.Sprintf("%s is not a reason to revoke an authority; use %s", reason, strings.Join(names, ", ")),
			Hint: "say why the authority is revoked",
		}
	}
	if len(comment) > maxComment {
		return RevokedAuthority{}, longComment()
	}
	revoked, certificate, err := r.withParent(ctx, name)
	if err != nil {
		return RevokedAuthority{}, err
	}
	revoked.Revocation, err = r.Store.LatestRevocation(ctx, revoked.Parent.Name, revoked.Serial)
	if errors.Is(err, ErrNotFound) {
		revoked.Revocation, err = r.recordAuthorityRevocation(ctx, revoked, certificate, reason, comment)
	} else if err != nil {
		err = fmt.Errorf("looking whether %s is revoked: %w", name, err)
	}
	if err == nil && IsCompromise(reason) {
		err = r.rememberKey(ctx, revoked, certificate)
	}
	if err != nil {
		return RevokedAuthority{}, err
	}
	return revoked, nil
}

// rememberKey keeps the key of a revoked authority out of later certificates, whatever it was revoked for. One that is known is left alone.
func (r Registrar) rememberKey(ctx context.Context, revoked RevokedAuthority, certificate *x509.Certificate) error {
	name := revoked.Authority.Name
	leaf, err := r.leaf(audit.KeyCompromised, map[string]string{"authority": name, "issuer": revoked.Parent.Name})
	if err == nil {
		spki := sha256.Sum256(certificate.RawSubjectPublicKeyInfo)
		err = r.Store.RecordCompromisedKey(ctx, spki, revoked.Parent.Name, revoked.Serial, r.Now().Truncate(time.Second), leaf)
	}
	if err != nil {
		return fmt.Errorf("remembering the key of %s: %w", name, err)
	}
	return nil
}

func (r Registrar) recordAuthorityRevocation(ctx context.Context, revoked RevokedAuthority, certificate *x509.Certificate,
	reason issuance.Reason, comment string,
) (Revocation, error) {
	name := revoked.Authority.Name
	recorded, err := r.recordRevocation(ctx, Revocation{
		Issuer: revoked.Parent.Name, Serial: revoked.Serial, Reason: reason, Comment: comment, CRLScope: FullScope, NotAfter: certificate.NotAfter,
		SPKI: sha256.Sum256(certificate.RawSubjectPublicKeyInfo),
	}, map[string]string{"authority": name})
	if err != nil {
		return Revocation{}, fmt.Errorf("recording the revocation of %s: %w", name, err)
	}
	return recorded, nil
}

// recordRevocation records the first revocation of a certificate, now, by whoever is at the keyboard. Its event tells what is in more
// besides.
func (r Registrar) recordRevocation(ctx context.Context, entry Revocation, more map[string]string) (Revocation, error) {
	entry.Sequence, entry.At, entry.Actor, entry.EventID = 1, r.Now().Truncate(time.Second), r.Actor, r.NewID()
	kind, data := revocationData(entry)
	maps.Copy(data, more)
	leaf, err := r.leafWithID(entry.EventID, kind, data)
	if err != nil {
		return Revocation{}, err
	}
	return r.Store.RecordRevocation(ctx, entry, 0, leaf)
}

// authorityNamed finds an authority; ErrNotFound.
func authorityNamed(known []AuthorityRecord, name string) (AuthorityRecord, error) {
	i := slices.IndexFunc(known, func(a AuthorityRecord) bool { return a.Name == name })
	if i < 0 {
		return AuthorityRecord{}, fmt.Errorf("authority %q: %w", name, ErrNotFound)
	}
	return known[i], nil
}

// withParent finds an authority and the one that certified it.
func (r Registrar) withParent(ctx context.Context, name string) (RevokedAuthority, *x509.Certificate, error) {
	known, err := r.Store.Authorities(ctx)
	if err != nil {
		return RevokedAuthority{}, nil, fmt.Errorf("reading the authorities: %w", err)
	}
	var found RevokedAuthority
	if found.Authority, err = authorityNamed(known, name); err != nil {
		return found, nil, err
	}
	if found.Authority.Parent == "" {
		return found, nil, &InvalidError{
			Field: "authority", Message: name + " is a root: no CRL can revoke it", Hint: "have those who trust it remove it; revoke what it has certified",
		}
	}
	if found.Parent, err = authorityNamed(known, found.Authority.Parent); err != nil {
		return found, nil, err
	}
	certificate, err := x509.ParseCertificate(found.Authority.Certificate)
	if err != nil {
		return found, nil, fmt.Errorf("reading the certificate of %s: %w", name, err)
	}
	found.Serial = certificate.SerialNumber.Bytes()
	return found, certificate, nil
}
