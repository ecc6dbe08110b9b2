package probe

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/asn1"
	"fmt"
	"math/big"

	"github.com/miekg/pkcs11"
)

// public reads the public half of a pair of this run.
func (s session) public(name string) (crypto.PublicKey, error) {
	object, err := s.one(pkcs11.CKO_PUBLIC_KEY, name)
	if err != nil {
		return nil, err
	}
	curves := map[string]elliptic.Curve{
		"ec-p256": elliptic.P256(), "target": elliptic.P256(), "ec-p384": elliptic.P384(), "ec-p521": elliptic.P521(),
	}
	on, isEC := curves[name]
	if !isEC && name != "ed25519" {
		n, err := s.read(object, pkcs11.CKA_MODULUS)
		if err != nil {
			return nil, err
		}
		return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537}, nil
	}
	told, err := s.read(object, pkcs11.CKA_EC_POINT)
	if err != nil {
		return nil, err
	}
	// A DER OCTET STRING by the standard; some modules leave the wrapping out.
	point := told
	var inner []byte
	if rest, err := asn1.Unmarshal(told, &inner); err == nil && len(rest) == 0 {
		point = inner
	}
	if isEC {
		return ecdsa.ParseUncompressedPublicKey(on, point)
	}
	if len(point) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("a point of %d octets", len(point))
	}
	return ed25519.PublicKey(point), nil
}
