package policies

// namesTypes refuses names of types that the profile does not allow, and of those that no profile can: otherName, x400Address,
// directoryName, ediPartyName and registeredID (RFC 5280, section 4.2.1.6; BR, section 7.1.2.7.12).
var namesTypes = rule[*evaluation]{
	id: "names.types", source: "RFC 5280, 4.2.1.6",
	seen: seenNames("dns", "ip", "email", "uri", "other"),
	check: func(e *evaluation, f *findings) {
		policy, asked := e.profile.names, e.names.asked
		for _, kind := range []struct {
			name    string
			allowed bool
			count   int
		}{
			{"dns", policy.dns != nil, len(asked.DNS)},
			{"ip", policy.ip != nil, len(asked.IP)},
			{"email", policy.email != nil, len(asked.Email)},
			{"uri", policy.uri != nil, len(asked.URI)},
		} {
			if !kind.allowed && kind.count > 0 {
				f.refuse("subjectAltName."+kind.name, "leave them out or use another profile",
					"the profile %s allows no names of type %s", quote(e.profile.name), kind.name)
			}
		}
		for _, other := range e.names.other {
			kind := other.Kind
			if other.OID != "" {
				kind += " (" + otherNameForm(other.OID) + ")"
			}
			f.refuse("subjectAltName."+other.Kind, "leave it out", "names of type %s are never issued", kind)
		}
	},
}

// otherNameForm is the name of a form of otherName that requests are known to smuggle in, or its digits: with the first of them, whoever
// holds the certificate can log on to a Windows domain as anybody.
func otherNameForm(oid string) string {
	switch oid {
	case "1.3.6.1.4.1.311.20.2.3":
		return "userPrincipalName"
	case "1.3.6.1.4.1.311.25.2.1":
		return "ntdsObjectSid"
	case "1.3.6.1.4.1.311.25.1":
		return "ntdsReplication"
	case "1.3.6.1.5.2.2":
		return "KRB5PrincipalName"
	case "1.3.6.1.5.5.7.8.5":
		return "xmppAddr"
	case "1.3.6.1.5.5.7.8.7":
		return "SRVName"
	case "1.3.6.1.5.5.7.8.9":
		return "SmtpUTF8Mailbox"
	}
	return oid
}
