package hsmtest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"

	"github.com/chancery-ca/chancery/hsm"
)

// TryFalse generates an ECDSA P-256 key whose private half has a boolean attribute set to false, and returns an error unless the token
// takes it and tells it so. With CKA_DESTROYABLE the key stays in the token.
func TryFalse(token *hsm.Token, attribute uint) error {
	return try(token, func(ctx *pkcs11.Ctx, session pkcs11.SessionHandle) error {
		name := fmt.Sprintf("attribute %#x", attribute)
		private, err := generateP256(ctx, session, name, pkcs11.NewAttribute(attribute, false))
		if err != nil {
			return err
		}
		told, err := ctx.GetAttributeValue(session, private, []*pkcs11.Attribute{pkcs11.NewAttribute(attribute, nil)})
		if err != nil {
			return fmt.Errorf("reading it back: %w", err)
		}
		if !bytes.Equal(told[0].Value, []byte{0}) {
			return fmt.Errorf("it was taken and is told as %x", told[0].Value)
		}
		return nil
	})
}

// Twins generates two ECDSA P-256 keys of one CKA_ID and returns how many private keys have it then.
func Twins(token *hsm.Token, id string) (n int, err error) {
	err = try(token, func(ctx *pkcs11.Ctx, session pkcs11.SessionHandle) error {
		for range 2 {
			if _, err := generateP256(ctx, session, id); err != nil {
				return err
			}
		}
		err := ctx.FindObjectsInit(session, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), pkcs11.NewAttribute(pkcs11.CKA_ID, []byte(id)),
		})
		if err != nil {
			return err
		}
		found, _, err := ctx.FindObjects(session, 10)
		n = len(found)
		return errors.Join(err, ctx.FindObjectsFinal(session))
	})
	return n, err
}

// generateP256 makes a key whose label is its CKA_ID, too, and returns the private half.
func generateP256(ctx *pkcs11.Ctx, session pkcs11.SessionHandle, name string, more ...*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	names := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, name), pkcs11.NewAttribute(pkcs11.CKA_ID, []byte(name)), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
	}
	public := append(slices.Clone(names), pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true), pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, p256))
	private := append(slices.Clone(names), pkcs11.NewAttribute(pkcs11.CKA_SIGN, true), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true))
	mechanism := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_EC_KEY_PAIR_GEN, nil)}
	_, made, err := ctx.GenerateKeyPair(session, mechanism, public, append(private, more...))
	return made, err
}
