// Package csrtest makes certification requests for tests, benign and hostile. What it makes is what it is told to make: nothing in
// it checks that a request makes sense. Requests are the same in every run, those signed with RSA-PSS excepted.
package csrtest

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // for crypto.Hash
	_ "crypto/sha512" // for crypto.Hash
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"net/netip"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/chancery-ca/chancery/csr"
)

// OIDs that tests write.
var (
	OIDCommonName       = asn1.ObjectIdentifier{2, 5, 4, 3}
	OIDCountry          = asn1.ObjectIdentifier{2, 5, 4, 6}
	OIDOrganization     = asn1.ObjectIdentifier{2, 5, 4, 10}
	OIDSubjectKeyID     = asn1.ObjectIdentifier{2, 5, 29, 14}
	OIDKeyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	OIDSubjectAltName   = asn1.ObjectIdentifier{2, 5, 29, 17}
	OIDBasicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	OIDExtKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
	OIDExtensionRequest = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14}
	OIDChallenge        = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}
	OIDServerAuth       = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}
	OIDClientAuth       = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}
	OIDUserPrincipal    = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 3}
)

// Attr is one attribute of the subject, in an RDN of its own.
type Attr struct {
	OID   asn1.ObjectIdentifier
	Value string
	Tag   cryptobyte_asn1.Tag // the string type; UTF8String if 0
}

// CN is the attribute that most tests need: a common name.
func CN(name string) []Attr { return []Attr{{OID: OIDCommonName, Value: name}} }

// Extension is one extension to ask for.
type Extension struct {
	OID      asn1.ObjectIdentifier
	Critical bool
	Value    []byte // the DER inside the OCTET STRING
}

// Builder says what a request shall hold. The fields named Raw replace what would otherwise be made, bytes for bytes.
type Builder struct {
	Version    int64
	RawVersion []byte // the whole element

	Subject    []Attr
	RawSubject []byte // the whole element

	Key     crypto.Signer // signs, and is the request's key unless RawSPKI is given
	RawSPKI []byte        // the whole element

	// Names, in this order, make the subjectAltName, if there are any.
	DNS         []string
	IP          []netip.Addr
	Email       []string
	URI         []string
	RawNames    [][]byte // whole GeneralNames, behind the others
	SANCritical bool

	Extensions    []Extension // behind the subjectAltName
	RawExtensions []byte      // the whole SEQUENCE of extensions
	Attributes    [][]byte    // whole attributes, behind the extensionRequest
	RawAttributes []byte      // the whole [0]; empty but not nil leaves the field out

	SigAlg       csr.SignatureAlgorithm // by the key's kind if empty
	RawSigAlg    []byte                 // the whole AlgorithmIdentifier; what signs is still SigAlg
	RawSignature []byte                 // the whole BIT STRING
}

// Build makes the request in DER.
func (b Builder) Build() ([]byte, error) {
	info, err := b.info()
	if err != nil {
		return nil, err
	}
	name := b.SigAlg
	if name == "" {
		name = defaultAlgorithm(b.Key)
	}
	algorithm, signature := b.RawSigAlg, b.RawSignature
	if algorithm == nil {
		if algorithm, err = Algorithm(name); err != nil {
			return nil, err
		}
	}
	if signature == nil {
		if signature, err = sign(b.Key, name, info); err != nil {
			return nil, err
		}
	}
	return sequence(info, algorithm, signature), nil
}

// must is Build for requests that can be built.
func (b Builder) must() []byte {
	der, err := b.Build()
	if err != nil {
		panic(err)
	}
	return der
}

func (b Builder) info() ([]byte, error) {
	version, subject, spki, attributes := b.RawVersion, b.RawSubject, b.RawSPKI, b.RawAttributes
	var err error
	if version == nil {
		version = build(func(c *cryptobyte.Builder) { c.AddASN1Int64(b.Version) })
	}
	if subject == nil {
		subject = Subject(b.Subject...)
	}
	if spki == nil {
		if spki, err = x509.MarshalPKIXPublicKey(b.Key.Public()); err != nil {
			return nil, fmt.Errorf("encoding the key: %w", err)
		}
	}
	if attributes == nil {
		var all [][]byte
		if extensions := b.extensions(); extensions != nil {
			all = append(all, Attribute(OIDExtensionRequest, extensions))
		}
		attributes = element(0xa0, append(all, b.Attributes...)...)
	}
	return sequence(version, subject, spki, attributes), nil
}

// extensions is the SEQUENCE of all extensions, or nil.
func (b Builder) extensions() []byte {
	if b.RawExtensions != nil {
		return b.RawExtensions
	}
	var all [][]byte
	if names := b.names(); len(names) > 0 {
		san := Extension{OID: OIDSubjectAltName, Critical: b.SANCritical, Value: sequence(names...)}
		all = append(all, san.encode())
	}
	for _, e := range b.Extensions {
		all = append(all, e.encode())
	}
	if len(all) == 0 {
		return nil
	}
	return sequence(all...)
}

func (b Builder) names() [][]byte {
	var names [][]byte
	for _, name := range b.DNS {
		names = append(names, element(0x82, []byte(name)))
	}
	for _, address := range b.IP {
		names = append(names, element(0x87, address.AsSlice()))
	}
	for _, name := range b.Email {
		names = append(names, element(0x81, []byte(name)))
	}
	for _, name := range b.URI {
		names = append(names, element(0x86, []byte(name)))
	}
	return append(names, b.RawNames...)
}

func (e Extension) encode() []byte {
	return build(func(c *cryptobyte.Builder) {
		c.AddASN1(cryptobyte_asn1.SEQUENCE, func(c *cryptobyte.Builder) {
			c.AddASN1ObjectIdentifier(e.OID)
			if e.Critical {
				c.AddASN1Boolean(true)
			}
			c.AddASN1OctetString(e.Value)
		})
	})
}

// Subject is an RDNSequence of one attribute each.
func Subject(attributes ...Attr) []byte {
	var rdns [][]byte
	for _, a := range attributes {
		rdns = append(rdns, element(cryptobyte_asn1.SET, a.encode()))
	}
	return sequence(rdns...)
}

func (a Attr) encode() []byte {
	return sequence(oid(a.OID), element(cmp.Or(a.Tag, cryptobyte_asn1.UTF8String), []byte(a.Value)))
}

// Attribute is an attribute of a request, of whole values.
func Attribute(id asn1.ObjectIdentifier, values ...[]byte) []byte {
	return sequence(oid(id), element(cryptobyte_asn1.SET, values...))
}

// element is a DER element of given contents.
func element(tag cryptobyte_asn1.Tag, contents ...[]byte) []byte {
	return build(func(c *cryptobyte.Builder) {
		c.AddASN1(tag, func(c *cryptobyte.Builder) {
			for _, content := range contents {
				c.AddBytes(content)
			}
		})
	})
}

func sequence(elements ...[]byte) []byte { return element(cryptobyte_asn1.SEQUENCE, elements...) }

func oid(id asn1.ObjectIdentifier) []byte {
	return build(func(c *cryptobyte.Builder) { c.AddASN1ObjectIdentifier(id) })
}

func build(f func(*cryptobyte.Builder)) []byte {
	var b cryptobyte.Builder
	f(&b)
	return b.BytesOrPanic()
}

// algorithms are the signature algorithms that can be written. The outdated ones are written but signed with SHA-256: nothing may
// come to compare their signatures.
var algorithms = map[csr.SignatureAlgorithm]struct {
	oid  asn1.ObjectIdentifier
	null bool
	hash crypto.Hash
}{
	"RSA-SHA256":   {asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, true, crypto.SHA256},
	"RSA-SHA384":   {asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 12}, true, crypto.SHA384},
	"RSA-SHA512":   {asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 13}, true, crypto.SHA512},
	"RSA-SHA1":     {asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 5}, true, crypto.SHA256},
	"RSA-MD5":      {asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 4}, true, crypto.SHA256},
	"ECDSA-SHA256": {asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}, false, crypto.SHA256},
	"ECDSA-SHA384": {asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}, false, crypto.SHA384},
	"ECDSA-SHA512": {asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}, false, crypto.SHA512},
	"ECDSA-SHA1":   {asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1}, false, crypto.SHA256},
	"Ed25519":      {asn1.ObjectIdentifier{1, 3, 101, 112}, false, 0},
}

var pssHashes = map[csr.SignatureAlgorithm]struct {
	oid  asn1.ObjectIdentifier
	hash crypto.Hash
}{
	"RSA-PSS-SHA256": {asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}, crypto.SHA256},
	"RSA-PSS-SHA384": {asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}, crypto.SHA384},
	"RSA-PSS-SHA512": {asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}, crypto.SHA512},
}

// Algorithm is the AlgorithmIdentifier of a signature algorithm.
func Algorithm(name csr.SignatureAlgorithm) ([]byte, error) {
	if a, ok := algorithms[name]; ok {
		if a.null {
			return sequence(oid(a.oid), null), nil
		}
		return sequence(oid(a.oid)), nil
	}
	if p, ok := pssHashes[name]; ok {
		return pss(p.oid, p.oid, int64(p.hash.Size())), nil
	}
	return nil, fmt.Errorf("csrtest: no signature algorithm %q", name)
}

var null = []byte{5, 0}

// pss is the AlgorithmIdentifier of RSA-PSS with a hash, a hash for the mask, and a salt's length.
func pss(hash, mask asn1.ObjectIdentifier, salt int64) []byte {
	idPSS := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
	idMGF1 := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 8}
	return sequence(oid(idPSS), sequence(
		element(0xa0, sequence(oid(hash), null)),
		element(0xa1, sequence(oid(idMGF1), sequence(oid(mask), null))),
		element(0xa2, build(func(c *cryptobyte.Builder) { c.AddASN1Int64(salt) })),
	))
}

func defaultAlgorithm(key crypto.Signer) csr.SignatureAlgorithm {
	switch key.Public().(type) {
	case *rsa.PublicKey:
		return "RSA-SHA256"
	case *ecdsa.PublicKey:
		return "ECDSA-SHA256"
	}
	return "Ed25519"
}

// sign gives the BIT STRING of a signature over info.
func sign(key crypto.Signer, name csr.SignatureAlgorithm, info []byte) ([]byte, error) {
	var options crypto.SignerOpts = algorithms[name].hash
	if p, ok := pssHashes[name]; ok {
		options = &rsa.PSSOptions{Hash: p.hash, SaltLength: rsa.PSSSaltLengthEqualsHash}
	}
	message := info
	if hash := options.HashFunc(); hash != 0 {
		h := hash.New()
		h.Write(info)
		message = h.Sum(nil)
	}
	random := rand.Reader
	if _, ok := options.(*rsa.PSSOptions); !ok {
		random = nil // ECDSA signs as RFC 6979 has it, the others need no randomness
	}
	signature, err := key.Sign(random, message, options)
	if err != nil {
		return nil, fmt.Errorf("signing the request: %w", err)
	}
	return bits(signature), nil
}

func bits(octets []byte) []byte {
	return build(func(c *cryptobyte.Builder) { c.AddASN1BitString(octets) })
}
