package ca

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"regexp"
	"slices"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/issuance"
)

// Registrar takes in what was made elsewhere: authorities from a ceremony, and CRLs that an offline authority signed. It needs no key.
type Registrar struct {
	Store Store
	Now   func() time.Time
	NewID func() string
	Actor string // who is at the keyboard, for the audit log
	// Person is who that is among those who approve orders; empty: it is not known.
	Person string
}

// authorityName is what an authority may be called: it stands in URLs and file names.
var authorityName = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$`)

// AddAuthority registers an authority. The chain must verify from its certificate up to a self-signed root, and every certificate must
// be an authority's; its parent, where that is on record, must be the one that the chain goes on with. The same again is no error.
func (r Registrar) AddAuthority(ctx context.Context, a AuthorityRecord) error {
	if err := r.CheckAuthority(ctx, a); err != nil {
		return err
	}
	leaf, err := r.leaf(audit.AuthorityAdded, map[string]string{
		"authority": a.Name, "parent": a.Parent, "certificate_sha256": hexSHA256(a.Certificate), "token": a.Key.Token, "key_label": a.Key.Label,
		"key_id": hex.EncodeToString(a.Key.ID), "online": fmt.Sprint(a.Online),
	})
	if err != nil {
		return err
	}
	a.AddedAt = r.Now()
	if err := r.Store.RecordAuthority(ctx, a, leaf); err != nil {
		return fmt.Errorf("adding authority %q: %w", a.Name, err)
	}
	return nil
}

// CheckAuthority refuses what AddAuthority would refuse, before others are asked to approve it.
func (r Registrar) CheckAuthority(ctx context.Context, a AuthorityRecord) error {
	if err := checkAuthority(a, r.Now()); err != nil {
		return err
	}
	known, err := r.Store.Authorities(ctx)
	if err != nil {
		return fmt.Errorf("reading the authorities: %w", err)
	}
	if err := checkParents(a, known); err != nil {
		return err
	}
	onRecord := func(k AuthorityRecord) bool { return k.Name == a.Name && bytes.Equal(k.Certificate, a.Certificate) }
	if slices.ContainsFunc(known, onRecord) { // an authority that is revoked stays one
		return nil
	}
	chain, err := a.parsedChain()
	if err != nil {
		return err
	}
	if err := r.checkKeys(ctx, chain); err != nil {
		return err
	}
	if err := r.checkRevocations(ctx, chain, known); err != nil {
		return err
	}
	return checkTwins(a, chain[0], known)
}

// parsedChain is the chain of an authority, its own certificate first.
func (a AuthorityRecord) parsedChain() ([]*x509.Certificate, error) {
	chain := make([]*x509.Certificate, len(a.Chain))
	for i, der := range a.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("reading the chain of authority %q: %w", a.Name, err)
		}
		chain[i] = c
	}
	return chain, nil
}

// isOf tells whether a certificate is of the name and the key of an authority.
func (a AuthorityRecord) isOf(c *x509.Certificate) (bool, error) {
	own, err := x509.ParseCertificate(a.Certificate)
	if err != nil {
		return false, fmt.Errorf("reading the certificate of authority %q: %w", a.Name, err)
	}
	return bytes.Equal(c.RawSubject, own.RawSubject) && bytes.Equal(c.RawSubjectPublicKeyInfo, own.RawSubjectPublicKeyInfo), nil
}

func checkAuthority(a AuthorityRecord, now time.Time) error {
	invalid := func(field, hint, format string, args ...any) error {
		return &InvalidError{Field: field, Message: fmt.Sprintf(format, args...), Hint: hint}
	}
	if !authorityName.MatchString(a.Name) {
		return invalid("name", "use lower-case letters, digits, dots and hyphens", "%q cannot be an authority's name", a.Name)
	}
	if len(a.Chain) == 0 || !bytes.Equal(a.Chain[0], a.Certificate) {
		return invalid("chain", "", "the chain does not begin with the authority's certificate")
	}
	var chain []*x509.Certificate
	for i, der := range a.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return invalid("chain", "", "certificate %d cannot be read: %v", i, err)
		}
		if !c.IsCA || c.KeyUsage&x509.KeyUsageCertSign == 0 {
			return invalid("chain", "", "certificate %d (%s) is not an authority's", i, c.Subject)
		}
		chain = append(chain, c)
	}
	for i, c := range chain {
		issuer := chain[min(i+1, len(chain)-1)]
		if err := c.CheckSignatureFrom(issuer); err != nil {
			return invalid("chain", "give every certificate up to the root, in order", "certificate %d (%s) is not signed by the next: %v", i, c.Subject, err)
		}
		if now.After(c.NotAfter) {
			return invalid("chain", "", "certificate %d (%s) expired on %s", i, c.Subject, c.NotAfter.Format(time.RFC3339))
		}
	}
	for field, address := range map[string]string{"crl_url": a.CRLURL, "issuer_url": a.IssuerURL, "ocsp_url": a.OCSPURL} {
		// Clients fetch these without TLS: a CRL over HTTPS would need a CRL to be checked (RFC 5280, section 8).
		if u, err := url.Parse(address); address != "" && (err != nil || u.Scheme != "http" || u.Host == "") {
			return invalid(field, "write a full http:// URL", "%q is not a URL to fetch from", address)
		}
	}
	if a.Online {
		if a.CRL.Period <= 0 || a.CRL.Validity <= a.CRL.Period {
			return invalid("crl", "for example a period of 24h and a validity of 7d", "a CRL must be valid for longer than the period between two")
		}
		if a.Key.Label == "" && len(a.Key.ID) == 0 {
			return invalid("key", "", "an online authority's key needs a label or a CKA_ID")
		}
	}
	return nil
}

// checkParents refuses an authority under another's name than that of its issuer, in whichever order the two are registered: nobody who holds
// its certificate would look for its revocation on that other one's CRL.
func checkParents(a AuthorityRecord, known []AuthorityRecord) error {
	for _, k := range known {
		parent, child, field := k, a, "parent"
		switch {
		case k.Name == a.Parent:
		case k.Parent == a.Name:
			parent, child, field = a, k, "name"
		default:
			continue
		}
		switch certified, err := child.under(parent); {
		case err != nil:
			return err
		case !certified:
			return &InvalidError{
				Field: field, Message: fmt.Sprintf("%s was not certified by %s, which its bundle names as its parent", child.Name, parent.Name),
				Hint: "name issuers in a ceremony's plan as they are on record; `chancery authority list` shows them",
			}
		}
	}
	return nil
}

// checkKeys refuses an authority whose key, or that of one above it, was revoked as compromised: a ceremony knows nothing of that.
func (r Registrar) checkKeys(ctx context.Context, chain []*x509.Certificate) error {
	for _, c := range chain {
		switch compromised, err := r.Store.KeyCompromised(ctx, sha256.Sum256(c.RawSubjectPublicKeyInfo)); {
		case err != nil:
			return fmt.Errorf("looking whether the key of %q is compromised: %w", c.Subject, err)
		case compromised:
			return &InvalidError{
				Field: "chain", Message: fmt.Sprintf("the key of %q was revoked as compromised", c.Subject), Hint: "generate another key in a ceremony",
			}
		}
	}
	return nil
}

// checkRevocations refuses an authority whose certificate, or that of one above it, is revoked, for whatever reason: nothing that it issued would
// be good.
func (r Registrar) checkRevocations(ctx context.Context, chain []*x509.Certificate, known []AuthorityRecord) error {
	for i, c := range chain[:len(chain)-1] {
		for _, k := range known {
			certified, err := k.isOf(chain[i+1])
			if err != nil {
				return err
			}
			if !certified {
				continue
			}
			switch revoked, err := r.Store.LatestRevocation(ctx, k.Name, c.SerialNumber.Bytes()); {
			case errors.Is(err, ErrNotFound):
			case err != nil:
				return fmt.Errorf("looking whether %q is revoked: %w", c.Subject, err)
			case revoked.Reason != issuance.RemoveFromCRL:
				return &InvalidError{
					Field: "chain", Message: fmt.Sprintf("%s has revoked %q, serial %x (%s)", k.Name, c.Subject, c.SerialNumber, revoked.Reason),
					Hint: "make it in a ceremony under an authority that is not revoked",
				}
			}
		}
	}
	return nil
}

// checkTwins refuses an authority of another's name and key. Either would make CRLs that are valid for the certificates of both, by numbers of
// its own, and show nothing of what the other has revoked.
func checkTwins(a AuthorityRecord, certificate *x509.Certificate, known []AuthorityRecord) error {
	for _, k := range known {
		switch twins, err := k.isOf(certificate); {
		case err != nil:
			return err
		case twins && k.Name != a.Name: // one of this name stays as it is on record
			return &InvalidError{
				Field: "certificate", Message: fmt.Sprintf("%s has the same subject, %q, and the same key", k.Name, certificate.Subject),
				Hint: "make a successor in a ceremony, with a subject and a key of its own",
			}
		}
	}
	return nil
}

// under tells whether the authority that certified this one, by its name and its key, is the other.
func (a AuthorityRecord) under(parent AuthorityRecord) (bool, error) {
	above, err := a.Above()
	if err != nil || len(above) == 0 {
		return false, err
	}
	return parent.isOf(above[0])
}

// ImportCRL takes in a CRL signed elsewhere. It must be the authority's, current, of a higher number than the last, keep its entries, and
// have whatever was on record as revoked when it was made.
func (r Registrar) ImportCRL(ctx context.Context, authority string, der []byte) (CRLRecord, error) {
	known, err := r.Store.Authorities(ctx)
	if err != nil {
		return CRLRecord{}, fmt.Errorf("reading the authorities: %w", err)
	}
	at := slices.IndexFunc(known, func(a AuthorityRecord) bool { return a.Name == authority })
	if at < 0 {
		return CRLRecord{}, fmt.Errorf("authority %q: %w", authority, ErrNotFound)
	}
	const tries = 3 // another CRL may have been imported while this one was held against the one before
	for n := 1; ; n++ {
		record, err := r.importCRL(ctx, known[at], der, known)
		if n == tries || !errors.Is(err, ErrFenced) {
			return record, err
		}
	}
}

func (r Registrar) importCRL(ctx context.Context, a AuthorityRecord, der []byte, known []AuthorityRecord) (CRLRecord, error) {
	invalid := func(hint, format string, args ...any) (CRLRecord, error) {
		return CRLRecord{}, &InvalidError{Field: "crl", Message: fmt.Sprintf(format, args...), Hint: hint}
	}
	if a.Online {
		return invalid("the service makes its CRLs by itself", "%s is an online authority", a.Name)
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return invalid("give a DER file", "the CRL cannot be read: %v", err)
	}
	issuer, err := x509.ParseCertificate(a.Certificate)
	if err != nil {
		return CRLRecord{}, fmt.Errorf("reading the certificate of %s: %w", a.Name, err)
	}
	if err := list.CheckSignatureFrom(issuer); err != nil {
		return invalid("is it the CRL of this authority?", "the CRL is not signed by %s: %v", a.Name, err)
	}
	read, err := issuance.ReadCRL(der)
	if err == nil {
		err = read.VerifiedBy(issuer) // as whoever serves it does
	}
	partial := issuance.Partial(list)
	switch now := r.Now(); {
	case err != nil:
		return invalid("make one in a ceremony of chancery", "the CRL could not be served: %v", err)
	case partial != "":
		return invalid("give the complete CRL", "the CRL is not complete, but %s: what the others revoke would be forgotten", partial)
	case list.ThisUpdate.After(now.Add(time.Hour)):
		return invalid("check the clock", "the CRL is of the future: %s", list.ThisUpdate.Format(time.RFC3339))
	case !list.NextUpdate.After(now):
		return invalid("make a new one in a ceremony", "the CRL ran out on %s", list.NextUpdate.Format(time.RFC3339))
	}
	record := CRLRecord{
		Issuer: a.Name, Scope: FullScope, Number: list.Number, DER: der, ThisUpdate: list.ThisUpdate, NextUpdate: list.NextUpdate,
		Entries: len(list.RevokedCertificateEntries), EventID: r.NewID(),
	}
	for _, e := range list.RevokedCertificateEntries {
		record.Pending = append(record.Pending, CRLPending{Serial: e.SerialNumber.Bytes()})
	}
	listed := listedSerials(list)
	current, err := r.Store.CurrentCRL(ctx, a.Name, FullScope, nil)
	switch {
	case errors.Is(err, ErrNotFound):
	case err != nil:
		return CRLRecord{}, fmt.Errorf("reading the CRL of %s that is served: %w", a.Name, err)
	case sha256.Sum256(current.DER) == sha256.Sum256(der):
		return current, nil // the same again
	default:
		served, err := x509.ParseRevocationList(current.DER)
		if err != nil {
			return CRLRecord{}, fmt.Errorf("reading the CRL of %s that is served: %w", a.Name, err)
		}
		// What has ended since was on no CRL after its end yet (RFC 5280, section 3.3).
		if serial := forgotten(served, listed, ended(a.Name, known, served.ThisUpdate)); serial != nil {
			return invalid("make it in a ceremony whose previous is the CRL that is served now",
				"the CRL leaves out serial %x, which the one that is served has", serial)
		}
	}
	switch missing, err := r.missing(ctx, a.Name, list, listed); {
	case err != nil:
		return CRLRecord{}, err
	case missing != nil:
		return invalid("make it in a ceremony that revokes it too: chancery authority revoke writes the plan",
			"the CRL leaves out serial %x, which was on record as revoked, since %s, when it was made", missing.Serial,
			missing.RevokedAt.UTC().Format(time.RFC3339))
	}
	data := crlData(record)
	leaf, err := r.leafWithID(record.EventID, audit.CRLImported, data)
	if err != nil {
		return CRLRecord{}, err
	}
	if err := r.Store.ImportCRL(ctx, record, current.Number, leaf); err != nil {
		return CRLRecord{}, fmt.Errorf("importing the CRL of %s: %w", a.Name, err)
	}
	return record, nil
}

// listedSerials are the serials on a list, by their octets.
func listedSerials(list *x509.RevocationList) map[string]bool {
	serials := make(map[string]bool, len(list.RevokedCertificateEntries))
	for _, e := range list.RevokedCertificateEntries {
		serials[string(e.SerialNumber.Bytes())] = true
	}
	return serials
}

// missing is a revocation on record that a CRL of an authority does not have, although it was made later. Of one that is younger than the CRL
// it could not know. What has ended is on one CRL more (RFC 5280, section 3.3), unless it had before it was revoked. Nil: there is none.
func (r Registrar) missing(ctx context.Context, authority string, list *x509.RevocationList, listed map[string]bool) (
	missing *issuance.RevokedEntry, err error,
) {
	_, err = r.Store.ListedRevocations(ctx, authority, FullScope, func(e issuance.RevokedEntry) error {
		if missing == nil && e.RevokedAt.Before(list.ThisUpdate) && !e.NotAfter.Before(e.RevokedAt) && !listed[string(e.Serial)] {
			missing = &e
		}
		return nil
	})
	if err != nil && !errors.Is(err, ErrNotFound) { // no CRL of the authority is known yet, and nothing is revoked
		return nil, fmt.Errorf("reading what %s has revoked: %w", authority, err)
	}
	return missing, nil
}

// forgotten is the serial of a certificate that one CRL of an authority revokes and the next does not list, although it neither has ended nor was
// only on hold. Nil: there is none.
func forgotten(before *x509.RevocationList, listed, ended map[string]bool) *big.Int {
	for _, e := range before.RevokedCertificateEntries {
		serial := string(e.SerialNumber.Bytes())
		if !listed[serial] && !ended[serial] && e.ReasonCode != int(issuance.CertificateHold) {
			return e.SerialNumber
		}
	}
	return nil
}

// ended are the serials, by their octets, of the authorities under an issuer whose certificates had ended at a moment.
func ended(issuer string, known []AuthorityRecord, at time.Time) map[string]bool {
	serials := map[string]bool{}
	for _, a := range known {
		if a.Parent != issuer {
			continue
		}
		if certificate, err := x509.ParseCertificate(a.Certificate); err == nil && certificate.NotAfter.Before(at) {
			serials[string(certificate.SerialNumber.Bytes())] = true
		}
	}
	return serials
}

func (r Registrar) leaf(kind audit.Kind, data map[string]string) (audit.Leaf, error) {
	return r.leafWithID(r.NewID(), kind, data)
}

func (r Registrar) leafWithID(id string, kind audit.Kind, data map[string]string) (audit.Leaf, error) {
	leaf, err := audit.New(audit.Event{ID: id, Kind: kind, Time: r.Now(), Actor: r.Actor, Data: data})
	if err != nil {
		return audit.Leaf{}, fmt.Errorf("recording %s: %w", kind, err)
	}
	return leaf, nil
}
