package issuance

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/csr"
	"github.com/chancery-ca/chancery/policies"
)

// TestPrepareRefuses lists what no decision may have signed.
func TestPrepareRefuses(t *testing.T) {
	h := ecdsaHierarchy(t)
	own := h.issuing.Certificate()
	linter := linterOf(t, publicLint)
	key := p256(t).Public()
	if _, err := h.issuing.prepare(leafTemplate(t, key), linter, newSerial(t), now); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*policies.Template){
		"an end beyond the issuer's":  func(t *policies.Template) { t.NotAfter = own.NotAfter.Add(time.Second) },
		"an end at the beginning":     func(t *policies.Template) { t.NotAfter = t.NotBefore },
		"an end before the beginning": func(t *policies.Template) { t.NotAfter = t.NotBefore.Add(-time.Hour) },
		"an end that has passed":      func(t *policies.Template) { t.NotBefore, t.NotAfter = now.Add(-time.Hour), now },
		"a beginning long ago":        func(t *policies.Template) { t.NotBefore = now.Add(-48*time.Hour - time.Second) },
		"a beginning far ahead":       func(t *policies.Template) { t.NotBefore = now.Add(48*time.Hour + time.Second) },
		"a part of a second":          func(t *policies.Template) { t.NotAfter = t.NotAfter.Add(time.Millisecond) },
		"neither subject nor name":    func(t *policies.Template) { t.DNS = nil },
		"keyCertSign":                 func(t *policies.Template) { t.KeyUsage |= x509.KeyUsageCertSign },
		"cRLSign":                     func(t *policies.Template) { t.KeyUsage |= x509.KeyUsageCRLSign },
		"name constraints":            func(t *policies.Template) { t.Permitted = constraints() },
		"no key identifier":           func(t *policies.Template) { t.WriteSubjectKeyID, t.SubjectKeyID = true, nil },
		"no key":                      func(t *policies.Template) { t.SPKI = nil },
		"not a key":                   func(t *policies.Template) { t.SPKI = []byte{0x30, 0} },
		"the issuer's key":            func(t *policies.Template) { t.SPKI = own.RawSubjectPublicKeyInfo },
		"the issuer's public key":     func(t *policies.Template) { t.PublicKey = own.PublicKey },
		"the issuer's name": func(tpl *policies.Template) {
			tpl.Subject = intermediateTemplate(t, key).Subject
		},
		"an authority below pathLen 0": func(tpl *policies.Template) {
			*tpl = intermediateTemplate(t, key)
			tpl.Subject, tpl.NotAfter = commonName("Sub"), own.NotAfter
		},
	} {
		tpl := leafTemplate(t, key)
		change(&tpl)
		if _, err := h.issuing.prepare(tpl, linter, newSerial(t), now); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := h.issuing.prepare(leafTemplate(t, key), linter, Serial{}, now); err == nil {
		t.Error("a zero serial was accepted")
	}
}

// TestWhatThePoliciesAllowIsPrepared holds that what neither they nor the lints refuse can be signed: a requester learns what is wrong from a
// rule, and from nothing after them.
func TestWhatThePoliciesAllowIsPrepared(t *testing.T) {
	h, key := ecdsaHierarchy(t), p256(t)
	for name, c := range map[string]struct {
		subject, backdate string
		refusedBy         string
	}{
		"another subject":                       {"Release signing", "5m", ""},
		"as far back as may be":                 {"Release signing", "47h", ""},
		"the issuer's subject":                  {"Example Issuing 1", "5m", "subject.of-authority"},
		"the issuer's subject in small letters": {"example issuing 1", "5m", "subject.of-authority"},
	} {
		set, err := policies.LoadFiles([]policies.File{{Name: "any.yaml", Content: fmt.Appendf(nil, anyProfile, c.backdate)}})
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
			Subject: pkix.Name{Country: []string{"AT"}, Organization: []string{"Example"}, CommonName: c.subject},
		}, key)
		if err != nil {
			t.Fatal(err)
		}
		request, err := csr.Parse(der)
		if err != nil {
			t.Fatal(err)
		}
		at := now.Add(100*time.Hour + 123*time.Millisecond)
		d := set.Decide(policies.Request{
			CSR: request, Profile: "any", Actor: access.Actor{ID: "a1", Namespace: "team"}, Now: at,
			Namespace: access.Namespace{Name: "team", Subjects: []string{"Example"}},
			Issuer:    policies.Issuer{Name: "issuing-1", Certificate: h.issuing.Certificate(), IssuerURLs: []string{"http://ca.example/1.cer"}},
		})
		grant, err := d.Grant()
		var refusal *policies.Refusal
		if errors.As(err, &refusal) {
			if refusal.Violations[0].Rule != c.refusedBy {
				t.Errorf("%s: %v", name, refusal.Violations)
			}
			continue
		}
		if err != nil || c.refusedBy != "" {
			t.Errorf("%s: granted, %v", name, err)
			continue
		}
		if _, err := h.issuing.Prepare(grant, newSerial(t), at.Add(time.Minute)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// anyProfile has subjects that nobody looks at. Its parameter is how far a certificate is backdated.
const anyProfile = `name: any
description: For tests.
keys: {ecdsa: {curves: [P-256], key_usage: [digitalSignature]}}
ext_key_usage: [serverAuth]
validity: {default: 30d, max: 90d, backdate: %s}
subject:
  attributes:
    - {type: countryName, presence: optional}
    - {type: organizationName, presence: optional}
    - {type: commonName, presence: required}
  common_name: free
names: {min: 0}
lint: {sources: [RFC5280], except: [{lint: w_ext_subject_key_identifier_missing_sub_cert, reason: for tests}]}
`

// TestPrepareRefusesTheIssuersNameInOtherWriting: whoever checks a chain may take the certificate for self-issued.
func TestPrepareRefusesTheIssuersNameInOtherWriting(t *testing.T) {
	h := ecdsaHierarchy(t)
	linter, key := linterOf(t, rootLint), p256(t).Public()
	for name, write := range map[string]func(string) string{
		"as it is": strings.Clone, "in capitals": strings.ToUpper, "with white space": func(s string) string { return " " + strings.ReplaceAll(s, " ", "  ") },
	} {
		tpl := leafTemplate(t, key)
		tpl.Subject = nil
		for _, rdn := range intermediateTemplate(t, key).Subject {
			one := rdn[0]
			if value := one.Value.(string); len(value) > 2 { // a country has no other writing that is issued
				one.Value = write(value)
			}
			tpl.Subject = append(tpl.Subject, pkix.RelativeDistinguishedNameSET{one})
		}
		if _, err := h.issuing.prepare(tpl, linter, newSerial(t), now); err == nil || !strings.Contains(err.Error(), "the issuer's own") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGrantOfNobody(t *testing.T) {
	h := ecdsaHierarchy(t)
	for _, g := range []*policies.Grant{nil, {}} {
		if _, err := h.issuing.Prepare(g, newSerial(t), now); err == nil {
			t.Error("a grant that no decision made was accepted")
		}
		if _, err := SelfSign(t.Context(), g, h.issuingKey, newSerial(t), now, nothing); err == nil {
			t.Error("a grant that no decision made was accepted for a root")
		}
	}
}

// TestAuthorities looks at what CA certificates need.
func TestAuthorities(t *testing.T) {
	h := ecdsaHierarchy(t)
	linter := linterOf(t, rootLint)
	for name, change := range map[string]func(*policies.Template){
		"no subject":            func(t *policies.Template) { t.Subject, t.DNS = nil, []string{"example.com"} },
		"no keyCertSign":        func(t *policies.Template) { t.KeyUsage = x509.KeyUsageCRLSign },
		"no key identifier":     func(t *policies.Template) { t.SubjectKeyID = nil },
		"the root's own name":   func(tpl *policies.Template) { tpl.Subject = rootTemplate(t, h.issuingKey.Public()).Subject },
		"an end after the root": func(t *policies.Template) { t.NotAfter = t.NotAfter.AddDate(40, 0, 0) },
	} {
		tpl := intermediateTemplate(t, p256(t).Public())
		change(&tpl)
		if _, err := h.root.prepare(tpl, linter, newSerial(t), now); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// TestPathLen issues authorities below authorities, down to where the path ends.
func TestPathLen(t *testing.T) {
	h := ecdsaHierarchy(t)
	linter := linterOf(t, rfcLint)
	key := p256(t)
	tpl := intermediateTemplate(t, key.Public())
	tpl.PathLen, tpl.Permitted, tpl.Subject = 2, constraints(), commonName("Above")
	middle := issuerOf(t, issue(t, h.root, tpl, rfcLint).DER, key)
	for pathLen, fits := range map[int]bool{-1: false, 0: true, 1: true, 2: false} {
		tpl := intermediateTemplate(t, p256(t).Public())
		tpl.PathLen = pathLen
		if _, err := middle.prepare(tpl, linter, newSerial(t), now); (err == nil) != fits {
			t.Errorf("pathLen %d below 2: %v", pathLen, err)
		}
	}
	if got := middle.Certificate(); !got.PermittedDNSDomainsCritical || len(got.PermittedIPRanges) != 2 || got.MaxPathLen != 2 {
		t.Errorf("the constraints are read as %v %v", got.PermittedIPRanges, got.MaxPathLen)
	}
}

// TestLintRefuses has a lint refuse, with its name, and a profile leave that lint out.
func TestLintRefuses(t *testing.T) {
	h := ecdsaHierarchy(t)
	tpl := leafTemplate(t, p256(t).Public())
	tpl.NotAfter = tpl.NotBefore.Add(200*24*time.Hour - time.Second)
	_, err := h.issuing.prepare(tpl, linterOf(t, publicLint), newSerial(t), now)
	var lint *LintError
	if !errors.As(err, &lint) || len(lint.Findings) != 1 || lint.Findings[0].Level != "warn" {
		t.Fatalf("a validity of 200 days: %v", err)
	}
	lenient := publicLint
	lenient.Except = append([]policies.LintException{{Lint: lint.Findings[0].Lint, Reason: "a test"}}, lenient.Except...)
	if _, err := h.issuing.prepare(tpl, linterOf(t, lenient), newSerial(t), now); err != nil {
		t.Errorf("with the lint left out: %v", err)
	}
}
