package csr

import (
	"encoding/asn1"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// oidExtensionRequest is RFC 2985, section 5.4.2. Microsoft's older 1.3.6.1.4.1.311.2.1.14 of the same meaning is not read: it is
// listed like any attribute, for the policies to refuse, because two places to ask for extensions are one too many.
var oidExtensionRequest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14}

// readAttributes reads the contents of the attributes field (RFC 2986, section 4.1). Other than everywhere else, the order of this
// SET OF is not held to DER: Go's crypto/x509, and with it many an ACME and SCEP client, writes attributes in the order it was given.
// The order carries no meaning, and the signature covers it.
func (r *Request) readAttributes(s cryptobyte.String) error {
	requested := false
	for !s.Empty() {
		var attribute, values cryptobyte.String
		var oid asn1.ObjectIdentifier
		if !s.ReadASN1(&attribute, cryptobyte_asn1.SEQUENCE) || !attribute.ReadASN1ObjectIdentifier(&oid) ||
			!attribute.ReadASN1(&values, cryptobyte_asn1.SET) || !attribute.Empty() {
			return notDER("attributes", "an attribute of the request is not a pair of a type and a SET of values")
		}
		if oid.Equal(oidExtensionRequest) {
			if requested {
				return refuse(RuleDuplicateAttribute, "extensionRequest", "ask for all extensions in one extensionRequest",
					"the request has more than one extensionRequest")
			}
			requested = true
			if err := r.readExtensionRequest(values); err != nil {
				return err
			}
			continue
		}
		if len(r.attributes) == MaxElements {
			return refuse(RuleTooMany, "attributes", "leave the attributes out", "the request has more than %d attributes", MaxElements)
		}
		if slices.ContainsFunc(r.attributes, oid.Equal) {
			return refuse(RuleDuplicateAttribute, "attributes", "leave one of them out", "the request has the attribute %v more than once", oid)
		}
		if values.Empty() || !wellFormed(values, maxDepth) || !sorted(values) {
			return notDER("attributes", "the values of attribute %v are not a SET of DER values", oid)
		}
		r.attributes = append(r.attributes, oid)
	}
	return nil
}

// readExtensionRequest reads the one value of an extensionRequest.
func (r *Request) readExtensionRequest(values cryptobyte.String) error {
	var extensions cryptobyte.String
	if !values.ReadASN1(&extensions, cryptobyte_asn1.SEQUENCE) || !values.Empty() {
		return refuse(RuleExtensionRequest, "extensionRequest", "ask for all extensions in one value (RFC 2985, section 5.4.2)",
			"the extensionRequest does not have exactly one value")
	}
	if extensions.Empty() {
		return refuse(RuleExtensionRequest, "extensionRequest", "leave the extensionRequest out when there is no extension to ask for",
			"the extensionRequest is empty")
	}
	return r.readExtensions(extensions)
}
