package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/issuance"
)

// importing is a store that keeps the last CRL that was imported.
type importing struct {
	Store
	authority AuthorityRecord
	under     []AuthorityRecord
	imported  *CRLRecord
	revoked   []issuance.RevokedEntry // on record
}

func (i *importing) Authorities(context.Context) ([]AuthorityRecord, error) {
	return append([]AuthorityRecord{i.authority}, i.under...), nil
}

func (i *importing) CurrentCRL(context.Context, string, string, *big.Int) (CRLRecord, error) {
	if i.imported == nil {
		return CRLRecord{}, ErrNotFound
	}
	return *i.imported, nil
}

func (i *importing) ListedRevocations(_ context.Context, _, _ string, yield func(issuance.RevokedEntry) error) (FeedPosition, error) {
	for _, e := range i.revoked {
		if err := yield(e); err != nil {
			return FeedPosition{}, err
		}
	}
	return FeedPosition{}, nil
}

func (i *importing) ImportCRL(_ context.Context, c CRLRecord, _ *big.Int, _ ...audit.Leaf) error {
	i.imported = &c
	return nil
}

// A CRL that is imported is served: what could not be is refused, and whoever imports it learns why.
func TestAnImportedCRLIsServed(t *testing.T) {
	elliptical, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	modular, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	delta := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}}
	one := func(fields ...byte) x509.RevocationList { // of several, by the fields of its issuingDistributionPoint
		point := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: append([]byte{0x30, byte(len(fields))}, fields...)}
		return x509.RevocationList{ExtraExtensions: []pkix.Extension{point}}
	}
	revoked := func(serials ...int64) (all []x509.RevocationListEntry) {
		for _, n := range serials {
			all = append(all, x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: now})
		}
		return all
	}
	onRecord := func(serial byte, at, notAfter time.Duration) []issuance.RevokedEntry {
		e := issuance.RevokedEntry{NotAfter: now.Add(notAfter)}
		e.Serial, e.RevokedAt = []byte{serial}, now.Add(at)
		return []issuance.RevokedEntry{e}
	}
	with := func(arc int, critical bool, value ...byte) x509.RevocationList { // an entry with an extension
		entries := revoked(1)
		entries[0].ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, arc}, Critical: critical, Value: value}}
		return x509.RevocationList{RevokedCertificateEntries: entries}
	}
	date := []byte("\x18\x0f20260101000000Z")
	for name, c := range map[string]struct {
		key    crypto.Signer
		list   x509.RevocationList
		record []issuance.RevokedEntry
		good   bool
	}{
		"plain":                       {key: elliptical, list: x509.RevocationList{RevokedCertificateEntries: revoked(1, 2, 300)}, good: true},
		"empty":                       {key: modular, good: true},
		"not in order":                {key: elliptical, list: x509.RevocationList{RevokedCertificateEntries: revoked(2, 1)}},
		"a delta":                     {key: elliptical, list: x509.RevocationList{ExtraExtensions: []pkix.Extension{delta}}},
		"of some reasons":             {key: elliptical, list: one(0x83, 2, 6, 0x40)},
		"of a URL":                    {key: elliptical, list: one(0xa0, 5, 0xa0, 3, 0x86, 1, 'a')},
		"of user certificates":        {key: elliptical, list: one(0x81, 1, 0xff)},
		"of authorities":              {key: elliptical, list: one(0x82, 1, 0xff)},
		"indirect":                    {key: elliptical, list: one(0x84, 1, 0xff)},
		"of attribute certificates":   {key: elliptical, list: one(0x85, 1, 0xff)},
		"an invalidity date":          {key: elliptical, list: with(24, false, date...), good: true},
		"a hold's instruction":        {key: elliptical, list: with(23, false, 6, 1, 0), good: true},
		"an unknown critical entry":   {key: elliptical, list: with(99, true, 5, 0)},
		"another's certificate":       {key: elliptical, list: with(29, true, 0x30, 3, 0x86, 1, 'a')},
		"an algorithm of another key": {key: modular, list: x509.RevocationList{SignatureAlgorithm: x509.SHA512WithRSA}},
		"what is on record": {
			key: elliptical, list: x509.RevocationList{RevokedCertificateEntries: revoked(1, 2)},
			record: onRecord(2, -time.Second, time.Hour), good: true,
		},
		"without what is on record": {
			key: elliptical, list: x509.RevocationList{RevokedCertificateEntries: revoked(1)}, record: onRecord(2, -time.Second, time.Hour),
		},
		"older than what is on record": {
			key: elliptical, list: x509.RevocationList{RevokedCertificateEntries: revoked(1)}, record: onRecord(2, 0, time.Hour), good: true,
		},
		"without what has ended, and was on none": {
			key: elliptical, list: x509.RevocationList{RevokedCertificateEntries: revoked(1)}, record: onRecord(2, -time.Hour, -time.Second),
		},
		"without what was revoked after its end": {
			key: elliptical, list: x509.RevocationList{RevokedCertificateEntries: revoked(1)}, record: onRecord(2, -time.Second, -time.Hour), good: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			template := &x509.Certificate{
				SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
				IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte{1},
			}
			der, err := x509.CreateCertificate(rand.Reader, template, template, c.key.Public(), c.key)
			if err != nil {
				t.Fatal(err)
			}
			issuer, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			c.list.Number, c.list.ThisUpdate, c.list.NextUpdate = big.NewInt(7), now, now.AddDate(0, 1, 0)
			list, err := x509.CreateRevocationList(rand.Reader, &c.list, issuer, c.key)
			if err != nil {
				t.Fatal(err)
			}
			store := &importing{authority: AuthorityRecord{Name: "root", Certificate: der, Chain: [][]byte{der}}, revoked: c.record}
			r := Registrar{
				Store: store, Now: func() time.Time { return now }, NewID: func() string { return "0192f000-0000-7000-8000-000000000000" },
				Actor: "operator",
			}
			_, err = r.ImportCRL(context.Background(), "root", list)
			var invalid *InvalidError
			if c.good != (err == nil) || !c.good && !errors.As(err, &invalid) {
				t.Errorf("imported: %v", err)
			}
			if store.imported == nil {
				return
			}
			service := &CA{
				store: store, publications: newPublications(), lags: newLags(), directory: newDirectory(), now: r.Now, metrics: noMetrics{},
				log: slog.New(slog.NewTextHandler(io.Discard, nil)),
			}
			if served, err := service.CurrentCRL(context.Background(), "root", FullScope); err != nil || string(served.DER) != string(list) {
				t.Errorf("it is on record and not served: %v", err)
			}
		})
	}
}

// A revoked authority is on one CRL at least that was made after its certificate had ended (RFC 5280, section 3.3).
func TestAnImportedCRLShowsWhatHasEnded(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	end := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	certificate := func(serial int64, name string, until time.Time, parent *x509.Certificate) (*x509.Certificate, []byte) {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: end.Add(-time.Hour), NotAfter: until,
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte(name),
		}
		if parent == nil {
			parent = template
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		made, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return made, der
	}
	root, rootDER := certificate(1, "root", end.AddDate(1, 0, 0), nil)
	_, issuingDER := certificate(2, "issuing", end, root)
	store := &importing{
		authority: AuthorityRecord{Name: "root", Certificate: rootDER, Chain: [][]byte{rootDER}},
		under:     []AuthorityRecord{{Name: "issuing", Parent: "root", Certificate: issuingDER, Chain: [][]byte{issuingDER, rootDER}}},
	}
	for n, c := range []struct {
		after time.Duration // its end
		shows bool
		good  bool
	}{
		{after: -time.Minute, shows: true, good: true},
		{after: -time.Second},
		{after: time.Minute},
		{after: 2 * time.Minute, shows: true, good: true},
		{after: 3 * time.Minute, good: true},
	} {
		at := end.Add(c.after)
		list := &x509.RevocationList{Number: big.NewInt(int64(n + 1)), ThisUpdate: at, NextUpdate: at.AddDate(0, 1, 0)}
		if c.shows {
			list.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(2), RevocationTime: end.Add(-time.Hour)}}
		}
		der, err := x509.CreateRevocationList(rand.Reader, list, root, key)
		if err != nil {
			t.Fatal(err)
		}
		r := Registrar{
			Store: store, Now: func() time.Time { return at }, NewID: func() string { return "0192f000-0000-7000-8000-000000000000" },
			Actor: "operator",
		}
		_, err = r.ImportCRL(t.Context(), "root", der)
		var invalid *InvalidError
		if c.good != (err == nil) || !c.good && !errors.As(err, &invalid) {
			t.Errorf("a CRL of %s after its end, which shows it: %t: %v", c.after, c.shows, err)
		}
	}
}

// registering is a store of authorities.
type registering struct {
	Store
	known   []AuthorityRecord
	revoked map[string]issuance.Reason // by issuer and serial
}

func (r *registering) Authorities(context.Context) ([]AuthorityRecord, error) { return r.known, nil }

func (r *registering) KeyCompromised(context.Context, [32]byte) (bool, error) { return false, nil }

func (r *registering) LatestRevocation(_ context.Context, issuer string, serial []byte) (Revocation, error) {
	reason, ok := r.revoked[fmt.Sprintf("%s/%x", issuer, serial)]
	if !ok {
		return Revocation{}, ErrNotFound
	}
	return Revocation{Issuer: issuer, Serial: serial, Reason: reason}, nil
}

// An authority is registered only where its certificates could be good, and their CRL is nobody else's.
func TestAnAuthorityThatIsSurelyWrong(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	type made struct {
		*x509.Certificate
		key   crypto.Signer
		chain [][]byte
	}
	newKey := func() crypto.Signer {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	certify := func(serial int64, subject string, key crypto.Signer, parent *made) *made {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: subject}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte{byte(serial)},
		}
		if parent == nil {
			parent = &made{Certificate: template, key: key}
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent.Certificate, key.Public(), parent.key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return &made{Certificate: c, key: key, chain: append([][]byte{der}, parent.chain...)}
	}
	record := func(name, parent string, m *made) AuthorityRecord {
		return AuthorityRecord{Name: name, Parent: parent, Certificate: m.Raw, Chain: m.chain}
	}
	root := certify(1, "Root", newKey(), nil)
	middle := certify(2, "Middle", newKey(), root)
	issuing := certify(3, "Issuing", newKey(), middle)
	known := []AuthorityRecord{record("root", "", root), record("middle", "root", middle), record("issuing", "middle", issuing)}
	further := record("further", "middle", certify(4, "Further", newKey(), middle))
	for name, c := range map[string]struct {
		add     AuthorityRecord
		revoked string
		reason  issuance.Reason
		field   string // of the refusal; empty: none
	}{
		"a further one":                    {add: further},
		"another is revoked":               {add: further, revoked: "middle/03", reason: issuance.Superseded},
		"its parent is revoked":            {add: further, revoked: "root/02", reason: issuance.Superseded, field: "chain"},
		"without a reason":                 {add: further, revoked: "root/02", field: "chain"},
		"its parent's parent is revoked":   {add: record("deep", "issuing", certify(5, "Deep", newKey(), issuing)), revoked: "root/02", reason: issuance.CACompromise, field: "chain"},
		"it is revoked itself":             {add: further, revoked: "middle/04", reason: issuance.CessationOfOperation, field: "chain"},
		"it is released":                   {add: further, revoked: "middle/04", reason: issuance.RemoveFromCRL},
		"the same again, although revoked": {add: known[2], revoked: "middle/03", reason: issuance.Superseded},
		"the same under another name":      {add: record("twin", "middle", issuing), field: "certificate"},
		"a renewal of the same key":        {add: record("renewed", "middle", certify(6, "Issuing", issuing.key, middle)), field: "certificate"},
		"the same key from another":        {add: record("crossed", "root", certify(7, "Issuing", issuing.key, root)), field: "certificate"},
		"a name of its own":                {add: record("issuing-2", "middle", certify(8, "Issuing 2", issuing.key, middle))},
		"a key of its own":                 {add: record("issuing-3", "middle", certify(9, "Issuing", newKey(), middle))},
	} {
		store := &registering{known: known, revoked: map[string]issuance.Reason{c.revoked: c.reason}}
		err := Registrar{Store: store, Now: func() time.Time { return now }}.CheckAuthority(t.Context(), c.add)
		var invalid *InvalidError
		if errors.As(err, &invalid) != (c.field != "") || invalid == nil && err != nil || invalid != nil && (invalid.Field != c.field || invalid.Hint == "") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
