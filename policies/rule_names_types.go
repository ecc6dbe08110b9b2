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
			f.refuse("subjectAltName."+other.Kind, "leave it out", "names of type %s are never issued", other.Kind)
		}
	},
}
