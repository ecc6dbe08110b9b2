package policies

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/chancery-ca/chancery/csr"
)

// subjectAttributes holds that the subject has the profile's attributes and no others, each within its bounds (RFC 5280, section
// 4.1.2.6 and appendix A.1).
var subjectAttributes = rule[*evaluation]{
	id: ruleSubjectAttributes, source: "RFC 5280, 4.1.2.6",
	check: func(e *evaluation, f *findings) {
		policy := e.profile.subject
		for _, given := range e.subject {
			name := attributeName(given.OID)
			field := "subject." + name
			a, allowed := policy.attribute(given.OID)
			switch {
			case containsOID(policy.drop, given.OID):
			case !allowed:
				f.refuse(field, "leave it out", "the profile %s allows no %s in the subject", quote(e.profile.name), name)
			case a.presence == fixed && given.Value != a.value:
				f.refuse(field, "leave it out: the certificate holds "+quote(a.value), "%s is not the value of %s", quote(given.Value), name)
			default:
				if problem := attributeProblem(a, given.Value); problem != "" {
					f.refuse(field, attributeHint(a), "%s %s", quote(given.Value), problem)
				}
			}
		}
		for _, a := range policy.attributes {
			has := func(given csr.Attribute) bool { return given.OID.Equal(a.oid) }
			if a.presence == required && !slices.ContainsFunc(e.subject, has) {
				f.refuse("subject."+a.name, attributeHint(a), "the profile %s asks for %s in the subject", quote(e.profile.name), a.name)
			}
		}
	},
}

func attributeHint(a attributePolicy) string {
	hint := fmt.Sprintf("at most %d printable characters", a.max)
	if a.oid.Equal(oidCountry) {
		hint = "two upper-case letters (ISO 3166-1)"
	}
	if a.pattern != nil {
		hint += ", matching " + a.pattern.source
	}
	return hint
}

// attributeProblem says why a value cannot stand in an attribute; it is silent on one that can.
func attributeProblem(a attributePolicy, value string) string {
	unprintable := func(r rune) bool { return !unicode.IsGraphic(r) || r == utf8.RuneError }
	switch {
	case value == "":
		return "is empty"
	case !utf8.ValidString(value) || strings.ContainsFunc(value, unprintable):
		return "holds characters that cannot be printed"
	case strings.TrimSpace(value) != value:
		return "begins or ends with white space"
	case utf8.RuneCountInString(value) > a.max:
		return fmt.Sprintf("has more than %d characters", a.max)
	case a.oid.Equal(oidCountry) && !upperCase(value):
		return "is not a country by its two upper-case letters"
	case a.name == "serialNumber" && !printableString(value):
		return "holds characters that a PrintableString does not have"
	case !a.pattern.matches(value):
		return "does not match the profile's pattern"
	}
	return ""
}

func upperCase(country string) bool {
	return len(country) == 2 && 'A' <= country[0] && country[0] <= 'Z' && 'A' <= country[1] && country[1] <= 'Z'
}

// printableString tells whether a value can be a PrintableString (X.680, section 41.4).
func printableString(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune(" '()+,-./:=?", r))
	})
}
