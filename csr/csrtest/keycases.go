package csrtest

import (
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/binary"
	"math/big"

	"golang.org/x/crypto/cryptobyte"

	"github.com/chancery-ca/chancery/csr"
)

var (
	oidRSA     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidEC      = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	oidP256    = asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}
	oidEd25519 = asn1.ObjectIdentifier{1, 3, 101, 112}
)

// spki is a SubjectPublicKeyInfo; parameters is a whole element or empty.
func spki(algorithm asn1.ObjectIdentifier, parameters, key []byte) []byte {
	return sequence(sequence(oid(algorithm), parameters), bits(key))
}

// RSAKey is the SubjectPublicKeyInfo of an RSA key of any modulus and exponent.
func RSAKey(modulus, exponent *big.Int) []byte {
	return spki(oidRSA, null, sequence(integer(modulus), integer(exponent)))
}

func integer(n *big.Int) []byte {
	return build(func(c *cryptobyte.Builder) { c.AddASN1BigInt(n) })
}

// Modulus is a number of exactly so many bits, odd, that looks random and is the same for the same size. Nobody knows its factors.
func Modulus(size int) *big.Int {
	var stream []byte
	for i := uint64(0); len(stream)*8 < size; i++ {
		block := sha256.Sum256(binary.BigEndian.AppendUint64([]byte("chancery test modulus"), i))
		stream = append(stream, block[:]...)
	}
	n := new(big.Int).SetBytes(stream)
	n.Rsh(n, uint(len(stream)*8-size))
	return n.SetBit(n.SetBit(n, size-1, 1), 0, 1)
}

// rocaModulus has the fingerprint of the keys of CVE-2017-15361: modulo small primes it is a power of 65537.
func rocaModulus() *big.Int {
	primes := []int64{
		2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61,
		67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
	}
	m := big.NewInt(1)
	for _, p := range primes {
		m.Mul(m, big.NewInt(p))
	}
	n := Modulus(2048)
	n.Sub(n, new(big.Int).Mod(n, m))
	return n.Add(n, new(big.Int).Exp(big.NewInt(65537), big.NewInt(12345), m))
}

// keyCases are keys that are not read. They are signed with the key of Base: nothing may come to check that.
func keyCases() []Case {
	keys := FixedKeys()
	key := func(name, rule string, spki []byte) Case {
		return refused(name, rule, func(b *Builder) { b.RawSPKI = spki })
	}
	point, err := keys.P256.PublicKey.Bytes()
	if err != nil {
		panic(err)
	}
	ec := func(name string, point []byte) Case { return key(name, csr.RuleKey, spki(oidEC, oid(oidP256), point)) }
	changed := func(at int, with byte) []byte {
		p := append([]byte{}, point...)
		p[at] = with
		return p
	}
	compressed := append([]byte{2 | point[64]&1}, point[1:33]...)
	offCurve := changed(64, point[64]^1)
	n, e := keys.RSA2048.N, big.NewInt(65537)
	rsa := func(name, rule string, modulus, exponent []byte) Case {
		return key(name, rule, spki(oidRSA, null, sequence(modulus, exponent)))
	}
	small := make([]byte, 32)
	small[0] = 1
	over := make([]byte, 32)
	for i := range over {
		over[i] = 0xff
	}
	return []Case{
		key("ec-explicit-parameters", csr.RuleKey, spki(oidEC, explicitP256(), point)),
		key("ec-implicit-parameters", csr.RuleKey, spki(oidEC, null, point)),
		key("ec-no-parameters", csr.RuleKey, spki(oidEC, nil, point)),
		key("ec-secp256k1", csr.RuleKeyAlgorithm, spki(oidEC, oid(asn1.ObjectIdentifier{1, 3, 132, 0, 10}), point)),
		key("ec-brainpool", csr.RuleKeyAlgorithm, spki(oidEC, oid(asn1.ObjectIdentifier{1, 3, 36, 3, 3, 2, 8, 1, 1, 7}), point)),
		key("ec-two-curves", csr.RuleEncoding, spki(oidEC, append(oid(oidP256), oid(oidP256)...), point)),
		ec("ec-infinity", []byte{0}),
		ec("ec-no-octets", nil),
		ec("ec-compressed", compressed),
		ec("ec-hybrid", changed(0, 6|point[64]&1)),
		ec("ec-off-curve", offCurve),
		ec("ec-zero-point", append([]byte{4}, make([]byte, 64)...)),
		ec("ec-coordinate-over-prime", append(append([]byte{4}, over...), point[33:]...)),
		ec("ec-short", point[:64]),
		ec("ec-long", append(append([]byte{}, point...), 0)),
		key("rsa-no-parameters", csr.RuleEncoding, spki(oidRSA, nil, sequence(integer(n), integer(e)))),
		key("rsa-wrong-parameters", csr.RuleEncoding, spki(oidRSA, sequence(), sequence(integer(n), integer(e)))),
		key("rsa-null-twice", csr.RuleEncoding, spki(oidRSA, append(append([]byte{}, null...), null...), sequence(integer(n), integer(e)))),
		key("rsa-trailing", csr.RuleEncoding, spki(oidRSA, null, append(sequence(integer(n), integer(e)), 0))),
		key("rsa-three-numbers", csr.RuleEncoding, spki(oidRSA, null, sequence(integer(n), integer(e), integer(e)))),
		rsa("rsa-modulus-zero", csr.RuleKey, []byte{2, 1, 0}, integer(e)),
		rsa("rsa-modulus-negative", csr.RuleEncoding, integer(new(big.Int).Neg(n)), integer(e)),
		rsa("rsa-modulus-padded", csr.RuleEncoding, element(2, []byte{0, 0}, n.Bytes()), integer(e)),
		rsa("rsa-exponent-zero", csr.RuleKey, integer(n), []byte{2, 1, 0}),
		rsa("rsa-exponent-negative", csr.RuleEncoding, integer(n), []byte{2, 1, 0xff}),
		rsa("rsa-exponent-padded", csr.RuleEncoding, integer(n), []byte{2, 4, 0, 1, 0, 1}),
		key("rsa-restricted-to-pss", csr.RuleKeyAlgorithm,
			spki(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}, nil, sequence(integer(n), integer(e)))),
		key("ed25519-null", csr.RuleEncoding, spki(oidEd25519, null, small)),
		key("ed25519-short", csr.RuleKey, spki(oidEd25519, nil, small[:31])),
		key("ed25519-small-order", csr.RuleKey, spki(oidEd25519, nil, small)),
		key("ed25519-over-prime", csr.RuleKey, spki(oidEd25519, nil, over)),
		key("ed448", csr.RuleKeyAlgorithm, spki(asn1.ObjectIdentifier{1, 3, 101, 113}, nil, make([]byte, 57))),
		key("x25519", csr.RuleKeyAlgorithm, spki(asn1.ObjectIdentifier{1, 3, 101, 110}, nil, small)),
		key("dsa", csr.RuleKeyAlgorithm,
			spki(asn1.ObjectIdentifier{1, 2, 840, 10040, 4, 1}, sequence(integer(n), integer(e), integer(e)), integer(e))),
		key("key-unused-bits", csr.RuleEncoding, sequence(sequence(oid(oidEC), oid(oidP256)), element(3, []byte{1}, point[:64], []byte{0}))),
		key("key-trailing", csr.RuleEncoding, sequence(sequence(oid(oidEC), oid(oidP256)), bits(point), null)),
		key("key-missing", csr.RuleEncoding, sequence(sequence(oid(oidEC), oid(oidP256)))),
		key("key-null", csr.RuleEncoding, null),
	}
}

// explicitP256 is P-256 with its parameters spelt out (SEC 1, section C.2), as OpenSSL writes it when told to.
func explicitP256() []byte {
	c := elliptic.P256().Params()
	field := asn1.ObjectIdentifier{1, 2, 840, 10045, 1, 1}
	a := new(big.Int).Sub(c.P, big.NewInt(3))
	base := append([]byte{4}, append(c.Gx.FillBytes(make([]byte, 32)), c.Gy.FillBytes(make([]byte, 32))...)...)
	return sequence(
		[]byte{2, 1, 1},
		sequence(oid(field), integer(c.P)),
		sequence(element(4, a.Bytes()), element(4, c.B.FillBytes(make([]byte, 32)))),
		element(4, base), integer(c.N), []byte{2, 1, 1},
	)
}

// signatureCases are requests whose signature, or the naming of its algorithm, is wrong.
func signatureCases() []Case {
	keys := FixedKeys()
	signed := func(name, verify string, change func(*Builder)) Case {
		c := accepted(name, "", change)
		c.Verify = verify
		return c
	}
	outdated := func(name string, algorithm csr.SignatureAlgorithm) Case {
		return signed(name, csr.RuleSignatureAlgorithm, func(b *Builder) {
			b.SigAlg = algorithm
			if algorithms[algorithm].null {
				b.Key = keys.RSA2048
			}
		})
	}
	odd := func(name, verify string, algorithm []byte) Case {
		return signed(name, verify, func(b *Builder) { b.Key, b.SigAlg, b.RawSigAlg = keys.RSA2048, "RSA-PSS-SHA256", algorithm })
	}
	algorithm := func(name, rule string, whole []byte) Case {
		return refused(name, rule, func(b *Builder) { b.RawSigAlg = whole })
	}
	named := func(name csr.SignatureAlgorithm, parameters ...[]byte) []byte {
		return sequence(append([][]byte{oid(algorithms[name].oid)}, parameters...)...)
	}
	sha1 := asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}
	sha256, sha512 := pssHashes["RSA-PSS-SHA256"].oid, pssHashes["RSA-PSS-SHA512"].oid
	idPSS := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}
	info, err := Base().info()
	if err != nil {
		panic(err)
	}
	byOther, err := sign(keys.Other, "ECDSA-SHA256", info)
	if err != nil {
		panic(err)
	}
	return []Case{
		outdated("sha1-signature", "RSA-SHA1"),
		outdated("md5-signature", "RSA-MD5"),
		outdated("ecdsa-sha1-signature", "ECDSA-SHA1"),
		odd("pss-sha1", csr.RuleSignatureAlgorithm, pss(sha1, sha1, 20)),
		odd("pss-defaults", csr.RuleSignatureAlgorithm, sequence(oid(idPSS), sequence())),
		odd("pss-no-parameters", csr.RuleSignatureAlgorithm, sequence(oid(idPSS))),
		odd("pss-other-mask", csr.RuleSignatureAlgorithm, pss(sha256, sha512, 32)),
		odd("pss-other-salt", csr.RuleSignatureAlgorithm, pss(sha256, sha256, 20)),
		odd("pss-named-as-pkcs1", csr.RuleSignature, mustAlgorithm("RSA-SHA256")),
		signed("unknown-signature-algorithm", csr.RuleSignatureAlgorithm, func(b *Builder) {
			b.RawSigAlg = sequence(oid(asn1.ObjectIdentifier{1, 2, 3, 4}))
		}),
		signed("rsa-signature-for-ec-key", csr.RuleSignatureAlgorithm, func(b *Builder) { b.RawSigAlg = mustAlgorithm("RSA-SHA256") }),
		signed("ed25519-signature-for-ec-key", csr.RuleSignatureAlgorithm, func(b *Builder) { b.RawSigAlg = mustAlgorithm("Ed25519") }),
		signed("other-hash-named", csr.RuleSignature, func(b *Builder) { b.RawSigAlg = mustAlgorithm("ECDSA-SHA384") }),
		signed("wrong-signature", csr.RuleSignature, func(b *Builder) { b.RawSignature = byOther }),
		signed("signature-of-another-request", csr.RuleSignature, func(b *Builder) {
			// The signature is good, but for the request before this change of its name.
			parts, _ := split(Base().must())
			b.RawSignature = parts[2]
			b.Subject, b.DNS = CN("evil.dev.example"), []string{"evil.dev.example"}
		}),
		signed("empty-signature", csr.RuleSignature, func(b *Builder) { b.RawSignature = bits(nil) }),
		signed("zero-signature", csr.RuleSignature, func(b *Builder) { b.RawSignature = bits(sequence([]byte{2, 1, 0}, []byte{2, 1, 0})) }),
		signed("signature-trailing", csr.RuleSignature, func(b *Builder) {
			parts, _ := split(Base().must())
			b.RawSignature = bits(append(append([]byte{}, parts[2][3:]...), 0))
		}),
		signed("ed25519-wrong-signature", csr.RuleSignature, func(b *Builder) { b.Key, b.RawSignature = keys.Ed25519, bits(make([]byte, 64)) }),
		signed("rsa-zero-signature", csr.RuleSignature, func(b *Builder) { b.Key, b.RawSignature = keys.RSA2048, bits(make([]byte, 256)) }),
		algorithm("ecdsa-with-null", csr.RuleSignatureAlgorithm, named("ECDSA-SHA256", null)),
		algorithm("ed25519-with-null", csr.RuleSignatureAlgorithm, named("Ed25519", null)),
		algorithm("rsa-without-null", csr.RuleSignatureAlgorithm, named("RSA-SHA256")),
		algorithm("rsa-with-sequence", csr.RuleSignatureAlgorithm, named("RSA-SHA256", sequence())),
		algorithm("algorithm-empty", csr.RuleEncoding, sequence()),
		algorithm("algorithm-not-a-sequence", csr.RuleEncoding, null),
		algorithm("algorithm-parameters-cut-off", csr.RuleEncoding, sequence(oid(asn1.ObjectIdentifier{1, 2, 3, 4}), []byte{4, 5, 0})),
		refused("signature-unused-bits", csr.RuleEncoding, func(b *Builder) { b.RawSignature = []byte{3, 2, 1, 0x80} }),
		refused("signature-as-octets", csr.RuleEncoding, func(b *Builder) { b.RawSignature = []byte{4, 2, 1, 0x80} }),
	}
}
