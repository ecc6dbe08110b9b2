package access

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
)

// everything, as an entry of a namespace, owns all names of its kind.
const everything = "*"

// OwnsDNS tells whether a DNS name lies at or under one that the namespace owns. Case does not matter. A wildcard is owned by
// whoever owns the name that follows its "*.". It judges ownership alone: the syntax of the name is not checked here.
func (n Namespace) OwnsDNS(name string) bool {
	name = strings.TrimPrefix(strings.ToLower(name), "*.")
	if name == "" || strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") || strings.Contains(name, "..") {
		return false
	}
	return slices.ContainsFunc(n.DNS, func(owned string) bool {
		return owned == everything || owned != "" && (name == owned || strings.HasSuffix(name, "."+owned))
	})
}

// OwnsIP tells whether an address lies in a prefix that the namespace owns. An IPv4-mapped IPv6 address lies in no IPv4 prefix.
func (n Namespace) OwnsIP(addr netip.Addr) bool {
	return addr.IsValid() && slices.ContainsFunc(n.IP, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// OwnsEmail tells whether a mailbox belongs to a domain that the namespace owns: that domain itself, not one under it.
func (n Namespace) OwnsEmail(mailbox string) bool {
	at := strings.LastIndexByte(mailbox, '@')
	if at <= 0 || at == len(mailbox)-1 {
		return false
	}
	domain := strings.ToLower(mailbox[at+1:])
	return slices.ContainsFunc(n.Email, func(owned string) bool { return owned == everything || domain == owned })
}

// OwnsURI tells whether a URI lies under a prefix that the namespace owns. Scheme and authority are compared without regard to
// case, the rest exactly. A path that climbs ("..") is owned by nobody, because it leads out of its prefix.
func (n Namespace) OwnsURI(uri string) bool {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme == "" || climbs(u) {
		return false
	}
	uri = lowerAuthority(uri)
	return slices.ContainsFunc(n.URI, func(owned string) bool {
		switch {
		case owned == "":
			return false
		case owned == everything:
			return true
		case strings.HasSuffix(owned, "/") && !strings.HasSuffix(owned, "://"):
			return strings.HasPrefix(uri, owned)
		default:
			return uri == owned || strings.HasPrefix(uri, owned+"/")
		}
	})
}

// OwnsOrganisation tells whether an organisation may stand in the subject's O, compared exactly.
func (n Namespace) OwnsOrganisation(name string) bool {
	return name != "" && slices.ContainsFunc(n.Subjects, func(owned string) bool { return owned == everything || owned == name })
}

// Within tells whether a namespace gives nothing that another does not: no name, no profile, no certificate more.
func (n Namespace) Within(other Namespace) bool {
	for _, d := range n.DNS {
		if !slices.Contains(other.DNS, d) && (d == everything || !other.OwnsDNS(d)) {
			return false
		}
	}
	for _, p := range n.IP {
		if !slices.ContainsFunc(other.IP, func(o netip.Prefix) bool { return o.Bits() <= p.Bits() && o.Contains(p.Addr()) }) {
			return false
		}
	}
	among := func(mine, theirs []string) bool {
		return slices.Contains(theirs, everything) || !slices.ContainsFunc(mine, func(s string) bool { return !slices.Contains(theirs, s) })
	}
	if !among(n.Email, other.Email) || !among(n.URI, other.URI) || !among(n.Subjects, other.Subjects) {
		return false
	}
	// Listing none gives every profile but those that must be listed, so that a list and none cannot be compared.
	if (len(n.Profiles) == 0) != (len(other.Profiles) == 0) || !among(n.Profiles, other.Profiles) {
		return false
	}
	for _, q := range other.Quotas {
		if !slices.ContainsFunc(n.Quotas, func(m Quota) bool {
			return m.Profile == q.Profile && m.Per == q.Per && m.Certificates <= q.Certificates
		}) {
			return false
		}
	}
	for _, r := range other.Rates {
		if !slices.ContainsFunc(n.Rates, func(m Rate) bool { return m.Profile == r.Profile && m.Per == r.Per && m.Requests <= r.Requests }) {
			return false
		}
	}
	return true
}

// MayUse tells whether the namespace may use a profile. A namespace that lists no profiles may use every one.
func (n Namespace) MayUse(profile string) bool { return len(n.Profiles) == 0 || n.Lists(profile) }

// Lists tells whether the namespace lists a profile by name: what a profile that not everybody may use asks for.
func (n Namespace) Lists(profile string) bool { return slices.Contains(n.Profiles, profile) }

// climbs tells whether a path has a segment "." or "..", percent-encoded or not, or a backslash that some readers take for "/".
func climbs(u *url.URL) bool {
	path := u.Path + u.Opaque
	return strings.Contains(path, `\`) ||
		slices.ContainsFunc(strings.Split(path, "/"), func(segment string) bool { return segment == "." || segment == ".." })
}

// lowerAuthority lower-cases the scheme and the authority of a URI, which is all of it that ignores case (RFC 3986, section 6.2.2.1).
func lowerAuthority(uri string) string {
	scheme, rest, ok := strings.Cut(uri, "://")
	if !ok {
		return uri
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	return strings.ToLower(scheme) + "://" + strings.ToLower(rest[:end]) + rest[end:]
}

// Validate reports everything that is wrong with a namespace as written: names must be in lower case and well formed, so that
// ownership is a comparison and nothing more.
func (n Namespace) Validate() error {
	var problems []error
	report := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("namespace %q: "+format, append([]any{n.Name}, args...)...))
	}
	if n.Name != AllNamespaces && !isToken(n.Name) {
		report("the name must be lower-case letters, digits and inner hyphens, at most 63")
	}
	for _, d := range n.DNS {
		if d != everything && !isDomain(d) {
			report("dns %q is not a lower-case domain name without trailing dot (a name owns everything under it; \"*\" owns all)", d)
		}
	}
	for _, p := range n.IP {
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
			report("ip %q is not a prefix with its host bits zero", p)
		}
	}
	for _, e := range n.Email {
		if e != everything && !isDomain(e) {
			report("email %q is not a lower-case mail domain", e)
		}
	}
	for _, u := range n.URI {
		if err := checkPrefix(u); u != everything && err != nil {
			report("uri %q: %w", u, err)
		}
	}
	for _, s := range n.Subjects {
		if s == "" || s != strings.TrimSpace(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) }) {
			report("subject organisation %q is empty, padded or holds control characters", s)
		}
	}
	for _, p := range n.Profiles {
		if !isToken(p) {
			report("profile %q is not a profile's name", p)
		}
	}
	n.validateLimits(report)
	return errors.Join(problems...)
}

// The bounds on limits. A window is counted in whole seconds.
const (
	maxLimits = 64 // quotas, and rates
	maxPer    = 366 * 24 * time.Hour
	maxCount  = 1_000_000_000
)

func (n Namespace) validateLimits(report func(format string, args ...any)) {
	if len(n.Quotas) > maxLimits || len(n.Rates) > maxLimits {
		report("it has more than %d quotas or rates", maxLimits)
	}
	check := func(kind, profile string, count, least int, per time.Duration) {
		if profile != "" && !isToken(profile) {
			report("%s: profile %q is not a profile's name", kind, profile)
		}
		if count < least || count > maxCount {
			report("%s: %d is not between %d and %d", kind, count, least, maxCount)
		}
		if per < time.Second || per > maxPer || per%time.Second != 0 {
			report("%s: the span %s is not of whole seconds from 1s to 366d", kind, per)
		}
	}
	for i, q := range n.Quotas {
		check("quota", q.Profile, q.Certificates, 0, q.Per)
		if slices.ContainsFunc(n.Quotas[:i], func(o Quota) bool { return o.Profile == q.Profile && o.Per == q.Per }) {
			report("quota: two are for the same profile and span")
		}
	}
	for i, r := range n.Rates {
		check("rate", r.Profile, r.Requests, 1, r.Per)
		if slices.ContainsFunc(n.Rates[:i], func(o Rate) bool { return o.Profile == r.Profile && o.Per == r.Per }) {
			report("rate: two are for the same profile and span")
		}
	}
}

// checkPrefix says what is wrong with an owned URI prefix.
func checkPrefix(prefix string) error {
	u, err := url.Parse(prefix)
	switch {
	case err != nil:
		return errors.New("not a URI")
	case u.Scheme == "" || u.Host == "":
		return errors.New("it needs a scheme and an authority")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(prefix, "#"):
		return errors.New("it must hold no user, query or fragment")
	case prefix != lowerAuthority(prefix):
		return errors.New("scheme and authority must be in lower case")
	case climbs(u):
		return errors.New(`its path must not hold "." or ".." segments`)
	case u.Path != "" && !strings.HasSuffix(u.Path, "/"):
		return errors.New(`it must end with "/" or be a whole authority`)
	}
	return nil
}

// isToken tells whether s is a lower-case LDH label, which is what namespaces and profiles are called.
func isToken(s string) bool { return isLabel(s) && !strings.Contains(s, "_") }

// isDomain tells whether s is a DNS name of lower-case labels. One label suffices: "localhost" and a private top-level name can be owned.
func isDomain(s string) bool {
	return len(s) <= 253 && !slices.ContainsFunc(strings.Split(s, "."), func(label string) bool { return !isLabel(label) })
}

func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-' || r == '_') })
}
