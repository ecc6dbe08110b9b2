package storage_test

import (
	"context"
	"reflect"
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
