package trial

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/csr"
	"github.com/chancery-ca/chancery/policies"
)

var now = time.Date(2026, 11, 23, 12, 30, 15, 123456000, time.UTC)

// webProfile is a profile whose parts tests change.
const webProfile = `name: web
description: For tests.
keys: {ecdsa: {curves: [P-256], key_usage: [digitalSignature]}}
ext_key_usage: [serverAuth]
validity: {default: 30d, max: 90d, backdate: 5m}
subject:
  attributes: [{type: commonName, presence: optional}]
  common_name: copy-of-san
names: {min: 1, dns: {wildcards: %t}}
lint: {sources: [RFC5280]}
`

func webSet(t testing.TB, wildcards bool) *policies.Set {
	t.Helper()
	set, err := policies.LoadFiles([]policies.File{{Name: "web.yaml", Content: fmt.Appendf(nil, webProfile, wildcards)}})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func requestFor(t testing.TB, names ...string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: names[0]}, DNSNames: names}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func world(t testing.TB) World {
	t.Helper()
	issuer, err := NewIssuer(rand.Reader, now)
	if err != nil {
		t.Fatal(err)
	}
	return World{
		Namespaces: map[string]access.Namespace{"team": {Name: "team", DNS: []string{"team.example"}}},
		Issuers:    map[string]policies.Issuer{"issuing-1": issuer},
	}
}

// decided is a request of the past as a set decided on it.
func decided(t testing.TB, set *policies.Set, w World, id string, request []byte, validity time.Duration) Past {
	t.Helper()
	parsed, err := csr.Parse(request)
	if err != nil {
		t.Fatal(err)
	}
	p := Past{ID: id, At: now, CSR: request, Profile: "web", Namespace: "team", Issuer: "issuing-1", Validity: validity, Actor: access.Actor{ID: "a", Namespace: "team"}}
	d := set.Decide(policies.Request{
		CSR: parsed, Profile: p.Profile, Validity: validity, Actor: p.Actor, Namespace: w.Namespaces["team"], Issuer: w.Issuers["issuing-1"], Now: p.At,
	})
	for _, r := range d.Results() {
		if r.Verdict != policies.Allow {
			p.Objections = append(p.Objections, r)
		}
	}
	if content, ok := d.Template(); ok {
		p.Certificate = &Certificate{
			Serial: "1c" + id, Subject: content.Subject.String(), Names: content.Names(), NotBefore: content.NotBefore, NotAfter: content.NotAfter,
		}
	}
	return p
}

func each(past ...Past) iter.Seq2[Past, error] {
	return func(yield func(Past, error) bool) {
		for _, p := range past {
			if !yield(p, nil) {
				return
			}
		}
	}
}

func TestHistoryUnderTheSameSetIsTheSame(t *testing.T) {
	w, set := world(t), webSet(t, true)
	r, err := Backtest(t.Context(), set, w, each(
		decided(t, set, w, "1", requestFor(t, "www.team.example"), 0),
		decided(t, set, w, "2", requestFor(t, "*.team.example"), 60*24*time.Hour),
		decided(t, set, w, "3", requestFor(t, "www.other.example"), 0),
		decided(t, set, w, "4", requestFor(t, "www.team.example"), 1000*24*time.Hour),
	), Options{})
	if err != nil || r.Requests != 4 || r.Replayed != 4 || r.Unchanged != 4 || r.Changes() != 0 || r.Policy != set.Digest() {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestWhatWouldChange(t *testing.T) {
	w, before := world(t), webSet(t, true)
	plain, wild := requestFor(t, "www.team.example"), requestFor(t, "*.team.example")
	late := decided(t, before, w, "3", plain, 0)
	late.Certificate.NotAfter = late.Certificate.NotAfter.Add(time.Second)
	renamed := decided(t, before, w, "4", plain, 0)
	renamed.Certificate.Names, renamed.Certificate.Subject = []string{"a.team.example"}, "CN=a.team.example"
	unproven := decided(t, before, w, "5", plain, 0)
	unproven.Objections = []policies.RuleResult{{Rule: "signature.proof", Verdict: policies.Refuse}}
	unproven.Certificate = nil
	overQuota := unproven
	overQuota.Objections = []policies.RuleResult{{Rule: "quota", Verdict: policies.Refuse}}
	elsewhere, nobody, own := late, late, late
	elsewhere.Issuer, nobody.Namespace, own.CSR = "gone", "gone", nil
	broken := decided(t, before, w, "6", plain, 0)
	broken.CSR = broken.CSR[:40]

	r, err := Backtest(t.Context(), webSet(t, false), w, each(
		decided(t, before, w, "1", plain, 0), decided(t, before, w, "2", wild, 0), late, renamed, unproven, overQuota, elsewhere, nobody, own, broken,
	), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for what, pair := range map[string][2]any{
		"requests":   {r.Requests, 10},
		"replayed":   {r.Replayed, 6},
		"unchanged":  {r.Unchanged, 2},
		"changed":    {r.Changed, map[Kind]int{RefusedNow: 2, ContentNow: 2}},
		"profiles":   {r.Profiles, map[string]int{"web": 4}},
		"namespaces": {r.Namespaces, map[string]int{"team": 4}},
		"rules":      {r.Rules, map[string]int{"names.wildcard": 1, "csr": 1, "validity": 1, "names": 1, "subject": 1}},
		"skipped":    {r.Skipped, map[string]int{skippedOwn: 1, skippedNamespace: 1, skippedIssuer: 1, skippedFacts: 1}},
		"examples":   {len(r.Examples), 4},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("%s: %v, want %v", what, pair[0], pair[1])
		}
	}
	// The other way round, what was refused could be had.
	r, err = Backtest(t.Context(), before, w, each(decided(t, webSet(t, false), w, "1", wild, 0)), Options{})
	if err != nil || r.Changed[AllowedNow] != 1 || r.Rules["names.wildcard"] != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestWhatWasApprovedIsCompared: persons agreed to the certificate, days after it was asked for, and would have to again. What it would say
// otherwise is told as of any other.
func TestWhatWasApprovedIsCompared(t *testing.T) {
	w := world(t)
	set := func(more string) *policies.Set {
		content := fmt.Sprintf(webProfile, false) + "approval: {count: 1}\n" + more
		set, err := policies.LoadFiles([]policies.File{{Name: "web.yaml", Content: []byte(content)}})
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	before := set("")
	past := decided(t, before, w, "1", requestFor(t, "www.team.example"), 0)
	if len(past.Objections) != 1 || past.Certificate == nil {
		t.Fatalf("%+v", past)
	}
	const wait = 50 * time.Hour
	past.Certificate.NotBefore, past.Certificate.NotAfter = past.Certificate.NotBefore.Add(wait), past.Certificate.NotAfter.Add(wait)
	named, longer, waiting := past, past, past
	other, late := *past.Certificate, *past.Certificate
	other.Names, late.NotAfter = []string{"a.team.example"}, late.NotAfter.Add(time.Hour)
	named.Certificate, longer.Certificate, waiting.Certificate = &other, &late, nil
	for name, c := range map[string]struct {
		past  Past
		rules map[string]int
	}{
		"the same":                {past, map[string]int{}},
		"other names":             {named, map[string]int{"names": 1}},
		"another validity":        {longer, map[string]int{"validity": 1}},
		"one that nobody decided": {waiting, map[string]int{}},
	} {
		r, err := Backtest(t.Context(), set("subject_key_id: true\n"), w, each(c.past), Options{})
		if err != nil || !maps.Equal(r.Rules, c.rules) || r.Changed[ContentNow] != len(c.rules) {
			t.Errorf("%s: %+v, %v; want %v", name, r, err, c.rules)
		}
	}
}

// issued is what a profile's certificate says of its uses, in a certificate of nobody's.
func issued(t testing.TB, content policies.Template) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), KeyUsage: content.KeyUsage, UnknownExtKeyUsage: content.ExtKeyUsage}
	for _, oid := range content.Policies {
		policy, err := x509.ParseOID(oid.String())
		if err != nil {
			t.Fatal(err)
		}
		template.Policies = append(template.Policies, policy)
	}
	if content.WriteSubjectKeyID {
		template.SubjectKeyId = content.SubjectKeyID
	}
	if content.OCSPNoCheck {
		template.ExtraExtensions = []pkix.Extension{{Id: oidOCSPNoCheck, Value: []byte{5, 0}}}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestWhatACertificateIsForIsCompared changes what a profile writes and no request asks for.
func TestWhatACertificateIsForIsCompared(t *testing.T) {
	w := world(t)
	set := func(pairs ...string) *policies.Set {
		content := strings.NewReplacer(pairs...).Replace(fmt.Sprintf(webProfile, false) + "restricted: true\n")
		set, err := policies.LoadFiles([]policies.File{{Name: "web.yaml", Content: []byte(content)}})
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	n := w.Namespaces["team"]
	n.Profiles = []string{"web"}
	w.Namespaces["team"] = n
	before := set("lint:", "certificate_policies: [1.2.3, 1.2.4]\nsubject_key_id: true\nlint:", "[serverAuth]", "[serverAuth, clientAuth]")
	request := requestFor(t, "www.team.example")
	past := decided(t, before, w, "1", request, 0)
	parsed, err := csr.Parse(request)
	if err != nil {
		t.Fatal(err)
	}
	content, ok := before.Decide(policies.Request{
		CSR: parsed, Profile: "web", Actor: past.Actor, Namespace: n, Issuer: w.Issuers["issuing-1"], Now: now,
	}).Template()
	if !ok {
		t.Fatal("the request is refused")
	}
	past.Certificate.DER = issued(t, content)
	damaged := past
	certificate := *past.Certificate
	certificate.DER, damaged.Certificate = certificate.DER[1:], &certificate
	const same = "certificate_policies: [1.2.4, 1.2.3]\nsubject_key_id: true\nlint:"
	for name, c := range map[string]struct {
		past   Past
		change []string
		rules  map[string]int
	}{
		"nothing":     {past, []string{"lint:", same, "[serverAuth]", "[clientAuth, serverAuth]"}, map[string]int{}},
		"a purpose":   {past, []string{"lint:", same}, map[string]int{"ext_key_usage": 1}},
		"a usage":     {past, []string{"lint:", same, "[serverAuth]", "[clientAuth, serverAuth]", "[digitalSignature]", "[digitalSignature, keyAgreement]"}, map[string]int{"key_usage": 1}},
		"policies":    {past, []string{"lint:", "subject_key_id: true\nlint:", "[serverAuth]", "[clientAuth, serverAuth]"}, map[string]int{"certificate_policies": 1}},
		"its key's":   {past, []string{"lint:", "certificate_policies: [1.2.3, 1.2.4]\nlint:", "[serverAuth]", "[clientAuth, serverAuth]"}, map[string]int{"subject_key_id": 1}},
		"a responder": {past, []string{"lint:", same + "\n", "[serverAuth]", "[OCSPSigning]\nocsp_no_check: true"}, map[string]int{"ext_key_usage": 1, "ocsp_no_check": 1}},
		"damage":      {damaged, []string{"lint:", same, "[serverAuth]", "[clientAuth, serverAuth]"}, map[string]int{"certificate": 1}},
	} {
		r, err := Backtest(t.Context(), set(c.change...), w, each(c.past), Options{})
		if err != nil || !maps.Equal(r.Rules, c.rules) || r.Changed[ContentNow] != min(1, len(c.rules)) {
			t.Errorf("%s: %+v, %v; want %v", name, r, err, c.rules)
		}
	}
}

// However the work is shared out, the report is the same.
func TestTheReportDoesNotDependOnTheWorkers(t *testing.T) {
	w, before, after := world(t), webSet(t, true), webSet(t, false)
	kinds := []Past{
		decided(t, before, w, "", requestFor(t, "www.team.example"), 0), decided(t, before, w, "", requestFor(t, "*.team.example"), 0),
		decided(t, before, w, "", requestFor(t, "www.other.example"), 0),
	}
	rapid.Check(t, func(t *rapid.T) {
		var past []Past
		for i, kind := range rapid.SliceOfN(rapid.IntRange(0, 2), 0, 700).Draw(t, "kinds") {
			p := kinds[kind]
			p.ID, p.At = fmt.Sprintf("%04d", i), now
			past = append(past, p)
		}
		var reports []*Report
		for _, workers := range []int{1, 4} {
			told, found := 0, 0
			r, err := Backtest(context.Background(), after, w, each(past...), Options{
				Workers: workers, Progress: func(done int) { told = done }, Each: func(Finding) error { found++; return nil },
			})
			if err != nil || told != len(past) || found != r.Changes() {
				t.Fatalf("%d of %d told, %d of %d found, %v", told, len(past), found, r.Changes(), err)
			}
			reports = append(reports, r)
		}
		if !reflect.DeepEqual(reports[0], reports[1]) {
			t.Fatalf("one worker reports %+v, four %+v", reports[0], reports[1])
		}
	})
}

func TestABacktestEndsWithItsInput(t *testing.T) {
	w, set := world(t), webSet(t, true)
	p := decided(t, set, w, "1", requestFor(t, "*.team.example"), 0)
	torn := errors.New("the database is away")
	endless := func(yield func(Past, error) bool) {
		for yield(p, nil) {
		}
	}
	_, err := Backtest(t.Context(), set, w, func(yield func(Past, error) bool) {
		for range 1000 {
			if !yield(p, nil) {
				return
			}
		}
		yield(Past{}, torn)
	}, Options{})
	if !errors.Is(err, torn) {
		t.Errorf("a torn input: %v", err)
	}
	full := errors.New("the disk is full")
	if _, err := Backtest(t.Context(), webSet(t, false), w, endless, Options{Each: func(Finding) error { return full }}); !errors.Is(err, full) {
		t.Errorf("a full disk: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := Backtest(ctx, set, w, endless, Options{Progress: func(int) { cancel() }}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled context: %v", err)
	}
}

// BenchmarkBacktest is how fast history is replayed, reading it apart. The issue is 20,000 decisions a second on two processors.
func BenchmarkBacktest(b *testing.B) {
	w, set := world(b), webSet(b, true)
	kinds := []Past{
		decided(b, set, w, "1", requestFor(b, "www.team.example", "team.example"), 0), decided(b, set, w, "2", requestFor(b, "*.team.example"), 0),
	}
	after := webSet(b, false)
	b.ReportAllocs()
	past := func(yield func(Past, error) bool) {
		for i := range b.N {
			if !yield(kinds[i%2], nil) {
				return
			}
		}
	}
	if _, err := Backtest(b.Context(), after, w, past, Options{}); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "decisions/s")
}
