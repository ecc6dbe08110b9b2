package hsmtest

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/chancery-ca/chancery/hsm"
)

// The environment variables that lead the tests to a token that was prepared for them; scripts/with-module sets them. Everything in that
// token is destroyed.
const (
	ModuleEnv  = "CHANCERY_TEST_MODULE"   // path of the library
	TokenEnv   = "CHANCERY_TEST_TOKEN"    // the token's label
	PINFileEnv = "CHANCERY_TEST_PIN_FILE" // file with the user PIN
	ProfileEnv = "CHANCERY_TEST_PROFILE"  // name of the vendor profile that must fit
)

// prepared guards the token that was prepared: it is one, so it serves one test after the other.
var prepared sync.Mutex

// Subject is the token that the tests of the package hsm are about: one of its own for each call in SoftHSM, or, where the environment
// names one, the prepared token, emptied. That one is held until the test ends, so a test asks for it once.
func Subject(tb testing.TB) *Token {
	tb.Helper()
	module := os.Getenv(ModuleEnv)
	if module == "" {
		return New(tb)
	}
	prepared.Lock()
	tb.Cleanup(prepared.Unlock)
	token := &Token{Module: module, Label: os.Getenv(TokenEnv), PINFile: os.Getenv(PINFileEnv)}
	for name, value := range map[string]string{TokenEnv: token.Label, PINFileEnv: token.PINFile, ProfileEnv: os.Getenv(ProfileEnv)} {
		if value == "" {
			tb.Fatalf("%s is set and %s is not", ModuleEnv, name)
		}
	}
	token.empty(tb)
	return token
}

// Profile is the vendor profile that the token has to have: SoftHSM's, or what the environment says.
func (t *Token) Profile() string {
	if t.Serial != "" {
		return "SoftHSM"
	}
	return os.Getenv(ProfileEnv)
}

// Tells tells whether the token's vendor profile has a capability. It opens the token for a moment.
func (t *Token) Tells(tb testing.TB, c hsm.Capability) bool {
	tb.Helper()
	token, err := hsm.Open(tb.Context(), t.Config())
	if err != nil {
		tb.Fatalf("opening the token: %v", err)
	}
	if err := token.Close(); err != nil {
		tb.Fatalf("closing the token: %v", err)
	}
	return token.Info().Profile().Has(c)
}

// Neighbour makes a SoftHSM token that can be open at the same time as the token of Subject: in the same library, where that is SoftHSM.
func (t *Token) Neighbour(tb testing.TB) *Token {
	tb.Helper()
	if t.Serial != "" || t.Profile() != "SoftHSM" {
		return New(tb)
	}
	// The library of this process has the directory that it was started with.
	label := "beside-" + suffix()
	info, err := hsm.InitToken(tb.Context(), hsm.InitConfig{
		Module: t.Module, Label: label, SOPIN: hsm.PINFromBytes([]byte(SOPIN)), UserPIN: hsm.PINFromBytes([]byte(UserPIN)),
	})
	if err != nil {
		tb.Fatalf("a token beside the prepared one: %v", err)
	}
	return &Token{Module: t.Module, Label: label, Serial: info.Serial, PINFile: t.PINFile}
}

// empty destroys every object, through a log-in of its own.
func (t *Token) empty(tb testing.TB) {
	tb.Helper()
	c := t.Config()
	c.RetryAfterFailedPIN = true // a test of wrong PINs may have been the last
	token, err := hsm.Open(context.Background(), c)
	if err != nil {
		tb.Fatalf("opening the prepared token: %v", err)
	}
	t.notLocal = !token.Info().Profile().Has(hsm.TellsLocal)
	inSession(tb, token, func(ctx *pkcs11.Ctx, session pkcs11.SessionHandle) {
		for {
			if err := ctx.FindObjectsInit(session, nil); err != nil {
				tb.Fatalf("listing the objects of the prepared token: %v", err)
			}
			found, _, err := ctx.FindObjects(session, 100)
			if err := errors.Join(err, ctx.FindObjectsFinal(session)); err != nil {
				tb.Fatalf("listing the objects of the prepared token: %v", err)
			}
			destroyed := 0
			for _, object := range found {
				// Some show objects that are the module's own; those stay, and so do those that went with another.
				if ctx.DestroyObject(session, object) == nil {
					destroyed++
				}
			}
			if destroyed == 0 {
				return
			}
		}
	})
	if err := token.Close(); err != nil {
		tb.Fatalf("closing the prepared token: %v", err)
	}
}
