package policies

import "errors"

// Decision is every rule's verdict on one request and, when no rule refused, the exact content of the certificate. Its zero value
// refuses.
type Decision struct {
	verdict  Verdict
	results  []RuleResult
	template Template
	lint     Lint
	profile  string
	digest   string

	transparency *Transparency
}

// Verdict is the outcome: Allow, NeedsApproval or Refuse.
func (d *Decision) Verdict() Verdict {
	if d == nil || d.verdict == "" {
		return Refuse
	}
	return d.verdict
}

// Results are the verdicts rule by rule, in the order in which the rules were asked.
func (d *Decision) Results() []RuleResult { return d.results }

// Violations are the violations of all rules, in order.
func (d *Decision) Violations() []Violation {
	var all []Violation
	for _, r := range d.results {
		all = append(all, r.Violations...)
	}
	return all
}

// Profile is the profile that was asked for.
func (d *Decision) Profile() string { return d.profile }

// PolicyDigest names the version of the policies that decided.
func (d *Decision) PolicyDigest() string { return d.digest }

// Template is what the certificate would say; ok is false when a refusal left it undetermined.
func (d *Decision) Template() (t Template, ok bool) { return d.template, d.template.SPKI != nil }

// ErrUndecided is returned for a decision that no policy made.
var ErrUndecided = errors.New("policies: a decision that no policy made grants nothing")

// Grant turns an allowing decision into the right to have exactly its template signed. It returns *Refusal for a decision that
// refuses. Approvals become parameters here when requests can wait for them.
func (d *Decision) Grant() (*Grant, error) {
	if d == nil || d.verdict == "" {
		return nil, ErrUndecided
	}
	if d.verdict != Allow {
		return nil, &Refusal{Profile: d.profile, Violations: d.Violations()}
	}
	return &Grant{template: d.template, lint: d.lint, profile: d.profile, digest: d.digest, transparency: d.transparency}, nil
}

// Grant is the right to have one template signed. Only Decision.Grant makes one; the zero value is refused by issuance.
type Grant struct {
	template Template
	lint     Lint
	profile  string
	digest   string

	transparency *Transparency
}

// Valid tells a grant that a decision made from a zero value.
func (g *Grant) Valid() bool { return g != nil && g.template.SPKI != nil }

// Template is the exact content granted. The slices in it must not be changed.
func (g *Grant) Template() Template { return g.template }

// Lint says how the certificate is linted before it is signed.
func (g *Grant) Lint() Lint { return g.lint }

// Profile is the name of the profile that the grant follows.
func (g *Grant) Profile() string { return g.profile }

// PolicyDigest names the version of the policies that granted.
func (g *Grant) PolicyDigest() string { return g.digest }
