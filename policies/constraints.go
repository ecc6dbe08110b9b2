package policies

import (
	"crypto/x509"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// constraintsOf are the name constraints of an authority's certificate.
func constraintsOf(c *x509.Certificate) (permitted, excluded NameConstraints) {
	permitted = NameConstraints{DNS: c.PermittedDNSDomains, IP: prefixes(c.PermittedIPRanges), Email: c.PermittedEmailAddresses, URI: c.PermittedURIDomains}
	excluded = NameConstraints{DNS: c.ExcludedDNSDomains, IP: prefixes(c.ExcludedIPRanges), Email: c.ExcludedEmailAddresses, URI: c.ExcludedURIDomains}
	return permitted, excluded
}

func prefixes(nets []*net.IPNet) []netip.Prefix {
	var all []netip.Prefix
	for _, n := range nets {
		addr, ok := netip.AddrFromSlice(n.IP)
		ones, bits := n.Mask.Size()
		if ok && bits == addr.BitLen() {
			all = append(all, netip.PrefixFrom(addr, ones))
		}
	}
	return all
}

// A type without permitted subtrees is not constrained by them (RFC 5280, section 4.2.1.10).

func (n NameConstraints) permitDNS(name string) bool {
	name = strings.TrimPrefix(name, "*.")
	return len(n.DNS) == 0 || slices.ContainsFunc(n.DNS, func(tree string) bool { return within(name, tree) })
}

// excludeDNS takes the careful side on wildcards: one that could stand for an excluded name is excluded.
func (n NameConstraints) excludeDNS(name string) bool {
	base, wildcard := strings.CutPrefix(name, "*.")
	return slices.ContainsFunc(n.DNS, func(tree string) bool {
		tree = strings.TrimPrefix(tree, ".")
		return within(base, tree) || wildcard && within(strings.ToLower(tree), base)
	})
}

func (n NameConstraints) permitIP(a netip.Addr) bool { return len(n.IP) == 0 || n.excludeIP(a) }

func (n NameConstraints) excludeIP(a netip.Addr) bool {
	return slices.ContainsFunc(n.IP, func(p netip.Prefix) bool { return p.Contains(a) })
}

func (n NameConstraints) permitEmail(mailbox string) bool {
	return len(n.Email) == 0 || n.excludeEmail(mailbox)
}

// excludeEmail compares with a mailbox ("a@b"), a host ("b"), or everything under a domain (".b").
func (n NameConstraints) excludeEmail(mailbox string) bool {
	local, domain, _ := strings.Cut(mailbox, "@")
	return slices.ContainsFunc(n.Email, func(tree string) bool {
		if treeLocal, treeDomain, whole := strings.Cut(tree, "@"); whole {
			return local == treeLocal && strings.EqualFold(domain, treeDomain)
		}
		return host(domain, tree)
	})
}

// permitURI refuses a URI whose authority is no domain name as soon as there are constraints (RFC 5280, section 4.2.1.10).
func (n NameConstraints) permitURI(uri string) bool {
	name, named := uriHost(uri)
	return len(n.URI) == 0 || named && slices.ContainsFunc(n.URI, func(tree string) bool { return host(name, tree) })
}

func (n NameConstraints) excludeURI(uri string) bool {
	name, named := uriHost(uri)
	return len(n.URI) > 0 && (!named || slices.ContainsFunc(n.URI, func(tree string) bool { return host(name, tree) }))
}

func uriHost(uri string) (name string, named bool) {
	u, err := url.Parse(uri)
	if err != nil || u.Hostname() == "" {
		return "", false
	}
	_, err = netip.ParseAddr(u.Hostname())
	return strings.ToLower(u.Hostname()), err != nil
}

// within tells whether a DNS name lies in a subtree: at its top or under it; only under it when the subtree begins with a dot. The empty
// subtree holds everything.
func within(name, tree string) bool {
	tree = strings.ToLower(tree)
	if strings.HasPrefix(tree, ".") {
		return strings.HasSuffix(name, tree)
	}
	return tree == "" || name == tree || strings.HasSuffix(name, "."+tree)
}

// host tells whether a host is the one named, or lies under a domain written with a dot in front: the rule for mail and URIs.
func host(name, tree string) bool {
	tree = strings.ToLower(tree)
	if strings.HasPrefix(tree, ".") {
		return strings.HasSuffix(name, tree)
	}
	return tree == "" || name == tree
}
