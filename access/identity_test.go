package access

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var robot = Rule{
	Name: "robots", Means: ByCertificate, Match: map[string][]string{"uri": {"spiffe://example/ci/*"}, "issuer": {"issuing-1"}},
	Namespace: "web", Roles: []Role{Requester}, Person: "${uri}",
}

func certificateOf(facts map[string][]string) Evidence {
	return Evidence{Means: ByCertificate, Subject: "issuing-1/1c", Name: "ci", Facts: facts}
}

func TestIdentify(t *testing.T) {
	facts := map[string][]string{"uri": {"spiffe://example/ci/7"}, "issuer": {"issuing-1"}, "namespace": {"db"}, "ou": {"a", "b"}, "cn": {"*"}}
	change := func(f func(*Rule)) Rule { r := robot; f(&r); return r }
	for _, c := range []struct {
		name  string
		rules Rules
		facts map[string][]string
		want  string // namespace and person; empty: nobody
	}{
		{"fits", Rules{robot}, facts, "web spiffe://example/ci/7"},
		{"no rules", nil, facts, ""},
		{"a rule that asks for nothing", Rules{change(func(r *Rule) { r.Match = nil })}, facts, ""},
		{"other means", Rules{change(func(r *Rule) { r.Means = ByOIDC })}, facts, ""},
		{"another issuer", Rules{robot}, map[string][]string{"uri": {"spiffe://example/ci/7"}, "issuer": {"corp"}}, ""},
		{"one fact is missing", Rules{robot}, map[string][]string{"uri": {"spiffe://example/ci/7"}}, ""},
		{"the star needs something", Rules{robot}, map[string][]string{"uri": {"spiffe://example/ci/"}, "issuer": {"issuing-1"}}, ""},
		{"only a prefix without a star", Rules{robot}, map[string][]string{"uri": {"spiffe://example/ci/7"}, "issuer": {"issuing-11"}}, ""},
		{"the first that fits", Rules{change(func(r *Rule) { r.Namespace = "db" }), robot}, facts, "db spiffe://example/ci/7"},
		{"namespace of a fact", Rules{change(func(r *Rule) { r.Namespace = "${namespace}" })}, facts, "db spiffe://example/ci/7"},
		{"all namespaces of a fact", Rules{change(func(r *Rule) { r.Namespace = "${cn}" })}, facts, ""},
		{"no fact for the namespace", Rules{change(func(r *Rule) { r.Namespace = "${email}" })}, facts, ""},
		{"no name of a namespace", Rules{change(func(r *Rule) { r.Namespace = "${uri}" })}, facts, ""},
		{"one of two persons", Rules{change(func(r *Rule) { r.Person = "${ou}" })}, facts, ""},
		{"no person named", Rules{change(func(r *Rule) { r.Person = "" })}, facts, "web certificate:issuing-1/1c"},
		{"an emergency that is none", Rules{change(func(r *Rule) { r.Emergency = true })}, facts, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			actor, ok := c.rules.Identify(certificateOf(c.facts))
			got := ""
			if ok {
				got = actor.Namespace + " " + actor.Person
			}
			if got != c.want || ok && (actor.ID != "certificate:issuing-1/1c" || !reflect.DeepEqual(actor.Roles, []Role{Requester})) {
				t.Errorf("got %+v, want %q", actor, c.want)
			}
		})
	}
}

func TestGlassIsBrokenByItsOwnRules(t *testing.T) {
	rules := Rules{
		{Name: "admin", Means: ByPeer, Match: map[string][]string{"uid": {"0"}}, Namespace: "*", Roles: []Role{Auditor}},
		{Name: "glass", Means: ByPeer, Match: map[string][]string{"uid": {"0"}}, Namespace: "*", Roles: Roles(), Emergency: true},
	}
	e := Evidence{Means: ByPeer, Subject: "0", Facts: map[string][]string{"uid": {"0"}}}
	if a, ok := rules.Identify(e); !ok || len(a.Roles) != 1 || a.Emergency != "" {
		t.Errorf("on an ordinary day: %+v", a)
	}
	e.Emergency = "the provider is down"
	if a, ok := rules.Identify(e); !ok || len(a.Roles) != len(Roles()) || a.Emergency != e.Emergency {
		t.Errorf("in an emergency: %+v", a)
	}
	if _, ok := rules[:1].Identify(e); ok {
		t.Error("an emergency let somebody in by an ordinary rule")
	}
}

// A user of the machine of whom nobody says which person it is may be one who has other credentials. Who comes by other means is vouched for.
func TestWhoIsUnnamed(t *testing.T) {
	local := Rule{Name: "admin", Means: ByPeer, Match: map[string][]string{"user": {"ada"}}, Namespace: "web", Roles: []Role{Requester}}
	for _, c := range []struct {
		means  Means
		person string
		want   bool
	}{
		{ByPeer, "", true},
		{ByPeer, "local:${user}", true}, // says no more
		{ByPeer, "${user}", false},
		{ByPeer, "ada.lovelace", false},
		{ByCertificate, "", false},
		{ByOIDC, "", false},
	} {
		r := local
		r.Means, r.Person = c.means, c.person
		a, ok := Rules{r}.Identify(Evidence{Means: c.means, Subject: "ada", Facts: map[string][]string{"user": {"ada"}}})
		if !ok || a.Unnamed() != c.want {
			t.Errorf("by %s as %q: %+v is unnamed: %v", c.means, c.person, a, a.Unnamed())
		}
	}
	if !(Actor{ID: "token-1"}).Unnamed() || (Actor{ID: "token-1", Person: "ada"}).Unnamed() {
		t.Error("whether a token's holder is unnamed is its person's matter")
	}
}

func TestValidateRule(t *testing.T) {
	if err := robot.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Rule){
		"no name":              func(r *Rule) { r.Name = "" },
		"no means":             func(r *Rule) { r.Means = "" },
		"matches everybody":    func(r *Rule) { r.Match = nil },
		"unknown fact":         func(r *Rule) { r.Match = map[string][]string{"subject": {"x"}} },
		"no pattern":           func(r *Rule) { r.Match = map[string][]string{"uri": nil} },
		"empty pattern":        func(r *Rule) { r.Match = map[string][]string{"uri": {""}} },
		"two stars":            func(r *Rule) { r.Match = map[string][]string{"uri": {"*x*"}} },
		"no namespace":         func(r *Rule) { r.Namespace = "" },
		"namespace's name":     func(r *Rule) { r.Namespace = "Web Team" },
		"unknown fact filled":  func(r *Rule) { r.Person = "${sub}" },
		"unclosed":             func(r *Rule) { r.Person = "${uri" },
		"no roles":             func(r *Rule) { r.Roles = nil },
		"unknown role":         func(r *Rule) { r.Roles = []Role{"emperor"} },
		"roles held apart":     func(r *Rule) { r.Roles = []Role{Operator, Approver} },
		"emergency from afar":  func(r *Rule) { r.Emergency = true },
		"writer and requester": func(r *Rule) { r.Roles = []Role{PolicyAdmin, Requester} },
	} {
		r := robot
		spoil(&r)
		if r.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// Whatever the facts are, a rule that does not say "*" reaches no more than one namespace, and its roles are the rule's.
func TestFactsNeverWiden(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		facts := rapid.MapOf(rapid.SampledFrom([]string{"uri", "cn", "o", "namespace"}), rapid.SliceOfN(rapid.OneOf(
			rapid.SampledFrom([]string{"*", "", "web", "${cn}", "a*", "spiffe://example/ci/1"}), rapid.String()), 0, 3)).Draw(t, "facts")
		rule := Rule{
			Name: "r", Means: ByCertificate, Match: map[string][]string{"uri": {"*"}},
			Namespace: rapid.SampledFrom([]string{"${cn}", "${namespace}", "web"}).Draw(t, "ns"),
			Roles:     []Role{Requester}, Person: "${cn}",
		}
		a, ok := Rules{rule}.Identify(certificateOf(facts))
		if !ok {
			return
		}
		if !isToken(a.Namespace) || len(a.Roles) != 1 || a.Person == "" || len(facts["cn"]) != 1 {
			t.Fatalf("%v became %+v", facts, a)
		}
	})
}

func TestDuties(t *testing.T) {
	for _, c := range []struct {
		roles []Role
		ok    bool
	}{
		{[]Role{Requester, Approver, Auditor}, true},
		{[]Role{Operator, Auditor, Revoker}, true},
		{[]Role{PolicyAdmin, Auditor}, true},
		{[]Role{Operator, Approver}, false},
		{[]Role{Requester, PolicyAdmin}, false},
		{[]Role{PolicyAdmin, Operator}, false},
	} {
		if err := CheckDuties(c.roles); (err == nil) != c.ok {
			t.Errorf("%v: %v", c.roles, err)
		}
	}
	for _, r := range Roles() {
		if err := CheckGrant([]Role{Requester, r}); (err == nil) != (r != Approver && r != PolicyAdmin) {
			t.Errorf("granting %s: %v", r, err)
		}
	}
}

func TestScope(t *testing.T) {
	actor := Actor{ID: "a", Namespace: "web", Roles: []Role{Requester}, Scope: Scope{
		Profiles: []string{"tls-server"}, Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")},
	}}
	ask := func(profile string) error {
		return Authorize(actor, IssueCertificate, Resource{Namespace: "web", Kind: "certificate", Profile: profile})
	}
	if ask("tls-server") != nil || ask("code-signing") == nil {
		t.Error("the scope's profiles do not bind")
	}
	for from, want := range map[string]bool{"10.1.2.3": true, "::ffff:10.1.2.3": true, "11.0.0.1": false, "2001:db8::1": true, "::1": false} {
		if got := actor.Scope.MayComeFrom(netip.MustParseAddr(from)); got != want {
			t.Errorf("from %s: %v", from, got)
		}
	}
	if actor.Scope.MayComeFrom(netip.Addr{}) || !(Scope{}).MayComeFrom(netip.Addr{}) {
		t.Error("an unknown address")
	}
}

func FuzzIdentify(f *testing.F) {
	f.Add("a*b", "axb", "${cn}", "web")
	f.Fuzz(func(t *testing.T, pattern, value, template, cn string) {
		r := Rule{Name: "r", Means: ByCertificate, Match: map[string][]string{"uri": {pattern}}, Namespace: template, Roles: []Role{Requester}}
		if r.Validate() != nil {
			return
		}
		a, ok := Rules{r}.Identify(certificateOf(map[string][]string{"uri": {value}, "cn": {cn}}))
		if ok && (a.Namespace == AllNamespaces) != (template == AllNamespaces) {
			t.Fatalf("%q became %q", template, a.Namespace)
		}
		if ok && strings.Count(pattern, "*") == 0 && pattern != value {
			t.Fatalf("%q fits %q", value, pattern)
		}
	})
}
