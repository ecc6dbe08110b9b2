package policies

import "strings"

// namesDNS holds DNS names to the syntax of host names (RFC 5280, section 4.2.1.6; RFC 1034, section 3.5; RFC 5890, section 2.3). Nothing
// that some reader of certificates could take for another name gets through.
var namesDNS = rule[*evaluation]{
	id: ruleNamesDNS, source: "RFC 5280, 4.2.1.6",
	check: func(e *evaluation, f *findings) {
		for _, flaw := range e.names.dnsFlaws {
			f.refuse(flaw.field, flaw.hint, "%s", flaw.message)
		}
		policy := e.profile.names.dns
		if policy == nil || policy.underscores {
			return
		}
		for _, name := range e.names.dns {
			if strings.Contains(name.value, "_") {
				f.refuse(name.field(), "use names without underscores", "%s holds an underscore", quote(name.value))
			}
		}
	},
}
