package csr

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/asn1"
	"math"
	"math/big"
	"slices"

	"golang.org/x/crypto/cryptobyte"
	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// maxPublicBits is the largest RSA modulus that is given as a Go key. Larger ones are read as octets alone, so that nothing can be
// computed with them by accident.
const maxPublicBits = 32768

const keyHint = "use an RSA key of 2048 to 4096 bits, an ECDSA key on P-256, P-384 or P-521, or an Ed25519 key"

// The algorithms of keys (RFC 3279, section 2.3; RFC 4055, section 1.2; RFC 5480, section 2.1.1; RFC 8410, section 3).
var (
	oidRSA     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidRSAPSS  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
	oidEC      = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidEd25519 = asn1.ObjectIdentifier{1, 3, 101, 112}
)

// namedCurves are the curves that Go can compute on (RFC 5480, section 2.1.1.1).
var namedCurves = []struct {
	name  string
	oid   asn1.ObjectIdentifier
	bits  int
	curve elliptic.Curve
}{
	{"P-256", asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}, 256, elliptic.P256()},
	{"P-384", asn1.ObjectIdentifier{1, 3, 132, 0, 34}, 384, elliptic.P384()},
	{"P-521", asn1.ObjectIdentifier{1, 3, 132, 0, 35}, 521, elliptic.P521()},
	{"P-224", asn1.ObjectIdentifier{1, 3, 132, 0, 33}, 224, elliptic.P224()},
}

// readKey reads a SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7).
func readKey(element cryptobyte.String) (Key, error) {
	given := element
	var spki, algorithm cryptobyte.String
	var oid asn1.ObjectIdentifier
	var octets []byte
	if !element.ReadASN1(&spki, cryptobyte_asn1.SEQUENCE) || !spki.ReadASN1(&algorithm, cryptobyte_asn1.SEQUENCE) ||
		!algorithm.ReadASN1ObjectIdentifier(&oid) {
		return Key{}, notDER("subjectPublicKeyInfo", "the public key does not begin with an AlgorithmIdentifier")
	}
	parameters := algorithm
	if !spki.ReadASN1BitStringAsBytes(&octets) || !spki.Empty() {
		return Key{}, notDER("subjectPublicKeyInfo", "the public key is not one BIT STRING of whole octets")
	}
	var key Key
	var err error
	switch {
	case oid.Equal(oidEC):
		key, err = readEC(parameters, octets)
	case oid.Equal(oidRSA):
		key, err = readRSA(parameters, octets)
	case oid.Equal(oidEd25519):
		key, err = readEd25519(parameters, octets)
	case oid.Equal(oidRSAPSS):
		return Key{}, refuse(RuleKeyAlgorithm, "subjectPublicKeyInfo",
			"mark the key with rsaEncryption (1.2.840.113549.1.1.1); it may still sign with PSS",
			"the RSA key is restricted to PSS (algorithm %v), which is not read", oid)
	default:
		return Key{}, refuse(RuleKeyAlgorithm, "subjectPublicKeyInfo", keyHint, "keys of algorithm %v are not read", oid)
	}
	if err != nil {
		return Key{}, err
	}
	// The readers above leave no room for a second encoding of the same key. This holds them to it, because the identity of a
	// key (its hash, its place on a list of compromised keys) hangs on there being only one.
	if !bytes.Equal(key.SPKI, given) {
		return Key{}, refuse(RuleKey, "subjectPublicKeyInfo", derHint, "the public key is not encoded canonically")
	}
	return key, nil
}

// encodeSPKI writes the one encoding of a key. parameters is a whole element, or nothing.
func encodeSPKI(oid asn1.ObjectIdentifier, parameters func(*cryptobyte.Builder), octets []byte) ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, len(octets)+48))
	b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oid)
			if parameters != nil {
				parameters(b)
			}
		})
		b.AddASN1BitString(octets)
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, notDER("subjectPublicKeyInfo", "the public key cannot be encoded again: %v", err)
	}
	return der, nil
}

// readEC reads a key of RFC 5480: a named curve and an uncompressed point.
func readEC(parameters cryptobyte.String, point []byte) (Key, error) {
	if !parameters.PeekASN1Tag(cryptobyte_asn1.OBJECT_IDENTIFIER) {
		return Key{}, refuse(RuleKey, "subjectPublicKeyInfo", "name the curve (openssl: -pkeyopt ec_param_enc:named_curve)",
			"the parameters of the elliptic curve are spelt out or left out, where its name is expected (RFC 5480, section 2.1.1)")
	}
	var oid asn1.ObjectIdentifier
	if !parameters.ReadASN1ObjectIdentifier(&oid) || !parameters.Empty() {
		return Key{}, notDER("subjectPublicKeyInfo", "the key's parameters are not the name of a curve alone")
	}
	for _, c := range namedCurves {
		if !oid.Equal(c.oid) {
			continue
		}
		public, err := ecdsa.ParseUncompressedPublicKey(c.curve, point)
		if err != nil {
			return Key{}, badPoint(c.name, point)
		}
		canonical, err := public.Bytes()
		if err != nil {
			return Key{}, badPoint(c.name, point)
		}
		spki, err := encodeSPKI(oidEC, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oid) }, canonical)
		if err != nil {
			return Key{}, err
		}
		return Key{Algorithm: ECDSA, Curve: c.name, Bits: c.bits, Public: public, SPKI: spki}, nil
	}
	return Key{}, refuse(RuleKeyAlgorithm, "subjectPublicKeyInfo", keyHint, "keys on the curve %v are not read", oid)
}

func badPoint(curve string, point []byte) error {
	switch {
	case len(point) == 1 && point[0] == 0:
		return refuse(RuleKey, "subjectPublicKeyInfo", keyHint, "the public key is the point at infinity, which is no key")
	case len(point) > 0 && (point[0] == 2 || point[0] == 3):
		return refuse(RuleKey, "subjectPublicKeyInfo", "write the point uncompressed (openssl ec -conv_form uncompressed)",
			"the public key is a compressed point")
	}
	return refuse(RuleKey, "subjectPublicKeyInfo", "make a new key", "the public key is not a point on %s", curve)
}

// readRSA reads a key of RFC 3279, section 2.3.1. Any positive modulus and exponent is a fact.
func readRSA(parameters cryptobyte.String, octets []byte) (Key, error) {
	if !bytes.Equal(parameters, null) {
		return Key{}, notDER("subjectPublicKeyInfo", "the parameters of an RSA key must be NULL (RFC 3279, section 2.3.1)")
	}
	s := cryptobyte.String(octets)
	var pair cryptobyte.String
	var modulus, exponent []byte
	if !s.ReadASN1(&pair, cryptobyte_asn1.SEQUENCE) || !s.Empty() ||
		!pair.ReadASN1Integer(&modulus) || !pair.ReadASN1Integer(&exponent) || !pair.Empty() {
		return Key{}, notDER("subjectPublicKeyInfo", "the RSA key is not a pair of a modulus and an exponent, neither of them negative")
	}
	n := new(big.Int).SetBytes(modulus)
	e := new(big.Int).SetBytes(exponent)
	if n.Sign() == 0 || e.Sign() == 0 {
		return Key{}, refuse(RuleKey, "subjectPublicKeyInfo", "make a new key", "the RSA key's modulus or exponent is 0")
	}
	key := Key{Algorithm: RSA, Bits: n.BitLen(), Modulus: modulus, Exponent: exponent}
	if key.Bits <= maxPublicBits && e.IsInt64() && e.Int64() <= math.MaxInt32 {
		key.Public = &rsa.PublicKey{N: n, E: int(e.Int64())}
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, len(octets)))
	b.AddASN1(cryptobyte_asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(n)
		b.AddASN1BigInt(e)
	})
	canonical, err := b.Bytes()
	if err != nil {
		return Key{}, notDER("subjectPublicKeyInfo", "the RSA key cannot be encoded again: %v", err)
	}
	key.SPKI, err = encodeSPKI(oidRSA, func(b *cryptobyte.Builder) { b.AddASN1NULL() }, canonical)
	return key, err
}

// readEd25519 reads a key of RFC 8410, section 4.
func readEd25519(parameters cryptobyte.String, octets []byte) (Key, error) {
	if !parameters.Empty() {
		return Key{}, notDER("subjectPublicKeyInfo", "an Ed25519 key has no parameters (RFC 8410, section 3)")
	}
	if len(octets) != ed25519.PublicKeySize {
		return Key{}, refuse(RuleKey, "subjectPublicKeyInfo", "make a new key", "the Ed25519 key is %d octets long instead of %d",
			len(octets), ed25519.PublicKeySize)
	}
	point := [ed25519.PublicKeySize]byte(octets)
	if !reduced(point) {
		return Key{}, refuse(RuleKey, "subjectPublicKeyInfo", "make a new key",
			"the Ed25519 key is not encoded canonically (RFC 8032, section 5.1.3)")
	}
	if smallOrder(point) {
		return Key{}, refuse(RuleKey, "subjectPublicKeyInfo", "make a new key",
			"the Ed25519 key is a point of small order: anyone can sign for it")
	}
	spki, err := encodeSPKI(oidEd25519, nil, octets)
	if err != nil {
		return Key{}, err
	}
	return Key{Algorithm: Ed25519, Bits: 256, Public: ed25519.PublicKey(octets), SPKI: spki}, nil
}

// smallOrderPoints are the y-coordinates, little-endian, of the eight points of edwards25519 whose order divides the cofactor 8.
// The sign bit of x is not part of them.
var smallOrderPoints = [...][ed25519.PublicKeySize]byte{
	{},     // order 4
	{0: 1}, // order 1
	{ // order 8
		0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
		0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
	},
	{ // order 8
		0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
		0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
	},
	{ // p-1, order 2
		0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f,
	},
}

func smallOrder(point [ed25519.PublicKeySize]byte) bool {
	point[31] &= 0x7f
	return slices.Contains(smallOrderPoints[:], point)
}

// reduced tells whether a point's y-coordinate is below the field's prime, 2^255-19. One that is not is a second encoding.
func reduced(point [ed25519.PublicKeySize]byte) bool {
	if point[0] < 0xed || point[31]&0x7f != 0x7f {
		return true
	}
	for _, b := range point[1:31] {
		if b != 0xff {
			return true
		}
	}
	return false
}
