package storage_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
)

func TestEveryIssuedCertificateIsWalkedOnce(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	const n = 4100 // three pages
	f.bulk(n)
	revoked := f.issue()
	f.revoke(revoked, issuance.Superseded, 0)
	orphan := f.intend()
	settlement := ca.Settlement{Issuer: orphan.Issuer, Serial: orphan.Serial, Kind: orphan.Kind, At: now(), EventID: newID(), Reason: "test"}
	if err := f.SettleIntent(ctx, alpha, settlement, leafWithID(t, settlement.EventID, audit.CertificateOrphaned)); err != nil {
		t.Fatal(err)
	}
	both := f.intend(func(i *ca.Intent) { i.Kind = issuance.Precertificate })
	pre := certificateOf(both)
	if err := f.RecordPrecertificate(ctx, pre, leafWithID(t, pre.EventID, audit.CertificateIssued)); err != nil {
		t.Fatal(err)
	}
	both.Kind = issuance.Final
	both.TBS = []byte("final")
	if err := f.RecordFinalIntent(ctx, both, leaf(t, audit.CertificateIntended)); err != nil {
		t.Fatal(err)
	}
	f.finish(both)
	f.issue(func(c *ca.NewCertificate) { c.NotAfter = now().Add(-time.Hour) })

	seen := map[issuance.Serial]int{}
	var last issuance.Serial
	err := f.EachIssued(ctx, "issuing-1", func(c ca.Certificate, tbs []byte) error {
		seen[c.Serial]++
		if string(c.Serial[:]) <= string(last[:]) {
			t.Errorf("%s comes after %s", c.Serial, last)
		}
		last = c.Serial
		switch c.Serial {
		case revoked.Serial:
			if c.Revocation == nil || c.Revocation.Reason != issuance.Superseded || len(c.DER) == 0 {
				t.Errorf("the revoked one is %+v", c)
			}
		case orphan.Serial:
			if !c.Orphan || string(tbs) != string(orphan.TBS) || c.Revocation == nil {
				t.Errorf("the orphan is %+v with %q", c, tbs)
			}
		case both.Serial:
			if c.Kind != issuance.Final {
				t.Errorf("of a precertificate and its certificate comes the %s", c.Kind)
			}
		default:
			if tbs != nil {
				t.Errorf("%s has a to-be-signed part", c.Serial)
			}
		}
		return nil
	})
	if err != nil || len(seen) != n+4 {
		t.Errorf("%d certificates, %v; want %d", len(seen), err, n+4)
	}
	for serial, times := range seen {
		if times != 1 {
			t.Errorf("%s came %d times", serial, times)
		}
	}
	stop := errors.New("stop")
	if err := f.EachIssued(ctx, "issuing-1", func(ca.Certificate, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("stopped: %v", err)
	}
}
