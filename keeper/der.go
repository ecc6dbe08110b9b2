package keeper

import (
	"bytes"
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// The parser of the guard reads to-be-signed bytes by itself, strictly: what it does not understand it refuses. It shares no code with
// what makes those bytes, so that one mistake does not hide in both.

// refusal says why something is not signed. Its words go to the client and into the journal; they never hold the bytes.
type refusal string

func (r refusal) Error() string { return string(r) }

func refuse(format string, args ...any) error { return refusal(fmt.Sprintf(format, args...)) }

// The largest of the things read, so that reading is bounded.
const (
	maxName       = 4 << 10 // octets of a distinguished name
	maxExtensions = 32
	maxIdentifier = 64 // octets of an extension's identifier: a refusal repeats it, and the journal keeps the refusal
)

// element reads one element whole, header and all, after making sure that it has the tag.
func element(s *cryptobyte.String, tag der.Tag, what string) (cryptobyte.String, error) {
	var whole cryptobyte.String
	if !s.ReadASN1Element(&whole, tag) {
		return nil, refuse("%s is missing or not in DER", what)
	}
	return whole, nil
}

// content reads the content of one element.
func content(s *cryptobyte.String, tag der.Tag, what string) (cryptobyte.String, error) {
	var inner cryptobyte.String
	if !s.ReadASN1(&inner, tag) {
		return nil, refuse("%s is missing or not in DER", what)
	}
	return inner, nil
}

// sequence is the content of an element that is all there is.
func sequence(b []byte, what string) (cryptobyte.String, error) {
	s := cryptobyte.String(b)
	inner, err := content(&s, der.SEQUENCE, what)
	if err != nil {
		return nil, err
	}
	if !s.Empty() {
		return nil, refuse("something follows %s", what)
	}
	return inner, nil
}

// name reads a distinguished name far enough to know that it is one, and returns it whole.
func name(s *cryptobyte.String, what string) ([]byte, error) {
	whole, err := element(s, der.SEQUENCE, what)
	if err != nil {
		return nil, err
	}
	if len(whole) > maxName {
		return nil, refuse("%s is too long", what)
	}
	rdns := whole
	rdns, _ = content(&rdns, der.SEQUENCE, what)
	for !rdns.Empty() {
		set, err := content(&rdns, der.SET, what)
		if err != nil || set.Empty() {
			return nil, refuse("%s is not a distinguished name", what)
		}
		for !set.Empty() {
			pair, err := content(&set, der.SEQUENCE, what)
			var value cryptobyte.String
			var tag der.Tag
			if _, ok := identifier(&pair); err != nil || !ok || !pair.ReadAnyASN1(&value, &tag) || !pair.Empty() || !legible(tag, value) {
				return nil, refuse("%s is not a distinguished name", what)
			}
		}
	}
	return whole, nil
}

// identifier reads an OBJECT IDENTIFIER and returns its octets. They are compared as they are, so there is one spelling of each: no arc
// begins with 0x80 or is cut off. None is above 2^31-1, which not every parser reads: what is another purpose here must not be OCSPSigning
// there.
func identifier(s *cryptobyte.String) ([]byte, bool) {
	var oid cryptobyte.String
	if !s.ReadASN1(&oid, der.OBJECT_IDENTIFIER) || len(oid) == 0 {
		return nil, false
	}
	arc, ended := 0, true
	for _, b := range oid {
		if ended && b == 0x80 || arc >= 1<<24 {
			return nil, false
		}
		arc = arc<<7 | int(b&0x7f)
		if ended = b&0x80 == 0; ended {
			arc = 0
		}
	}
	return oid, ended
}

// moment reads a time as RFC 5280, section 4.1.2.5, writes it: UTCTime through 2049, GeneralizedTime from 2050, in whole seconds.
func moment(s *cryptobyte.String, what string) (time.Time, error) {
	var t time.Time
	var text cryptobyte.String
	var tag der.Tag
	ok := s.ReadAnyASN1(&text, &tag)
	switch {
	case ok && tag == der.UTCTime:
		year, digits := number(text, 2)
		if year += 1900; year < 1950 {
			year += 100
		}
		if ok = digits; ok {
			t, ok = withinYear(year, text[2:])
		}
	case ok && tag == der.GeneralizedTime:
		if t, ok = anyYear(text); ok {
			ok = t.Year() >= 2050
		}
	default:
		ok = false
	}
	if !ok {
		return time.Time{}, refuse("%s is missing or not a time of RFC 5280", what)
	}
	return t, nil
}

// generalized reads a GeneralizedTime in whole seconds of UTC, of any year: what OCSP and invalidityDate are written in.
func generalized(s *cryptobyte.String, what string) (time.Time, error) {
	var text cryptobyte.String
	if s.ReadASN1(&text, der.GeneralizedTime) {
		if t, ok := anyYear(text); ok {
			return t, nil
		}
	}
	return time.Time{}, refuse("%s is missing or not a GeneralizedTime in whole seconds", what)
}

// anyYear reads YYYYMMDDHHMMSSZ.
func anyYear(text []byte) (time.Time, bool) {
	year, ok := number(text, 4)
	if !ok {
		return time.Time{}, false
	}
	return withinYear(year, text[4:])
}

// withinYear reads MMDDHHMMSSZ. It is read by its digits because each signature has two or more to read, and package time takes a microsecond
// for each.
func withinYear(year int, text []byte) (time.Time, bool) {
	if len(text) != len("MMDDHHMMSSZ") || text[10] != 'Z' {
		return time.Time{}, false
	}
	var part [5]int
	for i := range part {
		var ok bool
		if part[i], ok = number(text[2*i:], 2); !ok {
			return time.Time{}, false
		}
	}
	t := time.Date(year, time.Month(part[0]), part[1], part[2], part[3], part[4], 0, time.UTC)
	// Date carries what is too much over into the next month, day, hour or minute: the 31st of June is the 1st of July there.
	is := [...]int{int(t.Month()), t.Day(), t.Hour(), t.Minute(), t.Second()}
	return t, is == part
}

// number reads the number that text begins with, of so many digits.
func number(text []byte, digits int) (n int, ok bool) {
	if len(text) < digits {
		return 0, false
	}
	for _, c := range text[:digits] {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int(c-'0')
	}
	return n, true
}

// positive reads an INTEGER above zero in its shortest form, of at most 20 octets, and returns its octets without that of the sign.
func positive(s *cryptobyte.String, what string) ([]byte, error) {
	inner, err := content(s, der.INTEGER, what)
	if err != nil {
		return nil, err
	}
	n := []byte(inner)
	if len(n) == 0 || len(n) > 21 || n[0]&0x80 != 0 || len(n) > 1 && n[0] == 0 && n[1]&0x80 == 0 {
		return nil, refuse("%s is not a positive number in its shortest form", what)
	}
	n = bytes.TrimLeft(n, "\x00")
	if len(n) == 0 || len(n) > 20 {
		return nil, refuse("%s is zero or has more than 20 octets", what)
	}
	return n, nil
}

// extension is one extension as read.
type extension struct {
	oid      string // the octets of the identifier
	critical bool
	value    cryptobyte.String
}

// extensions reads a list of extensions and refuses one that stands twice.
func extensions(list cryptobyte.String, what string) (map[string]extension, error) {
	read := map[string]extension{}
	if list.Empty() {
		return nil, refuse("%s are empty", what)
	}
	for !list.Empty() {
		e, err := oneExtension(&list, what)
		if err != nil {
			return nil, err
		}
		if _, twice := read[e.oid]; twice || len(read) >= maxExtensions {
			return nil, refuse("%s are too many, or one stands twice", what)
		}
		read[e.oid] = e
	}
	return read, nil
}

func oneExtension(list *cryptobyte.String, what string) (extension, error) {
	inner, err := content(list, der.SEQUENCE, what)
	if err != nil {
		return extension{}, err
	}
	var e extension
	oid, ok := identifier(&inner)
	if !ok || len(oid) > maxIdentifier {
		return extension{}, refuse("%s cannot be read", what)
	}
	if inner.PeekASN1Tag(der.BOOLEAN) {
		if !inner.ReadASN1Boolean(&e.critical) || !e.critical { // DER leaves FALSE, the default, out
			return extension{}, refuse("%s cannot be read", what)
		}
	}
	if !inner.ReadASN1(&e.value, der.OCTET_STRING) || !inner.Empty() {
		return extension{}, refuse("%s cannot be read", what)
	}
	e.oid = string(oid)
	return e, nil
}

// The identifiers of extensions that the guard knows, as the octets of their DER.
const (
	oidSubjectKeyID        = "\x55\x1d\x0e"
	oidKeyUsage            = "\x55\x1d\x0f"
	oidSubjectAltName      = "\x55\x1d\x11"
	oidBasicConstraints    = "\x55\x1d\x13"
	oidCRLNumber           = "\x55\x1d\x14"
	oidDeltaCRL            = "\x55\x1d\x1b"
	oidIssuingDistribution = "\x55\x1d\x1c"
	oidFreshestCRL         = "\x55\x1d\x2e"
	oidReason              = "\x55\x1d\x15"
	oidInvalidityDate      = "\x55\x1d\x18"
	oidNameConstraints     = "\x55\x1d\x1e"
	oidCRLDistribution     = "\x55\x1d\x1f"
	oidCertificatePolicies = "\x55\x1d\x20"
	oidAuthorityKeyID      = "\x55\x1d\x23"
	oidExtKeyUsage         = "\x55\x1d\x25"
	oidAuthorityInfoAccess = "\x2b\x06\x01\x05\x05\x07\x01\x01"
	oidOCSPNonce           = "\x2b\x06\x01\x05\x05\x07\x30\x01\x02"
	oidArchiveCutoff       = "\x2b\x06\x01\x05\x05\x07\x30\x01\x06"
	oidOCSPNoCheck         = "\x2b\x06\x01\x05\x05\x07\x30\x01\x05"
	oidSCTList             = "\x2b\x06\x01\x04\x01\xd6\x79\x02\x04\x02"
	oidPoison              = "\x2b\x06\x01\x04\x01\xd6\x79\x02\x04\x03"

	oidOCSPSigning      = "\x2b\x06\x01\x05\x05\x07\x03\x09" // an extended key usage
	oidAnyExtendedUsage = "\x55\x1d\x25\x00"
)

// bitString reads a named bit list and returns its bits, the first the highest.
func bitString(value cryptobyte.String, what string) (uint16, error) {
	inner, err := content(&value, der.BIT_STRING, what)
	if err != nil {
		return 0, err
	}
	b := []byte(inner)
	if !value.Empty() || len(b) < 2 || len(b) > 3 || b[0] > 7 || b[len(b)-1]&(1<<b[0]-1) != 0 || b[len(b)-1]>>b[0]&1 == 0 {
		return 0, refuse("%s is not a list of bits in DER", what)
	}
	bits := uint16(b[1]) << 8
	if len(b) == 3 {
		bits |= uint16(b[2])
	}
	return bits, nil
}
