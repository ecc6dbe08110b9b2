package csr

import (
	"bytes"
	"encoding/asn1"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// maxDepth bounds the nesting of values that are checked but not read.
const maxDepth = 16

// outerLength reads the header of the request and gives the number of octets that header and contents take.
// It is apart from the rest so that a cut-off request and one with something behind it can be told from a wrong one.
func outerLength(der []byte) (int, error) {
	if len(der) == 0 || der[0] != byte(cryptobyte_asn1.SEQUENCE) {
		hint := "send the request as DER (openssl req -outform DER), or as PEM where PEM is expected"
		if bytes.HasPrefix(der, []byte("-----BEGIN")) {
			hint = "this is PEM: send it as PEM, or convert it with openssl req -outform DER"
		}
		return 0, refuse(RuleNotDER, "request", hint, "this is not a certification request: it does not begin with a DER SEQUENCE")
	}
	if len(der) < 2 {
		return 0, cutOff(len(der))
	}
	first := int(der[1])
	if first < 0x80 {
		return 2 + first, nil
	}
	count := first & 0x7f
	if count == 0 || count > 4 {
		return 0, notDER("request", "the request's length is not encoded as DER has it")
	}
	if len(der) < 2+count {
		return 0, cutOff(len(der))
	}
	length := uint64(0)
	for _, b := range der[2 : 2+count] {
		length = length<<8 | uint64(b)
	}
	if length < 0x80 || length>>(8*(count-1)) == 0 {
		return 0, notDER("request", "the request's length is not encoded in the fewest octets")
	}
	if length > MaxDER {
		return 0, refuse(RuleTruncated, "request", "send the whole request",
			"the request says that it is %d octets long, but ends after %d", length, len(der))
	}
	return 2 + count + int(length), nil
}

func cutOff(n int) error {
	return refuse(RuleTruncated, "request", "send the whole request", "the request ends after %d octets, in the middle", n)
}

// single tells whether s is exactly one well-formed DER element.
func single(s cryptobyte.String) bool {
	var element cryptobyte.String
	var tag cryptobyte_asn1.Tag
	return s.ReadAnyASN1Element(&element, &tag) && s.Empty() && wellFormed(element, maxDepth)
}

// wellFormed tells whether s is a series of DER elements, each nested no deeper than depth. It checks what can be checked without
// knowing the type: tags, lengths and the contents of the universal types with one encoding per value. Whether a SET is sorted
// depends on the type (SET and SET OF sort differently), and characters do not matter in what is never used: neither is checked.
func wellFormed(s cryptobyte.String, depth int) bool {
	for !s.Empty() {
		var content cryptobyte.String
		var tag cryptobyte_asn1.Tag
		element := s
		if !s.ReadAnyASN1(&content, &tag) {
			return false
		}
		const constructed, class = 0x20, 0xc0
		if tag&constructed != 0 {
			if tag&class == 0 && tag != cryptobyte_asn1.SEQUENCE && tag != cryptobyte_asn1.SET {
				return false
			}
			if depth == 0 || !wellFormed(content, depth-1) {
				return false
			}
		} else if tag&class == 0 && !universal(tag, content, element) {
			return false
		}
	}
	return true
}

// universal checks a primitive element of a universal type, given its contents and the bytes at which it begins.
func universal(tag cryptobyte_asn1.Tag, content, element cryptobyte.String) bool {
	switch tag {
	case 0, cryptobyte_asn1.SEQUENCE &^ 0x20, cryptobyte_asn1.SET &^ 0x20: // end-of-contents is BER; SEQUENCE and SET are constructed
		return false
	case cryptobyte_asn1.BOOLEAN:
		return len(content) == 1 && (content[0] == 0 || content[0] == 0xff)
	case cryptobyte_asn1.INTEGER, cryptobyte_asn1.ENUM:
		return minimal(content)
	case cryptobyte_asn1.BIT_STRING:
		var bits asn1.BitString
		return element.ReadASN1BitString(&bits)
	case cryptobyte_asn1.NULL:
		return len(content) == 0
	case cryptobyte_asn1.OBJECT_IDENTIFIER:
		return identifier(content)
	}
	return true
}

// minimal tells whether the contents of an INTEGER are as short as its value allows (X.690, section 8.3.2).
func minimal(content []byte) bool {
	if len(content) < 2 {
		return len(content) == 1
	}
	return !(content[0] == 0 && content[1] < 0x80 || content[0] == 0xff && content[1] >= 0x80)
}

// identifier tells whether the contents are those of an OBJECT IDENTIFIER with arcs of any size (X.690, section 8.19).
func identifier(content []byte) bool {
	start := true
	for _, b := range content {
		if start && b == 0x80 {
			return false
		}
		start = b < 0x80
	}
	return len(content) > 0 && start
}

// sorted tells whether the contents of a SET OF are in the order of DER (X.690, section 11.6) and hold nothing twice.
func sorted(set cryptobyte.String) bool {
	var previous, element cryptobyte.String
	var tag cryptobyte_asn1.Tag
	for !set.Empty() {
		if !set.ReadAnyASN1Element(&element, &tag) || bytes.Compare(previous, element) >= 0 {
			return false
		}
		previous = element
	}
	return true
}

// flag reads a BOOLEAN DEFAULT FALSE. DER leaves the default out, so that present means TRUE.
func flag(s *cryptobyte.String, out *bool) bool {
	*out = false
	if !s.PeekASN1Tag(cryptobyte_asn1.BOOLEAN) {
		return true
	}
	return s.ReadASN1Boolean(out) && *out
}
