package policies

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
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

// directories are subtrees of distinguished names, which crypto/x509 does not read: each is the beginning of those that lie in it.
type directories struct{ permitted, excluded []pkix.RDNSequence }

// directoriesOf are those of the name constraints of an authority's certificate. Of constraints that cannot be read every name is excluded.
func directoriesOf(c *x509.Certificate) (d directories) {
	const directoryName = 4 // the tag of the choice in GeneralName
	type subtree struct {
		Base asn1.RawValue // minimum and maximum, which RFC 5280 has nobody use, follow it
	}
	var constraints struct {
		Permitted []subtree `asn1:"optional,tag:0"`
		Excluded  []subtree `asn1:"optional,tag:1"`
	}
	i := slices.IndexFunc(c.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(oidNameConstraints) })
	if i < 0 {
		return d
	}
	if rest, err := asn1.Unmarshal(c.Extensions[i].Value, &constraints); err != nil || len(rest) > 0 {
		return directories{excluded: []pkix.RDNSequence{{}}}
	}
	read := func(trees []subtree, into *[]pkix.RDNSequence) bool {
		for _, tree := range trees {
			if tree.Base.Class != asn1.ClassContextSpecific || tree.Base.Tag != directoryName {
				continue
			}
			name, err := ReadName(tree.Base.Bytes)
			if err != nil {
				return false
			}
			*into = append(*into, name)
		}
		return true
	}
	if !read(constraints.Permitted, &d.permitted) || !read(constraints.Excluded, &d.excluded) {
		return directories{excluded: []pkix.RDNSequence{{}}}
	}
	return d
}

// hold tells whether a subject keeps to the constraints. An empty one does (RFC 5280, section 4.2.1.10).
func (d directories) hold(subject pkix.RDNSequence) bool {
	lies := func(tree pkix.RDNSequence) bool {
		return len(tree) == 0 || len(tree) <= len(subject) && SameName(tree, subject[:len(tree)])
	}
	return len(subject) == 0 || !slices.ContainsFunc(d.excluded, lies) && (len(d.permitted) == 0 || slices.ContainsFunc(d.permitted, lies))
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
		return within(base, tree) || wildcard && within(strings.ToLower(strings.TrimPrefix(tree, ".")), base)
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
