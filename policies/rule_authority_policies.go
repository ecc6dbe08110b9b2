package policies

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"
)

// authorityPolicies holds that the certificate policies of a subordinate are among those of the parent and of every authority above it that
// has any: a policy is worth something to a verifier only where each certificate of the path has it, or anyPolicy (RFC 5280, section 6.1.3,
// step d).
var authorityPolicies = rule[*authority]{
	id: "authority.policies", source: "RFC 5280, 6.1.3",
	check: func(a *authority, f *findings) {
		above := a.policiesAbove()
		for i, oid := range a.Policies {
			field := fmt.Sprintf("policies[%d]", i)
			if containsOID(a.Policies[:i], oid) {
				f.refuse(field, "write it once", "%s stands more than once (RFC 5280, section 4.2.1.4)", oid)
			}
			for _, c := range above {
				if !oid.Equal(oidAnyPolicy) && !hasPolicy(c, oid) && !hasPolicy(c, oidAnyPolicy) {
					f.refuse(field, "leave it out, or take one that all authorities above have",
						"%s is not a policy of %s, and below it is worth nothing", oid, quote(c.Subject.String()))
					break
				}
			}
		}
	},
}

// policiesAbove are those above, from the parent on, whose policies bound the ones below. The root is not among them: what it has is no part
// of the path (section 6.1.1). Nor is one that maps policies to others (section 4.2.1.5), and whatever is above that.
func (a *authority) policiesAbove() (bounds []*x509.Certificate) {
	above := a.ancestors()
	for i, c := range above {
		maps := slices.ContainsFunc(c.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidPolicyMappings) })
		if maps || i == len(above)-1 && bytes.Equal(c.RawSubject, c.RawIssuer) {
			break
		}
		if len(c.Policies) > 0 {
			bounds = append(bounds, c)
		}
	}
	return bounds
}

func hasPolicy(c *x509.Certificate, oid asn1.ObjectIdentifier) bool {
	return slices.ContainsFunc(c.Policies, func(p x509.OID) bool { return p.EqualASN1OID(oid) })
}
