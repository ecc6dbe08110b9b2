package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/storage"
)

// keyUses are those of a key.
type keyUses struct {
	present []string // who would no longer work without it
	past    []string // authorities that need it no more, each with why
}

// usesOf says who would no longer work without a key of the token: those whose key the configuration or its database names. A responder, the
// log and an approver are told by the public half, which is what pins their keys; a secret key is none of theirs. It asks anew whenever
// it is called: others add authorities meanwhile. What has ended by now is told by the database's clock, not by that of whoever asks.
func (w *worksite) usesOf(ctx context.Context, key hsm.KeyRef) (uses keyUses, err error) {
	authorities, err := w.store.Authorities(ctx)
	if err != nil {
		return keyUses{}, err
	}
	now, err := w.store.ServerTime(ctx)
	if err != nil {
		return keyUses{}, err
	}
	for _, authority := range usedBy(authorities, w.Info().Serial, key) {
		if slices.Contains(w.cfg.Authorities, authority.Name) { // the service does not start without what it names
			uses.present = append(uses.present, "authority "+authority.Name)
			continue
		}
		switch over, why, err := w.over(ctx, authority, authorities, now); {
		case err != nil:
			return keyUses{}, fmt.Errorf("looking whether the authority %s still needs its key: %w", authority.Name, err)
		case over:
			uses.past = append(uses.past, authority.Name+", "+why)
		case why != "":
			uses.present = append(uses.present, "authority "+authority.Name+", "+why)
		default:
			uses.present = append(uses.present, "authority "+authority.Name)
		}
	}
	public, err := w.PublicKey(key)
	if errors.Is(err, hsm.ErrKeyNotFound) {
		if len(uses.present) > 0 {
			return uses, nil
		}
		return uses, w.unpaired(ctx, key)
	}
	if err != nil {
		return keyUses{}, err
	}
	configured, err := w.cfg.usesOf(public)
	if err != nil {
		return keyUses{}, err
	}
	recorded, err := recordedUsesOf(ctx, w.store, public)
	if err != nil {
		return keyUses{}, err
	}
	uses.present = slices.Concat(uses.present, configured, recorded)
	slices.Sort(uses.present)
	uses.present = slices.Compact(uses.present)
	return uses, nil
}

// over tells whether an authority has nothing left to sign, and why: it is revoked, its certificate has ended, or those of all that it
// certified have, authorities and revoked ones among them: until then its CRLs say which of them are revoked. An offline authority's CRLs do
// not show in the database before they are made: it is over when it has ended.
func (w *worksite) over(ctx context.Context, authority ca.AuthorityRecord, all []ca.AuthorityRecord, now time.Time) (over bool, why string, err error) {
	certificate, err := x509.ParseCertificate(authority.Certificate)
	if err != nil {
		return false, "", fmt.Errorf("reading its certificate: %w", err)
	}
	if now.After(certificate.NotAfter) {
		return true, "which ended on " + certificate.NotAfter.UTC().Format(time.DateOnly), nil
	}
	if authority.Parent == "" {
		return false, "", nil
	}
	switch r, err := w.store.RevocationOnRecord(ctx, authority.Parent, certificate.SerialNumber.Bytes()); {
	case err == nil:
		return true, "which is revoked since " + r.At.UTC().Format(time.RFC3339), nil
	case !errors.Is(err, ca.ErrNotFound):
		return false, "", err
	}
	if !authority.Online {
		return false, "", nil
	}
	for _, status := range []string{"valid", "on-hold"} {
		if some, err := w.hasIssued(ctx, authority.Name, status, now); some || err != nil {
			return false, "", err
		}
	}
	if some, err := w.hasIssued(ctx, authority.Name, "", now); !some || err != nil { // it may not have begun
		return false, "", err
	}
	for _, child := range all {
		if child.Parent != authority.Name {
			continue
		}
		certified, err := x509.ParseCertificate(child.Certificate)
		if err != nil {
			return false, "", fmt.Errorf("reading the certificate of %s: %w", child.Name, err)
		}
		if !now.After(certified.NotAfter) {
			return false, "which certified the authority " + child.Name, nil
		}
	}
	switch until, err := w.lists(ctx, authority.Name, now); {
	case err != nil:
		return false, "", err
	case !until.IsZero():
		return false, "whose CRLs show a revoked certificate until " + until.UTC().Format(time.RFC3339), nil
	}
	return true, "of which no certificate is valid any more", nil
}

// lists is when a revoked certificate of an authority ends that has not ended yet; zero: there is none. Every CRL until then shows it.
func (w *worksite) lists(ctx context.Context, authority string, now time.Time) (until time.Time, err error) {
	scopes, err := w.store.CRLStates(ctx, authority)
	if err != nil {
		return time.Time{}, err
	}
	enough := errors.New("one will do")
	for _, scope := range scopes {
		_, err := w.store.ListedRevocations(ctx, authority, scope.Scope, func(e issuance.RevokedEntry) error {
			if e.NotAfter.Before(now) { // a CRL after its end may be still to come
				return nil
			}
			until = e.NotAfter
			return enough
		})
		if err != nil && !errors.Is(err, enough) {
			return time.Time{}, fmt.Errorf("reading what it has revoked: %w", err)
		}
		if !until.IsZero() {
			break
		}
	}
	return until, nil
}

// hasIssued tells whether there are certificates of an authority with a status.
func (w *worksite) hasIssued(ctx context.Context, authority, status string, now time.Time) (bool, error) {
	f := ca.Filter{Namespace: access.AllNamespaces, Issuer: authority, Status: status, Limit: 1, Now: now}
	for {
		page, err := w.store.List(ctx, f)
		if err != nil || len(page.Certificates) > 0 || page.Next == "" {
			return len(page.Certificates) > 0, err
		}
		f.Cursor = page.Next
	}
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

// usedBy are the authorities whose key is the one given.
func usedBy(records []ca.AuthorityRecord, token string, key hsm.KeyRef) (users []ca.AuthorityRecord) {
	for _, r := range records {
		same := bytes.Equal(r.Key.ID, key.ID)
		if len(r.Key.ID) == 0 {
			same = r.Key.Label == key.Label
		}
		if same && (r.Key.Token == "" || r.Key.Token == token) {
			users = append(users, r)
		}
	}
	return users
}
