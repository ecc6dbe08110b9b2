package policies

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"
)

func TestSameName(t *testing.T) {
	// with is the name of one common name, encoded in a string type and read back.
	with := func(tag int, value string) pkix.RDNSequence {
		element, err := asn1.Marshal(asn1.RawValue{Tag: tag, Bytes: []byte(value)})
		if err != nil {
			t.Fatal(err)
		}
		raw, err := asn1.Marshal(pkix.RDNSequence{{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: asn1.RawValue{FullBytes: element}}}})
		if err != nil {
			t.Fatal(err)
		}
		name, err := ReadName(raw)
		if err != nil {
			t.Fatal(err)
		}
		return name
	}
	issuer := with(asn1.TagPrintableString, "Issuing CA 1")
	for name, c := range map[string]struct {
		other pkix.RDNSequence
		same  bool
	}{
		"UTF-8":      {with(asn1.TagUTF8String, "Issuing CA 1"), true},
		"small":      {with(asn1.TagUTF8String, "issuing ca 1"), true},
		"wide":       {with(asn1.TagUTF8String, " Issuing  CA 1 "), true},
		"another":    {with(asn1.TagUTF8String, "Issuing CA 2"), false},
		"together":   {with(asn1.TagUTF8String, "IssuingCA 1"), false},
		"longer":     {append(with(asn1.TagUTF8String, "Issuing CA 1"), issuer[0]), false},
		"empty":      {nil, false},
		"other type": {pkix.RDNSequence{{{Type: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: "Issuing CA 1"}}}, false},
	} {
		if SameName(issuer, c.other) != c.same {
			t.Errorf("%s: want %t", name, c.same)
		}
	}
	if SameName(nil, nil) {
		t.Error("nobody is somebody")
	}
	if _, err := ReadName([]byte{0x30, 0, 0}); err == nil {
		t.Error("a name with something behind it was read")
	}
}
