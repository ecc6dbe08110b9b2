package hsm

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/ThalesIgnite/crypto11"
	"github.com/miekg/pkcs11"
)

// Keys lists the private keys in the token. One key of an unknown kind does not hide the others.
func (t *Token) Keys() ([]KeyInfo, error) {
	var keys []KeyInfo
	err := t.inSession(context.Background(), &Operation{Op: OpList}, func(s session) error {
		found, err := s.findClass(pkcs11.CKO_PRIVATE_KEY, KeyRef{})
		if err != nil {
			return err
		}
		for _, object := range found {
			key, err := s.describe(object)
			if is(err, pkcs11.CKR_OBJECT_HANDLE_INVALID) {
				continue // destroyed since it was found
			}
			if err != nil {
				return err
			}
			keys = append(keys, key)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing the keys of token %q: %w", t.info.Label, err)
	}
	slices.SortFunc(keys, func(a, b KeyInfo) int {
		if by := strings.Compare(a.Label, b.Label); by != 0 {
			return by
		}
		return bytes.Compare(a.ID, b.ID)
	})
	return keys, nil
}

func (s session) describe(object pkcs11.ObjectHandle) (KeyInfo, error) {
	k, err := s.key(object)
	if err != nil {
		return KeyInfo{}, err
	}
	return KeyInfo{KeyRef: k.ref, Algorithm: k.algorithm, Type: k.keyType}, nil
}

// PublicKey returns the public half of a key pair. It says nothing of how well the private half is kept.
func (t *Token) PublicKey(ref KeyRef) (crypto.PublicKey, error) {
	var public crypto.PublicKey
	err := t.inSession(context.Background(), &Operation{Op: OpList, Key: ref}, func(s session) error {
		private, err := s.one(ref)
		if err != nil {
			return err
		}
		exact, err := s.ref(private)
		if err != nil {
			return err
		}
		public, err = s.publicHalf(private, exact)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("public key with %s: %w", ref, err)
	}
	return public, nil
}

// Attributes returns what the token says of a private key.
func (t *Token) Attributes(ref KeyRef) (Attributes, error) {
	var a Attributes
	err := t.inSession(context.Background(), &Operation{Op: OpList, Key: ref}, func(s session) error {
		object, err := s.one(ref)
		if err != nil {
			return err
		}
		a, err = s.attributes(object)
		return err
	})
	if err != nil {
		return Attributes{}, fmt.Errorf("attributes of the key with %s: %w", ref, err)
	}
	return a, nil
}

// one returns the one private key that ref names.
func (s session) one(ref KeyRef) (pkcs11.ObjectHandle, error) {
	return s.oneOf(pkcs11.CKO_PRIVATE_KEY, ref)
}

// publicHalf reads the one public key that belongs to a private key with these names.
func (s session) publicHalf(private pkcs11.ObjectHandle, exact KeyRef) (crypto.PublicKey, error) {
	if err := s.onePublic(exact); err != nil {
		return nil, err
	}
	if len(exact.ID) > 0 {
		exact.Label = "" // the halves belong together by their CKA_ID
	}
	object, err := s.oneOf(pkcs11.CKO_PUBLIC_KEY, exact)
	if errors.Is(err, ErrKeyNotFound) {
		return nil, fmt.Errorf("%w: the token holds the private key without its public key", ErrKeyNotFound)
	}
	if err != nil {
		return nil, err
	}
	public, err := s.publicKey(object)
	if err != nil {
		return nil, err
	}
	return public, s.sameModulus(private, public)
}

// pair is a key pair as found: both halves, and what the token says of the private one.
type pair struct {
	key        crypto11.Signer // nil: an Ed25519 key, which crypto11 does not know
	public     crypto.PublicKey
	attributes Attributes
}

// pair finds exactly one private key and exactly one public key that belongs to it.
func (s session) pair(ref KeyRef) (pair, error) {
	object, err := s.one(ref)
	if err != nil {
		return pair{}, err
	}
	attributes, err := s.attributes(object)
	if err != nil {
		return pair{}, err
	}
	// The halves are joined by both names, so that nothing but the key that was looked at can be meant.
	exact := attributes.ref()
	if err := s.onePublic(exact); err != nil {
		return pair{}, err
	}
	told, err := s.read(object, pkcs11.CKA_KEY_TYPE)
	if err != nil {
		return pair{}, err
	}
	if keyType(told[pkcs11.CKA_KEY_TYPE]) == "CKK_EC_EDWARDS" {
		public, err := s.publicHalf(object, exact)
		return pair{public: public, attributes: attributes}, err
	}
	var label []byte
	if exact.Label != "" {
		label = []byte(exact.Label)
	}
	if err := s.token.lent.enter(); err != nil {
		return pair{}, err
	}
	defer s.token.lent.leave()
	keys, err := s.token.inner.FindKeyPairs(exact.ID, label)
	if err != nil {
		return pair{}, err
	}
	switch len(keys) {
	case 0:
		return pair{}, fmt.Errorf("%w: the token holds the private key without its public key", ErrKeyNotFound)
	case 1:
		return pair{keys[0], keys[0].Public(), attributes}, s.sameModulus(object, keys[0].Public())
	}
	return pair{}, ErrAmbiguous
}

// sameModulus refuses an RSA public key that stands beside another key's private half. Of an elliptic curve key the private half does not
// tell enough; there the first signature's verification shows it.
func (s session) sameModulus(object pkcs11.ObjectHandle, public crypto.PublicKey) error {
	key, ok := public.(*rsa.PublicKey)
	if !ok {
		return nil
	}
	told, err := s.read(object, pkcs11.CKA_MODULUS)
	if err != nil {
		return err
	}
	if modulus := told[pkcs11.CKA_MODULUS]; len(modulus) > 0 && new(big.Int).SetBytes(modulus).Cmp(key.N) != 0 {
		return fmt.Errorf("%w: the public key beside the private key belongs to another", ErrKeyMismatch)
	}
	return nil
}

// onePublic refuses a private key that more than one public key claims: crypto11 would take the first.
func (s session) onePublic(ref KeyRef) error {
	if len(ref.ID) > 0 {
		ref.Label = "" // crypto11 falls back to the CKA_ID alone
	}
	found, err := s.findClass(pkcs11.CKO_PUBLIC_KEY, ref)
	if err != nil {
		return err
	}
	if len(found) > 1 {
		return fmt.Errorf("%w: %d public keys have %s", ErrAmbiguous, len(found), ref)
	}
	return nil
}
