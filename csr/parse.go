package csr

import (
	"bytes"
	"crypto/sha256"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Limits on single elements, beside MaxDER and MaxNames.
const (
	MaxValue    = 256 // octets of one value in the subject
	MaxElements = 100 // attributes of the subject, attributes of the request, extensions, key purposes: of each
)

// Parse reads one certification request in DER (RFC 2986, section 4.2). Every octet must be understood, and be as DER has it.
// The signature is not checked: see VerifySignature. The error is always an *Error. What is returned shares nothing with der.
func Parse(der []byte) (*Request, error) {
	if len(der) > MaxDER {
		return nil, refuse(RuleTooLarge, "request", "ask for fewer names or a smaller key",
			"the request is %d octets long; at most %d are read", len(der), MaxDER)
	}
	length, err := outerLength(der)
	if err != nil {
		return nil, err
	}
	if length > len(der) {
		return nil, refuse(RuleTruncated, "request", "send the whole request",
			"the request says that it is %d octets long, but ends after %d", length, len(der))
	}
	if length < len(der) {
		return nil, refuse(RuleTrailingData, "request", "send one request and nothing else",
			"%d octets follow the end of the request", len(der)-length)
	}
	r := &Request{raw: bytes.Clone(der)}
	if err := r.read(); err != nil {
		return nil, err
	}
	return r, nil
}

// read reads a CertificationRequest: what is certified, how it was signed, and the signature.
func (r *Request) read() error {
	outer := cryptobyte.String(r.raw)
	var body, tbs, algorithm cryptobyte.String
	if !outer.ReadASN1(&body, cryptobyte_asn1.SEQUENCE) || !outer.Empty() {
		return notDER("request", "the request is not one DER SEQUENCE")
	}
	if !body.ReadASN1Element(&tbs, cryptobyte_asn1.SEQUENCE) {
		return notDER("request", "the request does not begin with a certificationRequestInfo: it is something else, or damaged")
	}
	r.tbs = tbs
	if err := r.readInfo(tbs); err != nil {
		return err
	}
	if !body.ReadASN1(&algorithm, cryptobyte_asn1.SEQUENCE) {
		return notDER("signatureAlgorithm", "the signature algorithm is not an AlgorithmIdentifier")
	}
	var err error
	if r.sigAlg, err = readSignatureAlgorithm(algorithm); err != nil {
		return err
	}
	if !body.ReadASN1BitStringAsBytes(&r.signature) {
		return notDER("signature", "the signature is not a BIT STRING of whole octets")
	}
	if !body.Empty() {
		return notDER("request", "something follows the signature inside the request")
	}
	return nil
}

// readInfo reads a CertificationRequestInfo: version, subject, key, attributes.
func (r *Request) readInfo(element cryptobyte.String) error {
	var info, version, subject, spki, attributes cryptobyte.String
	if !element.ReadASN1(&info, cryptobyte_asn1.SEQUENCE) {
		return notDER("request", "the certificationRequestInfo is not a DER SEQUENCE")
	}
	if !info.ReadASN1(&version, cryptobyte_asn1.INTEGER) || !minimal(version) {
		return notDER("version", "the request does not begin with a version number: it is something else (a certificate, a key), or damaged")
	}
	if len(version) != 1 || version[0] != 0 {
		return refuse(RuleVersion, "version", "make the request with version 1, which is encoded as 0 (RFC 2986, section 4.1)",
			"the encoded version is not 0")
	}
	if !info.ReadASN1(&subject, cryptobyte_asn1.SEQUENCE) {
		return notDER("subject", "the subject is not a SEQUENCE")
	}
	if !info.ReadASN1Element(&spki, cryptobyte_asn1.SEQUENCE) {
		return notDER("subjectPublicKeyInfo", "the public key is not a SEQUENCE")
	}
	if !info.ReadASN1(&attributes, cryptobyte_asn1.Tag(0).ContextSpecific().Constructed()) {
		return refuse(RuleEncoding, "attributes", "write the attributes even when there are none, as an empty [0] (RFC 2986, section 4.1)",
			"the request has no attributes field")
	}
	if !info.Empty() {
		return notDER("request", "something follows the attributes")
	}
	var err error
	if r.subject, err = readSubject(subject); err != nil {
		return err
	}
	if r.key, err = readKey(spki); err != nil {
		return err
	}
	return r.readAttributes(attributes)
}

// SHA256 is the hash of the whole request. It names the request in logs, approvals and idempotency.
func (r *Request) SHA256() [32]byte { return sha256.Sum256(r.raw) }

// SPKISHA256 is the hash of the request's SubjectPublicKeyInfo. It names the key.
func (r *Request) SPKISHA256() [32]byte { return sha256.Sum256(r.key.SPKI) }
