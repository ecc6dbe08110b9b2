package hsmtest

import (
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/chancery-ca/chancery/hsm"
)

// RawSign calls C_SignInit and C_Sign with nothing around them, to measure what is put around them. Each of the n functions has a session of
// its own; it signs a digest with CKM_ECDSA and the key of an open token.
func RawSign(tb testing.TB, token interface{ Info() hsm.TokenInfo }, ref hsm.KeyRef, n int) []func(digest []byte) error {
	tb.Helper()
	ctx := pkcs11.New(token.Info().Module)
	if ctx == nil {
		tb.Fatalf("loading %s", token.Info().Module)
	}
	tb.Cleanup(ctx.Destroy)
	mechanism := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_ECDSA, nil)}
	var sign []func([]byte) error
	for range n {
		session, err := ctx.OpenSession(token.Info().Slot, pkcs11.CKF_SERIAL_SESSION)
		if err != nil {
			tb.Fatalf("opening a session: %v", err)
		}
		tb.Cleanup(func() { _ = ctx.CloseSession(session) })
		if err := ctx.FindObjectsInit(session, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), pkcs11.NewAttribute(pkcs11.CKA_ID, ref.ID),
		}); err != nil {
			tb.Fatalf("searching for the key: %v", err)
		}
		found, _, err := ctx.FindObjects(session, 2)
		if final := ctx.FindObjectsFinal(session); err != nil || final != nil || len(found) != 1 {
			tb.Fatalf("searching for the key: %d found, %v, %v", len(found), err, final)
		}
		sign = append(sign, func(digest []byte) error {
			if err := ctx.SignInit(session, mechanism, found[0]); err != nil {
				return err
			}
			_, err := ctx.Sign(session, digest)
			return err
		})
	}
	return sign
}
