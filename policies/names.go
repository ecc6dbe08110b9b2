package policies

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/chancery-ca/chancery/csr"
)

// given is one name of a request that is fit to be judged further, in its normal form, and where the request has it.
type given[T comparable] struct {
	value T
	kind  string // "dns", ...
	index int    // among the names of its type in the request
}

// field is where the request has the name. It is for refusals, and made only for them.
func (g given[T]) field() string { return nameField(g.kind, g.index) }

func nameField(kind string, i int) string { return index("subjectAltName."+kind, i) }

// flaw is a name of a request that is not fit for any certificate.
type flaw struct {
	field, message, hint string
}

// names are the names of a request in their normal form, without repetitions, in the order of the request. Those whose syntax is
// broken are among the flaws of their type instead, so that later rules look at sound names alone.
type names struct {
	dns       []given[string]
	ip        []given[netip.Addr]
	email     []given[string]
	uri       []given[string]
	dnsFlaws  []flaw
	ipFlaws   []flaw
	mailFlaws []flaw
	uriFlaws  []flaw
	other     []csr.OtherName
	asked     csr.Names
}

// normalise brings the names of a request into their normal form: DNS names, mail domains, schemes and hosts in lower case.
func normalise(asked csr.Names) names {
	n := names{other: asked.Other, asked: asked}
	n.dns, n.dnsFlaws = sift("dns", asked.DNS, func(s string) (string, string, string) {
		s = strings.ToLower(s)
		message, hint := dnsProblem(s)
		return s, message, hint
	})
	n.ip, n.ipFlaws = sift("ip", asked.IP, func(a netip.Addr) (netip.Addr, string, string) {
		message, hint := ipProblem(a)
		return a, message, hint
	})
	n.email, n.mailFlaws = sift("email", asked.Email, normalMailbox)
	n.uri, n.uriFlaws = sift("uri", asked.URI, normalURI)
	return n
}

// sift parts the sound names of one type from the flawed ones, and drops repetitions.
func sift[T comparable](kind string, asked []T, normal func(T) (value T, message, hint string)) (sound []given[T], flaws []flaw) {
	if len(asked) == 0 {
		return nil, nil
	}
	seen := make(map[T]struct{}, len(asked))
	for i, a := range asked {
		value, message, hint := normal(a)
		if message != "" {
			flaws = append(flaws, flaw{nameField(kind, i), message, hint})
			continue
		}
		if _, twice := seen[value]; !twice {
			seen[value] = struct{}{}
			sound = append(sound, given[T]{value, kind, i})
		}
	}
	return sound, flaws
}

func values[T comparable](all []given[T]) []T {
	if len(all) == 0 {
		return nil
	}
	plain := make([]T, len(all))
	for i, g := range all {
		plain[i] = g.value
	}
	return plain
}

// different is how many names there are without repetitions; those that are not sound are counted as they were asked for.
func (n names) different() int {
	sound := len(n.dns) + len(n.ip) + len(n.email) + len(n.uri)
	return sound + len(n.dnsFlaws) + len(n.ipFlaws) + len(n.mailFlaws) + len(n.uriFlaws) + len(n.other)
}

// written are all sound names as text, in the order of a certificate.
func (n names) written() []string {
	all := make([]string, 0, len(n.dns)+len(n.ip)+len(n.email)+len(n.uri))
	all = append(all, values(n.dns)...)
	all = append(all, texts(n.ip)...)
	return append(append(all, values(n.email)...), values(n.uri)...)
}

// texts writes addresses as text.
func texts(all []given[netip.Addr]) []string {
	if len(all) == 0 {
		return nil
	}
	plain := make([]string, len(all))
	for i, a := range all {
		plain[i] = a.value.String()
	}
	return plain
}

// matching finds the name that a common name repeats, in its normal form: case does not matter where it does not in the name.
func (n names) matching(commonName string) (string, bool) {
	lower := strings.ToLower(commonName)
	same := func(want string) func(given[string]) bool {
		return func(g given[string]) bool { return g.value == want }
	}
	if slices.ContainsFunc(n.dns, same(lower)) {
		return lower, true
	}
	if a, err := netip.ParseAddr(commonName); err == nil && slices.ContainsFunc(n.ip, func(g given[netip.Addr]) bool { return g.value == a }) {
		return a.String(), true
	}
	if mailbox, flaw, _ := normalMailbox(commonName); flaw == "" && slices.ContainsFunc(n.email, same(mailbox)) {
		return mailbox, true
	}
	if uri, flaw, _ := normalURI(commonName); flaw == "" && slices.ContainsFunc(n.uri, same(uri)) {
		return uri, true
	}
	return "", false
}

// ruleNamesCAA is the rule that facts from outside may be awaited for.
const ruleNamesCAA = "names.caa"

const (
	maxMailbox   = 254 // RFC 5321, section 4.5.3.1.3, less the angle brackets
	maxLocalPart = 64  // RFC 5321, section 4.5.3.1.1
	maxURI       = 2048
)

// normalMailbox brings a mailbox into its normal form, the domain in lower case, and says what is wrong with one that is none
// (RFC 5280, section 4.2.1.6; RFC 5321, section 4.1.2: a dot-string at a domain name, never a quoted string or an address literal).
func normalMailbox(s string) (mailbox, message, hint string) {
	local, domain, ok := strings.Cut(s, "@")
	domain = strings.ToLower(domain)
	mailbox = local + "@" + domain
	hint = "write local-part@domain, without quotes or comments"
	if !ok || len(s) > maxMailbox || len(local) > maxLocalPart || local == "" ||
		strings.HasPrefix(local, ".") || strings.HasSuffix(local, ".") || strings.Contains(local, "..") {
		return mailbox, fmt.Sprintf("%s is not a mailbox", quote(s)), hint
	}
	for _, c := range []byte(local) {
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-/=?^_`{|}~.", c) >= 0) {
			return mailbox, fmt.Sprintf("%s is not a mailbox: %q cannot stand before the @", quote(s), rune(c)), hint
		}
	}
	if problem, _ := dnsProblem(domain); problem != "" || strings.ContainsAny(domain, "*_") {
		return mailbox, fmt.Sprintf("%s is not a mailbox: what follows the @ is not a domain name", quote(s)), hint
	}
	return mailbox, "", ""
}

// normalURI brings a URI into its normal form, scheme and host in lower case, and says what is wrong with one that cannot stand in a
// certificate (RFC 5280, section 4.2.1.6): it must be absolute, and its authority must be a host name of at least two labels or an
// IP address.
func normalURI(s string) (uri, message, hint string) {
	hint = "write an absolute URI, such as spiffe://example.org/service"
	refuse := func(why string) (string, string, string) {
		return s, fmt.Sprintf("%s cannot stand in a certificate: %s", quote(s), why), hint
	}
	if len(s) > maxURI {
		return refuse(fmt.Sprintf("it has more than %d characters", maxURI))
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune("\\\"<>^`{|}", r) }) {
		return refuse("it holds characters that no URI has")
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme == "":
		return refuse("it is not an absolute URI")
	case u.Opaque != "":
		if strings.Contains(s, "#") || u.Host != "" {
			return refuse("it has a fragment")
		}
		return u.Scheme + s[len(u.Scheme):], "", "" // "urn:..." and the like have no authority; url.Parse lower-cased the scheme
	case u.Host == "":
		return refuse("it has no authority")
	case u.User != nil:
		return refuse("it holds a user")
	case strings.Contains(s, "#"):
		return refuse("it has a fragment")
	}
	host := strings.ToLower(u.Hostname())
	if address, err := netip.ParseAddr(host); err == nil {
		if address.Zone() != "" || address.Is4In6() || address.Is6() != strings.HasPrefix(u.Host, "[") {
			return refuse("its host is not an IP address as it should be written")
		}
	} else if problem, _ := dnsProblem(host); problem != "" || strings.ContainsAny(host, "*_") || !strings.Contains(host, ".") {
		return refuse("its host is neither a full domain name nor an IP address")
	}
	for _, segment := range strings.Split(u.Path, "/") {
		if segment == "." || segment == ".." {
			return refuse("its path climbs")
		}
	}
	if strings.HasSuffix(u.Host, ":") {
		return refuse("its port is empty")
	}
	scheme := len(u.Scheme) + len("://")
	authority := s[scheme : scheme+len(u.Host)]
	return u.Scheme + "://" + strings.ToLower(authority) + s[scheme+len(u.Host):], "", ""
}
