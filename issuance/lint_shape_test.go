package issuance

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3/lint"
	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
	"pgregory.net/rapid"

	"github.com/chancery-ca/chancery/policies"
)

// findAlone finds what is wrong with a certificate that zcrypto has parsed.
func (l *linter) findAlone(c *zx509.Certificate) []Finding {
	var room [1024]byte
	return l.find(l.sight(room[:0], c, false), c, nil)
}

// allLint selects every lint of every source but some: of three, the words follow the order of a map; two take longer than all others.
func allLint() policies.Lint {
	var all policies.Lint
	for _, name := range []string{
		"e_ext_duplicate_extension", "e_key_usage_and_extended_key_usage_inconsistent", "e_ext_cannot_be_empty_sequence",
		"e_ecdsa_small_private_key", "e_rsa_fermat_factorization",
	} {
		all.Except = append(all.Except, policies.LintException{Lint: name})
	}
	for _, source := range lint.GlobalRegistry().Sources() {
		all.Sources = append(all.Sources, string(source))
	}
	return all
}

// shaped are certificates, by name, that have a shape: of zlint's corpus, and some mutants of ours.
func shaped(t testing.TB, l *linter) map[string]*zx509.Certificate {
	corpus, changed := zlintCorpus(t), mutants(t)
	for i, name := range slices.Sorted(maps.Keys(changed)) {
		if c, err := zx509.ParseCertificate(changed[name]); err == nil && i%4 == 0 {
			corpus[name] = c
		}
	}
	maps.DeleteFunc(corpus, func(_ string, c *zx509.Certificate) bool {
		_, _, ok := l.shape(nil, c, false)
		return !ok
	})
	if len(corpus) < 1000 {
		t.Fatalf("%d certificates have a shape", len(corpus))
	}
	return corpus
}

// each runs every lint, and nothing but that.
func (l *linter) each(c *zx509.Certificate) []Finding { return sorted(l.run(nil, l.lints, c)) }

func sorted(findings []Finding) []Finding {
	_ = refusal(findings)
	return findings
}

// parts are the elements of a certificate that can be put together anew. Extensions are by their index.
type parts struct {
	version, serial, algorithm, issuer, validity, subject, key cryptobyte.String
	extensions                                                 []cryptobyte.String
	rest                                                       cryptobyte.String // algorithm and signature
}

func partsOf(certificate []byte) (p parts) {
	raw := cryptobyte.String(certificate)
	var tbs, list, extensions cryptobyte.String
	raw.ReadASN1(&raw, der.SEQUENCE)
	raw.ReadASN1(&tbs, der.SEQUENCE)
	p.rest = raw
	for _, element := range []*cryptobyte.String{&p.version, &p.serial, &p.algorithm, &p.issuer, &p.validity, &p.subject, &p.key} {
		var tag der.Tag
		tbs.ReadAnyASN1Element(element, &tag)
	}
	tbs.ReadASN1(&list, der.Tag(3).ContextSpecific().Constructed())
	list.ReadASN1(&extensions, der.SEQUENCE)
	for !extensions.Empty() {
		var one cryptobyte.String
		extensions.ReadASN1Element(&one, der.SEQUENCE)
		p.extensions = append(p.extensions, one)
	}
	return p
}

func (p parts) assemble() ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, element := range []cryptobyte.String{p.version, p.serial, p.algorithm, p.issuer, p.validity, p.subject, p.key} {
				b.AddBytes(element)
			}
			b.AddASN1(der.Tag(3).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
				b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
					for _, e := range p.extensions {
						b.AddBytes(e)
					}
				})
			})
		})
		b.AddBytes(p.rest)
	})
	return b.Bytes()
}

// splice gives a certificate what varies of another. Take says of each part in turn whether to.
func splice(to, from *zx509.Certificate, take func() bool) ([]byte, error) {
	p, other := partsOf(to.Raw), partsOf(from.Raw)
	for _, part := range [][2]*cryptobyte.String{
		{&p.serial, &other.serial},
		{&p.validity, &other.validity},
		{&p.subject, &other.subject},
		{&p.key, &other.key},
	} {
		if take() {
			*part[0] = *part[1]
		}
	}
	p.extensions = slices.Clone(p.extensions)
	for i, e := range p.extensions {
		for _, o := range other.extensions {
			if id, head := headOf(o); isVarying(id) && take() {
				if _, own := headOf(e); slices.Equal(head, own) {
					p.extensions[i] = o
				}
			}
		}
	}
	return p.assemble()
}

// headOf is the identifier of an extension, and all of it before the value.
func headOf(extension cryptobyte.String) (id, head cryptobyte.String) {
	extension.ReadASN1(&extension, der.SEQUENCE)
	rest := extension
	rest.ReadASN1(&id, der.OBJECT_IDENTIFIER)
	rest.SkipOptionalASN1(der.BOOLEAN)
	return id, extension[:len(extension)-len(rest)]
}

// TestShapesSayTheSame lints certificates by their shape, and by every lint: when the shape is new, when it is known from the certificate
// itself, and when what varies was taken from another.
func TestShapesSayTheSame(t *testing.T) {
	l := linterOf(t, allLint())
	pool := shaped(t, l)
	names := slices.Sorted(maps.Keys(pool))
	alike := map[string][]string{} // certificates with the same facets, kind of key and effective dates
	like := func(c *zx509.Certificate) string {
		shape, has, _ := l.shape(nil, c, false)
		return fmt.Sprint(has, shape[2:5], c.PublicKeyAlgorithmOID, l.ahead(c.NotBefore))
	}
	for _, name := range names {
		alike[like(pool[name])] = append(alike[like(pool[name])], name)
	}
	random := mathrand.New(mathrand.NewPCG(1, 2))
	hits, differ := 0, 0
	for _, name := range names {
		own := l.each(pool[name])
		for _, when := range []string{"first", "again"} {
			if got := sorted(l.findAlone(pool[name])); !slices.Equal(got, own) {
				t.Errorf("%s, %s: %v, want %v", name, when, got, own)
			}
		}
		donors := alike[like(pool[name])]
		donor := donors[random.IntN(len(donors))]
		octets, err := splice(pool[name], pool[donor], func() bool { return random.IntN(4) > 0 })
		if err != nil {
			t.Fatal(err)
		}
		c, err := zx509.ParseCertificate(octets)
		if err != nil {
			continue
		}
		known, want := isKnown(l, c), l.each(c)
		if got := sorted(l.findAlone(c)); !slices.Equal(got, want) {
			t.Errorf("%s with what varies of %s, known %v: %v, want %v", name, donor, known, got, want)
		}
		if known && slices.Equal(shapeOf(l, pool[name]), shapeOf(l, c)) {
			sameShape(t, pool[name], c)
			hits++
			if !slices.Equal(want, own) {
				differ++
			}
		}
	}
	if hits < 1000 || differ < 50 {
		t.Errorf("%d certificates were of a known shape, and %d of these were found different from the first", hits, differ)
	}
}

func isKnown(l *linter, c *zx509.Certificate) bool { return l.shapes.get(shapeOf(l, c)) != nil }

func shapeOf(l *linter, c *zx509.Certificate) []byte {
	shape, _, _ := l.shape(nil, c, false)
	return shape
}

// sameShape holds what a parser makes of two certificates of one shape against what lint_reads_test.go says of its fields.
func sameShape(t *testing.T, a, b *zx509.Certificate) {
	t.Helper()
	x, y := reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem()
	for _, name := range shapeFields {
		if !reflect.DeepEqual(x.FieldByName(name).Interface(), y.FieldByName(name).Interface()) {
			t.Errorf("%s is said to be decided by the shape: %v, %v", name, x.FieldByName(name), y.FieldByName(name))
		}
	}
	if subject := cryptobyte.String(a.RawSubject); subject.ReadASN1(&subject, der.SEQUENCE) && facetsOf(a, subject)&otherAttributes == 0 &&
		a.ValidationLevel != b.ValidationLevel {
		t.Errorf("validation level %d and %d", a.ValidationLevel, b.ValidationLevel)
	}
	if reflect.TypeOf(a.PublicKey) != reflect.TypeOf(b.PublicKey) {
		t.Errorf("keys of type %T and %T", a.PublicKey, b.PublicKey)
	}
}

// TestFacets holds that a certificate without a facet has nothing in the fields of it.
func TestFacets(t *testing.T) {
	l := linterOf(t, rfcLint)
	for name, c := range shaped(t, l) {
		_, has, _ := l.shape(nil, c, false)
		parsed := reflect.ValueOf(c).Elem()
		for field, facet := range facetFields {
			if has&facet == 0 && field != "RawSubject" && field != "ValidationLevel" && parsed.FieldByName(field).Len() > 0 {
				t.Errorf("%s has %s: %v", name, field, parsed.FieldByName(field))
			}
		}
		for _, field := range attributeFields {
			if has&otherAttributes == 0 && parsed.FieldByName("Subject").FieldByName(field).Len() > 0 {
				t.Errorf("%s has %s in its subject", name, field)
			}
		}
		if has&aSubject == 0 && len(c.RawSubject) != 2 {
			t.Errorf("%s has a subject: %x", name, c.RawSubject)
		}
	}
}

// TestLintsLeaveCertificatesAlone holds that no lint changes what the next one reads, nor writes behind the end of a list that certificates
// of one shape share. Behind the end of others some do.
func TestLintsLeaveCertificatesAlone(t *testing.T) {
	l := linterOf(t, allLint())
	for name, c := range shaped(t, l) {
		var behind []reflect.Value
		for _, shared := range slices.Concat(shapeFields, plainFields) {
			behind = spare(reflect.ValueOf(c).Elem().FieldByName(shared), behind)
		}
		before := make([]any, len(behind))
		for i, s := range behind {
			before[i] = reflect.AppendSlice(reflect.MakeSlice(s.Type(), 0, s.Len()), s).Interface()
		}
		_ = l.each(c)
		for i, s := range behind {
			if !reflect.DeepEqual(s.Interface(), before[i]) {
				t.Errorf("linting %s wrote %v behind a list", name, s)
			}
		}
		fresh, err := zx509.ParseCertificate(c.Raw)
		if err != nil {
			t.Fatal(err)
		}
		x, y := reflect.ValueOf(c).Elem(), reflect.ValueOf(fresh).Elem()
		for i := range x.NumField() {
			if field := x.Type().Field(i); field.IsExported() && !reflect.DeepEqual(x.Field(i).Interface(), y.Field(i).Interface()) {
				t.Errorf("linting %s changed its %s", name, field.Name)
			}
		}
	}
}

// spare adds to the list what lies between length and capacity of each slice that can be reached through exported fields.
func spare(v reflect.Value, list []reflect.Value) []reflect.Value {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			list = spare(v.Elem(), list)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				list = spare(v.Field(i), list)
			}
		}
	case reflect.Slice:
		if v.Cap() > v.Len() {
			list = append(list, v.Slice3(v.Len(), v.Cap(), v.Cap()))
		}
		for i := range v.Len() {
			list = spare(v.Index(i), list)
		}
	}
	return list
}

// TestShapesOfDrafts is a property: whatever is issued, in whatever order, what is found is what every lint finds.
func TestShapesOfDrafts(t *testing.T) {
	h := ecdsaHierarchy(t)
	l := linterOf(t, allLint())
	var keys []policies.Template
	for _, public := range []crypto.PublicKey{
		p256(t).Public(), p256(t).Public(), ecdsaKey(t, elliptic.P384()).Public(), rsaKey().Public(), ed25519Key(t),
	} {
		keys = append(keys, withKey(t, leafTemplate(t, public), public))
	}
	subjects := []pkix.RDNSequence{
		nil, commonName("www.example.com"), commonName("elsewhere.example.com"), commonName(" "), commonName(strings.Repeat("a", 70)),
		append(commonName("a@example.com"), pkix.RelativeDistinguishedNameSET{{Type: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: "Example"}}),
		{{{Type: asn1.ObjectIdentifier{2, 5, 4, 6}, Value: "at"}}},
	}
	uses := []asn1.ObjectIdentifier{oidServerAuth, {1, 3, 6, 1, 5, 5, 7, 3, 2}, {1, 3, 6, 1, 5, 5, 7, 3, 4}, {1, 3, 6, 1, 5, 5, 7, 3, 3}}
	names := []string{"www.example.com", "a_b.example.com", "localhost", "-.example.co.uk", "*.com", "xn--a.example"}
	found := 0
	rapid.Check(t, func(t *rapid.T) {
		tpl := rapid.SampledFrom(keys).Draw(t, "key")
		tpl.Subject = rapid.SampledFrom(subjects).Draw(t, "subject")
		tpl.DNS = rapid.SliceOfN(rapid.SampledFrom(names), 0, 2).Draw(t, "DNS")
		tpl.Email = rapid.SliceOfN(rapid.SampledFrom([]string{"a@example.com", "nobody"}), 0, 1).Draw(t, "email")
		tpl.ExtKeyUsage = rapid.SliceOfN(rapid.SampledFrom(uses), 0, 1).Draw(t, "use")
		tpl.WriteSubjectKeyID = rapid.Bool().Draw(t, "key identifier")
		tpl.NotBefore = now.AddDate(rapid.IntRange(-15, 5).Draw(t, "years"), 0, 0)
		tpl.NotAfter = tpl.NotBefore.AddDate(0, rapid.SampledFrom([]int{1, 8, 40}).Draw(t, "months"), 0)
		c, err := zx509.ParseCertificate(draftOf(t, h.issuing, tpl, marker{}))
		if err != nil {
			t.Fatal(err)
		}
		if isKnown(l, c) {
			found++
		}
		if got, want := sorted(l.findAlone(c)), l.each(c); !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
	})
	if found == 0 {
		t.Error("no shape was met twice")
	}
}

// TestShapesOfMany lints more shapes than are remembered, from several goroutines.
func TestShapesOfMany(t *testing.T) {
	some := allLint()
	some.Sources = rfcLint.Sources
	l := linterOf(t, some)
	pool := shaped(t, l)
	want := map[string][]Finding{}
	for name, c := range pool {
		want[name] = l.each(c)
	}
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for name, c := range pool { // in an order of its own
				own := *c
				if got := sorted(l.findAlone(&own)); !slices.Equal(got, want[name]) {
					t.Errorf("%s: %v, want %v", name, got, want[name])
				}
			}
		})
	}
	wait.Wait()
	if n := len(*l.shapes.known.Load()); n == 0 || n > maxShapes {
		t.Errorf("%d shapes are remembered", n)
	}
}

// saying is a lint that says something else each time.
type saying struct{ results *[]lint.LintResult }

func (saying) CheckApplies(*zx509.Certificate) bool { return true }

func (s saying) Execute(*zx509.Certificate) *lint.LintResult {
	next := (*s.results)[0]
	*s.results = (*s.results)[1:]
	if next.Details == "panic" {
		panic("index out of range")
	}
	return &next
}

// TestFailuresAreNotRemembered runs a lint that the shape decides, until it has an answer.
func TestFailuresAreNotRemembered(t *testing.T) {
	c, err := zx509.ParseCertificate(ourDraft(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	results := []lint.LintResult{{Details: "panic"}, {Status: lint.Fatal}, {Status: lint.Warn, Details: "why"}, {Status: lint.Pass}}
	l := &linter{configuration: lint.NewEmptyConfig(), lints: []*lint.CertificateLint{{
		LintMetadata: lint.LintMetadata{Name: "e_basic_constraints_not_critical", Source: lint.RFC5280},
		Lint:         func() lint.CertificateLintInterface { return saying{&results} },
	}}}
	for turn, want := range []string{"fatal", "fatal", "warn", "warn"} {
		if got := l.findAlone(c); len(got) != 1 || got[0].Level != want {
			t.Errorf("turn %d: %v, want %s", turn, got, want)
		}
	}
	if len(results) != 1 {
		t.Errorf("the lint was asked again: %d answers are left", len(results))
	}
}

// TestShapeOfDates lints certificates that begin just before and at the date from which a lint holds.
func TestShapeOfDates(t *testing.T) {
	h := ecdsaHierarchy(t)
	l := linterOf(t, publicLint)
	for _, date := range l.dates {
		if date.Year() < 1950 {
			continue // no certificate begins there
		}
		for _, begin := range []time.Time{date.Add(-time.Second), date} {
			tpl := leafTemplate(t, p256(t).Public())
			tpl.NotBefore, tpl.NotAfter = begin.UTC(), begin.UTC().AddDate(1, 0, 0)
			c, err := zx509.ParseCertificate(draftOf(t, h.issuing, tpl, marker{}))
			if err != nil {
				t.Fatal(err)
			}
			if got, want := sorted(l.findAlone(c)), l.each(c); !slices.Equal(got, want) {
				t.Errorf("beginning at %s: %v, want %v", begin, got, want)
			}
		}
	}
}

func draftOf(t fataler, i *Issuer, tpl policies.Template, m marker) []byte {
	t.Helper()
	serial, err := NewSerial(now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tbs, err := marshalMarkedTBS(frame{i.key.algorithm, serial, i.certificate.RawSubject, i.certificate.SubjectKeyId}, &tpl, m)
	if err != nil {
		t.Fatal(err)
	}
	draft, err := i.key.draft(tbs)
	if err != nil {
		t.Fatal(err)
	}
	return draft
}
