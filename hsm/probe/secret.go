package probe

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strconv"

	"github.com/miekg/pkcs11"
)

// secret is a secret key to generate.
type secret struct {
	name      string
	mechanism uint
	octets    uint
	usages    []uint
}

var secrets = []secret{
	{"aes-128", pkcs11.CKM_AES_KEY_GEN, 16, []uint{pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT}},
	{"aes-256", pkcs11.CKM_AES_KEY_GEN, 32, []uint{pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT}},
	{"hmac", pkcs11.CKM_GENERIC_SECRET_KEY_GEN, 32, []uint{pkcs11.CKA_SIGN, pkcs11.CKA_VERIFY}},
}

func (s session) generateSecret(k secret, name string, more ...*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	template := s.named(name, append(more, pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, k.octets),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true), pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true))...)
	for _, usage := range k.usages {
		template = append(template, pkcs11.NewAttribute(usage, true))
	}
	return s.ctx.GenerateKey(s.handle, mechanism(k.mechanism, nil), template)
}

// ulong is a CK_ULONG as it lies in memory.
func ulong(n uint) []byte {
	if strconv.IntSize == 64 {
		return binary.NativeEndian.AppendUint64(nil, uint64(n))
	}
	return binary.NativeEndian.AppendUint32(nil, uint32(n))
}

const (
	decrypting = "an RSA key that decrypts"
	gcmNonce   = 12 // octets
	gcmTag     = 16 // octets
	aesBlock   = 16 // octets
)

func (p *run) encryption(ctx context.Context) {
	p.check(ctx, want{"encryption", decrypting, generating("rsa-2048"), ""}, func(s session) (string, error) {
		public := s.named("decrypting", append(modulus(2048), pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true), pkcs11.NewAttribute(pkcs11.CKA_WRAP, true))...)
		private := s.named("decrypting", pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true), pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
			pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true), pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, true))
		_, _, err := s.ctx.GenerateKeyPair(s.handle, mechanism(pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, nil), public, private)
		return "", err
	})
	for _, o := range []struct {
		name    string
		hash    func() hash.Hash
		m, mgf  uint
		meaning string
	}{
		{"CKM_RSA_PKCS_OAEP with SHA-1", sha1.New, pkcs11.CKM_SHA_1, pkcs11.CKG_MGF1_SHA1, ""},
		{"CKM_RSA_PKCS_OAEP with SHA-256", sha256.New, pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256, "encrypting to an RSA key of the token needs the hash sha1"},
	} {
		p.check(ctx, want{"encryption", o.name, decrypting, o.meaning}, func(s session) (string, error) {
			key, err := s.one(pkcs11.CKO_PRIVATE_KEY, "decrypting")
			if err != nil {
				return "", err
			}
			public, err := s.public("decrypting")
			if err != nil {
				return "", err
			}
			ciphertext, err := rsa.EncryptOAEP(o.hash(), rand.Reader, public.(*rsa.PublicKey), []byte(message), nil)
			if err != nil {
				return "", err
			}
			oaep := pkcs11.NewOAEPParams(o.m, o.mgf, pkcs11.CKZ_DATA_SPECIFIED, nil)
			if err := s.ctx.DecryptInit(s.handle, mechanism(pkcs11.CKM_RSA_PKCS_OAEP, oaep), key); err != nil {
				return "", err
			}
			return same(s.ctx.Decrypt(s.handle, ciphertext))
		})
	}
	const gcm = "CKM_AES_GCM"
	p.check(ctx, want{"encryption", gcm, generating("aes-256"), "hsm encrypt needs an RSA key here"}, func(s session) (string, error) {
		key, err := s.one(pkcs11.CKO_SECRET_KEY, "aes-256")
		if err != nil {
			return "", err
		}
		nonce := make([]byte, gcmNonce)
		rand.Read(nonce)
		parameters := pkcs11.NewGCMParams(nonce, []byte("context"), 8*gcmTag)
		defer parameters.Free()
		if err := s.ctx.EncryptInit(s.handle, mechanism(pkcs11.CKM_AES_GCM, parameters), key); err != nil {
			return "", err
		}
		ciphertext, err := s.ctx.Encrypt(s.handle, []byte(message))
		if err != nil {
			return "", err
		}
		detail := ""
		if used := parameters.IV(); !bytes.Equal(used, nonce) {
			nonce, detail = used, "the token takes a nonce of its own"
		}
		for _, changed := range []bool{false, true} {
			if changed {
				ciphertext[0] ^= 1
			}
			again := pkcs11.NewGCMParams(nonce, []byte("context"), 8*gcmTag)
			defer again.Free()
			if err := s.ctx.DecryptInit(s.handle, mechanism(pkcs11.CKM_AES_GCM, again), key); err != nil {
				return "", err
			}
			_, err := same(s.ctx.Decrypt(s.handle, ciphertext))
			if !changed && err != nil {
				return "", err
			}
			if changed && err == nil {
				return "", errors.New("a changed ciphertext was decrypted")
			}
		}
		return detail, nil
	})
}

func same(plaintext []byte, err error) (string, error) {
	if err == nil && string(plaintext) != message {
		err = errors.New("the plaintext came back changed")
	}
	return "", err
}

const wrappingKey = "an AES key that wraps"

// wrapping takes an extractable key out and in again, and sees whether it is the same.
func (p *run) wrapping(ctx context.Context) {
	wraps := secret{"", pkcs11.CKM_AES_KEY_GEN, 32, []uint{pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP}}
	const target = "an extractable P-256 key"
	p.check(ctx, want{"wrapping", wrappingKey, generating("aes-256"), ""}, func(s session) (string, error) {
		_, err := s.generateSecret(wraps, "wrapping", pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false))
		return "", err
	})
	p.check(ctx, want{
		"wrapping", target, generating("ec-p256"), "no key can be made here that could be backed up",
	}, func(s session) (string, error) {
		_, err := s.generate(pairs[0], "target", pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true))
		return "", err
	})
	p.check(ctx, want{"wrapping", "a key that stays cannot be wrapped", wrappingKey, leak}, func(s session) (string, error) {
		kek, err := s.one(pkcs11.CKO_SECRET_KEY, "wrapping")
		if err != nil {
			return "", err
		}
		// A key of its own: what was tried on the other may have changed it.
		kept, err := s.generate(p.sample(), "staying")
		if err != nil {
			return "", err
		}
		var seen string
		for _, m := range []struct {
			name      string
			mechanism uint
			parameter any
		}{
			{"CKM_AES_KEY_WRAP_PAD", pkcs11.CKM_AES_KEY_WRAP_PAD, nil},
			{"CKM_AES_KEY_WRAP_KWP", ckmAESKeyWrapKWP, nil},
			{"CKM_AES_CBC_PAD", pkcs11.CKM_AES_CBC_PAD, make([]byte, aesBlock)},
		} {
			wrapped, err := s.ctx.WrapKey(s.handle, mechanism(m.mechanism, m.parameter), kek, kept)
			if err == nil && len(wrapped) > 0 {
				return "", fmt.Errorf("%s wrapped it, into %d octets", m.name, len(wrapped))
			}
			if is(err, pkcs11.CKR_KEY_UNEXTRACTABLE) || seen == "" {
				seen, _ = refused(err)
			}
		}
		return seen, nil
	})
	for i, m := range []struct {
		name      string
		mechanism uint
		under     string
		needs     string
		parameter func() any
		meaning   string
	}{
		{"CKM_AES_KEY_WRAP_KWP", ckmAESKeyWrapKWP, "wrapping", wrappingKey, nil, ""},
		{"CKM_AES_KEY_WRAP_PAD", pkcs11.CKM_AES_KEY_WRAP_PAD, "wrapping", wrappingKey, nil, ""},
		{"CKM_RSA_AES_KEY_WRAP with SHA-256", pkcs11.CKM_RSA_AES_KEY_WRAP, "decrypting", decrypting, func() any {
			oaep := pkcs11.NewOAEPParams(pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256, pkcs11.CKZ_DATA_SPECIFIED, nil)
			return &pkcs11.RSAAESKeyWrapParams{AESKeyBits: 256, OAEPParams: *oaep}
		}, ""},
	} {
		p.check(ctx, want{"wrapping", m.name, m.needs, m.meaning}, func(s session) (string, error) {
			if !p.parents[target] {
				return "", errors.New("there is no extractable key to try it with")
			}
			return s.roundTrip(m.mechanism, m.parameter, m.under, fmt.Sprintf("back-%d", i))
		})
	}
	p.check(ctx, want{"wrapping", "CKM_RSA_PKCS_OAEP with SHA-1, of an AES key", decrypting, ""}, func(s session) (string, error) {
		parameter := func() any {
			return pkcs11.NewOAEPParams(pkcs11.CKM_SHA_1, pkcs11.CKG_MGF1_SHA1, pkcs11.CKZ_DATA_SPECIFIED, nil)
		}
		leaving, err := s.generateSecret(secrets[1], "leaving", pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true))
		if err != nil {
			return "", err
		}
		public, err := s.one(pkcs11.CKO_PUBLIC_KEY, "decrypting")
		if err != nil {
			return "", err
		}
		private, err := s.one(pkcs11.CKO_PRIVATE_KEY, "decrypting")
		if err != nil {
			return "", err
		}
		wrapped, err := s.ctx.WrapKey(s.handle, mechanism(pkcs11.CKM_RSA_PKCS_OAEP, parameter()), public, leaving)
		if err != nil {
			return "", err
		}
		_, err = s.ctx.UnwrapKey(s.handle, mechanism(pkcs11.CKM_RSA_PKCS_OAEP, parameter()), private, wrapped, s.named("arrived",
			pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
			pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false)))
		return "", err
	})
}

// roundTrip wraps the extractable key, unwraps it under another name, and has it sign.
func (s session) roundTrip(m uint, parameter func() any, under, back string) (string, error) {
	made := func() []*pkcs11.Mechanism {
		if parameter == nil {
			return mechanism(m, nil)
		}
		return mechanism(m, parameter())
	}
	wrapping, unwrapping := uint(pkcs11.CKO_SECRET_KEY), uint(pkcs11.CKO_SECRET_KEY)
	if under == "decrypting" {
		wrapping, unwrapping = pkcs11.CKO_PUBLIC_KEY, pkcs11.CKO_PRIVATE_KEY
	}
	kek, err := s.one(wrapping, under)
	if err != nil {
		return "", err
	}
	key, err := s.one(pkcs11.CKO_PRIVATE_KEY, "target")
	if err != nil {
		return "", err
	}
	wrapped, err := s.ctx.WrapKey(s.handle, made(), kek, key)
	if err != nil {
		return "", err
	}
	if kek, err = s.one(unwrapping, under); err != nil {
		return "", err
	}
	restored, err := s.ctx.UnwrapKey(s.handle, made(), kek, wrapped, s.named(back,
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_EC),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true), pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false), pkcs11.NewAttribute(pkcs11.CKA_SIGN, true)))
	if err != nil {
		return "", fmt.Errorf("it wrapped, but: %w", err)
	}
	signature, err := s.sign(schemes[0], restored)
	if err != nil {
		return "", err
	}
	public, err := s.public("target")
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d octets", len(wrapped)), verifyECDSA(public, signature)
}

func (p *run) macs(ctx context.Context) {
	for _, m := range []struct {
		name      string
		mechanism uint
	}{{"CKM_SHA256_HMAC", pkcs11.CKM_SHA256_HMAC}} {
		p.check(ctx, want{"other", m.name, generating("hmac"), "hsm mac does not work"}, func(s session) (string, error) {
			key, err := s.one(pkcs11.CKO_SECRET_KEY, "hmac")
			if err != nil {
				return "", err
			}
			if err := s.ctx.SignInit(s.handle, mechanism(m.mechanism, nil), key); err != nil {
				return "", err
			}
			mac, err := s.ctx.Sign(s.handle, []byte(message))
			if err != nil {
				return "", err
			}
			if err := s.ctx.VerifyInit(s.handle, mechanism(m.mechanism, nil), key); err != nil {
				return "", err
			}
			return "", s.ctx.Verify(s.handle, []byte(message), mac)
		})
	}
	p.check(ctx, want{"other", "CKM_SHA256", "", ""}, func(s session) (string, error) {
		if err := s.ctx.DigestInit(s.handle, mechanism(pkcs11.CKM_SHA256, nil)); err != nil {
			return "", err
		}
		digest, err := s.ctx.Digest(s.handle, []byte(message))
		if want := sha256.Sum256([]byte(message)); err == nil && !slices.Equal(digest, want[:]) {
			err = errors.New("the digest is wrong")
		}
		return "", err
	})
}
