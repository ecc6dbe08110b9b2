package hsm

import (
	"bytes"
	"crypto/elliptic"
	"encoding/binary"
	"fmt"
	"math/big"
	"strconv"

	"github.com/miekg/pkcs11"
)

// kind is how an algorithm looks in PKCS#11.
type kind struct {
	keyType    string
	curve      elliptic.Curve // of an elliptic curve key
	parameters []byte         // CKA_EC_PARAMS, the DER of the curve's OID (RFC 5480, section 2.1.1.1; RFC 8410)
	bits       int            // of an RSA modulus
	octets     uint           // CKA_VALUE_LEN of a secret key
	generate   uint           // mechanism that makes it, where crypto11 does not
	mechanisms []uint         // with which the key may sign
}

// secret tells whether the algorithm's keys have no public half.
func (k kind) secret() bool { return k.octets > 0 }

var algorithms = map[Algorithm]kind{
	ECDSAP256: {
		keyType: "CKK_EC", curve: elliptic.P256(), mechanisms: ecdsaSignatures,
		parameters: []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07},
	},
	ECDSAP384: {
		keyType: "CKK_EC", curve: elliptic.P384(), mechanisms: ecdsaSignatures,
		parameters: []byte{0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22},
	},
	ECDSAP521: {
		keyType: "CKK_EC", curve: elliptic.P521(), mechanisms: ecdsaSignatures,
		parameters: []byte{0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23},
	},
	Ed25519:    {keyType: "CKK_EC_EDWARDS", parameters: ed25519OID, generate: ckmECEdwardsKeyPair, mechanisms: []uint{ckmEDDSA}},
	AES128:     {keyType: "CKK_AES", octets: 16, generate: pkcs11.CKM_AES_KEY_GEN},
	AES256:     {keyType: "CKK_AES", octets: 32, generate: pkcs11.CKM_AES_KEY_GEN},
	HMACSHA256: {keyType: "CKK_GENERIC_SECRET", octets: 32, generate: pkcs11.CKM_GENERIC_SECRET_KEY_GEN, mechanisms: hmacs},
	HMACSHA384: {keyType: "CKK_GENERIC_SECRET", octets: 48, generate: pkcs11.CKM_GENERIC_SECRET_KEY_GEN, mechanisms: hmacs},
	HMACSHA512: {keyType: "CKK_GENERIC_SECRET", octets: 64, generate: pkcs11.CKM_GENERIC_SECRET_KEY_GEN, mechanisms: hmacs},
	RSA2048:    {keyType: "CKK_RSA", bits: 2048, mechanisms: rsaSignatures},
	RSA3072:    {keyType: "CKK_RSA", bits: 3072, mechanisms: rsaSignatures},
	RSA4096:    {keyType: "CKK_RSA", bits: 4096, mechanisms: rsaSignatures},
}

// The mechanisms that crypto11 signs with: the digest is made in software.
var (
	ecdsaSignatures = []uint{pkcs11.CKM_ECDSA}
	rsaSignatures   = []uint{pkcs11.CKM_RSA_PKCS, pkcs11.CKM_RSA_PKCS_PSS}
	hmacs           = []uint{pkcs11.CKM_SHA256_HMAC, pkcs11.CKM_SHA384_HMAC, pkcs11.CKM_SHA512_HMAC}
)

// is tells whether a key with this modulus, these parameters or this length is of the kind.
func (k kind) is(modulus, parameters []byte, length uint) bool {
	switch {
	case k.keyType == "CKK_EC_EDWARDS":
		return isEd25519(parameters)
	case k.parameters != nil:
		return bytes.Equal(parameters, k.parameters)
	case k.secret():
		return length == k.octets
	}
	return new(big.Int).SetBytes(modulus).BitLen() == k.bits
}

var keyTypes = map[uint]string{
	pkcs11.CKK_RSA:            "CKK_RSA",
	pkcs11.CKK_DSA:            "CKK_DSA",
	pkcs11.CKK_DH:             "CKK_DH",
	pkcs11.CKK_EC:             "CKK_EC",
	pkcs11.CKK_AES:            "CKK_AES",
	pkcs11.CKK_GENERIC_SECRET: "CKK_GENERIC_SECRET",
	ckkECEdwards:              "CKK_EC_EDWARDS",
}

func keyType(value []byte) string {
	number, ok := ulong(value)
	if !ok {
		return ""
	}
	if name := keyTypes[number]; name != "" {
		return name
	}
	return fmt.Sprintf("0x%x", number)
}

// A CK_ULONG is a C unsigned long: as wide as a Go uint where cgo and PKCS#11 modules are found, in the machine's byte order.
const ulongSize = strconv.IntSize / 8

func ulong(value []byte) (uint, bool) {
	switch {
	case len(value) != ulongSize:
		return 0, false
	case ulongSize == 8:
		return uint(binary.NativeEndian.Uint64(value)), true
	}
	return uint(binary.NativeEndian.Uint32(value)), true
}

func ulongs(numbers []uint) []byte {
	var value []byte
	for _, n := range numbers {
		if ulongSize == 8 {
			value = binary.NativeEndian.AppendUint64(value, uint64(n))
		} else {
			value = binary.NativeEndian.AppendUint32(value, uint32(n))
		}
	}
	return value
}
