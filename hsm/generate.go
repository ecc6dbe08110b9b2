package hsm

import (
	"context"
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

// Generate makes a key in the token, for what the specification says and nothing else, that cannot leave it unless the specification
// says so. The label and the CKA_ID must be free: some modules replace the key that has them, others keep both. What the token then says
// of the key is read back; when it is not what was asked for, the key is destroyed and an error returned (*KeyNotKeptError if it is about
// confinement). Nor does a key stay whose making the observer could not record. An indestructible key is made when one that is not has
// proven right. The public key is nil for a secret key.
func (t *Token) Generate(spec KeySpec) (KeyRef, crypto.PublicKey, error) {
	return t.generate(context.Background(), spec, session.made)
}

// GenerateKey is Generate with a context, which names the actor.
func (t *Token) GenerateKey(ctx context.Context, spec KeySpec) (KeyRef, crypto.PublicKey, error) {
	return t.generate(ctx, spec, session.made)
}

// Free refuses names of a key to be made that something in the token has already, as making it would. An id that is left out is free.
func (t *Token) Free(ctx context.Context, ref KeyRef) error {
	return t.inSession(ctx, &Operation{Op: OpList, Key: ref}, func(s session) error { return s.free(ref) })
}

// made makes a key by the profile of its token's vendor.
func (s session) made(spec KeySpec, k kind) (crypto.PublicKey, error) {
	return s.make(spec, k, profileFor(s.token.info))
}

func (t *Token) generate(ctx context.Context, spec KeySpec, made func(session, KeySpec, kind) (crypto.PublicKey, error)) (KeyRef, crypto.PublicKey, error) {
	wrap := func(err error) error {
		return fmt.Errorf("generating the %s key %q in token %q: %w", spec.Algorithm, spec.Label, t.info.Label, classified(err))
	}
	algorithm, ok := algorithms[spec.Algorithm]
	if !ok {
		return KeyRef{}, nil, wrap(fmt.Errorf("the algorithm is unknown; take one of %v", Algorithms()))
	}
	if spec.Label == "" {
		return KeyRef{}, nil, wrap(errors.New("a label is needed"))
	}
	if len(spec.ID) == 0 {
		seed, err := t.Random(idSeed)
		if err != nil {
			return KeyRef{}, nil, wrap(err)
		}
		digest := sha256.Sum256(seed)
		spec.ID = digest[:idSize]
	}
	ref := KeyRef{Label: spec.Label, ID: slices.Clone(spec.ID)}

	var public crypto.PublicKey
	o := &Operation{Op: OpGenerate, Key: ref, Mechanism: mechanismName(algorithm.generation())}
	err := t.making(ctx, o, spec, func(s session, spec KeySpec) error {
		if err := s.free(ref); err != nil {
			return err
		}
		var err error
		if public, err = made(s, spec, algorithm); err != nil {
			// Both names were free before, so what has them now is what was just made.
			return errors.Join(notGenerated(err), s.destroy(ref))
		}
		return nil
	})
	if err != nil {
		return KeyRef{}, nil, wrap(err)
	}
	return ref, public, nil
}

// notGenerated says what to do where the token does not make such a key.
func notGenerated(err error) error {
	const remedy = "choose another algorithm; `chancery hsm list --mechanisms` shows what the token has"
	if is(err, pkcs11.CKR_KEY_SIZE_RANGE, pkcs11.CKR_ATTRIBUTE_VALUE_INVALID, pkcs11.CKR_DOMAIN_PARAMS_INVALID, ckrCurveNotSupported) {
		return fmt.Errorf("%w: it has not this size, this curve or one of the attributes; %s: %w", ErrNotSupported, remedy, err)
	}
	return errMechanism(err, remedy)
}

// generation is the mechanism that makes the key.
func (k kind) generation() uint {
	switch {
	case k.generate != 0:
		return k.generate
	case k.curve != nil:
		return pkcs11.CKM_EC_KEY_PAIR_GEN
	}
	return pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN
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
		if name.of.Label == "" && len(name.of.ID) == 0 {
			continue
		}
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

// make generates the key and reads back what became of it.
func (s session) make(spec KeySpec, k kind, p profile) (crypto.PublicKey, error) {
	ref := KeyRef{Label: spec.Label, ID: spec.ID}
	kept, other, err := spec.conditions(p, k)
	if err != nil {
		return nil, err
	}
	private, err := template(ref, kept)
	if err != nil {
		return nil, err
	}
	if allowed, err := spec.allowed(k); err != nil {
		return nil, err
	} else if p.mechanisms || len(spec.Mechanisms) > 0 {
		if err := private.Set(crypto11.CkaAllowedMechanisms, ulongs(allowed)); err != nil {
			return nil, err
		}
	}
	public, err := template(ref, other)
	if err != nil {
		return nil, err
	}
	mechanism := []*pkcs11.Mechanism{pkcs11.NewMechanism(k.generation(), nil)}
	if err := s.token.lent.enter(); err != nil {
		return nil, err
	}
	defer s.token.lent.leave()
	switch {
	case k.curve != nil:
		_, err = s.token.inner.GenerateECDSAKeyPairWithAttributes(public, private, k.curve)
		var code pkcs11.Error
		if err != nil && !errors.As(err, &code) && !awayTexts[err.Error()] {
			err = fmt.Errorf("%w: the public key that it tells of the new key cannot be read; choose another algorithm: %w", ErrNotSupported, err)
		}
	case k.bits > 0:
		_, err = s.token.inner.GenerateRSAKeyPairWithAttributes(public, private, k.bits)
	case k.secret():
		own := append(private.ToSlice(), pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, k.octets))
		_, err = s.ctx.GenerateKey(s.handle, mechanism, own)
	default:
		parameters := pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, k.parameters)
		_, _, err = s.ctx.GenerateKeyPair(s.handle, mechanism, append(public.ToSlice(), parameters), private.ToSlice())
	}
	if err != nil {
		return nil, err
	}
	return s.readBack(ref, k.secret(), kept, spec.Extractable)
}

// readBack checks that a key just made is what was asked for, and returns its public half.
func (s session) readBack(ref KeyRef, secret bool, want []condition, extractable bool) (public crypto.PublicKey, err error) {
	class := uint(pkcs11.CKO_PRIVATE_KEY)
	if secret {
		class = pkcs11.CKO_SECRET_KEY
	}
	object, err := s.oneOf(class, ref)
	if err != nil {
		return nil, fmt.Errorf("reading the key back: %w", err)
	}
	made, err := s.attributes(object)
	if err != nil {
		return nil, fmt.Errorf("reading the key back: %w", err)
	}
	if !extractable {
		if err := s.token.kept(made); err != nil {
			return nil, err
		}
	}
	if wrong := made.wrong(want); len(wrong) > 0 {
		return nil, fmt.Errorf("the token did not follow the template: %v", wrong)
	}
	if secret {
		return nil, nil
	}
	if public, err = s.publicHalf(object, ref); err != nil {
		return nil, fmt.Errorf("reading the key back: %w", err)
	}
	return public, nil
}

// destroy removes what there is of a key: both halves of a pair, or a secret key.
func (s session) destroy(ref KeyRef) error {
	var failures error
	for _, class := range []uint{pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_SECRET_KEY, pkcs11.CKO_PUBLIC_KEY} {
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
