package policies

import (
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
)

// keyIdentifier is the key identifier of RFC 7093, section 2, method 1: the leftmost 160 bits of the SHA-256 of the subjectPublicKey
// BIT STRING's contents, without tag, length and number of unused bits.
func keyIdentifier(spki []byte) ([]byte, error) {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		PublicKey asn1.BitString
	}
	rest, err := asn1.Unmarshal(spki, &info)
	if err == nil && len(rest) > 0 {
		err = errors.New("trailing data")
	}
	if err != nil {
		return nil, fmt.Errorf("reading the SubjectPublicKeyInfo: %w", err)
	}
	sum := sha256.Sum256(info.PublicKey.Bytes)
	return sum[:20], nil
}
