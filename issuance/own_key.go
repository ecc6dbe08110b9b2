package issuance

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/fips140"
	"fmt"
	"math/big"

	"filippo.io/nistec"
	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// verify checks a signature of the key over a message. Each one that the key makes is checked so before it is released.
func (k *signingKey) verify(message, signature []byte) error {
	digest := k.algorithm.digest(message)
	if k.multiples != nil && k.multiples.accept(digest, signature) {
		return nil
	}
	return k.algorithm.verifyDigest(k.public, digest, signature)
}

const (
	windowBits  = 6
	windows     = (256 + windowBits - 1) / windowBits
	windowSize  = 1<<windowBits - 1 // a window of zeros needs no point
	scalarBytes = 32
)

// multiples verify the signatures of one ECDSA key on P-256 in half the time that crypto/ecdsa takes, which computes multiples of the
// public key anew for each. All that is computed with is public, so the time may depend on it.
//
// They are asked to accept alone, and crypto/ecdsa whatever they do not. A multiple that was wrong could not have them accept what the
// key has not signed: the sum would be a point whose coordinate is the signature's r by chance alone.
type multiples struct {
	order  *big.Int
	points [windows][windowSize]nistec.P256Point // the window's value, moved to its place, times the key
}

// multiplesOf computes them (a millisecond, 260 kB). Keys of other kinds have none, and none has in FIPS 140 mode, which asks for the
// module's own code.
func multiplesOf(public crypto.PublicKey) (*multiples, error) {
	key, isECDSA := public.(*ecdsa.PublicKey)
	if !isECDSA || key.Curve != elliptic.P256() || fips140.Enabled() {
		return nil, nil
	}
	octets, err := key.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encoding the public key: %w", err)
	}
	once, err := nistec.NewP256Point().SetBytes(octets)
	if err != nil {
		return nil, fmt.Errorf("reading the public key: %w", err)
	}
	m := &multiples{order: key.Curve.Params().N}
	for w := range m.points {
		sum := nistec.NewP256Point().Set(once)
		for i := range m.points[w] {
			m.points[w][i].Set(sum)
			sum.Add(sum, once)
		}
		once = sum // 2^windowBits times as much
	}
	return m, nil
}

// accept tells that a signature is the key's (FIPS 186-5, section 6.4.2). It says nothing where it tells false.
func (m *multiples) accept(digest, signature []byte) bool {
	r, s := new(big.Int), new(big.Int)
	whole := cryptobyte.String(signature)
	var pair cryptobyte.String
	if !whole.ReadASN1(&pair, der.SEQUENCE) || !whole.Empty() || !pair.ReadASN1Integer(r) || !pair.ReadASN1Integer(s) || !pair.Empty() {
		return false
	}
	if len(digest) != scalarBytes || !m.isScalar(r) || !m.isScalar(s) {
		return false
	}
	w := new(big.Int).ModInverse(s, m.order)
	u := new(big.Int).SetBytes(digest)
	u.Mod(u.Mul(u, w), m.order)
	v := w.Mod(w.Mul(r, w), m.order)

	var scalar [scalarBytes]byte
	var ofGenerator, ofKey nistec.P256Point
	if _, err := ofGenerator.ScalarBaseMult(u.FillBytes(scalar[:])); err != nil {
		return false
	}
	if !m.times(&ofKey, v.FillBytes(scalar[:])) {
		return false
	}
	x, err := ofKey.Add(&ofKey, &ofGenerator).BytesX()
	if err != nil { // the point at infinity
		return false
	}
	coordinate := new(big.Int).SetBytes(x)
	return coordinate.Mod(coordinate, m.order).Cmp(r) == 0
}

func (m *multiples) isScalar(n *big.Int) bool { return n.Sign() > 0 && n.Cmp(m.order) < 0 }

// times sets a point to the key times a scalar, which is big-endian. It tells whether the scalar is other than zero.
func (m *multiples) times(product *nistec.P256Point, scalar []byte) bool {
	begun := false
	for w := range m.points {
		value := bitsAt(scalar, w*windowBits)
		switch {
		case value == 0:
		case begun:
			product.Add(product, &m.points[w][value-1])
		default:
			product.Set(&m.points[w][value-1])
			begun = true
		}
	}
	return begun
}

// bitsAt are the windowBits bits of a big-endian number that begin with the one of the value 2^at.
func bitsAt(number []byte, at int) uint {
	low := len(number) - 1 - at/8
	bits := uint(number[low])
	if low > 0 {
		bits |= uint(number[low-1]) << 8
	}
	return bits >> (at % 8) & windowSize
}
