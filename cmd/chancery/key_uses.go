package main

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/storage"
)

// usesOf says who would no longer work without a key of the token: those whose key the configuration or its database names. A responder, the
// log and an approver are told by the public half, which is what pins their keys; a secret key is none of theirs. It asks anew whenever
// it is called: others add authorities meanwhile.
func (w *worksite) usesOf(ctx context.Context, key hsm.KeyRef) (uses []string, err error) {
	authorities, err := w.store.Authorities(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range usedBy(authorities, w.Info().Serial, key) {
		uses = append(uses, "authority "+name)
	}
	public, err := w.PublicKey(key)
	if errors.Is(err, hsm.ErrKeyNotFound) {
		if len(uses) > 0 {
			return uses, nil
		}
		return nil, w.unpaired(ctx, key)
	}
	if err != nil {
		return nil, err
	}
	configured, err := w.cfg.usesOf(public)
	if err != nil {
		return nil, err
	}
	uses = append(uses, configured...)
	recorded, err := recordedUsesOf(ctx, w.store, public)
	if err != nil {
		return nil, err
	}
	uses = append(uses, recorded...)
	slices.Sort(uses)
	return slices.Compact(uses), nil
}

// unpaired refuses a private key whose public half is not in the token: nobody can tell then whose it is. A secret key has none, and what is
// left of a pair without its private half is of no use to anybody.
func (w *worksite) unpaired(ctx context.Context, key hsm.KeyRef) error {
	objects, err := w.Objects(ctx, key)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(objects, func(o hsm.Object) bool { return o.Class == "CKO_PRIVATE_KEY" }) {
		return errors.New("its public half is not in the token, and by that half alone it can be told whether an OCSP responder, the audit log " +
			"or an approver uses it: store the public half again; or, if you know that none does, name the token by --module and --token-label or " +
			"--token-serial without --config, and give --yes")
	}
	return nil
}

const useOfLog = "audit log (audit.key)"

// usesOf are those of a key that the configuration names.
func (c Config) usesOf(public crypto.PublicKey) (uses []string, err error) {
	for _, o := range c.OCSP {
		if o.PublicKey == "" {
			continue
		}
		pinned, err := o.publicKey()
		if err != nil {
			return nil, err
		}
		if sameKey(pinned, public) {
			uses = append(uses, fmt.Sprintf("OCSP responder of %s (ocsp)", o.Authority))
		}
	}
	if c.Audit.Key.PublicKey != "" {
		pinned, err := readPublicKey(c.Audit.Key.PublicKey)
		if err != nil {
			return nil, fmt.Errorf("reading the public key of the log: %w", err)
		}
		if sameKey(pinned, public) {
			uses = append(uses, useOfLog)
		}
	}
	return uses, nil
}

// recordedUsesOf are those of a key that the database names beside its authorities: the log's last key, and those of approvers.
func recordedUsesOf(ctx context.Context, store *storage.Store, public crypto.PublicKey) (uses []string, err error) {
	logKeys, err := store.LogKeys(ctx) // the last first
	if err != nil {
		return nil, err
	}
	if len(logKeys) > 0 {
		last, err := audit.ParseVerifier(logKeys[0])
		if err != nil {
			return nil, fmt.Errorf("reading the log's key in the database: %w", err)
		}
		if sameKey(last.Public(), public) {
			uses = append(uses, useOfLog)
		}
	}
	approvers, err := store.ApproverKeys(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, k := range approvers {
		if k.EndedAt.IsZero() && k.Key.Is(public) {
			uses = append(uses, "approver "+k.Person)
		}
	}
	return uses, nil
}

func sameKey(a, b crypto.PublicKey) bool {
	comparable, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && comparable.Equal(b)
}

// usedBy names the authorities whose key is the one given.
func usedBy(records []ca.AuthorityRecord, token string, key hsm.KeyRef) (names []string) {
	for _, r := range records {
		same := bytes.Equal(r.Key.ID, key.ID)
		if len(r.Key.ID) == 0 {
			same = r.Key.Label == key.Label
		}
		if same && (r.Key.Token == "" || r.Key.Token == token) {
			names = append(names, r.Name)
		}
	}
	slices.Sort(names)
	return names
}
