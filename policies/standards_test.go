package policies

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/chancery-ca/chancery/csr/csrtest"
)

// following is a shipped profile with parts replaced, loaded alone.
func following(t *testing.T, name string, pairs ...string) (*Set, error) {
	t.Helper()
	content, err := shipped.ReadFile("profiles/" + name + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := string(content)
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("%s does not hold %q", name, pairs[i])
		}
		text = strings.Replace(text, pairs[i], pairs[i+1], 1)
	}
	return Load(fstest.MapFS{name + ".yaml": {Data: []byte(text)}})
}

// TestStandardsDemand is one change each to a profile that follows a standard, with the field at which the standard must object.
func TestStandardsDemand(t *testing.T) {
	for _, c := range []struct{ profile, old, new, field, standard string }{
		{"tls-public", "[serverAuth]", "[serverAuth, codeSigning]", "ext_key_usage", "cabf-br"},
		{"tls-public", "[serverAuth]", "[clientAuth]", "ext_key_usage", "cabf-br"},
		{"tls-public", "  rsa:", "  ed25519: {key_usage: [digitalSignature]}\n  rsa:", "keys.ed25519", "cabf-br"},
		{"tls-public", "key_usage: [digitalSignature]}", "key_usage: [digitalSignature, nonRepudiation]}", "keys", "cabf-br"},
		{"tls-public", "{public: true, wildcards: true}", "{wildcards: true}", "names.dns.public", "cabf-br"},
		{"tls-public", "  ip: {}", "  ip: {}\n  email: {}", "names.email", "cabf-br"},
		{"tls-public", "  ip: {}", "  ip: {}\n  uri: {schemes: [spiffe]}", "names.uri", "cabf-br"},
		{"tls-public", "copy-of-san", "free", "subject.common_name", "cabf-br"},
		{"tls-public", "certificate_policies: [2.23.140.1.2.1]\n", "", "certificate_policies", "cabf-br"},
		{"tls-public", "[2.23.140.1.2.1]", "[2.23.140.1.2.1, 2.23.140.1.2.2]", "certificate_policies", "cabf-br"},
		{"tls-public", "[2.23.140.1.2.1]", "[2.23.140.1.20.1]", "certificate_policies", "cabf-br"},
		{"tls-public", " CABF_BR,", "", "lint.sources", "cabf-br"},
		{"tls-public", "  except:\n", "  except:\n    - {lint: e_some, reason: r}\n", "lint.except", "cabf-br"},
		{"smime", "CABF_SMIME_BR]", "CABF_SMIME_BR]\n  except: [{lint: e_some, reason: r}]", "lint.except", "smime-br"},
		{"code-signing", "CABF_CS_BR]", "CABF_CS_BR]\n  except: [{lint: e_some, reason: r}]", "lint.except", "code-signing"},
		{"tls-server", "subject_key_id: true", "subject_key_id: false", "subject_key_id", "rfc5280-strict"},
		{"tls-server", "{wildcards: true}", "{underscores: true}", "names.dns.underscores", "rfc5280-strict"},
		{"tls-server", " RFC5280,", "", "lint.sources", "rfc5280-strict"},
		{"tls-server", "RFC8813]", "RFC8813]\n  except: [{lint: e_some, reason: r}]", "lint.except", "rfc5280-strict"},
		{"tls-server", "copy-of-san", "free", "subject.common_name", "private-default"},
		{"tls-server", "max: 4096", "max: 8192", "keys.rsa.max", "private-default"},
		{"tls-server", "[serverAuth]", "[timeStamping]", "ext_key_usage", "private-default"},
		{"tls-server", "  min: 1\n", "  min: 0\n", "names.min", "private-default"},
		{"smime", "[emailProtection]", "[emailProtection, serverAuth]", "ext_key_usage", "smime-br"},
		{"smime", "[emailProtection]", "[clientAuth]", "ext_key_usage", "smime-br"},
		{"smime", "  email: {}", "  email: {}\n  dns: {}", "names", "smime-br"},
		{"smime", "  email: {}", "  uri: {schemes: [https]}", "names.email", "smime-br"},
		{"smime", "2.23.140.1.5.1.2", "2.23.140.1.5.1.1", "certificate_policies", "smime-br"},
		{"smime", "2.23.140.1.5.1.2", "2.23.140.1.2.1", "certificate_policies", "smime-br"},
		{"smime", "CABF_SMIME_BR", "Community", "lint.sources", "smime-br"},
		{"code-signing", "[codeSigning]", "[codeSigning, emailProtection]", "ext_key_usage", "code-signing"},
		{"code-signing", "min: 3072", "min: 2048", "keys.rsa.min", "code-signing"},
		{"code-signing", "organizationName, presence: required", "organizationName, presence: optional", "subject.attributes", "code-signing"},
		{"code-signing", "  min: 0\n", "  min: 0\n  dns: {}\n", "names", "code-signing"},
		{"code-signing", "CABF_CS_BR", "Community", "lint.sources", "code-signing"},
	} {
		_, err := following(t, c.profile, c.old, c.new)
		var failed *LoadError
		if !errors.As(err, &failed) || !slices.ContainsFunc(failed.Problems, func(p Problem) bool {
			return p.Field == c.field && p.Line > 0 && strings.HasPrefix(p.Message, c.standard+" asks that ") && p.Hint != ""
		}) {
			t.Errorf("%s with %q: %s does not object at %s:\n%v", c.profile, c.new, c.standard, c.field, err)
		}
	}
	for name, pair := range map[string][2]string{"unknown": {"[cabf-br]", "[cabf]"}, "twice": {"[cabf-br]", "[cabf-br, cabf-br]"}} {
		if _, err := following(t, "tls-public", pair[0], pair[1]); err == nil {
			t.Errorf("a standard that is %s: accepted", name)
		}
	}
}

// TestStandardsLimitByDate holds that the longest validity follows the calendar to the second (ballot SC-081v3; CSBR, section 6.3.2).
func TestStandardsLimitByDate(t *testing.T) {
	const limits = "    - {from: 2026-03-15, max: 199d}\n    - {from: 2027-03-15, max: 99d}\n    - {from: 2029-03-15, max: 46d}\n"
	public, err := following(t, "tls-public", "  limits:\n"+limits, "", "max: 397d", "max: 500d")
	if err != nil {
		t.Fatal(err)
	}
	server, err := following(t, "tls-server", "max: 398d", "max: 1000d")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		set          *Set
		profile, day string
		days         int
	}{
		{public, "tls-public", "2019-01-01T00:00:00Z", 398},
		{public, "tls-public", "2026-03-14T23:59:59Z", 398},
		{public, "tls-public", "2026-03-15T00:00:00Z", 200},
		{public, "tls-public", "2027-03-14T23:59:59Z", 200},
		{public, "tls-public", "2027-03-15T00:00:00Z", 100},
		{public, "tls-public", "2029-03-14T23:59:59Z", 100},
		{public, "tls-public", "2029-03-15T00:00:00Z", 47},
		{public, "tls-public", "2040-01-01T00:00:00Z", 47},
		{server, "tls-server", "2026-03-15T00:00:00Z", 398},
		{shippedSet(t), "code-signing", "2026-03-01T00:00:00Z", 460},
		{shippedSet(t), "smime", "2026-03-01T00:00:00Z", 825},
	} {
		at, err := time.Parse(time.RFC3339, c.day)
		if err != nil {
			t.Fatal(err)
		}
		p, _ := c.set.Profile(c.profile)
		if got := p.MaxValidityAt(at); got != time.Duration(c.days)*day {
			t.Errorf("%s at %s: %s, want %dd", c.profile, c.day, formatDuration(got), c.days)
		}
	}
}

// TestStandardIsNamedInARefusal holds that a requester learns which standard forbids what the profile itself would give.
func TestStandardIsNamedInARefusal(t *testing.T) {
	set, err := following(t, "tls-server", "max: 398d", "max: 1000d")
	if err != nil {
		t.Fatal(err)
	}
	r := benign(t)
	r.Validity = 399 * day
	v := set.Decide(r).Violations()
	if len(v) != 1 || !strings.Contains(v[0].Message, "private-default") || v[0].Hint != "ask for 398d at most" {
		t.Errorf("got %v", v)
	}
	r.Validity = 398 * day
	if d := set.Decide(r); d.Verdict() != Allow {
		t.Errorf("got %v", d.Violations())
	}
}

func TestMailProfile(t *testing.T) {
	set := shippedSet(t)
	r := benign(t)
	r.Profile = "smime"
	for name, c := range map[string]struct {
		change func(*csrtest.Builder)
		rule   string
	}{
		"a mailbox": {func(b *csrtest.Builder) { b.Subject, b.DNS, b.Email = nil, nil, []string{"ann@dev.example"} }, ""},
		"in the common name": {func(b *csrtest.Builder) {
			b.Subject, b.DNS, b.Email = csrtest.CN("ann@DEV.example"), nil, []string{"ann@dev.example"}
		}, ""},
		"a name of a person": {func(b *csrtest.Builder) {
			b.Subject, b.DNS, b.Email = csrtest.CN("Ann"), nil, []string{"ann@dev.example"}
		}, "subject.common-name"},
		"somebody else's":     {func(b *csrtest.Builder) { b.Subject, b.DNS, b.Email = nil, nil, []string{"ann@other.example"} }, "names.namespace"},
		"no mailbox":          {func(b *csrtest.Builder) { b.Subject, b.DNS = nil, nil }, "names.count"},
		"a host":              {func(b *csrtest.Builder) { b.Subject = nil }, "names.types"},
		"a mailbox with name": {func(b *csrtest.Builder) { b.Subject, b.DNS, b.Email = nil, nil, []string{"Ann <ann@dev.example>"} }, "names.email"},
	} {
		with(c.change)(t, &r)
		got := refusing(set.Decide(r))
		if c.rule == "" && len(got) != 0 || c.rule != "" && !slices.Contains(got, c.rule) {
			t.Errorf("%s: refused by %v, want %q", name, got, c.rule)
		}
	}
}

// TestWhatRuledGoesOn: of a set that ruled before, a demand that is not met is told, with its line; anything else is refused as ever.
func TestWhatRuledGoesOn(t *testing.T) {
	content, err := shipped.ReadFile("profiles/tls-public.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(content), "  except:\n", "  except:\n    - {lint: e_some, reason: r}\n", 1)
	files := []File{{Name: "tls-public.yaml", Content: []byte(text)}}
	var failed *LoadError
	if _, err := LoadFiles(files); !errors.As(err, &failed) || failed.Problems[0].Field != "lint.except" {
		t.Errorf("what is to rule: %v", err)
	}
	set, unmet, err := LoadRuled(files)
	if err != nil || len(unmet) != 1 || unmet[0].Field != "lint.except" || unmet[0].Line == 0 || len(set.Names()) != 1 {
		t.Errorf("what ruled: %+v, %v", unmet, err)
	}
	back := []File{{Name: "plain.yaml", Content: []byte(strings.Replace(plain, "backdate: 5m", "backdate: 48h", 1))}}
	if _, unmet, err := LoadRuled(back); err != nil || len(unmet) != 1 || unmet[0].Field != "validity.backdate" {
		t.Errorf("what ruled and is backdated to the limit: %+v, %v", unmet, err)
	}
	files[0].Content = []byte(text + "future: field\n")
	if _, _, err := LoadRuled(files); !errors.As(err, &failed) || failed.Problems[0].Field != "future" {
		t.Errorf("what is not understood: %v", err)
	}
}
