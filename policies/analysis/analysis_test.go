package analysis

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"reflect"
	"slices"
	"strconv"
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
		{"renewals alone", "  ecdsa:", "  reuse: same-names\n  ecdsa:", EffectNarrower, EffectBroader, "keys.reuse", "same-names, instead of anywhere"},
		{"purpose", "[serverAuth]", "[serverAuth, clientAuth]", EffectBroader, EffectNarrower, "ext_key_usage", "clientAuth is new"},
		{"longest", "max: 90d", "max: 120d", EffectBroader, EffectNarrower, "validity", "the longest validity is 120d instead of 90d"},
		{"limit", "backdate: 5m", "backdate: 5m, limits: [{from: 2027-01-01, max: 60d}]", EffectNarrower, EffectBroader, "validity", "from 2027-01-01 on is 60d instead of 90d"},
		{"default", "default: 30d", "default: 20d", EffectNeutral, EffectNeutral, "validity.default", "20d instead of 30d"},
		{"attribute", "    - {type: commonName", "    - {type: title, presence: optional}\n    - {type: commonName", EffectBroader, EffectNarrower, "subject.title", "is new"},
		{"attribute that must stand", "    - {type: commonName", "    - {type: title, presence: required}\n    - {type: commonName", EffectUnclear, EffectUnclear, "subject.title", "is new"},
		{"attribute of one value", "    - {type: commonName", "    - {type: title, presence: fixed, value: a}\n    - {type: commonName", EffectUnclear, EffectUnclear, "subject.title", "is new"},
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
		{"CT", "lint:", "ct: {scts: 2}\nlint:", EffectNarrower, EffectBroader, "ct", "need 2 timestamps"},
		{"standard", "keys:", "subject_key_id: true\nstandards: [rfc5280-strict]\nkeys:", EffectNarrower, EffectBroader, "standards", "rfc5280-strict"},
		{"rule gone", "  - {id: labels, message: m, hint: h, expression: 'cert.dns.all(n, n.labels().size() < 6)'}\n", "", EffectBroader, EffectNarrower, "rules.labels", "the rule is"},
		{"rule changed", "size() < 6", "size() < 7", EffectUnclear, EffectUnclear, "rules.labels", "the expression is"},
		{"rule respelt", "size() < 6", "size()<6", "", "", "", ""},
		{"rule weakened", "size() < 6)'", "size() < 6)', effect: approve", EffectBroader, EffectNarrower, "rules.labels", "approval"},
		{"rule said otherwise", "id: labels, message: m", "id: labels, message: n", EffectNeutral, EffectNeutral, "rules.labels", "message"},
		{"fewer approvals", "count: 2", "count: 1", EffectBroader, EffectNarrower, "approval.count", "1 instead of 2"},
		{"signed", "count: 2", "count: 2, signed: true", EffectNarrower, EffectBroader, "approval.signed", "own key"},
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

func TestDiffOfTransparency(t *testing.T) {
	const before = "ct: {scts: 2, longer: [{than: 60d, scts: 3}], operators: 2, logs: [a, b, c, d]}\n"
	for _, c := range []struct {
		name, old, new string
		effect         Effect
		field          string
	}{
		{"more", "scts: 2", "scts: 1", EffectBroader, "ct.scts"},
		{"fewer of long lives", "scts: 3", "scts: 4", EffectNarrower, "ct.longer"},
		{"from another length on", "60d", "80d", EffectBroader, "ct.longer"},
		{"operators", "operators: 2", "operators: 1", EffectBroader, "ct.operators"},
		{"logs", "[a, b, c, d]", "[a, b, c]", EffectNarrower, "ct.logs"},
		{"any log", ", logs: [a, b, c, d]", "", EffectBroader, "ct.logs"},
		{"other logs", "[a, b, c, d]", "[a, b, c, e]", EffectUnclear, "ct.logs"},
		{"the same logs", "[a, b, c, d]", "[b, a, c, d]", "", ""},
		{"patience", "operators: 2", "operators: 2, patience: 3s", EffectNeutral, "ct.patience"},
		{"time", "operators: 2", "operators: 2, timeout: 9s", EffectNeutral, "ct.timeout"},
	} {
		after := strings.Replace(before, c.old, c.new, 1)
		if c.name == "more" {
			after = strings.Replace(after, "operators: 2", "operators: 1", 1)
		}
		changes := Diff(changed(t, "lint:", before+"lint:"), changed(t, "lint:", after+"lint:"))
		if c.field == "" && len(changes) == 0 {
			continue
		}
		if at := slices.IndexFunc(changes, func(d Change) bool { return d.Field == c.field }); at < 0 || changes[at].Effect != c.effect {
			t.Errorf("%s: got %v, want %s at %s", c.name, changes, c.effect, c.field)
		}
	}
}

// TestDiffSeesTheOrderOfTheSubject: two certificates whose attributes stand in another order name different subjects.
func TestDiffSeesTheOrderOfTheSubject(t *testing.T) {
	const name, title, unit = "    - {type: commonName", "    - {type: title, presence: optional}\n", "    - {type: serialNumber, presence: optional}\n"
	before := changed(t, name, title+unit+name)
	changes := Diff(before, changed(t, name, unit+title+name))
	if len(changes) != 1 || changes[0].Field != "subject.attributes" || changes[0].Effect != EffectUnclear ||
		!strings.Contains(changes[0].Words, "serialNumber, title, commonName instead of title, serialNumber, commonName") {
		t.Errorf("in another order: %v", changes)
	}
	for _, c := range Diff(before, changed(t, name, unit+name)) {
		if c.Field == "subject.attributes" {
			t.Errorf("one less, and in the same order: %v", c)
		}
	}
}

// TestDiffSeesEveryField changes each field that a profile's file can hold, by the declarations of the file.
func TestDiffSeesEveryField(t *testing.T) {
	const lint, ct = "lint:", "ct: {scts: 2, longer: [{than: 60d, scts: 3}], operators: 2, logs: [a, b, c]}\nlint:"
	const fixed = "- {type: title, presence: fixed, value: a}\n    - {type: commonName"
	changes := map[string][]string{ // what is replaced by what, in pairs: the last in the second set alone
		"description":                 {"For tests", "For people"},
		"restricted":                  {lint, "restricted: true\nlint:"},
		"keys.ecdsa.curves":           {"[P-256]", "[P-384]"},
		"keys.ecdsa.key_usage":        {"[P-256], key_usage: [digitalSignature]", "[P-256], key_usage: [digitalSignature, keyAgreement]"},
		"keys.rsa.min":                {"min: 3072", "min: 2048"},
		"keys.rsa.max":                {"max: 4096", "max: 8192"},
		"keys.rsa.key_usage":          {"4096, key_usage: [digitalSignature]", "4096, key_usage: [keyEncipherment]"},
		"keys.ed25519.key_usage":      {"  rsa:", "  ed25519: {key_usage: [digitalSignature]}\n  rsa:", "ed25519: {key_usage: [digitalSignature", "ed25519: {key_usage: [digitalSignature, nonRepudiation"},
		"keys.reuse":                  {"  rsa:", "  reuse: same-namespace\n  rsa:"},
		"keys.once":                   {"  rsa:", "  once: true\n  rsa:"},
		"ext_key_usage":               {"serverAuth", "clientAuth"},
		"validity.default":            {"default: 30d", "default: 29d"},
		"validity.max":                {"max: 90d", "max: 91d"},
		"validity.limits.from":        {"5m}", "5m, limits: [{from: 2027-01-01, max: 60d}]}", "2027-01-01", "2027-01-02"},
		"validity.limits.max":         {"5m}", "5m, limits: [{from: 2027-01-01, max: 60d}]}", "max: 60d", "max: 61d"},
		"validity.backdate":           {"5m", "6m"},
		"subject.attributes.type":     {"- {type: commonName", "- {type: title, presence: optional}\n    - {type: commonName"},
		"subject.attributes.presence": {"presence: optional", "presence: checked"},
		"subject.attributes.value":    {"- {type: commonName", fixed, "value: a", "value: b"},
		"subject.attributes.max":      {"presence: optional", "presence: optional, max: 10"},
		"subject.attributes.pattern":  {"presence: optional", "presence: optional, pattern: a"},
		"subject.common_name":         {"copy-of-san", "free"},
		"subject.drop":                {"  common_name", "  drop: [title]\n  common_name"},
		"names.min":                   {"min: 1\n", "min: 2\n"},
		"names.max":                   {"max: 10\n", "max: 11\n"},
		"names.dns.wildcards":         {"dns: {pattern", "dns: {wildcards: true, pattern"},
		"names.dns.underscores":       {"dns: {pattern", "dns: {underscores: true, pattern"},
		"names.dns.public":            {"team.example]", "team.example.org]", "secret.team.example]", "secret.team.example.org]", "dns: {pattern", "dns: {public: true, pattern"},
		"names.dns.caa":               {"team.example]", "team.example.org]", "secret.team.example]", "secret.team.example.org]", "dns: {pattern", "dns: {public: true, pattern", "dns: {", "dns: {caa: true, "},
		"names.dns.pattern":           {"[a-z.]+", "[a-y.]+"},
		"names.ip.reserved":           {"  permitted:", "  ip: {}\n  permitted:", "ip: {}", "ip: {reserved: true}"},
		"names.email.pattern":         {"  permitted:", "  email: {}\n  permitted:", "email: {}", "email: {pattern: a}"},
		"names.uri.schemes":           {"  permitted:", "  uri: {schemes: [spiffe]}\n  permitted:", "[spiffe]", "[spiffe, https]"},
		"names.uri.pattern":           {"  permitted:", "  uri: {schemes: [spiffe]}\n  permitted:", "[spiffe]", "[spiffe], pattern: a"},
		"names.permitted.dns":         {"[team.example]", "[b.example]"},
		"names.permitted.ip":          {"  permitted: {", "  ip: {}\n  permitted: {ip: [8.0.0.0/8], ", "8.0.0.0/8", "9.0.0.0/8"},
		"names.permitted.email":       {"  permitted: {", "  email: {}\n  permitted: {email: [a.example], ", "a.example", "b.example"},
		"names.permitted.uri":         {"  permitted: {", "  uri: {schemes: [spiffe]}\n  permitted: {uri: [a.example], ", "a.example", "b.example"},
		"names.excluded.dns":          {"secret.", "secrets."},
		"names.excluded.ip":           {"  excluded: {", "  ip: {}\n  excluded: {ip: [8.0.0.0/8], ", "8.0.0.0/8", "9.0.0.0/8"},
		"names.excluded.email":        {"  excluded: {", "  email: {}\n  excluded: {email: [a.example], ", "a.example", "b.example"},
		"names.excluded.uri":          {"  excluded: {", "  uri: {schemes: [spiffe]}\n  excluded: {uri: [a.example], ", "a.example", "b.example"},
		"drop.extensions":             {lint, "drop: {extensions: [tlsFeature]}\nlint:"},
		"drop.attributes":             {lint, "drop: {attributes: [challengePassword]}\nlint:"},
		"certificate_policies":        {lint, "certificate_policies: [1.2.3]\nlint:"},
		"ocsp_no_check":               {"[serverAuth]", "[OCSPSigning]\nrestricted: true", lint, "ocsp_no_check: true\nlint:"},
		"subject_key_id":              {lint, "subject_key_id: true\nlint:"},
		"lint.sources":                {"RFC5480]", "RFC5480, RFC8813]"},
		"lint.except.lint":            {"RFC5480]", "RFC5480]\n  except: [{lint: w_a, reason: r}]", "w_a", "w_b"},
		"lint.except.reason":          {"RFC5480]", "RFC5480]\n  except: [{lint: w_a, reason: r}]", "reason: r", "reason: s"},
		"standards":                   {lint, "standards: [private-default]\nlint:"},
		"rules.id":                    {"id: short", "id: brief"},
		"rules.expression":            {"720h", "721h"},
		"rules.message":               {"message: m", "message: n"},
		"rules.hint":                  {"hint: h", "hint: i"},
		"rules.field":                 {"message: m", "field: names, message: m"},
		"rules.effect":                {"when: rules", "when: always", "effect: approve", "effect: refuse"},
		"approval.count":              {"count: 2", "count: 3"},
		"approval.groups":             {"[board, ", "[guard, "},
		"approval.signed":             {"count: 2", "count: 2, signed: true"},
		"approval.expires":            {"count: 2", "count: 2, expires: 3d"},
		"approval.when":               {"when: rules", "when: always"},
		"quota.certificates":          {"certificates: 10", "certificates: 11"},
		"quota.per":                   {"per: 1d", "per: 2d"},
		"quota.of":                    {"of: namespace", "of: name"},
		"ct.scts":                     {lint, "ct: {scts: 2}\nlint:", "{scts: 2", "{scts: 3"},
		"ct.longer.than":              {lint, ct, "60d", "61d"},
		"ct.longer.scts":              {lint, strings.Replace(ct, ", logs: [a, b, c]", "", 1), "scts: 3", "scts: 4"},
		"ct.operators":                {lint, ct, "operators: 2", "operators: 1"},
		"ct.logs":                     {lint, ct, "[a, b, c]", "[a, b, d]"},
		"ct.patience":                 {lint, ct, "operators: 2", "operators: 2, patience: 3s"},
		"ct.timeout":                  {lint, ct, "operators: 2", "operators: 2, timeout: 9s"},
	}
	fields := fileFields(t, "profileFile", "")
	for _, field := range fields {
		c, known := changes[field]
		switch delete(changes, field); {
		case field == "name":
		case !known:
			t.Errorf("%s: say here how it changes, and in Diff what that means", field)
		case len(Diff(changed(t, c[:len(c)-2]...), changed(t, c...))) == 0:
			t.Errorf("%s: a change is not seen", field)
		}
	}
	if len(changes) > 0 || len(fields) == 0 {
		t.Errorf("no fields of a profile's file: %v", slices.Collect(maps.Keys(changes)))
	}
}

// fileFields are the fields of a struct in which the parent package reads a profile's file, with those of the structs in it.
func fileFields(t *testing.T, name, prefix string) (all []string) {
	t.Helper()
	structs := map[string]*ast.StructType{}
	for _, file := range []string{"../profile_file.go", "../transparency.go", "../policies.go"} {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				if s, ok := spec.Type.(*ast.StructType); ok {
					structs[spec.Name.Name] = s
				}
			}
			return true
		})
	}
	for _, f := range structs[name].Fields.List {
		tag, err := strconv.Unquote(f.Tag.Value)
		if err != nil {
			t.Fatal(err)
		}
		field := prefix + reflect.StructTag(tag).Get("yaml")
		kind := f.Type
		switch k := kind.(type) {
		case *ast.StarExpr:
			kind = k.X
		case *ast.ArrayType:
			kind = k.Elt
		}
		if inner := kind.(*ast.Ident).Name; structs[inner] != nil {
			all = append(all, fileFields(t, inner, field+".")...)
		} else {
			all = append(all, field)
		}
	}
	return all
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

// TestLintFindsControlsThatAreGone drops what no constraint on the request shows.
func TestLintFindsControlsThatAreGone(t *testing.T) {
	public := []string{"team.example]", "team.example.org]", "secret.team.example]", "secret.team.example.org]", "dns: {", "dns: {public: true, "}
	before := changed(t, append(slices.Clone(public),
		"dns: {", "dns: {caa: true, ", "  rsa:", "  reuse: same-names\n  rsa:", "count: 2", "count: 2, signed: true", "lint:", "ct: {scts: 2}\nlint:")...)
	fields := []string{}
	for _, f := range Lint(changed(t, public...), before) {
		if f.Kind != Broader {
			t.Errorf("found %v", f)
		}
		fields = append(fields, f.Field)
	}
	if want := []string{"keys.reuse", "names.dns.caa", "approval.signed", "ct"}; !slices.Equal(fields, want) {
		t.Errorf("found %v, want %v", fields, want)
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
