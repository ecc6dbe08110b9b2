package issuance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/fips140"
	"math/big"

	"filippo.io/nistec"
	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// An issuer verifies every signature of its own with one public key. Two thirds of what crypto/ecdsa takes for that go into multiplying a
// point that it takes for a new one each time; with the multiples at hand, a multiplication is as many additions as the scalar has digits.
const (
	digitBits = 6
	digits    = (256 + digitBits - 1) / digitBits
)

// multiples are the multiples d * 64^i of the point of a public key on P-256, for each digit d but 0: 260 KB. They verify signatures, of which
// everything is public, so that nothing here takes the same time for every input.
type multiples [digits][1<<digitBits - 1]nistec.P256Point

// haveMultiples tells whether multiples serve a key: one on P-256, in a program that need not compute in Go's FIPS 140-3 module alone, which
// they are no part of.
func haveMultiples(public *ecdsa.PublicKey) bool {
	return public.Curve == elliptic.P256() && !fips140.Enabled()
}

// newMultiples computes the multiples for a key, in a millisecond. They are nil for a point that is not on the curve.
func newMultiples(public *ecdsa.PublicKey) *multiples {
	octets, err := public.Bytes()
	if err != nil {
		return nil
	}
	unit, err := nistec.NewP256Point().SetBytes(octets)
	if err != nil {
		return nil
	}
	m := new(multiples)
	for i := range m {
		row := &m[i]
		row[0].Set(unit)
		for d := 1; d < len(row); d++ {
			row[d].Add(&row[d-1], unit)
		}
		unit.Add(&row[len(row)-1], unit)
	}
	return m
}

// times is the product of the key's point and a scalar of 32 octets.
func (m *multiples) times(scalar *[32]byte) *nistec.P256Point {
	product := nistec.NewP256Point()
	for i := range m {
		if d := digit(scalar, i); d > 0 {
			product.Add(product, &m[i][d-1])
		}
	}
	return product
}

// digit is the i-th digit of a number in 32 octets, the lowest first.
func digit(number *[32]byte, i int) uint {
	at, shift := len(number)-1-i*digitBits/8, i*digitBits%8
	window := uint(number[at])
	if at > 0 {
		window |= uint(number[at-1]) << 8
	}
	return window >> shift & (1<<digitBits - 1)
}

// verify tells what ecdsa.VerifyASN1 does: whether a signature over a digest of 32 octets is the key's (SEC 1, section 4.1.4). The tests hold
// the two against each other. No multiples verify nothing.
func (m *multiples) verify(digest, signature []byte) bool {
	n := elliptic.P256().Params().N
	r, s, ok := readECDSA(signature)
	if m == nil || !ok || len(digest) != 32 || !inGroup(r, n) || !inGroup(s, n) {
		return false
	}
	inverse := new(big.Int).ModInverse(s, n)
	var u1, u2 [32]byte
	product := new(big.Int).SetBytes(digest)
	product.Mod(product.Mul(product, inverse), n).FillBytes(u1[:])
	product.Mod(product.Mul(r, inverse), n).FillBytes(u2[:])
	point, err := nistec.NewP256Point().ScalarBaseMult(u1[:])
	if err != nil {
		return false
	}
	x, err := point.Add(point, m.times(&u2)).BytesX()
	if err != nil { // the point at infinity has none
		return false
	}
	return product.Mod(product.SetBytes(x), n).Cmp(r) == 0
}

// inGroup tells whether 1 <= x < n.
func inGroup(x, n *big.Int) bool { return x.Sign() > 0 && x.Cmp(n) < 0 }

// readECDSA reads an ECDSA signature in DER (RFC 3279, section 2.2.3), and nothing but that.
func readECDSA(signature []byte) (r, s *big.Int, ok bool) {
	r, s = new(big.Int), new(big.Int)
	outer, inner := cryptobyte.String(signature), cryptobyte.String(nil)
	return r, s, outer.ReadASN1(&inner, der.SEQUENCE) && outer.Empty() &&
		inner.ReadASN1Integer(r) && inner.ReadASN1Integer(s) && inner.Empty()
}
