package hsm

import (
	"context"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// Destroy destroys a key for ever: a secret key, or both halves of a pair. Exactly one key must match. A key that the token holds to be
// indestructible stays whole. Certificates stay.
func (t *Token) Destroy(ctx context.Context, ref KeyRef) error {
	o := &Operation{Op: OpDestroy, Key: ref}
	err := t.inSession(ctx, o, func(s session) error {
		k, err := s.oneAmong([]uint{pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_SECRET_KEY}, ref)
		if err != nil {
			return err
		}
		o.Key = k.ref
		if err := t.permit(ctx, o); err != nil {
			return err
		}
		// The private half goes first: if the token refuses, nothing has happened.
		if err := s.ctx.DestroyObject(s.handle, k.handle); err != nil {
			return prohibited(err, "the key was made to be indestructible (CKA_DESTROYABLE is false)")
		}
		return s.destroy(k.ref)
	})
	if err != nil {
		return fmt.Errorf("destroying the key with %s in token %q: %w", ref, t.info.Label, err)
	}
	return nil
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
		o.Key = k.ref
		if label == "" {
			return errors.New("a label is needed")
		}
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
		halves, err := s.findClass(pkcs11.CKO_PUBLIC_KEY, k.ref)
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
