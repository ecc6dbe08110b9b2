package policies

import (
	"crypto/x509/pkix"
	"slices"
)

// subjectOfAuthority refuses a subject that is the issuer's own name: whoever checks a chain may take the certificate for one that the
// issuer issued to itself (RFC 5280, sections 3.2 and 6.1), and nothing that is prepared for signing has it.
var subjectOfAuthority = rule[*evaluation]{
	id: "subject.of-authority", source: "RFC 5280, 3.2",
	seen: seenSubject,
	check: func(e *evaluation, f *findings) {
		// The issuer's attributes as the parser has them, in order: which of them share an RDN makes no other name here.
		same := func(of pkix.AttributeTypeAndValue, rdn pkix.RelativeDistinguishedNameSET) bool {
			return sameAttribute(of, rdn[0])
		}
		if subject := e.subjectSequence(); len(subject) > 0 && slices.EqualFunc(e.issuer.Subject.Names, subject, same) {
			f.refuse("subject", "use a subject of your own", "the subject is the issuer's own")
		}
	},
}
