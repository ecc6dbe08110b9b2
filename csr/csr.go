// Package csr reads a certification request (PKCS#10, RFC 2986) strictly: every byte is understood or the request is refused.
//
// It owns the facts of a request: what key it carries, which names it asks for and which extensions. It owns no judgement: whether
// a key is strong enough or a name is allowed is for the policies to say, and nothing read here is copied into a certificate
// without a rule that asks for it. The package is pure: no clock, no network, no randomness.
package csr

import (
	"crypto"
	"encoding/asn1"
	"net/netip"
)

// Limits on what is read at all. They bound work, not policy: a profile's own limits are far lower.
const (
	MaxDER   = 64 << 10 // octets of DER
	MaxNames = 1000     // subject alternative names
)

// Request is one certification request, wholly read. Its zero value holds nothing and is refused by every user.
type Request struct {
	raw        []byte
	tbs        []byte
	signature  []byte
	sigAlg     SignatureAlgorithm
	subject    []Attribute
	key        Key
	names      Names
	extensions Extensions
	attributes []asn1.ObjectIdentifier
}

// Attribute is one attribute of the subject's distinguished name.
type Attribute struct {
	OID   asn1.ObjectIdentifier
	Value string // decoded from its ASN.1 string type, unchanged otherwise
	RDN   int    // index of the relative distinguished name it stands in; equal indices mean a multi-valued RDN
}

// KeyAlgorithm names the algorithm of a public key.
type KeyAlgorithm string

// The key algorithms that can be read.
const (
	RSA     KeyAlgorithm = "RSA"
	ECDSA   KeyAlgorithm = "ECDSA"
	Ed25519 KeyAlgorithm = "Ed25519"
)

// Key is the public key of a request, as a fact; its strength has not been judged.
type Key struct {
	Algorithm KeyAlgorithm
	Curve     string           // "P-224", "P-256", "P-384", "P-521"; empty unless ECDSA
	Bits      int              // modulus length for RSA, field size for ECDSA, 256 for Ed25519
	Public    crypto.PublicKey // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey; nil where Go cannot represent it (an RSA exponent above 2^31-1)
	Modulus   []byte           // RSA, big-endian without leading zeros
	Exponent  []byte           // RSA, big-endian without leading zeros
	SPKI      []byte           // DER of the SubjectPublicKeyInfo, re-encoded canonically
}

// Names are the subject alternative names of a request, in order within their type.
type Names struct {
	DNS   []string     // as written: the characters have not been judged, only that they are IA5
	IP    []netip.Addr // 4 or 16 octets; a v4-mapped IPv6 address stays IPv6
	Email []string     // IA5
	URI   []string     // IA5
	Other []OtherName  // types of GeneralName that carry no name a profile can allow
	// Critical tells whether the request marked the extension critical.
	Critical bool
}

// Len is the number of all names.
func (n Names) Len() int { return len(n.DNS) + len(n.IP) + len(n.Email) + len(n.URI) + len(n.Other) }

// OtherName is a GeneralName of a type that is read but never issued.
type OtherName struct {
	Kind string // "otherName", "x400Address", "directoryName", "ediPartyName", "registeredID"
	OID  string // the type-id of an otherName or the value of a registeredID, dotted; empty otherwise
}

// Extensions are the extensions asked for through the extensionRequest attribute (RFC 2985, section 5.4.2).
type Extensions struct {
	KeyUsage         *KeyUsage
	ExtKeyUsage      *ExtKeyUsage
	BasicConstraints *BasicConstraints
	Unknown          []Unknown // everything else, by OID, in order
}

// KeyUsage is a requested key usage (RFC 5280, section 4.2.1.3); bit n of Bits is KeyUsage bit n.
type KeyUsage struct {
	Bits     uint16
	Critical bool
}

// ExtKeyUsage is a requested extended key usage (RFC 5280, section 4.2.1.12).
type ExtKeyUsage struct {
	OIDs     []asn1.ObjectIdentifier
	Critical bool
}

// BasicConstraints are requested basic constraints (RFC 5280, section 4.2.1.9).
type BasicConstraints struct {
	CA       bool
	PathLen  int // -1 when absent
	Critical bool
}

// Unknown is an extension that the reader recognises by nothing but its OID.
type Unknown struct {
	OID      asn1.ObjectIdentifier
	Critical bool
}

// SignatureAlgorithm is the algorithm that the request was signed with.
type SignatureAlgorithm string

// Raw is the DER that was read.
func (r *Request) Raw() []byte { return r.raw }

// Subject is the requested distinguished name, in order.
func (r *Request) Subject() []Attribute { return r.subject }

// Key is the requested public key.
func (r *Request) Key() Key { return r.key }

// Names are the requested subject alternative names.
func (r *Request) Names() Names { return r.names }

// Extensions are the other requested extensions.
func (r *Request) Extensions() Extensions { return r.extensions }

// Attributes are the OIDs of the request's attributes other than the extensionRequest, in order. Their values are not read.
func (r *Request) Attributes() []asn1.ObjectIdentifier { return r.attributes }

// SignatureAlgorithm is the algorithm that the request was signed with.
func (r *Request) SignatureAlgorithm() SignatureAlgorithm { return r.sigAlg }

// Error says why bytes are not a request that can be read. It is typed so that a front end can answer 400 with the rule.
type Error struct {
	Rule    string // stable: "csr.truncated", "csr.trailing-data", ...
	Field   string // where: "subject", "subjectAltName", "subjectPublicKeyInfo", ...
	Message string
	Hint    string
}

func (e *Error) Error() string { return e.Rule + ": " + e.Message }
