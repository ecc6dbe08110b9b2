package hsmtest

import (
	"crypto/ecdsa"
	"encoding/asn1"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/chancery-ca/chancery/hsm"
)

// Restore puts a P-256 key pair into an open token as a restored backup is there: it cannot leave, but the token did not make it
// (CKA_LOCAL, CKA_NEVER_EXTRACTABLE and CKA_ALWAYS_SENSITIVE are false).
func Restore(tb testing.TB, token *hsm.Token, label string, id []byte, key *ecdsa.PrivateKey) hsm.KeyRef {
	tb.Helper()
	value, err := key.Bytes()
	if err != nil {
		tb.Fatal(err)
	}
	public, err := key.PublicKey.Bytes()
	if err != nil {
		tb.Fatal(err)
	}
	point, err := asn1.Marshal(public)
	if err != nil {
		tb.Fatal(err)
	}
	both := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_EC), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label), pkcs11.NewAttribute(pkcs11.CKA_ID, id), pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, p256),
	}
	inSession(tb, token, func(ctx *pkcs11.Ctx, session pkcs11.SessionHandle) {
		for _, object := range [][]*pkcs11.Attribute{
			{
				pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), pkcs11.NewAttribute(pkcs11.CKA_VALUE, value),
				pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true), pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
				pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false), pkcs11.NewAttribute(pkcs11.CKA_SIGN, true),
			},
			{
				pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY), pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, point),
				pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true),
			},
		} {
			if _, err := ctx.CreateObject(session, append(object, both...)); err != nil {
				tb.Fatalf("restoring a key: %v", err)
			}
		}
	})
	return hsm.KeyRef{Label: label, ID: id}
}
