package hsm

import (
	"context"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// Destroy destroys a key for ever: a secret key, or both halves of a pair. Exactly one key must match. A key that the token holds to be
// indestructible stays whole. Certificates stay.
//
// A pair goes in two steps, and a token can be lost between them. Called again, Destroy finds the half that is left, whichever it is, and
// ends the work; ErrKeyNotFound then means that nothing is left.
func (t *Token) Destroy(ctx context.Context, ref KeyRef) error {
	o := &Operation{Op: OpDestroy, Key: ref}
	err := t.inSession(ctx, o, func(s session) error {
		k, err := s.oneAmong([]uint{pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_SECRET_KEY}, ref)
		if errors.Is(err, ErrKeyNotFound) {
			return s.destroyRemains(ctx, o, ref, err)
		}
		if err != nil {
			return err
		}
		o.Key = k.ref
		if err := t.permit(ctx, o); err != nil {
			return err
		}
		halves, err := s.publicHalves(k)
		if err != nil {
			return err
		}
		// The private half goes first: if the token refuses, nothing has happened.
		if err := s.ctx.DestroyObject(s.handle, k.handle); err != nil {
			return prohibited(err, "the key was made to be indestructible (CKA_DESTROYABLE is false)")
		}
		for _, half := range halves {
			if err := s.ctx.DestroyObject(s.handle, half); err != nil {
				return fmt.Errorf("the private half is destroyed, and the public half is still there; destroy the key once more: %w", err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("destroying the key with %s in token %q: %w", ref, t.info.Label, err)
	}
	return nil
}

// destroyRemains destroys a public half whose private half is gone. Where there is none either, the error is the one given.
func (s session) destroyRemains(ctx context.Context, o *Operation, ref KeyRef, missing error) error {
	half, there, err := s.lookUp(pkcs11.CKO_PUBLIC_KEY, ref)
	if err != nil {
		return err
	}
	if !there {
		return missing
	}
	if o.Key, err = s.ref(half); err != nil {
		return err
	}
	if len(o.Key.ID) > 0 { // the private half may have another label
		if _, there, err := s.lookUp(pkcs11.CKO_PRIVATE_KEY, KeyRef{ID: o.Key.ID}); err != nil || there {
			return errors.Join(missing, err)
		}
	}
	if err := s.token.permit(ctx, o); err != nil {
		return err
	}
	if err := s.ctx.DestroyObject(s.handle, half); err != nil {
		return prohibited(err, "the public half that is left is indestructible (CKA_DESTROYABLE is false)")
	}
	return nil
}

// publicHalves are the public keys that go with a private one. They belong to it by their CKA_ID, whatever their label has become; where
// several have the CKA_ID, by both.
func (s session) publicHalves(k key) ([]pkcs11.ObjectHandle, error) {
	told, err := s.read(k.handle, pkcs11.CKA_CLASS)
	if err != nil {
		return nil, err
	}
	if class, _ := ulong(told[pkcs11.CKA_CLASS]); class != pkcs11.CKO_PRIVATE_KEY {
		return nil, nil
	}
	if len(k.ref.ID) > 0 {
		found, err := s.findClass(pkcs11.CKO_PUBLIC_KEY, KeyRef{ID: k.ref.ID})
		if err != nil || len(found) == 1 {
			return found, err
		}
	}
	return s.exactly(pkcs11.CKO_PUBLIC_KEY, k.ref)
}

// exactly finds the objects of a class that have both names of ref, the empty ones too: by a label alone a token also finds what has a
// CKA_ID, and with it belongs to another key.
func (s session) exactly(class uint, ref KeyRef) (same []pkcs11.ObjectHandle, err error) {
	found, err := s.findClass(class, ref)
	if err != nil {
		return nil, err
	}
	for _, object := range found {
		names, err := s.ref(object)
		if err != nil {
			return nil, err
		}
		if names.Names(ref) { // as ref names it
			same = append(same, object)
		}
	}
	return same, nil
}

// prohibited says why the token does not do what its objects forbid.
func prohibited(err error, why string) error {
	if is(err, ckrActionProhibited) {
		return fmt.Errorf("%s: %w%s", why, err, codeName(ckrActionProhibited))
	}
	if is(err, pkcs11.CKR_ATTRIBUTE_READ_ONLY, pkcs11.CKR_OBJECT_HANDLE_INVALID) {
		return fmt.Errorf("%s: %w", why, err)
	}
	return err
}

// SetLabel gives a key another label, to both halves of a pair. The label must be free. It fails for keys made without KeySpec.Modifiable.
func (t *Token) SetLabel(ctx context.Context, ref KeyRef, label string) error {
	o := &Operation{Op: OpLabel, Key: ref}
	err := t.inSession(ctx, o, func(s session) error {
		k, err := s.oneAmong([]uint{pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_SECRET_KEY}, ref)
		if err != nil {
			return err
		}
		if label == "" {
			return errors.New("a label is needed")
		}
		o.Key, o.Target = k.ref, KeyRef{Label: label, ID: k.ref.ID}
		if err := t.permit(ctx, o); err != nil {
			return err
		}
		taken, err := s.find(pkcs11.NewAttribute(pkcs11.CKA_LABEL, label))
		if err != nil {
			return err
		}
		if len(taken) > 0 {
			return fmt.Errorf("%w: %s", ErrKeyExists, KeyRef{Label: label})
		}
		objects := []pkcs11.ObjectHandle{k.handle}
		halves, err := s.exactly(pkcs11.CKO_PUBLIC_KEY, k.ref)
		if err != nil {
			return err
		}
		objects = append(objects, halves...)
		for i, object := range objects {
			if err := s.ctx.SetAttributeValue(s.handle, object, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, label)}); err != nil {
				err = prohibited(err, "the key was made unmodifiable (CKA_MODIFIABLE is false); generate keys with --modifiable to rename them later")
				for _, changed := range objects[:i] {
					err = errors.Join(err, s.ctx.SetAttributeValue(s.handle, changed, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, k.ref.Label)}))
				}
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("labelling the key with %s in token %q: %w", ref, t.info.Label, err)
	}
	return nil
}
