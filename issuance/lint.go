package issuance

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	zx509 "github.com/zmap/zcrypto/x509"
	_ "github.com/zmap/zlint/v3" // registers the lints
	"github.com/zmap/zlint/v3/lint"

	"github.com/chancery-ca/chancery/policies"
)

// compromisedIssuer is the one lint that is not run on every certificate. It verifies the signature with each of eight compromised
// P-384 keys, which takes forty times as long as all others together, and cannot say anything of a placeholder. What it says depends
// on the issuer's key alone: a signature that verifies with the issuer's key verifies with one of those only if it is that key. So it
// is run on the issuer's own certificate when it is opened, which decides for a root, and on the first certificate that an issuer
// signs, which decides for all the others.
const compromisedIssuer = "e_cert_issued_by_compromised_emudhra_ca"

// holdAllowed is the lint of the Baseline Requirements that refuses certificateHold and other reasons on every CRL. RFC 5280 has them,
// private authorities use them, and whether one may be given is decided when a certificate is revoked.
const holdAllowed = "e_cab_crl_has_valid_reason_code"

// yearlyLists configures the lint of the Baseline Requirements' limits for nextUpdate, in TOML: a year for every CRL, which is the limit
// where a CRL covers authorities. The ten days for subscribers' CRLs are the plan of an authority that is publicly trusted.
const yearlyLists = "[e_crl_next_update_invalid]\nSubscriberCRL = false\n"

// CheckLint tells whether what a profile says of linting can be done: that it has a source, and that its sources and the lints it
// leaves out exist.
func CheckLint(l policies.Lint) error {
	_, err := newLinter(l)
	return err
}

// linter runs the lints of one selection on certificates.
type linter struct {
	lints         []*lint.CertificateLint
	configuration lint.Configuration
	dates         []time.Time // of effectiveDates
	shapes        shapes
}

// newLinter selects the lints of a profile, without compromisedIssuer.
func newLinter(l policies.Lint) (*linter, error) {
	registry := lint.GlobalRegistry()
	if len(l.Sources) == 0 {
		return nil, errors.New("no lint source is chosen")
	}
	known := registry.Sources()
	options := lint.FilterOptions{ExcludeNames: []string{compromisedIssuer}}
	for _, name := range l.Sources {
		source := lint.LintSource(name)
		if !slices.Contains(known, source) {
			return nil, fmt.Errorf("%q is not a lint source; use one of %s", name, sourceNames(known))
		}
		options.IncludeSources = append(options.IncludeSources, source)
	}
	for _, e := range l.Except {
		if registry.CertificateLints().ByName(e.Lint) == nil && registry.RevocationListLints().ByName(e.Lint) == nil {
			return nil, fmt.Errorf("%q, left out of linting, is not the name of a lint", e.Lint)
		}
		options.ExcludeNames = append(options.ExcludeNames, e.Lint)
	}
	selected, err := registry.Filter(options)
	if err != nil {
		return nil, fmt.Errorf("selecting lints: %w", err)
	}
	made := &linter{configuration: selected.GetConfiguration()}
	for _, one := range selected.CertificateLints().Lints() {
		made.lints = append(made.lints, quick(one))
	}
	made.dates = effectiveDates(made.lints)
	return made, nil
}

func sourceNames(sources lint.SourceList) string {
	names := make([]string, len(sources))
	for i, s := range sources {
		names[i] = string(s)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// check lints a certificate. Findings from notice up are a *LintError, and so is a certificate that a parser does not accept.
func (l *linter) check(certificate []byte) error {
	read, err := x509.ParseCertificate(certificate)
	if err != nil {
		return unreadable(err)
	}
	var room [1024]byte
	varies := varying(read)
	parsed, at, err := l.parse(room[:0], certificate, varies)
	if err != nil {
		return unreadable(err)
	}
	return refusal(l.find(at, parsed, varies))
}

// checkIssuerKey runs compromisedIssuer on a certificate that the issuer's key has signed, or on the issuer's own.
func checkIssuerKey(certificate []byte) error {
	registry := lint.GlobalRegistry()
	one := registry.CertificateLints().ByName(compromisedIssuer)
	if one == nil {
		return fmt.Errorf("the lint %s does not exist", compromisedIssuer)
	}
	parsed, err := zx509.ParseCertificate(certificate)
	if err != nil {
		return unreadable(err)
	}
	return refusal(appendFinding(nil, one.Name, one.Execute(parsed, registry.GetConfiguration())))
}

// revocationLinter runs the lints of RFC 5280, of the community and of the Baseline Requirements on CRLs.
type revocationLinter struct {
	lints         []*lint.RevocationListLint
	configuration lint.Configuration
}

func newRevocationLinter() (*revocationLinter, error) {
	selected, err := lint.GlobalRegistry().Filter(lint.FilterOptions{
		IncludeSources: lint.SourceList{lint.RFC5280, lint.Community, lint.CABFBaselineRequirements},
		ExcludeNames:   []string{holdAllowed},
	})
	if err != nil {
		return nil, fmt.Errorf("selecting lints for CRLs: %w", err)
	}
	configuration, err := lint.NewConfigFromString(yearlyLists)
	if err != nil {
		return nil, fmt.Errorf("configuring lints for CRLs: %w", err)
	}
	return &revocationLinter{lints: selected.RevocationListLints().Lints(), configuration: configuration}, nil
}

// onlyRecommended is the lint of the Baseline Requirements that warns of every extension but three. Delta CRLs and what leads to them need
// others (RFC 5280, sections 5.2.4 and 5.2.6); it is left out where the plan of an authority asks for deltas.
const onlyRecommended = "e_crl_extensions_validity"

func (l *revocationLinter) check(crl []byte, deltas bool) error {
	if _, err := x509.ParseRevocationList(crl); err != nil {
		return unreadable(err)
	}
	parsed, err := zx509.ParseRevocationList(crl)
	if err != nil {
		return unreadable(err)
	}
	var findings []Finding
	for _, one := range l.lints {
		if deltas && one.Name == onlyRecommended {
			continue
		}
		findings = appendFinding(findings, one.Name, execute(one, parsed, l.configuration))
	}
	return refusal(findings)
}

// execute runs a lint on a CRL. Unlike for certificates, zlint lets a panic of such a lint through.
func execute(one *lint.RevocationListLint, crl *zx509.RevocationList, c lint.Configuration) (result *lint.LintResult) {
	defer func() {
		if p := recover(); p != nil {
			result = &lint.LintResult{Status: lint.Fatal, Details: fmt.Sprint("the lint panicked: ", p)}
		}
	}()
	return one.Execute(crl, c)
}

var levels = map[lint.LintStatus]string{lint.Notice: "notice", lint.Warn: "warn", lint.Error: "error", lint.Fatal: "fatal"}

// appendFinding keeps a result that is a complaint. A status that is not known is one too.
func appendFinding(findings []Finding, name string, result *lint.LintResult) []Finding {
	switch result.Status {
	case lint.NA, lint.NE, lint.Pass:
		return findings
	}
	level, ok := levels[result.Status]
	if !ok {
		level = "fatal"
	}
	return append(findings, Finding{Lint: name, Level: level, Details: result.Details})
}

// refusal is nil where nothing was found.
func refusal(findings []Finding) error {
	if len(findings) == 0 {
		return nil
	}
	slices.SortFunc(findings, func(a, b Finding) int { return strings.Compare(a.Lint, b.Lint) })
	return &LintError{Findings: findings}
}

// unreadable is the complaint of a parser, in the form of a lint's.
func unreadable(err error) error {
	return &LintError{Findings: []Finding{{Lint: "parse", Level: "fatal", Details: err.Error()}}}
}
