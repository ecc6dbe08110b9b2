package policies

import (
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

var hostName = regexp.MustCompile(`\A(?:\*\.)?(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\z`)

// FuzzNames holds that no name gets through which some reader could take for another: a DNS name is a host name and nothing else, and the
// normal form of every name is its own normal form.
func FuzzNames(f *testing.F) {
	for _, s := range []string{
		"a.example", "*.a.example", "xn--bcher-kva.example", "127.0.0.1", "a@b.example", "A@B.example", "https://A.example:8443/x?y",
		"spiffe://a.example/b", "urn:a:b", "http://[::1]:80/", "http://a.example@b.example/", "a.0x7f", "xn--a", "http://a.example/%2e%2e/b",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		lower := strings.ToLower(s)
		if problem, _ := dnsProblem(lower); problem == "" {
			if !hostName.MatchString(lower) || len(lower) > 253 {
				t.Fatalf("%q is no host name", lower)
			}
			if _, err := netip.ParseAddr(lower); err == nil {
				t.Fatalf("%q is an IP address", lower)
			}
			publicProblem(lower)
		}
		if mailbox, problem, _ := normalMailbox(s); problem == "" {
			if again, problem, _ := normalMailbox(mailbox); problem != "" || again != mailbox || strings.Count(mailbox, "@") != 1 {
				t.Fatalf("%q becomes %q and then %q (%s)", s, mailbox, again, problem)
			}
		}
		if uri, problem, _ := normalURI(s); problem == "" {
			again, problem, _ := normalURI(uri)
			u, err := url.Parse(uri)
			if problem != "" || again != uri || err != nil || u.Scheme == "" || u.User != nil || u.Fragment != "" {
				t.Fatalf("%q becomes %q and then %q (%s, %v)", s, uri, again, problem, err)
			}
			if u.Opaque == "" && u.Hostname() != strings.ToLower(u.Hostname()) {
				t.Fatalf("%q keeps capitals in its host", uri)
			}
		}
	})
}
