package csr

import (
	"encoding/asn1"
	"net/netip"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// The choices of GeneralName (RFC 5280, section 4.2.1.6).
const (
	otherName     = cryptobyte_asn1.Tag(0x80 | 0x20)
	rfc822Name    = cryptobyte_asn1.Tag(0x80 | 1)
	dNSName       = cryptobyte_asn1.Tag(0x80 | 2)
	x400Address   = cryptobyte_asn1.Tag(0x80 | 0x20 | 3)
	directoryName = cryptobyte_asn1.Tag(0x80 | 0x20 | 4) // explicit, as Name is a CHOICE
	ediPartyName  = cryptobyte_asn1.Tag(0x80 | 0x20 | 5)
	uriName       = cryptobyte_asn1.Tag(0x80 | 6)
	iPAddress     = cryptobyte_asn1.Tag(0x80 | 7)
	registeredID  = cryptobyte_asn1.Tag(0x80 | 8)
)

// readNames reads the value of a subjectAltName extension.
func readNames(value cryptobyte.String) (Names, error) {
	var list cryptobyte.String
	if !value.ReadASN1(&list, cryptobyte_asn1.SEQUENCE) || !value.Empty() {
		return Names{}, notDER("subjectAltName", "the subjectAltName is not one SEQUENCE with nothing behind it")
	}
	if list.Empty() {
		return Names{}, refuse(RuleEncoding, "subjectAltName", "leave the extension out when there is no name to ask for",
			"the subjectAltName is empty")
	}
	var names Names
	for count := 1; !list.Empty(); count++ {
		if count > MaxNames {
			return Names{}, refuse(RuleTooManyNames, "subjectAltName", "split the names over several requests",
				"the request asks for more than %d names", MaxNames)
		}
		if err := names.read(&list, count); err != nil {
			return Names{}, err
		}
	}
	return names, nil
}

// read reads one GeneralName, the count'th, and adds it.
func (n *Names) read(list *cryptobyte.String, count int) error {
	var content cryptobyte.String
	var tag cryptobyte_asn1.Tag
	if !list.ReadAnyASN1(&content, &tag) {
		return notDER("subjectAltName", "name %d is not a DER value", count)
	}
	switch tag {
	case dNSName:
		return addIA5(&n.DNS, "dNSName", content, count)
	case rfc822Name:
		return addIA5(&n.Email, "rfc822Name", content, count)
	case uriName:
		return addIA5(&n.URI, "uniformResourceIdentifier", content, count)
	case iPAddress:
		address, ok := netip.AddrFromSlice(content)
		if !ok {
			return refuse(RuleIPAddress, "subjectAltName", "give 4 octets for IPv4 or 16 for IPv6, without a mask",
				"the iPAddress in name %d is %d octets long", count, len(content))
		}
		n.IP = append(n.IP, address)
		return nil
	}
	other, ok := readOtherName(tag, content)
	if !ok {
		return notDER("subjectAltName", "name %d is not a GeneralName", count)
	}
	n.Other = append(n.Other, other)
	return nil
}

func addIA5(names *[]string, kind string, content []byte, count int) error {
	if !ascii(content) {
		return refuse(RuleEncoding, "subjectAltName", "write internationalised names in their ASCII form (xn--...)",
			"the %s in name %d has characters other than ASCII", kind, count)
	}
	if hasControl(content) {
		return refuse(RuleControlCharacter, "subjectAltName", "remove the character", "the %s in name %d has a control character", kind, count)
	}
	*names = append(*names, string(content))
	return nil
}

// readOtherName reads the choices that no profile can allow, as far as it takes to say what they are.
func readOtherName(tag cryptobyte_asn1.Tag, content cryptobyte.String) (OtherName, bool) {
	switch tag {
	case otherName:
		var oid asn1.ObjectIdentifier
		var value cryptobyte.String
		ok := content.ReadASN1ObjectIdentifier(&oid) &&
			content.ReadASN1(&value, cryptobyte_asn1.Tag(0).ContextSpecific().Constructed()) && content.Empty() && single(value)
		return OtherName{Kind: "otherName", OID: oid.String()}, ok
	case x400Address:
		return OtherName{Kind: "x400Address"}, wellFormed(content, maxDepth)
	case directoryName:
		return OtherName{Kind: "directoryName"}, content.PeekASN1Tag(cryptobyte_asn1.SEQUENCE) && single(content)
	case ediPartyName:
		return OtherName{Kind: "ediPartyName"}, wellFormed(content, maxDepth)
	case registeredID:
		oid, ok := implicitIdentifier(content)
		return OtherName{Kind: "registeredID", OID: oid.String()}, ok
	}
	return OtherName{}, false
}

// implicitIdentifier decodes the contents of an OBJECT IDENTIFIER that stands under another tag.
func implicitIdentifier(content []byte) (oid asn1.ObjectIdentifier, ok bool) {
	var b cryptobyte.Builder
	b.AddASN1(cryptobyte_asn1.OBJECT_IDENTIFIER, func(b *cryptobyte.Builder) { b.AddBytes(content) })
	der, err := b.Bytes()
	s := cryptobyte.String(der)
	return oid, err == nil && s.ReadASN1ObjectIdentifier(&oid) && s.Empty()
}
