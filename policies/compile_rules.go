package policies

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
)

// maxRules is how many rules of its own a profile may have.
const maxRules = 32

var ruleName = regexp.MustCompile(`\A[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\z`)

// effect is what comes of a rule that does not hold.
type effect string

const (
	effectRefuse  effect = "refuse"
	effectApprove effect = "approve"
)

// ownRule is a rule of a profile's own.
type ownRule struct {
	id, message, hint, field string
	effect                   effect
	line                     int
	*expression
}

// compileRules reads the rules of a profile. The rest of the profile must have been read: its bounds are what the cost of expressions is
// estimated by.
func compileRules(r *report, files []ruleFile, p *Profile, l *language) []ownRule {
	if len(files) > maxRules {
		r.field("rules", fmt.Sprintf("%d at most", maxRules), "there are %d rules", len(files))
		return nil
	}
	var all []ownRule
	var ids []string
	var total uint64
	for i, f := range files {
		field := index("rules", i)
		own := ownRule{
			id: f.ID, message: strings.TrimSpace(f.Message), hint: strings.TrimSpace(f.Hint), field: cmp.Or(f.Field, "request"),
			effect: effect(cmp.Or(f.Effect, string(effectRefuse))), line: r.Line(field + ".expression"),
		}
		if !ruleName.MatchString(f.ID) {
			r.field(field+".id", "lower-case letters, digits and inner hyphens, at most 63", "%s is not a name for a rule", quote(f.ID))
		}
		for _, text := range []struct{ field, value, hint string }{
			{"message", own.message, "say what is wrong with a request that breaks the rule"}, {"hint", own.hint, "say how a request can satisfy the rule"},
		} {
			if text.value == "" || len(text.value) > maxRuleText {
				r.field(field+"."+text.field, text.hint, "a text of 1 to %d characters is needed", maxRuleText)
			}
		}
		if own.effect != effectRefuse && own.effect != effectApprove {
			r.field(field+".effect", "refuse or approve", "%s is not an effect", quote(f.Effect))
		}
		if own.effect == effectApprove && p.approval.count == 0 {
			r.field(field+".effect", "add approval: {count: 1, when: rules}", "the rule asks for approval, but the profile does not say by how many persons")
		}
		own.expression = compileExpression(r, field+".expression", f.Expression, p, l)
		if own.expression != nil {
			total += own.cost
			all = append(all, own)
		}
		ids = append(ids, f.ID)
	}
	reportRepeated(r, "rules", ids)
	if total > maxRulesCost {
		r.field("rules", "make them cheaper, or lower names.max", "all rules together may cost %d steps with the largest request; %d is the most", total, maxRulesCost)
	}
	return all
}

// maxRuleText bounds what a rule says to the requester.
const maxRuleText = 400

func compileExpression(r *report, field, source string, p *Profile, l *language) *expression {
	if strings.TrimSpace(source) == "" {
		r.field(field, `for example cert.dns.all(name, name.isUnder("team.example"))`, "there is no expression")
		return nil
	}
	x, problems := l.compile(source, p)
	for _, problem := range problems {
		r.expression(field, problem)
	}
	return x
}

// expression reports a problem of an expression at the line of the file where it stands.
func (r *report) expression(field string, p expressionProblem) {
	const hint = "expressions are CEL; docs/profiles.md says what they may use"
	if p.line == 0 {
		r.field(field, hint, "%s", p.message)
		return
	}
	r.RefuseText(field, p.line, hint, "line %d, column %d of the expression: %s", p.line, p.column, p.message)
}
