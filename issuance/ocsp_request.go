package issuance

import (
	"bytes"
	"encoding/asn1"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// Bounds of an OCSP request. A client asks about one certificate, or about those of a chain.
const (
	// MaxOCSPRequest is the longest request that is read, in octets.
	MaxOCSPRequest = 16 << 10
	// MaxOCSPCertificates is the most certificates that one request may ask about.
	MaxOCSPCertificates = 32
	// MaxNonce is the longest nonce, in octets (RFC 9654, section 2.1).
	MaxNonce = 128

	maxOCSPExtensions = 16
)

// ErrOCSPRequest is a request that is not one of RFC 6960. It is answered with malformedRequest.
var ErrOCSPRequest = errors.New("the OCSP request is malformed")

// OCSPRequest is what a client asks (RFC 6960, section 4.1).
type OCSPRequest struct {
	Certificates []CertID // at least one
	Nonce        []byte   // of 1 to MaxNonce octets; nil: the request has none
}

// CertID names a certificate by hashes of its issuer's name and key, and its serial number (RFC 6960, section 4.1.1).
type CertID struct {
	Serial []byte // big-endian, above zero, without an octet of the sign
	issuer []byte // hashAlgorithm, issuerNameHash and issuerKeyHash as they stood in the request
}

var oidOCSPNonce = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 2}

// ParseOCSPRequest reads a request. It is strict: DER, and nothing that it does not understand, except for extensions that are not
// critical, which RFC 6960, section 4.4, has ignored. A signature of the requestor is read over and not verified: nobody is answered
// otherwise for having signed. Its error is ErrOCSPRequest.
func ParseOCSPRequest(request []byte) (*OCSPRequest, error) {
	if len(request) > MaxOCSPRequest {
		return nil, malformed("it has more than %d octets", MaxOCSPRequest)
	}
	s := cryptobyte.String(request)
	var outer, tbs cryptobyte.String
	if !s.ReadASN1(&outer, der.SEQUENCE) || !s.Empty() || !outer.ReadASN1(&tbs, der.SEQUENCE) {
		return nil, malformed("it is no sequence, or something follows it")
	}
	if err := skipRequestSignature(&outer); err != nil {
		return nil, err
	}
	if err := skipRequestHead(&tbs); err != nil {
		return nil, err
	}
	var list cryptobyte.String
	if !tbs.ReadASN1(&list, der.SEQUENCE) || list.Empty() {
		return nil, malformed("it asks about no certificate")
	}
	read := &OCSPRequest{Certificates: make([]CertID, 0, 1)}
	for !list.Empty() {
		if len(read.Certificates) == MaxOCSPCertificates {
			return nil, malformed("it asks about more than %d certificates", MaxOCSPCertificates)
		}
		id, err := readSingleRequest(&list)
		if err != nil {
			return nil, err
		}
		read.Certificates = append(read.Certificates, id)
	}
	var err error
	if !tbs.Empty() {
		read.Nonce, err = readRequestExtensions(&tbs, der.Tag(2).ContextSpecific().Constructed(), true)
	}
	if err == nil && !tbs.Empty() {
		err = malformed("something follows its extensions")
	}
	if err != nil {
		return nil, err
	}
	return read, nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrOCSPRequest, fmt.Sprintf(format, args...))
}

// skipRequestSignature reads over optionalSignature.
func skipRequestSignature(outer *cryptobyte.String) error {
	if outer.Empty() {
		return nil
	}
	zero := der.Tag(0).ContextSpecific().Constructed()
	var explicit, signature, certificates cryptobyte.String
	var bits asn1.BitString
	ok := outer.ReadASN1(&explicit, zero) && outer.Empty() && explicit.ReadASN1(&signature, der.SEQUENCE) && explicit.Empty() &&
		signature.SkipASN1(der.SEQUENCE) && signature.ReadASN1BitString(&bits)
	if ok && !signature.Empty() {
		ok = signature.ReadASN1(&certificates, zero) && certificates.SkipASN1(der.SEQUENCE) && certificates.Empty() && signature.Empty()
	}
	if !ok {
		return malformed("its signature cannot be read")
	}
	return nil
}

// skipRequestHead reads version and requestorName. The version is v1, its default; an encoder may have written it all the same.
func skipRequestHead(tbs *cryptobyte.String) error {
	var explicit cryptobyte.String
	if tag := der.Tag(0).ContextSpecific().Constructed(); tbs.PeekASN1Tag(tag) {
		var version int
		if !tbs.ReadASN1(&explicit, tag) || !explicit.ReadASN1Integer(&version) || !explicit.Empty() || version != 0 {
			return malformed("its version is not v1")
		}
	}
	if tag := der.Tag(1).ContextSpecific().Constructed(); tbs.PeekASN1Tag(tag) {
		var name cryptobyte.String
		var form der.Tag
		if !tbs.ReadASN1(&explicit, tag) || !explicit.ReadAnyASN1(&name, &form) || !explicit.Empty() || form&0xc0 != 0x80 {
			return malformed("the requestor's name cannot be read")
		}
	}
	return nil
}

func readSingleRequest(list *cryptobyte.String) (CertID, error) {
	var single, id, serial cryptobyte.String
	if !list.ReadASN1(&single, der.SEQUENCE) || !single.ReadASN1(&id, der.SEQUENCE) {
		return CertID{}, malformed("a CertID is missing")
	}
	whole := id
	var algorithm, oid cryptobyte.String
	if !id.ReadASN1(&algorithm, der.SEQUENCE) || !algorithm.ReadASN1(&oid, der.OBJECT_IDENTIFIER) || len(oid) == 0 ||
		!id.SkipASN1(der.OCTET_STRING) || !id.SkipASN1(der.OCTET_STRING) {
		return CertID{}, malformed("a CertID cannot be read")
	}
	issuer := whole[:len(whole)-len(id)]
	if !id.ReadASN1(&serial, der.INTEGER) || !id.Empty() {
		return CertID{}, malformed("the serial number of a CertID cannot be read")
	}
	number, err := positiveSerial(serial)
	if err != nil {
		return CertID{}, err
	}
	if !single.Empty() {
		if _, err := readRequestExtensions(&single, der.Tag(0).ContextSpecific().Constructed(), false); err != nil {
			return CertID{}, err
		}
		if !single.Empty() {
			return CertID{}, malformed("something follows the extensions of a CertID")
		}
	}
	return CertID{Serial: number, issuer: issuer}, nil
}

// positiveSerial refuses numbers that no certificate of RFC 5280 has, and such as are not in their shortest form.
func positiveSerial(n []byte) ([]byte, error) {
	if len(n) == 0 || n[0]&0x80 != 0 || len(n) > 1 && n[0] == 0 && n[1]&0x80 == 0 {
		return nil, malformed("a serial number is negative, or not in its shortest form")
	}
	n = bytes.TrimLeft(n, "\x00")
	if len(n) == 0 || len(n) > maxSerial {
		return nil, malformed("a serial number is zero, or has more than %d octets", maxSerial)
	}
	return n, nil
}

// readRequestExtensions reads extensions and returns the nonce among them, where one may be.
func readRequestExtensions(s *cryptobyte.String, tag der.Tag, nonceHere bool) (nonce []byte, err error) {
	var explicit, list cryptobyte.String
	if !s.ReadASN1(&explicit, tag) || !explicit.ReadASN1(&list, der.SEQUENCE) || !explicit.Empty() || list.Empty() {
		return nil, malformed("its extensions cannot be read")
	}
	for n := 0; !list.Empty(); n++ {
		var extension, oid, value cryptobyte.String
		critical := false
		ok := list.ReadASN1(&extension, der.SEQUENCE) && extension.ReadASN1(&oid, der.OBJECT_IDENTIFIER) && plainOID(oid)
		if ok && extension.PeekASN1Tag(der.BOOLEAN) {
			ok = extension.ReadASN1Boolean(&critical)
		}
		if !ok || !extension.ReadASN1(&value, der.OCTET_STRING) || !extension.Empty() || n == maxOCSPExtensions {
			return nil, malformed("its extensions cannot be read, or are more than %d", maxOCSPExtensions)
		}
		switch {
		case nonceHere && string(oid) == nonceOctets:
			if nonce != nil {
				return nil, malformed("it has two nonces")
			}
			if nonce, err = readNonce(value); err != nil {
				return nil, err
			}
		case critical:
			return nil, malformed("the critical extension with the OID %x is not understood", []byte(oid))
		}
	}
	return nonce, nil
}

// nonceOctets is oidOCSPNonce as it is encoded.
const nonceOctets = "\x2b\x06\x01\x05\x05\x07\x30\x01\x02"

// plainOID tells whether the content of an OBJECT IDENTIFIER is whole and each arc in its shortest form, however large (X.690, section
// 8.19): UUIDs under 2.25 have arcs of 128 bits.
func plainOID(content []byte) bool {
	begins := true
	for _, octet := range content {
		if begins && octet == 0x80 {
			return false
		}
		begins = octet&0x80 == 0
	}
	return len(content) > 0 && begins
}

// readNonce reads a nonce, and refuses one of a length that RFC 9654, section 2.1, has refused.
func readNonce(value cryptobyte.String) ([]byte, error) {
	var nonce cryptobyte.String
	if !value.ReadASN1(&nonce, der.OCTET_STRING) || !value.Empty() || len(nonce) == 0 || len(nonce) > MaxNonce {
		return nil, malformed("its nonce is not an octet string of 1 to %d octets", MaxNonce)
	}
	return nonce, nil
}
