package policies

import (
	"fmt"
	"strings"
)

// authorityURLs holds that pointers are http URLs (RFC 5280, sections 4.2.1.13 and 4.2.2.1; RFC 5280, section 8: with https a client could
// need the certificate to fetch what verifies it).
var authorityURLs = rule[*authority]{
	id: "authority.urls", source: "RFC 5280, 4.2.2.1",
	check: func(a *authority, f *findings) {
		if a.CRLURL != "" {
			checkURL(f, "crl_url", a.CRLURL)
		}
		for i, u := range a.IssuerURLs {
			checkURL(f, fmt.Sprintf("issuer_urls[%d]", i), u)
		}
		for i, u := range a.OCSPURLs {
			checkURL(f, fmt.Sprintf("ocsp_urls[%d]", i), u)
		}
	},
}

// checkURL allows hosts of one label and ports, as names inside an organisation have.
func checkURL(f *findings, field, u string) {
	rest, http := strings.CutPrefix(u, "http://")
	host, _, _ := strings.Cut(rest, "/")
	printable := !strings.ContainsFunc(u, func(r rune) bool { return r <= ' ' || r >= 0x7f })
	if !http || host == "" || strings.ContainsAny(host, "@?#") || !printable || len(u) > maxURI {
		f.refuse(field, "write an http URL, such as http://ca.example.org/root.crl", "%s is not a URL that a certificate can point to", quote(u))
	}
}
