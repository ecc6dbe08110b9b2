package issuance

import (
	"crypto"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"maps"
	"math/big"
	mathrand "math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3/lint"
	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
	"pgregory.net/rapid"

	"github.com/chancery-ca/chancery/policies"
)

// The fields of a certificate that its shape decides are shapeFields in lint_reads_test.go. These are all others.
var (
	variedFields = []string{
		"Raw", "RawTBSCertificate", "RawSubjectPublicKeyInfo", "RawSubject", "Signature", "PublicKey", "SerialNumber", "Subject", "NotBefore",
		"NotAfter", "Extensions", "SubjectKeyId", "DNSNames", "EmailAddresses", "URIs", "IPAddresses", "SignedCertificateTimestampList",
	}
	derivedFields = []string{
		"ValidityPeriod", "ExtensionsMap", "FingerprintMD5", "FingerprintSHA1", "FingerprintSHA256", "FingerprintNoCT", "SPKIFingerprint",
		"SPKISubjectFingerprint", "TBSCertificateFingerprint",
	}
	// plainFields would vary, but not where varying reads a certificate.
	plainFields = []string{"OtherNames", "DirectoryNames", "EDIPartyNames", "RegisteredIDs", "FailedToParseNames", "ValidationLevel"}
	// unparsedFields are for others than the parser to fill.
	unparsedFields = []string{"ExtraExtensions", "UnhandledCriticalExtensions", "ValidSignature", "parsedDNSNames", "parsedCommonName"}
)

// TestEveryFieldIsSpokenOf fails when another zcrypto has another field. Then someone has to see what its parser fills it with.
func TestEveryFieldIsSpokenOf(t *testing.T) {
	left := map[string]bool{}
	certificate := reflect.TypeFor[zx509.Certificate]()
	for i := range certificate.NumField() {
		left[certificate.Field(i).Name] = true
	}
	for _, name := range slices.Concat(shapeFields, variedFields, derivedFields, plainFields, unparsedFields) {
		if !left[name] {
			t.Errorf("%s is no field, or spoken of twice", name)
		}
		delete(left, name)
	}
	if len(left) > 0 {
		t.Errorf("nothing is said of %v", slices.Sorted(maps.Keys(left)))
	}
}

// sameReading holds what the linter reads of a draft against what zcrypto parses of it, and tells whether that was made from a specimen.
func sameReading(t fataler, l *linter, draft []byte) (fromSpecimen bool) {
	t.Helper()
	read, err := x509.ParseCertificate(draft)
	if err != nil {
		return false
	}
	varies := varying(read)
	if varies != nil {
		shape, _, _ := l.shape(nil, varies, true)
		known := l.shapes.get(shape)
		fromSpecimen = known != nil && known.specimen != nil
	}
	got, _, gotErr := l.parse(nil, draft, varies)
	want, wantErr := zx509.ParseCertificate(draft)
	if (gotErr == nil) != (wantErr == nil) {
		t.Fatal(fmt.Sprintf("%v, and zcrypto says: %v\n%x", gotErr, wantErr, draft))
	}
	if wantErr != nil {
		return fromSpecimen
	}
	if differ := differing(got, want); len(differ) > 0 || !reflect.DeepEqual(got, want) {
		t.Fatal(fmt.Sprintf("%v differ from what zcrypto parses of\n%x", differ, draft))
	}
	if varies == nil {
		return fromSpecimen
	}
	shape, has, ok := l.shape(nil, varies, true)
	if wantShape, wantHas, wantOK := l.shape(nil, want, true); !slices.Equal(shape, wantShape) || has != wantHas || ok != wantOK {
		t.Fatal(fmt.Sprintf("the shape is %x, %b, %v; of what zcrypto parses %x, %b, %v", shape, has, ok, wantShape, wantHas, wantOK))
	}
	return fromSpecimen
}

func differing(a, b *zx509.Certificate) (names []string) {
	x, y := reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem()
	for i := range x.NumField() {
		if field := x.Type().Field(i); field.IsExported() && !reflect.DeepEqual(x.Field(i).Interface(), y.Field(i).Interface()) {
			names = append(names, field.Name)
		}
	}
	return names
}

// reader is a linter without a lint, which reads certificates and learns their shapes like any other.
func reader() *linter { return &linter{configuration: lint.NewEmptyConfig()} }

// TestSpecimensOfCorpus reads certificates of zlint's corpus after others of their shape, made by exchanging what varies.
func TestSpecimensOfCorpus(t *testing.T) {
	l := reader()
	pool := shaped(t, l)
	names := slices.Sorted(maps.Keys(pool))
	random := mathrand.New(mathrand.NewPCG(1, 2))
	made, plain := 0, 0
	for _, name := range names {
		_ = l.check(pool[name].Raw)
		if sameReading(t, l, pool[name].Raw) {
			plain++
		}
		for range 4 {
			donor := pool[names[random.IntN(len(names))]]
			draft, err := splice(pool[name], donor, func() bool { return random.IntN(4) > 0 })
			if err != nil {
				t.Fatal(err)
			}
			if sameReading(t, l, draft) {
				made++
			}
		}
	}
	if plain < 700 || made < 700 {
		t.Errorf("of %d certificates, %d were read again by a specimen, and %d others", len(names), plain, made)
	}
}

// TestSpecimensOfDrafts is a property: whatever is issued, in whatever order, what is read is what zcrypto parses, and what is found is
// what every lint finds in that.
func TestSpecimensOfDrafts(t *testing.T) {
	issuers := []*Issuer{ecdsaHierarchy(t).issuing, newHierarchy(t, p256(t), rsaKey()).issuing}
	l := linterOf(t, allLint())
	var keys []policies.Template
	for _, public := range []crypto.PublicKey{
		p256(t).Public(), p256(t).Public(), ecdsaKey(t, elliptic.P384()).Public(), ecdsaKey(t, elliptic.P521()).Public(),
		rsaKey().Public(), ed25519Key(t),
	} {
		keys = append(keys, withKey(t, leafTemplate(t, public), public))
	}
	organization := pkix.RelativeDistinguishedNameSET{{Type: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: "Größenwahn"}}
	unit := pkix.RelativeDistinguishedNameSET{{Type: asn1.ObjectIdentifier{2, 5, 4, 11}, Value: "Domain Control Validated"}}
	subjects := []pkix.RDNSequence{
		nil, commonName("www.example.com"), commonName("elsewhere"), append(commonName("Größenwahn"), organization), // which says a level
		append(commonName("www.example.com"), organization, organization), {unit}, // and so does this
	}
	marks := []marker{{}, {poison: true}, {scts: sctList(t, someSCT(), someSCT())}, {scts: sctList(t, someSCT())}}
	made := 0
	rapid.Check(t, func(t *rapid.T) {
		tpl := rapid.SampledFrom(keys).Draw(t, "key")
		tpl.WriteSubjectKeyID = rapid.Bool().Draw(t, "key identifier")
		tpl.Policies = rapid.SampledFrom([][]asn1.ObjectIdentifier{nil, {oidDomainValidated}, {{1, 3, 6, 1, 4, 1, 99999, 1}}}).Draw(t, "policies")
		i := rapid.SampledFrom(issuers).Draw(t, "issuer")
		mark := rapid.SampledFrom(marks).Draw(t, "mark")
		kinds := rapid.SliceOfN(rapid.SampledFrom([]string{"DNS", "email", "URI", "IP"}), 0, 4).Draw(t, "kinds of names")
		for range 3 {
			tpl.Subject = rapid.SampledFrom(subjects).Draw(t, "subject")
			tpl.DNS = namesOfKind(t, kinds, "DNS", "a.example.com", "b", "*.example.com")
			tpl.Email = namesOfKind(t, kinds, "email", "a@example.com", "nobody")
			tpl.URI = namesOfKind(t, kinds, "URI", "https://example.com/%41?", "urn:x:y")
			tpl.IP = namesOfKind(t, kinds, "IP", netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"))
			tpl.NotAfter = tpl.NotBefore.AddDate(rapid.SampledFrom([]int{0, 1, 2, 40}).Draw(t, "years"), 1, 0)
			draft := draftOf(t, i, tpl, mark)
			if sameReading(t, l, draft) {
				made++
			}
			c, err := zx509.ParseCertificate(draft)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := fmt.Sprint(l.check(draft)), fmt.Sprint(refusal(l.each(c))); got != want {
				t.Errorf("%v, want %v", got, want)
			}
		}
	})
	if made < 5 {
		t.Errorf("%d were made from specimens", made)
	}
}

// namesOfKind draws one name of a kind or several, if it is one of these kinds.
func namesOfKind[T any](t *rapid.T, kinds []string, kind string, of ...T) []T {
	if !slices.Contains(kinds, kind) {
		return nil
	}
	return rapid.SliceOfN(rapid.SampledFrom(of), 1, 3).Draw(t, kind)
}

// TestOurDraftsAreMade tells that what we issue is made from specimens, whatever differs.
func TestOurDraftsAreMade(t *testing.T) {
	i := ecdsaHierarchy(t).issuing
	for name, public := range map[string]func() crypto.PublicKey{
		"P-256":   func() crypto.PublicKey { return p256(t).Public() },
		"P-384":   func() crypto.PublicKey { return ecdsaKey(t, elliptic.P384()).Public() },
		"P-521":   func() crypto.PublicKey { return ecdsaKey(t, elliptic.P521()).Public() },
		"RSA":     func() crypto.PublicKey { return rsaKey().Public() },
		"Ed25519": func() crypto.PublicKey { return ed25519Key(t) },
	} {
		for marked, mark := range map[string]marker{"plain": {}, "poisoned": {poison: true}, "final": {scts: sctList(t, someSCT(), someSCT())}} {
			for subject, names := range map[string][2]pkix.RDNSequence{
				"no subject": {}, "a common name": {commonName("a.example.com"), commonName("b.example.com")},
				"two attributes": {append(commonName("a"), commonName("b")...), append(commonName("c"), commonName("d")...)},
			} {
				l := reader()
				first, second := leafTemplate(t, public()), leafTemplate(t, public())
				first.Subject, second.Subject = names[0], names[1]
				second.DNS, second.NotAfter = []string{"b.example.com"}, second.NotAfter.AddDate(0, 1, 0)
				if err := l.check(draftOf(t, i, first, mark)); err != nil {
					t.Fatal(err)
				}
				if !sameReading(t, l, draftOf(t, i, second, mark)) {
					t.Errorf("%s, %s, %s: zcrypto parsed the second as well", name, marked, subject)
				}
			}
		}
	}
}

// TestChangedOctets reads certificates that differ in an octet from one whose shape is known.
func TestChangedOctets(t *testing.T) {
	i := ecdsaHierarchy(t).issuing
	for name, public := range map[string]crypto.PublicKey{"ECDSA": p256(t).Public(), "RSA": rsaKey().Public(), "Ed25519": ed25519Key(t)} {
		tpl := leafTemplate(t, public)
		tpl.Subject, tpl.WriteSubjectKeyID = commonName("www.example.com"), true
		tpl.Email, tpl.URI, tpl.IP = []string{"a@example.com"}, []string{"urn:x:y"}, []netip.Addr{netip.MustParseAddr("192.0.2.1")}
		draft := draftOf(t, i, tpl, marker{scts: sctList(t, someSCT())})
		l := reader()
		if err := l.check(draft); err != nil {
			t.Fatal(err)
		}
		made := 0
		for at := range draft {
			for _, change := range []byte{0x01, 0x20, 0x80} {
				changed := slices.Clone(draft)
				changed[at] ^= change
				if sameReading(t, l, changed) {
					made++
				}
			}
		}
		if made < len(draft)/2 {
			t.Errorf("%s: %d of %d octets' changes were read by a specimen", name, made, len(draft))
		}
	}
}

// with is a draft with some of its parts exchanged.
func with(t fataler, draft []byte, change func(*parts)) []byte {
	t.Helper()
	p := partsOf(draft)
	change(&p)
	changed, err := p.assemble()
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

// setValue exchanges the value of an extension.
func (p *parts) setValue(of asn1.ObjectIdentifier, value []byte) {
	id, err := asn1.Marshal(of)
	if err != nil {
		panic(err)
	}
	p.extensions = slices.Clone(p.extensions)
	for i, e := range p.extensions {
		if own, head := headOf(e); slices.Equal(own, id[2:]) {
			p.extensions[i] = sequence(head, element(der.OCTET_STRING, value))
		}
	}
}

func sequence(elements ...[]byte) []byte { return element(der.SEQUENCE, elements...) }

func element(tag der.Tag, contents ...[]byte) []byte {
	var b cryptobyte.Builder
	b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes(slices.Concat(contents...)) })
	return b.BytesOrPanic()
}

// TestOutOfTheOrdinary changes what varies so that zcrypto refuses what crypto/x509 accepts, or reads it in a way of its own.
func TestOutOfTheOrdinary(t *testing.T) {
	draftWith := func(public crypto.PublicKey, subject pkix.RDNSequence) []byte {
		tpl := leafTemplate(t, public)
		tpl.Subject, tpl.WriteSubjectKeyID, tpl.Policies = subject, true, []asn1.ObjectIdentifier{{1, 3, 6, 1, 4, 1, 99999, 1}}
		return draftOf(t, ecdsaHierarchy(t).issuing, tpl, marker{scts: sctList(t, someSCT())})
	}
	onCurve := draftWith(p256(t).Public(), commonName("www.example.com"))
	rsaDraft := draftWith(rsaKey().Public(), commonName("www.example.com"))
	organized := draftWith(p256(t).Public(), append(commonName("a"), commonName("b")...))
	subject := func(attributes ...[]byte) func(*parts) {
		var sets [][]byte
		for _, a := range attributes {
			sets = append(sets, element(der.SET, a))
		}
		return func(p *parts) { p.subject = sequence(sets...) }
	}
	text := func(s string) []byte { return element(der.UTF8String, []byte(s)) }
	common := func(value ...[]byte) []byte { return sequence([]byte("\x06\x03\x55\x04\x03"), slices.Concat(value...)) }
	organization := func(s string) []byte { return sequence([]byte("\x06\x03\x55\x04\x0a"), text(s)) }
	unit := func(s string) []byte { return sequence([]byte("\x06\x03\x55\x04\x0b"), text(s)) }
	names := func(of ...[]byte) func(*parts) {
		return func(p *parts) { p.setValue(oidSubjectAltName, sequence(of...)) }
	}
	scts := func(list []byte) func(*parts) {
		return func(p *parts) { p.setValue(oidSCTList, element(der.OCTET_STRING, list)) }
	}
	dns := element(der.Tag(2).ContextSpecific(), []byte("www.example.com"))
	utc := func(text string) []byte { return element(der.UTCTime, []byte(text)) }
	for what, c := range map[string]struct {
		draft  []byte // if not onCurve
		change func(*parts)
		quick  bool // it is read by the specimen
	}{
		"nothing":                     {change: func(*parts) {}, quick: true},
		"another name":                {change: names(element(der.Tag(2).ContextSpecific(), []byte("b"))), quick: true},
		"no name":                     {change: names()},
		"a boolean in the subject":    {change: subject(common([]byte{1, 1, 0xff}))},
		"no value in the subject":     {change: subject(common())},
		"an empty set in the subject": {change: subject(nil)},
		"two values in the subject":   {change: subject(common(text("a"), []byte{5, 0})), quick: true},
		"a T61String of Latin-1":      {change: subject(common(element(der.T61String, []byte{0xe4}))), quick: true},
		"the subject of the issuer":   {change: func(p *parts) { p.subject = p.issuer }},
		"an organization":             {draft: organized, change: subject(common(text("a")), organization("Example")), quick: true},
		"the organization's level":    {draft: organized, change: subject(common(text("Example")), organization("Example"))},
		"a persona's level":           {draft: organized, change: subject(common(text("a")), organization("Persona Not Validated"))},
		"a unit's level":              {draft: organized, change: subject(common(text("a")), unit("Domain Control Validated - X"))},
		"GeneralizedTime": {change: func(p *parts) {
			p.validity = sequence(utc("250101000000Z"), element(der.GeneralizedTime, []byte("20600101000000Z")))
		}},
		"GeneralizedTime for UTC": {change: func(p *parts) {
			p.validity = sequence(utc("250101000000Z"), element(der.GeneralizedTime, []byte("20300101000000Z")))
		}},
		"a time without seconds": {change: func(p *parts) { p.validity = sequence(utc("250101000000Z"), utc("3001010000Z")) }},
		"a time of another zone": {change: func(p *parts) { p.validity = sequence(utc("250101000000Z"), utc("300101000000+0100")) }},
		"a leap day":             {change: func(p *parts) { p.validity = sequence(utc("240229000000Z"), utc("500101000000Z")) }, quick: true},
		"a third time": {change: func(p *parts) {
			p.validity = sequence(utc("250101000000Z"), utc("300101000000Z"), utc("300101000000Z"))
		}},
		"serial number zero":         {change: func(p *parts) { p.serial = []byte{2, 1, 0} }, quick: true},
		"a long serial number":       {change: func(p *parts) { p.serial = element(der.INTEGER, []byte(strings.Repeat("a", 500))) }, quick: true},
		"an otherName":               {change: names(dns, []byte("\xa0\x07\x06\x01\x2a\xa0\x02\x0c\x00"))},
		"an otherName without value": {change: names(dns, []byte("\xa0\x03\x06\x01\x2a"))},
		"an unreadable registeredID": {change: names(dns, []byte("\x88\x01\x80"))},
		"a registeredID":             {change: names(dns, []byte("\x88\x01\x2a"))},
		"a directoryName":            {change: names(dns, element(der.Tag(4).ContextSpecific().Constructed(), sequence()))},
		"a directoryName of nothing": {change: names(dns, []byte("\xa4\x00"))},
		"a number for a DNS name":    {change: names(dns, []byte("\x02\x01\x61"))},
		"an address of six octets":   {change: names(dns, []byte("\x04\x06\x00\x00\x00\x00\x00\x00"), []byte("\x47\x02\x00\x00"))},
		"something after the names":  {change: func(p *parts) { p.setValue(oidSubjectAltName, slices.Concat(sequence(dns), []byte{5, 0})) }},
		"no list of SCTs":            {change: func(p *parts) { p.setValue(oidSCTList, nil) }},
		"an empty list of SCTs":      {change: scts([]byte{0, 0}), quick: true},
		"half a list of SCTs":        {change: scts([]byte{0})},
		"SCTs beyond their list":     {change: scts(slices.Concat([]byte{0, 1}, sctList(t, someSCT())[2:]))},
		"SCTs that end too early":    {change: scts([]byte{0, 4, 0, 9, 0, 0})},
		"an SCT of version 2":        {change: scts(sctList(t, append([]byte{1}, someSCT()[1:]...)))},
		"something after the SCTs": {
			change: func(p *parts) {
				p.setValue(oidSCTList, slices.Concat(element(der.OCTET_STRING, sctList(t, someSCT())), []byte{5, 0}))
			},
		},
		"an empty key identifier": {change: func(p *parts) { p.setValue(oidSubjectKeyID, []byte{4, 0}) }, quick: true},
		"something after the key identifier": {
			change: func(p *parts) { p.setValue(oidSubjectKeyID, []byte{4, 1, 1, 5, 0}) }, quick: true,
		},
		"something after the key": {change: func(p *parts) { p.key = append(p.key[:len(p.key):len(p.key)], 5, 0); p.key[1] += 2 }},
		"a key one bit to the left": {change: func(p *parts) {
			algorithm, bits := keyOf(p.key)
			shifted := new(big.Int).Lsh(new(big.Int).SetBytes(bits), 1) // begins with 4, so there is room
			p.key = sequence(algorithm, element(der.BIT_STRING, []byte{1}, shifted.Bytes()))
		}},
		"something after the extension": {change: func(p *parts) {
			p.extensions = slices.Clone(p.extensions)
			for i, e := range p.extensions {
				if id, head := headOf(e); isVarying(id) {
					p.extensions[i] = sequence(head, e[len(e)-len(valueOf(e)):], []byte{5, 0})
				}
			}
		}},
		"something after the signature":  {change: func(p *parts) { p.rest = append(slices.Clone(p.rest), 5, 0) }},
		"an unused bit in the signature": {change: signature([]byte{1, 0xfe}), quick: true},
		"an empty signature":             {change: signature([]byte{0}), quick: true},
		"a signature of nothing":         {change: signature(nil)},
		"another RSA key":                {draft: rsaDraft, change: rsaKeyOf(sequence([]byte{2, 2, 1, 1}, []byte{2, 1, 3})), quick: true},
		"a third number in the RSA key": {
			draft: rsaDraft, change: rsaKeyOf(sequence([]byte{2, 2, 1, 1}, []byte{2, 1, 3}, []byte{2, 1, 3})), quick: true,
		},
		"something after the RSA key": {
			draft: rsaDraft, change: rsaKeyOf(slices.Concat(sequence([]byte{2, 2, 1, 1}, []byte{2, 1, 3}), []byte{5, 0})),
		},
		"a certificate of a mebibyte": {change: names(element(der.Tag(2).ContextSpecific(), make([]byte, maxVarying)))},
		"names of eight mebibytes":    {change: names(element(der.Tag(2).ContextSpecific(), make([]byte, 8<<20)))},
	} {
		if c.draft == nil {
			c.draft = onCurve
		}
		l := reader()
		if err := l.check(c.draft); err != nil {
			t.Fatal(err)
		}
		t.Run(what, func(t *testing.T) {
			changed := with(t, c.draft, c.change)
			if got := sameReading(t, l, changed); got != c.quick {
				t.Errorf("made from a specimen: %v", got)
			}
			_, wantErr := zx509.ParseCertificate(changed)
			_, alsoWantErr := x509.ParseCertificate(changed)
			if got := l.check(changed); (got == nil) != (wantErr == nil && alsoWantErr == nil) {
				t.Errorf("%v; zcrypto says: %v, crypto/x509: %v", got, wantErr, alsoWantErr)
			}
		})
	}
}

func keyOf(spki cryptobyte.String) (algorithm, bits cryptobyte.String) {
	spki.ReadASN1(&spki, der.SEQUENCE)
	spki.ReadASN1Element(&algorithm, der.SEQUENCE)
	spki.ReadASN1(&bits, der.BIT_STRING)
	return algorithm, bits[1:]
}

func signature(bits []byte) func(*parts) {
	return func(p *parts) {
		rest, algorithm := p.rest, cryptobyte.String(nil)
		rest.ReadASN1Element(&algorithm, der.SEQUENCE)
		p.rest = slices.Concat(algorithm, element(der.BIT_STRING, bits))
	}
}

func rsaKeyOf(octets []byte) func(*parts) {
	return func(p *parts) {
		algorithm, _ := keyOf(p.key)
		p.key = sequence(algorithm, element(der.BIT_STRING, []byte{0}, octets))
	}
}

// valueOf is the element of an extension that holds its value.
func valueOf(extension cryptobyte.String) cryptobyte.String {
	_, head := headOf(extension)
	extension.ReadASN1(&extension, der.SEQUENCE)
	return extension[len(head):]
}

// TestShapesOutOfTheOrdinary learns shapes of which zcrypto parses every certificate, as FingerprintNoCT is not of octets that stand there.
func TestShapesOutOfTheOrdinary(t *testing.T) {
	draft := ourDraft(t, nil)
	l := reader()
	changed := with(t, draft, func(p *parts) {
		p.extensions = slices.Clone(p.extensions)
		id, _ := headOf(p.extensions[0])
		p.extensions[0] = sequence(element(der.OBJECT_IDENTIFIER, id), []byte{1, 1, 0}, valueOf(p.extensions[0]))
	})
	for range 2 {
		if sameReading(t, l, changed) {
			t.Error("made from a specimen")
		}
		if err := l.check(changed); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPlainAndOtherShapes learns a shape from a certificate out of the ordinary first. Plain ones are made from a specimen all the same.
func TestPlainAndOtherShapes(t *testing.T) {
	i := ecdsaHierarchy(t).issuing
	late := leafTemplate(t, p256(t).Public())
	late.NotAfter = late.NotBefore.AddDate(40, 0, 0)
	l := reader()
	for _, draft := range [][]byte{draftOf(t, i, late, marker{}), draftOf(t, i, leafTemplate(t, p256(t).Public()), marker{})} {
		if err := l.check(draft); err != nil {
			t.Fatal(err)
		}
	}
	if !sameReading(t, l, draftOf(t, i, leafTemplate(t, p256(t).Public()), marker{})) {
		t.Error("zcrypto parsed it")
	}
	if sameReading(t, l, draftOf(t, i, late, marker{})) {
		t.Error("made from a specimen")
	}
}

// TestSpecimensAtOnce lints certificates of one shape from several goroutines, with every lint.
func TestSpecimensAtOnce(t *testing.T) {
	i := ecdsaHierarchy(t).issuing
	l := linterOf(t, allLint())
	type draft struct {
		octets []byte
		want   string
	}
	var drafts []draft
	for _, name := range []string{"a.example.com", "b_.example.com", "*.com", "xn--a.example"} {
		tpl := leafTemplate(t, p256(t).Public())
		tpl.Subject, tpl.DNS = commonName(name), []string{name, "example.com"}
		octets := draftOf(t, i, tpl, marker{})
		c, err := zx509.ParseCertificate(octets)
		if err != nil {
			t.Fatal(err)
		}
		drafts = append(drafts, draft{octets, fmt.Sprint(refusal(l.each(c)))})
	}
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for range 20 {
				for _, d := range drafts {
					if got := fmt.Sprint(l.check(d.octets)); got != d.want {
						t.Errorf("%s, want %s", got, d.want)
					}
				}
			}
		})
	}
	wait.Wait()
	if !sameReading(t, l, drafts[0].octets) {
		t.Error("no specimen was kept")
	}
}

// FuzzVarying reads certificates of a few shapes with other octets in what varies.
func FuzzVarying(f *testing.F) {
	i := ecdsaHierarchy(f).issuing
	l := reader()
	var drafts [][]byte
	for _, public := range []crypto.PublicKey{p256(f).Public(), rsaKey().Public(), ed25519Key(f)} {
		tpl := leafTemplate(f, public)
		tpl.Subject, tpl.WriteSubjectKeyID = commonName("www.example.com"), true
		tpl.Policies = []asn1.ObjectIdentifier{{1, 3, 6, 1, 4, 1, 99999, 1}}
		draft := draftOf(f, i, tpl, marker{scts: sctList(f, someSCT())})
		if err := l.check(draft); err != nil {
			f.Fatal(err)
		}
		p := partsOf(draft)
		scts := extensionOf(parse(f, draft).Extensions, oidSCTList).value
		names := extensionOf(parse(f, draft).Extensions, oidSubjectAltName).value
		keyID := extensionOf(parse(f, draft).Extensions, oidSubjectKeyID).value
		f.Add(uint8(len(drafts)), []byte(p.serial), []byte(p.validity), []byte(p.subject), []byte(p.key), names, keyID, scts, []byte(p.rest))
		f.Add(uint8(len(drafts)), []byte(p.serial), []byte(p.validity), []byte{0x30, 0}, []byte(p.key), names, keyID, scts, []byte(p.rest))
		drafts = append(drafts, draft)
	}
	f.Fuzz(func(t *testing.T, which uint8, serial, validity, subject, key, names, keyID, scts, rest []byte) {
		sameReading(t, l, with(t, drafts[int(which)%len(drafts)], func(p *parts) {
			p.serial, p.validity, p.subject, p.key, p.rest = serial, validity, subject, key, rest
			p.setValue(oidSubjectAltName, names)
			p.setValue(oidSubjectKeyID, keyID)
			p.setValue(oidSCTList, scts)
		}))
	})
}
