package hsm_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
)

func initConfig(module, label string) hsm.InitConfig {
	return hsm.InitConfig{
		Module: module, Label: label,
		SOPIN: hsm.PINFromBytes([]byte(hsmtest.SOPIN)), UserPIN: hsm.PINFromBytes([]byte(hsmtest.UserPIN)),
	}
}

func openSerial(t *testing.T, module, serial string) *hsm.Token {
	t.Helper()
	token, err := hsm.Open(t.Context(), hsm.Config{
		Module: module, Token: hsm.Selector{Serial: serial}, PIN: hsm.PINFromBytes([]byte(hsmtest.UserPIN)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// Each initialisation changes slot numbers; each token must be found as the one that was made. Not parallel: here no token is open, so
// that the library is finalised each time.
func TestInitTokenSeveral(t *testing.T) {
	module := hsmtest.New(t).Module
	serials := map[string]string{}
	for i := range 5 {
		label := fmt.Sprintf("several-%d", i)
		info, err := hsm.InitToken(t.Context(), initConfig(module, label))
		if err != nil {
			t.Fatal(err)
		}
		if info.Label != label || info.Serial == "" {
			t.Fatalf("made %+v", info)
		}
		serials[label] = info.Serial
	}
	for label, serial := range serials {
		token := openSerial(t, module, serial)
		if token.Info().Label != label {
			t.Errorf("serial %s is %q, not %q", serial, token.Info().Label, label)
		}
		ref, public := generate(t, token, hsm.ECDSAP256, label)
		if err := token.Close(); err != nil {
			t.Fatal(err)
		}
		token = openSerial(t, module, serial)
		signAndVerify(t, token, ref, public)
		if err := token.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Tokens that are open go on working while another is made.
func TestInitTokenBesideOpenTokens(t *testing.T) {
	t.Parallel()
	fixture := hsmtest.New(t)
	token := fixture.Open(t)
	ref, public := generate(t, token, hsm.ECDSAP256, "ca")
	info, err := hsm.InitToken(t.Context(), initConfig(fixture.Module, "beside-"+fixture.Label))
	if err != nil {
		t.Fatal(err)
	}
	signAndVerify(t, token, ref, public)
	other := openSerial(t, fixture.Module, info.Serial)
	defer other.Close()
	if keys, err := other.Keys(); err != nil || len(keys) != 0 {
		t.Errorf("the new token holds %v, %v", keys, err)
	}
}

func TestInitTokenRefuses(t *testing.T) {
	t.Parallel()
	fixture := hsmtest.New(t)
	token := fixture.Open(t)
	inUse, absent := token.Info().Slot, uint(1<<40)
	pin := func(p string) hsm.PIN { return hsm.PINFromBytes([]byte(p)) }
	tests := []struct {
		name   string
		change func(*hsm.InitConfig)
		want   error
		says   string
	}{
		{"label taken", func(c *hsm.InitConfig) { c.Label = fixture.Label }, hsm.ErrTokenExists, fixture.Serial},
		{"slot with an initialised token", func(c *hsm.InitConfig) { c.Slot = &inUse }, hsm.ErrTokenExists, fixture.Label},
		{"slot that is not there", func(c *hsm.InitConfig) { c.Slot = &absent }, hsm.ErrNoToken, ""},
		{"no label", func(c *hsm.InitConfig) { c.Label = "" }, nil, "label"},
		{"long label", func(c *hsm.InitConfig) { c.Label = strings.Repeat("l", 33) }, nil, "32 octets"},
		{"label that ends with a space", func(c *hsm.InitConfig) { c.Label = "root " }, nil, "space"},
		{"label that is no text", func(c *hsm.InitConfig) { c.Label = "\xff" }, nil, "UTF-8"},
		{"short user PIN", func(c *hsm.InitConfig) { c.UserPIN = pin("123") }, nil, "user's PIN has fewer than 4"},
		{"short officer's PIN", func(c *hsm.InitConfig) { c.SOPIN = pin("123") }, nil, "officer's PIN has fewer than 4"},
		{"long user PIN", func(c *hsm.InitConfig) { c.UserPIN = pin(strings.Repeat("7", 300)) }, nil, "255 octets"},
		{"no user PIN", func(c *hsm.InitConfig) { c.UserPIN = hsm.PIN{} }, nil, "no PIN is configured"},
		{"no module", func(c *hsm.InitConfig) { c.Module = "/nonexistent/lib.so" }, nil, "apt-get install softhsm2"},
	}
	for _, tt := range tests {
		label := "refused-" + fixture.Label
		c := initConfig(fixture.Module, label)
		tt.change(&c)
		_, err := hsm.InitToken(t.Context(), c)
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		for _, secret := range []string{hsmtest.UserPIN, hsmtest.SOPIN, "7777"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: %q tells a PIN", tt.name, err)
			}
		}
		// Nothing was touched.
		look := fixture.Config()
		look.Token = hsm.Selector{Label: label}
		if _, err := hsm.Open(t.Context(), look); !errors.Is(err, hsm.ErrNoToken) {
			t.Errorf("%s: a token was made: %v", tt.name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := hsm.InitToken(ctx, initConfig(fixture.Module, "cancelled")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := token.Keys(); err != nil {
		t.Errorf("the open token suffered: %v", err)
	}
}

// Two tokens with one label can be made by other tools. Not parallel: what another process makes is seen when the library is next
// initialised, and that must not wait for other tests' tokens.
func TestOpenAmbiguousLabel(t *testing.T) {
	fixture := hsmtest.New(t)
	out, err := exec.CommandContext(t.Context(), "softhsm2-util", "--init-token", "--free", "--label", fixture.Label,
		"--so-pin", hsmtest.SOPIN, "--pin", hsmtest.UserPIN).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c := fixture.Config()
	c.Token = hsm.Selector{Label: fixture.Label}
	if _, err := hsm.Open(t.Context(), c); !errors.Is(err, hsm.ErrAmbiguous) || !strings.Contains(err.Error(), fixture.Serial) {
		t.Errorf("error is %v", err)
	}
	fixture.Open(t) // by its serial
}
