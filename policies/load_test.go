package policies

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/chancery-ca/chancery/strictyaml"
)

func TestShipped(t *testing.T) {
	set := shippedSet(t)
	if want := []string{"code-signing", "ocsp-responder", "smime", "tls-client", "tls-public", "tls-server"}; !slices.Equal(set.Names(), want) {
		t.Errorf("got %v", set.Names())
	}
	if d := set.Digest(); len(d) != len("sha256:")+64 || !strings.HasPrefix(d, "sha256:") || strings.ToLower(d) != d {
		t.Errorf("digest %q", d)
	}
	for _, name := range set.Names() {
		p, ok := set.Profile(name)
		if !ok || p.Name() != name || p.Description() == "" {
			t.Errorf("%s: %v, %+v", name, ok, p)
		}
		for _, e := range p.lint.Except {
			if len(e.Reason) < 20 {
				t.Errorf("%s leaves %s out for %q, which is no reason", name, e.Lint, e.Reason)
			}
		}
	}
	if _, ok := set.Profile("none"); ok {
		t.Error("a profile that is none was found")
	}
	set.Names()[0] = "spoilt"
	if set.Names()[0] == "spoilt" {
		t.Error("the names can be changed from outside")
	}
}

// TestPublicProfile holds tls-public to what the Baseline Requirements recommend: a day less than each limit.
func TestPublicProfile(t *testing.T) {
	p, _ := shippedSet(t).Profile("tls-public")
	date := func(year int, month time.Month, d int) time.Time {
		return time.Date(year, month, d, 0, 0, 0, 0, time.UTC)
	}
	for _, c := range []struct {
		at   time.Time
		days time.Duration
	}{
		{date(2026, 3, 15).Add(-time.Second), 397},
		{date(2026, 3, 15), 199},
		{date(2027, 3, 15).Add(-time.Second), 199},
		{date(2027, 3, 15), 99},
		{date(2029, 3, 15).Add(-time.Second), 99},
		{date(2029, 3, 15), 46},
		{date(2040, 1, 1), 46},
	} {
		if got := p.validity.maxAt(c.at); got != c.days*day {
			t.Errorf("at %s: %s, want %d days", c.at, got, c.days)
		}
		if got := p.validity.defaultAt(c.at); got > c.days*day {
			t.Errorf("at %s the default is %s", c.at, got)
		}
	}
}

func TestSummary(t *testing.T) {
	p, _ := shippedSet(t).Profile("tls-public")
	got := p.Summary(now)
	want := Summary{
		Name: "tls-public", Description: p.Description(),
		Keys: []KeySummary{
			{"ECDSA P-256", []string{"digitalSignature"}},
			{"ECDSA P-384", []string{"digitalSignature"}},
			{"RSA 2048-4096", []string{"digitalSignature", "keyEncipherment"}},
		},
		ExtKeyUsage: []string{"serverAuth"}, ValidityDefault: 90 * 86400, ValidityMax: 199 * 86400,
		Subject: []AttributeSummary{{Type: "commonName", Presence: "checked", Max: 64}}, SubjectDropped: got.SubjectDropped,
		NameTypes: []string{"dns", "ip"}, NamesMin: 1, NamesMax: 100, Wildcards: true, PublicNames: true,
		CertificatePolicies: []string{"2.23.140.1.2.1"},
		LintSources:         got.LintSources, LintExceptions: got.LintExceptions,
		ValidityLimits: []LimitSummary{{"2026-03-15", 199 * 86400}, {"2027-03-15", 99 * 86400}, {"2029-03-15", 46 * 86400}}, Standards: []string{"cabf-br"},
		KeyReuse: "anywhere", CommonName: "copy-of-san", Backdate: 300, URISchemes: []string{}, Rules: []RuleSummary{},
		Permitted: SubtreeSummary{[]string{}, []string{}, []string{}, []string{}}, Excluded: SubtreeSummary{[]string{}, []string{}, []string{}, []string{}},
		ExtensionsDropped: got.ExtensionsDropped, AttributesDropped: got.AttributesDropped,
	}
	if !reflect.DeepEqual(got, want) || len(got.SubjectDropped) == 0 || len(got.LintSources) == 0 || len(got.LintExceptions) == 0 {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for _, name := range shippedSet(t).Names() {
		p, _ := shippedSet(t).Profile(name)
		b, err := json.Marshal(p.Summary(now))
		if err != nil || strings.Contains(string(b), "null") {
			t.Errorf("%s: %s, %v", name, b, err)
		}
	}
}

func TestDigestNamesFilesAndContents(t *testing.T) {
	digest := func(fsys fstest.MapFS) string {
		set, err := Load(fsys)
		if err != nil {
			t.Fatal(err)
		}
		return set.Digest()
	}
	other := strings.Replace(plain, "name: plain", "name: other", 1)
	all := []string{
		digest(file("plain.yaml", plain)), digest(file("plain.yaml", plain+"# remark\n")), digest(file("other.yaml", other)),
		digest(fstest.MapFS{"plain.yaml": {Data: []byte(plain)}, "other.yaml": {Data: []byte(other)}}),
	}
	for i, d := range all {
		if slices.Contains(all[:i], d) {
			t.Errorf("two sets share the digest %s", d)
		}
	}
	with := digest(fstest.MapFS{"plain.yaml": {Data: []byte(plain)}, "README.md": {Data: []byte("x")}, "sub/x.yaml": {Data: []byte("x")}})
	if with != all[0] {
		t.Error("files that are no profiles count")
	}
}

// TestLoadRefuses is one change each to a sound profile, with the field and the line at which it must be reported.
func TestLoadRefuses(t *testing.T) {
	for _, c := range []struct {
		name, old, new string
		field          string
		line           int
		words          string
	}{
		{"unknown field", "description:", "colour: red\ndescription:", "colour", 2, "unknown field"},
		{"unknown field within", "  dns: {}", "  dns: {publik: true}", "publik", 13, "unknown field"},
		{"wrong type", "min: 1", "min: one", "", 12, "does not belong here"},
		{"list in place of a mapping", "  dns: {}", "  dns: []", "", 13, "does not belong here"},
		{"a key twice", "lint:", "names: {}\nlint:", "names", 14, "stands here twice"},
		{"a key twice within", "  dns: {}", "  dns: {}\n  dns: {}", "names.dns", 14, "stands here twice"},
		{"anchor", "  dns: {}", "  dns: &x {}", "names.dns", 13, "anchors"},
		{"alias", "  dns: {}", "  dns: &x {}\n  ip: *x", "names.dns", 13, "anchors"},
		{"merge", "  dns: {}", "  dns: {<<: {}}", "names.dns", 13, "merge"},
		{"tag", "  dns: {}", "  dns: !!map {}", "names.dns", 13, "tags"},
		{"empty value", "  dns: {}", "  dns:", "names.dns", 13, "empty"},
		{"two documents", "lint:", "---\nlint:", "", 0, "more than one"},
		{"not YAML", "name: plain", "name: [", "", 0, ""},
		{"name of another file", "name: plain", "name: other", "name", 1, "not the file's name"},
		{"bad name", "name: plain", "name: Plain", "name", 1, "not a name"},
		{"no description", "description: For tests.", "restricted: false", "description", 1, "no description"},
		{"no keys", "ecdsa: {curves: [P-256], key_usage: [digitalSignature]}", "{}", "keys", 3, "no key"},
		{"reuse of another kind", "keys:\n", "keys:\n  reuse: sometimes\n", "keys.reuse", 4, "does not say which certificates"},
		{"CAA of private names", "  dns: {}", "  dns: {caa: true}", "names.dns.caa", 13, "private names have none"},
		{"no curves", "curves: [P-256]", "curves: []", "keys.ecdsa.curves", 4, "no curve"},
		{"P-224", "P-256", "P-224", "keys.ecdsa.curves[0]", 4, "not a curve"},
		{"curve twice", "[P-256]", "[P-256, P-256]", "keys.ecdsa.curves[1]", 4, "second time"},
		{"no key usage", "[digitalSignature]", "[]", "keys.ecdsa.key_usage", 4, "no key usage"},
		{"unknown key usage", "[digitalSignature]", "[signing]", "keys.ecdsa.key_usage[0]", 4, "not a key usage"},
		{"keyCertSign", "[digitalSignature]", "[digitalSignature, keyCertSign]", "keys.ecdsa.key_usage[1]", 4, "authorities"},
		{"keyEncipherment for ECDSA", "[digitalSignature]", "[keyEncipherment]", "keys.ecdsa.key_usage[0]", 4, "cannot be used"},
		{"encipherOnly alone", "[digitalSignature]", "[encipherOnly]", "keys.ecdsa.key_usage", 4, "keyAgreement"},
		{"short RSA", "keys:", "keys:\n  rsa: {min: 1024, max: 2048, key_usage: [digitalSignature]}", "keys.rsa.min", 4, "1024"},
		{"odd RSA", "keys:", "keys:\n  rsa: {min: 2048, max: 2049, key_usage: [digitalSignature]}", "keys.rsa.max", 4, "2049"},
		{"long RSA", "keys:", "keys:\n  rsa: {min: 2048, max: 16384, key_usage: [digitalSignature]}", "keys.rsa.max", 4, "16384"},
		{"RSA upside down", "keys:", "keys:\n  rsa: {min: 4096, max: 2048, key_usage: [digitalSignature]}", "keys.rsa.min", 4, "longer"},
		{"Ed25519 agreement", "keys:", "keys:\n  ed25519: {key_usage: [keyAgreement]}", "keys.ed25519.key_usage[0]", 4, "cannot be used"},
		{"no extended key usage", "[serverAuth]", "[]", "ext_key_usage", 5, "good for anything"},
		{"unknown extended key usage", "[serverAuth]", "[server]", "ext_key_usage[0]", 5, "neither"},
		{"any extended key usage", "[serverAuth]", "[2.5.29.37.0]", "ext_key_usage", 5, "not issued"},
		{"open responders", "[serverAuth]", "[OCSPSigning]", "restricted", 1, "speaks for the authority"},
		{"responder and server", "ext_key_usage: [serverAuth]", "restricted: true\next_key_usage: [OCSPSigning, serverAuth]", "ext_key_usage", 6, "alone"},
		{"nocheck without responder", "lint:", "ocsp_no_check: true\nlint:", "ocsp_no_check", 14, "only"},
		{"default beyond maximum", "default: 30d", "default: 91d", "validity.default", 6, "longer than the maximum"},
		{"no default", "default: 30d, ", "", "validity.default", 6, "not a duration"},
		{"no maximum", "max: 90d, ", "", "validity.max", 6, "not a duration"},
		{"zero", "default: 30d", "default: 0d", "validity.default", 6, "no time"},
		{"half seconds", "default: 30d", "default: 1500ms", "validity.default", 6, "whole number"},
		{"words", "default: 30d", "default: a month", "validity.default", 6, "not a duration"},
		{"negative", "default: 30d", "default: -1h", "validity.default", 6, "not between"},
		{"endless", "max: 90d", "max: 65000d", "validity.max", 6, "not between"},
		{"stamps and more", "[serverAuth]", "[serverAuth, timeStamping]", "ext_key_usage", 5, "stands alone"},
		{"far back", "backdate: 5m", "backdate: 49h", "validity.backdate", 6, "too far"},
		{"back to the limit", "backdate: 5m", "backdate: 48h", "validity.backdate", 6, "no time between"},
		{"almost back to the limit", "backdate: 5m", "backdate: 47h1s", "validity.backdate", 6, "no time between"},
		{"back beyond the default", "default: 30d", "default: 5m", "validity.backdate", 6, "ended before"},
		{"bad day", "backdate: 5m", "limits: [{from: 2026-13-01, max: 3d}]", "validity.limits[0].from", 6, "not a day"},
		{"days out of order", "backdate: 5m", "limits: [{from: 2026-02-01, max: 3d}, {from: 2026-02-01, max: 2d}]", "validity.limits[1].from", 6, "in order"},
		{"limit below backdating", "backdate: 5m", "backdate: 5m, limits: [{from: 2026-02-01, max: 1m}]", "validity.limits[0].max", 6, "ended before"},
		{"unknown attribute", "type: commonName", "type: nickName", "subject.attributes[0].type", 9, "not an attribute"},
		{"attribute twice", "  common_name:", "    - {type: commonName, presence: optional}\n  common_name:", "subject.attributes[1].type", 10, "second time"},
		{"attribute that is not issued", "type: commonName", "type: emailAddress", "subject.attributes[0].type", 9, "not issued"},
		{"unknown presence", "presence: optional", "presence: perhaps", "subject.attributes[0].presence", 9, "not a presence"},
		{"value without fixed", "presence: optional", "presence: optional, value: x", "subject.attributes[0].value", 9, "only a fixed"},
		{"fixed without value", "presence: optional", "presence: fixed", "subject.attributes[0].value", 9, "empty"},
		{"fixed and copied", "presence: optional", "presence: fixed, value: x", "subject.common_name", 10, "fixed"},
		{"too long", "presence: optional", "presence: optional, max: 65", "subject.attributes[0].max", 9, "not allowed"},
		{"bad pattern", "presence: optional", "presence: optional, pattern: '('", "subject.attributes[0].pattern", 9, "missing"},
		{"pattern that is two halves", "presence: optional", "presence: optional, pattern: 'a)|(?:b'", "subject.attributes[0].pattern", 9, "unexpected"},
		{"source of the common name", "copy-of-san", "copied", "subject.common_name", 10, "does not say"},
		{"no source of the common name", "  common_name: copy-of-san\n", "", "subject.common_name", 7, "does not say"},
		{"common name of nothing", "type: commonName", "type: title", "subject.common_name", 10, "no common name"},
		{"allowed and dropped", "  common_name:", "  drop: [commonName]\n  common_name:", "subject.drop[0]", 10, "both"},
		{"drop of nothing", "  common_name:", "  drop: [nickName]\n  common_name:", "subject.drop[0]", 10, "neither"},
		{"copy without names", "  min: 1\n  dns: {}", "  min: 0", "subject.common_name", 10, "none is allowed"},
		{"names asked and not allowed", "  dns: {}", "  max: 3", "names.min", 12, "none is allowed"},
		{"names upside down", "min: 1", "min: 101", "names.min", 12, "more than the greatest"},
		{"too many names", "min: 1", "min: 1\n  max: 1001", "names", 11, "not a number of names"},
		{"negative names", "min: 1", "min: -1", "names", 11, "not a number of names"},
		{"nobody", "min: 1", "min: 0", "names.min", 12, "names nobody"},
		{"bad dns pattern", "dns: {}", "dns: {pattern: '[a'}", "names.dns.pattern", 13, "missing"},
		{"lookahead", "dns: {}", "dns: {pattern: '(?=a)'}", "names.dns.pattern", 13, "invalid"},
		{"public underscores", "dns: {}", "dns: {public: true, underscores: true}", "names.dns.underscores", 13, "underscores"},
		{"public and reserved", "dns: {}", "dns: {public: true}\n  ip: {reserved: true}", "names.ip.reserved", 14, "contradict"},
		{"no scheme", "dns: {}", "uri: {}", "names.uri.schemes", 13, "no scheme"},
		{"bad scheme", "dns: {}", "uri: {schemes: ['https://']}", "names.uri.schemes[0]", 13, "not a scheme"},
		{"dropped rule", "lint:", "drop: {extensions: [2.5.29.17]}\nlint:", "drop.extensions[0]", 14, "cannot be dropped"},
		{"dropped twice", "lint:", "drop: {extensions: [subjectKeyIdentifier, 2.5.29.14]}\nlint:", "drop.extensions[1]", 14, "second time"},
		{"unknown dropped", "lint:", "drop: {attributes: [password]}\nlint:", "drop.attributes[0]", 14, "neither"},
		{"bad policy", "lint:", "certificate_policies: [1.40.1]\nlint:", "certificate_policies[0]", 14, "do not exist"},
		{"bad policy again", "lint:", "certificate_policies: [1.2.03]\nlint:", "certificate_policies[0]", 14, "neither"},
		{"no lint source", "[RFC5280]", "[]", "lint.sources", 15, "nothing is linted"},
		{"unknown lint source", "[RFC5280]", "[RFC5280, rfc5280]", "lint.sources[1]", 15, "not a source"},
		{"exception without reason", "[RFC5280]", "[RFC5280]\n  except: [{lint: w_some_lint}]", "lint.except[0].reason", 16, "needs a reason"},
		{"exception from nothing", "[RFC5280]", "[RFC5280]\n  except: [{lint: everything, reason: none}]", "lint.except[0].lint", 16, "not the name"},
		{"approval of nobody", "lint:", "approval: {count: 0}\nlint:", "approval.count", 14, "not a number of persons"},
		{"approval of a crowd", "lint:", "approval: {count: 11}\nlint:", "approval.count", 14, "not a number of persons"},
		{"approval by no group", "lint:", "approval: {count: 1, groups: []}\nlint:", "approval.groups", 14, "nobody"},
		{"approval by a nameless group", "lint:", "approval: {count: 1, groups: ['']}\nlint:", "approval.groups[0]", 14, "not a group"},
		{"approval by a group twice", "lint:", "approval: {count: 1, groups: [a, a]}\nlint:", "approval.groups[1]", 14, "second time"},
		{"approval without end", "lint:", "approval: {count: 1, expires: 91d}\nlint:", "approval.expires", 14, "too long"},
		{"approval some time", "lint:", "approval: {count: 1, when: sometimes}\nlint:", "approval.when", 14, "does not say when"},
		{"quota of nothing", "lint:", "quota: {certificates: 0, per: 1h, of: name}\nlint:", "quota.certificates", 14, "not worth"},
		{"quota without time", "lint:", "quota: {certificates: 1, of: name}\nlint:", "quota.per", 14, "not a duration"},
		{"quota over ages", "lint:", "quota: {certificates: 1, per: 367d, of: name}\nlint:", "quota.per", 14, "too long"},
		{"quota of nobody", "lint:", "quota: {certificates: 1, per: 1h}\nlint:", "quota.of", 14, "does not say whose"},
		{"exception twice", "[RFC5280]", "[RFC5280]\n  except: [{lint: w_a, reason: a}, {lint: w_a, reason: b}]", "lint.except[1]", 16, "second time"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !strings.Contains(plain, c.old) {
				t.Fatalf("the plain profile does not hold %q", c.old)
			}
			_, err := Load(file("plain.yaml", strings.Replace(plain, c.old, c.new, 1)))
			var failed *LoadError
			if !errors.As(err, &failed) {
				t.Fatalf("got %v", err)
			}
			for _, p := range failed.Problems {
				if p.Field == c.field && (c.line == 0 || p.Line == c.line) && strings.Contains(p.Message, c.words) {
					return
				}
			}
			t.Fatalf("no problem at %q, line %d, saying %q in\n%v", c.field, c.line, c.words, err)
		})
	}
}

func TestLoadRefusesFiles(t *testing.T) {
	for name, fsys := range map[string]fstest.MapFS{
		"nothing":      {},
		"other names":  {"plain.yml": {Data: []byte(plain)}},
		"empty file":   file("plain.yaml", ""),
		"remarks only": file("plain.yaml", "# nothing\n"),
		"a list":       file("plain.yaml", "- name: plain\n"),
		"a word":       file("plain.yaml", "plain\n"),
		"too large":    file("plain.yaml", plain+"#"+strings.Repeat("x", strictyaml.MaxSize)),
		"one bad file": {"plain.yaml": {Data: []byte(plain)}, "other.yaml": {Data: []byte(plain)}},
	} {
		if set, err := Load(fsys); err == nil || set != nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestLoadReportsEverything holds that all problems of all files come in one error, each with its place.
func TestLoadReportsEverything(t *testing.T) {
	_, err := Load(fstest.MapFS{
		"a.yaml": {Data: []byte(strings.NewReplacer("P-256", "P-224", "default: 30d", "default: 300d", "serverAuth", "server").Replace(plain))},
		"b.yaml": {Data: []byte("name: b\nsize: 3\nweight: 4\n")},
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		`a.yaml:1: name: `, `a.yaml:4: keys.ecdsa.curves[0]: "P-224"`, `a.yaml:5: ext_key_usage[0]: `, `a.yaml:6: validity.default: `,
		`b.yaml:2: size: unknown field`, `b.yaml:3: weight: unknown field`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in\n%v", want, err)
		}
	}
}

func TestParseDuration(t *testing.T) {
	for s, want := range map[string]time.Duration{"0d": 0, "1d": day, "90d": 90 * day, "720h": 720 * time.Hour, "5m": 5 * time.Minute, "1h30m": 90 * time.Minute} {
		if got, err := ParseDuration(s); err != nil || got != want {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "d", "90", "-1d", "+1d", "1.5d", "1d2h", "1y", "-5m", "36601d", "99999999d", "1e3d", " 1d"} {
		if got, err := ParseDuration(s); err == nil {
			t.Errorf("%q was read as %v", s, got)
		}
	}
	for d, want := range map[time.Duration]string{90 * day: "90d", time.Hour: "1h", 5 * time.Minute: "5m", 90 * time.Minute: "1h30m", time.Second: "1s", 25 * time.Hour: "25h"} {
		if got := formatDuration(d); got != want {
			t.Errorf("%v is written %s, want %s", d, got, want)
		}
	}
}

// FuzzLoad holds that no file makes the loader fail otherwise than by saying what is wrong, and that what it accepts can decide.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(plain))
	names, err := filepath.Glob("profiles/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, n := range names {
		content, err := os.ReadFile(n)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(strings.Replace(string(content), "name: "+strings.TrimSuffix(filepath.Base(n), ".yaml"), "name: plain", 1)))
	}
	f.Add([]byte(strings.Replace(plain, "lint:", fiveRules, 1)))
	f.Add([]byte(strings.Replace(plain, "lint:", "approval: {count: 2, groups: [a], expires: 1d}\nquota: {certificates: 1, per: 1h, of: name}\nlint:", 1)))
	f.Add([]byte(strings.Replace(plain, "  min: 1\n  dns: {}\n", subtrees, 1)))
	for _, s := range []string{"a: &a [*a]", "a: {<<: [1]}", "? [a]\n: b", "name: plain\nname: plain", "---\n---\n", "\xff", "validity: {limits: [{}]}", "a: !!binary x"} {
		f.Add([]byte(s))
	}
	r := benign(f)
	r.Profile = "plain"
	f.Fuzz(func(t *testing.T, content []byte) {
		set, err := Load(fstest.MapFS{"plain.yaml": {Data: content}})
		if err != nil {
			var failed *LoadError
			if !errors.As(err, &failed) || len(failed.Problems) == 0 {
				t.Fatalf("not a *LoadError: %v", err)
			}
			for _, p := range failed.Problems {
				if p.Message == "" || p.Line < 0 || strings.ContainsAny(p.Message, "\x00\x1b") {
					t.Fatalf("%+v", p)
				}
			}
			return
		}
		p, _ := set.Profile("plain")
		d := set.Decide(r)
		if template, ok := d.Template(); ok {
			if problem := outside(template, p, r); problem != "" {
				t.Fatalf("%s falls outside of the profile: %+v", problem, template)
			}
		}
		p.Summary(now)
	})
}
