package policies

// subjectOfAuthority refuses a subject that is the issuer's own name: whoever checks a chain may take the certificate for one that the
// issuer issued to itself (RFC 5280, sections 3.2 and 6.1), and nothing that is prepared for signing has it.
var subjectOfAuthority = rule[*evaluation]{
	id: "subject.of-authority", source: "RFC 5280, 3.2",
	seen: seenSubject,
	check: func(e *evaluation, f *findings) {
		subject := e.subjectSequence()
		if len(subject) == 0 {
			return
		}
		if issuer, ok := readName(e.issuer.RawSubject); !ok || SameName(issuer, subject) {
			f.refuse("subject", "use a subject of your own", "the subject is the issuer's own")
		}
	},
}
