package issuance

import (
	"encoding/pem"
	"errors"
	"os"
	"strings"
	"testing"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3/lint"

	"github.com/chancery-ca/chancery/policies"
)

func TestCheckLint(t *testing.T) {
	for name, c := range map[string]struct {
		lint policies.Lint
		want string // in the error; empty: none
	}{
		"sound":            {lint: publicLint},
		"no source":        {lint: policies.Lint{}, want: "no lint source"},
		"unknown source":   {lint: policies.Lint{Sources: []string{"RFC5280", "RFC9999"}}, want: `"RFC9999"`},
		"source in lower":  {lint: policies.Lint{Sources: []string{"rfc5280"}}, want: `"rfc5280"`},
		"unknown lint":     {lint: policies.Lint{Sources: []string{"RFC5280"}, Except: []policies.LintException{{Lint: "e_none"}}}, want: `"e_none"`},
		"lint of CRLs":     {lint: policies.Lint{Sources: []string{"RFC5280"}, Except: []policies.LintException{{Lint: "e_crl_has_next_update"}}}},
		"the hoisted lint": {lint: policies.Lint{Sources: []string{"Community"}, Except: []policies.LintException{{Lint: compromisedIssuer}}}},
	} {
		err := CheckLint(c.lint)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSelection holds the lints that run against all that the sources have: the hoisted one and the exceptions are left out, no other.
func TestSelection(t *testing.T) {
	all := policies.Lint{Except: []policies.LintException{{Lint: "e_rsa_fermat_factorization"}}}
	for _, source := range lint.GlobalRegistry().Sources() {
		all.Sources = append(all.Sources, string(source))
	}
	selected := linterOf(t, all)
	if got, want := len(selected.lints), len(lint.GlobalRegistry().CertificateLints().Lints())-2; got != want {
		t.Errorf("%d lints are selected, want %d", got, want)
	}
	for _, one := range selected.lints {
		if one.Name == compromisedIssuer || one.Name == "e_rsa_fermat_factorization" {
			t.Errorf("%s is selected", one.Name)
		}
	}
}

// TestSelectionIsKept asks an issuer for linters of the same and of other selections.
func TestSelectionIsKept(t *testing.T) {
	h := ecdsaHierarchy(t)
	linter := func(l policies.Lint) *linter {
		made, err := h.issuing.linter(l)
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	if first, again := linter(publicLint), linter(publicLint); first != again {
		t.Error("the same selection was made twice")
	}
	if linter(publicLint) == linter(rfcLint) {
		t.Error("two selections share a linter")
	}
	if _, err := h.issuing.linter(policies.Lint{}); err == nil {
		t.Error("a selection without a source was made")
	}
}

// TestCompromisedIssuer shows that the hoisted lint still bites. The certificate is public (crt.sh, 30010070587): whoever had one of
// the compromised keys made it to show that.
func TestCompromisedIssuer(t *testing.T) {
	text, err := os.ReadFile("testdata/compromised.pem")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	var refused *LintError
	if err := checkIssuerKey(block.Bytes); !errors.As(err, &refused) || refused.Findings[0].Lint != compromisedIssuer {
		t.Errorf("the compromised key was accepted: %v", err)
	}
	h := ecdsaHierarchy(t)
	fresh := withSigner(h.issuing, h.issuingKey)
	fresh.keyCleared.Store(false)
	if err := fresh.clearKey(block.Bytes); err == nil || fresh.keyCleared.Load() {
		t.Error("the key of the first certificate was cleared")
	}
	leaf := issue(t, fresh, leafTemplate(t, p256(t).Public()), publicLint)
	if !fresh.keyCleared.Load() {
		t.Error("a sound certificate did not clear the key")
	}
	if err := checkIssuerKey(leaf.DER); err != nil {
		t.Error(err)
	}
	if !h.root.keyCleared.Load() {
		t.Error("a root's own certificate did not clear its key")
	}
}

func TestUnreadable(t *testing.T) {
	var refused *LintError
	for name, err := range map[string]error{
		"certificate": linterOf(t, rfcLint).check([]byte{0x30, 0}),
		"issuer":      checkIssuerKey([]byte{0x30, 0}),
		"CRL":         ecdsaHierarchy(t).issuing.crlLinter.check([]byte{0x30, 0}, false),
	} {
		if !errors.As(err, &refused) || refused.Findings[0].Lint != "parse" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// panicking is a lint of CRLs that panics.
type panicking struct{}

func (panicking) CheckApplies(*zx509.RevocationList) bool        { return true }
func (panicking) Execute(*zx509.RevocationList) *lint.LintResult { panic("index out of range") }

func TestPanickingLint(t *testing.T) {
	one := &lint.RevocationListLint{Lint: func() lint.RevocationListLintInterface { return panicking{} }}
	if got := execute(one, new(zx509.RevocationList), lint.NewEmptyConfig()); got.Status != lint.Fatal {
		t.Errorf("a lint that panicked said %v", got.Status)
	}
}

// TestFindings looks at the words of a refusal.
func TestFindings(t *testing.T) {
	var findings []Finding
	for _, status := range []lint.LintStatus{lint.Fatal, lint.NA, lint.NE, lint.Pass, lint.Notice, lint.Warn, lint.Error, lint.Reserved} {
		findings = appendFinding(findings, "l_"+status.String(), &lint.LintResult{Status: status, Details: "why"})
	}
	got := refusal(findings).Error()
	want := "lint refused: error l_error (why), fatal l_fatal (why), notice l_info (why), fatal l_reserved (why), warn l_warn (why)"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if refusal(nil) != nil {
		t.Error("nothing found is a refusal")
	}
}
