package access

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestOwns(t *testing.T) {
	n := Namespace{
		Name: "dev", DNS: []string{"dev.example", "localhost"}, Email: []string{"dev.example"},
		IP:       []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
		URI:      []string{"spiffe://dev.example", "https://api.example/dev/"},
		Subjects: []string{"Dev Example"},
	}
	ip := func(s string) bool { return n.OwnsIP(netip.MustParseAddr(s)) }
	for _, c := range []struct {
		what string
		got  bool
		want bool
	}{
		{"itself", n.OwnsDNS("dev.example"), true},
		{"under it", n.OwnsDNS("a.b.dev.example"), true},
		{"in capitals", n.OwnsDNS("A.DEV.Example"), true},
		{"wildcard", n.OwnsDNS("*.dev.example"), true},
		{"wildcard above", n.OwnsDNS("*.example"), false},
		{"no label boundary", n.OwnsDNS("xdev.example"), false},
		{"as a prefix", n.OwnsDNS("dev.example.com"), false},
		{"parent", n.OwnsDNS("example"), false},
		{"empty", n.OwnsDNS(""), false},
		{"bare wildcard", n.OwnsDNS("*."), false},
		{"trailing dot", n.OwnsDNS("dev.example."), false},
		{"empty label", n.OwnsDNS("a..dev.example"), false},
		{"leading dot", n.OwnsDNS(".dev.example"), false},
		{"single label", n.OwnsDNS("localhost"), true},
		{"loopback", ip("127.0.0.1"), true},
		{"loopback 6", ip("::1"), true},
		{"other", ip("10.0.0.1"), false},
		{"mapped", ip("::ffff:127.0.0.1"), false},
		{"no address", n.OwnsIP(netip.Addr{}), false},
		{"mail", n.OwnsEmail("Ann@DEV.example"), true},
		{"mail below", n.OwnsEmail("ann@x.dev.example"), false},
		{"mail, two at signs", n.OwnsEmail("a@dev.example@evil.example"), false},
		{"mail, no local part", n.OwnsEmail("@dev.example"), false},
		{"mail, no domain", n.OwnsEmail("ann@"), false},
		{"uri of an authority", n.OwnsURI("spiffe://dev.example/a/b"), true},
		{"the authority", n.OwnsURI("spiffe://DEV.example"), true},
		{"authority as a prefix", n.OwnsURI("spiffe://dev.example.evil/a"), false},
		{"authority with a user", n.OwnsURI("spiffe://dev.example@evil/a"), false},
		{"authority with a port", n.OwnsURI("spiffe://dev.example:443/a"), false},
		{"uri under a path", n.OwnsURI("https://api.example/dev/x"), true},
		{"uri beside the path", n.OwnsURI("https://api.example/device"), false},
		{"uri that climbs", n.OwnsURI("https://api.example/dev/../ops"), false},
		{"uri that climbs in code", n.OwnsURI("https://api.example/dev/%2e%2E/ops"), false},
		{"uri with backslash", n.OwnsURI(`https://api.example/dev/%5c../ops`), false},
		{"no uri", n.OwnsURI("dev.example"), false},
		{"organisation", n.OwnsOrganisation("Dev Example"), true},
		{"organisation in capitals", n.OwnsOrganisation("DEV EXAMPLE"), false},
		{"no organisation", n.OwnsOrganisation(""), false},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %v, want %v", c.what, c.got, c.want)
		}
	}
	if all := (Namespace{DNS: []string{"*"}}); !all.OwnsDNS("any.thing") || all.OwnsDNS("") {
		t.Error("\"*\" owns every name, and the empty name is none")
	}
	var none Namespace
	if none.OwnsDNS("a.example") || none.OwnsIP(netip.IPv6Loopback()) || none.OwnsEmail("a@b") || none.OwnsURI("a://b/") ||
		none.OwnsOrganisation("A") {
		t.Error("the zero namespace owns something")
	}
}

func TestMayUse(t *testing.T) {
	some := Namespace{Profiles: []string{"tls-server"}}
	if !some.MayUse("tls-server") || some.MayUse("tls-client") || !some.Lists("tls-server") {
		t.Error("a list of profiles must bind")
	}
	if none := (Namespace{}); !none.MayUse("tls-client") || none.Lists("tls-client") {
		t.Error("without a list every profile may be used and none is listed")
	}
}

func TestValidate(t *testing.T) {
	good := Namespace{
		Name: "team-1", DNS: []string{"*", "a.example", "localhost", "_x.example"}, IP: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		Email: []string{"a.example"}, URI: []string{"spiffe://a.example", "https://a.example/x/"}, Subjects: []string{"Müller & Söhne"},
		Profiles: []string{"tls-server"},
		Quotas:   []Quota{{Certificates: 0, Per: time.Hour}, {Profile: "tls-server", Certificates: 5, Per: time.Hour}},
		Rates:    []Rate{{Requests: 1, Per: time.Second}, {Requests: 100, Per: time.Hour}},
	}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]Namespace{
		"no name":            {},
		"name in capitals":   {Name: "Team"},
		"dns in capitals":    {Name: "t", DNS: []string{"A.example"}},
		"dns trailing dot":   {Name: "t", DNS: []string{"a.example."}},
		"dns leading dot":    {Name: "t", DNS: []string{".a.example"}},
		"dns wildcard":       {Name: "t", DNS: []string{"*.a.example"}},
		"dns empty":          {Name: "t", DNS: []string{""}},
		"dns too long":       {Name: "t", DNS: []string{strings.Repeat("a.", 127)}},
		"dns long label":     {Name: "t", DNS: []string{strings.Repeat("a", 64)}},
		"ip host bits":       {Name: "t", IP: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}},
		"ip zero":            {Name: "t", IP: []netip.Prefix{{}}},
		"email mailbox":      {Name: "t", Email: []string{"a@b.example"}},
		"uri half a segment": {Name: "t", URI: []string{"https://a.example/x"}},
		"uri no authority":   {Name: "t", URI: []string{"urn:x/"}},
		"uri user":           {Name: "t", URI: []string{"https://u@a.example/"}},
		"uri query":          {Name: "t", URI: []string{"https://a.example/?x"}},
		"uri capitals":       {Name: "t", URI: []string{"https://A.example/"}},
		"uri climbing":       {Name: "t", URI: []string{"https://a.example/../"}},
		"subject empty":      {Name: "t", Subjects: []string{""}},
		"subject control":    {Name: "t", Subjects: []string{"a\x00b"}},
		"profile":            {Name: "t", Profiles: []string{"TLS Server"}},
		"quota profile":      {Name: "t", Quotas: []Quota{{Profile: "TLS", Certificates: 1, Per: time.Hour}}},
		"quota negative":     {Name: "t", Quotas: []Quota{{Certificates: -1, Per: time.Hour}}},
		"quota without span": {Name: "t", Quotas: []Quota{{Certificates: 1}}},
		"quota long span":    {Name: "t", Quotas: []Quota{{Certificates: 1, Per: 367 * 24 * time.Hour}}},
		"quota twice":        {Name: "t", Quotas: []Quota{{Certificates: 1, Per: time.Hour}, {Certificates: 2, Per: time.Hour}}},
		"rate zero":          {Name: "t", Rates: []Rate{{Per: time.Hour}}},
		"rate of a fraction": {Name: "t", Rates: []Rate{{Requests: 1, Per: 1500 * time.Millisecond}}},
		"rate twice":         {Name: "t", Rates: []Rate{{Requests: 1, Per: time.Hour}, {Requests: 2, Per: time.Hour}}},
		"many rates":         {Name: "t", Rates: make([]Rate, 65)},
	} {
		if bad.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := (Namespace{DNS: []string{"A"}, Email: []string{"B"}}).Validate(); err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("want all three problems at once, got %v", err)
	}
}

// TestOwnershipIsMonotone holds that whoever owns a name owns every name under it, in any case, and nobody owns a name by a suffix
// that does not begin at a label.
func TestOwnershipIsMonotone(t *testing.T) {
	label := rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?`)
	rapid.Check(t, func(t *rapid.T) {
		owned := label.Draw(t, "second") + "." + label.Draw(t, "top")
		n := Namespace{Name: "t", DNS: []string{owned}, Email: []string{owned}, URI: []string{"spiffe://" + owned}}
		if err := n.Validate(); err != nil {
			t.Fatal(err)
		}
		below := label.Draw(t, "below") + "." + owned
		if !n.OwnsDNS(owned) || !n.OwnsDNS(strings.ToUpper(below)) || !n.OwnsDNS("*."+below) || !n.OwnsURI("spiffe://"+owned+"/"+label.Draw(t, "path")) {
			t.Fatalf("%q does not own what lies under it", owned)
		}
		beside := label.Draw(t, "beside") + owned
		if n.OwnsDNS(beside) || n.OwnsEmail("a@"+beside) || n.OwnsURI("spiffe://"+owned+label.Draw(t, "tail")) {
			t.Fatalf("%q owns %q", owned, beside)
		}
	})
}

// What is kept of a namespace is the whole of it.
func TestCanonical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOfN(rapid.StringMatching(`[a-zé<]{1,9}`), 1, 3)
		span := rapid.Map(rapid.IntRange(1, 1e6), func(n int) time.Duration { return time.Duration(n) * time.Second })
		n := Namespace{
			Name: rapid.StringMatching(`[a-z]{1,9}`).Draw(t, "name"), DNS: words.Draw(t, "dns"), Email: words.Draw(t, "email"), URI: words.Draw(t, "uri"),
			Subjects: words.Draw(t, "subjects"), Profiles: words.Draw(t, "profiles"),
			IP:     []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")},
			Quotas: []Quota{{"p", rapid.IntRange(0, 1e9).Draw(t, "certificates"), span.Draw(t, "quota")}},
			Rates:  []Rate{{"", rapid.IntRange(1, 1e9).Draw(t, "requests"), span.Draw(t, "rate")}},
		}
		again, err := ParseCanonical(n.Canonical())
		if err != nil || !reflect.DeepEqual(again, n) {
			t.Fatalf("%s became %+v, %v; want %+v", n.Canonical(), again, err, n)
		}
	})
	if _, err := ParseCanonical([]byte("{")); err == nil {
		t.Error("half a namespace was read")
	}
}

func FuzzNamespaceValidate(f *testing.F) {
	f.Add("team", "a.example", "https://a.example/x/", "https://a.example/x/y")
	f.Add("", "*", "spiffe://a", "spiffe://a/../b")
	f.Fuzz(func(t *testing.T, name, dns, prefix, uri string) {
		n := Namespace{Name: name, DNS: []string{dns}, Email: []string{dns}, URI: []string{prefix}}
		if n.Validate() != nil {
			return
		}
		if dns != everything && (!n.OwnsDNS(dns) || n.OwnsDNS("x"+dns)) {
			t.Fatalf("%q is valid but does not own itself alone", dns)
		}
		if n.OwnsURI(uri) && prefix != everything && !strings.HasPrefix(strings.ToLower(uri), strings.ToLower(strings.TrimSuffix(prefix, "/"))) {
			t.Fatalf("%q owns %q", prefix, uri)
		}
	})
}

// TestWithin: what gives less than another lies within it, and what gives anything more does not.
func TestWithin(t *testing.T) {
	whole := func() Namespace {
		return Namespace{
			Name: "t", DNS: []string{"a.example", "b.example"}, IP: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
			Email: []string{"a.example"}, URI: []string{"spiffe://a.example"}, Subjects: []string{"A", "B"}, Profiles: []string{"p", "q"},
			Quotas: []Quota{{Certificates: 5, Per: time.Hour}}, Rates: []Rate{{Requests: 5, Per: time.Hour}},
		}
	}
	for name, c := range map[string]struct {
		change func(n *Namespace)
		within bool
	}{
		"the same":              {func(*Namespace) {}, true},
		"fewer names":           {func(n *Namespace) { n.DNS, n.IP, n.Email, n.URI, n.Subjects = nil, nil, nil, nil, nil }, true},
		"a name under one":      {func(n *Namespace) { n.DNS = []string{"x.a.example"} }, true},
		"a prefix within":       {func(n *Namespace) { n.IP = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")} }, true},
		"fewer profiles":        {func(n *Namespace) { n.Profiles = []string{"p"} }, true},
		"a smaller quota":       {func(n *Namespace) { n.Quotas[0].Certificates = 1 }, true},
		"another quota as well": {func(n *Namespace) { n.Quotas = append(n.Quotas, Quota{Profile: "p", Per: time.Hour}) }, true},
		"another name":          {func(n *Namespace) { n.DNS = append(n.DNS, "c.example") }, false},
		"a name above":          {func(n *Namespace) { n.DNS = []string{"example"} }, false},
		"every name":            {func(n *Namespace) { n.DNS = []string{"*"} }, false},
		"a wider prefix":        {func(n *Namespace) { n.IP = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/7")} }, false},
		"another mail domain":   {func(n *Namespace) { n.Email = []string{"b.example"} }, false},
		"another trust domain":  {func(n *Namespace) { n.URI = []string{"spiffe://b.example"} }, false},
		"every organisation":    {func(n *Namespace) { n.Subjects = []string{"*"} }, false},
		"another profile":       {func(n *Namespace) { n.Profiles = append(n.Profiles, "r") }, false},
		"no list of profiles":   {func(n *Namespace) { n.Profiles = nil }, false},
		"a larger quota":        {func(n *Namespace) { n.Quotas[0].Certificates = 6 }, false},
		"no quota":              {func(n *Namespace) { n.Quotas = nil }, false},
		"no rate":               {func(n *Namespace) { n.Rates = nil }, false},
	} {
		n := whole()
		c.change(&n)
		if got := n.Within(whole()); got != c.within {
			t.Errorf("%s: %v", name, got)
		}
	}
	if none, some := (Namespace{}), (Namespace{Profiles: []string{"p"}}); none.Within(some) || some.Within(none) {
		t.Error("a list of profiles and none cannot be compared: a listed one may be one that must be")
	}
	if all := (Namespace{DNS: []string{"*"}}); !all.Within(all) || !(Namespace{DNS: []string{"a.example"}}).Within(all) {
		t.Error("all names hold all and any")
	}
}
