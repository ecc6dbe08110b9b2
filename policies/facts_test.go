package policies

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/chancery-ca/chancery/csr/csrtest"
)

func TestKeyReuse(t *testing.T) {
	same := KeyUse{Namespace: "dev", Names: []string{"host.dev.example"}, Serial: "0a"}
	more := KeyUse{Namespace: "dev", Names: []string{"host.dev.example", "::1"}, Serial: "0b"}
	ops := KeyUse{Namespace: "ops", Names: []string{"host.dev.example"}, Serial: "0c"}
	for _, c := range []struct {
		reuse   string
		history []KeyUse
		refuse  string // part of the first message; empty: allowed
	}{
		{"", nil, ""},
		{"{reuse: anywhere}", []KeyUse{same, more, ops}, ""},
		{"{reuse: same-namespace}", nil, "is not known"},
		{"{reuse: same-namespace}", []KeyUse{}, ""},
		{"{reuse: same-namespace}", []KeyUse{same, more}, ""},
		{"{reuse: same-namespace}", []KeyUse{same, ops}, "for another namespace"},
		{"{reuse: same-names}", []KeyUse{}, ""},
		{"{reuse: same-names}", []KeyUse{same}, ""},
		{"{reuse: same-names}", []KeyUse{same, more}, `for other names, under the serial "0b"`},
		{"{reuse: same-names}", []KeyUse{ops}, "for another namespace"},
	} {
		set := changed(t)
		if c.reuse != "" {
			set = changed(t, "keys:\n", "keys:\n  "+strings.Trim(c.reuse, "{}")+"\n")
		}
		r := benign(t)
		r.Profile, r.KeyHistory = "plain", c.history
		d := set.Decide(r)
		result := resultOf(t, d, "key.reuse")
		switch {
		case c.refuse == "" && d.Verdict() != Allow:
			t.Errorf("%s after %v: %v", c.reuse, c.history, d.Violations())
		case c.refuse != "" && (result.Verdict != Refuse || !strings.Contains(result.Violations[0].Message, c.refuse)):
			t.Errorf("%s after %v: %v, want %q", c.reuse, c.history, result.Violations, c.refuse)
		case d.Awaits().KeyHistory != (c.refuse == "is not known"):
			t.Errorf("%s after %v: awaits %v", c.reuse, c.history, d.Awaits())
		}
	}
}

// caaProfile is one that asks for CAA records.
func caaProfile(t *testing.T) *Set {
	return changed(t, "dns: {}", "dns: {public: true, wildcards: true, caa: true}")
}

func caaRequest(t *testing.T, names ...string) Request {
	r := benign(t)
	r.Profile, r.Issuer.CAADomains = "plain", []string{"ca.example.net", "other.example.net"}
	with(func(b *csrtest.Builder) { b.Subject, b.DNS = nil, names })(t, &r)
	return r
}

func TestCAA(t *testing.T) {
	record := func(tag, value string) CAARecord { return CAARecord{Tag: tag, Value: value} }
	critical := func(tag string) CAARecord { return CAARecord{Critical: true, Tag: tag} }
	ours, theirs, nobody := record("issue", "ca.example.net"), record("issue", "else.example"), record("issue", ";")
	const name, wildcard = "www.example.com", "*.example.com"
	for _, c := range []struct {
		name    string
		records []CAARecord
		allow   bool
	}{
		{name, nil, true},
		{name, []CAARecord{ours}, true},
		{name, []CAARecord{theirs, ours}, true},
		{name, []CAARecord{record("ISSUE", " CA.example.net ;")}, true},
		{name, []CAARecord{record("issue", "other.example.net")}, true},
		{name, []CAARecord{record("iodef", "mailto:a@example.com")}, true},
		{name, []CAARecord{critical("iodef"), ours}, true},
		{name, []CAARecord{record("unknown", "x")}, true},
		{name, []CAARecord{record("issuewild", ";")}, true},
		{name, []CAARecord{theirs}, false},
		{name, []CAARecord{nobody}, false},
		{name, []CAARecord{record("issue", "")}, false},
		{name, []CAARecord{record("issue", "ca.example.net; accounturi=https://a.example/1")}, false},
		{name, []CAARecord{record("issue", "ca.example.net.")}, false},
		{name, []CAARecord{record("issue", "ca.example.net x")}, false},
		{name, []CAARecord{record("issue", "%%%%%")}, false},
		{name, []CAARecord{ours, critical("tbs")}, false},
		{name, []CAARecord{critical("tbs")}, false},
		{wildcard, nil, true},
		{wildcard, []CAARecord{ours}, true},
		{wildcard, []CAARecord{theirs}, false},
		{wildcard, []CAARecord{theirs, record("issuewild", "ca.example.net")}, true},
		{wildcard, []CAARecord{ours, record("issuewild", "else.example")}, false},
		{wildcard, []CAARecord{ours, record("issuewild", ";")}, false},
	} {
		r := caaRequest(t, c.name)
		r.CAA = []CAAAnswer{{Name: strings.TrimPrefix(c.name, "*."), At: "example.com", Records: c.records}}
		d := caaProfile(t).Decide(r)
		result := resultOf(t, d, "names.caa")
		if (d.Verdict() == Allow) != c.allow || !d.Awaits().None() {
			t.Errorf("%s with %v: %s, %v, awaits %v", c.name, c.records, d.Verdict(), d.Violations(), d.Awaits())
		}
		if !c.allow && (len(result.Violations) != 1 || result.Violations[0].Temporary || result.Violations[0].Field != "subjectAltName.dns[0]") {
			t.Errorf("%s with %v: %v", c.name, c.records, result.Violations)
		}
	}
}

// TestCAAIsAwaited holds that the names to ask about are told when nothing else stands in the way, and only then.
func TestCAAIsAwaited(t *testing.T) {
	set := caaProfile(t)
	r := caaRequest(t, "www.example.com", "*.example.com", "example.com")
	d := set.Decide(r)
	if got := d.Awaits().CAA; d.Verdict() != Refuse || !slices.Equal(got, []string{"www.example.com", "example.com"}) {
		t.Errorf("%s, awaits %q", d.Verdict(), got)
	}
	if _, err := d.Grant(); err == nil {
		t.Error("a decision that awaits facts grants")
	}
	r.CAA = []CAAAnswer{{Name: "www.example.com"}}
	if got := set.Decide(r).Awaits().CAA; !slices.Equal(got, []string{"example.com"}) {
		t.Errorf("with one answer, awaits %q", got)
	}
	r.CAA = append(r.CAA, CAAAnswer{Name: "example.com", Failure: "SERVFAIL"})
	d = set.Decide(r)
	_, err := d.Grant()
	refusal, _ := err.(*Refusal)
	if refusal == nil || !refusal.Temporary() || len(refusal.Violations) != 2 || !d.Awaits().None() {
		t.Errorf("after a failure: %v, awaits %v", err, d.Awaits())
	}
	r.CAA, r.KeyLists = nil, []string{"leaked"}
	if d := set.Decide(r); !d.Awaits().None() || !slices.Equal(refusing(d), []string{"key.listed"}) || resultOf(t, d, "names.caa").Verdict != NotReached {
		t.Errorf("a request that is refused anyway awaits %v, and is refused by %q", d.Awaits(), refusing(d))
	}
	r.CAA = []CAAAnswer{{Name: "www.example.com", Failure: "SERVFAIL"}, {Name: "example.com"}}
	if _, err := set.Decide(r).Grant(); err.(*Refusal).Temporary() {
		t.Error("a refusal for good and for now counts as one for now")
	}
	r = caaRequest(t, "www.example.com")
	if d := shippedSet(t).Decide(Request{CSR: r.CSR, Profile: "tls-public", Actor: r.Actor, Namespace: r.Namespace, Issuer: r.Issuer, Now: r.Now}); d.Verdict() != Allow {
		t.Errorf("a profile that does not ask for CAA records: %v", d.Violations())
	}
}

func FuzzCAAValue(f *testing.F) {
	for _, value := range []string{"ca.example.net", ";", "", "ca.example.net; a=b", "ca-.example", " a ; ; ", "a..b"} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		domain, _, ok := issueValue(value)
		if !ok && domain != "" {
			t.Fatalf("%q is not sound and names %q", value, domain)
		}
		if caaPermits(value, []string{"ca.example.net"}) && !strings.EqualFold(strings.Trim(value, " \t;"), "ca.example.net") {
			t.Fatalf("%q permits", value)
		}
	})
}

func TestConfusableNamesAreNoticed(t *testing.T) {
	for name, want := range map[string]string{
		"xn--80ak6aa92e.example":    `read as "apple"`, // аррӏе, all Cyrillic
		"xn--pypal-4ve.example":     `read as "paypal"`,
		"xn--ab-to2i723k.example":   "", // Latin and Hangul go together
		"xn--abc-u68do18h.example":  "", // Latin and Han go together
		"xn--bcher-kva.example":     "",
		"xn--fiqs8s.xn--j6w193g":    "",
		"a.dev.example":             "",
		"www.xn--a-ltb.dev.example": "mixes scripts: Latin, Cyrillic",
	} {
		r := benign(t)
		r.Namespace.DNS = []string{"*"}
		with(func(b *csrtest.Builder) { b.Subject, b.DNS = nil, []string{name} })(t, &r)
		result := resultOf(t, shippedSet(t).Decide(r), "names.confusable")
		switch {
		case result.Verdict != Allow:
			t.Errorf("%s: %s", name, result.Verdict)
		case want == "" && len(result.Notices) > 0:
			t.Errorf("%s: %v", name, result.Notices)
		case want != "" && (len(result.Notices) == 0 || !strings.Contains(result.Notices[0].Message, want)):
			t.Errorf("%s: %v, want %q", name, result.Notices, want)
		}
	}
}

// TestLookalikes holds that the table holds lower-case letters of IDNA2008 alone, so that each entry can occur.
func TestLookalikes(t *testing.T) {
	for r, ascii := range lookalikes {
		if problem := idnaProblem(string(r)); problem != "" || ascii < 'a' || ascii > 'z' || r < 0x80 {
			t.Errorf("%q for %q: %s", r, ascii, problem)
		}
	}
}

// Rules that gather facts are the same whatever the order of history and answers.
func TestFactsHaveNoOrder(t *testing.T) {
	set := changed(t, "keys:\n", "keys:\n  reuse: same-names\n")
	r := benign(t)
	r.Profile = "plain"
	rapid.Check(t, func(t *rapid.T) {
		use := rapid.Custom(func(t *rapid.T) KeyUse {
			return KeyUse{
				Namespace: rapid.SampledFrom([]string{"dev", "ops"}).Draw(t, "namespace"), Serial: "01",
				Names: rapid.SliceOfN(rapid.SampledFrom([]string{"host.dev.example", "other.dev.example"}), 1, 3).Draw(t, "names"),
			}
		})
		r.KeyHistory = rapid.SliceOfN(use, 0, 4).Draw(t, "history")
		got := set.Decide(r).Verdict()
		want := Allow
		for _, u := range r.KeyHistory {
			if u.Namespace != "dev" || slices.Contains(u.Names, "other.dev.example") {
				want = Refuse
			}
		}
		slices.Reverse(r.KeyHistory)
		if again := set.Decide(r).Verdict(); got != want || again != want {
			t.Fatalf("%v: %s, then %s, want %s", r.KeyHistory, got, again, want)
		}
	})
}
