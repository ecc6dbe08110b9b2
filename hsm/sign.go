package hsm

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/miekg/pkcs11"
)

// Scheme is a way of signing.
type Scheme string

// The schemes. The salt of RSA-PSS is as long as the hash.
const (
	RSAPKCS1 Scheme = "rsa-pkcs1" // RFC 8017, section 8.2
	RSAPSS   Scheme = "rsa-pss"   // RFC 8017, section 8.1
	ECDSA    Scheme = "ecdsa"     // FIPS 186-5; the signature is a DER SEQUENCE of r and s
	EdDSA    Scheme = "eddsa"     // RFC 8032, Ed25519; signs messages, never digests
)

// SignOptions choose scheme and hash. What is left out follows the key: RSA-PSS for RSA, and the hash that is as strong as the key.
type SignOptions struct {
	Scheme Scheme
	Hash   crypto.Hash // SHA-256, SHA-384 or SHA-512; not for EdDSA
}

// maxEdDSA is the longest message that is signed with EdDSA, which cannot be given piece by piece. Octets.
const maxEdDSA = 16 << 20

// hashes are those that are signed, encrypted and authenticated with.
var hashes = map[crypto.Hash]struct {
	name                string
	mechanism, mgf, mac uint
	digestInfo          []byte // DER of DigestInfo before the digest (RFC 8017, section 9.2)
}{
	crypto.SHA1: {name: "sha1", mechanism: pkcs11.CKM_SHA_1, mgf: pkcs11.CKG_MGF1_SHA1},
	crypto.SHA256: {
		"sha256", pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256, pkcs11.CKM_SHA256_HMAC,
		[]byte{0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20},
	},
	crypto.SHA384: {
		"sha384", pkcs11.CKM_SHA384, pkcs11.CKG_MGF1_SHA384, pkcs11.CKM_SHA384_HMAC,
		[]byte{0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0x04, 0x30},
	},
	crypto.SHA512: {
		"sha512", pkcs11.CKM_SHA512, pkcs11.CKG_MGF1_SHA512, pkcs11.CKM_SHA512_HMAC,
		[]byte{0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03, 0x05, 0x00, 0x04, 0x40},
	},
}

// ParseHash reads "sha256", "sha384" or "sha512", and "sha1", which RSA-OAEP alone takes.
func ParseHash(name string) (crypto.Hash, error) {
	for hash, h := range hashes {
		if h.name == name {
			return hash, nil
		}
	}
	return 0, fmt.Errorf("%q is no hash; take sha256, sha384 or sha512", name)
}

// strong refuses hashes that must not be signed with.
func strong(hash crypto.Hash) error {
	if _, known := hashes[hash]; !known || hash == crypto.SHA1 {
		return fmt.Errorf("the hash %v is not signed with; take sha256, sha384 or sha512", hash)
	}
	return nil
}

// complete fills in what the caller left to the key.
func (o SignOptions) complete(k key) (SignOptions, error) {
	scheme, hash := ECDSA, crypto.SHA256
	switch k.algorithm {
	case ECDSAP384:
		hash = crypto.SHA384
	case ECDSAP521:
		hash = crypto.SHA512
	case Ed25519:
		scheme, hash = EdDSA, 0
	case "":
		return o, fmt.Errorf("a key of type %s, or of this size or curve, is not signed with", k.keyType)
	}
	if k.keyType == "CKK_RSA" {
		scheme = RSAPSS
	} else if k.algorithm.Secret() {
		return o, errors.New("the key is a secret one: it makes MACs, not signatures")
	}
	switch {
	case o.Scheme == "":
		o.Scheme = scheme
	case o.Scheme != scheme && (k.keyType != "CKK_RSA" || o.Scheme != RSAPKCS1):
		does := string(scheme)
		if k.keyType == "CKK_RSA" {
			does += " or " + string(RSAPKCS1)
		}
		return o, fmt.Errorf("a key of the algorithm %s does not sign with %q, but with %s", k.algorithm, o.Scheme, does)
	}
	if o.Scheme == EdDSA {
		if o.Hash != 0 {
			return o, errors.New("Ed25519 hashes by itself: name no hash")
		}
		return o, nil
	}
	if o.Hash == 0 {
		o.Hash = hash
	}
	return o, strong(o.Hash)
}

func (o SignOptions) mechanism() *pkcs11.Mechanism {
	switch o.Scheme {
	case RSAPKCS1:
		return pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS, nil)
	case RSAPSS:
		h := hashes[o.Hash]
		return pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_PSS, pkcs11.NewPSSParams(h.mechanism, h.mgf, uint(o.Hash.Size())))
	case EdDSA:
		return pkcs11.NewMechanism(ckmEDDSA, nil)
	}
	return pkcs11.NewMechanism(pkcs11.CKM_ECDSA, nil)
}

// input is what the mechanism takes, made of a digest; of a message for EdDSA.
func (o SignOptions) input(k key, digest []byte) []byte {
	switch {
	case o.Scheme == RSAPKCS1:
		return append(append([]byte{}, hashes[o.Hash].digestInfo...), digest...)
	case o.Scheme == ECDSA && len(digest) > k.octets:
		// FIPS 186-5, section 6.4.1: the leftmost bits. Modules differ in whether they do so themselves.
		return digest[:k.octets]
	}
	return digest
}

// Sign signs a message with a private key. The signature is verified before it is returned, where the token holds the public key. The message is hashed here, piece by piece; for Ed25519 it may have 16 MiB at most.
func (t *Token) Sign(ctx context.Context, ref KeyRef, o SignOptions, message io.Reader) ([]byte, error) {
	return t.sign(ctx, &Operation{Op: OpSign, Key: ref}, o, reading(message))
}

// SignDigest signs a digest that the options' hash made.
func (t *Token) SignDigest(ctx context.Context, ref KeyRef, o SignOptions, digest []byte) ([]byte, error) {
	return t.sign(ctx, &Operation{Op: OpSign, Key: ref}, o, given(digest))
}

// Verify verifies a signature over a message with the public key in the token. It returns ErrSignature if it is not the key's.
func (t *Token) Verify(ctx context.Context, ref KeyRef, o SignOptions, message io.Reader, signature []byte) error {
	return t.verify(ctx, ref, o, reading(message), signature)
}

// VerifyDigest verifies a signature over a digest.
func (t *Token) VerifyDigest(ctx context.Context, ref KeyRef, o SignOptions, digest, signature []byte) error {
	return t.verify(ctx, ref, o, given(digest), signature)
}

// ErrSignature means that a signature or a MAC is not the key's over this message.
var ErrSignature = errors.New("the signature is not valid")

// source yields what is to be signed, once the options are complete, and notes it in the operation.
type source func(SignOptions, *Operation) ([]byte, error)

func reading(message io.Reader) source {
	return func(o SignOptions, op *Operation) ([]byte, error) {
		if o.Scheme == EdDSA {
			whole, err := io.ReadAll(io.LimitReader(message, maxEdDSA+1))
			if err != nil {
				return nil, fmt.Errorf("reading the message: %w", err)
			}
			if len(whole) > maxEdDSA {
				return nil, fmt.Errorf("Ed25519 signs messages of %d octets at most; sign a digest of it in a document of your own", maxEdDSA)
			}
			op.digestOf(whole)
			return whole, nil
		}
		h := o.Hash.New()
		if _, err := io.Copy(h, message); err != nil {
			return nil, fmt.Errorf("reading the message: %w", err)
		}
		op.Input, op.InputHash = h.Sum(nil), o.Hash
		return op.Input, nil
	}
}

func given(digest []byte) source {
	return func(o SignOptions, op *Operation) ([]byte, error) {
		if o.Scheme == EdDSA {
			return nil, errors.New("Ed25519 signs messages, not digests: give the message")
		}
		if len(digest) != o.Hash.Size() {
			return nil, fmt.Errorf("the digest has %d octets, %v makes %d", len(digest), o.Hash, o.Hash.Size())
		}
		op.Input, op.InputHash = digest, o.Hash
		return digest, nil
	}
}

func (t *Token) sign(ctx context.Context, op *Operation, o SignOptions, from source) (signature []byte, err error) {
	ref := op.Key
	var input []byte
	err = t.withKey(ctx, op, []uint{pkcs11.CKO_PRIVATE_KEY}, ref, func(k key) (*pkcs11.Mechanism, error) {
		if o, err = o.complete(k); err != nil {
			return nil, err
		}
		if input, err = from(o, op); err != nil {
			return nil, err
		}
		return o.mechanism(), nil
	}, func(s session, k key, mechanism []*pkcs11.Mechanism) error {
		if signature, err = s.sign(k, o, mechanism, input); err != nil {
			return err
		}
		return t.released(op, k, o, input, signature)
	})
	if err != nil {
		return nil, fmt.Errorf("signing with the key with %s in token %q: %w", ref, t.info.Label, err)
	}
	return signature, nil
}

// released verifies a signature before it is handed out. It cannot where the token holds no public half.
func (t *Token) released(op *Operation, k key, o SignOptions, input, signature []byte) error {
	var public crypto.PublicKey
	own := op.Session
	err := t.locked(op, func(s session) (err error) {
		public, err = s.publicHalf(k.handle, k.ref)
		return err
	})
	op.Session = own
	if errors.Is(err, ErrKeyNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the public key to verify the signature with: %w", err)
	}
	if err := verifyInput(public, o, input, signature); err != nil {
		return fmt.Errorf("the token made a signature that its public key does not verify; it is not handed out: %w", err)
	}
	return nil
}

// sign makes one signature and gives it the form that the world expects.
func (s session) sign(k key, o SignOptions, mechanism []*pkcs11.Mechanism, input []byte) ([]byte, error) {
	if err := s.ctx.SignInit(s.handle, mechanism, k.handle); err != nil {
		return nil, errMechanism(err, "choose another scheme or hash")
	}
	raw, err := s.ctx.Sign(s.handle, o.input(k, input))
	if err != nil {
		return nil, errMechanism(err, "choose another scheme or hash")
	}
	if o.Scheme != ECDSA {
		return raw, nil
	}
	if len(raw) == 0 || len(raw)%2 != 0 {
		return nil, fmt.Errorf("the token made an ECDSA signature of %d octets", len(raw))
	}
	half := len(raw) / 2
	return asn1.Marshal(rs{new(big.Int).SetBytes(raw[:half]), new(big.Int).SetBytes(raw[half:])})
}

// rs is Ecdsa-Sig-Value (RFC 3279, section 2.2.3).
type rs struct{ R, S *big.Int }

func (t *Token) verify(ctx context.Context, ref KeyRef, o SignOptions, from source, signature []byte) error {
	op := &Operation{Op: OpVerify, Key: ref}
	var input []byte
	err := t.withKey(ctx, op, []uint{pkcs11.CKO_PUBLIC_KEY}, ref, func(k key) (_ *pkcs11.Mechanism, err error) {
		if o, err = o.complete(k); err != nil {
			return nil, err
		}
		if input, err = from(o, op); err != nil {
			return nil, err
		}
		return o.mechanism(), nil
	}, func(s session, k key, mechanism []*pkcs11.Mechanism) error {
		raw := signature
		if o.Scheme == ECDSA {
			var parts rs
			rest, err := asn1.Unmarshal(signature, &parts)
			if err != nil || len(rest) > 0 || parts.R.Sign() <= 0 || parts.S.Sign() <= 0 ||
				parts.R.BitLen() > 8*k.octets || parts.S.BitLen() > 8*k.octets {
				return fmt.Errorf("%w: it is no DER SEQUENCE of two numbers", ErrSignature)
			}
			raw = append(parts.R.FillBytes(make([]byte, k.octets)), parts.S.FillBytes(make([]byte, k.octets))...)
		}
		if err := s.ctx.VerifyInit(s.handle, mechanism, k.handle); err != nil {
			return errMechanism(err, "choose another scheme or hash")
		}
		err := s.ctx.Verify(s.handle, o.input(k, input), raw)
		if is(err, pkcs11.CKR_SIGNATURE_INVALID, pkcs11.CKR_SIGNATURE_LEN_RANGE) ||
			is(err, pkcs11.CKR_DEVICE_ERROR) && s.disproved(k, o, input, signature) {
			return fmt.Errorf("%w: %w", ErrSignature, err)
		}
		return errMechanism(err, "choose another scheme or hash")
	})
	if err != nil {
		return fmt.Errorf("verifying with the key with %s in token %q: %w", ref, t.info.Label, err)
	}
	return nil
}

// disproved tells whether a signature is not the public key's, where the token did not say. NSS sometimes answers CKR_DEVICE_ERROR to a
// signature that is not valid, which must not pass for a token that is lost.
func (s session) disproved(k key, o SignOptions, input, signature []byte) bool {
	public, err := s.publicKey(k.handle)
	return err == nil && errors.Is(verifyInput(public, o, input, signature), ErrSignature)
}

// VerifyWith verifies a signature in software, with the options as Sign takes them. It returns ErrSignature if it is not the key's.
func VerifyWith(public crypto.PublicKey, o SignOptions, message io.Reader, signature []byte) error {
	k, err := keyOf(public)
	if err != nil {
		return err
	}
	if o, err = o.complete(k); err != nil {
		return err
	}
	input, err := reading(message)(o, &Operation{})
	if err != nil {
		return err
	}
	return verifyInput(public, o, input, signature)
}

// verifyInput verifies a signature over a digest, or for EdDSA over a message. The options are complete.
func verifyInput(public crypto.PublicKey, o SignOptions, input, signature []byte) error {
	valid := false
	switch public := public.(type) {
	case *rsa.PublicKey:
		if o.Scheme == RSAPKCS1 {
			valid = rsa.VerifyPKCS1v15(public, o.Hash, input, signature) == nil
		} else {
			valid = rsa.VerifyPSS(public, o.Hash, input, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
	case *ecdsa.PublicKey:
		valid = ecdsa.VerifyASN1(public, input, signature)
	case ed25519.PublicKey:
		valid = ed25519.Verify(public, input, signature)
	}
	if !valid {
		return ErrSignature
	}
	return nil
}

// keyOf tells of a public key what the token would tell.
func keyOf(public crypto.PublicKey) (key, error) {
	switch public := public.(type) {
	case *rsa.PublicKey:
		for name, a := range algorithms {
			if a.bits == public.N.BitLen() && a.bits > 0 {
				return key{keyType: "CKK_RSA", algorithm: name, octets: public.Size()}, nil
			}
		}
	case *ecdsa.PublicKey:
		for name, a := range algorithms {
			if a.curve != nil && a.curve == public.Curve {
				return key{keyType: "CKK_EC", algorithm: name, octets: (a.curve.Params().N.BitLen() + 7) / 8}, nil
			}
		}
	case ed25519.PublicKey:
		return key{keyType: "CKK_EC_EDWARDS", algorithm: Ed25519}, nil
	}
	return key{}, fmt.Errorf("a public key of this kind (%T) or size is not understood", public)
}
