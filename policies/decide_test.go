package policies

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/chancery-ca/chancery/csr"
	"github.com/chancery-ca/chancery/csr/csrtest"
)

// TestTemplate holds what a certificate says to what the profile and the issuer say, and nothing else.
func TestTemplate(t *testing.T) {
	r := benign(t)
	with(func(b *csrtest.Builder) {
		b.Subject = append(csrtest.CN("Host.DEV.example"), csrtest.Attr{OID: csrtest.OIDOrganization, Value: "Evil Ltd"})
		b.DNS = []string{"b.dev.example", "HOST.dev.example", "host.dev.example", "*.dev.example"}
		b.IP = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback(), netip.MustParseAddr("127.0.0.1")}
	})(t, &r)
	set := shippedSet(t)
	d := set.Decide(r)
	g, err := d.Grant()
	if err != nil {
		t.Fatal(err)
	}
	spki := spkiOf(t, csrtest.FixedKeys().P256.Public())
	begin := now.Add(-5 * time.Minute).Truncate(time.Second)
	want := Template{
		Subject: pkix.RDNSequence{{{Type: oidCommonName, Value: "host.dev.example"}}},
		SPKI:    spki, PublicKey: csrtest.FixedKeys().P256.Public(),
		NotBefore: begin, NotAfter: begin.Add(90*day - time.Second),
		DNS:      []string{"b.dev.example", "host.dev.example", "*.dev.example"},
		IP:       []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: oidsOf(extKeyUsages[:1]), PathLen: -1,
		CRLURL: "http://ca.example/crl/issuing-1.crl", IssuerURLs: []string{"http://ca.example/ca/issuing-1.cer"},
		OCSPURLs: []string{"http://ca.example/ocsp/issuing-1"}, CRLScope: "issuing-1/0",
		SubjectKeyID: g.Template().SubjectKeyID, WriteSubjectKeyID: true,
	}
	if got := g.Template(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if sum := sha256.Sum256(spki[len(spki)-65:]); !bytes.Equal(g.Template().SubjectKeyID, sum[:20]) {
		t.Errorf("the key identifier is %x", g.Template().SubjectKeyID)
	}
	if !g.Valid() || g.Profile() != "tls-server" || g.PolicyDigest() != set.Digest() || len(g.Lint().Sources) == 0 {
		t.Errorf("the grant does not say what granted it: %+v", g)
	}
}

func TestTemplatesOfOtherProfiles(t *testing.T) {
	set := shippedSet(t)
	r := benign(t)
	r.Namespace.Profiles = set.Names()

	r.Profile = "tls-public"
	with(func(b *csrtest.Builder) {
		b.Key, b.Subject, b.DNS = csrtest.FixedKeys().RSA2048, csrtest.CN("www.example.com"), []string{"www.example.com"}
	})(t, &r)
	public, ok := set.Decide(r).Template()
	if !ok || len(public.Subject) != 0 || public.WriteSubjectKeyID || len(public.Policies) != 1 ||
		public.KeyUsage != x509.KeyUsageDigitalSignature|x509.KeyUsageKeyEncipherment {
		t.Errorf("tls-public: %+v", public)
	}

	r.Profile = "ocsp-responder"
	with(func(b *csrtest.Builder) { b.Subject, b.DNS = csrtest.CN("OCSP 1"), nil })(t, &r)
	responder, ok := set.Decide(r).Template()
	if !ok || !responder.OCSPNoCheck || responder.CRLURL != "" || responder.OCSPURLs != nil || responder.IssuerURLs == nil || responder.CRLScope == "" {
		t.Errorf("ocsp-responder: %+v", responder)
	}

	r.Profile = "code-signing"
	with(func(b *csrtest.Builder) {
		b.DNS, b.Subject = nil, append(csrtest.CN("Release"), csrtest.Attr{OID: csrtest.OIDOrganization, Value: "Example Ltd"},
			csrtest.Attr{OID: csrtest.OIDCountry, Value: "DE"})
	})(t, &r)
	code, ok := set.Decide(r).Template()
	want := pkix.RDNSequence{{{Type: oidCountry, Value: "DE"}}, {{Type: oidOrganisation, Value: "Example Ltd"}}, {{Type: oidCommonName, Value: "Release"}}}
	if !ok || !reflect.DeepEqual(code.Subject, want) {
		t.Errorf("code-signing: %+v", code.Subject)
	}
}

func TestFixedAttribute(t *testing.T) {
	set := changed(t, "    - {type: commonName", "    - {type: organizationName, presence: fixed, value: Example Ltd}\n    - {type: commonName")
	r := benign(t)
	r.Profile = "plain"
	d := set.Decide(r)
	if template, ok := d.Template(); !ok || template.Subject[0][0].Value != "Example Ltd" {
		t.Fatalf("got %+v, %v", template.Subject, d.Violations())
	}
	with(func(b *csrtest.Builder) {
		b.Subject = append(b.Subject, csrtest.Attr{OID: csrtest.OIDOrganization, Value: "Evil Ltd"})
	})(t, &r)
	if got := refusing(set.Decide(r)); !slices.Equal(got, []string{"subject.attributes"}) {
		t.Fatalf("another value than the fixed one: refused by %v", got)
	}
}

func TestBeginsWithTheIssuer(t *testing.T) {
	r := benign(t)
	begin := now.Add(-time.Minute).Truncate(time.Second)
	r.Issuer.Certificate = issuingAuthority(t, func(c *x509.Certificate) { c.NotBefore = begin })
	template, ok := shippedSet(t).Decide(r).Template()
	if !ok || !template.NotBefore.Equal(begin) || !template.NotAfter.Equal(begin.Add(90*day-time.Second)) {
		t.Fatalf("got %s to %s, %v", template.NotBefore, template.NotAfter, ok)
	}
}

// TestAllViolationsAtOnce holds that a requester learns everything in one answer, and that the answer is bounded.
func TestAllViolationsAtOnce(t *testing.T) {
	r := benign(t)
	r.Validity = 1000 * day
	with(func(b *csrtest.Builder) {
		b.Subject = csrtest.CN("other.example")
		b.DNS = []string{"evil.example", "a_b.dev.example"}
		b.Email = []string{"a@dev.example"}
		b.Extensions = []csrtest.Extension{{OID: csrtest.OIDBasicConstraints, Value: []byte{0x30, 3, 1, 1, 0xff}}}
	})(t, &r)
	d := shippedSet(t).Decide(r)
	want := []string{"subject.common-name", "names.types", "names.dns-syntax", "names.namespace", "extensions.basic-constraints", "validity"}
	if got := refusing(d); !slices.Equal(got, want) {
		t.Errorf("refused by %v, want %v", got, want)
	}
	if len(d.Results()) != len(rules) {
		t.Errorf("%d verdicts for %d rules", len(d.Results()), len(rules))
	}

	with(func(b *csrtest.Builder) {
		b.Subject, b.DNS = nil, nil
		for i := range csr.MaxNames {
			b.DNS = append(b.DNS, fmt.Sprintf("h%d_.evil.example", i))
		}
	})(t, &r)
	d = shippedSet(t).Decide(r)
	if n := len(d.Violations()); n == 0 || n > maxViolations {
		t.Errorf("%d violations are reported", n)
	}
	if result := resultOf(t, d, "names.namespace"); len(result.Violations) != maxViolationsOfRule || !strings.Contains(result.Violations[maxViolationsOfRule-1].Message, "more of this kind") {
		t.Errorf("got %d violations, the last %+v", len(result.Violations), result.Violations[len(result.Violations)-1])
	}
}

func TestHostileTextIsQuoted(t *testing.T) {
	r := benign(t)
	r.Profile = "\x1b[2J" + strings.Repeat("x", 10_000)
	message := shippedSet(t).Decide(r).Violations()[0].Message
	if strings.Contains(message, "\x1b") || len(message) > 300 {
		t.Errorf("%d octets: %.200q", len(message), message)
	}
}

func TestZeroValuesRefuse(t *testing.T) {
	for name, d := range map[string]*Decision{
		"no set":     (*Set)(nil).Decide(benign(t)),
		"empty set":  (&Set{}).Decide(benign(t)),
		"no request": shippedSet(t).Decide(Request{}),
		"authority":  DecideAuthority(AuthorityRequest{}),
	} {
		var refusal *Refusal
		if g, err := d.Grant(); g.Valid() || !errors.As(err, &refusal) || len(refusal.Violations) == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, d := range map[string]*Decision{"nil": nil, "zero": {}} {
		if g, err := d.Grant(); g.Valid() || !errors.Is(err, ErrUndecided) || d.Verdict() != Refuse {
			t.Errorf("%s decision: %v", name, err)
		}
	}
	if new(Grant).Valid() {
		t.Error("the zero grant is valid")
	}
}

// TestKeyIdentifier is the value that RFC 7093's method 1 gives for a key of all zeros, computed by hand from the definition.
func TestKeyIdentifier(t *testing.T) {
	// SEQUENCE { SEQUENCE { OID 1.3.101.112 }, BIT STRING of 32 zero octets }
	spki := append([]byte{0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0}, make([]byte, 32)...)
	got, err := keyIdentifier(spki)
	if want := "66687aadf862bd776c8fc18b8e9f8e2008971485"; err != nil || hex.EncodeToString(got) != want {
		t.Errorf("got %x, %v", got, err)
	}
	if _, err := keyIdentifier(append(spki, 0)); err == nil {
		t.Error("trailing data was accepted")
	}
}

// TestNothingFallsOutsideOfTheProfile is the promise of the engine: whatever is asked, what is granted lies within the profile, the
// namespace and the issuer, and the same request gets the same decision.
func TestNothingFallsOutsideOfTheProfile(t *testing.T) {
	set := shippedSet(t)
	base := benign(t)
	granted := 0
	rapid.Check(t, func(t *rapid.T) {
		r := base
		r.Profile = rapid.SampledFrom(set.Names()).Draw(t, "profile")
		if rapid.Bool().Draw(t, "listed") {
			r.Namespace.Profiles = set.Names()
		}
		if !rapid.Bool().Draw(t, "default") {
			r.Validity = time.Duration(rapid.Int64Range(-1, 500*24).Draw(t, "hours")) * time.Hour
		}
		b := drawRequest(t, r.Profile)
		der, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		if r.CSR, err = csr.Parse(der); err != nil {
			return
		}
		d := set.Decide(r)
		if again := set.Decide(r); !reflect.DeepEqual(d, again) {
			t.Fatalf("two decisions on one request:\n%+v\n%+v", d, again)
		}
		template, ok := d.Template()
		if (d.Verdict() == Allow) != ok || ok != (len(d.Violations()) == 0) {
			t.Fatalf("%s, template %v, violations %v", d.Verdict(), ok, d.Violations())
		}
		if !ok {
			return
		}
		granted++
		p, _ := set.Profile(r.Profile)
		if problem := outside(template, p, r); problem != "" {
			t.Fatalf("%s: %+v", problem, template)
		}
	})
	if granted == 0 {
		t.Fatal("nothing was granted: the property holds of nothing")
	}
}

// drawRequest draws a request from sound parts, and in half of the cases from unsound ones as well.
func drawRequest(t *rapid.T, profile string) csrtest.Builder {
	wild := rapid.Bool().Draw(t, "wild")
	pick := func(what string, sound, unsound []string) string {
		if wild {
			sound = append(slices.Clone(sound), unsound...)
		}
		return rapid.SampledFrom(sound).Draw(t, what)
	}
	some := func(what string, most int) int { return rapid.IntRange(0, most).Draw(t, what) }
	b := csrtest.Builder{Key: csrtest.FixedKeys().P256}
	if rapid.Bool().Draw(t, "rsa") {
		b.Key = csrtest.FixedKeys().RSA2048
	}
	if wild || strings.HasPrefix(profile, "tls-") {
		for range some("dns", 3) {
			label := pick("label", []string{"host", "HOST", "a", "xn--bcher-kva"}, []string{"a_b", "*", "xn--a", "", "127", "-x", "x y"})
			b.DNS = append(b.DNS, label+"."+pick("suffix", []string{"example.com", "x.EXAMPLE.com"},
				[]string{"dev.example", "example", "com", "evil.example", "localhost", "dev.example.", "0.0.1"}))
		}
		for range some("ip", 1) {
			b.IP = append(b.IP, netip.MustParseAddr(pick("address", []string{"8.8.8.8", "8.8.8.9"}, []string{"127.0.0.1", "::1", "::ffff:8.8.8.8", "10.0.0.1"})))
		}
	}
	if wild || profile == "tls-client" {
		for range some("email", 1) {
			b.Email = append(b.Email, pick("mailbox", []string{"a@dev.example", "a@DEV.example"}, []string{"a@evil.example", "a"}))
		}
		for range some("uri", 1) {
			b.URI = append(b.URI, pick("uri", []string{"spiffe://dev.example/a"}, []string{"spiffe://evil.example/a", "ftp://dev.example/"}))
		}
	}
	unsound := []string{"host.example.com", "a\u200b", "Evil Ltd", "de", strings.Repeat("x", 70)}
	for range some("common name", 1) {
		b.Subject = append(b.Subject, csrtest.CN(pick("cn", append([]string{"Example"}, b.DNS...), unsound))...)
	}
	for range some("organisation", 1) {
		b.Subject = append(b.Subject, csrtest.Attr{OID: csrtest.OIDOrganization, Value: pick("o", []string{"Example Ltd"}, unsound)})
	}
	for range some("country", 1) {
		b.Subject = append(b.Subject, csrtest.Attr{OID: csrtest.OIDCountry, Value: pick("c", []string{"DE"}, unsound)})
	}
	return b
}

// outside says how a template falls outside of what it was granted by.
func outside(t Template, p *Profile, r Request) string {
	for _, name := range t.DNS {
		if p.names.dns == nil || !r.Namespace.OwnsDNS(name) || name != strings.ToLower(name) || strings.ContainsAny(name, "_ ") {
			return "a DNS name"
		}
		if strings.HasPrefix(name, "*.") && !p.names.dns.wildcards || strings.Contains(strings.TrimPrefix(name, "*."), "*") {
			return "a wildcard"
		}
	}
	for _, a := range t.IP {
		if p.names.ip == nil || !r.Namespace.OwnsIP(a) || a.Is4In6() {
			return "an address"
		}
	}
	for _, m := range t.Email {
		if p.names.email == nil || !r.Namespace.OwnsEmail(m) {
			return "a mailbox"
		}
	}
	for _, u := range t.URI {
		if p.names.uri == nil || !r.Namespace.OwnsURI(u) {
			return "a URI"
		}
	}
	if n := len(t.DNS) + len(t.IP) + len(t.Email) + len(t.URI); n < p.names.min || n > p.names.max {
		return "the number of names"
	}
	for _, rdn := range t.Subject {
		a, ok := p.subject.attribute(rdn[0].Type)
		value, isText := rdn[0].Value.(string)
		if !ok || !isText || len(rdn) != 1 || a.presence == checked || attributeProblem(a, value) != "" {
			return "the subject"
		}
		if a.oid.Equal(oidOrganisation) && !r.Namespace.OwnsOrganisation(value) {
			return "the organisation"
		}
		if a.oid.Equal(oidCommonName) && p.subject.commonName == commonNameCopies && !slices.Contains(t.DNS, value) &&
			!slices.Contains(t.Email, value) && !slices.Contains(t.URI, value) && !slices.ContainsFunc(t.IP, func(a netip.Addr) bool { return a.String() == value }) {
			return "the common name"
		}
	}
	lifetime := t.NotAfter.Sub(t.NotBefore) + time.Second
	switch {
	case lifetime > p.validity.maxAt(r.Now) || lifetime <= 0 || t.NotAfter.After(r.Issuer.Certificate.NotAfter) || t.NotBefore.Before(r.Issuer.Certificate.NotBefore):
		return "the validity"
	case t.NotBefore.After(r.Now) || !t.NotAfter.After(r.Now) || t.NotBefore.Nanosecond() != 0 || t.NotBefore.Location() != time.UTC:
		return "the times"
	case t.CA || t.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 || t.KeyUsage != p.keys.usage[r.CSR.Key().Algorithm]:
		return "the key usage"
	case !reflect.DeepEqual(t.ExtKeyUsage, p.extKeyUsage) || p.restricted && !r.Namespace.Lists(p.name):
		return "the purposes"
	case !bytes.Equal(t.SPKI, r.CSR.Key().SPKI) || len(t.SubjectKeyID) != 20:
		return "the key"
	}
	return ""
}

// withoutSignature is a set whose profiles ask every rule but the one that verifies the request's signature.
func withoutSignature(set *Set) *Set {
	bare := &Set{digest: set.digest, profiles: make(map[string]*Profile), names: set.names}
	for name, p := range set.profiles {
		copied := *p
		copied.rules = p.rules[:len(p.rules)-1]
		bare.profiles[name] = &copied
	}
	return bare
}

// fiveRules are rules such as teams write.
const fiveRules = `rules:
  - {id: team, message: m, hint: h, expression: 'cert.dns.all(n, n.isUnder("dev.example"))'}
  - {id: short, message: m, hint: h, expression: 'cert.validity <= duration("2160h") || "ops" in requester.groups'}
  - {id: key, message: m, hint: h, expression: 'cert.key.algorithm == "ECDSA" || cert.key.bits >= 3072'}
  - {id: labels, message: m, hint: h, expression: 'cert.dns.all(n, n.labels().size() <= 5 && n.matches("^[a-z.]+$"))'}
  - {id: office-hours, message: m, hint: h, expression: 'now.getHours() >= 6 && now.getHours() < 22 || requester.namespace != "prod"'}
lint:`

// BenchmarkDecide measures decisions with the signature, without it, and the signature alone. Reading the request is not among it.
func BenchmarkDecide(b *testing.B) {
	shipped, own := shippedSet(b), changed(b, "lint:", fiveRules)
	r := benign(b)
	keys := csrtest.FixedKeys()
	for _, c := range []struct {
		name    string
		set     *Set
		profile string
		b       csrtest.Builder
	}{
		{"P-256", shipped, "tls-server", csrtest.Base()},
		{"RSA-2048", shipped, "tls-server", csrtest.Builder{Key: keys.RSA2048, DNS: []string{"host.dev.example"}}},
		{"100 names", shipped, "tls-server", csrtest.Builder{Key: keys.P256, DNS: many(100)}},
		{"5 expressions", own, "plain", csrtest.Base()},
	} {
		r.CSR, r.Profile = parseCSR(b, c.b), c.profile
		if d := c.set.Decide(r); d.Verdict() != Allow {
			b.Fatal(d.Violations())
		}
		for _, part := range []struct {
			name string
			set  *Set
		}{{"with the signature", c.set}, {"without", withoutSignature(c.set)}} {
			b.Run(c.name+"/"+part.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					part.set.Decide(r)
				}
			})
		}
		b.Run(c.name+"/signature alone", func(b *testing.B) {
			for b.Loop() {
				if err := r.CSR.VerifySignature(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkExplain measures a decision with all that its rules saw, beyond the signature.
func BenchmarkExplain(b *testing.B) {
	set := withoutSignature(changed(b, "lint:", fiveRules))
	r := benign(b)
	r.Profile = "plain"
	b.ReportAllocs()
	for b.Loop() {
		set.Decide(r).Results()
	}
}

// BenchmarkLoad measures the loading of the shipped profiles, and of one with expressions.
func BenchmarkLoad(b *testing.B) {
	b.Run("shipped", func(b *testing.B) {
		for b.Loop() {
			shippedSet(b)
		}
	})
	b.Run("5 expressions", func(b *testing.B) {
		for b.Loop() {
			changed(b, "lint:", fiveRules)
		}
	})
}
