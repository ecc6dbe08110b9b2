package policies

import (
	"fmt"
	"slices"
)

// The bounds on what a decision reports: a request with a thousand bad names gets an answer that can be read.
const (
	maxViolationsOfRule = 10
	maxViolations       = 50
)

// rule is one thing that is asked of a request; E is what it may look at. Each has a file of its own. A profile's own expressions
// will be one rule more.
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
}

// findings collects the violations of one rule.
type findings struct {
	rule       string
	room       int // how many more are kept
	count      int // how many there were
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

// notice reports what somebody should look at and what is no reason to refuse.
func (f *findings) notice(field, hint, format string, args ...any) {
	if len(f.notices) < maxViolationsOfRule {
		f.notices = append(f.notices, Violation{Rule: f.rule, Field: field, Message: fmt.Sprintf(format, args...), Hint: hint})
	}
}

// full tells that another violation would not be kept, so that a rule may stop looking.
func (f *findings) full() bool { return f.count > f.room }

// ask asks rules in order and says whether all of them allow.
func ask[E any](rules []rule[E], e E) (results []RuleResult, allowed bool) {
	results = make([]RuleResult, 0, len(rules))
	passed := func(id string) bool {
		return slices.ContainsFunc(results, func(r RuleResult) bool { return r.Rule == id && r.Verdict == Allow })
	}
	allowed, closed, reported := true, false, 0
	var f findings
	for _, r := range rules {
		result := RuleResult{Rule: r.id, Source: r.source, Verdict: Allow}
		if closed || !all(r.after, passed) {
			result.Verdict = NotReached
		} else {
			f = findings{rule: r.id, room: min(maxViolationsOfRule, maxViolations-reported)}
			r.check(e, &f)
			result.Notices = f.notices
			if f.count > 0 {
				result.Verdict, result.Violations = Refuse, f.violations
				reported += len(f.violations)
				if f.count > len(f.violations) && len(f.violations) > 0 {
					last := &f.violations[len(f.violations)-1]
					last.Message += " (and there is more of this kind)"
				}
			}
		}
		allowed = allowed && result.Verdict == Allow
		closed = closed || r.gate && result.Verdict != Allow
		results = append(results, result)
	}
	return results, allowed && len(rules) > 0
}

func all(ids []string, holds func(string) bool) bool {
	return !slices.ContainsFunc(ids, func(id string) bool { return !holds(id) })
}
