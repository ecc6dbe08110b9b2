package policies

import "strings"

// namesWildcard holds that a wildcard stands where the profile allows one, and never directly in front of a public suffix, where it would
// cover the names of many owners (BR, section 3.2.2.6; RFC 6125, section 7.2). That it is the whole left-most label is syntax.
var namesWildcard = rule[*evaluation]{
	id: "names.wildcard", source: "BR 3.2.2.6",
	seen: seenNames("dns"),
	check: func(e *evaluation, f *findings) {
		policy := e.profile.names.dns
		if policy == nil {
			return
		}
		for _, name := range e.names.dns {
			base, wildcard := strings.CutPrefix(name.value, "*.")
			switch {
			case !wildcard:
			case !policy.wildcards:
				f.refuse(name.field(), "ask for each name by itself", "%s is a wildcard, which the profile %s does not allow", quote(name.value), quote(e.profile.name))
			case underPublicSuffix(base):
				f.refuse(name.field(), "put the wildcard under a name of your own", "%s would cover every name under the public suffix %s", quote(name.value), quote(base))
			}
		}
	},
}
