package hsm_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
)

// trial tries a capability on an open token, and returns an error where the token does not have it.
type trial func(ctx context.Context, token *hsm.Token) error

// trials are the capabilities and how each is tried. What a trial makes it calls by the capability's name, so that none meets another.
func trials() map[hsm.Capability]trial {
	all := map[hsm.Capability]trial{
		hsm.CanPKCS1:      signs(hsm.CanPKCS1, hsm.SignOptions{Scheme: hsm.RSAPKCS1, Hash: crypto.SHA384}),
		hsm.CanPSS:        signs(hsm.CanPSS, hsm.SignOptions{Scheme: hsm.RSAPSS, Hash: crypto.SHA256}),
		hsm.CanOAEPSHA1:   encrypts(hsm.CanOAEPSHA1, hsm.RSA2048, hsm.Cipher{Hash: crypto.SHA1}),
		hsm.CanOAEPSHA256: encrypts(hsm.CanOAEPSHA256, hsm.RSA2048, hsm.Cipher{Hash: crypto.SHA256}),
		// With SHA-1, so that a token without SHA-256 can show that it takes a label.
		hsm.CanOAEPContext:    encrypts(hsm.CanOAEPContext, hsm.RSA2048, hsm.Cipher{Hash: crypto.SHA1, Context: []byte("context")}),
		hsm.CanGCM:            encrypts(hsm.CanGCM, hsm.AES256, hsm.Cipher{Context: []byte("context")}),
		hsm.CanWrapKWP:        wraps(hsm.CanWrapKWP, hsm.AES256, hsm.ECDSAP256, hsm.AESKWP, 0),
		hsm.CanWrapOAEP:       wraps(hsm.CanWrapOAEP, hsm.RSA2048, hsm.AES256, hsm.OAEPWrap, crypto.SHA256),
		hsm.CanWrapOAEPSHA1:   wraps(hsm.CanWrapOAEPSHA1, hsm.RSA2048, hsm.AES256, hsm.OAEPWrap, crypto.SHA1),
		hsm.CanWrapRSAAES:     wraps(hsm.CanWrapRSAAES, hsm.RSA2048, hsm.ECDSAP256, hsm.RSAAES, crypto.SHA256),
		hsm.CanWrapRSAAESSHA1: wraps(hsm.CanWrapRSAAESSHA1, hsm.RSA2048, hsm.ECDSAP256, hsm.RSAAES, crypto.SHA1),

		hsm.CanPSSOtherSalt: func(ctx context.Context, token *hsm.Token) error {
			_, public, err := token.GenerateKey(ctx, hsm.KeySpec{Algorithm: hsm.RSA2048, Label: string(hsm.CanPSSOtherSalt)})
			if err != nil {
				return err
			}
			signer, err := token.Signer(hsm.KeyRef{Label: string(hsm.CanPSSOtherSalt)}, public)
			if err != nil {
				return err
			}
			options := &rsa.PSSOptions{Hash: crypto.SHA256, SaltLength: 20}
			signature, err := signer.SignMessage(nil, []byte("message"), options)
			if err != nil {
				return err
			}
			return verify(public, []byte("message"), signature, options)
		},
		hsm.KnowsUsages: func(ctx context.Context, token *hsm.Token) error {
			ref, _, err := token.GenerateKey(ctx, hsm.KeySpec{Algorithm: hsm.RSA2048, Label: string(hsm.KnowsUsages)})
			if err != nil {
				return err
			}
			a, err := token.Attributes(ref)
			if err == nil && (a.Decrypt || a.Unwrap) {
				err = errors.New("a key for signing decrypts or unwraps as well")
			}
			return err
		},
		hsm.CanDigest: func(ctx context.Context, token *hsm.Token) error {
			digest, err := token.Digest(ctx, crypto.SHA256, strings.NewReader("message"))
			if want := sha256.Sum256([]byte("message")); err == nil && !bytes.Equal(digest, want[:]) {
				return errors.New("the digest is wrong")
			}
			return err
		},
		hsm.CanStoreCertificates: storesCertificates,
		hsm.CanSetLabel: func(ctx context.Context, token *hsm.Token) error {
			ref, _, err := token.GenerateKey(ctx, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: string(hsm.CanSetLabel), Modifiable: true})
			if err != nil {
				return err
			}
			if err := token.SetLabel(ctx, ref, "renamed"); err != nil {
				return err
			}
			_, err = token.Signer(hsm.KeyRef{Label: "renamed", ID: ref.ID}, nil)
			return err
		},
		hsm.KnowsModifiable:     takes(pkcs11.CKA_MODIFIABLE),
		hsm.KnowsCopyable:       takes(pkcs11.CKA_COPYABLE),
		hsm.KnowsIndestructible: takes(pkcs11.CKA_DESTROYABLE),
		hsm.KnowsMechanisms: func(ctx context.Context, token *hsm.Token) error {
			spec := hsm.KeySpec{Algorithm: hsm.RSA2048, Label: string(hsm.KnowsMechanisms), Mechanisms: []string{"CKM_RSA_PKCS_PSS"}}
			ref, _, err := token.GenerateKey(ctx, spec)
			if err != nil {
				return err
			}
			if _, err := token.SignDigest(ctx, ref, hsm.SignOptions{Scheme: hsm.RSAPKCS1}, make([]byte, 32)); err == nil {
				return errors.New("the key signed by a mechanism that it is not for")
			}
			return nil
		},
		hsm.KeepsTwins: keepsTwins,
	}
	for _, algorithm := range hsm.Algorithms() {
		all[hsm.Capability(algorithm)] = works(algorithm)
	}
	return all
}

// works generates a key of the algorithm, confined to the token, and uses it.
func works(algorithm hsm.Algorithm) trial {
	return func(ctx context.Context, token *hsm.Token) error {
		ref, public, err := token.GenerateKey(ctx, hsm.KeySpec{Algorithm: algorithm, Label: string(algorithm)})
		if err != nil {
			return err
		}
		switch algorithm {
		case hsm.AES128, hsm.AES256:
			return nil // what it can do is told by trials of its own
		case hsm.HMACSHA256, hsm.HMACSHA384, hsm.HMACSHA512:
			hash := map[hsm.Algorithm]crypto.Hash{hsm.HMACSHA256: crypto.SHA256, hsm.HMACSHA384: crypto.SHA384, hsm.HMACSHA512: crypto.SHA512}[algorithm]
			mac, err := token.MAC(ctx, ref, hash, strings.NewReader("message"))
			if err != nil {
				return err
			}
			if err := token.VerifyMAC(ctx, ref, hash, strings.NewReader("message"), mac); err != nil {
				return err
			}
			if token.VerifyMAC(ctx, ref, hash, strings.NewReader("another"), mac) == nil {
				return errors.New("the MAC is another message's, too")
			}
			return nil
		}
		var options hsm.SignOptions
		if _, isRSA := public.(*rsa.PublicKey); isRSA {
			options.Scheme = hsm.RSAPKCS1
		}
		return signsWith(ctx, token, ref, public, options)
	}
}

func signsWith(ctx context.Context, token *hsm.Token, ref hsm.KeyRef, public crypto.PublicKey, options hsm.SignOptions) error {
	signature, err := token.Sign(ctx, ref, options, strings.NewReader("message"))
	if err != nil {
		return err
	}
	return hsm.VerifyWith(public, options, strings.NewReader("message"), signature)
}

func signs(name hsm.Capability, options hsm.SignOptions) trial {
	return func(ctx context.Context, token *hsm.Token) error {
		ref, public, err := token.GenerateKey(ctx, hsm.KeySpec{Algorithm: hsm.RSA2048, Label: string(name)})
		if err != nil {
			return err
		}
		return signsWith(ctx, token, ref, public, options)
	}
}

func encrypts(name hsm.Capability, algorithm hsm.Algorithm, c hsm.Cipher) trial {
	return func(ctx context.Context, token *hsm.Token) error {
		ref, _, err := token.GenerateKey(ctx, hsm.KeySpec{Algorithm: algorithm, Label: string(name), Usages: []hsm.Usage{hsm.UseEncrypt}})
		if err != nil {
			return err
		}
		ciphertext, err := token.Encrypt(ctx, ref, c, []byte("plaintext"))
		if err != nil {
			return err
		}
		plaintext, err := token.Decrypt(ctx, ref, c, ciphertext)
		if err != nil {
			return err
		}
		if string(plaintext) != "plaintext" {
			return errors.New("the plaintext came back changed")
		}
		ciphertext[len(ciphertext)-1] ^= 1
		if _, err := token.Decrypt(ctx, ref, c, ciphertext); err == nil {
			return errors.New("a changed ciphertext was decrypted")
		}
		return nil
	}
}

// wraps takes a key out and in again, and uses what came back.
func wraps(name hsm.Capability, under, target hsm.Algorithm, method hsm.WrapMethod, hash crypto.Hash) trial {
	return func(ctx context.Context, token *hsm.Token) error {
		kek, _, err := token.GenerateKey(ctx, hsm.KeySpec{Algorithm: under, Label: string(name), Usages: []hsm.Usage{hsm.UseWrap}})
		if err != nil {
			return err
		}
		key, public, err := token.GenerateKey(ctx, hsm.KeySpec{Algorithm: target, Label: string(name) + " target", Extractable: true})
		if err != nil {
			return err
		}
		wrapped, err := token.Wrap(ctx, hsm.WrapSpec{Key: key, Under: kek, Method: method, Hash: hash})
		if err != nil {
			return err
		}
		back, err := token.Unwrap(ctx, hsm.UnwrapSpec{
			Under: kek, Method: method, Hash: hash, Public: public, Key: hsm.KeySpec{Algorithm: target, Label: string(name) + " back"},
		}, wrapped)
		if err != nil || target.Secret() {
			return err
		}
		return signsWith(ctx, token, back, public, hsm.SignOptions{})
	}
}

func storesCertificates(ctx context.Context, token *hsm.Token) error {
	ref, public, err := token.GenerateKey(ctx, hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: string(hsm.CanStoreCertificates)})
	if err != nil {
		return err
	}
	signer, err := token.Signer(ref, public)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a trial"}, NotAfter: time.Unix(1<<32, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, signer)
	if err != nil {
		return err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	if _, err := token.ImportCertificate(ctx, certificate, hsm.KeyRef{}); err != nil {
		return err
	}
	found, err := token.Certificates(ctx, hsm.KeyRef{ID: ref.ID})
	if err != nil {
		return err
	}
	if len(found) != 1 || !found[0].Paired || !found[0].Certificate.Equal(certificate) {
		return fmt.Errorf("found %d certificates", len(found))
	}
	return token.DeleteCertificate(ctx, hsm.KeyRef{ID: ref.ID}, certificate)
}

// takes tries whether an attribute of a private key can be set to false and is then told so. The template is the test's own: what this
// package leaves out of a vendor's template is tried as well.
func takes(attribute uint) trial {
	return func(_ context.Context, token *hsm.Token) error { return hsmtest.TryFalse(token, attribute) }
}

func keepsTwins(_ context.Context, token *hsm.Token) error {
	n, err := hsmtest.Twins(token, "twin")
	if err == nil && n != 2 {
		err = fmt.Errorf("after two generations of one CKA_ID there are %d keys", n)
	}
	return err
}

// triedElsewhere are capabilities that are not of one open token: TestOtherProgramsAgree and TestLifeCycleOfAnyToken try them.
var triedElsewhere = []hsm.Capability{
	hsm.TakesOAEPNoSource, hsm.CanInitToken, hsm.CanChangePIN, hsm.CanChangeOfficersPIN, hsm.CanUnlockPIN,
}

// What a profile says is missing fails, and everything else works: on SoftHSM, and on whatever token the environment names.
func TestCapabilities(t *testing.T) {
	t.Parallel()
	fixture := hsmtest.Subject(t)
	c := fixture.Config()
	c.AcceptNotLocal = false
	strict, err := hsm.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	profile := strict.Info().Profile()
	_, _, notLocal := strict.Generate(hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "strict"})
	if err := strict.Close(); err != nil {
		t.Fatal(err)
	}
	c.PIN = hsm.PINFromBytes([]byte("not the PIN"))
	if _, err := hsm.Open(t.Context(), c); !errors.Is(err, hsm.ErrWrongPIN) {
		t.Fatalf("a wrong PIN: %v", err)
	}
	c = fixture.Config()
	unasked, failedLogin := hsm.Open(t.Context(), c)
	if failedLogin == nil {
		failedLogin = errors.Join(errors.New("it lets a log-in follow one that failed"), unasked.Close())
	} else if errors.Is(failedLogin, hsm.ErrPINAtRisk) {
		failedLogin = nil
	}
	c.RetryAfterFailedPIN, c.AcceptNotLocal = true, !profile.Has(hsm.TellsLocal)
	token, err := hsm.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer token.Close()
	if profile.Name != fixture.Profile() {
		t.Fatalf("%+v has the profile %q, want %q", token.Info(), profile.Name, fixture.Profile())
	}
	all := trials()
	all[hsm.TellsLocal] = func(context.Context, *hsm.Token) error { return notLocal }
	all[hsm.TellsFailedLogin] = func(context.Context, *hsm.Token) error { return failedLogin }
	for _, lacked := range profile.Lacks {
		if all[lacked] == nil && !slices.Contains(triedElsewhere, lacked) {
			t.Errorf("the profile %s lacks %q, which is no capability", profile.Name, lacked)
		}
	}
	var names []hsm.Capability
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		t.Run(string(name), func(t *testing.T) {
			err := all[name](t.Context(), token)
			switch {
			case err != nil && profile.Has(name):
				t.Errorf("the profile %s has it, but: %v", profile.Name, err)
			case err == nil && !profile.Has(name):
				t.Errorf("the profile %s lacks it, but it works", profile.Name)
			case err != nil:
				t.Logf("lacking, as declared: %v", err)
				if slices.Contains(hsm.Algorithms(), hsm.Algorithm(name)) && !errors.Is(err, hsm.ErrNotSupported) {
					t.Errorf("of that a caller cannot tell that another algorithm helps: %v", err)
				}
				if name == hsm.CanGCM && strings.Contains(err.Error(), "RSA-OAEP") {
					t.Errorf("the remedy is that of another mode: %v", err)
				}
				if errors.Is(err, hsm.ErrUnavailable) && !strings.Contains(err.Error(), "CKR_") {
					t.Errorf("that does not say why: %v", err)
				}
			}
		})
	}
}
