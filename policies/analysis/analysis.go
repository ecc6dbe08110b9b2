// Package analysis owns what can be said of sets of profiles without a request: what is pointless or contradictory in one, and what is
// different between two, in words.
//
// It decides nothing: it reads the profiles' summaries. The package is pure.
package analysis

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/policies"
)

// Kind says what is found.
type Kind string

// The kinds of findings.
const (
	Unreachable   Kind = "unreachable"   // something that can never matter
	Contradiction Kind = "contradiction" // parts that cannot both be meant
	Broader       Kind = "broader"       // something is allowed that was not before
	Unclear       Kind = "unclear"       // a change of which it cannot be told whether it allows more
)

// Finding is one thing that whoever writes a set should look at.
type Finding struct {
	Kind    Kind   `json:"kind"`
	Profile string `json:"profile"`
	Field   string `json:"field"` // where, in the profile's file
	Line    int    `json:"line,omitempty"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
}

// String is the finding in one line: file, line, and what was found.
func (f Finding) String() string {
	at := f.Profile + ".yaml"
	if f.Line > 0 {
		at = fmt.Sprintf("%s:%d", at, f.Line)
	}
	s := fmt.Sprintf("%s: %s: %s: %s", at, f.Field, f.Kind, f.Message)
	if f.Hint != "" {
		s += " (" + f.Hint + ")"
	}
	return s
}

// Lint finds what is pointless or contradictory in a set and, where before is not nil, everything that it allows and before did not. A
// set that loads has no errors; findings are for people to judge. They are sorted by profile.
func Lint(set, before *policies.Set) []Finding {
	var all []Finding
	for _, name := range set.Names() {
		p, _ := set.Profile(name)
		all = append(all, lintProfile(p)...)
	}
	if before != nil {
		for _, c := range Diff(before, set) {
			if c.Effect == EffectBroader || c.Effect == EffectUnclear {
				kind := Broader
				if c.Effect == EffectUnclear {
					kind = Unclear
				}
				all = append(all, Finding{Kind: kind, Profile: c.Profile, Field: c.Field, Message: c.Words, Hint: "see that it is meant, and try it on history"})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Finding) int { return cmp.Compare(a.Profile, b.Profile) })
	return all
}

func lintProfile(p *policies.Profile) []Finding {
	s := p.Summary(time.Time{})
	l := linter{profile: p.Name()}
	l.rules(s)
	l.validity(p, s)
	l.subtrees(s)
	return l.found
}

type linter struct {
	profile string
	found   []Finding
}

func (l *linter) report(kind Kind, field string, line int, hint, format string, args ...any) {
	l.found = append(l.found, Finding{Kind: kind, Profile: l.profile, Field: field, Line: line, Message: fmt.Sprintf(format, args...), Hint: hint})
}

// rules finds rules of the profile's own that never speak, or that no request can satisfy together.
func (l *linter) rules(s policies.Summary) {
	always := s.Approval != nil && s.Approval.When == "always"
	for i, r := range s.Rules {
		field := fmt.Sprintf("rules[%d]", i)
		if r.Always == "holds" {
			l.report(Unreachable, field, r.Line, "remove it, or mend its expression", "the rule %s is true of every request: it never speaks", r.ID)
		}
		if r.Effect == "approve" {
			switch {
			case always:
				l.report(Unreachable, field, r.Line, "set approval.when: rules", "the rule %s asks for the approval that every request needs anyway", r.ID)
			case r.Always == "fails":
				l.report(Contradiction, field, r.Line, "set approval.when: always, and remove the rule", "the rule %s asks for approval of every request", r.ID)
			}
		}
		for _, other := range s.Rules[:i] {
			switch {
			case normal(other.Expression) == normal(r.Expression) && (other.Effect == "refuse" || other.Effect == r.Effect):
				l.report(Unreachable, field, r.Line, "remove one of the two", "the rule %s says what the rule %s says before it", r.ID, other.ID)
			case normal(other.Expression) == normal(r.Expression):
				l.report(Unreachable, fmt.Sprintf("rules[%d]", indexOf(s.Rules, other.ID)), other.Line, "remove one of the two",
					"the rule %s asks for approval of what the rule %s refuses", other.ID, r.ID)
			case other.Effect == "refuse" && r.Effect == "refuse" && negates(r.Expression, other.Expression):
				l.report(Contradiction, field, r.Line, "remove one of the two", "the rules %s and %s are each other's opposite: no request satisfies both", other.ID, r.ID)
			}
		}
	}
}

func indexOf(rules []policies.RuleSummary, id string) int {
	return slices.IndexFunc(rules, func(r policies.RuleSummary) bool { return r.ID == id })
}

// normal is an expression without white space outside of texts.
func normal(expression string) string {
	var b strings.Builder
	quote := rune(0)
	for _, c := range expression {
		switch {
		case quote == 0 && strings.ContainsRune(" \t\r\n", c):
			continue
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case c == quote:
			quote = 0
		}
		b.WriteRune(c)
	}
	return b.String()
}

func negates(a, b string) bool {
	a, b = normal(a), normal(b)
	return a == "!("+b+")" || b == "!("+a+")" || a == "!"+b && !strings.ContainsAny(b, "&|?=<>") || b == "!"+a && !strings.ContainsAny(a, "&|?=<>")
}

// validity finds limits that lower nothing, and a longest validity that is never given.
func (l *linter) validity(p *policies.Profile, s policies.Summary) {
	longest := s.ValidityMax
	for _, day := range p.ValidityChanges() {
		longest = max(longest, int64(p.MaxValidityAt(day)/time.Second))
	}
	written := int64(p.WrittenMaxValidity() / time.Second)
	if longest < written {
		l.report(Unreachable, "validity.max", 0, "write what is given", "the longest validity, %s, is never given: the standards allow %s at most", days(written), days(longest))
	}
	for i, limit := range s.ValidityLimits {
		lowest := written
		for _, earlier := range s.ValidityLimits[:i] {
			lowest = min(lowest, earlier.Max)
		}
		if limit.Max >= lowest {
			l.report(Unreachable, fmt.Sprintf("validity.limits[%d]", i), 0, "remove it, or lower it", "the limit of %s from %s on lowers nothing: %s is the most before it",
				days(limit.Max), limit.From, days(lowest))
		}
	}
}

// subtrees finds excluded subtrees in which no permitted name can lie.
func (l *linter) subtrees(s policies.Summary) {
	for _, kind := range []struct {
		name                string
		permitted, excluded []string
		one                 func(string) policies.SubtreeSummary
	}{
		{"dns", s.Permitted.DNS, s.Excluded.DNS, func(t string) policies.SubtreeSummary { return policies.SubtreeSummary{DNS: []string{t}} }},
		{"ip", s.Permitted.IP, s.Excluded.IP, func(t string) policies.SubtreeSummary { return policies.SubtreeSummary{IP: []string{t}} }},
		{"email", s.Permitted.Email, s.Excluded.Email, func(t string) policies.SubtreeSummary { return policies.SubtreeSummary{Email: []string{t}} }},
		{"uri", s.Permitted.URI, s.Excluded.URI, func(t string) policies.SubtreeSummary { return policies.SubtreeSummary{URI: []string{t}} }},
	} {
		for i, tree := range kind.excluded {
			meets := len(kind.permitted) == 0 || slices.ContainsFunc(kind.permitted, func(p string) bool {
				return kind.one(p).HoldsAll(kind.one(tree)) || kind.one(tree).HoldsAll(kind.one(p))
			})
			if !meets {
				l.report(Unreachable, fmt.Sprintf("names.excluded.%s[%d]", kind.name, i), 0, "remove it", "%s is excluded, but nothing in it is permitted", tree)
			}
		}
	}
}

// days writes seconds as people write validities.
func days(seconds int64) string {
	if seconds%86400 == 0 {
		return fmt.Sprintf("%dd", seconds/86400)
	}
	return (time.Duration(seconds) * time.Second).String()
}
