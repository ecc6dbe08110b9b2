package storage_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/reconcile"
)

// readableDER is a certificate that names the CRL of a scope; the empty scope: none.
func readableDER(t testing.TB, serial []byte, notAfter time.Time, issuer, scope string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: new(big.Int).SetBytes(serial), NotBefore: notAfter.Add(-time.Hour), NotAfter: notAfter}
	if scope != "" {
		template.CRLDistributionPoints = []string{newAuthority(issuer).Distribution(scope).URL}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// readable makes a certificate one that can be read.
func readable(t testing.TB, scope string) func(*ca.NewCertificate) {
	return func(c *ca.NewCertificate) { c.DER = readableDER(t, c.Serial[:], c.NotAfter, c.Issuer, scope) }
}

// addReadableAuthority adds an authority whose certificates are those of readableDER: they have no names.
func (f *fixture) addReadableAuthority(name string) {
	f.t.Helper()
	a := newAuthority(name)
	a.Certificate = readableDER(f.t, []byte{1}, now().AddDate(1, 0, 0), name, "")
	if err := f.RecordAuthority(context.Background(), a, leaf(f.t, audit.AuthorityAdded)); err != nil {
		f.t.Fatal(err)
	}
}

// Whoever changes on which CRL a revocation is listed, and until when, is found out by what the certificate itself says.
func TestARevocationIsListedAsItsCertificateSays(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	f.exec("ALTER TABLE revocations DISABLE TRIGGER facts_stay")
	f.exec("ALTER TABLE orphans DISABLE TRIGGER facts_stay")
	f.addAuthority("issuing-1")
	f.addAuthority("root-1")
	subordinate := newAuthority("issuing-2")
	ends := now().AddDate(1, 0, 0).Truncate(time.Second)
	subordinate.Certificate = readableDER(t, []byte{7, 1}, ends, "root-1", ca.FullScope)
	if err := f.RecordAuthority(ctx, subordinate, leaf(t, audit.AuthorityAdded)); err != nil {
		t.Fatal(err)
	}

	serials := map[string][]byte{}
	for name, scope := range map[string]string{"of the full CRL": ca.FullScope, "of a shard": "3", "that names no CRL": ""} {
		c := f.issue(readable(t, scope), func(c *ca.NewCertificate) {
			if scope == "3" {
				c.CRLScope = scope
			}
		})
		f.revoke(c, issuance.Superseded, 0)
		serials[name] = c.Serial[:]
	}
	orphan := f.intend(func(i *ca.Intent) {
		c, err := x509.ParseCertificate(readableDER(t, i.Serial[:], i.NotAfter, i.Issuer, i.CRLScope))
		if err != nil {
			t.Fatal(err)
		}
		i.TBS = c.RawTBSCertificate
	})
	settlement := ca.Settlement{Issuer: orphan.Issuer, Serial: orphan.Serial, Kind: orphan.Kind, At: now(), EventID: newID(), Reason: "a test"}
	if err := f.SettleIntent(ctx, alpha, settlement, leafWithID(t, settlement.EventID, audit.CertificateOrphaned)); err != nil {
		t.Fatal(err)
	}
	serials["that was possibly signed"] = orphan.Serial[:]
	authority := ca.Revocation{
		Issuer: "root-1", Serial: []byte{7, 1}, Reason: issuance.CACompromise, At: now(), Actor: "local:root", EventID: newID(),
		CRLScope: ca.FullScope, NotAfter: ends,
	}
	if _, err := f.RecordRevocation(ctx, authority, 0, leafWithID(t, authority.EventID, audit.CertificateRevoked)); err != nil {
		t.Fatal(err)
	}
	serials["of an authority"] = authority.Serial

	lost := ca.Revocation{
		Issuer: "issuing-2", Serial: []byte{7, 2}, Reason: issuance.Unspecified, At: now(), Actor: "local:root", EventID: newID(),
		CRLScope: ca.FullScope, NotAfter: ends,
	}
	told, err := audit.New(audit.Event{
		ID: lost.EventID, Kind: audit.CertificateRevoked, Time: time.Now(), Actor: "local:root", Data: map[string]string{"crl_scope": ca.FullScope},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.RecordRevocation(ctx, lost, 0, told); err != nil {
		t.Fatal(err)
	}
	serials["that was lost"] = lost.Serial

	want := func(what string, says ...string) {
		t.Helper()
		var got []string
		for _, x := range f.rows() {
			for _, one := range []string{"has the crl_scope", "has the not_after", "is of no certificate", "is of an authority"} {
				if strings.HasPrefix(x.What, "the revocation") && strings.Contains(x.What, " "+one) {
					got = append(got, one)
				}
			}
		}
		if !slices.Equal(got, says) {
			t.Errorf("%s: found %q, want %q", what, got, says)
		}
	}
	want("a sound database")
	for name, serial := range serials {
		f.exec("UPDATE revocations SET crl_scope = '9' WHERE serial = $1", serial)
		want("another scope of one "+name, "has the crl_scope")
		f.exec("UPDATE revocations AS r SET crl_scope = coalesce((SELECT crl_scope FROM issued AS i WHERE i.serial = r.serial), 'full')")
		f.exec("UPDATE revocations SET not_after = not_after - interval '1 year' WHERE serial = $1", serial)
		want("an earlier end of one "+name, "has the not_after")
		f.exec("UPDATE revocations SET not_after = not_after + interval '1 year' WHERE serial = $1", serial)
	}
	f.exec("DELETE FROM orphans")
	want("an orphan that is gone", "is of no certificate")
	f.exec("UPDATE revocations SET issuer = 'nobody' WHERE serial = $1", serials["of a shard"])
	want("another authority's", "is of no certificate", "is of an authority")
}

// A certificate that is on record under another number, or as another authority's, is revoked by a number and on a CRL that are not its own:
// its event says what its row does, for one hand has written both.
func TestACertificateIsOnRecordAsItself(t *testing.T) {
	f := setUp(t)
	f.exec("ALTER TABLE certificates DISABLE TRIGGER facts_stay")
	keys, parents := map[string]*ecdsa.PrivateKey{}, map[string]*x509.Certificate{}
	for n, name := range []string{"issuing-1", "issuing-2"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(int64(n + 1)), Subject: pkix.Name{CommonName: "one name"}, SubjectKeyId: []byte{byte(n)}, IsCA: true,
			BasicConstraintsValid: true, NotBefore: now(), NotAfter: now().Add(time.Hour),
		}
		a := newAuthority(name)
		if a.Certificate, err = x509.CreateCertificate(rand.Reader, template, template, key.Public(), key); err != nil {
			t.Fatal(err)
		}
		if parents[name], err = x509.ParseCertificate(a.Certificate); err != nil {
			t.Fatal(err)
		}
		if err := f.RecordAuthority(t.Context(), a, leaf(t, audit.AuthorityAdded)); err != nil {
			t.Fatal(err)
		}
		keys[name] = key
	}
	made := func(by string, serial [20]byte, number byte, ends time.Time) *x509.Certificate {
		t.Helper()
		serial[19] ^= number
		template := &x509.Certificate{SerialNumber: new(big.Int).SetBytes(serial[:]), NotBefore: now(), NotAfter: ends}
		der, err := x509.CreateCertificate(rand.Reader, template, parents[by], keys[by].Public(), keys[by])
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	signed := map[string]reconcile.Signature{}
	sign := func(serial string, tbs []byte) {
		signed[serial] = reconcile.Signature{
			Digest: sha256.Sum256(tbs), At: time.Now(), Entry: 1, Key: "issuing", Kind: reconcile.Certificate, Detail: serial,
		}
	}
	issue := func(by, as string, number byte, behind ...byte) string {
		t.Helper()
		c := f.issue(func(c *ca.NewCertificate) {
			of := made(by, c.Serial, number, c.NotAfter)
			c.DER = append(of.Raw, behind...)
			misplaced, err := f.Misplaced(t.Context())
			if err != nil || misplaced(as, c.Serial[:], c.DER) != (by != as || number != 0) {
				t.Errorf("%s of %s, as %d of %s, from an archive: %v", c.Serial, by, number, as, err)
			}
			sign(c.Serial.String(), of.RawTBSCertificate)
		})
		f.exec("UPDATE certificates SET issuer = $2 WHERE serial = $1", c.Serial[:], as)
		return c.Serial.String()
	}
	intend := func(by, as string, settled bool) string {
		t.Helper()
		i := f.intend(func(i *ca.Intent) {
			i.Issuer, i.TBS = as, made(by, i.Serial, 0, i.NotAfter).RawTBSCertificate
			sign(i.Serial.String(), i.TBS)
		})
		if settled {
			s := ca.Settlement{Issuer: i.Issuer, Serial: i.Serial, Kind: i.Kind, At: now(), EventID: newID(), Reason: "a test"}
			if err := f.SettleIntent(t.Context(), alpha, s, leafWithID(t, s.EventID, audit.CertificateOrphaned)); err != nil {
				t.Fatal(err)
			}
		}
		return i.Serial.String()
	}
	f.addAuthority("unreadable")
	const number, authority, nobody = "has another serial number in itself", "is another authority's in itself", "is of no authority"
	want := map[string]string{
		issue("issuing-1", "issuing-1", 0): "", issue("issuing-1", "issuing-1", 0, 5, 0): "",
		issue("issuing-1", "issuing-1", 1): number, issue("issuing-1", "issuing-1", 1, 5, 0): number,
		issue("issuing-1", "issuing-2", 0): authority, issue("issuing-1", "issuing-2", 0, 5, 0): authority,
		issue("issuing-1", "nobody", 0): nobody, issue("issuing-1", "unreadable", 0): nobody,
		intend("issuing-1", "issuing-1", true): "", intend("issuing-1", "issuing-2", true): authority,
	}
	found := map[string]string{}
	for _, x := range f.rows() {
		for serial := range want {
			if x.Kind == audit.Unlogged && strings.Contains(x.What, serial) {
				for _, what := range []string{number, authority, nobody} {
					if strings.Contains(x.What, what) {
						found[serial] += what
					}
				}
			}
		}
	}
	for serial, what := range want {
		if found[serial] != what {
			t.Errorf("%s: found %q, want %q", serial, found[serial], what)
		}
	}
	want[intend("issuing-1", "issuing-1", false)], want[intend("issuing-1", "issuing-2", false)] = "", authority
	account := reconcile.Open(t.TempDir(), reconcile.Span{Until: time.Now().Add(time.Hour)}, []string{"journal"})
	defer account.Close()
	if err := f.SigningRecords(t.Context(), time.Time{}, account.Record); err != nil {
		t.Fatal(err)
	}
	for _, s := range signed {
		if err := account.Signature(s); err != nil {
			t.Fatal(err)
		}
	}
	accounted := map[string]bool{}
	for serial := range signed {
		accounted[serial] = true
	}
	if _, err := account.Settle(t.Context(), reconcile.Oracle{Unissued: f.Unissued}, func(x reconcile.Finding) error {
		if x.Kind == reconcile.Unrecorded {
			accounted[strings.TrimPrefix(x.Subject, "certificate ")] = false
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for serial, what := range want {
		if accounted[serial] != (what == "") {
			t.Errorf("%s, which %q: accounted for: %v", serial, what, accounted[serial])
		}
	}
}
