package probe

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"

	"github.com/chancery-ca/chancery/hsm"
)

const (
	randomCheck = "C_GenerateRandom"
	randomSize  = 32 // octets
)

func (p *run) random(ctx context.Context) {
	p.check(ctx, want{"token", randomCheck, "", "Chancery takes CKA_IDs and nonces from the token and cannot work without its random octets"},
		func(s session) (string, error) {
			a, err := s.ctx.GenerateRandom(s.handle, randomSize)
			if err != nil {
				return "", err
			}
			b, err := s.ctx.GenerateRandom(s.handle, randomSize)
			if err == nil && (len(a) != randomSize || bytes.Equal(a, b)) {
				err = errors.New("the same octets came twice, or too few")
			}
			return fmt.Sprintf("%d octets", len(a)), err
		})
}

// What PKCS#11 3.0 defines and the binding does not.
const (
	ckmECEdwardsKeyPairGen = 0x1055
	ckmEDDSA               = 0x1057
	ckmAESKeyWrapKWP       = 0x210b
)

// pair is a key pair to generate with a template that says no more than that the key stays and signs, so that its failure is the
// algorithm's and not an attribute's.
type pair struct {
	name       string
	algorithm  hsm.Algorithm
	mechanism  uint
	parameters []*pkcs11.Attribute // of the public half
}

var pairs = []pair{
	{"ec-p256", hsm.ECDSAP256, pkcs11.CKM_EC_KEY_PAIR_GEN, curve(0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07)},
	{"ec-p384", hsm.ECDSAP384, pkcs11.CKM_EC_KEY_PAIR_GEN, curve(0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22)},
	{"ec-p521", hsm.ECDSAP521, pkcs11.CKM_EC_KEY_PAIR_GEN, curve(0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23)},
	{"ed25519", hsm.Ed25519, ckmECEdwardsKeyPairGen, curve(0x06, 0x03, 0x2b, 0x65, 0x70)},
	{"rsa-2048", hsm.RSA2048, pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, modulus(2048)},
	{"rsa-3072", hsm.RSA3072, pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, modulus(3072)},
	{"rsa-4096", hsm.RSA4096, pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, modulus(4096)},
}

func curve(oid ...byte) []*pkcs11.Attribute {
	return []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, oid)}
}

func modulus(bits int) []*pkcs11.Attribute {
	return []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, bits), pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}),
	}
}

// generate makes a key pair whose private half is sensitive and stays, and has the further attributes.
func (s session) generate(k pair, name string, more ...*pkcs11.Attribute) (private pkcs11.ObjectHandle, err error) {
	public := s.named(name, append(slices.Clone(k.parameters), pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true))...)
	secret := s.named(name,
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true), pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_SIGN, true))
	if !slices.ContainsFunc(more, func(a *pkcs11.Attribute) bool { return a.Type == pkcs11.CKA_EXTRACTABLE }) {
		secret = append(secret, pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false))
	}
	_, private, err = s.ctx.GenerateKeyPair(s.handle, mechanism(k.mechanism, nil), public, append(secret, more...))
	return private, err
}

func mechanism(m uint, parameter any) []*pkcs11.Mechanism {
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(m, parameter)}
}

func generating(name string) string { return "generate " + name }

// keys generates every algorithm's key twice: with a template that says little, and as Chancery makes an authority's key.
func (p *run) keys(ctx context.Context) {
	for _, k := range pairs {
		p.check(ctx, want{"generation", generating(k.name), "", ""}, func(s session) (string, error) {
			_, err := s.generate(k, k.name)
			return "", err
		})
	}
	for _, k := range secrets {
		p.check(ctx, want{"generation", generating(k.name), "", ""}, func(s session) (string, error) {
			_, err := s.generateSecret(k, k.name, pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false))
			return "", err
		})
	}
	for _, k := range pairs {
		name := "authority with " + string(k.algorithm)
		made := p.checkWithout(ctx, want{"authority", name, generating(k.name), ""}, func() (string, error) { return p.authority(ctx, k) })
		if made {
			p.authorities = append(p.authorities, k.algorithm)
		}
	}
}

// authority makes a key as Chancery does, has it vouched for, and signs with it.
func (p *run) authority(ctx context.Context, k pair) (string, error) {
	ref := p.ref("authority-" + k.name)
	_, public, err := p.Token.GenerateKey(ctx, hsm.KeySpec{Algorithm: k.algorithm, Label: ref.Label, ID: ref.ID})
	if err != nil {
		var kept *hsm.KeyNotKeptError
		if errors.As(err, &kept) {
			p.notLocal = len(kept.Wrong) == 1 && strings.HasPrefix(kept.Wrong[0], "CKA_LOCAL ")
			return "", errors.New(strings.Join(kept.Wrong, ", "))
		}
		if cause := errors.Unwrap(err); cause != nil {
			err = cause // without the key's label, which is another in every probe
		}
		return "", err
	}
	options := hsm.SignOptions{}
	if _, isRSA := public.(*rsa.PublicKey); isRSA {
		options.Scheme = hsm.RSAPKCS1
	}
	signature, err := p.Token.Sign(ctx, ref, options, strings.NewReader(message))
	if err != nil {
		return "", err
	}
	return "made, vouched for, and used", hsm.VerifyWith(public, options, strings.NewReader(message), signature)
}

const message = "a probe of this token"

// scheme is a mechanism that signs, as it is given its input and as its signature is verified in software.
type scheme struct {
	name      string
	key       string // the pair that signs
	mechanism uint
	parameter func() any
	digested  bool // the mechanism takes a digest, not the message
	verify    func(public crypto.PublicKey, signature []byte) error
	meaning   string
}

var digestInfo = []byte{0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20}

const (
	noPSS   = "certificates and CRLs of RSA authorities are signed by PKCS#1 v1.5 instead of RSA-PSS"
	noECDSA = "no ECDSA authority can run here"
	noRSA   = "no RSA authority can run here"
)

var schemes = []scheme{
	{"CKM_ECDSA with P-256", "ec-p256", pkcs11.CKM_ECDSA, nil, true, verifyECDSA, noECDSA},
	{"CKM_ECDSA with P-384", "ec-p384", pkcs11.CKM_ECDSA, nil, true, verifyECDSA, ""},
	{"CKM_ECDSA with P-521", "ec-p521", pkcs11.CKM_ECDSA, nil, true, verifyECDSA, ""},
	{"CKM_ECDSA_SHA256", "ec-p256", pkcs11.CKM_ECDSA_SHA256, nil, false, verifyECDSA, ""},
	{"CKM_EDDSA", "ed25519", ckmEDDSA, nil, false, verifyEdDSA, ""},
	{"CKM_RSA_PKCS", "rsa-2048", pkcs11.CKM_RSA_PKCS, nil, true, verifyPKCS1, noRSA},
	{"CKM_SHA256_RSA_PKCS", "rsa-2048", pkcs11.CKM_SHA256_RSA_PKCS, nil, false, verifyPKCS1, ""},
	{"CKM_RSA_PKCS_PSS, salt as long as the hash", "rsa-2048", pkcs11.CKM_RSA_PKCS_PSS, pss(sha256.Size), true, verifyPSS(sha256.Size), noPSS},
	{"CKM_RSA_PKCS_PSS, salt of 20 octets", "rsa-2048", pkcs11.CKM_RSA_PKCS_PSS, pss(20), true, verifyPSS(20), ""},
	{"CKM_SHA256_RSA_PKCS_PSS", "rsa-2048", pkcs11.CKM_SHA256_RSA_PKCS_PSS, pss(sha256.Size), false, verifyPSS(sha256.Size), ""},
}

func pss(salt uint) func() any {
	return func() any { return pkcs11.NewPSSParams(pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256, salt) }
}

func (p *run) signatures(ctx context.Context) {
	for _, m := range schemes {
		p.check(ctx, want{"signatures", m.name, generating(m.key), m.meaning}, func(s session) (string, error) {
			key, err := s.one(pkcs11.CKO_PRIVATE_KEY, m.key)
			if err != nil {
				return "", err
			}
			signature, err := s.sign(m, key)
			if err != nil {
				return "", err
			}
			public, err := s.public(m.key)
			if err != nil {
				return "", fmt.Errorf("it signed, but the public half cannot be read: %w", err)
			}
			return "", m.verify(public, signature)
		})
	}
}

// sign makes one signature.
func (s session) sign(m scheme, key pkcs11.ObjectHandle) ([]byte, error) {
	var parameter any
	if m.parameter != nil {
		parameter = m.parameter()
	}
	input := []byte(message)
	if m.digested {
		digest := sha256.Sum256(input)
		input = digest[:]
		if m.mechanism == pkcs11.CKM_RSA_PKCS {
			input = slices.Concat(digestInfo, input)
		}
	}
	if err := s.ctx.SignInit(s.handle, mechanism(m.mechanism, parameter), key); err != nil {
		return nil, err
	}
	return s.ctx.Sign(s.handle, input)
}

func verifyECDSA(public crypto.PublicKey, signature []byte) error {
	key, ok := public.(*ecdsa.PublicKey)
	if !ok {
		return fmt.Errorf("the public half is a %T", public)
	}
	half := len(signature) / 2
	r, s := new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:])
	if digest := sha256.Sum256([]byte(message)); !ecdsa.Verify(key, digest[:], r, s) {
		return errWrong
	}
	return nil
}

func verifyEdDSA(public crypto.PublicKey, signature []byte) error {
	key, ok := public.(ed25519.PublicKey)
	if !ok {
		return fmt.Errorf("the public half is a %T", public)
	}
	if !ed25519.Verify(key, []byte(message), signature) {
		return errWrong
	}
	return nil
}

func verifyPKCS1(public crypto.PublicKey, signature []byte) error {
	key, ok := public.(*rsa.PublicKey)
	if !ok {
		return fmt.Errorf("the public half is a %T", public)
	}
	digest := sha256.Sum256([]byte(message))
	return rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], signature)
}

func verifyPSS(salt int) func(crypto.PublicKey, []byte) error {
	return func(public crypto.PublicKey, signature []byte) error {
		key, ok := public.(*rsa.PublicKey)
		if !ok {
			return fmt.Errorf("the public half is a %T", public)
		}
		digest := sha256.Sum256([]byte(message))
		return rsa.VerifyPSS(key, crypto.SHA256, digest[:], signature, &rsa.PSSOptions{SaltLength: salt})
	}
}

var errWrong = errors.New("the signature is wrong")
