package policies

import "strings"

// extensionExtKeyUsage refuses requests for extended key usages beyond the profile's (RFC 5280, section 4.2.1.12). Asking for fewer, or
// none, gives the profile's.
var extensionExtKeyUsage = rule[*evaluation]{
	id: "extensions.ext-key-usage", source: "RFC 5280, 4.2.1.12",
	seen: seenExtKeyUsage,
	check: func(e *evaluation, f *findings) {
		asked := e.CSR.Extensions().ExtKeyUsage
		if asked == nil {
			return
		}
		for _, oid := range asked.OIDs {
			if !containsOID(e.profile.extKeyUsage, oid) {
				f.refuse("extKeyUsage", "leave the extension out, or ask for "+strings.Join(namesOf(extKeyUsages, e.profile.extKeyUsage), ", "),
					"the request asks for the extended key usage %s, which the profile %s does not give", nameOf(extKeyUsages, oid), quote(e.profile.name))
			}
		}
	},
}
