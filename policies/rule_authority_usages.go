package policies

import (
	"encoding/asn1"
	"fmt"
)

// authorityUsages holds that the extended key usages of a subordinate, where it has any, constrain it (BR, section 7.1.2.10.6): no
// anyExtendedKeyUsage, no repetitions, no OCSPSigning, which is for responders, and none beyond those of the parent or of an authority above
// it, because verifiers nest them: it could certify nothing for that purpose. Left out it has those of its parent.
var authorityUsages = rule[*authority]{
	id: "authority.ext-key-usage", source: "BR 7.1.2.10.6",
	check: func(a *authority, f *findings) {
		for i, oid := range a.ExtKeyUsage {
			field := fmt.Sprintf("ext_key_usage[%d]", i)
			switch {
			case oid.Equal(oidAnyExtKeyUsage) || oid.Equal(oidOCSPSigning):
				f.refuse(field, "name what the certificates below are for", "%s is not issued to authorities", nameOf(extKeyUsages, oid))
			case containsOID(a.ExtKeyUsage[:i], oid):
				f.refuse(field, "write it once", "%s stands more than once", nameOf(extKeyUsages, oid))
			}
			for _, permitted := range a.purposes() {
				if !containsOID(permitted, oid) {
					f.refuse(field, "leave it out: an authority above is for "+some(namesOf(extKeyUsages, permitted))+" alone",
						"%s lies outside of what the parent, or an authority above it, is for", nameOf(extKeyUsages, oid))
					break
				}
			}
		}
	},
}

// purposes are the extended key usages of those above that are constrained by them.
func (a *authority) purposes() [][]asn1.ObjectIdentifier {
	if a.Parent == nil {
		return nil
	}
	return usagesAlong(a.Parent, a.Above)
}
