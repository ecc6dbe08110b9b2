package keeper

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

const (
	// skew is how far the times in what is signed may lie from the keeper's clock: what issuance permits (Baseline Requirements, 7.1.2.7).
	skew = 48 * time.Hour
	// serialPrefix is the first octet of a serial number of Chancery's own.
	serialPrefix = 0x1c
	serialSize   = 20
)

// The bits of keyUsage (RFC 5280, section 4.2.1.3) that make a certificate one that vouches for others.
const (
	bitKeyCertSign = 1 << 10
	bitCRLSign     = 1 << 9
)

// certificateExtensions are those that a certificate may have; the value tells whether one must, may (0) or must not be critical.
var certificateExtensions = map[string]int{
	oidSubjectKeyID: -1, oidKeyUsage: 1, oidSubjectAltName: 0, oidBasicConstraints: 0, oidNameConstraints: 1, oidCRLDistribution: -1,
	oidFreshestCRL:         -1,
	oidCertificatePolicies: 0, oidAuthorityKeyID: -1, oidExtKeyUsage: 0, oidAuthorityInfoAccess: -1, oidOCSPNoCheck: -1, oidSCTList: -1,
	oidPoison: 1,
}

// certificate reads a TBSCertificate (RFC 5280, section 4.1) and holds it against the authority. It returns the serial number.
func (k *key) certificate(s cryptobyte.String, now time.Time) (string, error) {
	p := k.Certificates
	if p == nil {
		return "", refuse("the key signs no certificates")
	}
	var version int
	outer, err := content(&s, der.Tag(0).ContextSpecific().Constructed(), "the version")
	if err != nil || !outer.ReadASN1Integer(&version) || !outer.Empty() || version != 2 {
		return "", refuse("the certificate is not of version 3")
	}
	serial, err := positive(&s, "the serial number")
	if err != nil {
		return "", err
	}
	detail := hex.EncodeToString(serial)
	if err := p.checkSerial(serial, now); err != nil {
		return detail, err
	}
	signature, err := element(&s, der.SEQUENCE, "the signature algorithm")
	if err != nil || !bytes.Equal(signature, k.algorithm.identifier) {
		return detail, refuse("the signature algorithm is not the key's")
	}
	issuer, err := name(&s, "the issuer")
	if err != nil || !bytes.Equal(issuer, k.subject) {
		return detail, refuse("the issuer is not the authority")
	}
	validity, err := k.checkValidity(&s, now)
	if err != nil {
		return detail, err
	}
	subject, err := name(&s, "the subject")
	if err != nil {
		return detail, err
	}
	switch knownAs(subject) {
	case k.known:
		return detail, refuse("the subject is the authority itself, be it in other writing")
	case k.issuerKnown:
		return detail, refuse("the subject is the authority that has issued this one's certificate, be it in other writing")
	}
	spki, err := k.checkSubjectKey(&s)
	if err != nil {
		return detail, err
	}
	list, err := content(&s, der.Tag(3).ContextSpecific().Constructed(), "the extensions")
	if err != nil {
		return detail, err
	}
	inner, err := sequence(list, "the extensions")
	if err != nil {
		return detail, err
	}
	if !s.Empty() {
		return detail, refuse("something follows the extensions")
	}
	ext, err := extensions(inner, "the extensions")
	if err != nil {
		return detail, err
	}
	responder, err := k.checkExtensions(ext)
	if err == nil && responder {
		err = k.checkResponderCertificate(spki, validity)
	}
	return detail, err
}

func (p *CertificatePolicy) checkSerial(serial []byte, now time.Time) error {
	if p.AnySerial {
		if len(serial) < minSerial {
			return refuse("the serial number has fewer than %d octets", minSerial)
		}
		if len(serial) == serialSize && serial[0]&0x80 != 0 {
			return refuse("the serial number has more than %d octets with that of its sign", serialSize)
		}
		return nil
	}
	if len(serial) != serialSize || serial[0] != serialPrefix {
		return refuse("the serial number is not of Chancery's form")
	}
	var stamp [8]byte
	copy(stamp[2:], serial[1:7])
	if now.Sub(time.UnixMilli(int64(binary.BigEndian.Uint64(stamp[:])))).Abs() > skew {
		return refuse("the serial number is not of this time")
	}
	return nil
}

// checkValidity reads the validity, and returns how long it is.
func (k *key) checkValidity(s *cryptobyte.String, now time.Time) (time.Duration, error) {
	validity, err := content(s, der.SEQUENCE, "the validity")
	if err != nil {
		return 0, err
	}
	notBefore, err := moment(&validity, "notBefore")
	if err != nil {
		return 0, err
	}
	notAfter, err := moment(&validity, "notAfter")
	if err != nil {
		return 0, err
	}
	switch {
	case !validity.Empty():
		return 0, refuse("something follows notAfter")
	case notBefore.Sub(now).Abs() > skew:
		return 0, refuse("notBefore is more than 48 hours from now")
	case !notAfter.After(notBefore):
		return 0, refuse("notAfter is not after notBefore")
	case notAfter.After(k.Certificate.NotAfter):
		return 0, refuse("notAfter is after the authority's own")
	case k.Certificates.MaxValidity > 0 && notAfter.Sub(notBefore) > k.Certificates.MaxValidity:
		return 0, refuse("the validity is longer than the policy's")
	}
	return notAfter.Sub(notBefore), nil
}

// checkSubjectKey reads a SubjectPublicKeyInfo, refuses the authority's own, and returns it whole.
func (k *key) checkSubjectKey(s *cryptobyte.String) ([]byte, error) {
	spki, err := element(s, der.SEQUENCE, "the public key")
	if err != nil {
		return nil, err
	}
	if bytes.Equal(spki, k.spki) {
		return nil, refuse("the public key is the authority's own")
	}
	inner, _ := sequence(spki, "the public key")
	algorithm, err := content(&inner, der.SEQUENCE, "the public key's algorithm")
	var bits []byte
	if _, ok := identifier(&algorithm); err != nil || !ok || !inner.ReadASN1BitStringAsBytes(&bits) || len(bits) == 0 || !inner.Empty() {
		return nil, refuse("the public key cannot be read")
	}
	return spki, nil
}

// checkExtensions tells whether the certificate is an OCSP responder's.
func (k *key) checkExtensions(ext map[string]extension) (responder bool, err error) {
	for oid, e := range ext {
		critical, known := certificateExtensions[oid]
		if !known || critical > 0 && !e.critical || critical < 0 && e.critical {
			return false, refuse("an extension is unknown, or critical where it must not be: %x", oid)
		}
	}
	authority, err := k.checkBasicConstraints(ext)
	if err != nil {
		return false, err
	}
	if err := checkUsages(ext, authority); err != nil {
		return false, err
	}
	if _, ok := ext[oidNameConstraints]; ok && !authority {
		return false, refuse("name constraints stand in a certificate that is not an authority's")
	}
	if err := k.checkAuthorityKeyID(ext); err != nil {
		return false, err
	}
	return checkExtendedUsages(ext)
}

// checkBasicConstraints tells whether the certificate is an authority's, and refuses one that may not be.
func (k *key) checkBasicConstraints(ext map[string]extension) (bool, error) {
	e, ok := ext[oidBasicConstraints]
	if !ok {
		return false, nil
	}
	inner, err := sequence(e.value, "basicConstraints")
	if err != nil {
		return false, err
	}
	if inner.Empty() {
		return false, nil
	}
	var ca bool
	if !inner.ReadASN1Boolean(&ca) || !ca || !e.critical {
		return false, refuse("basicConstraints are not critical, or not in DER")
	}
	if !k.Certificates.Authorities {
		return false, refuse("the certificate is an authority's (CA:TRUE), and the key signs none")
	}
	pathLen := -1
	if !inner.Empty() {
		if !inner.ReadASN1Integer(&pathLen) || pathLen < 0 || !inner.Empty() {
			return false, refuse("the pathLenConstraint cannot be read")
		}
	}
	if k.pathLen >= 0 && (pathLen < 0 || pathLen >= k.pathLen) {
		return false, refuse("the pathLenConstraint is not below the authority's own")
	}
	return true, nil
}

// checkUsages wants a keyUsage in every certificate: one that has none is good for all, CRLs included (RFC 5280, section 6.3.3, f).
func checkUsages(ext map[string]extension, authority bool) error {
	e, ok := ext[oidKeyUsage]
	if !ok {
		return refuse("the certificate has no keyUsage, and would be good for everything")
	}
	bits, err := bitString(e.value, "keyUsage")
	if err != nil {
		return err
	}
	if authority && bits&bitKeyCertSign == 0 {
		return refuse("the keyUsage of an authority lacks keyCertSign")
	}
	if !authority && bits&(bitKeyCertSign|bitCRLSign) != 0 {
		return refuse("the keyUsage of a certificate that is not an authority's has keyCertSign or cRLSign")
	}
	return nil
}

func (k *key) checkAuthorityKeyID(ext map[string]extension) error {
	e, ok := ext[oidAuthorityKeyID]
	if !ok {
		return refuse("the authorityKeyIdentifier is missing")
	}
	inner, err := sequence(e.value, "the authorityKeyIdentifier")
	var id cryptobyte.String
	if err != nil || !inner.ReadASN1(&id, der.Tag(0).ContextSpecific()) || !inner.Empty() || !bytes.Equal(id, k.authorityKeyID) {
		return refuse("the authorityKeyIdentifier is not the authority's subjectKeyIdentifier")
	}
	return nil
}

// checkExtendedUsages tells whether a certificate speaks for the authority, as an OCSP responder. An authority below it is no exception:
// with OCSPSigning it would answer for its siblings, and for itself (RFC 6960, section 4.2.2.2).
func checkExtendedUsages(ext map[string]extension) (responder bool, err error) {
	e, ok := ext[oidExtKeyUsage]
	_, noCheck := ext[oidOCSPNoCheck]
	if !ok {
		if noCheck {
			return false, refuse("id-pkix-ocsp-nocheck stands in a certificate that is not a responder's")
		}
		return false, nil
	}
	inner, err := sequence(e.value, "extKeyUsage")
	if err != nil {
		return false, err
	}
	if inner.Empty() {
		return false, refuse("extKeyUsage is empty")
	}
	for !inner.Empty() {
		oid, ok := identifier(&inner)
		if !ok {
			return false, refuse("extKeyUsage cannot be read")
		}
		switch string(oid) {
		case oidAnyExtendedUsage:
			return false, refuse("extKeyUsage is anyExtendedKeyUsage")
		case oidOCSPSigning:
			responder = true
		}
	}
	if noCheck && !responder {
		return false, refuse("id-pkix-ocsp-nocheck stands in a certificate that is not a responder's")
	}
	return responder, nil
}

// checkResponderCertificate refuses an OCSP responder that may not be: whoever has the key of one says what is good, past this keeper and
// its journal, until its certificate ends.
func (k *key) checkResponderCertificate(spki []byte, validity time.Duration) error {
	p := k.Certificates
	switch {
	case !p.OCSPResponders:
		return refuse("the certificate is an OCSP responder's, and the key signs none")
	case !p.AnyResponder && !slices.ContainsFunc(k.responders, func(one []byte) bool { return bytes.Equal(one, spki) }):
		return refuse("the certificate is an OCSP responder's, of a key that the policy does not pin as one of the authority's")
	case validity > p.responderValidity():
		return refuse("the validity is longer than the policy's for OCSP responders")
	}
	return nil
}
