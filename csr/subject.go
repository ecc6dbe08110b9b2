package csr

import (
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// The string types of a name that are outdated (RFC 5280, section 4.1.2.4) or, as T61String, ambiguous.
const (
	teletexString   = cryptobyte_asn1.T61String
	universalString = cryptobyte_asn1.Tag(28)
	bmpString       = cryptobyte_asn1.Tag(30)
)

// readSubject reads the contents of an RDNSequence (RFC 5280, section 4.1.2.4). An empty one is a fact.
func readSubject(s cryptobyte.String) ([]Attribute, error) {
	var subject []Attribute
	for rdn := 0; !s.Empty(); rdn++ {
		var set cryptobyte.String
		if !s.ReadASN1(&set, cryptobyte_asn1.SET) || set.Empty() {
			return nil, notDER("subject", "relative distinguished name %d is not a SET of at least one attribute", rdn+1)
		}
		if !sorted(set) {
			return nil, notDER("subject", "the attributes of relative distinguished name %d are not in the order of DER", rdn+1)
		}
		for !set.Empty() {
			if len(subject) == MaxElements {
				return nil, refuse(RuleTooMany, "subject", "ask for fewer attributes", "the subject has more than %d attributes", MaxElements)
			}
			a := Attribute{RDN: rdn}
			if err := readSubjectAttribute(&set, &a); err != nil {
				return nil, err
			}
			subject = append(subject, a)
		}
	}
	return subject, nil
}

func readSubjectAttribute(set *cryptobyte.String, a *Attribute) error {
	var pair, value cryptobyte.String
	var tag cryptobyte_asn1.Tag
	if !set.ReadASN1(&pair, cryptobyte_asn1.SEQUENCE) || !pair.ReadASN1ObjectIdentifier(&a.OID) ||
		!pair.ReadAnyASN1(&value, &tag) || !pair.Empty() {
		return notDER("subject", "relative distinguished name %d does not hold pairs of a type and a value", a.RDN+1)
	}
	if len(value) > MaxValue {
		return refuse(RuleTooLong, "subject", "shorten the value", "the value of attribute %v is %d octets long; at most %d are read",
			a.OID, len(value), MaxValue)
	}
	if len(value) == 0 {
		return refuse(RuleEmptyValue, "subject", "leave the attribute out", "the value of attribute %v is empty", a.OID)
	}
	switch tag {
	case cryptobyte_asn1.UTF8String:
		if !utf8.Valid(value) {
			return refuse(RuleEncoding, "subject", "encode the value in UTF-8", "the value of attribute %v is not UTF-8", a.OID)
		}
	case cryptobyte_asn1.IA5String:
		if !ascii(value) {
			return refuse(RuleEncoding, "subject", "encode the value as UTF8String",
				"the value of attribute %v has characters that IA5String does not have", a.OID)
		}
	case cryptobyte_asn1.PrintableString:
		if !hasControl(value) && !printable(value) {
			return refuse(RuleEncoding, "subject", "encode the value as UTF8String",
				"the value of attribute %v has characters that PrintableString does not have", a.OID)
		}
	case teletexString, bmpString, universalString:
		return refuse(RuleStringType, "subject", "encode the value as UTF8String (RFC 5280, section 4.1.2.4)",
			"the value of attribute %v is a TeletexString, BMPString or UniversalString", a.OID)
	default:
		return refuse(RuleStringType, "subject", "encode the value as UTF8String or leave the attribute out",
			"the value of attribute %v is neither UTF8String, PrintableString nor IA5String", a.OID)
	}
	if hasControl(value) {
		return refuse(RuleControlCharacter, "subject", "remove the character", "the value of attribute %v has a control character", a.OID)
	}
	a.Value = string(value)
	return nil
}

func ascii(s []byte) bool {
	for _, b := range s {
		if b >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// printable tells whether all characters are those of PrintableString (X.680, section 41.4), which has neither '*' nor '@' nor '_'.
func printable(s []byte) bool {
	for _, b := range s {
		switch {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9':
		case b == ' ', b == '\'', b == '(', b == ')', b == '+', b == ',', b == '-', b == '.', b == '/', b == ':', b == '=', b == '?':
		default:
			return false
		}
	}
	return true
}

// hasControl tells whether s has a character that cannot be seen but changes what is: the control characters (C0, DEL, C1), the line
// and paragraph separators, and the marks that turn the direction of writing, which make one name look like another.
func hasControl(s []byte) bool {
	for len(s) > 0 {
		if s[0] < utf8.RuneSelf {
			if s[0] < ' ' || s[0] == 0x7f {
				return true
			}
			s = s[1:]
			continue
		}
		r, size := utf8.DecodeRune(s)
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || '\u202a' <= r && r <= '\u202e' || '\u2066' <= r && r <= '\u2069' {
			return true
		}
		s = s[size:]
	}
	return false
}
