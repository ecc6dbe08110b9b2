package keeper

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
)

// TestPool: two tokens hold a key. Whatever becomes of one of them, under load not one request fails.
func TestPool(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{hsmtest.Wrong, hsmtest.Crash, hsmtest.Hang, "0x30", "0x68" /* CKR_KEY_FUNCTION_NOT_PERMITTED */} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			a, first, second := newPool(t)
			broken := hsmtest.NewFaulty(t)
			config, log := a.config(t, broken.Config(first))
			config.Tokens = append(config.Tokens, TokenConfig{Name: "second", HSM: second.Config()})
			config.Keys[0].Tokens, config.Keys[0].Restored = []string{"main", "second"}, true
			r := start(t, config, log)
			h := r.keeper.names[0]
			within(t, patience, "both tokens are well", func() error { // on a busy machine, one may be opened at the second try
				for _, p := range h.places {
					if _, err := p.token.state(); err != nil || p.sick.Load() {
						return fmt.Errorf("%s is not: %v", p.token.Name, err)
					}
				}
				return nil
			})
			l := &load{a: a, key: r.signer(t, a.certificate.PublicKey)}
			stop := l.run(t.Context(), 4)
			within(t, patience, "certificates are issued", func() error { return atLeast(&l.signed, 10) })
			broken.Begin(t, fault)
			within(t, patience, "the fault is noticed", func() error {
				if h.places[0].sick.Load() {
					return nil
				}
				return errors.New("the token counts as healthy")
			})
			before := l.signed.Load()
			within(t, recovery, "the other token serves", func() error { return atLeast(&l.signed, before+20) })
			broken.Begin(t, "")
			within(t, 2*recovery, "the token that was mended is used again", func() error {
				if h.places[0].sick.Load() {
					return errors.New("it is still sick")
				}
				return nil
			})
			stop()
			if failed := l.failed.Load(); failed != 0 {
				t.Errorf("%d requests failed although one token was well", failed)
			}
			if wrong := l.wrong.Load(); wrong != nil {
				t.Error(*wrong)
			}
		})
	}
}

// newPool makes an authority whose key was restored into two tokens.
func newPool(t *testing.T) (*authority, *hsmtest.Token, *hsmtest.Token) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{certificate: selfSigned(t, key, 0)}
	var fixtures []*hsmtest.Token
	for range 2 {
		fixture := hsmtest.New(t)
		token, err := hsm.Open(t.Context(), fixture.Config())
		if err != nil {
			t.Fatal(err)
		}
		a.ref = hsmtest.Restore(t, token, "issuing", []byte{1, 2, 3}, key)
		if err := token.Close(); err != nil {
			t.Fatal(err)
		}
		fixtures = append(fixtures, fixture)
	}
	a.fixture = fixtures[0]
	return a, fixtures[0], fixtures[1]
}

// TestWorkersInheritNoPIN, neither of their own token nor of another, be that one opened or not.
func TestWorkersInheritNoPIN(t *testing.T) {
	const variable = "CHANCERY_KEEPER_TEST_PIN_"
	a, first, second := newPool(t)
	config, log := a.config(t, first.Config())
	config.Tokens = append(config.Tokens, TokenConfig{Name: "second", HSM: second.Config()})
	config.Keys[0].Tokens, config.Keys[0].Restored = []string{"main", "second"}, true
	for i := range config.Tokens {
		pin, err := config.Tokens[i].HSM.PIN.Reveal()
		if err != nil {
			t.Fatal(err)
		}
		name := variable + config.Tokens[i].Name
		t.Setenv(name, string(pin))
		config.Tokens[i].HSM.PIN = hsm.PINFromEnv(name)
	}
	config.AwaitsPerson = map[string]error{"second": hsm.ErrWrongPIN}
	inherited, command := "", config.Worker
	config.Worker = func() *exec.Cmd {
		inherited = strings.Join(os.Environ(), "\n")
		return command()
	}
	r := start(t, config, log)
	if err := a.issue(r.signer(t, a.certificate.PublicKey), leaf()); err != nil {
		t.Error(err)
	}
	r.stop()
	if inherited == "" || strings.Contains(inherited, variable) {
		t.Error("a worker inherits a PIN, or none was started")
	}
}

// TestRestoredKeyNeedsAcceptance: that a token did not make its key is for the policy to accept, not for the keeper.
func TestRestoredKeyNeedsAcceptance(t *testing.T) {
	a, first, _ := newPool(t)
	config, log := a.config(t, first.Config())
	key := start(t, config, log).signer(t, a.certificate.PublicKey)
	if err := a.issue(key, leaf()); !errors.Is(err, hsm.ErrUnavailable) {
		t.Errorf("a restored key was used: %v", err)
	}
	var public crypto.PublicKey = a.certificate.PublicKey
	for _, accepted := range []bool{false, true} {
		token, err := hsm.OpenRecovering(t.Context(), first.Config(), config.Log)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := token.Signer(a.ref, public, hsm.Terms{Restored: accepted}); (err == nil) != accepted || err != nil && !errors.Is(err, hsm.ErrKeyNotKept) {
			t.Errorf("accepted %v: %v", accepted, err)
		}
		if err := token.Close(); err != nil {
			t.Fatal(err)
		}
	}
	several := a.policy()
	several.Tokens = []string{"main", "second"}
	if _, err := several.ready(); err == nil {
		t.Error("a key is in two tokens, and nobody accepted that it was restored")
	}
}
