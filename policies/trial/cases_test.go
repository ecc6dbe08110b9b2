package trial

import (
	"crypto/rand"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/chancery-ca/chancery/policies"
)

// beside are files of cases beside the shipped profiles.
func beside(files map[string]string) fs.FS {
	fsys := fstest.MapFS{}
	for name, content := range files {
		fsys["cases/"+name] = &fstest.MapFile{Data: []byte(content)}
	}
	return fsys
}

func shippedSet(t testing.TB) *policies.Set {
	t.Helper()
	set, err := policies.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// TestShippedCases: the shipped profiles do what the cases beside them say, and each profile has some of both kinds.
func TestShippedCases(t *testing.T) {
	set := shippedSet(t)
	cases, err := ReadCases(policies.ShippedFiles())
	if err != nil {
		t.Fatal(err)
	}
	report, err := RunCases(set, cases, rand.Reader, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	verdicts := map[string]map[policies.Verdict]bool{}
	for _, r := range report.Results {
		if !r.Passed {
			t.Errorf("%s:%d: %s: %v %+v", r.File, r.Line, r.Case, r.Differences, r.Violations)
		}
		if verdicts[r.Profile] == nil {
			verdicts[r.Profile] = map[policies.Verdict]bool{}
		}
		verdicts[r.Profile][r.Verdict] = true
	}
	for _, name := range set.Names() {
		if !verdicts[name][policies.Allow] || !verdicts[name][policies.Refuse] {
			t.Errorf("the cases of %s end with %v alone", name, slices.Collect(maps.Keys(verdicts[name])))
		}
	}
}

const someCases = `
profile: tls-server
namespace: {dns: [team.example]}
cases:
  - name: right
    dns: [www.team.example]
    expect: allow
  - name: the wrong verdict
    dns: [www.other.example]
    expect: allow
  - name: the wrong rule
    dns: [www.other.example]
    expect: refuse
    rules: [validity]
  - name: the right rule
    dns: [www.other.example]
    expect: refuse
    rules: [names.namespace]
  - name: whichever rule
    dns: [www.other.example]
    validity: 900d
    expect: refuse
  - name: no remark
    dns: [www.team.example]
    expect: allow
    notices: [names.confusable]
  - name: garbage
    csr: garbage.der
    expect: refuse
`

// TestCasesThatFail: a case that ends otherwise than it should is told in words, with its line.
func TestCasesThatFail(t *testing.T) {
	cases, err := ReadCases(beside(map[string]string{"some.yaml": someCases, "garbage.der": "\x30\x03\x02\x01\x01"}))
	if err != nil {
		t.Fatal(err)
	}
	report, err := RunCases(shippedSet(t), cases, rand.Reader, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, r := range report.Results {
		got[r.Case] = strings.Join(r.Differences, "; ")
		if r.File != "cases/some.yaml" || r.Line == 0 || r.Profile != "tls-server" {
			t.Errorf("%+v", r)
		}
	}
	want := map[string]string{
		"right": "", "the wrong verdict": "expected allow, got refuse",
		"the wrong rule": "validity was expected to object, and did not; names.namespace objected, which was not expected",
		"the right rule": "", "whichever rule": "", "garbage": "",
		"no remark": "names.confusable was expected to remark on something, and did not",
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if report.Cases != 7 || report.Failed != 3 {
		t.Errorf("%d cases, %d failed", report.Cases, report.Failed)
	}
	for _, c := range report.Coverage {
		if c.Profile != "tls-server" {
			if c.Cases != 0 || c.Seen != 0 {
				t.Errorf("%+v", c)
			}
			continue
		}
		if c.Seen != 2 || c.Rules != c.Seen+len(c.Never) || slices.Contains(c.Never, "names.namespace") || !slices.Contains(c.Never, "key.allowed") {
			t.Errorf("%+v", c)
		}
	}
}

// TestLongLives: whatever a profile allows, the issuer of a trial outlives.
func TestLongLives(t *testing.T) {
	content := strings.Replace(fmt.Sprintf(webProfile, false), "max: 90d", "max: 36500d", 1)
	set, err := policies.LoadFiles([]policies.File{{Name: "web.yaml", Content: []byte(content)}})
	if err != nil {
		t.Fatal(err)
	}
	cases, err := ReadCases(beside(map[string]string{"web.yaml": `
profile: web
cases:
  - {name: a hundred years, dns: [www.team.example], validity: 36500d, expect: allow}
  - {name: a subject of one word, dns: [trial], subject: [{type: CN, value: trial}], expect: allow}
`}))
	if err != nil {
		t.Fatal(err)
	}
	report, err := RunCases(set, cases, rand.Reader, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range report.Results {
		if !r.Passed {
			t.Errorf("%s: %v %+v", r.Case, r.Differences, r.Violations)
		}
	}
}

// TestFactsOfCases: what a case says of the world is what the decision sees.
func TestFactsOfCases(t *testing.T) {
	cases, err := ReadCases(beside(map[string]string{"facts.yaml": `
profile: reuse
cases:
  - {name: nothing is known, dns: [www.example.com], expect: allow}
  - {name: another namespace had the key, dns: [www.example.com], facts: {key_history: [{namespace: other}]}, expect: refuse, rules: [key.reuse]}
  - {name: the key is listed, dns: [www.example.com], facts: {key_lists: [Debian]}, expect: refuse, rules: [key.listed]}
  - name: the owner wants another authority
    dns: [www.example.com]
    facts: {caa: [{name: www.example.com, records: [{tag: issue, value: other.example}]}]}
    expect: refuse
    rules: [names.caa]
  - {name: persons must agree, dns: [www.example.com], validity: 20d, expect: needs-approval}
  - {name: but not for operations, dns: [www.example.com], validity: 20d, requester: {groups: [ops]}, expect: allow}
`}))
	if err != nil {
		t.Fatal(err)
	}
	set, err := policies.LoadFiles([]policies.File{{Name: "reuse.yaml", Content: []byte(`
name: reuse
description: Everything that a case can say something of.
keys: {reuse: same-namespace, ecdsa: {curves: [P-256], key_usage: [digitalSignature]}}
ext_key_usage: [serverAuth]
validity: {default: 10d, max: 30d, backdate: 5m}
names: {min: 1, dns: {public: true, caa: true}}
rules:
  - {id: short, expression: 'cert.validity <= duration("240h") || "ops" in requester.groups', message: It is long., hint: Ask for 10d., effect: approve}
approval: {count: 1, when: rules}
lint: {sources: [RFC5280]}
`)}})
	if err != nil {
		t.Fatal(err)
	}
	report, err := RunCases(set, cases, rand.Reader, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range report.Results {
		if !r.Passed {
			t.Errorf("%s: %v %+v", r.Case, r.Differences, r.Violations)
		}
	}
}

// TestCasesThatCannotBeRead: everything wrong is told at once, with file and line.
func TestCasesThatCannotBeRead(t *testing.T) {
	const head = "profile: tls-server\ncases:\n  - name: one\n    expect: allow\n"
	for name, c := range map[string]struct{ content, want string }{
		"no cases":           {"profile: tls-server\n", "there are no cases"},
		"unknown field":      {head + "    nmae: x\n", "some.yaml:5"},
		"no verdict":         {"cases:\n  - {name: one, profile: p, expect: maybe}\n", `some.yaml:2: cases[0].expect: "maybe" is no verdict`},
		"no profile":         {"cases:\n  - {name: one, expect: allow}\n", "names no profile"},
		"twice":              {head + "  - {name: one, expect: allow}\n", "no other of the file has"},
		"rules of allowed":   {head + "    rules: [validity]\n", "no rule objects"},
		"time":               {head + "    now: yesterday\n", `some.yaml:5: cases[0].now: "yesterday" is no time`},
		"validity":           {head + "    validity: long\n", "some.yaml:5"},
		"key":                {head + "    key: dsa\n", `"dsa" is no kind of key`},
		"attribute":          {head + "    subject: [{type: nothing, value: x}]\n", "some.yaml:5"},
		"address":            {head + "    ip: [10.1.2]\n", `"10.1.2" is no address`},
		"extension":          {head + "    extensions: [{oid: x, value: zz}]\n", `"x" is no object identifier`},
		"namespace":          {head + "    namespace: {ip: [10.1.2.3/16]}\n", "host bits zero"},
		"file and facts":     {head + "    csr: x.csr\n    dns: [a.example]\n", "not both"},
		"file elsewhere":     {head + "    csr: ../x.csr\n", "is not beside the cases"},
		"file that is none":  {head + "    csr: x.csr\n", "x.csr"},
		"file of other kind": {head + "    csr: some.yaml\n", "neither PEM nor DER"},
		"aliases":            {"profile: &p tls-server\ncases: [*p]\n", "some.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadCases(beside(map[string]string{"some.yaml": c.content}))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	if cases, err := ReadCases(fstest.MapFS{}); err != nil || len(cases) != 0 {
		t.Errorf("without cases: %d, %v", len(cases), err)
	}
}

// FuzzCases: whatever a file of cases holds, nothing panics, and what is read can be run.
func FuzzCases(f *testing.F) {
	f.Add([]byte(someCases))
	f.Add([]byte("cases:\n  - {name: a, profile: tls-server, uri: ['spiffe://x/y'], email: [a@b.example], ip: ['::1'], expect: allow}\n"))
	set := shippedSet(f)
	now := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, content []byte) {
		cases, err := ReadCases(beside(map[string]string{"some.yaml": string(content), "garbage.der": "\x30\x03\x02\x01\x01"}))
		if err != nil || len(cases) > 5 {
			return
		}
		for i := range cases {
			cases[i].key = "ecdsa-p256"
		}
		_, _ = RunCases(set, cases, rand.Reader, now) // facts that no CSR can be made of are an error
	})
}
