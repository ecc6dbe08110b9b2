package hsm

import (
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/ThalesIgnite/crypto11"
	"github.com/miekg/pkcs11"
)

const (
	idSeed = 32 // random octets that a chosen CKA_ID is made of
	idSize = 20 // octets of a chosen CKA_ID
)

// Generate makes a key pair in the token, for signing and nothing else, that cannot leave it. The label and the CKA_ID must be free: some
// modules replace the key that has them, others keep both. What the token then says of the key is read back; when it is not what was
// asked for, the pair is destroyed and an error returned (*KeyNotKeptError if it is about confinement).
func (t *Token) Generate(spec KeySpec) (KeyRef, crypto.PublicKey, error) {
	return t.generate(spec, profileFor(t.info))
}

func (t *Token) generate(spec KeySpec, p profile) (KeyRef, crypto.PublicKey, error) {
	wrap := func(err error) error {
		return fmt.Errorf("generating the %s key %q in token %q: %w", spec.Algorithm, spec.Label, t.info.Label, classified(err))
	}
	algorithm, ok := algorithms[spec.Algorithm]
	if !ok {
		return KeyRef{}, nil, wrap(errors.New("the algorithm is unknown"))
	}
	if spec.Label == "" {
		return KeyRef{}, nil, wrap(errors.New("a label is needed"))
	}
	ref := KeyRef{Label: spec.Label, ID: slices.Clone(spec.ID)}
	if len(ref.ID) == 0 {
		seed, err := t.Random(idSeed)
		if err != nil {
			return KeyRef{}, nil, wrap(err)
		}
		digest := sha256.Sum256(seed)
		ref.ID = digest[:idSize]
	}

	var public crypto.PublicKey
	err := t.inSession(func(s session) error {
		if err := s.free(ref); err != nil {
			return err
		}
		var err error
		if public, err = s.make(ref, algorithm, p); err != nil {
			// Both names were free before, so what has them now is what was just made.
			return errors.Join(err, s.destroy(ref))
		}
		return nil
	})
	if err != nil {
		return KeyRef{}, nil, wrap(err)
	}
	return ref, public, nil
}

// free refuses names that any object has, be it a certificate.
func (s session) free(ref KeyRef) error {
	for _, name := range []struct {
		of        KeyRef
		attribute *pkcs11.Attribute
	}{
		{KeyRef{Label: ref.Label}, pkcs11.NewAttribute(pkcs11.CKA_LABEL, ref.Label)},
		{KeyRef{ID: ref.ID}, pkcs11.NewAttribute(pkcs11.CKA_ID, ref.ID)},
	} {
		taken, err := s.find(name.attribute)
		if err != nil {
			return err
		}
		if len(taken) > 0 {
			return fmt.Errorf("%w: %s", ErrKeyExists, name.of)
		}
	}
	return nil
}

// make generates the pair and reads back what became of it.
func (s session) make(ref KeyRef, k kind, p profile) (crypto.PublicKey, error) {
	private, err := template(ref, p.private)
	if err != nil {
		return nil, err
	}
	if p.mechanisms {
		if err := private.Set(crypto11.CkaAllowedMechanisms, ulongs(k.mechanisms)); err != nil {
			return nil, err
		}
	}
	public, err := template(ref, p.public)
	if err != nil {
		return nil, err
	}
	if k.curve != nil {
		_, err = s.token.inner.GenerateECDSAKeyPairWithAttributes(public, private, k.curve)
	} else {
		_, err = s.token.inner.GenerateRSAKeyPairWithAttributes(public, private, k.bits)
	}
	if err != nil {
		return nil, err
	}
	made, err := s.pair(ref)
	if err != nil {
		return nil, fmt.Errorf("reading the key back: %w", err)
	}
	if err := made.attributes.Kept(); err != nil {
		return nil, err
	}
	if wrong := made.attributes.wrong(p.private); len(wrong) > 0 {
		return nil, fmt.Errorf("the token did not follow the template: %v", wrong)
	}
	return made.key.Public(), nil
}

// destroy removes both halves of a pair, or what there is of it.
func (s session) destroy(ref KeyRef) error {
	var failures error
	for _, class := range []uint{pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_PUBLIC_KEY} {
		found, err := s.findClass(class, ref)
		failures = errors.Join(failures, err)
		for _, object := range found {
			if err := s.ctx.DestroyObject(s.handle, object); err != nil {
				failures = errors.Join(failures, fmt.Errorf("destroying what was made (%s): %w", ref, err))
			}
		}
	}
	return failures
}
