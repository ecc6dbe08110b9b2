package revocation

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// TestAnswersOfOthersAreNotBelieved: whoever has any certificate of the issuer could otherwise say that another is good.
func TestAnswersOfOthersAreNotBelieved(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	from := now
	make := func(serial int64, uses []x509.ExtKeyUsage, parent *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{SerialNumber: big.NewInt(serial).String()}, NotBefore: from, NotAfter: from.Add(time.Hour),
			ExtKeyUsage: uses, IsCA: parent == nil, BasicConstraintsValid: true,
		}
		if parent == nil {
			parent, by = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
		if err != nil {
			t.Fatal(err)
		}
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return certificate, key
	}
	issuer, issuerKey := make(1, nil, nil, nil)
	responder, responderKey := make(2, []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}, issuer, issuerKey)
	server, serverKey := make(3, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, issuer, issuerKey)
	plain, plainKey := make(4, nil, issuer, issuerKey)
	stranger, strangerKey := make(5, nil, nil, nil)
	from = now.Add(-time.Hour - time.Second)
	past, pastKey := make(6, responder.ExtKeyUsage, issuer, issuerKey)
	from = now.Add(time.Minute + time.Second)
	future, futureKey := make(7, responder.ExtKeyUsage, issuer, issuerKey)
	for name, c := range map[string]struct {
		by     *x509.Certificate // nil: the issuer itself
		key    *ecdsa.PrivateKey
		serial int64
		this   time.Time
		next   time.Time
		sound  bool
	}{
		"the issuer":                 {nil, issuerKey, 3, now, now.Add(time.Hour), true},
		"a responder":                {responder, responderKey, 3, now, now.Add(time.Hour), true},
		"for as long as it lasts":    {responder, responderKey, 3, now, time.Time{}, true},
		"a clock a little ahead":     {responder, responderKey, 3, now.Add(time.Minute), now.Add(time.Hour), true},
		"a server":                   {server, serverKey, 3, now, now.Add(time.Hour), false},
		"one that is for nothing":    {plain, plainKey, 3, now, now.Add(time.Hour), false},
		"a stranger":                 {stranger, strangerKey, 3, now, now.Add(time.Hour), false},
		"the issuer, with any key":   {nil, strangerKey, 3, now, now.Add(time.Hour), false},
		"about another certificate":  {responder, responderKey, 4, now, now.Add(time.Hour), false},
		"of the future":              {responder, responderKey, 3, now.Add(61 * time.Second), now.Add(time.Hour), false},
		"that holds until now alone": {responder, responderKey, 3, now.Add(-time.Hour), now, false},
		"a responder of the past":    {past, pastKey, 3, now, now.Add(time.Hour), false},
		"a responder of the future":  {future, futureKey, 3, now, now.Add(time.Hour), false},
	} {
		template := ocsp.Response{Status: ocsp.Good, SerialNumber: big.NewInt(c.serial), ThisUpdate: c.this, NextUpdate: c.next, Certificate: c.by}
		signer := issuer
		if c.by != nil {
			signer = c.by
		}
		der, err := ocsp.CreateResponse(issuer, signer, template, c.key)
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := ReadOCSP(der, server, issuer, now, time.Minute); (err == nil) != c.sound || c.sound && answer.Status != ocsp.Good {
			t.Errorf("%s: %v", name, err)
		}
	}
}
