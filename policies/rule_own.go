package policies

// ownRulePrefix begins the names of the rules of a profile's own, so that they never meet those of the program.
const ownRulePrefix = "rules."

// rule makes of a profile's own expression a rule like any other. It waits for the rules that bound what expressions look at. One whose
// answer cannot be told, because a claim is absent or its cost is exceeded, refuses.
func (o ownRule) rule() rule[*evaluation] {
	return rule[*evaluation]{
		id: ownRulePrefix + o.id, source: "profile",
		after: []string{ruleKeyAllowed, ruleSubjectAttributes, ruleNamesCount, ruleNamesDNS, ruleNamesIP, ruleNamesEmail, ruleNamesURI},
		check: func(e *evaluation, f *findings) {
			holds, err := o.holds(e.variables())
			switch {
			case err != nil:
				f.refuse(o.field, o.hint, "%s (the rule could not be evaluated: %s)", o.message, quote(oneLine(err.Error())))
			case holds:
			case o.effect == effectApprove:
				f.approve(o.field, o.hint, "%s", o.message)
			default:
				f.refuse(o.field, o.hint, "%s", o.message)
			}
		},
		seen: func(e *evaluation) string { return o.see(e.variables()) },
	}
}

// variables are those of the request, made once for all expressions.
func (e *evaluation) variables() *variables {
	if e.vars == nil {
		e.vars = &variables{e: e}
	}
	return e.vars
}

// rulesWith are the rules of the program with those of a profile in front of the last, which verifies the signature.
func rulesWith(own []ownRule) []rule[*evaluation] {
	if len(own) == 0 {
		return rules
	}
	last := len(rules) - 1
	all := append(make([]rule[*evaluation], 0, len(rules)+len(own)), rules[:last]...)
	for _, o := range own {
		all = append(all, o.rule())
	}
	return append(all, rules[last])
}
