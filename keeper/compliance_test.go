package keeper

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
)

// TestCompliance: what the policy requires the keeper enforces, and what a client requires the policy must cover.
func TestCompliance(t *testing.T) {
	a := newAuthority(t, 0)
	declared := hsm.Declaration{FIPSLevel: 2, FIPSCertificate: "1234"}
	for name, c := range map[string]struct {
		require, asked hsm.Requirement
		says           string // empty: it complies
		signs          bool
	}{
		"nothing":             {signs: true},
		"what every key is":   {asked: hsm.Requirement{Local: true, NeverExtractable: true}, signs: true},
		"the declared level":  {require: hsm.Requirement{FIPSLevel: 2}, asked: hsm.Requirement{FIPSLevel: 1, Local: true}, signs: true},
		"not covered":         {asked: hsm.Requirement{Hardware: true}, says: "hardware is required, and the keeper holds the key to never_extractable, local", signs: true},
		"covered by less":     {require: hsm.Requirement{FIPSLevel: 2}, asked: hsm.Requirement{FIPSLevel: 3}, says: "write the rest under `require`", signs: true},
		"no hardware":         {require: hsm.Requirement{Hardware: true}, asked: hsm.Requirement{Hardware: true}, says: "CKF_HW_SLOT"},
		"a level too low":     {require: hsm.Requirement{FIPSLevel: 3}, asked: hsm.Requirement{FIPSLevel: 3}, says: "level 3 is required, and level 2 is declared"},
		"asked for less only": {require: hsm.Requirement{Hardware: true}, asked: hsm.Requirement{Local: true}, says: "CKF_HW_SLOT"},
	} {
		t.Run(name, func(t *testing.T) {
			config, log := a.config(t, a.fixture.Config())
			config.Tokens[0].Declared = declared
			config.Keys[0].Require = c.require
			r := start(t, config, log)
			err := r.client.Complies(t.Context(), a.certificate.PublicKey, c.asked)
			if (err == nil) != (c.says == "") || err != nil && (!errors.Is(err, hsm.ErrNotCompliant) || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("want %q, got %v", c.says, err)
			}
			if err := a.issue(r.signer(t, a.certificate.PublicKey), leaf()); (err == nil) != c.signs || err != nil && !errors.Is(err, hsm.ErrUnavailable) {
				t.Errorf("it signs %v: %v", c.signs, err)
			}
			other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.client.Complies(t.Context(), other.Public(), c.asked); !errors.Is(err, ErrUnknownKey) {
				t.Errorf("a key that is not held: %v", err)
			}
		})
	}
}

// TestComplianceOfHardware: a slot that says that it is hardware complies.
func TestComplianceOfHardware(t *testing.T) {
	a, f := newAuthority(t, 0), hsmtest.NewFaulty(t)
	f.Begin(t, hsmtest.Hardware)
	config, log := a.config(t, f.Config(a.fixture))
	config.Keys[0].Require.Hardware = true
	r := start(t, config, log)
	if err := r.client.Complies(t.Context(), a.certificate.PublicKey, hsm.Requirement{Hardware: true, Local: true}); err != nil {
		t.Error(err)
	}
	if err := a.issue(r.signer(t, a.certificate.PublicKey), leaf()); err != nil {
		t.Error(err)
	}
}

// TestComplianceAfterALoss: a token that was lost and comes back as another is held to the same.
func TestComplianceAfterALoss(t *testing.T) {
	for name, worker := range map[string]bool{"worker": true, "in the keeper": false} {
		t.Run(name, func(t *testing.T) {
			a, f := newAuthority(t, 0), hsmtest.NewFaulty(t)
			f.Begin(t, hsmtest.Hardware)
			config, log := a.config(t, f.Config(a.fixture))
			config.Keys[0].Require.Hardware = true
			if !worker {
				config.Worker = nil
			}
			r := start(t, config, log)
			key := r.signer(t, a.certificate.PublicKey)
			if err := a.issue(key, leaf()); err != nil {
				t.Fatal(err)
			}
			f.Begin(t, hsmtest.CloseAll) // and no longer a slot of hardware
			within(t, patience, "the token is open again", func() error {
				switch err := a.issue(key, leaf()); {
				case err == nil:
					t.Fatal("a slot that is none of hardware signs")
				case !errors.Is(err, hsm.ErrUnavailable):
					t.Fatal(err)
				case !strings.Contains(err.Error(), "CKF_HW_SLOT"):
					return err
				}
				return nil
			})
			for range 20 {
				if err := a.issue(key, leaf()); !errors.Is(err, hsm.ErrUnavailable) || !strings.Contains(err.Error(), "CKF_HW_SLOT") {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestComplianceOfRestoredKeys: a copy was outside its token, whatever else it is held to.
func TestComplianceOfRestoredKeys(t *testing.T) {
	a, first, second := newPool(t)
	config, log := a.config(t, first.Config())
	config.Tokens = append(config.Tokens, TokenConfig{Name: "second", HSM: second.Config(), Declared: hsm.Declaration{FIPSLevel: 1, FIPSCertificate: "1"}})
	config.Keys[0].Tokens, config.Keys[0].Restored = []string{"main", "second"}, true
	r := start(t, config, log)
	if err := r.client.Complies(t.Context(), a.certificate.PublicKey, hsm.Requirement{Local: true}); !errors.Is(err, hsm.ErrNotCompliant) {
		t.Errorf("a restored key counts as local: %v", err)
	}
	impossible := a.policy()
	impossible.Restored, impossible.Require.NeverExtractable = true, true
	if _, err := impossible.ready(); err == nil || !strings.Contains(err.Error(), "restored") {
		t.Errorf("a requirement that cannot be met: %v", err)
	}
	// Of two tokens one complies: the key is used there, and a client that asks is told of the other.
	config.Keys[0].Require.FIPSLevel = 1
	config.Journal += "2"
	r = start(t, config, log)
	if err := r.client.Complies(t.Context(), a.certificate.PublicKey, hsm.Requirement{FIPSLevel: 1}); !errors.Is(err, hsm.ErrNotCompliant) || !strings.Contains(err.Error(), "no level") {
		t.Errorf("a token that does not comply: %v", err)
	}
	if err := a.issue(r.signer(t, a.certificate.PublicKey), leaf()); err != nil {
		t.Errorf("the token that complies does not sign: %v", err)
	}
}
