package analysis

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/chancery-ca/chancery/policies"
)

const team = `name: team
description: For tests.
keys:
  ecdsa: {curves: [P-256], key_usage: [digitalSignature]}
  rsa: {min: 3072, max: 4096, key_usage: [digitalSignature]}
ext_key_usage: [serverAuth]
validity: {default: 30d, max: 90d, backdate: 5m}
subject:
  attributes:
    - {type: commonName, presence: optional}
  common_name: copy-of-san
names:
  min: 1
  max: 10
  dns: {pattern: '[a-z.]+'}
  permitted: {dns: [team.example]}
  excluded: {dns: [secret.team.example]}
quota: {certificates: 10, per: 1d, of: namespace}
approval: {count: 2, groups: [board, security], when: rules}
rules:
  - {id: short, message: m, hint: h, expression: 'cert.validity <= duration("720h")', effect: approve}
  - {id: labels, message: m, hint: h, expression: 'cert.dns.all(n, n.labels().size() < 6)'}
lint:
  sources: [RFC5280, RFC5480]
`

// changed is a set of the profile team with parts replaced, in pairs of old and new.
func changed(t *testing.T, pairs ...string) *policies.Set {
	t.Helper()
	content := team
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(content, pairs[i]) {
			t.Fatalf("the profile does not hold %q", pairs[i])
		}
		content = strings.Replace(content, pairs[i], pairs[i+1], 1)
	}
	set, err := policies.Load(fstest.MapFS{"team.yaml": {Data: []byte(content)}})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestDiff(t *testing.T) {
	for _, c := range []struct {
		name, old, new string
		effect, back   Effect // of the change, and of its reverse
		field, words   string
	}{
		{"description", "For tests.", "For people.", EffectNeutral, EffectNeutral, "description", "For people"},
		{"restricted", "keys:", "restricted: true\nkeys:", EffectNarrower, EffectBroader, "restricted", "only namespaces that list it"},
		{"curve", "[P-256]", "[P-256, P-384]", EffectBroader, EffectNarrower, "keys", "ECDSA P-384 keys are new"},
		{"no RSA", "  rsa: {min: 3072, max: 4096, key_usage: [digitalSignature]}\n", "", EffectNarrower, EffectBroader, "keys", "RSA 3072-4096 keys are gone"},
		{"shorter RSA", "min: 3072", "min: 2048", EffectBroader, EffectNarrower, "keys.rsa.min", "2048 instead of 3072"},
		{"longer RSA", "max: 4096", "max: 8192", EffectBroader, EffectNarrower, "keys.rsa.max", "8192 instead of 4096"},
		{"key usage", "max: 4096, key_usage: [digitalSignature]", "max: 4096, key_usage: [digitalSignature, keyEncipherment]", EffectBroader, EffectNarrower, "keys", "keyEncipherment"},
		{"once", "  ecdsa:", "  once: true\n  ecdsa:", EffectNarrower, EffectBroader, "keys.once", "only once"},
		{"purpose", "[serverAuth]", "[serverAuth, clientAuth]", EffectBroader, EffectNarrower, "ext_key_usage", "clientAuth is new"},
		{"longest", "max: 90d", "max: 120d", EffectBroader, EffectNarrower, "validity", "the longest validity is 120d instead of 90d"},
		{"limit", "backdate: 5m", "backdate: 5m, limits: [{from: 2027-01-01, max: 60d}]", EffectNarrower, EffectBroader, "validity", "from 2027-01-01 on is 60d instead of 90d"},
		{"default", "default: 30d", "default: 20d", EffectNeutral, EffectNeutral, "validity.default", "20d instead of 30d"},
		{"attribute", "    - {type: commonName", "    - {type: title, presence: optional}\n    - {type: commonName", EffectBroader, EffectNarrower, "subject.title", "is new"},
		{"required", "presence: optional", "presence: required", EffectNarrower, EffectBroader, "subject.commonName", "required instead of optional"},
		{"characters", "presence: optional", "presence: optional, max: 20", EffectNarrower, EffectBroader, "subject.commonName", "20 instead of 64"},
		{"free", "copy-of-san", "free", EffectBroader, EffectNarrower, "subject.common_name", ""},
		{"dropped", "  common_name", "  drop: [title]\n  common_name", EffectBroader, EffectNarrower, "subject.drop", "title"},
		{"names", "max: 10\n", "max: 20\n", EffectBroader, EffectNarrower, "names.max", "20 instead of 10"},
		{"type", "  permitted:", "  ip: {}\n  permitted:", EffectBroader, EffectNarrower, "names", "ip is new"},
		{"wildcards", "dns: {pattern", "dns: {wildcards: true, pattern", EffectBroader, EffectNarrower, "names.dns.wildcards", "wildcards"},
		{"underscores", "dns: {pattern", "dns: {underscores: true, pattern", EffectBroader, EffectNarrower, "names.dns.underscores", "underscores"},
		{"another pattern", "'[a-z.]+'", "'[a-z0-9.]+'", EffectUnclear, EffectUnclear, "names.dns.pattern", "[a-z0-9.]+"},
		{"no pattern", "dns: {pattern: '[a-z.]+'}", "dns: {}", EffectBroader, EffectNarrower, "names.dns.pattern", "pattern"},
		{"a further tree", "permitted: {dns: [team.example]}", "permitted: {dns: [team.example, b.example]}", EffectBroader, EffectNarrower, "names.permitted.dns", "b.example"},
		{"a wider tree", "permitted: {dns: [team.example]}", "permitted: {dns: [example]}", EffectBroader, EffectNarrower, "names.permitted.dns", "example"},
		{"another tree", "permitted: {dns: [team.example]}", "permitted: {dns: [b.example]}", EffectUnclear, EffectUnclear, "names.permitted.dns", "b.example"},
		{"everything", "  permitted: {dns: [team.example]}\n", "", EffectBroader, EffectNarrower, "names.permitted.dns", "nothing in particular"},
		{"less excluded", "[secret.team.example]", "[a.secret.team.example]", EffectBroader, EffectNarrower, "names.excluded.dns", "a.secret"},
		{"nothing excluded", "  excluded: {dns: [secret.team.example]}\n", "", EffectBroader, EffectNarrower, "names.excluded.dns", "nothing in particular"},
		{"extension", "lint:", "drop: {extensions: [tlsFeature]}\nlint:", EffectBroader, EffectNarrower, "drop.extensions", "tlsFeature"},
		{"policy", "lint:", "certificate_policies: [1.2.3]\nlint:", EffectUnclear, EffectUnclear, "certificate_policies", "1.2.3"},
		{"fewer lints", "[RFC5280, RFC5480]", "[RFC5280]", EffectBroader, EffectNarrower, "lint.sources", "RFC5480"},
		{"exception", "RFC5480]", "RFC5480]\n  except: [{lint: w_a, reason: r}]", EffectBroader, EffectNarrower, "lint.except", "w_a"},
		{"standard", "keys:", "subject_key_id: true\nstandards: [rfc5280-strict]\nkeys:", EffectNarrower, EffectBroader, "standards", "rfc5280-strict"},
		{"rule gone", "  - {id: labels, message: m, hint: h, expression: 'cert.dns.all(n, n.labels().size() < 6)'}\n", "", EffectBroader, EffectNarrower, "rules.labels", "the rule is"},
		{"rule changed", "size() < 6", "size() < 7", EffectUnclear, EffectUnclear, "rules.labels", "the expression is"},
		{"rule respelt", "size() < 6", "size()<6", "", "", "", ""},
		{"rule weakened", "size() < 6)'", "size() < 6)', effect: approve", EffectBroader, EffectNarrower, "rules.labels", "approval"},
		{"rule said otherwise", "id: labels, message: m", "id: labels, message: n", EffectNeutral, EffectNeutral, "rules.labels", "message"},
		{"fewer approvals", "count: 2", "count: 1", EffectBroader, EffectNarrower, "approval.count", "1 instead of 2"},
		{"always", ", when: rules", "", EffectNarrower, EffectBroader, "approval.when", "only where a rule asks"},
		{"any approver", ", groups: [board, security]", "", EffectBroader, EffectNarrower, "approval.groups", "nothing in particular"},
		{"other approvers", "[board, security]", "[board]", EffectNarrower, EffectBroader, "approval.groups", "board instead of"},
		{"strangers", "[board, security]", "[board, all]", EffectUnclear, EffectUnclear, "approval.groups", "all"},
		{"higher quota", "certificates: 10", "certificates: 11", EffectBroader, EffectNarrower, "quota", "11 certificates"},
		{"other quota", "of: namespace", "of: requester", EffectUnclear, EffectUnclear, "quota", "requester"},
		{"no quota", "quota: {certificates: 10, per: 1d, of: namespace}\n", "", EffectBroader, EffectNarrower, "quota", "quota"},
	} {
		a, b := changed(t), changed(t, c.old, c.new)
		for _, direction := range []struct {
			from, to *policies.Set
			want     Effect
			words    string
		}{{a, b, c.effect, c.words}, {b, a, c.back, ""}} {
			changes := Diff(direction.from, direction.to)
			if c.field == "" {
				if len(changes) != 0 {
					t.Errorf("%s: got %v", c.name, changes)
				}
				continue
			}
			at := slices.IndexFunc(changes, func(d Change) bool { return d.Field == c.field })
			if at < 0 || len(changes) > 2 || changes[at].Effect != direction.want || changes[at].Profile != "team" || !strings.Contains(changes[at].Words, direction.words) {
				t.Errorf("%s: got %v, want %s at %s saying %q", c.name, changes, direction.want, c.field, direction.words)
			}
		}
	}
	if same := Diff(changed(t), changed(t)); same != nil {
		t.Errorf("a set differs from itself: %v", same)
	}
}

func TestDiffOfProfiles(t *testing.T) {
	shipped, err := policies.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range Diff(shipped, changed(t)) {
		want := EffectNarrower
		if c.Profile == "team" {
			want = EffectBroader
		}
		if c.Effect != want || c.Field != "name" {
			t.Errorf("got %s", c)
		}
	}
	if n := len(Diff(shipped, changed(t))); n != len(shipped.Names())+1 {
		t.Errorf("%d changes", n)
	}
}

func TestLint(t *testing.T) {
	for _, c := range []struct {
		name, old, new string
		kind           Kind
		field          string
		line           int
		words          string
	}{
		{"rule that never speaks", "cert.dns.all", "profile.name == \"team\" || cert.dns.all", Unreachable, "rules[1]", 22, "never speaks"},
		{"rule said twice", "lint:", "  - {id: again, message: m, hint: h, expression: 'cert.dns.all(n,n.labels().size()<6)'}\nlint:", Unreachable, "rules[2]", 23, "labels says before it"},
		{"refused and approved", "lint:", "  - {id: hard, message: m, hint: h, expression: 'cert.validity <= duration(\"720h\")'}\nlint:", Unreachable, "rules[0]", 21, "asks for approval of what"},
		{"approval twice", ", when: rules", "", Unreachable, "rules[0]", 21, "anyway"},
		{"approval by a rule of everything", "cert.validity <= duration(\"720h\")", "profile.restricted", Contradiction, "rules[0]", 21, "of every request"},
		{"opposites", "lint:", "  - {id: not, message: m, hint: h, expression: '!(cert.dns.all(n, n.labels().size() < 6))'}\nlint:", Contradiction, "rules[2]", 23, "opposite"},
		{"limit that lowers nothing", "backdate: 5m", "backdate: 5m, limits: [{from: 2027-01-01, max: 90d}]", Unreachable, "validity.limits[0]", 0, "lowers nothing"},
		{"second limit that lowers nothing", "backdate: 5m", "backdate: 5m, limits: [{from: 2027-01-01, max: 40d}, {from: 2028-01-01, max: 50d}]", Unreachable, "validity.limits[1]", 0, "40d is the most before it"},
		{"validity beyond the standard", "max: 90d, backdate: 5m}", "max: 500d, backdate: 5m}\nstandards: [private-default]", Unreachable, "validity.max", 0, "never given"},
		{"excluded elsewhere", "[secret.team.example]", "[secret.team.example, b.example]", Unreachable, "names.excluded.dns[1]", 0, "nothing in it is permitted"},
	} {
		found := Lint(changed(t, c.old, c.new), nil)
		if !slices.ContainsFunc(found, func(f Finding) bool {
			return f.Kind == c.kind && f.Field == c.field && (c.line == 0 || f.Line == c.line) && strings.Contains(f.Message, c.words) && f.Hint != "" && f.Profile == "team"
		}) || len(found) != 1 {
			t.Errorf("%s: found %v", c.name, found)
		}
	}
	if found := Lint(changed(t), changed(t)); found != nil {
		t.Errorf("a sound set: found %v", found)
	}
}

func TestLintFindsWhatIsBroader(t *testing.T) {
	found := Lint(changed(t, "max: 90d", "max: 120d", "count: 2", "count: 3", "size() < 6", "size() < 7"), changed(t))
	if len(found) != 2 || found[0].Kind != Broader || found[0].Field != "validity" || found[1].Kind != Unclear || found[1].Field != "rules.labels" {
		t.Errorf("found %v", found)
	}
	if s := found[0].String(); !strings.HasPrefix(s, "team.yaml: validity: broader: ") {
		t.Errorf("written %s", s)
	}
}

// TestShippedProfilesAreSound holds that nothing is to be said of what comes with the program.
func TestShippedProfilesAreSound(t *testing.T) {
	set, err := policies.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	if found := Lint(set, set); found != nil {
		t.Errorf("found %v", found)
	}
}
