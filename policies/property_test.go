package policies

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/chancery-ca/chancery/csr"
	"github.com/chancery-ca/chancery/csr/csrtest"
)

// drawnRules are rules that refuse or hold back some of the requests that drawRequest draws.
var drawnRules = []string{
	`expression: 'cert.dns.all(n, !n.isWildcard())'`,
	`expression: 'cert.validity <= duration("480h")'`,
	`expression: 'cert.key.algorithm == "ECDSA"', effect: approve`,
	`expression: 'cert.dns.size() + cert.ip.size() < 3'`,
	`expression: 'has(csr.subject.commonName)', effect: approve`,
	`expression: 'cert.dns[1] != ""'`, // which often cannot be told
	`expression: 'csr.validity > duration("0s") || cert.names.exists(n, n.isUnder("example.com"))', effect: approve`,
}

// drawnProfile is a profile with those of the drawn rules that a mask names.
func drawnProfile(t *rapid.T, known map[uint]*Set, mask uint) *Set {
	if set, ok := known[mask]; ok {
		return set
	}
	rules := ""
	for i, r := range drawnRules {
		if mask&(1<<i) != 0 {
			rules += fmt.Sprintf("  - {id: r%d, message: m, hint: h, %s}\n", i, r)
		}
	}
	if rules != "" {
		rules = "rules:\n" + rules
	}
	text := strings.Replace(plain, "  min: 1\n  dns: {}\n", `  min: 1
  dns: {wildcards: true}
  ip: {reserved: true}
  permitted: {dns: [example.com, dev.example], ip: [8.8.8.0/24, 127.0.0.0/8]}
  excluded: {dns: [a.example.com, "xn--bcher-kva.example.com"], ip: [8.8.8.9/32]}
`, 1)
	text = strings.Replace(text, "keys:", "keys:\n  rsa: {min: 2048, max: 4096, key_usage: [digitalSignature]}", 1)
	text = strings.Replace(text, "lint:", "approval: {count: 1}\n"+rules+"lint:", 1)
	if mask&0b1010100 != 0 { // some rule asks for approval
		text = strings.Replace(text, "{count: 1}", "{count: 1, when: rules}", 1)
	} else {
		text = strings.Replace(text, "approval: {count: 1}\n", "", 1)
	}
	set, err := Load(file("plain.yaml", text))
	if err != nil {
		t.Fatal(err)
	}
	known[mask] = set
	return set
}

// drawSound draws requests of which most break no rule but those of drawnRules.
func drawSound(t *rapid.T) csrtest.Builder {
	b := csrtest.Builder{Key: csrtest.FixedKeys().P256}
	if rapid.Bool().Draw(t, "rsa") {
		b.Key = csrtest.FixedKeys().RSA2048
	}
	names := []string{"host.dev.example", "*.dev.example", "b.example.com", "c.example.com", "d.example.com", "e.dev.example", "f.dev.example", "a.example.com"}
	b.DNS = rapid.SliceOfNDistinct(rapid.SampledFrom(names), 1, 3, rapid.ID[string]).Draw(t, "names")
	if rapid.Bool().Draw(t, "common name") {
		b.Subject = csrtest.CN(b.DNS[0])
	}
	if rapid.Bool().Draw(t, "address") {
		b.IP = []netip.Addr{netip.MustParseAddr(rapid.SampledFrom([]string{"8.8.8.8", "8.8.8.7", "127.0.0.2", "127.0.0.1", "8.8.8.9"}).Draw(t, "ip"))}
	}
	return b
}

// allowance orders verdicts: more is allowed by the greater.
func allowance(v Verdict) int { return map[Verdict]int{Refuse: 0, NeedsApproval: 1, Allow: 2}[v] }

// TestOneRuleMoreNeverAllowsMore holds that adding a rule of a profile's own, whatever it says, takes away and never gives, that what is
// still granted is the same to the byte, and that decisions repeat.
func TestOneRuleMoreNeverAllowsMore(t *testing.T) {
	base := benign(t)
	known := map[uint]*Set{}
	seen := map[Verdict]int{}
	lost := 0
	rapid.Check(t, func(t *rapid.T) {
		r := base
		r.Profile = "plain"
		if rapid.Bool().Draw(t, "asks") {
			r.Validity = time.Duration(rapid.Int64Range(1, 95*24).Draw(t, "hours")) * time.Hour
		}
		der, err := drawSound(t).Build()
		if err != nil {
			t.Fatal(err)
		}
		if r.CSR, err = csr.Parse(der); err != nil {
			return
		}
		all := rapid.UintRange(0, 1<<len(drawnRules)-1)
		mask := all.Draw(t, "rules") & all.Draw(t, "of these") // few enough that something is left to allow
		more := mask | 1<<rapid.UintRange(0, uint(len(drawnRules)-1)).Draw(t, "one more")
		with := drawnProfile(t, known, more)
		before, after := drawnProfile(t, known, mask).Decide(r), with.Decide(r)
		if allowance(after.Verdict()) > allowance(before.Verdict()) {
			t.Fatalf("%s became %s with a rule more", before.Verdict(), after.Verdict())
		}
		if again := with.Decide(r); !reflect.DeepEqual(again, after) || !reflect.DeepEqual(again.Results(), after.Results()) {
			t.Fatal("two decisions on one request")
		}
		seen[after.Verdict()]++
		template, ok := after.Template()
		if !ok {
			if before.Verdict() != Refuse {
				lost++
			}
			return
		}
		if was, _ := before.Template(); !reflect.DeepEqual(was, template) {
			t.Fatalf("the template changed:\n%+v\n%+v", was, template)
		}
		p, _ := with.Profile("plain")
		if problem := outside(template, p, r); problem != "" {
			t.Fatalf("%s: %+v", problem, template)
		}
		if _, err := after.Grant(); (err == nil) != (after.Verdict() == Allow) {
			t.Fatalf("%s without approvals: %v", after.Verdict(), err)
		}
	})
	if seen[Allow] == 0 || seen[Refuse] == 0 || lost+seen[NeedsApproval] == 0 {
		t.Fatalf("the property was tried on too little: %v, %d lost", seen, lost)
	}
}

// TestStandardsOnlyLower holds that following a standard never lengthens what may be asked for, on any day.
func TestStandardsOnlyLower(t *testing.T) {
	free := changed(t)
	bound, err := Load(file("plain.yaml", strings.Replace(strings.Replace(plain, "max: 90d", "max: 900d", 1), "lint:", "standards: [private-default]\nlint:", 1)))
	if err != nil {
		t.Fatal(err)
	}
	p, _ := free.Profile("plain")
	q, _ := bound.Profile("plain")
	rapid.Check(t, func(t *rapid.T) {
		at := time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "second"), 0)
		if p.MaxValidityAt(at) != 90*day || q.MaxValidityAt(at) > 398*day || q.validity.defaultAt(at) > q.MaxValidityAt(at) {
			t.Fatalf("at %s: %s, %s", at, p.MaxValidityAt(at), q.MaxValidityAt(at))
		}
	})
}
