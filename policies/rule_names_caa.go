package policies

import (
	"slices"
	"strings"
)

// namesCAA holds that the owners of public names let this authority certify them: the CAA records of each name, or of the nearest one
// above that has any, name one of the authority's domains or nobody (RFC 8659; BR, section 3.2.2.8). A profile opts in.
var namesCAA = rule[*evaluation]{
	id: ruleNamesCAA, source: "RFC 8659, 3",
	seen: seenNames("dns"),
	check: func(e *evaluation, f *findings) {
		policy := e.profile.names.dns
		if policy == nil || !policy.caa || e.replay { // what the DNS said then nobody kept
			return
		}
		for _, name := range e.names.dns {
			base, wildcard := strings.CutPrefix(name.value, "*.")
			at := slices.IndexFunc(e.CAA, func(a CAAAnswer) bool { return a.Name == base })
			if at < 0 {
				if !slices.Contains(e.awaits.CAA, base) {
					e.awaits.CAA = append(e.awaits.CAA, base)
				}
				f.refuse(name.field(), "ask the operator: the service has not asked the DNS", "what CAA records say of %s is not known", quote(base))
				continue
			}
			answer := e.CAA[at]
			if answer.Failure != "" {
				f.refuseForNow(name.field(), "repeat the request later; if it goes on, look at the name servers of the domain, and at DNSSEC",
					"the CAA records of %s could not be read: %s", quote(base), answer.Failure)
				continue
			}
			if problem := caaProblem(answer.Records, wildcard, e.Issuer.CAADomains); problem != "" {
				f.refuse(name.field(), caaHint(wildcard, e.Issuer.CAADomains), "the CAA records at %s do not let this authority certify %s: %s",
					quote(answer.At), quote(name.value), problem)
			}
		}
	},
}

func caaHint(wildcard bool, domains []string) string {
	if len(domains) == 0 {
		return "ask the operator: no CAA domain of the authority is configured"
	}
	tag := "issue"
	if wildcard {
		tag = "issuewild"
	}
	return `let the owner of the domain add a record such as: CAA 0 ` + tag + ` "` + domains[0] + `"`
}

// caaProblem says why a record set does not permit one of the domains to certify a name (RFC 8659, section 4); it is silent where it does.
// An empty set restricts nobody.
func caaProblem(records []CAARecord, wildcard bool, domains []string) string {
	var issue, issueWild []string
	for _, r := range records {
		switch strings.ToLower(r.Tag) {
		case "issue":
			issue = append(issue, r.Value)
		case "issuewild":
			issueWild = append(issueWild, r.Value)
		case "iodef", "contactemail", "contactphone", "issuemail", "issuevmc": // of no meaning for names of servers
		default:
			if r.Critical {
				return "the critical property " + quote(r.Tag) + " is not understood"
			}
		}
	}
	relevant := issue
	if wildcard && issueWild != nil {
		relevant = issueWild // section 4.3: it takes precedence for wildcards, and counts for nothing else
	}
	if relevant == nil || slices.ContainsFunc(relevant, func(value string) bool { return caaPermits(value, domains) }) {
		return ""
	}
	if !slices.ContainsFunc(relevant, func(value string) bool { domain, _, _ := issueValue(value); return domain != "" }) {
		return "they let no authority do so"
	}
	return "they name " + quote(some(relevant))
}

// caaPermits tells whether the value of an issue or issuewild property permits one of the domains. A parameter restricts what it permits in
// a way that the authority would have to keep to (RFC 8657); as it has none of its own, a value with any permits nothing.
func caaPermits(value string, domains []string) bool {
	domain, parameters, ok := issueValue(value)
	return ok && domain != "" && parameters == "" && slices.ContainsFunc(domains, func(own string) bool { return strings.EqualFold(own, domain) })
}

// issueValue parts the value of a property into the authority's domain, empty for nobody, and its parameters (RFC 8659, section 4.2).
func issueValue(value string) (domain, parameters string, ok bool) {
	const space = " \t"
	domain, parameters, _ = strings.Cut(value, ";")
	domain, parameters = strings.Trim(domain, space), strings.Trim(parameters, space)
	if domain == "" {
		return "", parameters, true
	}
	for label := range strings.SplitSeq(domain, ".") {
		sound := label != "" && strings.Trim(label, "-") == label && !strings.ContainsFunc(label, func(r rune) bool {
			return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-')
		})
		if !sound {
			return "", "", false
		}
	}
	return domain, parameters, true
}
