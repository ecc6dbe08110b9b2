package policies

// subjectOrganisation holds that an organisation in the subject is one that the namespace speaks for (BR, section 3.2.2.1). One that the
// profile fixes is the operator's own choice, and one that it drops reaches no certificate.
var subjectOrganisation = rule[*evaluation]{
	id: "subject.organisation", source: "BR 3.2.2.1",
	seen: seenSubject,
	check: func(e *evaluation, f *findings) {
		a, allowed := e.profile.subject.attribute(oidOrganisation)
		if !allowed || a.presence == fixed {
			return
		}
		for _, given := range e.subject {
			if given.OID.Equal(oidOrganisation) && !e.Namespace.OwnsOrganisation(given.Value) {
				f.refuse("subject.organizationName", "use an organisation of the namespace: "+some(e.Namespace.Subjects),
					"the namespace %s does not speak for the organisation %s", quote(e.Namespace.Name), quote(given.Value))
			}
		}
	},
}
