package csrtest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/asn1"
	"io"
	"math/big"
	"sync"

	cryptobyte_asn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// The primes of the RSA fixtures, hexadecimal. They are public, and worthless for anything but tests.
const (
	p2048 = "f4cbcc448730d3bbb0a013f06239a6b9f62fa8d95d3468a5434861fe3608f45d989ade178ff661ee2d5944914ee045ff" +
		"2a05f4ba8d6d53445553e2bdb0e978b4dc1e1f92b041f2ed68f79649236f755ce0f5a7742e4c49e90b0d06dd5ad4021c" +
		"53a383e455248e19e213c93fd904ca84f1251aace84781b949853cd0108087dd"
	q2048 = "c24f3e3069f60e26afcd180e807b83de9292a1a709d59ee22bbaaf92c70b416bebea2fe9eea843b9a3bf7979696291a4" +
		"de3cf3ab0519f233468d5d77afbdae4e502889fa1dd5c89987c690a2c83fcd69159a23ff0a80d503029e5d707bdfc8d1" +
		"0b21cf8e227ac04cfe748b199f861876c5ba1c26ef21f1bcdc2e325f98b41f93"
	p1024 = "c54dc3c9a4daf49a0b08e896b5067e8440e4b56f9484e7f93458e0eb64d0d4eadd6f614883654d9954c2843d5e3be28e" +
		"670a2f7e476eb88e116f3ac239a5341b"
	q1024 = "f43c07da6139feb7c11ccf3971cb376364095428906e68de1bd2a5429b15c57ffe4af5c2823ebb72e4d67ea0fe6ab4e2" +
		"d312209feab26dcd67abf45486dda4c5"
	pClose = "c2087b2ede6c68dc52c01b7c259babf71909636d873f148b34a1a87502306d615b7b24fdaf9267559dee0e0c968bd490" +
		"f7f173dec4e6e18e0df68089dffd49758ee89c7b7fb48669894d74bb3020a374a7131a2ff80eccac5afb4707f8f01066" +
		"6c7d4f112cb66134ab9138daf2d7cac395f2e31c915027487227154a3dcc3829"
	closeGap = 196 // the second prime less the first
	p3       = "c9517eb74d35dc32ba2a9e8f0787ba8d5e145a80bca95f0a137c7683207567035d84e082d9206274226d2154c513d5cd" +
		"196dfbdcf8e21cec5adb4382fba6fb64c62ad93fd283597d8c2f54b941f5d98625d84ab10872b155e3f22dbd8c36490c" +
		"3128fbdbb250f034e35f282435bffc909ffaf6fdb74fd9bbb1d9352499e6aa69"
	q3 = "e7e0f267a360f2fe6c39fdaa304c35ac7b204ecc08b2c395a45a9d2d60938297b62b04bb0a1d16af3803d0ea27ab7d1b" +
		"23f3b7de1370ce69a687ec76489fab6fdff8bab9b548d2a804a5e367bd1a63ce27e0f668e4719f775f3bb8a08c97771a" +
		"6078521d1a9e1e5e3f3cba8ad5d7b0ac1e8f4cc61ab05957e44bf2f55de87c65"
)

// Keys are the fixtures that requests are made with. They are the same in every process.
type Keys struct {
	P224, P256, P384, P521 *ecdsa.PrivateKey
	Other                  *ecdsa.PrivateKey // a second key on P-256
	Ed25519                ed25519.PrivateKey
	RSA2048                *rsa.PrivateKey
	RSA1024                *rsa.PrivateKey
	RSAClose               crypto.Signer   // 2048 bits, primes close together: Fermat's method finds them; SHA-256 with PKCS #1 v1.5 alone
	RSAExponent3           *rsa.PrivateKey // 2048 bits, public exponent 3
}

var fixtures = sync.OnceValue(func() Keys {
	return Keys{
		P224:         ecKey(elliptic.P224(), 28, 7),
		P256:         ecKey(elliptic.P256(), 32, 7),
		P384:         ecKey(elliptic.P384(), 48, 7),
		P521:         ecKey(elliptic.P521(), 66, 7),
		Other:        ecKey(elliptic.P256(), 32, 11),
		Ed25519:      ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)),
		RSA2048:      rsaKey(number(p2048), number(q2048), 65537),
		RSA1024:      rsaKey(number(p1024), number(q1024), 65537),
		RSAClose:     newTextbookKey(number(pClose), new(big.Int).Add(number(pClose), big.NewInt(closeGap)), 65537),
		RSAExponent3: rsaKey(number(p3), number(q3), 3),
	}
})

// FixedKeys gives the fixtures, made at the first call.
func FixedKeys() Keys { return fixtures() }

func number(hexadecimal string) *big.Int {
	n, ok := new(big.Int).SetString(hexadecimal, 16)
	if !ok {
		panic("csrtest: a fixture is not a number")
	}
	return n
}

// ecKey is the key whose scalar is a run of octets all the same but for the first, which keeps it below every curve's order.
func ecKey(curve elliptic.Curve, size int, octet byte) *ecdsa.PrivateKey {
	scalar := make([]byte, size)
	for i := range scalar[1:] {
		scalar[i+1] = octet
	}
	key, err := ecdsa.ParseRawPrivateKey(curve, scalar)
	if err != nil {
		panic(err)
	}
	return key
}

func rsaKey(p, q *big.Int, e int64) *rsa.PrivateKey {
	key := rawRSAKey(p, q, e)
	key.Precompute()
	return key
}

func rawRSAKey(p, q *big.Int, e int64) *rsa.PrivateKey {
	one := big.NewInt(1)
	phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	return &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: int(e)},
		D:         new(big.Int).ModInverse(big.NewInt(e), phi),
		Primes:    []*big.Int{p, q},
	}
}

// textbookKey signs with SHA-256 and PKCS #1 v1.5 by plain arithmetic, for keys that crypto/rsa finds too weak to sign with.
type textbookKey struct{ key *rsa.PrivateKey }

func newTextbookKey(p, q *big.Int, e int64) textbookKey { return textbookKey{rawRSAKey(p, q, e)} }

func (k textbookKey) Public() crypto.PublicKey { return k.key.Public() }

func (k textbookKey) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	sha256 := asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	info := sequence(sequence(oid(sha256), null), element(cryptobyte_asn1.OCTET_STRING, digest))
	padded := bytes.Repeat([]byte{0xff}, k.key.Size())
	padded[0], padded[1], padded[len(padded)-len(info)-1] = 0, 1, 0
	copy(padded[len(padded)-len(info):], info)
	signature := new(big.Int).Exp(new(big.Int).SetBytes(padded), k.key.D, k.key.N)
	return signature.FillBytes(padded), nil
}
