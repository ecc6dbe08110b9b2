package policies

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/csr/csrtest"
)

// withRule is the plain profile, for more kinds of names, with one rule of its own.
func withRule(t testing.TB, expression string) *Set {
	t.Helper()
	return changed(t, "  dns: {}\n", "  dns: {wildcards: true}\n  ip: {reserved: true}\n  email: {}\n  uri: {schemes: [spiffe]}\n", "lint:",
		"rules:\n  - {id: own, expression: "+strconv.Quote(expression)+", message: The rule is broken., hint: Keep it., field: somewhere}\nlint:")
}

// asking is a request with names of every kind, from a person with groups and claims.
func asking(t testing.TB) Request {
	t.Helper()
	r := benign(t)
	r.Profile, r.Validity = "plain", 10*day
	r.Actor = access.Actor{
		ID: "a1", Name: "ann's laptop", Person: "ann", Namespace: "dev", Roles: []access.Role{access.Requester},
		Groups: []string{"web", "ops"}, Attributes: map[string][]string{"team": {"shop"}},
	}
	b := csrtest.Base()
	b.Subject = csrtest.CN("Host.dev.example")
	b.DNS = []string{"HOST.dev.example", "*.dev.example"}
	b.IP = []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	b.Email = []string{"ann@dev.example"}
	b.URI = []string{"spiffe://dev.example/shop"}
	r.CSR = parseCSR(t, b)
	return r
}

func TestExpressions(t *testing.T) {
	r := asking(t)
	for expression, want := range map[string]bool{
		`true`: true,
		`cert.dns == ["host.dev.example", "*.dev.example"]`:                                     true,
		`csr.dns.exists(n, n.isWildcard())`:                                                     true,
		`cert.names.size() == 5 && cert.names.all(n, n != "")`:                                  true,
		`cert.common_name == "host.dev.example" && csr.common_name == "Host.dev.example"`:       true,
		`csr.subject.commonName == "Host.dev.example"`:                                          true,
		`has(csr.subject.organizationName)`:                                                     false,
		`cert.ip == ["127.0.0.1"] && cert.email == ["ann@dev.example"]`:                         true,
		`cert.key.algorithm == "ECDSA" && cert.key.curve == "P-256" && cert.key.bits == 256`:    true,
		`csr.key.sha256.size() == 64`:                                                           true,
		`cert.key_usage == ["digitalSignature"] && cert.ext_key_usage == ["serverAuth"]`:        true,
		`cert.validity == duration("240h") && csr.validity == cert.validity`:                    true,
		`cert.not_after - cert.not_before < duration("240h")`:                                   true,
		`cert.not_before < now && now < cert.not_after`:                                         true,
		`cert.issuer == "issuing-1"`:                                                            true,
		`requester.namespace == "dev" && requester.person == "ann" && requester.id == "a1"`:     true,
		`requester.name.startsWith("ann")`:                                                      true,
		`"requester" in requester.roles`:                                                        true,
		`sets.intersects(requester.groups, ["ops", "board"])`:                                   true,
		`"shop" in requester.attributes["team"]`:                                                true,
		`requester.attributes.team == ["shop"]`:                                                 true,
		`"mail" in requester.attributes`:                                                        false,
		`profile.name == "plain" && !profile.restricted && profile.names_max == 100`:            true,
		`now.getFullYear() == 2026 && now.getHours() == 12`:                                     true,
		`cert.dns.all(n, n.isUnder("dev.example"))`:                                             true,
		`cert.dns.all(n, n.isUnder("v.example"))`:                                               false,
		`["", ".", "..", "*", "*."].exists(d, cert.dns[0].isUnder(d))`:                          false,
		`cert.uri.all(u, u.host().isUnder("dev.example"))`:                                      true,
		`cert.email.all(m, m.host() == "dev.example")`:                                          true,
		`cert.ip.all(a, a.inCIDR("127.0.0.0/8")) && cert.ip.all(a, a.isReservedIP())`:           true,
		`cert.ip.all(a, a.inCIDR("::1/128"))`:                                                   false,
		`cert.dns[0].labels() == ["host", "dev", "example"] && "".labels() == []`:               true,
		`"a.b.co.uk".registrableDomain() == "b.co.uk" && "a.b.co.uk".publicSuffix() == "co.uk"`: true,
		`"co.uk".registrableDomain() == ""`:                                                     true,
		`"www.example.com".isPublicName() && !"www.corp".isPublicName()`:                        true,
		`"serverAuth".oid() == "1.3.6.1.5.5.7.3.1" && "1.2.3".oid() == "1.2.3"`:                 true,
		`"1.3.6.1.4.1.311.20.2".isOIDUnder("1.3.6.1.4.1.311")`:                                  true,
		`!"1.3.6.1.4.1.3110".isOIDUnder("1.3.6.1.4.1.311")`:                                     true,
		`cert.dns.all(n, n.matches("^[*a-z.]+$"))`:                                              true,
		`csr.signature_algorithm != "" && csr.extensions.size() == 0`:                           true,
	} {
		d := withRule(t, expression).Decide(r)
		result := resultOf(t, d, "rules.own")
		if (d.Verdict() == Allow) != want || (result.Verdict == Allow) != want {
			t.Errorf("%s: the decision is %s: %v", expression, d.Verdict(), d.Violations())
		}
		if !want && !reflect.DeepEqual(result.Violations, []Violation{{"rules.own", "somewhere", "The rule is broken.", "Keep it.", false}}) {
			t.Errorf("%s: %+v", expression, result.Violations)
		}
	}
}

func TestExpressionsShowWhatTheySaw(t *testing.T) {
	r := asking(t)
	for expression, want := range map[string]string{
		`cert.dns.all(n, n.isUnder("dev.example")) && size(cert.dns) < 3`: `cert.dns = ["host.dev.example", "*.dev.example"]`,
		`"ops" in requester.groups && cert.key.bits >= 256`:               `requester.groups = ["web", "ops"], cert.key.bits = 256`,
		`now < cert.not_after`:               `now = 2026-11-23T12:30:15Z, cert.not_after = 2026-12-03T12:25:14Z`,
		`cert.validity <= duration("720h")`:  `cert.validity = 10d`,
		`requester.attributes.mail == ["a"]`: `requester.attributes.mail = cannot be told`,
		`"team" in requester.attributes`:     `requester.attributes = {"team"}`,
		`true`:                               ``,
	} {
		if got := resultOf(t, withRule(t, expression).Decide(r), "rules.own").Seen; got != want {
			t.Errorf("%s: saw %s, want %s", expression, got, want)
		}
	}
}

// TestExpressionThatCannotBeToldRefuses holds that errors at evaluation are never taken for consent, whatever the effect.
func TestExpressionThatCannotBeToldRefuses(t *testing.T) {
	r := asking(t)
	for _, expression := range []string{
		`requester.attributes["absent"] == ["x"]`, `requester.attributes["absent"] != ["x"]`, `cert.dns[7] == "a"`,
		`cert.common_name.inCIDR("10.0.0.0/8")`, `!cert.common_name.inCIDR("10.0.0.0/8")`, `1 / (cert.dns.size() - 2) == 0`, `timestamp(cert.common_name) < now`,
	} {
		d := withRule(t, expression).Decide(r)
		if v := d.Violations(); d.Verdict() != Refuse || len(v) != 1 || !strings.Contains(v[0].Message, "could not be evaluated") {
			t.Errorf("%s: %s, %v", expression, d.Verdict(), v)
		}
	}
	approving := changed(t, "lint:", "approval: {count: 1, when: rules}\nrules:\n  - {id: own, effect: approve, message: m, hint: h, expression: 'requester.attributes.absent == [\"x\"]'}\nlint:")
	if d := approving.Decide(onlyDNS(t, r)); d.Verdict() != Refuse {
		t.Errorf("a rule that cannot be told asks for approval: %s", d.Verdict())
	}
}

// onlyDNS is the request with DNS names alone, which every profile of the tests has.
func onlyDNS(t testing.TB, r Request) Request {
	r.CSR = parseCSR(t, csrtest.Base())
	return r
}

func TestExpressionAsksForApproval(t *testing.T) {
	set := changed(t, "lint:", `approval: {count: 1, when: rules}
rules:
  - id: long
    expression: cert.validity <= duration("240h")
    message: More than ten days need approval.
    hint: Ask for ten days.
    effect: approve
lint:`)
	r := benign(t)
	r.Profile, r.Validity = "plain", 10*day
	if d := set.Decide(r); d.Verdict() != Allow {
		t.Errorf("ten days: %s, %v", d.Verdict(), d.Violations())
	}
	r.Validity = 11 * day
	d := set.Decide(r)
	_, err := d.Grant()
	var needed *ApprovalNeeded
	if d.Verdict() != NeedsApproval || !errors.As(err, &needed) || needed.Reasons[0].Rule != "rules.long" || needed.Error() == "" {
		t.Errorf("eleven days: %s, %v", d.Verdict(), err)
	}
	if g, err := d.Grant(Approval{Person: "bob", At: now, Binding: needed.Binding}); err != nil || !g.Valid() {
		t.Errorf("approved: %v", err)
	}
}

// TestExpressionsWaitForWhatBoundsThem holds that nothing unbounded is looked at by an expression.
func TestExpressionsWaitForWhatBoundsThem(t *testing.T) {
	set := withRule(t, `cert.dns.all(n, n.isUnder("dev.example"))`)
	for name, names := range map[string][]string{"too many": many(101), "broken": {"a..dev.example"}} {
		r := asking(t)
		with(func(b *csrtest.Builder) { b.Subject, b.DNS = nil, names })(t, &r)
		if got := resultOf(t, set.Decide(r), "rules.own"); got.Verdict != NotReached || got.Seen != "" {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// TestLoadRefusesExpressions is one bad rule each, with the field, the line and the words with which it must be refused.
func TestLoadRefusesExpressions(t *testing.T) {
	long := strings.Repeat("a", maxExpression+1)
	for _, c := range []struct {
		name, rule, field string
		line              int
		words             string
	}{
		{"not CEL", `{id: a, message: m, hint: h, expression: "cert.dns.all(n,"}`, "expression", 15, "Syntax error"},
		{"in the middle of a text", "id: a\n    message: m\n    hint: h\n    expression: |\n      cert.dns.size() > 0\n      && cert.dnz.size() < 3\n", "expression", 20, "undefined field 'dnz'"},
		{"unknown variable", `{id: a, message: m, hint: h, expression: "request.dns == []"}`, "expression", 15, "undeclared reference to 'request'"},
		{"unknown function", `{id: a, message: m, hint: h, expression: "cert.dns.every(n, true)"}`, "expression", 15, "undeclared reference"},
		{"a number", `{id: a, message: m, hint: h, expression: "cert.key.bits"}`, "expression", 15, "of type int"},
		{"a text", `{id: a, message: m, hint: h, expression: "cert.common_name"}`, "expression", 15, "of type string"},
		{"unlike compared", `{id: a, message: m, hint: h, expression: "cert.key.bits == '2048'"}`, "expression", 15, "no matching overload"},
		{"list and text", `{id: a, message: m, hint: h, expression: "cert.dns == 'a'"}`, "expression", 15, "no matching overload"},
		{"bad pattern", `{id: a, message: m, hint: h, expression: "cert.common_name.matches('(')"}`, "expression", 15, "invalid matches argument"},
		{"backtracking pattern", `{id: a, message: m, hint: h, expression: "cert.common_name.matches('(a)\\\\1')"}`, "expression", 15, "invalid"},
		{"huge pattern", `{id: a, message: m, hint: h, expression: "cert.common_name.matches('(a{500}){2}')"}`, "expression", 15, "program size"},
		{"bad duration", `{id: a, message: m, hint: h, expression: "cert.validity < duration('90d')"}`, "expression", 15, "invalid duration"},
		{"bad CIDR", `{id: a, message: m, hint: h, expression: "cert.ip.all(a, a.inCIDR('10.0.0.1/8'))"}`, "expression", 15, "not a CIDR"},
		{"bad domain", `{id: a, message: m, hint: h, expression: "cert.dns.all(n, n.isUnder('Dev.example'))"}`, "expression", 15, "not a domain name"},
		{"bad arc", `{id: a, message: m, hint: h, expression: "cert.policies.all(p, p.isOIDUnder('1.x'))"}`, "expression", 15, "neither"},
		{"runaway", `{id: a, message: m, hint: h, expression: "cert.names.all(a, cert.names.all(b, a.contains(b)))"}`, "expression", 15, "may cost"},
		{"three loops", `{id: a, message: m, hint: h, expression: "cert.ip.all(a, cert.ip.all(b, cert.ip.all(c, a == b || b == c)))"}`, "expression", 15, "nesting"},
		{"bomb of text", `{id: a, message: m, hint: h, expression: "cert.uri.map(a, a + a + a + a).map(b, b + b + b + b).map(c, c + c + c + c).all(d, d.contains(\"x\"))"}`, "expression", 15, "nesting"},
		{"too long", `{id: a, message: m, hint: h, expression: "'` + long + `' == ''"}`, "expression", 15, "size exceeds limit"},
		{"deep", `{id: a, message: m, hint: h, expression: "` + strings.Repeat("(", 300) + "true" + strings.Repeat(")", 300) + `"}`, "expression", 15, "recursion"},
		{"empty", `{id: a, message: m, hint: h, expression: " "}`, "expression", 15, "no expression"},
		{"absent", `{id: a, message: m, hint: h}`, "expression", 15, "no expression"},
		{"without message", `{id: a, hint: h, expression: "true"}`, "message", 15, "needed"},
		{"without hint", `{id: a, message: m, expression: "true"}`, "hint", 15, "needed"},
		{"without a name", `{message: m, hint: h, expression: "true"}`, "id", 15, "not a name"},
		{"that nothing satisfies", `{id: a, message: m, hint: h, expression: "profile.name == 'other' && cert.dns.size() > 0"}`, "expression", 15, "no request can satisfy"},
		{"bad effect", `{id: a, message: m, hint: h, expression: "true", effect: warn}`, "effect", 15, "not an effect"},
		{"approval by nobody", `{id: a, message: m, hint: h, expression: "true", effect: approve}`, "effect", 15, "by how many"},
	} {
		t.Run(c.name, func(t *testing.T) {
			content := strings.Replace(plain, "lint:", "rules:\n  - "+c.rule+"\nlint:", 1)
			_, err := Load(file("plain.yaml", content))
			var failed *LoadError
			if !errors.As(err, &failed) {
				t.Fatalf("got %v", err)
			}
			for _, p := range failed.Problems {
				if p.Field == "rules[0]."+c.field && p.Line == c.line && strings.Contains(p.Message, c.words) {
					return
				}
			}
			t.Fatalf("no problem at %s, line %d, saying %q in\n%v", c.field, c.line, c.words, err)
		})
	}
	twice := "rules:\n  - &a {id: a, message: m, hint: h, expression: 'true'}\n"
	for name, text := range map[string]string{
		"a name twice":   strings.ReplaceAll(twice, "&a ", "") + "  - {id: a, message: m, hint: h, expression: 'true'}\n",
		"too many":       "rules:\n" + strings.Repeat("  - {id: a, message: m, hint: h, expression: 'true'}\n", maxRules+1),
		"an anchor":      twice,
		"approval alone": "approval: {count: 1, when: rules}\n",
	} {
		if _, err := Load(file("plain.yaml", strings.Replace(plain, "lint:", text+"lint:", 1))); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestRulesTogetherAreBounded holds that many expressions, each cheap enough, are refused when all of them are not.
func TestRulesTogetherAreBounded(t *testing.T) {
	var b strings.Builder
	for i := range maxRules {
		fmt.Fprintf(&b, "  - {id: r%d, message: m, hint: h, expression: 'csr.dns.all(a, csr.dns.all(b, a.size() < 10 + b.size()))'}\n", i)
	}
	_, err := Load(file("plain.yaml", strings.Replace(plain, "lint:", "rules:\n"+b.String()+"lint:", 1)))
	if err == nil || !strings.Contains(err.Error(), "all rules together") {
		t.Errorf("got %v", err)
	}
}

// TestWorstExpressionIsQuick holds that the most costly expression which is accepted, with the largest request, cannot stall issuance.
func TestWorstExpressionIsQuick(t *testing.T) {
	set := changed(t, "lint:", `rules:
  - {id: own, message: m, hint: h, expression: 'cert.dns.all(a, cert.dns.all(b, a.size() + b.size() > 0))'}
lint:`)
	r := benign(t)
	r.Profile = "plain"
	with(func(b *csrtest.Builder) { b.Subject, b.DNS = nil, many(100) })(t, &r)
	began := time.Now()
	d := set.Decide(r)
	if took := time.Since(began); d.Verdict() != Allow || took > 10*time.Second {
		t.Errorf("%s after %s: %v", d.Verdict(), took, d.Violations())
	}
}

// TestCostIsCountedAtEvaluation holds that claims larger than was expected end an expression, which refuses.
func TestCostIsCountedAtEvaluation(t *testing.T) {
	set := withRule(t, `requester.groups.all(g, g != "x")`)
	r := asking(t)
	if d := set.Decide(r); d.Verdict() != Allow {
		t.Fatalf("two groups: %v", d.Violations())
	}
	for i := range 100_000 {
		r.Actor.Groups = append(r.Actor.Groups, strconv.Itoa(i))
	}
	v := set.Decide(r).Violations()
	if len(v) != 1 || !strings.Contains(v[0].Message, "cost") {
		t.Errorf("got %v", v)
	}
}

func TestOwnRulesStandBeforeTheSignature(t *testing.T) {
	set := withRule(t, `true`)
	p, _ := set.Profile("plain")
	ids := make([]string, len(p.rules))
	for i, r := range p.rules {
		ids[i] = r.id
	}
	if n := len(ids); n != len(rules)+1 || ids[n-1] != "signature.proof" || ids[n-2] != "rules.own" || slices.Contains(ids[:n-2], "rules.own") {
		t.Errorf("asked are %v", ids)
	}
}
