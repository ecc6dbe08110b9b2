package issuance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"math/big"
	"slices"
	"testing"

	"filippo.io/nistec"
	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
	"pgregory.net/rapid"
)

// signatureOf is a signature in DER with these two numbers, whatever they are.
func signatureOf(t testing.TB, r, s *big.Int) []byte {
	t.Helper()
	var b cryptobyte.Builder
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(r)
		b.AddASN1BigInt(s)
	})
	octets, err := b.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return octets
}

func numbersOf(t testing.TB, signature []byte) (r, s *big.Int) {
	t.Helper()
	r, s, ok := readECDSA(signature)
	if !ok {
		t.Fatalf("%x is no signature", signature)
	}
	return r, s
}

// agree fails where crypto/ecdsa says something else of a signature, and returns what both say.
func agree(t rapid.TB, public *ecdsa.PublicKey, m *multiples, digest, signature []byte) bool {
	t.Helper()
	want := ecdsa.VerifyASN1(public, digest, signature)
	if got := m.verify(digest, signature); got != want {
		point, _ := public.Bytes() // which it was made of
		t.Fatalf("key %x, digest %x, signature %x: %v, and crypto/ecdsa says %v", point, digest, signature, got, want)
	}
	return want
}

// TestMultiplesVerifyAsECDSA draws keys of which the edges are some, signs, and changes what was signed.
func TestMultiplesVerifyAsECDSA(t *testing.T) {
	n := elliptic.P256().Params().N
	scalar := rapid.Custom(func(t *rapid.T) *big.Int {
		x := new(big.Int).SetBytes(rapid.SliceOfN(rapid.Byte(), 0, 32).Draw(t, "octets"))
		if rapid.Bool().Draw(t, "from the end") {
			x.Sub(n, x)
		}
		return x.Mod(x, new(big.Int).Sub(n, big.NewInt(1))).Add(x, big.NewInt(1)) // 1 <= x < n
	})
	rapid.Check(t, func(rt *rapid.T) {
		d := scalar.Draw(rt, "d")
		key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d.FillBytes(make([]byte, 32)))
		if err != nil {
			rt.Fatal(err)
		}
		m := newMultiples(&key.PublicKey)
		digest := sha256.Sum256(rapid.SliceOf(rapid.Byte()).Draw(rt, "message"))
		signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
		if err != nil {
			rt.Fatal(err)
		}
		if !agree(rt, &key.PublicKey, m, digest[:], signature) {
			rt.Fatal("a signature does not verify")
		}
		r, s := numbersOf(t, signature)
		if !agree(rt, &key.PublicKey, m, digest[:], signatureOf(t, r, new(big.Int).Sub(n, s))) {
			rt.Fatal("the other s of a signature does not verify")
		}
		// r and s are chosen, and the digest follows from them: a signature for a message that nobody knows, with every scalar there is.
		u1, u2 := scalar.Draw(rt, "u1"), scalar.Draw(rt, "u2")
		x, err := pointOf(rt, new(big.Int).Add(u1, new(big.Int).Mul(u2, d))).BytesX()
		if err != nil { // u1 + u2 d = 0
			return
		}
		r = new(big.Int).SetBytes(x)
		if r.Mod(r, n).Sign() == 0 {
			return
		}
		s = new(big.Int).Mul(r, new(big.Int).ModInverse(u2, n))
		s.Mod(s, n)
		e := new(big.Int).Mul(u1, s)
		chosen := e.Mod(e, n).FillBytes(make([]byte, 32))
		if !agree(rt, &key.PublicKey, m, chosen, signatureOf(t, r, s)) {
			rt.Fatal("a signature that fits its digest does not verify")
		}
		// Nearly right is wrong.
		for _, near := range [][2]*big.Int{
			{new(big.Int).Add(r, big.NewInt(1)), s},
			{r, new(big.Int).Add(s, big.NewInt(1))},
			{new(big.Int).Add(r, n), s},
			{r, new(big.Int).Add(s, n)},
			{s, r},
			{new(big.Int).Neg(r), s},
			{r, new(big.Int).Neg(s)},
		} {
			agree(rt, &key.PublicKey, m, chosen, signatureOf(t, near[0], near[1]))
		}
		bit := rapid.IntRange(0, 255).Draw(rt, "bit")
		chosen[bit/8] ^= 1 << (bit % 8)
		if agree(rt, &key.PublicKey, m, chosen, signatureOf(t, r, s)) {
			rt.Fatal("a signature of another digest verifies")
		}
	})
}

// pointOf is the product of the generator and a number.
func pointOf(t rapid.TB, x *big.Int) *nistec.P256Point {
	t.Helper()
	p, err := nistec.NewP256Point().ScalarBaseMult(new(big.Int).Mod(x, elliptic.P256().Params().N).FillBytes(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestMultiplesAtTheEdges has the numbers at which an implementation errs.
func TestMultiplesAtTheEdges(t *testing.T) {
	p, n := elliptic.P256().Params().P, elliptic.P256().Params().N
	one := big.NewInt(1)
	numbers := []*big.Int{
		new(big.Int), one, big.NewInt(2), big.NewInt(64), new(big.Int).Sub(n, one), n, new(big.Int).Add(n, one), p, new(big.Int).Sub(p, n),
		new(big.Int).Rsh(n, 1), new(big.Int).Lsh(one, 255), new(big.Int).Sub(new(big.Int).Lsh(one, 256), one), new(big.Int).Lsh(one, 256),
		new(big.Int).Neg(one), new(big.Int).Lsh(one, 600),
	}
	var digests [][]byte
	for _, x := range numbers {
		if x.Sign() >= 0 && x.BitLen() <= 256 {
			digests = append(digests, x.FillBytes(make([]byte, 32)))
		}
	}
	for _, d := range []*big.Int{one, big.NewInt(2), new(big.Int).Sub(n, one), big.NewInt(0x123456789)} {
		key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d.FillBytes(make([]byte, 32)))
		if err != nil {
			t.Fatal(err)
		}
		m := newMultiples(&key.PublicKey)
		for _, digest := range digests {
			for _, r := range numbers {
				for _, s := range numbers {
					agree(t, &key.PublicKey, m, digest, signatureOf(t, r, s))
				}
			}
		}
		// With e = -r d, u1 G + u2 Q is the point at infinity.
		r := big.NewInt(7)
		e := new(big.Int).Mul(r, d)
		e.Mod(e.Neg(e), n)
		if agree(t, &key.PublicKey, m, e.FillBytes(make([]byte, 32)), signatureOf(t, r, one)) {
			t.Error("the point at infinity verifies")
		}
		// With e = r d both products are one point, which an addition has to double.
		e.Mul(r, d).Mod(e, n)
		agree(t, &key.PublicKey, m, e.FillBytes(make([]byte, 32)), signatureOf(t, r, one))
	}
}

// TestMultiplesOfEveryDigit multiplies with each digit at each place.
func TestMultiplesOfEveryDigit(t *testing.T) {
	key := p256(t)
	m := newMultiples(&key.PublicKey)
	octets, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	unit, err := nistec.NewP256Point().SetBytes(octets)
	if err != nil {
		t.Fatal(err)
	}
	for i := range digits {
		for d := range int64(1 << digitBits) {
			x := new(big.Int).Lsh(big.NewInt(d), uint(i*digitBits))
			if x.BitLen() > 256 {
				continue
			}
			var scalar [32]byte
			x.FillBytes(scalar[:])
			if got := digit(&scalar, i); int64(got) != d {
				t.Fatalf("digit %d of %x is %d", i, scalar, got)
			}
			want, err := nistec.NewP256Point().ScalarMult(unit, scalar[:])
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(m.times(&scalar).Bytes(), want.Bytes()) {
				t.Fatalf("the key's point times %x is another point", scalar)
			}
		}
	}
}

func TestMultiplesOfOtherKeys(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P224(), elliptic.P384(), elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if haveMultiples(&key.PublicKey) {
			t.Errorf("there are multiples for a key on %s", curve.Params().Name)
		}
	}
	//lint:ignore SA1019 a point that is not on the curve can be written in no other way
	m := newMultiples(&ecdsa.PublicKey{Curve: elliptic.P256(), X: big.NewInt(1), Y: big.NewInt(1)})
	if m != nil || m.verify(make([]byte, 32), signatureOf(t, big.NewInt(1), big.NewInt(1))) {
		t.Error("a point that is not on the curve has multiples")
	}
}

// signed is a signature of a key of which there are the multiples, over a digest.
func signed(t testing.TB) (key *ecdsa.PrivateKey, m *multiples, digest [sha256.Size]byte, signature []byte) {
	t.Helper()
	key, digest = p256(t), sha256.Sum256([]byte("a message"))
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return key, newMultiples(&key.PublicKey), digest, signature
}

func FuzzMultiples(f *testing.F) {
	key, m, digest, signature := signed(f)
	f.Add(digest[:], signature)
	f.Add(digest[:], append(slices.Clone(signature), 0))
	f.Add(digest[:], slices.Insert(slices.Clone(signature), 4, 0))
	f.Add(digest[:31], signature)
	f.Fuzz(func(t *testing.T, digest, signature []byte) {
		if len(digest) != sha256.Size {
			if m.verify(digest, signature) {
				t.Error("a digest of another length verifies")
			}
			return
		}
		agree(t, &key.PublicKey, m, digest, signature)
	})
}

func BenchmarkVerify(b *testing.B) {
	key, m, digest, signature := signed(b)
	for _, way := range []struct {
		name   string
		verify func() bool
	}{
		{"crypto/ecdsa", func() bool { return ecdsa.VerifyASN1(&key.PublicKey, digest[:], signature) }},
		{"from multiples", func() bool { return m.verify(digest[:], signature) }},
	} {
		b.Run(way.name, func(b *testing.B) {
			for b.Loop() {
				if !way.verify() {
					b.Fatal("a signature does not verify")
				}
			}
		})
	}
}
