package issuance

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // SHA-384
	"encoding/asn1"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// minModulus is the smallest RSA modulus of an issuer, in bits (Baseline Requirements, section 6.1.5).
const minModulus = 2048

// algorithm is a signature algorithm, chosen by the issuer's key alone. Its zero value signs nothing.
type algorithm struct {
	name string
	oid  asn1.ObjectIdentifier
	hash crypto.Hash
	null bool // the identifier has NULL parameters; otherwise none
}

// The algorithms of RFC 5758 and, for PKCS #1 v1.5, of RFC 4055.
var (
	ecdsaSHA256 = algorithm{name: "ECDSA-SHA256", oid: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}, hash: crypto.SHA256}
	ecdsaSHA384 = algorithm{name: "ECDSA-SHA384", oid: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}, hash: crypto.SHA384}
	rsaSHA256   = algorithm{name: "RSA-SHA256", oid: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, hash: crypto.SHA256, null: true}
)

// algorithmOf is what a key signs with. Keys that an issuer may not have are refused.
func algorithmOf(public crypto.PublicKey) (algorithm, error) {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			return ecdsaSHA256, nil
		case elliptic.P384():
			return ecdsaSHA384, nil
		}
		return algorithm{}, fmt.Errorf("an ECDSA key on %s cannot be an issuer's; P-256 and P-384 can", key.Curve.Params().Name)
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minModulus || bits%8 != 0 {
			return algorithm{}, fmt.Errorf("an RSA key of %d bits cannot be an issuer's", bits)
		}
		return rsaSHA256, nil
	}
	return algorithm{}, fmt.Errorf("a key of type %T cannot be an issuer's", public)
}

// add writes the AlgorithmIdentifier.
func (a algorithm) add(b *cryptobyte.Builder) {
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(a.oid)
		if a.null {
			b.AddASN1NULL()
		}
	})
}

var errSignature = errors.New("the signature does not verify")

// verify checks a signature over a message.
func (a algorithm) verify(public crypto.PublicKey, message, signature []byte) error {
	return a.verifyDigest(public, a.digest(message), signature)
}

// digest is what is signed of a message.
func (a algorithm) digest(message []byte) []byte {
	h := a.hash.New()
	h.Write(message)
	return h.Sum(nil)
}

func (a algorithm) verifyDigest(public crypto.PublicKey, digest, signature []byte) error {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		if !ecdsa.VerifyASN1(key, digest, signature) {
			return errSignature
		}
		return nil
	case *rsa.PublicKey:
		if rsa.VerifyPKCS1v15(key, a.hash, digest, signature) != nil {
			return errSignature
		}
		return nil
	}
	return fmt.Errorf("verifying with a key of type %T", public)
}

// placeholder is a signature in form only: what the key would make is of this shape and length, and nobody made it. It depends on
// the message alone, so that linting can be repeated.
func placeholder(public crypto.PublicKey, message []byte) ([]byte, error) {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		size := (key.Curve.Params().BitSize + 7) / 8
		octets := stream(message, 2*size)
		var b cryptobyte.Builder
		b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, half := range [][]byte{octets[:size], octets[size:]} {
				half[0] = half[0]&0x7f | 0x40 // positive, of full length, and less than the order of the group
				b.AddASN1(der.INTEGER, func(b *cryptobyte.Builder) { b.AddBytes(half) })
			}
		})
		return b.Bytes()
	case *rsa.PublicKey:
		octets := stream(message, key.Size())
		octets[0] &= 0x7f // less than the modulus
		return octets, nil
	}
	return nil, fmt.Errorf("no placeholder for the signature of a key of type %T", public)
}

// stream expands a message to n octets that look random.
func stream(message []byte, n int) []byte {
	seed := sha256.Sum256(message)
	out := make([]byte, 0, n+sha256.Size)
	for counter := byte(0); len(out) < n; counter++ {
		block := sha256.Sum256(append(seed[:], counter))
		out = append(out, block[:]...)
	}
	return out[:n]
}

// assemble joins to-be-signed bytes and a signature to a certificate or a CRL (RFC 5280, sections 4.1 and 5.1).
func (a algorithm) assemble(tbs, signature []byte) ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, len(tbs)+len(signature)+40))
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(tbs)
		a.add(b)
		b.AddASN1BitString(signature)
	})
	return b.Bytes()
}
