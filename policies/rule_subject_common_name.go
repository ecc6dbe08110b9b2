package policies

// subjectCommonName holds that a common name repeats one of the certificate's names, where the profile says so (BR, section 7.1.4.3).
// Names whose case does not matter are written in their normal form in both places, so that they are the same to the byte.
var subjectCommonName = rule[*evaluation]{
	id: "subject.common-name", source: "BR 7.1.4.3",
	seen: seenSubject,
	check: func(e *evaluation, f *findings) {
		a, allowed := e.profile.subject.attribute(oidCommonName)
		if !allowed || a.presence == fixed || e.profile.subject.commonName != commonNameCopies {
			return
		}
		for _, given := range e.subject {
			if !given.OID.Equal(oidCommonName) {
				continue
			}
			if _, ok := e.names.matching(given.Value); !ok {
				f.refuse("subject.commonName", "leave the common name out, or put it among the subject alternative names as well",
					"the common name %s is not one of the subject alternative names", quote(given.Value))
			}
		}
	},
}
