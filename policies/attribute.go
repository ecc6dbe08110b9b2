package policies

import (
	"encoding/asn1"
	"slices"
)

// attributeType is what the standards say of an attribute of a distinguished name.
type attributeType struct {
	name string
	oid  asn1.ObjectIdentifier
	// max is the upper bound in characters (RFC 5280, appendix A.1; X.520 where RFC 5280 has none).
	max int
	// issuable is false for types that must be encoded as IA5String, which a template does not carry: they can be dropped, not issued.
	issuable bool
}

// attributeTypes are the attribute types known by name.
var attributeTypes = []attributeType{
	{"countryName", oidCountry, 2, true},
	{"stateOrProvinceName", asn1.ObjectIdentifier{2, 5, 4, 8}, 128, true},
	{"localityName", asn1.ObjectIdentifier{2, 5, 4, 7}, 128, true},
	{"postalCode", asn1.ObjectIdentifier{2, 5, 4, 17}, 16, true},
	{"streetAddress", asn1.ObjectIdentifier{2, 5, 4, 9}, 128, true},
	{"organizationName", oidOrganisation, 64, true},
	{"organizationalUnitName", asn1.ObjectIdentifier{2, 5, 4, 11}, 64, true},
	{"surname", asn1.ObjectIdentifier{2, 5, 4, 4}, 64, true},
	{"givenName", asn1.ObjectIdentifier{2, 5, 4, 42}, 64, true},
	{"title", asn1.ObjectIdentifier{2, 5, 4, 12}, 64, true},
	{"serialNumber", asn1.ObjectIdentifier{2, 5, 4, 5}, 64, true},
	{"commonName", oidCommonName, 64, true},
	{"userID", asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}, 256, true},
	{"emailAddress", asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, 255, false},
	{"domainComponent", asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}, 63, false},
}

func attributeByName(name string) (attributeType, bool) {
	i := slices.IndexFunc(attributeTypes, func(a attributeType) bool { return a.name == name })
	if i < 0 {
		return attributeType{}, false
	}
	return attributeTypes[i], true
}

func attributeByOID(oid asn1.ObjectIdentifier) (attributeType, bool) {
	i := slices.IndexFunc(attributeTypes, func(a attributeType) bool { return a.oid.Equal(oid) })
	if i < 0 {
		return attributeType{}, false
	}
	return attributeTypes[i], true
}

// attributeName is the name of an attribute type, or its digits.
func attributeName(oid asn1.ObjectIdentifier) string {
	if a, ok := attributeByOID(oid); ok {
		return a.name
	}
	return oid.String()
}
