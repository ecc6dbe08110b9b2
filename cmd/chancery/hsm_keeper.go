package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/keeper"
)

// keeping is what a keeper's own configuration says of one of its tokens and of the keys in it. The service cannot read it; who works in
// the token, as the keeper's user or as root, can.
type keeping struct {
	token KeeperTokenConfig
	file  string // with the policy of the keys
	keys  []KeyConfig
}

// keeping reads the configuration that --keeper-config names.
func (f *tokenFlags) keeping() (*keeping, error) {
	c, _, err := readKeeperConfig(f.keeperConfig)
	if err != nil {
		return nil, err
	}
	var found []KeeperTokenConfig
	var names []string
	for _, t := range c.Tokens {
		if names = append(names, t.Name); f.name == "" || f.name == t.Name {
			found = append(found, t)
		}
	}
	if len(found) != 1 {
		return nil, misuse{fmt.Errorf("which token? give --token with one of those that the keeper has: %v", names)}
	}
	keys, _, err := readKeyFile(c.Keys)
	if err != nil {
		return nil, err
	}
	return &keeping{found[0], c.Keys, keys.Keys}, nil
}

// config is the token as commands open it. The PIN is given by who works in it: the keeper's may be a credential that only its service has.
func (k *keeping) config(f *tokenFlags) HSMConfig {
	return HSMConfig{
		Module: k.token.Module, Token: k.token.Token, FIPS140: k.token.FIPS140, PIN: f.pin(),
		RetryAfterFailedPIN: k.token.RetryAfterFailedPIN || f.retry,
	}
}

// requires is what the keeper will hold a key to that is about to be made in this token. named tells whether the policy of the keys names
// it, by its label or by its id. With a key that is not named the keeper signs nothing.
func (k *keeping) requires(spec hsm.KeySpec) (required hsm.Requirement, named bool) {
	for _, key := range k.keys {
		byID := len(spec.ID) > 0 && strings.EqualFold(key.ID, hex.EncodeToString(spec.ID))
		if !slices.Contains(key.Tokens, k.token.Name) || key.Label != spec.Label && !byID {
			continue
		}
		named = true
		required = required.And(keeper.KeyPolicy{Require: key.Require.requirement(), Restored: key.Restored}.Required())
	}
	return required, named
}

// demanded is what a key that is about to be made is held to: by the service's configuration, and by that of the keeper which has the
// token. What cannot be known is said on standard error, before the key is made.
func (a *app) demanded(w *worksite, spec hsm.KeySpec) (hsm.Requirement, error) {
	if w.cfg == nil {
		return hsm.Requirement{}, nil
	}
	required := w.cfg.required("", spec.Label)
	switch {
	case w.cfg.HSM.Isolation != isolationKeeper:
		return required, nil
	case w.keeping == nil && required.FIPSLevel > 0:
		return required, fmt.Errorf("the key %q: %w: the configuration wants fips_140_level %d, and what the token has is declared in the "+
			"keeper's configuration: give that as well, with --keeper-config", spec.Label, hsm.ErrNotCompliant, required.FIPSLevel)
	case w.keeping == nil:
		fmt.Fprintf(a.Stderr, "A keeper will use the key %q, and what it requires was not checked: `require` of the key in its keys.yaml, and "+
			"whether the fips_140 of the token in its keeper.yaml meets that. It signs nothing with a key that falls short. Give its configuration "+
			"with --keeper-config to have it checked, or hold what `chancery hsm attest` tells of the key against `require`.\n", spec.Label)
		return required, nil
	}
	ofKeeper, named := w.keeping.requires(spec)
	if !named {
		fmt.Fprintf(a.Stderr, "%s does not name the key %q: until it does, the keeper signs nothing with it. What it will require is checked "+
			"then, and local and never_extractable always, unless the key is said to be restored.\n", w.keeping.file, spec.Label)
	}
	return required.And(ofKeeper), nil
}

// checkSpec refuses a key that would not be what is required, before it is made. Local it is in any case.
func checkSpec(w *worksite, required hsm.Requirement, spec hsm.KeySpec) error {
	err := required.CheckToken(w.Info(), w.where.FIPS140.declaration())
	if required.NeverExtractable && spec.Extractable {
		err = errors.Join(err, fmt.Errorf("the key %q: %w: the configuration wants it never extractable", spec.Label, hsm.ErrNotCompliant))
	}
	return err
}
