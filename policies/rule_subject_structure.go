package policies

// subjectStructure holds that each RDN of the subject has one attribute and that no attribute is repeated (BR, section 7.1.4.1). Go, and
// others, see only the last of two common names.
var subjectStructure = rule[*evaluation]{
	id: "subject.structure", source: "BR 7.1.4.1",
	seen: seenSubject,
	check: func(e *evaluation, f *findings) {
		for i, a := range e.subject {
			for _, before := range e.subject[:i] {
				if before.RDN == a.RDN {
					f.refuse("subject", "put each attribute into an RDN of its own", "%s stands in an RDN with another attribute", attributeName(a.OID))
				}
				if before.OID.Equal(a.OID) && (a.OID.Equal(oidCommonName) || !containsOID(e.profile.subject.drop, a.OID)) {
					f.refuse("subject."+attributeName(a.OID), "write it once", "%s stands more than once", attributeName(a.OID))
				}
			}
			if f.full() {
				return
			}
		}
	},
}
