package policies

import (
	"net/netip"
	"strings"
)

// compileSubtrees reads subtrees of names. Subtrees of a type that the profile does not have are contradictions.
func compileSubtrees(r *report, field string, f *subtreesFile, n namesPolicy) NameConstraints {
	if f == nil {
		return NameConstraints{}
	}
	c := NameConstraints{DNS: f.DNS, Email: f.Email, URI: f.URI}
	for _, kind := range []struct {
		name    string
		trees   []string
		allowed bool
		problem func(string) string
	}{
		{"dns", f.DNS, n.dns != nil, domainProblem},
		{"ip", f.IP, n.ip != nil, func(string) string { return "" }},
		{"email", f.Email, n.email != nil, func(tree string) string {
			if strings.Contains(tree, "@") {
				mailbox, problem, _ := normalMailbox(tree)
				if problem == "" && mailbox != tree {
					problem = quote(tree) + " has a domain that is not in lower case"
				}
				return problem
			}
			return domainProblem(tree)
		}},
		{"uri", f.URI, n.uri != nil, domainProblem},
	} {
		at := field + "." + kind.name
		if len(kind.trees) > 0 && !kind.allowed {
			r.field(at, "allow names."+kind.name+", or leave the subtrees out", "there are subtrees for names of type %s, which the profile does not allow", kind.name)
		}
		for i, tree := range kind.trees {
			if problem := kind.problem(tree); problem != "" {
				r.field(index(at, i), "for example team.example", "%s", problem)
			}
		}
		reportRepeated(r, at, kind.trees)
	}
	for i, cidr := range f.IP {
		p, err := netip.ParsePrefix(cidr)
		if err != nil || p != p.Masked() || p.Addr().Is4In6() {
			r.field(index(field+".ip", i), "for example 10.0.0.0/8", "%s is not a CIDR with its host bits zero", quote(cidr))
			continue
		}
		c.IP = append(c.IP, p)
	}
	return c
}

// domainProblem says why a text is not a domain, in lower case, with or without a dot in front.
func domainProblem(tree string) string {
	name := strings.TrimPrefix(tree, ".")
	if problem, _ := dnsProblem(name); problem != "" {
		return problem
	}
	if strings.Contains(name, "*") {
		return quote(tree) + " is a wildcard, not a domain: a domain holds everything under it"
	}
	return ""
}

// reportEmptied reports permitted subtrees that excluded ones hold whole: no name could ever lie in them.
func reportEmptied(r *report, n namesPolicy) {
	const hint = "remove one of the two"
	for i, tree := range n.permitted.DNS {
		if holdsTree(n.excluded.DNS, tree) {
			r.field(index("names.permitted.dns", i), hint, "%s is excluded as a whole", quote(tree))
		}
	}
	for i, p := range n.permitted.IP {
		for _, q := range n.excluded.IP {
			if q.Bits() <= p.Bits() && q.Contains(p.Addr()) {
				r.field(index("names.permitted.ip", i), hint, "%s is excluded as a whole", p)
			}
		}
	}
	for _, kind := range []struct {
		name                string
		permitted, excluded []string
	}{{"email", n.permitted.Email, n.excluded.Email}, {"uri", n.permitted.URI, n.excluded.URI}} {
		for i, tree := range kind.permitted {
			for _, other := range kind.excluded {
				if other == tree {
					r.field(index("names.permitted."+kind.name, i), hint, "%s is excluded as a whole", quote(tree))
				}
			}
		}
	}
}

// holdsTree tells whether one of the subtrees of DNS names holds all of another.
func holdsTree(trees []string, tree string) bool {
	for _, t := range trees {
		if t == tree || within(strings.TrimPrefix(tree, "."), t) {
			return true
		}
	}
	return false
}
