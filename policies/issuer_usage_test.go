package policies

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestPurposesLieWithinTheIssuers holds that an authority which is constrained to other purposes than the profile's (RFC 5280, section
// 4.2.1.12; BR, section 7.1.2.10.6) issues nothing under it, and that the refusal says what would be issued.
func TestPurposesLieWithinTheIssuers(t *testing.T) {
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection, x509.ExtKeyUsageCodeSigning} {
		r := benign(t)
		r.Issuer.Certificate = issuingAuthority(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{usage} })
		d := shippedSet(t).Decide(r)
		if d.Verdict() != Refuse || !slices.Equal(refusing(d), []string{"extensions.issuer-ext-key-usage"}) {
			t.Fatalf("an authority for %v alone issues a TLS server's certificate: %s by %v", usage, d.Verdict(), refusing(d))
		}
		result := resultOf(t, d, "extensions.issuer-ext-key-usage")
		v := result.Violations[0]
		if !strings.Contains(v.Message, `"tls-server" gives the extended key usage serverAuth`) || !strings.Contains(v.Message, `"issuing-1"`) ||
			!strings.Contains(v.Hint, usage.String()) || result.Seen != fmt.Sprintf("serverAuth; from an authority for %v", usage) {
			t.Errorf("%+v, seen %q", v, result.Seen)
		}
	}
	// What has no name is compared by its digits.
	set := changed(t, "[serverAuth]", "[1.2.3.4]")
	for arc, want := range map[int]Verdict{4: Allow, 5: Refuse} {
		r := benign(t)
		r.Profile = "plain"
		r.Issuer.Certificate = issuingAuthority(t, func(c *x509.Certificate) { c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 2, 3, arc}} })
		if got := resultOf(t, set.Decide(r), "extensions.issuer-ext-key-usage"); got.Verdict != want {
			t.Errorf("1.2.3.4 from an authority for 1.2.3.%d: %s", arc, got.Verdict)
		}
	}
}

// TestPurposesNestAsInVerifiers holds that what the rule allows verifies for every purpose of the profile, and what it refuses does not for
// one at least, whatever the authorities of the chain are for.
func TestPurposesNestAsInVerifiers(t *testing.T) {
	usages := []x509.ExtKeyUsage{
		x509.ExtKeyUsageAny, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageCodeSigning, x509.ExtKeyUsageEmailProtection,
		x509.ExtKeyUsageIPSECUser, x509.ExtKeyUsageMicrosoftKernelCodeSigning,
	}
	key := authorityTestKey()
	serial := int64(0)
	certify := func(t *rapid.T, authority bool, usages []x509.ExtKeyUsage, parent *x509.Certificate) *x509.Certificate {
		serial++
		template := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: fmt.Sprint(serial)}, NotBefore: now.Add(-day), NotAfter: now.Add(day),
			IsCA: authority, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, ExtKeyUsage: usages,
		}
		if !authority {
			template.KeyUsage = x509.KeyUsageDigitalSignature
		}
		if parent == nil {
			parent = template
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	seen := map[bool]int{}
	rapid.Check(t, func(t *rapid.T) {
		some := func(label string, from []x509.ExtKeyUsage, least int) []x509.ExtKeyUsage {
			return rapid.SliceOfNDistinct(rapid.SampledFrom(from), least, 3, rapid.ID[x509.ExtKeyUsage]).Draw(t, label)
		}
		root := certify(t, true, some("root", usages, 0), nil)
		issuer := certify(t, true, some("issuer", usages, 0), root)
		leaf := certify(t, false, some("leaf", usages[1:], 1), issuer)

		e := &evaluation{Request: Request{Issuer: Issuer{Above: []*x509.Certificate{root}}}, profile: &Profile{extKeyUsage: usagesOf(leaf)}, issuer: issuer}
		f := findings{room: maxViolationsOfRule}
		issuerExtKeyUsage.check(e, &f)

		options := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: now}
		options.Roots.AddCert(root)
		options.Intermediates.AddCert(issuer)
		refused := 0
		for _, usage := range leaf.ExtKeyUsage {
			options.KeyUsages = []x509.ExtKeyUsage{usage}
			if _, err := leaf.Verify(options); err != nil {
				refused++
			}
		}
		if f.count != refused {
			t.Fatalf("root %v, issuer %v: the rule refuses %d of %v, verifiers %d", root.ExtKeyUsage, issuer.ExtKeyUsage, f.count, leaf.ExtKeyUsage, refused)
		}
		seen[refused == 0]++
	})
	if seen[true] == 0 || seen[false] == 0 {
		t.Fatalf("the property was tried on too little: %v", seen)
	}
}
