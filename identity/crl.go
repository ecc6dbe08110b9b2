package identity

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"
)

// list is a CRL, made for looking up.
type list struct {
	crl     *x509.RevocationList
	revoked map[string]struct{} // serials, octets of the number; nil before it is verified: whoever puts lists in has none made
	key     []byte              // SubjectPublicKeyInfo of the authority by which the signature was verified; nil: by none yet
}

// verify tells whether an authority has signed the list, and remembers it: a request does not digest the list again. What it revokes is made
// for looking up then.
func (l *list) verify(authority *x509.Certificate) bool {
	if !bytes.Equal(l.crl.RawIssuer, authority.RawSubject) || l.crl.CheckSignatureFrom(authority) != nil {
		return false
	}
	l.key = authority.RawSubjectPublicKeyInfo
	l.revoked = make(map[string]struct{}, len(l.crl.RevokedCertificateEntries))
	for _, entry := range l.crl.RevokedCertificateEntries {
		l.revoked[string(entry.SerialNumber.Bytes())] = struct{}{}
	}
	return true
}

// of tells whether a list that was verified is an authority's: signed by the key of its certificate, under its name.
func (l *list) of(authority *x509.Certificate) bool {
	return bytes.Equal(l.crl.RawIssuer, authority.RawSubject) && bytes.Equal(l.key, authority.RawSubjectPublicKeyInfo)
}

// notOlder refuses a list that says less than the one before, of the same authority: somebody plays an old one back, where a certificate
// is not revoked yet. Both are verified: what anybody could have written sets no bar. The numbers of an authority rise (RFC 5280, section
// 5.2.3). One that was built anew may begin again with low ones; its lists are told from old ones by their time, which no list that it
// signed before can have.
func notOlder(read, before *x509.RevocationList) error {
	numbered := read.Number != nil && before.Number != nil
	switch {
	case numbered && read.Number.Cmp(before.Number) >= 0, read.ThisUpdate.After(before.ThisUpdate):
		return nil
	case !numbered && read.ThisUpdate.Equal(before.ThisUpdate):
		return nil
	}
	return fmt.Errorf("it is older than the list before: number %s of %s after number %s of %s; when the authority numbers its lists anew, "+
		"have it issue one now: a list with a later thisUpdate is taken", number(read), read.ThisUpdate.UTC().Format(time.RFC3339),
		number(before), before.ThisUpdate.UTC().Format(time.RFC3339))
}

func number(crl *x509.RevocationList) string {
	if crl.Number == nil {
		return "none"
	}
	return crl.Number.String()
}

// ofAPart are the extensions of a list that speaks of some certificates alone: deltaCRLIndicator and issuingDistributionPoint. They must be
// critical (RFC 5280, sections 5.2.4 and 5.2.5), and an authority may forget it.
var ofAPart = []asn1.ObjectIdentifier{{2, 5, 29, 27}, {2, 5, 29, 28}}

// parseList reads a CRL in DER or PEM. A list with a critical extension speaks of some certificates alone, or otherwise in a way that is
// not understood here (RFC 5280, section 5.2), and is refused.
func parseList(data []byte) (*list, error) {
	if block, rest := pem.Decode(data); block != nil {
		if block.Type != "X509 CRL" || len(bytes.TrimSpace(rest)) > 0 {
			return nil, errors.New("it is not one CRL in PEM")
		}
		data = block.Bytes
	}
	crl, err := x509.ParseRevocationList(data)
	if err != nil {
		return nil, err
	}
	for _, extension := range crl.Extensions {
		if extension.Critical || slices.ContainsFunc(ofAPart, extension.Id.Equal) {
			return nil, fmt.Errorf("it has the extension %s: give the complete list", extension.Id)
		}
	}
	if crl.NextUpdate.IsZero() {
		return nil, errors.New("it does not say when it ends")
	}
	for _, entry := range crl.RevokedCertificateEntries {
		for _, extension := range entry.Extensions {
			if extension.Critical {
				return nil, fmt.Errorf("an entry has the critical extension %s: indirect lists are not read", extension.Id)
			}
		}
	}
	return &list{crl: crl}, nil
}
