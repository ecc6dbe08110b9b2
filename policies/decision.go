package policies

import (
	"errors"
	"slices"
)

// Decision is every rule's verdict on one request and, when no rule refused, the exact content of the certificate. Its zero value
// refuses.
type Decision struct {
	verdict  Verdict
	results  []RuleResult
	template Template
	lint     Lint
	profile  string
	digest   string
	awaits   Facts
	approval approvalPolicy
	// evaluation is what the rules of a profile looked at; nil for authorities.
	evaluation *evaluation

	transparency *Transparency
}

// Verdict is the outcome: Allow, NeedsApproval or Refuse.
func (d *Decision) Verdict() Verdict {
	if d == nil || d.verdict == "" {
		return Refuse
	}
	return d.verdict
}

// Results are the verdicts rule by rule, in the order in which the rules were asked, with what each looked at.
func (d *Decision) Results() []RuleResult {
	if d == nil || d.evaluation == nil {
		return d.plainResults()
	}
	results := slices.Clone(d.results)
	e := *d.evaluation // a copy: looking makes variables, and a decision does not change
	look(e.rules(), &e, results)
	return results
}

// Objections are the results of those rules that did not simply allow, or gave notice: Results, as far as they say anything. Of a request
// that every rule allows there are none, and what the rules looked at is not written down for it.
func (d *Decision) Objections() (all []RuleResult) {
	says := func(r RuleResult) bool { return r.Verdict != Allow || len(r.Violations) > 0 || len(r.Notices) > 0 }
	if !slices.ContainsFunc(d.plainResults(), says) {
		return nil
	}
	for _, r := range d.Results() {
		if says(r) {
			all = append(all, r)
		}
	}
	return all
}

func (d *Decision) plainResults() []RuleResult {
	if d == nil {
		return nil
	}
	return d.results
}

// Violations are the violations of all rules, in order.
func (d *Decision) Violations() []Violation {
	var all []Violation
	for _, r := range d.results {
		all = append(all, r.Violations...)
	}
	return all
}

// Notices are the remarks of all rules, in order: what was noticed without being refused, and why approval is needed.
func (d *Decision) Notices() []Violation {
	var all []Violation
	for _, r := range d.results {
		all = append(all, r.Notices...)
	}
	return all
}

// RefusedFor is the decision where whoever carries it out refuses, for a reason that comes before the policies: that alone is told.
func (d *Decision) RefusedFor(why *Refusal) *Decision {
	refused := &Decision{verdict: Refuse, profile: d.profile, digest: d.digest}
	for _, v := range why.Violations {
		refused.results = append(refused.results, RuleResult{Rule: v.Rule, Source: "profile", Verdict: Refuse, Violations: []Violation{v}})
	}
	return refused
}

// Profile is the profile that was asked for.
func (d *Decision) Profile() string { return d.profile }

// PolicyDigest names the version of the policies that decided.
func (d *Decision) PolicyDigest() string { return d.digest }

// Template is what the certificate would say; ok is false when a refusal left it undetermined.
func (d *Decision) Template() (t Template, ok bool) { return d.template, d.template.SPKI != nil }

// ErrUndecided is returned for a decision that no policy made.
var ErrUndecided = errors.New("policies: a decision that no policy made grants nothing")

// Grant turns a decision into the right to have exactly its template signed. It returns *Refusal for a decision that refuses, and
// *ApprovalNeeded for one that needs approval and is given too few approvals that count. A decision that allows needs none.
//
// A replayed decision grants nothing (ErrUndecided).
func (d *Decision) Grant(approvals ...Approval) (*Grant, error) {
	if d != nil && d.evaluation != nil && d.evaluation.replay {
		return nil, ErrUndecided
	}
	switch d.Verdict() {
	case Allow:
	case NeedsApproval:
		if need, have := max(d.approval.count, 1), d.consents(approvals); have < need {
			return nil, &ApprovalNeeded{
				Profile: d.profile, Need: need, Have: have, Groups: slices.Clone(d.approval.groups), Signed: d.approval.signed,
				Expires: d.approval.expires, Binding: d.Binding(), Reasons: d.wishes(),
			}
		}
	default:
		if d == nil || d.verdict == "" {
			return nil, ErrUndecided
		}
		return nil, &Refusal{Profile: d.profile, Violations: d.Violations()}
	}
	g := &Grant{template: d.template, lint: d.lint, profile: d.profile, digest: d.digest, transparency: d.transparency}
	if d.evaluation != nil {
		g.reservations = d.evaluation.reservations()
	}
	return g, nil
}

// wishes are why approval is needed.
func (d *Decision) wishes() (all []Violation) {
	for _, r := range d.results {
		if r.Verdict == NeedsApproval {
			all = append(all, r.Notices...)
		}
	}
	return all
}

// Grant is the right to have one template signed. Only Decision.Grant makes one; the zero value is refused by issuance.
type Grant struct {
	template Template
	lint     Lint
	profile  string
	digest   string
	// reservations hold from the decision to the intent, by the store's count.
	reservations []Reservation

	transparency *Transparency
}

// Reservations are what must still hold when the intent is recorded. Mostly there are none.
func (g *Grant) Reservations() []Reservation { return g.reservations }

// Valid tells a grant that a decision made from a zero value.
func (g *Grant) Valid() bool { return g != nil && g.template.SPKI != nil }

// Template is the exact content granted. The slices in it must not be changed.
func (g *Grant) Template() Template { return g.template }

// Distributed is the grant with the CRL that its certificate shall name: which of an authority's, only the serial number tells. One that
// names none, by its profile, still names none. An empty freshest names no delta CRL.
func (g *Grant) Distributed(scope, url, freshest string) *Grant {
	d := *g
	d.template.CRLScope = scope
	if d.template.CRLURL != "" {
		d.template.CRLURL, d.template.FreshestCRLURL = url, freshest
	}
	return &d
}

// Lint says how the certificate is linted before it is signed.
func (g *Grant) Lint() Lint { return g.lint }

// Profile is the name of the profile that the grant follows.
func (g *Grant) Profile() string { return g.profile }

// PolicyDigest names the version of the policies that granted.
func (g *Grant) PolicyDigest() string { return g.digest }
