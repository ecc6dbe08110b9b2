package policies

import (
	"slices"
	"testing"

	"github.com/chancery-ca/chancery/csr"
	"github.com/chancery-ca/chancery/csr/csrtest"
)

// wanted is the rule of tls-server that refuses each hostile request of csrtest. Where the key is at fault the signature must not be
// reached.
var wanted = map[string]string{
	"two-common-names": "subject.structure", "cn-not-in-san": "subject.common-name", "unknown-subject-attribute": "subject.attributes",
	"multi-valued-rdn": "subject.structure", "no-names-at-all": "names.count", "cn-without-san": "names.count",
	"wildcard-middle": "names.dns-syntax", "wildcard-partial": "names.dns-syntax", "wildcard-twice": "names.dns-syntax",
	"wildcard-tld": "names.wildcard", "wildcard-alone": "names.dns-syntax", "trailing-dot": "names.dns-syntax",
	"leading-dot": "names.dns-syntax", "empty-label": "names.dns-syntax", "empty-dns": "names.dns-syntax", "ip-in-dns": "names.dns-syntax",
	"ipv6-in-dns": "names.dns-syntax", "url-in-dns": "names.dns-syntax", "port-in-dns": "names.dns-syntax", "email-in-dns": "names.dns-syntax",
	"space-in-dns": "names.dns-syntax", "underscore": "names.dns-syntax", "hyphen-first": "names.dns-syntax",
	"label-too-long": "names.dns-syntax", "name-too-long": "names.dns-syntax", "outside-namespace": "names.namespace",
	"suffix-of-namespace": "names.namespace", "1000-names": "names.count", "othername": "names.types", "x400address": "names.types",
	"directoryname": "names.types", "edipartyname": "names.types", "registeredid": "names.types", "v4-mapped-ip": "names.ip",
	"ip-outside-namespace": "names.namespace", "email-in-tls": "names.types", "uri-in-tls": "names.types",
	"p-224": "key.allowed", "rsa-1024": "key.allowed", "rsa-close-primes": "key.close-primes", "rsa-exponent-3": "key.exponent",
	"rsa-exponent-1": "key.exponent", "rsa-exponent-2": "key.exponent", "rsa-even-exponent": "key.exponent", "rsa-huge-exponent": "key.exponent",
	"rsa-even-modulus": "key.modulus", "rsa-roca": "key.roca", "rsa-512": "key.allowed", "rsa-2047": "key.allowed",
	"rsa-16384": "key.allowed", "rsa-131072": "key.allowed",
	"ca-true": "extensions.basic-constraints", "ca-true-path-0": "extensions.basic-constraints",
	"key-usage-cert-sign": "extensions.key-usage", "key-usage-crl-sign": "extensions.key-usage",
	"ext-key-usage-code-signing": "extensions.ext-key-usage", "ext-key-usage-ocsp-signing": "extensions.ext-key-usage",
	"ext-key-usage-any": "extensions.ext-key-usage", "unknown-critical-extension": "extensions.unknown", "name-constraints": "extensions.unknown",
	"precertificate-poison": "extensions.unknown", "microsoft-extension-request": "request.attributes", "unknown-attribute": "request.attributes",
}

// elsewhere are the hostile requests that are wrong for tls-server alone, and right for another profile.
var elsewhere = map[string]string{"cn-without-san": "ocsp-responder", "email-in-tls": "tls-client", "uri-in-tls": "tls-client"}

// expected names the rule for cases that only their signature refuses.
func expected(t *testing.T, c csrtest.Case) string {
	t.Helper()
	if c.Policy == "" {
		return "signature.proof"
	}
	rule, ok := wanted[c.Policy]
	if !ok {
		t.Fatalf("no rule is written down for the hostile request %q", c.Policy)
	}
	return rule
}

// TestHostileCorpus holds that every hostile request which can be read is refused by every shipped profile, and by tls-server for the one
// reason that it has.
func TestHostileCorpus(t *testing.T) {
	set := shippedSet(t)
	r := benign(t)
	seen := make(map[string]bool)
	for _, c := range csrtest.Hostile() {
		if c.Rule != "" {
			continue
		}
		request, err := csr.Parse(c.DER)
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		want := expected(t, c)
		seen[want] = true
		r.CSR = request
		for _, profile := range set.Names() {
			r.Profile = profile
			r.Namespace.Profiles = set.Names()
			d := set.Decide(r)
			if elsewhere[c.Policy] == profile {
				continue
			}
			if _, ok := d.Template(); ok || d.Verdict() != Refuse || len(d.Violations()) == 0 {
				t.Errorf("%s, %s: got %s with %v", c.Name, profile, d.Verdict(), d.Violations())
			}
			if profile != "tls-server" {
				continue
			}
			if !slices.Contains(refusing(d), want) {
				t.Errorf("%s: refused by %v, want %s", c.Name, refusing(d), want)
			}
			if signature := resultOf(t, d, "signature.proof").Verdict; (want[:4] == "key.") != (signature == NotReached) {
				t.Errorf("%s: the signature is %s", c.Name, signature)
			}
		}
	}
	for _, rule := range wanted {
		if !seen[rule] {
			t.Errorf("no hostile request is refused by %s any more", rule)
		}
	}
}

// TestBenignCorpus holds that tls-server allows ordinary requests, and refuses only those without a name.
func TestBenignCorpus(t *testing.T) {
	set := shippedSet(t)
	r := benign(t)
	for _, c := range csrtest.Benign() {
		request, err := csr.Parse(c.DER)
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		r.CSR = request
		d := set.Decide(r)
		if want := request.Names().Len() > 0; (d.Verdict() == Allow) != want {
			t.Errorf("%s: got %s, %v", c.Name, d.Verdict(), d.Violations())
		}
	}
}
