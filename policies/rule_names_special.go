package policies

import "strings"

// namesSpecial refuses DNS names that can be no host's in any profile: names set apart by the registry of special-use domain names
// (RFC 6761; RFC 7686, RFC 9476) and addresses written backwards, whose place is iPAddress.
var namesSpecial = rule[*evaluation]{
	id: "names.special-use", source: "RFC 6761",
	seen: seenNames("dns"),
	check: func(e *evaluation, f *findings) {
		for _, name := range e.names.dns {
			if problem, hint := specialProblem(name.value); problem != "" {
				f.refuse(name.field(), hint, "%s %s", quote(name.value), problem)
			}
		}
	},
}

// specialProblem says why a name is one of no host, and what to ask for instead; it is silent on all others.
func specialProblem(name string) (problem, hint string) {
	name = strings.TrimPrefix(name, "*.")
	under := func(zone string) bool { return name == zone || strings.HasSuffix(name, "."+zone) }
	switch {
	case under("in-addr.arpa"), under("ip6.arpa"):
		return "is an address in the form of a name", "write the address itself into iPAddress"
	case under("invalid"):
		return "lies under invalid, where no name exists (RFC 6761, section 6.4)", "ask for the name that clients use"
	case under("alt"):
		return "lies under alt, which is not part of the DNS (RFC 9476)", "ask for the name that clients use"
	case under("onion"):
		return "is an onion name, whose owner cannot be told by a namespace (RFC 7686)", "ask for the name that clients use"
	}
	return "", ""
}
