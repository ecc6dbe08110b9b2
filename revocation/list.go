package revocation

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"time"
)

// list is a CRL as a client sees it, with its delta CRL laid over it where it names one.
type list struct {
	issuer  string
	only    contents          // what it is for
	entries map[string]*entry // by the octets of the serial
	err     error             // it cannot be used
}

type entry struct {
	reason         int
	at             time.Time
	invalidityDate time.Time
	known          bool // a certificate on record has this serial
}

func (l *list) usable() bool { return l.err == nil }

// list is the CRL at a URL, fetched once.
func (r *run) list(a Authority, url string) *list {
	if l := r.lists[url]; l != nil {
		return l
	}
	l := &list{issuer: a.Name, entries: map[string]*entry{}}
	r.lists[url] = l
	if l.err = r.load(a, url, l); l.err != nil {
		l.entries = map[string]*entry{}
		r.unusable(CRLUnusable, a.Name, url, l.err)
	}
	return l
}

func (r *run) load(a Authority, url string, l *list) error {
	crl, only, err := r.complete(a, url)
	if err != nil {
		return err
	}
	deltas, err := r.deltas(a, crl)
	if errors.Is(err, errAhead) { // a complete one was made between the two looks, or clients cannot lay one over the other
		if crl, only, err = r.complete(a, url); err != nil {
			return err
		}
		deltas, err = r.deltas(a, crl)
	}
	l.only = only
	r.mu.Lock()
	r.report.CRLs = append(r.report.CRLs, ListReport{
		URL: url, Issuer: a.Name, Number: crl.Number.String(), ThisUpdate: crl.ThisUpdate, NextUpdate: crl.NextUpdate,
		Entries: len(crl.RevokedCertificateEntries),
	})
	r.mu.Unlock()
	if err != nil {
		return err
	}
	for _, one := range append([]*x509.RevocationList{crl}, deltas...) {
		if err := l.take(one); err != nil {
			return err
		}
	}
	return nil
}

// complete fetches a complete CRL, of the scope of its URL.
func (r *run) complete(a Authority, url string) (crl *x509.RevocationList, only contents, err error) {
	if crl, err = r.verified(a, url); err != nil {
		return nil, only, err
	}
	if extension(crl, deltaIndicator) != nil {
		return nil, only, errors.New("it is a delta CRL, where a complete one ought to be")
	}
	only, err = contentsOf(crl, url)
	return crl, only, err
}

// errAhead says that a delta CRL begins from a later complete one than there is.
var errAhead = errors.New("it begins from a later complete CRL than the one that names it")

// deltas fetches the delta CRLs that a complete one names and that can be laid over it (RFC 5280, section 5.2.4). One that is not above it
// tells nothing that it does not have, and is left out.
func (r *run) deltas(a Authority, complete *x509.RevocationList) (all []*x509.RevocationList, err error) {
	points, err := pointsOf(extension(complete, freshestCRL))
	if err != nil {
		return nil, fmt.Errorf("its freshestCRL: %w", err)
	}
	for _, point := range points {
		delta, err := r.verified(a, point)
		if err == nil {
			err = fits(delta, complete)
		}
		if err != nil {
			return nil, fmt.Errorf("its delta CRL at %s: %w", point, err)
		}
		if delta.Number.Cmp(complete.Number) > 0 {
			all = append(all, delta)
		}
	}
	return all, nil
}

// fits refuses a delta CRL that is none, is of another scope than the complete one, or begins from a later one.
func fits(delta, complete *x509.RevocationList) error {
	indicator := extension(delta, deltaIndicator)
	if indicator == nil {
		return errors.New("it has no deltaCRLIndicator")
	}
	var base *big.Int
	if rest, err := asn1.Unmarshal(indicator, &base); err != nil || len(rest) > 0 {
		return errors.New("its deltaCRLIndicator cannot be read")
	}
	switch {
	case !bytes.Equal(extension(delta, distributionPoint), extension(complete, distributionPoint)):
		return errors.New("it is of another scope than the complete CRL")
	case base.Cmp(complete.Number) > 0:
		return fmt.Errorf("%w: from %s, and that is %s", errAhead, base, complete.Number)
	}
	return nil
}

// verified fetches a CRL and checks it as a client would (RFC 5280, section 6.3.3).
func (r *run) verified(a Authority, url string) (*x509.RevocationList, error) {
	der, err := r.fetch(http.MethodGet, url, "", nil)
	if err != nil {
		return nil, err
	}
	crl, err := x509.ParseRevocationList(der)
	if err != nil {
		return nil, err
	}
	if err := crl.CheckSignatureFrom(a.Certificate); err != nil {
		return nil, fmt.Errorf("it is not signed by %s: %w", a.Name, err)
	}
	if !bytes.Equal(crl.RawIssuer, a.Certificate.RawSubject) {
		return nil, fmt.Errorf("it is in the name of %s, which is not written as that of %s", crl.Issuer, a.Name)
	}
	if err := understood(crl); err != nil {
		return nil, err
	}
	now := r.Now()
	switch {
	case crl.Number == nil:
		return nil, errors.New("it has no number")
	case crl.ThisUpdate.After(now.Add(time.Minute)):
		return nil, fmt.Errorf("it is of the future, %s", crl.ThisUpdate.Format(time.RFC3339))
	case now.After(crl.NextUpdate):
		return nil, fmt.Errorf("it has run out, at %s", crl.NextUpdate.Format(time.RFC3339))
	}
	return crl, nil
}

// understood refuses a CRL with a critical extension that is not looked at here, and that clients need not know: they do not use it then (RFC
// 5280, sections 5.2 and 5.3).
func understood(crl *x509.RevocationList) error {
	for _, e := range crl.Extensions {
		if e.Critical && !e.Id.Equal(deltaIndicator) && !e.Id.Equal(distributionPoint) {
			return fmt.Errorf("it has the critical extension %s, which few clients know", e.Id)
		}
	}
	for _, entry := range crl.RevokedCertificateEntries {
		for _, e := range entry.Extensions {
			if e.Critical {
				return fmt.Errorf("its entry of %x has the critical extension %s, which few clients know", entry.SerialNumber, e.Id)
			}
		}
	}
	return nil
}

// take lays the entries of a CRL over those before.
func (l *list) take(crl *x509.RevocationList) error {
	const removeFromCRL = 8
	for _, e := range crl.RevokedCertificateEntries {
		if e.ReasonCode == removeFromCRL {
			delete(l.entries, string(e.SerialNumber.Bytes()))
			continue
		}
		taken := &entry{reason: e.ReasonCode, at: e.RevocationTime}
		for _, extension := range e.Extensions {
			if !extension.Id.Equal(invalidityDate) {
				continue
			}
			if _, err := asn1.UnmarshalWithParams(extension.Value, &taken.invalidityDate, "generalized"); err != nil {
				return fmt.Errorf("the invalidity date of %x: %w", e.SerialNumber, err)
			}
		}
		l.entries[string(e.SerialNumber.Bytes())] = taken
	}
	return nil
}

// The extensions of RFC 5280, sections 5.2 and 5.3, that are looked at.
var (
	deltaIndicator    = asn1.ObjectIdentifier{2, 5, 29, 27}
	distributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
	freshestCRL       = asn1.ObjectIdentifier{2, 5, 29, 46}
	invalidityDate    = asn1.ObjectIdentifier{2, 5, 29, 24}
)

func extension(crl *x509.RevocationList, id asn1.ObjectIdentifier) []byte {
	for _, e := range crl.Extensions {
		if e.Id.Equal(id) {
			return e.Value
		}
	}
	return nil
}

// pointName is DistributionPointName: the full name alone.
type pointName struct {
	FullName []asn1.RawValue `asn1:"optional,tag:0"`
}

func (p pointName) urls() (all []string) {
	const uniformResourceIdentifier = 6
	for _, name := range p.FullName {
		if name.Class == asn1.ClassContextSpecific && name.Tag == uniformResourceIdentifier {
			all = append(all, string(name.Bytes))
		}
	}
	return all
}

// pointsOf are the URLs in CRLDistributionPoints; none of no extension.
func pointsOf(der []byte) (all []string, err error) {
	if der == nil {
		return nil, nil
	}
	var points []struct {
		Name pointName `asn1:"optional,tag:0"`
	}
	if rest, err := asn1.Unmarshal(der, &points); err != nil || len(rest) > 0 {
		return nil, errors.New("it cannot be read")
	}
	for _, p := range points {
		all = append(all, p.Name.urls()...)
	}
	return all, nil
}

// contents is what a CRL is for: IssuingDistributionPoint (RFC 5280, section 5.2.5). The zero value is for everything.
type contents struct {
	Name           pointName      `asn1:"optional,tag:0"`
	OnlyUser       bool           `asn1:"optional,tag:1"`
	OnlyCA         bool           `asn1:"optional,tag:2"`
	Reasons        asn1.BitString `asn1:"optional,tag:3"`
	Indirect       bool           `asn1:"optional,tag:4"`
	OnlyAttributes bool           `asn1:"optional,tag:5"`
}

// contentsOf reads what a CRL is for. It refuses one whose issuingDistributionPoint does not have the URL that led to it, and one that does
// not tell all: our certificates are the issuer's own, and revoked for any reason (RFC 5280, section 6.3.3, steps b and d).
func contentsOf(crl *x509.RevocationList, url string) (only contents, err error) {
	der := extension(crl, distributionPoint)
	if der == nil {
		return only, nil
	}
	if rest, err := asn1.Unmarshal(der, &only); err != nil || len(rest) > 0 {
		return only, errors.New("its issuingDistributionPoint cannot be read")
	}
	switch urls := only.Name.urls(); {
	case len(urls) > 0 && !slices.Contains(urls, url):
		return only, fmt.Errorf("it is the CRL of %q, and not of the certificates that lead to it", urls)
	case only.OnlyAttributes:
		return only, errors.New("it is for attribute certificates alone")
	case only.Indirect:
		return only, errors.New("it is an indirect CRL, which certificates would have to name as such")
	case only.Reasons.BitLength > 0:
		return only, errors.New("it is for some reasons alone")
	}
	return only, nil
}

// covers refuses a certificate that leads to a CRL which is not for its kind (RFC 5280, section 6.3.3, step b 2).
func (c contents) covers(certificate *x509.Certificate) error {
	switch {
	case c.OnlyUser && certificate.IsCA:
		return errors.New("it is for subscribers' certificates alone, and an authority's leads to it")
	case c.OnlyCA && !certificate.IsCA:
		return errors.New("it is for authorities' certificates alone, and a subscriber's leads to it")
	}
	return nil
}

// unsigned reads a to-be-signed certificate, under a signature that is none.
func unsigned(tbs []byte) (*x509.Certificate, error) {
	var outer, version, serial, algorithm asn1.RawValue
	_, err := asn1.Unmarshal(tbs, &outer)
	rest := outer.Bytes
	for _, part := range []*asn1.RawValue{&version, &serial, &algorithm} {
		if err == nil {
			rest, err = asn1.Unmarshal(rest, part)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("reading a to-be-signed certificate: %w", err)
	}
	der, err := asn1.Marshal(struct {
		TBS       asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: tbs}, algorithm, asn1.BitString{Bytes: []byte{0}, BitLength: 8}})
	if err != nil {
		return nil, fmt.Errorf("reading a to-be-signed certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}
