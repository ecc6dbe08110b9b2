package policies

import (
	"crypto/x509"
	"fmt"
)

// authoritySubject holds that an authority has a name of its own (RFC 5280, section 4.1.2.6: never empty) with a common name, each
// attribute once and within its bounds. BR, section 7.1.2.10.2, wants countryName and organizationName as well; a private authority may
// do without.
var authoritySubject = rule[*authority]{
	id: "authority.subject", source: "RFC 5280, 4.1.2.6",
	check: func(a *authority, f *findings) {
		common := false
		for i, given := range a.Subject {
			field := fmt.Sprintf("subject[%d]", i)
			known, ok := attributeByOID(given.OID)
			if !ok || !known.issuable {
				f.refuse(field, "use commonName, organizationName, countryName and the like", "%s is not issued in the name of an authority", attributeName(given.OID))
				continue
			}
			common = common || given.OID.Equal(oidCommonName)
			for _, before := range a.Subject[:i] {
				if before.OID.Equal(given.OID) {
					f.refuse(field, "write it once", "%s stands more than once", known.name)
				}
			}
			policy := attributePolicy{attributeType: known}
			if problem := attributeProblem(policy, given.Value); problem != "" {
				f.refuse(field, attributeHint(policy), "%s: %s %s", known.name, quote(given.Value), problem)
			}
		}
		if !common {
			f.refuse("subject.commonName", "name the authority", "the subject has no commonName")
		}
		for i, above := range a.ancestors() {
			if !a.sameName(above) {
				continue
			}
			whose := "the parent's own"
			if i > 0 {
				whose = "that of an authority above the parent"
			}
			f.refuse("subject", "give the authority a name of its own", "the subject is %s", whose)
			break
		}
	},
}

// sameName tells whether the subject is another authority's, as whoever checks a chain may compare them. Path lengths and name constraints pass
// over a certificate whose subject is its issuer.
func (a *authority) sameName(other *x509.Certificate) bool {
	name, err := ReadName(other.RawSubject)
	return err != nil || SameName(name, a.subjectSequence()) // what cannot be compared is not trusted to differ
}
