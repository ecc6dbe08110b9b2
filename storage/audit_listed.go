package storage

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/ca"
)

// listedRow is what decides on which CRL a revocation is listed and for how long, and what that follows from: no event tells it, and the
// certificate, whose digest is in its own event, does.
type listedRow struct {
	scope      string
	notAfter   time.Time
	der        []byte // nil: there is no certificate
	tbs        []byte // of an orphan
	issuedInto string // the scope of the certificate's row
	lostInto   string // the scope that the event tells, of a certificate that was lost with a database
	archived   bool
}

// listedBy are the authorities whose CRLs list revocations, and the certificates of those that can be revoked themselves.
type listedBy struct {
	authorities  map[string]ca.AuthorityRecord
	certificates map[string]*x509.Certificate // of the authorities, by name, where they can be read
	subordinates map[[2]string][]byte         // DER, by the name of the parent and the serial
}

func readListedBy(ctx context.Context, db querier) (l listedBy, err error) {
	rows, err := db.Query(ctx, selectAuthorities)
	if err != nil {
		return l, err
	}
	all, err := pgx.CollectRows(rows, scanAuthority)
	if err != nil {
		return l, err
	}
	l = listedBy{
		authorities: map[string]ca.AuthorityRecord{}, certificates: map[string]*x509.Certificate{}, subordinates: map[[2]string][]byte{},
	}
	for _, a := range all {
		l.authorities[a.Name] = a
		c, err := x509.ParseCertificate(a.Certificate)
		if err != nil {
			continue
		}
		l.certificates[a.Name] = c
		if a.Parent != "" {
			l.subordinates[[2]string{a.Parent, string(c.SerialNumber.Bytes())}] = a.Certificate
		}
	}
	return l, nil
}

// misplaced tells of what was to be signed of a certificate that it is not the one that its row says: by the row's serial number, on the
// CRL of the row's authority, nobody would learn of its revocation. No more of it is read than that takes: what around it cannot be read, the
// service may have written so. One of which not even that can be read, no keeper has signed.
func (l listedBy) misplaced(issuer string, serial, tbs []byte) error {
	var c struct {
		Version         int `asn1:"optional,explicit,default:0,tag:0"`
		Serial          *big.Int
		Algorithm       asn1.RawValue
		Issuer          asn1.RawValue
		Validity        asn1.RawValue
		Subject         asn1.RawValue
		PublicKey       asn1.RawValue
		IssuerUniqueID  asn1.BitString   `asn1:"optional,tag:1"`
		SubjectUniqueID asn1.BitString   `asn1:"optional,tag:2"`
		Extensions      []pkix.Extension `asn1:"optional,explicit,tag:3"`
	}
	if _, err := asn1.Unmarshal(tbs, &c); err != nil {
		return nil
	}
	by := l.certificates[issuer]
	key := authorityKey(c.Extensions)
	switch {
	case !bytes.Equal(c.Serial.Bytes(), serial):
		return fmt.Errorf("has another serial number in itself, %x", c.Serial)
	case by == nil:
		return fmt.Errorf("is of no authority on record whose certificate can be read, %s", issuer)
	case !bytes.Equal(c.Issuer.FullBytes, by.RawSubject) || len(key) > 0 && len(by.SubjectKeyId) > 0 && !bytes.Equal(key, by.SubjectKeyId):
		var name pkix.RDNSequence
		_, _ = asn1.Unmarshal(c.Issuer.FullBytes, &name) // a name that cannot be read is none
		return fmt.Errorf("is another authority's in itself, %s with the key %x", name, key)
	}
	return nil
}

// Misplaced reads the authorities, for telling of a certificate that was of a row whether it is another one in itself, or another authority's.
func (s *Store) Misplaced(ctx context.Context) (func(issuer string, serial, der []byte) bool, error) {
	var known listedBy
	err := s.read(ctx, "reading the authorities", func(ctx context.Context, db querier) (err error) {
		known, err = readListedBy(ctx, db)
		return err
	})
	return func(issuer string, serial, der []byte) bool {
		return known.misplaced(issuer, serial, toBeSigned(der)) != nil
	}, err
}

// authorityKey is the key identifier in a certificate's extension authorityKeyIdentifier (RFC 5280, section 4.2.1.1).
func authorityKey(extensions []pkix.Extension) []byte {
	for _, x := range extensions {
		var value struct {
			Key []byte `asn1:"optional,tag:0"`
		}
		if x.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 35}) {
			_, _ = asn1.Unmarshal(x.Value, &value) // one that cannot be read names no key
			return value.Key
		}
	}
	return nil
}

// toBeSigned is what was signed of a certificate, whatever stands around it; nil of what is no certificate.
func toBeSigned(der []byte) []byte {
	var outer struct{ TBS asn1.RawValue }
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		return nil
	}
	return outer.TBS.FullBytes
}

// disagrees tells what of a revocation is not as its certificate and the authority have it: with another scope, or an end before the
// certificate's, it would leave its CRL. A certificate that is in an archive is not looked at, and one without a distribution point tells
// no scope: then that of its row counts.
func (l listedBy) disagrees(issuer string, serial []byte, row listedRow) error {
	authority, known := l.authorities[issuer]
	der, subordinate := l.subordinates[[2]string{issuer, string(serial)}]
	switch {
	case !known:
		return errors.New("is of an authority that is not on record")
	case row.der != nil:
		der, subordinate = row.der, false
	case row.tbs != nil:
		der, subordinate = withoutSignature(row.tbs), false
	case row.archived && !subordinate:
		return nil
	case !subordinate && row.lostInto != "":
		return row.asLost(authority.Certificate)
	case !subordinate:
		return errors.New("is of no certificate on record")
	}
	c, err := row.endsWith(der)
	if err != nil {
		return err
	}
	points := c.CRLDistributionPoints
	switch {
	case subordinate && row.scope != ca.FullScope:
		return fmt.Errorf("has the crl_scope %q, and authorities are on the CRL %q", row.scope, ca.FullScope)
	case !subordinate && len(points) > 0 && !slices.Contains(points, authority.Distribution(row.scope).URL):
		return fmt.Errorf("has the crl_scope %q, and its certificate names the CRL %q", row.scope, points[0])
	case !subordinate && len(points) == 0 && row.scope != row.issuedInto:
		return fmt.Errorf("has the crl_scope %q, and its certificate was issued into %q", row.scope, row.issuedInto)
	}
	return nil
}

// asLost tells what of the revocation of a lost certificate is not as its event and its issuer's certificate have it.
func (r listedRow) asLost(issuer []byte) error {
	if r.scope != r.lostInto {
		return fmt.Errorf("has the crl_scope %q, and its event says %q", r.scope, r.lostInto)
	}
	_, err := r.endsWith(issuer)
	return err
}

// endsWith reads the certificate that the revocation must be listed as long as.
func (r listedRow) endsWith(der []byte) (*x509.Certificate, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("is of a certificate that cannot be read: %w", err)
	}
	if ended := r.notAfter.Truncate(time.Second); !ended.Equal(c.NotAfter) {
		return nil, fmt.Errorf("has the not_after %s, and the certificate of %s says %s", r.notAfter.UTC().Format(time.RFC3339Nano),
			c.Subject, c.NotAfter.UTC().Format(time.RFC3339))
	}
	return c, nil
}

// withoutSignature makes of what was to be signed a certificate that can be read, and whose signature is none; nil of what is no
// certificate.
func withoutSignature(tbs []byte) []byte {
	var inner struct {
		Version   int `asn1:"optional,explicit,default:0,tag:0"`
		Serial    *big.Int
		Algorithm asn1.RawValue
	}
	if _, err := asn1.Unmarshal(tbs, &inner); err != nil {
		return nil
	}
	der, err := asn1.Marshal(struct {
		TBS, Algorithm asn1.RawValue
		Signature      asn1.BitString
	}{asn1.RawValue{FullBytes: tbs}, inner.Algorithm, asn1.BitString{Bytes: []byte{0}, BitLength: 8}})
	if err != nil {
		return nil
	}
	return der
}
