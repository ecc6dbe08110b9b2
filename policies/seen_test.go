package policies

import (
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/csr"
	"github.com/chancery-ca/chancery/csr/csrtest"
)

// TestEveryRuleShowsWhatItSaw holds that explain has a value for every rule that was reached, also of hostile requests, and that it is fit
// to be shown.
func TestEveryRuleShowsWhatItSaw(t *testing.T) {
	set := shippedSet(t)
	r := benign(t)
	for _, c := range append(csrtest.Hostile(), csrtest.Benign()...) {
		request, err := csr.Parse(c.DER)
		if err != nil {
			continue
		}
		r.CSR = request
		for _, result := range set.Decide(r).Results() {
			reached := result.Verdict != NotReached
			if reached == (result.Seen == "") && result.Rule != "quota" {
				t.Errorf("%s: %s says %s and saw %q", c.Name, result.Rule, result.Verdict, result.Seen)
			}
			if len(result.Seen) > maxSeen+3 || strings.ContainsFunc(result.Seen, func(r rune) bool { return r < ' ' || r > '~' }) {
				t.Errorf("%s: %s saw what cannot be shown: %q", c.Name, result.Rule, result.Seen)
			}
		}
	}
}

func TestSeen(t *testing.T) {
	r := benign(t)
	b := csrtest.Base()
	b.Key, b.Subject, b.DNS = csrtest.FixedKeys().RSA2048, csrtest.CN("host.dev.example"), []string{"host.dev.example", `a"b.dev.example`}
	r.CSR, r.Validity = parseCSR(t, b), 30*day
	d := shippedSet(t).Decide(r)
	for rule, want := range map[string]string{
		"profile.unknown":                 `"tls-server"`,
		"issuer.signs":                    `"issuing-1"`,
		"key.allowed":                     "RSA 2048 bits",
		"key.exponent":                    "exponent 65537",
		"subject.structure":               `commonName="host.dev.example"`,
		"names.count":                     "2 names; from 1 to 100 are allowed",
		"names.dns-syntax":                `dns:"host.dev.example", dns:"a\"b.dev.example"`,
		"names.ip":                        "none",
		"extensions.basic-constraints":    "not asked for",
		"extensions.key-usage":            "not asked for",
		"extensions.issuer-ext-key-usage": "serverAuth; from authorities for all purposes",
		"validity":                        "30d asked for, 398d at most: 2026-11-23T12:25:15Z to 2026-12-23T12:25:14Z",
		"approval":                        "nobody",
	} {
		if got := resultOf(t, d, rule).Seen; got != want {
			t.Errorf("%s saw %s, want %s", rule, got, want)
		}
	}
}
