package policies

import (
	"fmt"
	"slices"
)

// The bounds on what a decision reports: a request with a thousand bad names gets an answer that can be read.
const (
	maxViolationsOfRule = 10
	maxViolations       = 50
	maxNoticesOfRule    = 10
)

// rule is one thing that is asked of a request; E is what it may look at. Each has a file of its own; so does the one from which a
// profile's own expressions are made.
type rule[E any] struct {
	// id is stable: it is part of the REST surface.
	id string
	// source is the citation: a section of an RFC or of the Baseline Requirements (BR), or "profile".
	source string
	// gate ends the asking when the rule refuses: what follows would have nothing to look at.
	gate bool
	// after are rules that must not have refused; where one did, this one is not reached, because looking is pointless or unsafe.
	after []string
	// check reports every way in which the rule is broken.
	check func(E, *findings)
	// seen is the value that the rule looked at, for people: quoted and bounded. It is asked only of rules that were reached; nil
	// where there is nothing to show.
	seen func(E) string
}

// findings collects what one rule says: violations, which refuse; wishes for approval; and notices, which do neither.
type findings struct {
	rule       string
	room       int // how many more are kept
	count      int // how many violations there were
	approval   bool
	violations []Violation
	notices    []Violation
}

// refuse reports one violation. Values from outside go through quote.
func (f *findings) refuse(field, hint, format string, args ...any) {
	f.count++
	if len(f.violations) < f.room {
		f.violations = append(f.violations, Violation{Rule: f.rule, Field: field, Message: fmt.Sprintf(format, args...), Hint: hint})
	}
}

// refuseForNow reports a violation that time alone may mend.
func (f *findings) refuseForNow(field, hint, format string, args ...any) {
	before := len(f.violations)
	f.refuse(field, hint, format, args...)
	if len(f.violations) > before {
		f.violations[before].Temporary = true
	}
}

// notice remarks on something that refuses nothing. Values from outside go through quote.
func (f *findings) notice(field, hint, format string, args ...any) {
	if len(f.notices) < maxNoticesOfRule {
		f.notices = append(f.notices, Violation{Rule: f.rule, Field: field, Message: fmt.Sprintf(format, args...), Hint: hint})
	}
}

// approve asks for the approval of persons, and says why.
func (f *findings) approve(field, hint, format string, args ...any) {
	f.approval = true
	f.notice(field, hint, format, args...)
}

// full tells that another violation would not be kept, so that a rule may stop looking.
func (f *findings) full() bool { return f.count > f.room }

// verdict is the rule's: a violation outweighs a wish for approval.
func (f *findings) verdict() Verdict {
	switch {
	case f.count > 0:
		return Refuse
	case f.approval:
		return NeedsApproval
	}
	return Allow
}

// ask asks rules in order. The verdict allows only when every rule was asked and none refused.
func ask[E any](rules []rule[E], e E) (results []RuleResult, verdict Verdict) {
	results = make([]RuleResult, 0, len(rules))
	passed := func(id string) bool {
		return slices.ContainsFunc(results, func(r RuleResult) bool {
			return r.Rule == id && (r.Verdict == Allow || r.Verdict == NeedsApproval)
		})
	}
	refused, approval, closed, reported := len(rules) == 0, false, false, 0
	var f findings
	for _, r := range rules {
		result := RuleResult{Rule: r.id, Source: r.source, Verdict: NotReached}
		if !closed && all(r.after, passed) {
			f = findings{rule: r.id, room: min(maxViolationsOfRule, maxViolations-reported)}
			r.check(e, &f)
			result.Verdict, result.Violations, result.Notices = f.verdict(), f.violations, f.notices
			reported += len(f.violations)
			if f.count > len(f.violations) && len(f.violations) > 0 {
				last := &f.violations[len(f.violations)-1]
				last.Message += " (and there is more of this kind)"
			}
		}
		reject := result.Verdict == Refuse || result.Verdict == NotReached
		refused, approval = refused || reject, approval || result.Verdict == NeedsApproval
		closed = closed || r.gate && reject
		results = append(results, result)
	}
	switch {
	case refused:
		return results, Refuse
	case approval:
		return results, NeedsApproval
	}
	return results, Allow
}

func all(ids []string, holds func(string) bool) bool {
	return !slices.ContainsFunc(ids, func(id string) bool { return !holds(id) })
}

// look fills in what the rules looked at.
func look[E any](rules []rule[E], e E, results []RuleResult) {
	for i, r := range rules {
		if r.seen != nil && results[i].Verdict != NotReached {
			results[i].Seen = bounded(r.seen(e))
		}
	}
}
