package hsmtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/internal/direct"
)

// Key is a key pair such as hsm.Token.Generate would not make. Names may be taken.
type Key struct {
	Label       string
	ID          []byte
	Extractable bool
	Ed25519     bool // instead of ECDSA on P-256
}

// What PKCS#11 3.0 calls them; the binding does not.
const (
	ckmECEdwardsKeyPairGen = 0x1055
	ckkECEdwards           = 0x40
)

// The DER of the OIDs id-ecPublicKey's prime256v1 and id-Ed25519.
var (
	p256    = []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}
	ed25519 = []byte{0x06, 0x03, 0x2b, 0x65, 0x70}
)

// ExtractableKey makes an ECDSA P-256 key in an open token that can be wrapped and taken out of it.
func ExtractableKey(tb testing.TB, token *hsm.Token, label string) hsm.KeyRef {
	tb.Helper()
	return Key{Label: label, ID: []byte(label), Extractable: true}.Generate(tb, token)
}

// Generate makes the key in an open token.
func (k Key) Generate(tb testing.TB, token *hsm.Token) hsm.KeyRef {
	tb.Helper()
	mechanism, parameters := uint(pkcs11.CKM_EC_KEY_PAIR_GEN), p256
	if k.Ed25519 {
		mechanism, parameters = ckmECEdwardsKeyPairGen, ed25519
	}
	names := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, k.Label),
		pkcs11.NewAttribute(pkcs11.CKA_ID, k.ID),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
	}
	public := append(slices.Clone(names),
		pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true),
		pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, parameters))
	private := append(slices.Clone(names),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, true),
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, k.Extractable))
	inSession(tb, token, func(ctx *pkcs11.Ctx, session pkcs11.SessionHandle) {
		_, _, err := ctx.GenerateKeyPair(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}, public, private)
		if err != nil {
			tb.Fatalf("generating a key pair: %v", err)
		}
	})
	return hsm.KeyRef{Label: k.Label, ID: bytes.Clone(k.ID)}
}

// PrivateValue asks an open token for the private half of an elliptic curve key (CKA_VALUE). The error is what the token answers.
func PrivateValue(tb testing.TB, token *hsm.Token, ref hsm.KeyRef) (value []byte, err error) {
	tb.Helper()
	inSession(tb, token, func(ctx *pkcs11.Ctx, session pkcs11.SessionHandle) {
		template := []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY),
			pkcs11.NewAttribute(pkcs11.CKA_LABEL, ref.Label),
		}
		if err := ctx.FindObjectsInit(session, template); err != nil {
			tb.Fatalf("searching for the key: %v", err)
		}
		found, _, findErr := ctx.FindObjects(session, 2)
		if err := ctx.FindObjectsFinal(session); findErr != nil || err != nil || len(found) != 1 {
			tb.Fatalf("searching for the key: %d found, %v, %v", len(found), findErr, err)
		}
		told, readErr := ctx.GetAttributeValue(session, found[0], []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, nil)})
		if err = readErr; err == nil {
			value = told[0].Value
		}
	})
	return value, err
}

// LoseSessions ends every session and the log-in of an open token behind its back, as a restarted network HSM does.
func LoseSessions(tb testing.TB, token *hsm.Token) {
	tb.Helper()
	err := token.Direct(context.Background(), direct.Pass{}, "a test", func(ctx *pkcs11.Ctx, slot uint) error { return ctx.CloseAllSessions(slot) })
	if err != nil {
		tb.Fatalf("closing all sessions: %v", err)
	}
}

// inSession calls it in a session of its own.
func inSession(tb testing.TB, token *hsm.Token, call func(*pkcs11.Ctx, pkcs11.SessionHandle)) {
	tb.Helper()
	err := try(token, func(ctx *pkcs11.Ctx, session pkcs11.SessionHandle) error {
		call(ctx, session)
		return nil
	})
	if err != nil {
		tb.Fatalf("working in a session: %v", err)
	}
}

// try calls the library that an open token keeps initialised and logged in, in a session of its own, and returns what fails.
func try(token *hsm.Token, call func(*pkcs11.Ctx, pkcs11.SessionHandle) error) error {
	return token.Direct(context.Background(), direct.Pass{}, "a test", func(ctx *pkcs11.Ctx, slot uint) error {
		session, err := ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		if err != nil {
			return fmt.Errorf("opening a session: %w", err)
		}
		return errors.Join(call(ctx, session), ctx.CloseSession(session))
	})
}
