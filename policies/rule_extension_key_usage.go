package policies

import (
	"crypto/x509"
	"strings"
)

// extensionKeyUsage refuses requests for key usages beyond the profile's (RFC 5280, section 4.2.1.3). Asking for fewer, or none, gives
// the profile's.
var extensionKeyUsage = rule[*evaluation]{
	id: "extensions.key-usage", source: "RFC 5280, 4.2.1.3", after: []string{ruleKeyAllowed},
	seen: seenKeyUsage,
	check: func(e *evaluation, f *findings) {
		asked := e.CSR.Extensions().KeyUsage
		if asked == nil {
			return
		}
		usage := e.profile.keys.usage[e.key.Algorithm]
		if beyond := x509.KeyUsage(asked.Bits) &^ usage; beyond != 0 {
			f.refuse("keyUsage", "leave the extension out, or ask for "+strings.Join(usageNames(usage), ", "),
				"the request asks for the key usage %s, which the profile %s does not give to %s keys",
				strings.Join(usageNames(beyond), ", "), quote(e.profile.name), e.key.Algorithm)
		}
	},
}
