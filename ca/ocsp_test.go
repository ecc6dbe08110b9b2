package ca

import (
	"context"
	"crypto"
	_ "crypto/sha1" // of a CertID
	_ "crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"
)

// asked counts how often the status of a serial is looked up.
type asked struct {
	Store
	status CertificateStatus
	times  int
}

func (a *asked) CertificateStatus(context.Context, string, []byte) (CertificateStatus, error) {
	a.times++
	return a.status, nil
}

// requestOCSP asks about a serial of an authority, by names that a hash makes.
func requestOCSP(t *testing.T, issuer *x509.Certificate, hash crypto.Hash, oid asn1.ObjectIdentifier, serial int64) []byte {
	t.Helper()
	var spki struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(issuer.RawSubjectPublicKeyInfo, &spki); err != nil {
		t.Fatal(err)
	}
	sum := func(b []byte) []byte {
		h := hash.New()
		h.Write(b)
		return h.Sum(nil)
	}
	type certID struct {
		Algorithm pkix.AlgorithmIdentifier
		Name, Key []byte
		Serial    *big.Int
	}
	type single struct{ ID certID }
	type tbs struct{ List []single }
	der, err := asn1.Marshal(struct{ TBS tbs }{tbs{[]single{{certID{
		pkix.AlgorithmIdentifier{Algorithm: oid, Parameters: asn1.NullRawValue}, sum(issuer.RawSubject), sum(spki.Key.Bytes), big.NewInt(serial),
	}}}}})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// What is known of a certificate is looked up again after half the validity of an answer, in however many forms it is asked for.
func TestAStatusIsLookedUpAgain(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	a, _ := openAuthority(t, "issuing-1", now)
	clock := func() time.Time { return now }
	store := &asked{status: CertificateStatus{Issued: true, NotAfter: now.AddDate(1, 0, 0)}}
	c := publishing(store, clock, a)
	var err error
	const validity = 10 * time.Hour
	if c.ocsp, err = newOCSP([]OCSPPlan{{Authority: a.Name, Validity: validity}}, c.authorities); err != nil {
		t.Fatal(err)
	}
	c.ocsp.following.Store(true)
	forms := [][]byte{
		requestOCSP(t, a.Certificate, crypto.SHA1, asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}, 5),
		requestOCSP(t, a.Certificate, crypto.SHA256, asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}, 5),
	}
	began := now
	for n, one := range []struct {
		after time.Duration
		form  int
		times int
	}{
		{0, 0, 1},
		{4 * time.Hour, 1, 1}, // the other form is signed from what is known
		{6 * time.Hour, 0, 2}, // the first is due: what is known of it is six hours old
		{10 * time.Hour, 1, 2},
		{12 * time.Hour, 0, 3},
	} {
		now = began.Add(one.after)
		c.ocsp.syncedAt.Store(now.UnixNano())
		response, err := c.OCSP(context.Background(), a.Name, forms[one.form])
		c.ocsp.work.Wait()
		if err != nil || response.Refusal != 0 || store.times != one.times {
			t.Errorf("%d: looked up %d times, want %d; %v, %v", n, store.times, one.times, response.Refusal, err)
		}
	}
}
