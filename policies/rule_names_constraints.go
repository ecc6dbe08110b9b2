package policies

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"slices"
	"strings"
)

// namesConstraints holds names, and the subject, to the name constraints of the issuer's certificate and of those above it (RFC 5280,
// section 4.2.1.10): a certificate beyond them would be refused by everyone who checks its chain, or by some.
var namesConstraints = rule[*evaluation]{
	id: "names.issuer-constraints", source: "RFC 5280, 4.2.1.10",
	seen: seenNamesAndSubject,
	check: func(e *evaluation, f *findings) {
		chain := constraintsAlong(e.issuer, e.Issuer.Above)
		if len(chain) == 0 {
			return
		}
		subject := e.subjectSequence()
		if slices.ContainsFunc(chain, func(c constraints) bool { return !c.directories.hold(subject) }) {
			f.refuse("subject", "ask the operator which subjects the issuer may certify",
				"the subject %s lies outside of what the issuer %s may certify", quote(subject.String()), quote(e.Issuer.Name))
		}
		hold := func(field, name string, lies func(permitted, excluded NameConstraints) bool) {
			for _, c := range chain {
				if !lies(c.permitted, c.excluded) {
					f.refuse(field, "ask the operator which names the issuer may certify",
						"%s lies outside of what the issuer %s may certify", quote(name), quote(e.Issuer.Name))
					return
				}
			}
		}
		if name := commonNameAsHost(subject); name != "" && len(e.names.dns) == 0 {
			hold("subject.commonName", name, func(permitted, excluded NameConstraints) bool {
				return permitted.permitDNS(name) && !excluded.excludeDNS(name)
			})
		}
		for _, name := range e.names.dns {
			hold(name.field(), name.value, func(permitted, excluded NameConstraints) bool {
				return permitted.permitDNS(name.value) && !excluded.excludeDNS(name.value)
			})
		}
		for _, address := range e.names.ip {
			hold(address.field(), address.value.String(), func(permitted, excluded NameConstraints) bool {
				return permitted.permitIP(address.value) && !excluded.excludeIP(address.value)
			})
		}
		for _, mailbox := range e.names.email {
			hold(mailbox.field(), mailbox.value, func(permitted, excluded NameConstraints) bool {
				return permitted.permitEmail(mailbox.value) && !excluded.excludeEmail(mailbox.value)
			})
		}
		for _, uri := range e.names.uri {
			hold(uri.field(), uri.value, func(permitted, excluded NameConstraints) bool {
				return permitted.permitURI(uri.value) && !excluded.excludeURI(uri.value)
			})
		}
	},
}

// commonNameAsHost is the common name of a subject where OpenSSL takes it for the name of a host, as it does in a certificate that holds no
// dNSName, and holds it to the name constraints above; empty otherwise.
func commonNameAsHost(subject pkix.RDNSequence) string {
	for _, rdn := range subject {
		value, _ := rdn[0].Value.(string)
		labels := strings.Split(value, ".")
		if !rdn[0].Type.Equal(oidCommonName) || len(labels) < 2 {
			continue
		}
		if !slices.ContainsFunc(labels, func(label string) bool {
			return label == "" || strings.Trim(label, "-") != label || strings.ContainsFunc(label, func(r rune) bool {
				return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_')
			})
		}) {
			return strings.ToLower(value)
		}
	}
	return ""
}

// constraints are the name constraints of one certificate.
type constraints struct {
	permitted, excluded NameConstraints
	directories         directories
}

// constraintsAlong are those of the certificates of a chain that have any.
func constraintsAlong(issuer *x509.Certificate, above []*x509.Certificate) (all []constraints) {
	add := func(c *x509.Certificate) {
		permitted, excluded := constraintsOf(c)
		d := directoriesOf(c)
		if !permitted.empty() || !excluded.empty() || len(d.permitted)+len(d.excluded) > 0 {
			all = append(all, constraints{permitted, excluded, d})
		}
	}
	add(issuer)
	for _, c := range above {
		add(c)
	}
	return all
}
