package issuance

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// printable are the attribute types whose values are PrintableString (RFC 5280, appendix A.1). All others are UTF8String.
var printable = []asn1.ObjectIdentifier{
	{2, 5, 4, 5},  // serialNumber
	{2, 5, 4, 6},  // countryName
	{2, 5, 4, 46}, // dnQualifier
}

// ia5 are the attribute types whose values are IA5String. A template does not carry them.
var ia5 = []asn1.ObjectIdentifier{
	{1, 2, 840, 113549, 1, 9, 1},       // emailAddress
	{0, 9, 2342, 19200300, 100, 1, 25}, // domainComponent
}

// marshalName encodes a distinguished name (RFC 5280, section 4.1.2.4). Each RDN must hold one attribute.
func marshalName(name pkix.RDNSequence) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		for _, rdn := range name {
			if len(rdn) != 1 {
				b.SetError(fmt.Errorf("a relative distinguished name holds %d attributes instead of one", len(rdn)))
				return
			}
			addAttribute(b, rdn[0])
		}
	})
	return b.Bytes()
}

func addAttribute(b *cryptobyte.Builder, attribute pkix.AttributeTypeAndValue) {
	value, ok := attribute.Value.(string)
	if !ok || value == "" {
		b.SetError(fmt.Errorf("the attribute %s does not hold a text", attribute.Type))
		return
	}
	tag, err := stringTag(attribute.Type, value)
	if err != nil {
		b.SetError(fmt.Errorf("the attribute %s: %w", attribute.Type, err))
		return
	}
	b.AddASN1(der.SET, func(b *cryptobyte.Builder) {
		b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(attribute.Type)
			b.AddASN1(tag, func(b *cryptobyte.Builder) { b.AddBytes([]byte(value)) })
		})
	})
}

// stringTag is the string type that a value is written as.
func stringTag(kind asn1.ObjectIdentifier, value string) (der.Tag, error) {
	switch {
	case slices.ContainsFunc(ia5, kind.Equal):
		return 0, errors.New("values of this type are not issued")
	case slices.ContainsFunc(printable, kind.Equal):
		if !isPrintable(value) {
			return 0, errors.New("the value is not a PrintableString")
		}
		return der.PrintableString, nil
	case !utf8.ValidString(value):
		return 0, errors.New("the value is not UTF-8")
	}
	return der.UTF8String, nil
}

// isPrintable tells whether a text is a PrintableString (X.680, section 41.4).
func isPrintable(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == ' ', '\'' <= c && c <= ')', '+' <= c && c <= '/', c == ':', c == '=', c == '?':
		default:
			return false
		}
	}
	return true
}
