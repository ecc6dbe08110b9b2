package keeper

import (
	"encoding/binary"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// The string types of names that package cryptobyte does not know.
const (
	numericString   der.Tag = 18
	visibleString   der.Tag = 26
	universalString der.Tag = 28
	bmpString       der.Tag = 30

	constructed der.Tag = 0x20 // a bit
)

// knownAs is a distinguished name as whoever checks a chain may know it (RFC 5280, section 7.1): of two names that are known alike, one may
// pass for the other. The types of strings do not count, nor do the case of letters and how Unicode writes them, white space that adds nothing,
// and what does not show; and nor does the order, because that within a set follows from the types.
func knownAs(name cryptobyte.String) string {
	var attributes []string
	var rdns, set, pair, kind, value cryptobyte.String
	var tag der.Tag
	name.ReadASN1(&rdns, der.SEQUENCE)
	for rdns.ReadASN1(&set, der.SET) {
		for set.ReadASN1(&pair, der.SEQUENCE) && pair.ReadASN1(&kind, der.OBJECT_IDENTIFIER) && pair.ReadAnyASN1(&value, &tag) {
			attributes = append(attributes, string(kind)+"="+plain(text(tag, value)))
		}
	}
	slices.Sort(attributes)
	return strings.Join(attributes, "\n")
}

// legible tells whether the value of an attribute is what its type can hold, so that everybody reads the same: OpenSSL joins a string in
// pieces, which DER does not have, and takes octets that are not ASCII for Latin-1.
func legible(tag der.Tag, value []byte) bool {
	switch tag {
	case der.UTF8String:
		return utf8.Valid(value)
	case numericString, der.PrintableString, der.IA5String, visibleString:
		return !slices.ContainsFunc(value, func(b byte) bool { return b >= utf8.RuneSelf })
	}
	return tag&constructed == 0
}

// text is the value of an attribute. What is no text is taken for some: it is only compared.
func text(tag der.Tag, value []byte) string {
	var runes []rune
	switch tag {
	case der.T61String: // as everybody reads it: in Latin-1
		for _, b := range value {
			runes = append(runes, rune(b))
		}
	case bmpString:
		var units []uint16
		for ; len(value) >= 2; value = value[2:] {
			units = append(units, binary.BigEndian.Uint16(value))
		}
		runes = utf16.Decode(units)
	case universalString:
		for ; len(value) >= 4; value = value[4:] {
			runes = append(runes, rune(binary.BigEndian.Uint32(value)))
		}
	default:
		return string(value)
	}
	return string(runes)
}

// plain is a text without what does not count in a name. Both ways of writing a letter with its mark are one, and so are compatible letters
// (NFKC in RFC 4518, section 2.3; the decomposed form tells the same apart) and the cases of all of them, "ss" for "ß" among them.
func plain(text string) string {
	// What does not show goes first: between two marks it would keep them from being put in order.
	folded := norm.NFKD.String(cases.Fold().String(norm.NFKD.String(strings.Map(visibly, text))))
	var b strings.Builder
	space := false
	for _, r := range folded {
		switch {
		case unicode.IsSpace(r):
			space = true
			continue
		case visibly(r) < 0:
			continue
		case space && b.Len() > 0:
			b.WriteByte(' ')
		}
		space = false
		b.WriteRune(r)
	}
	return b.String()
}

// visibly is a letter that shows, or white space; -1 in place of any other.
func visibly(r rune) rune {
	if unicode.IsSpace(r) || unicode.IsGraphic(r) && !unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector) {
		return r
	}
	return -1
}
