package issuance

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"math/big"
	"strings"

	zasn1 "github.com/zmap/zcrypto/encoding/asn1"
	zrsa "github.com/zmap/zcrypto/rsa"
	zx509 "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zcrypto/x509/ct"
	zpkix "github.com/zmap/zcrypto/x509/pkix"
	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// maxVarying is the size of a certificate, in octets, beyond which zcrypto reads all of it. It refuses any part of 8 MiB.
const maxVarying = 1 << 20

// varying reads of a certificate what its shape does not decide, and what the shape is told by, as zcrypto would, from its octets and from
// what crypto/x509 has read of it. All else is left empty, and so are the fields that completed derives. It is nil for a certificate that
// zcrypto might refuse all the same, or read in another way than a plain one: of which the validity is not in plain UTCTime, the subject
// is the issuer or has a say in the level of validation, an alternative name is not of the four usual kinds, or the key of another
// algorithm than RSA, ECDSA and Ed25519.
func varying(read *x509.Certificate) *zx509.Certificate {
	c := &zx509.Certificate{
		Raw: read.Raw, RawTBSCertificate: read.RawTBSCertificate, RawSubjectPublicKeyInfo: read.RawSubjectPublicKeyInfo,
		RawSubject: read.RawSubject, RawIssuer: read.RawIssuer, Signature: read.Signature,
		SerialNumber: read.SerialNumber, NotBefore: read.NotBefore, NotAfter: read.NotAfter, SubjectKeyId: read.SubjectKeyId,
	}
	if len(c.Raw) > maxVarying || !hasPlainTimes(c) || bytes.Equal(c.RawSubject, c.RawIssuer) ||
		!readSubject(c) || !readKey(c, read.PublicKey) || !readExtensions(c, read) {
		return nil
	}
	return c
}

// readSubject reads the subject. Where zcrypto takes the level of validation from it, nothing is read.
func readSubject(c *zx509.Certificate) bool {
	var names zpkix.RDNSequence
	if bytes.Equal(c.RawSubject, []byte{0x30, 0}) {
		names = zpkix.RDNSequence{} // as it is often, and Unmarshal is slow
	} else if _, err := zasn1.Unmarshal(c.RawSubject, &names); err != nil {
		return false
	}
	c.Subject.FillFromRDNSequence(&names)
	organization, unit := c.Subject.Organization, c.Subject.OrganizationalUnit
	saysLevel := len(organization) > 0 && (organization[0] == c.Subject.CommonName || organization[0] == "Persona Not Validated") ||
		len(unit) > 0 && strings.Contains(unit[0], "Domain Control Validated")
	return !saysLevel
}

// readKey makes the public key of what crypto/x509 has read, which has checked it as zcrypto does, but for what may follow an RSA key.
func readKey(c *zx509.Certificate, key any) bool {
	spki := cryptobyte.String(c.RawSubjectPublicKeyInfo)
	var bits, numbers cryptobyte.String
	var unused uint8
	if !spki.ReadASN1(&spki, der.SEQUENCE) || !spki.SkipASN1(der.SEQUENCE) || !spki.ReadASN1(&bits, der.BIT_STRING) || !spki.Empty() ||
		!bits.ReadUint8(&unused) || unused != 0 {
		return false
	}
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		c.PublicKey = &zx509.AugmentedECDSA{Pub: key, Raw: zasn1.BitString{Bytes: bits, BitLength: 8 * len(bits)}}
	case *rsa.PublicKey:
		if !bits.ReadASN1(&numbers, der.SEQUENCE) || !bits.Empty() {
			return false
		}
		c.PublicKey = &zrsa.PublicKey{N: key.N, E: big.NewInt(int64(key.E))}
	case ed25519.PublicKey:
		c.PublicKey = key
	default:
		return false
	}
	return true
}

// readExtensions reads the extensions, and the values of those that vary. The subject key identifier crypto/x509 has read.
func readExtensions(c *zx509.Certificate, read *x509.Certificate) bool {
	c.Extensions = make([]zpkix.Extension, len(read.Extensions))
	for i, e := range read.Extensions {
		c.Extensions[i] = zpkix.Extension{Id: zasn1.ObjectIdentifier(e.Id), Critical: e.Critical, Value: e.Value}
		if e.Id.Equal(oidSubjectAltName) && !readNames(c, e.Value) || e.Id.Equal(oidSCTList) && !readSCTs(c, e.Value) {
			return false
		}
	}
	return true
}

// readNames reads subject alternative names of the usual kinds. That they are IA5 and addresses of the right length, which zcrypto wants
// too, crypto/x509 has checked.
func readNames(c *zx509.Certificate, value cryptobyte.String) bool {
	var names, name cryptobyte.String
	var tag der.Tag
	if !value.ReadASN1(&names, der.SEQUENCE) || !value.Empty() {
		return false
	}
	for !names.Empty() {
		if !names.ReadAnyASN1(&name, &tag) {
			return false
		}
		switch tag {
		case der.Tag(1).ContextSpecific():
			c.EmailAddresses = append(c.EmailAddresses, string(name))
		case der.Tag(2).ContextSpecific():
			c.DNSNames = append(c.DNSNames, string(name))
		case der.Tag(6).ContextSpecific():
			c.URIs = append(c.URIs, string(name))
		case der.Tag(7).ContextSpecific():
			c.IPAddresses = append(c.IPAddresses, []byte(name))
		default:
			return false
		}
	}
	return true
}

// readSCTs reads a list of SCTs (RFC 6962, section 3.3).
func readSCTs(c *zx509.Certificate, value cryptobyte.String) bool {
	var octets, list, one cryptobyte.String
	if !value.ReadASN1(&octets, der.OCTET_STRING) || !value.Empty() || !octets.ReadUint16LengthPrefixed(&list) || !octets.Empty() {
		return false
	}
	for !list.Empty() {
		if !list.ReadUint16LengthPrefixed(&one) {
			return false
		}
		sct, err := ct.DeserializeSCT(bytes.NewReader(one))
		if err != nil {
			return false
		}
		c.SignedCertificateTimestampList = append(c.SignedCertificateTimestampList, sct)
	}
	return true
}
