package policies

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/csr/csrtest"
)

const subtrees = `  min: 1
  dns: {wildcards: true}
  ip: {reserved: true}
  email: {}
  uri: {schemes: [spiffe]}
  permitted:
    dns: [team.example, .edge.example]
    ip: [127.0.0.0/8, "::1/128"]
    email: [team.example, boss@other.example]
    uri: [.team.example]
  excluded:
    dns: [secret.team.example, .below.team.example]
    ip: [127.0.1.0/24]
    email: [root@team.example]
    uri: [bad.team.example]
`

func TestSubtrees(t *testing.T) {
	set := changed(t, "  min: 1\n  dns: {}\n", subtrees)
	base := benign(t)
	base.Profile = "plain"
	base.Namespace.DNS, base.Namespace.Email, base.Namespace.URI = []string{"*"}, []string{"*"}, []string{"*"}
	for kind, names := range map[string]map[string]bool{
		"dns": {
			"team.example": true, "a.team.example": true, "*.team.example": false, "*.b.team.example": true, "edge.example": false,
			"a.edge.example": true, "example": false, "ateam.example": false, "secret.team.example": false, "a.secret.team.example": false,
			"below.team.example": true, "a.below.team.example": false, "*.below.team.example": false, "*.a.below.team.example": false,
			"*.xbelow.team.example": true,
		},
		"ip":    {"127.0.0.1": true, "::1": true, "127.0.1.1": false, "128.0.0.1": false, "fd00::2": false},
		"email": {"a@team.example": true, "boss@other.example": true, "a@other.example": false, "root@team.example": false, "a@x.team.example": false},
		"uri":   {"spiffe://a.team.example/x": true, "spiffe://team.example/x": false, "spiffe://bad.team.example/x": false, "spiffe://127.0.0.1/x": false},
	} {
		for name, want := range names {
			r := base
			r.Namespace.IP = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
			with(func(b *csrtest.Builder) {
				b.Subject, b.DNS = nil, nil
				switch kind {
				case "dns":
					b.DNS = []string{name}
				case "ip":
					b.IP = []netip.Addr{netip.MustParseAddr(name)}
				case "email":
					b.Email = []string{name}
				case "uri":
					b.URI = []string{name}
				}
			})(t, &r)
			d := set.Decide(r)
			if got := refusing(d); want != (len(got) == 0) || !want && !slices.Equal(got, []string{"names.subtrees"}) {
				t.Errorf("%s: refused by %v", name, got)
			}
			if v := d.Violations(); !want && (v[0].Field != "subjectAltName."+kind+"[0]" || v[0].Hint == "") {
				t.Errorf("%s: %+v", name, v)
			}
		}
	}
}

func TestLoadRefusesSubtrees(t *testing.T) {
	for name, c := range map[string]struct{ old, new, field, words string }{
		"wildcard":            {"team.example, .edge", "'*.team.example', .edge", "names.permitted.dns[0]", "wildcard"},
		"upper case":          {"[team.example, .edge.example]", "[Team.example]", "names.permitted.dns[0]", "character"},
		"host bits":           {"127.0.0.0/8,", "127.0.0.1/8,", "names.permitted.ip[0]", "not a CIDR"},
		"address":             {"127.0.0.0/8,", "127.0.0.1,", "names.permitted.ip[0]", "not a CIDR"},
		"mailbox":             {"boss@other.example", "boss@Other.example", "names.permitted.email[1]", "lower case"},
		"twice":               {"team.example, .edge.example", "team.example, team.example", "names.permitted.dns[1]", "second time"},
		"type not allowed":    {"  email: {}\n", "", "names.permitted.email", "does not allow"},
		"excluded whole":      {"[secret.team.example, .below.team.example]", "[example]", "names.permitted.dns[0]", "excluded as a whole"},
		"addresses excluded":  {"127.0.1.0/24", "0.0.0.0/0", "names.permitted.ip[0]", "excluded as a whole"},
		"hosts excluded":      {"[bad.team.example]", "[.team.example]", "names.permitted.uri[0]", "excluded as a whole"},
		"mailboxes excluded":  {"[root@team.example]", "[team.example]", "names.permitted.email[0]", "excluded as a whole"},
		"a URI for a host":    {"[.team.example]", "['spiffe://team.example']", "names.permitted.uri[0]", "URL"},
		"an excluded URI too": {"[bad.team.example]", "['spiffe://team.example']", "names.excluded.uri[0]", "URL"},
	} {
		content := strings.Replace(plain, "  min: 1\n  dns: {}\n", subtrees, 1)
		if !strings.Contains(content, c.old) {
			t.Fatalf("%s: nothing to change", name)
		}
		_, err := Load(file("plain.yaml", strings.Replace(content, c.old, c.new, 1)))
		var failed *LoadError
		if !errors.As(err, &failed) || !slices.ContainsFunc(failed.Problems, func(p Problem) bool {
			return p.Field == c.field && p.Line > 11 && strings.Contains(p.Message, c.words)
		}) {
			t.Errorf("%s: no problem at %s saying %q in\n%v", name, c.field, c.words, err)
		}
	}
}
