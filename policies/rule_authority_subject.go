package policies

import "fmt"

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
		if a.Parent != nil && a.sameName() {
			f.refuse("subject", "give the authority a name of its own", "the subject is the parent's own")
		}
	},
}

// sameName tells whether the subject is the parent's, however either is written.
func (a *authority) sameName() bool {
	parent, ok := readName(a.Parent.RawSubject)
	return !ok || SameName(parent, a.subjectSequence()) // what cannot be compared is not trusted to differ
}
