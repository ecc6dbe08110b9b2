package policies

import (
	"net/netip"
	"slices"
	"strings"
	"unicode"

	"github.com/chancery-ca/chancery/access"
)

// subjectClaims holds that a free common name which reads as a DNS name, an address, a mailbox or a URI is one of the namespace's: there
// are still readers that take a common name for what the subject alternative names should say (RFC 6125, section 6.4.4; BR, section
// 7.1.4.3).
var subjectClaims = rule[*evaluation]{
	id: "subject.claims", source: "RFC 6125, 6.4.4",
	seen: seenSubject,
	check: func(e *evaluation, f *findings) {
		a, allowed := e.profile.subject.attribute(oidCommonName)
		if !allowed || a.presence == fixed || e.profile.subject.commonName != commonNameFree {
			return
		}
		for _, given := range e.subject {
			if !given.OID.Equal(oidCommonName) {
				continue
			}
			if kind, owned := claim(e.Namespace, given.Value); kind != "" && !owned {
				f.refuse("subject.commonName", "write a common name that cannot be taken for one, such as words with a space between",
					"the common name %s reads as a %s that does not belong to the namespace %s", quote(given.Value), kind, quote(e.Namespace.Name))
			}
		}
	},
}

// claim tells what kind of name a common name reads as, empty for none, and whether the namespace owns it.
func claim(n access.Namespace, value string) (kind string, owned bool) {
	value = strings.TrimSpace(value)
	if address, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(value, "["), "]")); err == nil {
		return "IP address", n.OwnsIP(address)
	}
	if at, err := netip.ParseAddrPort(value); err == nil {
		return "IP address", n.OwnsIP(at.Addr())
	}
	if strings.Contains(value, "://") {
		uri, problem, _ := normalURI(value)
		return "URI", problem == "" && n.OwnsURI(uri)
	}
	if mailbox := mailboxClaim(value); mailbox != "" {
		return "mailbox", n.OwnsEmail(mailbox)
	}
	if name := hostClaim(value); name != "" {
		return "DNS name", n.OwnsDNS(name)
	}
	return "", false
}

// mailboxClaim is the mailbox as which a value reads; empty: it reads as none. Readers of mail take for one also what is none by the rules for
// mailboxes that are certified: what stands before the last @ may be in other scripts, quoted, or behind "mailto:" (RFC 6531, RFC 6068), and
// what follows it is read as hostClaim reads it. White space outside of quotes makes words of it.
func mailboxClaim(value string) string {
	if mailbox, problem, _ := normalMailbox(value); problem == "" {
		return mailbox
	}
	at := strings.LastIndexByte(value, '@')
	if at <= 0 || strings.ContainsFunc(value[:at], unicode.IsSpace) && value[0] != '"' {
		return ""
	}
	if domain := hostClaim(value[at+1:]); domain != "" {
		return value[:at] + "@" + domain
	}
	return ""
}

// dots are the characters that are read as the dot between labels (RFC 3490, section 3.1; UTS 46).
var dots = strings.NewReplacer("\u3002", ".", "\uff0e", ".", "\uff61", ".")

// hostClaim is the name of a host as which a value reads, without a port; empty: it reads as none. Readers take for one also what is none
// by the rules for names that are certified: labels with hyphens at their ends or in third and fourth place, A-labels that do not decode,
// letters of other scripts. What ends in a number is a version or the like.
func hostClaim(value string) string {
	host, port, ported := strings.Cut(dots.Replace(value), ":")
	if ported && strings.Trim(port, "0123456789") != "" {
		return ""
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	labels := strings.Split(name, ".")
	if len(labels) < 2 || slices.Contains(labels, "") || endsInNumber(labels[len(labels)-1]) {
		return ""
	}
	if strings.ContainsFunc(name, func(c rune) bool {
		return !unicode.In(c, unicode.L, unicode.M, unicode.N) && !strings.ContainsRune(".-_*", c)
	}) {
		return ""
	}
	return name
}
