package issuance

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

func multiplesFor(t testing.TB, key *ecdsa.PublicKey) *multiples {
	t.Helper()
	m, err := multiplesOf(key)
	if err != nil {
		t.Fatal(err)
	}
	if m == nil {
		t.Fatal("a P-256 key has no multiples")
	}
	return m
}

// TestMultiplesAgreeWithTheStandardLibrary has both judge signatures as they are made, and with octets changed.
func TestMultiplesAgreeWithTheStandardLibrary(t *testing.T) {
	key := p256(t)
	m := multiplesFor(t, &key.PublicKey)
	other := multiplesFor(t, &p256(t).PublicKey)
	rapid.Check(t, func(t *rapid.T) {
		digest := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "digest")
		signature, err := ecdsa.SignASN1(rand.Reader, key, digest)
		if err != nil {
			t.Fatal(err)
		}
		if !m.accept(digest, signature) {
			t.Fatalf("%x over %x is not accepted", signature, digest)
		}
		if other.accept(digest, signature) {
			t.Fatal("the multiples of another key accept it")
		}
		changed, at := bytes.Clone(signature), rapid.IntRange(0, len(signature)-1).Draw(t, "at")
		changed[at] ^= rapid.ByteRange(1, 255).Draw(t, "change")
		if m.accept(digest, changed) != ecdsa.VerifyASN1(&key.PublicKey, digest, changed) {
			t.Fatalf("on %x over %x they differ", changed, digest)
		}
		digest[rapid.IntRange(0, 31).Draw(t, "octet")] ^= 1
		if m.accept(digest, signature) {
			t.Fatal("a signature over another digest is accepted")
		}
	})
}

// TestMultiplesOfSmallKeys sign with keys and digests for which the sum is that of a point with itself or with nothing, or a window or a
// scalar is zero.
func TestMultiplesOfSmallKeys(t *testing.T) {
	curve := elliptic.P256()
	order := curve.Params().N
	for _, d := range []int64{1, 2, 3, 63, 64, 65, 4096, -1, -2} {
		private := new(big.Int).Mod(big.NewInt(d), order)
		key, err := ecdsa.ParseRawPrivateKey(curve, private.FillBytes(make([]byte, 32)))
		if err != nil {
			t.Fatal(err)
		}
		m := multiplesFor(t, &key.PublicKey)
		for _, nonce := range []int64{1, 2, 3, 64, -1, -3, 1 << 40} {
			k := new(big.Int).Mod(big.NewInt(nonce), order)
			at, err := ecdsa.ParseRawPrivateKey(curve, k.FillBytes(make([]byte, 32)))
			if err != nil {
				t.Fatal(err)
			}
			point, err := at.PublicKey.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			r := new(big.Int).SetBytes(point[1:33])
			r.Mod(r, order)
			negated := new(big.Int).Sub(order, r)
			for _, e := range []*big.Int{new(big.Int), big.NewInt(1), r, negated, new(big.Int).Sub(order, big.NewInt(1))} {
				s := new(big.Int).Mul(r, private)
				s.Add(s, e).Mul(s, new(big.Int).ModInverse(k, order)).Mod(s, order)
				signature, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
				if err != nil {
					t.Fatal(err)
				}
				digest := e.FillBytes(make([]byte, 32))
				want := ecdsa.VerifyASN1(&key.PublicKey, digest, signature)
				if want != (s.Sign() != 0) {
					t.Fatalf("the standard library tells %v of a signature with s = %v", want, s)
				}
				if got := m.accept(digest, signature); got != want {
					t.Errorf("key %d, nonce %d, digest %x: accepted: %v, want %v", d, nonce, digest, got, want)
				}
			}
		}
	}
}

// TestMultiplesRefuse what is no signature in form.
func TestMultiplesRefuse(t *testing.T) {
	key := p256(t)
	m := multiplesFor(t, &key.PublicKey)
	digest := sha256.Sum256([]byte("a message"))
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	var sound struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(signature, &sound); err != nil {
		t.Fatal(err)
	}
	of := func(r, s *big.Int) []byte {
		octets, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
		if err != nil {
			t.Fatal(err)
		}
		return octets
	}
	zero := new(big.Int)
	for name, octets := range map[string][]byte{
		"nothing":           nil,
		"no sequence":       {0x02, 0x01, 0x01},
		"octets after it":   append(bytes.Clone(signature), 0),
		"cut short":         signature[:len(signature)-1],
		"r is zero":         of(zero, sound.S),
		"s is zero":         of(sound.R, zero),
		"r is the order":    of(m.order, sound.S),
		"s is the order":    of(sound.R, m.order),
		"r beyond it":       of(new(big.Int).Add(sound.R, m.order), sound.S),
		"s beyond it":       of(sound.R, new(big.Int).Add(sound.S, m.order)),
		"r negative":        of(new(big.Int).Neg(sound.R), sound.S),
		"s negative":        of(sound.R, new(big.Int).Neg(sound.S)),
		"r of 1,000 octets": of(new(big.Int).Lsh(sound.R, 8000), sound.S),
	} {
		if m.accept(digest[:], octets) {
			t.Errorf("%s: accepted", name)
		}
	}
	if m.accept(digest[:31], signature) || m.accept(append(digest[:], 0), signature) {
		t.Error("a digest of another length is accepted")
	}
}

// TestWrongMultiplesAcceptNothing: what memory has lost makes them refuse, and then crypto/ecdsa is asked.
func TestWrongMultiplesAcceptNothing(t *testing.T) {
	key := p256(t)
	signing, err := newSigningKey(key)
	if err != nil {
		t.Fatal(err)
	}
	message := []byte("a message")
	signature, err := signing.askDigest(t.Context(), signing.algorithm.digest(message))
	if err != nil {
		t.Fatal(err)
	}
	for w := range signing.multiples.points {
		for i := range signing.multiples.points[w] {
			signing.multiples.points[w][i].Double(&signing.multiples.points[w][i])
		}
	}
	if signing.multiples.accept(signing.algorithm.digest(message), signature) {
		t.Error("wrong multiples accept a signature")
	}
	if err := signing.verify(message, signature); err != nil {
		t.Errorf("with wrong multiples: %v", err)
	}
}

func FuzzMultiples(f *testing.F) {
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{7}, 32))
	if err != nil {
		f.Fatal(err)
	}
	m := multiplesFor(f, &key.PublicKey)
	for _, message := range []string{"", "a", "another"} {
		digest := sha256.Sum256([]byte(message))
		signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
		if err != nil {
			f.Fatal(err)
		}
		f.Add(digest[:], signature)
	}
	f.Fuzz(func(t *testing.T, digest, signature []byte) {
		if len(digest) != sha256.Size {
			return
		}
		if got, want := m.accept(digest, signature), ecdsa.VerifyASN1(&key.PublicKey, digest, signature); got != want {
			t.Errorf("%x over %x: accepted: %v, by crypto/ecdsa: %v", signature, digest, got, want)
		}
	})
}

// BenchmarkVerify checks a signature of a key of our own, beside crypto/ecdsa doing so.
func BenchmarkVerify(b *testing.B) {
	key := p256(b)
	m := multiplesFor(b, &key.PublicKey)
	digest := sha256.Sum256([]byte("a message"))
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		b.Fatal(err)
	}
	for name, accepts := range map[string]func() bool{
		"multiples":    func() bool { return m.accept(digest[:], signature) },
		"crypto/ecdsa": func() bool { return ecdsa.VerifyASN1(&key.PublicKey, digest[:], signature) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !accepts() {
					b.Fatal("a sound signature is refused")
				}
			}
		})
	}
}
