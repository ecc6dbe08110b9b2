package policies

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// SameName compares names as whoever checks a chain may (RFC 5280, section 7.1): the types of strings, the case of letters and white space
// that adds nothing do not count. A name of nothing is nobody's.
func SameName(a, b pkix.RDNSequence) bool {
	return len(a) > 0 && slices.EqualFunc(a, b, func(a, b pkix.RelativeDistinguishedNameSET) bool { return slices.EqualFunc(a, b, sameAttribute) })
}

func sameAttribute(a, b pkix.AttributeTypeAndValue) bool {
	x, text := a.Value.(string)
	y, both := b.Value.(string)
	return a.Type.Equal(b.Type) && text && both && strings.EqualFold(plainSpace(x), plainSpace(y))
}

func plainSpace(s string) string { return strings.Join(strings.Fields(s), " ") }

// ReadName reads an encoded name. It is an error for anything to follow it.
func ReadName(raw []byte) (name pkix.RDNSequence, err error) {
	rest, err := asn1.Unmarshal(raw, &name)
	if err == nil && len(rest) > 0 {
		err = errors.New("something follows it")
	}
	if err != nil {
		return nil, fmt.Errorf("reading a name: %w", err)
	}
	return name, nil
}
