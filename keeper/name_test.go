package keeper

import (
	"crypto/x509"
	"encoding/binary"
	"strings"
	"testing"
	"unicode/utf16"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

const (
	oidOrganization = "\x55\x04\x0a"
	oidCommonName   = "\x55\x04\x03"
)

type attribute struct {
	kind  string
	tag   der.Tag
	value string
}

// named encodes a name of relative names, each of several attributes.
func named(rdns ...[]attribute) []byte {
	var b cryptobyte.Builder
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, rdn := range rdns {
			b.AddASN1(der.SET, func(b *cryptobyte.Builder) {
				for _, a := range rdn {
					b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddASN1(der.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes([]byte(a.kind)) })
						b.AddASN1(a.tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(a.value)) })
					})
				}
			})
		}
	})
	return b.BytesOrPanic()
}

// TestNobodyHasTheAuthoritysName, in whatever writing: whoever checks a chain may take the certificate for the authority's, and the key in
// it for one that signs the authority's CRLs.
func TestNobodyHasTheAuthoritysName(t *testing.T) {
	wide := func(bytes int, text string) string {
		var b []byte
		for _, r := range text {
			if bytes == 4 {
				b = binary.BigEndian.AppendUint32(b, uint32(r))
				continue
			}
			for _, unit := range utf16.Encode([]rune{r}) {
				b = binary.BigEndian.AppendUint16(b, unit)
			}
		}
		return string(b)
	}
	name := func(tag der.Tag, organization, common string) []byte {
		return named([]attribute{{oidOrganization, tag, organization}}, []attribute{{oidCommonName, tag, common}})
	}
	root := name(der.UTF8String, "Test", "Wurzel \u00c4")
	for _, c := range []struct {
		what    string
		subject []byte
		refused string // part of the refusal; empty: signed
	}{
		{"as it is", name(der.PrintableString, "Test", "Issuing"), "the authority itself"},
		{"in UTF-8", name(der.UTF8String, "Test", "Issuing"), "the authority itself"},
		{"in IA5", name(der.IA5String, "Test", "Issuing"), "the authority itself"},
		{"in T.61", name(der.T61String, "Test", "Issuing"), "the authority itself"},
		{"in UCS-2", name(bmpString, wide(2, "Test"), wide(2, "Issuing")), "the authority itself"},
		{"in UCS-4", name(universalString, wide(4, "Test"), wide(4, "Issuing")), "the authority itself"},
		{"in capitals", name(der.UTF8String, "TEST", "ISSUING"), "the authority itself"},
		{"with white space", name(der.UTF8String, " Test ", "\u00a0Issuing\u3000"), "the authority itself"},
		{"with what does not show", name(der.UTF8String, "T\u00adest", "Is\u200bsu\u034fi\ufe0fng\x00"), "the authority itself"},
		{
			"in one set", named([]attribute{{oidCommonName, der.UTF8String, "Issuing"}, {oidOrganization, der.UTF8String, "Test"}}),
			"the authority itself",
		},
		{"of the authority above", root, "has issued this one's certificate"},
		{"of the authority above, in small letters", name(der.UTF8String, "test", "wurzel \u00e4"), "has issued this one's certificate"},
		{"of the authority above, in T.61", name(der.T61String, "Test", "Wurzel \xc4"), "has issued this one's certificate"},
		{"of the authority above, the mark apart", name(der.UTF8String, "Test", "Wurzel A\u0308"), "has issued this one's certificate"},
		{"of the authority above, in wide letters", name(der.UTF8String, "Test", "\uff37urzel \u00c4"), "has issued this one's certificate"},
		{"another", name(der.PrintableString, "Test", "Issuing 2"), ""},
		{"with white space that counts", name(der.UTF8String, "Test", "Iss uing"), ""},
		{"the other way round", name(der.PrintableString, "Issuing", "Test"), ""},
		{"a part", named([]attribute{{oidCommonName, der.PrintableString, "Issuing"}}), ""},
		{"none", named(), ""},
	} {
		for kind, change := range map[string]func(*x509.Certificate){
			"a leaf": func(*x509.Certificate) {},
			"an authority": func(c *x509.Certificate) {
				c.IsCA, c.BasicConstraintsValid, c.MaxPathLenZero = true, true, true
				c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
			},
		} {
			a, g := guarded(t, 1, func(p *KeyPolicy) {
				p.Certificates.Authorities = true
				below := *p.Certificate
				below.RawIssuer = root
				p.Certificate = &below
			})
			_, err := g.ask(a.tbs(t, leaf(change, func(template *x509.Certificate) { template.RawSubject = c.subject })))
			if (err == nil) != (c.refused == "") || err != nil && !strings.Contains(err.Error(), c.refused) {
				t.Errorf("%s with the name %s: want a refusal with %q, got %v", kind, c.what, c.refused, err)
			}
		}
	}
}

// TestMarksHaveOneOrder: what does not show, between two marks of a letter, makes no other name.
func TestMarksHaveOneOrder(t *testing.T) {
	known := func(text string) string { return knownAs(named([]attribute{{oidCommonName, der.UTF8String, text}})) }
	for _, writing := range []string{"vi\u1ec7t", "Vie\u0323\u0302t", "Vie\u0302\u0323t", "Vie\u0302\u034f\u0323t", "Vie\u0302\u200d\u0323t", "VI\u1ec6T"} {
		if known(writing) != known("Vi\u1ec7t") {
			t.Errorf("%+q is another name", writing)
		}
	}
	for _, other := range []string{"Viet", "Vi\u1eb9t", "Vi \u1ec7t"} {
		if known(other) == known("Vi\u1ec7t") {
			t.Errorf("%+q is the same name", other)
		}
	}
}

// TestNamesThatOthersReadOtherwise are refused: OpenSSL joins a string that is in pieces, and takes octets that are not ASCII for Latin-1
// where the type has only ASCII. Each of these would be a name of another authority, or of this one.
func TestNamesThatOthersReadOtherwise(t *testing.T) {
	a, g := guarded(t, 0)
	pieces := func(parts ...string) string {
		var b cryptobyte.Builder
		for _, part := range parts {
			b.AddASN1(der.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(part)) })
		}
		return string(b.BytesOrPanic())
	}
	for what, value := range map[string]struct {
		tag     der.Tag
		text    string
		refused bool
	}{
		"in pieces":                     {der.UTF8String | constructed, pieces("Iss", "uing"), true},
		"no UTF-8":                      {der.UTF8String, "Z\xfcrich", true},
		"UTF-8":                         {der.UTF8String, "Zürich", false},
		"Latin-1 in a PrintableString":  {der.PrintableString, "Z\xfcrich", true},
		"Latin-1 in an IA5String":       {der.IA5String, "Z\xfcrich", true},
		"Latin-1 in a VisibleString":    {visibleString, "Z\xfcrich", true},
		"Latin-1 in a NumericString":    {numericString, "1\xb2", true},
		"Latin-1 in a T61String":        {der.T61String, "Z\xfcrich", false},
		"a PrintableString as it is":    {der.PrintableString, "Zurich", false},
		"a set in place of a string":    {der.SET, "", true},
		"a sequence in place of a text": {der.SEQUENCE, "", true},
	} {
		subject := named([]attribute{{oidCommonName, value.tag, value.text}})
		_, err := g.ask(a.tbs(t, leaf(func(c *x509.Certificate) { c.RawSubject = subject })))
		if (err != nil) != value.refused {
			t.Errorf("%s: %v", what, err)
		}
	}
}
