package policies

import (
	"fmt"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"
)

// The bounds on DNS names in text (RFC 1035, section 2.3.4).
const (
	maxName  = 253
	maxLabel = 63
)

// dnsProblem says what is wrong with the syntax of a dNSName in lower case, and how to put it right; it is silent on sound names.
// Labels are letters, digits and inner hyphens (RFC 5890, section 2.3.1; RFC 5280, section 4.2.1.6), or "_", which is for the profile
// to allow. A wildcard, whose place is for a rule of its own, passes as the whole left-most label.
func dnsProblem(name string) (message, hint string) {
	const syntax = "write a plain host name, such as www.example.org"
	switch {
	case name == "":
		return "a name is empty", syntax
	case len(name) > maxName:
		return fmt.Sprintf("%s has more than %d characters", quote(name), maxName), "shorten the name"
	case strings.HasSuffix(name, "."):
		return fmt.Sprintf("%s ends with a dot", quote(name)), "leave the dot at the end out"
	case strings.Contains(name, "://") || strings.Contains(name, "/"):
		return fmt.Sprintf("%s is a URL or a path, not a DNS name", quote(name)), syntax
	case strings.Contains(name, ":"):
		return fmt.Sprintf("%s holds a port or is an IPv6 address, not a DNS name", quote(name)), "leave the port out; IP addresses go into iPAddress"
	case strings.Contains(name, "@"):
		return fmt.Sprintf("%s is a mail address, not a DNS name", quote(name)), "mail addresses go into rfc822Name"
	}
	rest := strings.TrimPrefix(name, "*.")
	last := ""
	for label := range strings.SplitSeq(rest, ".") {
		if message, hint := labelProblem(name, label); message != "" {
			return message, hint
		}
		last = label
	}
	if endsInNumber(last) {
		return fmt.Sprintf("%s is an IP address or ends like one, not a DNS name", quote(name)), "IP addresses go into iPAddress"
	}
	return "", ""
}

func labelProblem(name, label string) (message, hint string) {
	switch {
	case label == "":
		return fmt.Sprintf("%s has an empty label", quote(name)), "write one dot between labels, and none at the ends"
	case len(label) > maxLabel:
		return fmt.Sprintf("%s has a label of more than %d characters", quote(name), maxLabel), "shorten the label"
	case label[0] == '-' || label[len(label)-1] == '-':
		return fmt.Sprintf("%s has a label that begins or ends with a hyphen", quote(name)), "hyphens stand inside labels"
	}
	for i := range len(label) {
		c := label[i]
		switch {
		case 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_':
		case c == '*':
			return fmt.Sprintf("%s has a wildcard that is not the whole left-most label", quote(name)), `a wildcard is written "*." and then the rest of the name`
		default:
			return fmt.Sprintf("%s holds a character that no DNS name has", quote(name)), "names are letters, digits, hyphens and dots; others in their A-label form (xn--...)"
		}
	}
	if len(label) > 3 && label[2:4] == "--" {
		if !strings.HasPrefix(label, "xn--") {
			return fmt.Sprintf("%s has a reserved label, with hyphens in third and fourth place", quote(name)), "only A-labels (xn--...) are written so (RFC 5890, section 2.3.1)"
		}
		if ascii, err := idna.Registration.ToASCII(label); err != nil || ascii != label || !decodes(label) {
			return fmt.Sprintf("%s has a label that is not a valid A-label", quote(name)), "encode the name by IDNA2008 (RFC 5891)"
		}
		if problem := unregistrable(label); problem != "" {
			return fmt.Sprintf("%s has the label %s, which %s", quote(name), quote(label), problem), "use a label that IDNA2008 allows (RFC 5892)"
		}
	}
	return "", ""
}

// unregistrable says why the U-label of a valid A-label is not one of IDNA2008.
func unregistrable(label string) string {
	u, err := idna.Registration.ToUnicode(label)
	if err != nil {
		return "cannot be decoded"
	}
	return idnaProblem(u)
}

// decodes tells whether an A-label stands for a U-label, one that holds other characters than ASCII (RFC 5890, section 2.3.2.1).
func decodes(label string) bool {
	unicode, err := idna.Registration.ToUnicode(label)
	return err == nil && unicode != label && strings.ContainsFunc(unicode, func(r rune) bool { return r > 0x7f })
}

// endsInNumber tells whether a last label makes readers of URLs take the whole name for an IPv4 address (WHATWG URL, section 3.5).
func endsInNumber(label string) bool {
	digits, hex := strings.CutPrefix(label, "0x")
	for _, c := range []byte(digits) {
		if !('0' <= c && c <= '9' || hex && 'a' <= c && c <= 'f') {
			return false
		}
	}
	return true
}

// underPublicSuffix tells whether a name is itself a public suffix, so that a wildcard directly in front of it would cover the names of
// many owners. A name of one label always is.
func underPublicSuffix(name string) bool {
	suffix, _ := publicsuffix.PublicSuffix(name)
	return suffix == name
}

// publicProblem says why a name is not one of the public DNS that a certificate may hold: internal, reserved, or a registry's own.
func publicProblem(name string) string {
	name = strings.TrimPrefix(name, "*.")
	top := name[strings.LastIndexByte(name, '.')+1:]
	suffix, icann := publicsuffix.PublicSuffix(name)
	switch {
	case top == "arpa":
		return "lies in a reverse or infrastructure zone"
	case reservedTop[top]:
		return "lies under a reserved top-level name"
	case !registered(top):
		return "is an internal name: its top-level name is not in the public DNS"
	case suffix == name && icann:
		return "is a public suffix, not a name under one"
	}
	return ""
}

// reservedTop are top-level names set apart from the public DNS (RFC 2606, RFC 6761, RFC 6762, RFC 7686, RFC 8375; ICANN's "internal").
// The public suffix list holds some of them.
var reservedTop = map[string]bool{
	"test": true, "example": true, "invalid": true, "localhost": true, "local": true, "onion": true, "internal": true, "alt": true,
}

// registered tells whether a top-level name is in the ICANN section of the public suffix list.
func registered(top string) bool {
	if _, icann := publicsuffix.PublicSuffix(top); icann {
		return true
	}
	_, icann := publicsuffix.PublicSuffix("x." + top) // for a rule such as "*.ck"
	return icann
}
