package policies

// namesIP refuses addresses that are no host's, IPv4 addresses dressed as IPv6, and, where the profile says so, addresses of the IANA
// special-purpose registries (RFC 6890; BR, section 7.1.4.2).
var namesIP = rule[*evaluation]{
	id: ruleNamesIP, source: "BR 7.1.4.2",
	check: func(e *evaluation, f *findings) {
		for _, flaw := range e.names.ipFlaws {
			f.refuse(flaw.field, flaw.hint, "%s", flaw.message)
		}
		policy := e.profile.names.ip
		if policy == nil || policy.reserved {
			return
		}
		for _, address := range e.names.ip {
			if reservedAddress(address.value) {
				f.refuse(address.field(), "use an address of the public Internet, or a profile for private names", "%s is a reserved address", address.value)
			}
		}
	},
}
