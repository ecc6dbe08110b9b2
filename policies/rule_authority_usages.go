package policies

import (
	"encoding/asn1"
	"fmt"
)

// authorityUsages holds that the extended key usages of a subordinate, where it has any, constrain it (BR, section 7.1.2.10.6): no
// anyExtendedKeyUsage, no repetitions, and no OCSPSigning, which is for responders; and none beyond its parent's, where that has any, since
// verifiers nest them.
var authorityUsages = rule[*authority]{
	id: "authority.ext-key-usage", source: "BR 7.1.2.10.6",
	check: func(a *authority, f *findings) {
		var chain [][]asn1.ObjectIdentifier
		if a.Parent != nil {
			chain = usagesAlong(a.Parent, nil)
		}
		for i, oid := range a.ExtKeyUsage {
			field := fmt.Sprintf("ext_key_usage[%d]", i)
			switch {
			case len(chain) > 0 && !containsOID(chain[0], oid):
				f.refuse(field, "stay within the parent's: "+some(namesOf(extKeyUsages, chain[0])), "the parent is not for %s",
					nameOf(extKeyUsages, oid))
			case oid.Equal(oidAnyExtKeyUsage) || oid.Equal(oidOCSPSigning):
				f.refuse(field, "name what the certificates below are for", "%s is not issued to authorities", nameOf(extKeyUsages, oid))
			case containsOID(a.ExtKeyUsage[:i], oid):
				f.refuse(field, "write it once", "%s stands more than once", nameOf(extKeyUsages, oid))
			}
		}
		for i, oid := range a.Policies {
			if containsOID(a.Policies[:i], oid) {
				f.refuse(fmt.Sprintf("policies[%d]", i), "write it once", "%s stands more than once (RFC 5280, section 4.2.1.4)", oid)
			}
		}
	},
}
