package policies

import (
	"slices"
	"strings"
)

// namesURI holds URIs to RFC 5280, section 4.2.1.6, and to the profile's schemes.
var namesURI = rule[*evaluation]{
	id: ruleNamesURI, source: "RFC 5280, 4.2.1.6",
	seen: seenNames("uri"),
	check: func(e *evaluation, f *findings) {
		for _, flaw := range e.names.uriFlaws {
			f.refuse(flaw.field, flaw.hint, "%s", flaw.message)
		}
		policy := e.profile.names.uri
		if policy == nil {
			return
		}
		for _, uri := range e.names.uri {
			if windowsIdentity(uri.value) {
				f.refuse(uri.field(), "leave it out", "%s is the identity of a Windows account, which is never issued", quote(uri.value))
				continue
			}
			if scheme, _, _ := strings.Cut(uri.value, ":"); !slices.Contains(policy.schemes, scheme) {
				f.refuse(uri.field(), "use "+some(policy.schemes), "%s has a scheme that the profile %s does not allow", quote(uri.value), quote(e.profile.name))
			}
		}
	},
}

// windowsIdentity tells a URI that a Windows domain takes for the security identifier of an account (Microsoft KB5014754): a certificate
// with it logs its holder on as that account, whatever else it says.
func windowsIdentity(uri string) bool {
	return strings.HasPrefix(strings.ToLower(uri), "tag:microsoft.com,")
}
