package ca

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"
)

// Name constraints hold for the whole chain, so a decision is told of all of it.
func TestADecisionKnowsTheAuthoritiesAbove(t *testing.T) {
	now := time.Now()
	a, _ := openAuthority(t, "issuing-1", now)
	parent, key := openAuthority(t, "root", now)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "root"}, NotBefore: now, NotAfter: now.AddDate(1, 0, 0), IsCA: true,
		BasicConstraintsValid: true, PermittedDNSDomains: []string{"team.example"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.Certificate, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	record := a.AuthorityRecord
	record.Chain = [][]byte{record.Certificate, der, parent.AuthorityRecord.Certificate}
	opened, err := OpenAuthority(record, a.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	facts := opened.Facts(opened.Certificate, opened.above)
	if len(facts.Above) != 2 || facts.Above[0].PermittedDNSDomains[0] != "team.example" || !facts.Above[1].Equal(parent.Certificate) {
		t.Errorf("told of %d authorities above", len(facts.Above))
	}
	record.Chain[1] = der[1:]
	if _, err := OpenAuthority(record, a.Issuer); err == nil {
		t.Error("a chain that cannot be read was opened")
	}
}
