package policies

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// authorityNames holds that name constraints are well formed and lie within the parent's and those above it (RFC 5280, section 4.2.1.10).
// Constraints wider than theirs would promise what no chain can keep.
var authorityNames = rule[*authority]{
	id: "authority.name-constraints", source: "RFC 5280, 4.2.1.10",
	check: func(a *authority, f *findings) {
		if a.Root && (a.Permitted != nil || a.Excluded != nil) {
			f.refuse("name_constraints", "constrain the authorities below", "a root carries no name constraints: many clients do not look at them there")
		}
		checkTrees(f, "permitted", a.Permitted)
		checkTrees(f, "excluded", a.Excluded)
		if a.Parent == nil {
			return
		}
		chain, subject := constraintsAlong(a.Parent, a.Above), a.subjectSequence()
		if slices.ContainsFunc(chain, func(c constraints) bool { return !c.directories.hold(subject) }) {
			f.refuse("subject", "use a name that the parent may certify, and those above it",
				"the subject lies outside of the name constraints of the parent, or of one above it")
		}
		if a.Permitted != nil {
			for _, c := range chain {
				checkWithin(f, a.Permitted, c.permitted, c.excluded)
			}
		}
	},
}

// checkTrees refuses subtrees that are not written as RFC 5280 writes them.
func checkTrees(f *findings, field string, n *NameConstraints) {
	if n == nil {
		return
	}
	if n.empty() {
		f.refuse(field, "leave it out", "the constraints hold no subtree")
	}
	bad := func(kind string, i int, value, hint string) {
		f.refuse(fmt.Sprintf("%s.%s[%d]", field, kind, i), hint, "%s is not a subtree", quote(value))
	}
	for i, tree := range n.DNS {
		if problem, _ := dnsProblem(tree); problem != "" || strings.Contains(tree, "*") {
			bad("dns", i, tree, "write a lower-case domain name without a dot in front; it covers everything under it")
		}
	}
	for i, p := range n.IP {
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
			bad("ip", i, p.String(), "write a prefix whose host bits are zero")
		}
	}
	for i, tree := range n.Email {
		if strings.Contains(tree, "@") {
			if mailbox, problem, _ := normalMailbox(tree); problem != "" || mailbox != tree {
				bad("email", i, tree, "write a mailbox, a lower-case host, or a domain with a dot in front")
			}
		} else if !hostTree(tree) {
			bad("email", i, tree, "write a mailbox, a lower-case host, or a domain with a dot in front")
		}
	}
	for i, tree := range n.URI {
		if !hostTree(tree) {
			bad("uri", i, tree, "write a lower-case host, or a domain with a dot in front")
		}
	}
}

func hostTree(tree string) bool {
	problem, _ := dnsProblem(strings.TrimPrefix(tree, "."))
	return problem == "" && !strings.Contains(tree, "*")
}

// checkWithin refuses permitted subtrees that the parent does not permit, or excludes whole.
func checkWithin(f *findings, permitted *NameConstraints, parent, excluded NameConstraints) {
	refuse := func(kind string, i int, value string) {
		f.refuse(fmt.Sprintf("permitted.%s[%d]", kind, i), "permit no more than the parent does, and those above it",
			"%s is not permitted to the parent, or to one above it", quote(value))
	}
	for i, tree := range permitted.DNS {
		if !parent.permitDNS(tree) || excluded.excludeDNS(tree) {
			refuse("dns", i, tree)
		}
	}
	for i, p := range permitted.IP {
		if !covers(parent.IP, p) && len(parent.IP) > 0 || covers(excluded.IP, p) {
			refuse("ip", i, p.String())
		}
	}
	// A mailbox and a host are compared as what they are; a domain (".b") lies within the same or a wider domain.
	for i, tree := range permitted.Email {
		if len(parent.Email) > 0 && !treeWithin(tree, parent.Email) || treeWithin(tree, excluded.Email) {
			refuse("email", i, tree)
		}
	}
	for i, tree := range permitted.URI {
		if len(parent.URI) > 0 && !treeWithin(tree, parent.URI) || treeWithin(tree, excluded.URI) {
			refuse("uri", i, tree)
		}
	}
}

func covers(prefixes []netip.Prefix, p netip.Prefix) bool {
	for _, wide := range prefixes {
		if wide.Bits() <= p.Bits() && wide.Contains(p.Addr()) {
			return true
		}
	}
	return false
}

func treeWithin(tree string, wider []string) bool {
	for _, w := range wider {
		w = strings.ToLower(w)
		_, domain, mailbox := strings.Cut(tree, "@")
		switch {
		case tree == w || w == "":
			return true
		case strings.HasPrefix(w, ".") && strings.HasSuffix(strings.TrimPrefix(tree, "."), w):
			return true
		case mailbox && (domain == w || strings.HasPrefix(w, ".") && strings.HasSuffix(domain, w)):
			return true
		}
	}
	return false
}
