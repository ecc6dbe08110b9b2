package csr

import (
	"encoding/asn1"
	"math"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// The extensions that are read (RFC 5280, section 4.2.1).
var (
	oidSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
)

// keyUsages is the number of key usages that RFC 5280 defines: digitalSignature to decipherOnly.
const keyUsages = 9

// readExtensions reads the contents of Extensions (RFC 5280, section 4.1.2.9), of which there is at least one.
func (r *Request) readExtensions(s cryptobyte.String) error {
	var room [8]asn1.ObjectIdentifier
	seen := room[:0]
	for !s.Empty() {
		var extension, value cryptobyte.String
		var oid asn1.ObjectIdentifier
		var critical bool
		if !s.ReadASN1(&extension, cryptobyte_asn1.SEQUENCE) || !extension.ReadASN1ObjectIdentifier(&oid) {
			return notDER("extensionRequest", "an extension is not a SEQUENCE that begins with its OID")
		}
		if !flag(&extension, &critical) {
			return notDER("extensionRequest", "the critical mark of extension %v is not TRUE; DER leaves FALSE out", oid)
		}
		if !extension.ReadASN1(&value, cryptobyte_asn1.OCTET_STRING) || !extension.Empty() {
			return notDER("extensionRequest", "extension %v does not end with one OCTET STRING", oid)
		}
		if len(seen) == MaxElements {
			return refuse(RuleTooMany, "extensionRequest", "ask for fewer extensions", "the request asks for more than %d extensions", MaxElements)
		}
		if slices.ContainsFunc(seen, oid.Equal) {
			return refuse(RuleDuplicateExtension, "extensionRequest", "ask for each extension once",
				"the request asks for extension %v more than once", oid)
		}
		seen = append(seen, oid)
		if err := r.readExtension(oid, critical, value); err != nil {
			return err
		}
	}
	return nil
}

func (r *Request) readExtension(oid asn1.ObjectIdentifier, critical bool, value cryptobyte.String) (err error) {
	switch {
	case oid.Equal(oidSubjectAltName):
		r.names, err = readNames(value)
		r.names.Critical = critical
	case oid.Equal(oidKeyUsage):
		r.extensions.KeyUsage, err = readKeyUsage(value, critical)
	case oid.Equal(oidExtKeyUsage):
		r.extensions.ExtKeyUsage, err = readExtKeyUsage(value, critical)
	case oid.Equal(oidBasicConstraints):
		r.extensions.BasicConstraints, err = readBasicConstraints(value, critical)
	case !single(value):
		err = notDER("extensionRequest", "the value of extension %v is not one DER value", oid)
	default:
		r.extensions.Unknown = append(r.extensions.Unknown, Unknown{OID: oid, Critical: critical})
	}
	return err
}

// readKeyUsage reads a named bit list: DER has no zero bits at its end (X.690, section 11.2.2).
func readKeyUsage(value cryptobyte.String, critical bool) (*KeyUsage, error) {
	var bits asn1.BitString
	if !value.ReadASN1BitString(&bits) || !value.Empty() {
		return nil, notDER("keyUsage", "the key usage is not one BIT STRING")
	}
	if bits.BitLength == 0 || bits.At(bits.BitLength-1) == 0 {
		return nil, notDER("keyUsage", "the key usage names no use, or ends with a zero bit")
	}
	if bits.BitLength > keyUsages {
		return nil, notDER("keyUsage", "the key usage has bit %d, which has no meaning", bits.BitLength-1)
	}
	usage := &KeyUsage{Critical: critical}
	for n := range bits.BitLength {
		usage.Bits |= uint16(bits.At(n)) << n
	}
	return usage, nil
}

func readExtKeyUsage(value cryptobyte.String, critical bool) (*ExtKeyUsage, error) {
	var list cryptobyte.String
	if !value.ReadASN1(&list, cryptobyte_asn1.SEQUENCE) || !value.Empty() || list.Empty() {
		return nil, notDER("extKeyUsage", "the extended key usage is not one SEQUENCE of at least one purpose")
	}
	usage := &ExtKeyUsage{Critical: critical}
	for !list.Empty() {
		var oid asn1.ObjectIdentifier
		if !list.ReadASN1ObjectIdentifier(&oid) {
			return nil, notDER("extKeyUsage", "the extended key usage holds something other than OIDs")
		}
		if len(usage.OIDs) == MaxElements {
			return nil, refuse(RuleTooMany, "extKeyUsage", "ask for fewer purposes", "the request asks for more than %d purposes", MaxElements)
		}
		usage.OIDs = append(usage.OIDs, oid)
	}
	return usage, nil
}

func readBasicConstraints(value cryptobyte.String, critical bool) (*BasicConstraints, error) {
	var s cryptobyte.String
	constraints := &BasicConstraints{PathLen: -1, Critical: critical}
	if !value.ReadASN1(&s, cryptobyte_asn1.SEQUENCE) || !value.Empty() {
		return nil, notDER("basicConstraints", "the basic constraints are not one SEQUENCE")
	}
	if !flag(&s, &constraints.CA) {
		return nil, notDER("basicConstraints", "cA is not TRUE; DER leaves FALSE out")
	}
	if s.Empty() {
		return constraints, nil
	}
	var length int32
	if !s.ReadASN1Integer(&length) || length < 0 || length > math.MaxUint8 || !s.Empty() {
		return nil, notDER("basicConstraints", "what follows cA is not one path length from 0 to 255")
	}
	if !constraints.CA {
		return nil, refuse(RuleEncoding, "basicConstraints", "leave the path length out",
			"there is a path length without cA (RFC 5280, section 4.2.1.9)")
	}
	constraints.PathLen = int(length)
	return constraints, nil
}
