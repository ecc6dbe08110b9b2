package storage_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
)

// Precertificates, orphans and imported certificates count as issued, an open intent and another authority's serial do not; the latest entry of the
// sequence of revocations is the state.
func TestCertificateStatus(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	good, open := f.issue(), f.intend()
	held, released, revoked := f.issue(), f.issue(), f.issue()
	f.revoke(held, issuance.CertificateHold, 0)
	f.revoke(released, issuance.CertificateHold, 0)
	f.revoke(released, issuance.RemoveFromCRL, 1)
	last := f.revoke(revoked, issuance.KeyCompromise, 0)
	orphan := f.intend()
	eventID := newID()
	if err := f.SettleIntent(ctx, alpha, ca.Settlement{
		Issuer: orphan.Issuer, Serial: orphan.Serial, Kind: orphan.Kind, At: now(), EventID: eventID, Reason: "lost",
	}, leafWithID(t, eventID, audit.CertificateOrphaned)); err != nil {
		t.Fatal(err)
	}
	f.exec(`INSERT INTO imported_certificates (serial, issuer, der, spki_sha256, crl_scope, namespace, subject, names, search, not_before, not_after,
		imported_at, event_id) VALUES ('\x01', 'issuing-1', '', sha256(''), 'full', 'web', '', '{}', '', now(), now() + interval '1 day', now(), gen_random_uuid())`)
	for name, c := range map[string]struct {
		issuer  string
		serial  []byte
		issued  bool
		revoked bool
		reason  issuance.Reason
	}{
		"good":                {"issuing-1", good.Serial[:], true, false, 0},
		"open intent":         {"issuing-1", open.Serial[:], false, false, 0},
		"held":                {"issuing-1", held.Serial[:], true, true, issuance.CertificateHold},
		"released":            {"issuing-1", released.Serial[:], true, false, 0},
		"revoked":             {"issuing-1", revoked.Serial[:], true, true, issuance.KeyCompromise},
		"orphan":              {"issuing-1", orphan.Serial[:], true, true, issuance.Unspecified},
		"imported":            {"issuing-1", []byte{1}, true, false, 0},
		"never issued":        {"issuing-1", []byte{2}, false, false, 0},
		"another authority's": {"issuing-2", good.Serial[:], false, false, 0},
	} {
		got, err := f.CertificateStatus(ctx, c.issuer, c.serial)
		if err != nil || got.Issued != c.issued || got.Revoked != c.revoked || got.Reason != c.reason || got.NotAfter.IsZero() == c.issued ||
			got.RevokedAt.IsZero() == c.revoked {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if name == "revoked" && !got.RevokedAt.Equal(last.At) {
			t.Errorf("revoked at %s, want %s", got.RevokedAt, last.At)
		}
	}
}

// The certificate of an authority that was certified in a ceremony is on record with the authority alone, and is one that its parent has
// issued.
func TestCertificateStatusOfAnAuthorityBelow(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	end := now().Add(time.Hour).Truncate(time.Second)
	serials := map[string][]byte{}
	for n, name := range []string{"good", "revoked", "held", "released"} {
		serial := append([]byte{0x9c, byte(n)}, bytes.Repeat([]byte{7}, 18)...)
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: new(big.Int).SetBytes(serial), Subject: pkix.Name{CommonName: name}, NotBefore: now(), NotAfter: end, IsCA: true,
			BasicConstraintsValid: true,
		}, &x509.Certificate{Subject: pkix.Name{CommonName: "issuing-1"}}, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		below := newAuthority(name)
		below.Parent, below.Certificate = "issuing-1", der
		if err := f.RecordAuthority(ctx, below, leaf(t, audit.AuthorityAdded)); err != nil {
			t.Fatal(err)
		}
		serials[name] = serial
	}
	revoke := func(name string, reason issuance.Reason, after int) {
		t.Helper()
		r := ca.Revocation{
			Issuer: "issuing-1", Serial: serials[name], Reason: reason, At: now(), Actor: "test", EventID: newID(), CRLScope: ca.FullScope,
			NotAfter: end,
		}
		if _, err := f.RecordRevocation(ctx, r, after, leafWithID(t, r.EventID, audit.CertificateRevoked)); err != nil {
			t.Fatal(err)
		}
	}
	revoke("revoked", issuance.CACompromise, 0)
	revoke("held", issuance.CertificateHold, 0)
	revoke("released", issuance.CertificateHold, 0)
	revoke("released", issuance.RemoveFromCRL, 1)
	for name, c := range map[string]struct {
		issuer  string
		serial  []byte
		issued  bool
		revoked bool
	}{
		"good":                {"issuing-1", serials["good"], true, false},
		"revoked":             {"issuing-1", serials["revoked"], true, true},
		"held":                {"issuing-1", serials["held"], true, true},
		"released":            {"issuing-1", serials["released"], true, false},
		"octets within it":    {"issuing-1", serials["good"][:19], false, false},
		"another authority's": {"issuing-2", serials["good"], false, false},
	} {
		got, err := f.CertificateStatus(ctx, c.issuer, c.serial)
		if err != nil || got.Issued != c.issued || got.Revoked != c.revoked || c.issued && !got.NotAfter.Equal(end) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	// What OCSP answers good or revoked of, an account of signatures does not call invented.
	never, err := f.Unissued(ctx, [][]byte{{}, serials["good"], serials["good"][:19], serials["revoked"], {1}})
	if err != nil || !slices.EqualFunc(never, [][]byte{{}, serials["good"][:19], {1}}, bytes.Equal) {
		t.Errorf("%x were never issued, %v", never, err)
	}
}

func TestResponderCertificates(t *testing.T) {
	f := setUp(t)
	spki := random32()
	issue := func(days int, change func(*ca.NewCertificate)) ca.NewCertificate {
		i := newIntent(t, alpha)
		i.Request.SPKI, i.Request.Profile, i.NotAfter = spki, ca.ResponderProfile, now().Add(time.Duration(days)*24*time.Hour)
		if err := f.RecordIntent(context.Background(), i, leaf(t, audit.CertificateIntended)); err != nil {
			t.Fatal(err)
		}
		return f.finish(i, change)
	}
	as := func(*ca.NewCertificate) {}
	first, second := issue(10, as), issue(30, as)
	f.revoke(issue(40, as), issuance.Superseded, 0)
	issue(-1, as)
	issue(50, func(c *ca.NewCertificate) { c.Profile = "tls-server" })
	got, err := f.ResponderCertificates(context.Background(), "issuing-1", spki)
	if err != nil || !reflect.DeepEqual(got, [][]byte{second.DER, first.DER}) {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := f.ResponderCertificates(context.Background(), "issuing-2", spki); err != nil || len(got) != 0 {
		t.Errorf("of another authority: %q, %v", got, err)
	}
}
