package ca

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/policies"
)

// AuthorityState is an authority with what its key and its CRL are at.
type AuthorityState struct {
	AuthorityRecord
	Signing bool       // this replica has its key open
	Current *CRLRecord // its CRL, without DER; nil before the first, and where it suffered in the store
}

// Certificate is one certificate with its state. Issuer may be empty unless several authorities have issued the serial.
func (c *CA) Certificate(ctx context.Context, actor access.Actor, issuer string, serial []byte) (Certificate, error) {
	return c.find(ctx, actor, access.ReadCertificate, issuer, serial)
}

// find looks a certificate up in the actor's namespace. One of another namespace is refused as access.Denied with Hidden set, which a
// front end tells apart from ErrNotFound in nothing.
func (c *CA) find(ctx context.Context, actor access.Actor, action access.Action, issuer string, serial []byte) (Certificate, error) {
	resource := access.Resource{Namespace: actor.Namespace, Kind: "certificate", ID: hex.EncodeToString(serial)}
	if err := c.authorize(ctx, actor, action, resource); err != nil {
		return Certificate{}, err
	}
	found, err := c.store.Certificates(ctx, issuer, serial, actor.Namespace)
	if err != nil {
		return Certificate{}, fmt.Errorf("looking the certificate up: %w", err)
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		archived, err := c.store.ArchiveOf(ctx, serial)
		if err != nil {
			return Certificate{}, fmt.Errorf("looking the certificate up: %w", err)
		}
		if archived != "" {
			return Certificate{}, &ArchivedError{File: archived}
		}
		return Certificate{}, c.notFound(ctx, actor, action, issuer, serial)
	}
	return Certificate{}, ErrAmbiguousSerial
}

// notFound tells a certificate that nobody has from another tenant's, for the audit log alone.
func (c *CA) notFound(ctx context.Context, actor access.Actor, action access.Action, issuer string, serial []byte) error {
	if actor.Namespace == access.AllNamespaces {
		return ErrNotFound
	}
	others, err := c.store.Certificates(ctx, issuer, serial, access.AllNamespaces)
	if err != nil {
		return fmt.Errorf("looking the certificate up: %w", err)
	}
	for _, o := range others {
		err := c.authorize(ctx, actor, action, access.Resource{Namespace: o.Namespace, Kind: "certificate", ID: hex.EncodeToString(serial)})
		if err != nil {
			return err
		}
	}
	return ErrNotFound
}

// List pages through the certificates of the actor's namespace.
func (c *CA) List(ctx context.Context, actor access.Actor, f Filter) (Page, error) {
	if err := c.authorize(ctx, actor, access.ReadCertificate, access.Resource{Namespace: actor.Namespace, Kind: "certificate"}); err != nil {
		return Page{}, err
	}
	f.Namespace, f.Now = actor.Namespace, c.now()
	page, err := c.store.List(ctx, f)
	if err != nil {
		return Page{}, fmt.Errorf("listing certificates: %w", err)
	}
	return page, nil
}

// ChainOf is a certificate with its issuers, DER, the root left out.
func (c *CA) ChainOf(ctx context.Context, certificate Certificate) ([][]byte, error) {
	a, err := c.PublicAuthority(ctx, certificate.Issuer)
	if err != nil {
		return nil, fmt.Errorf("finding the chain of %s: %w", certificate.Issuer, err)
	}
	return (&Authority{AuthorityRecord: a}).outcome(certificate, false).Chain, nil
}

// Profiles are the profiles that the actor may read.
func (c *CA) Profiles(ctx context.Context, actor access.Actor) ([]*policies.Profile, error) {
	var all []*policies.Profile
	if err := c.authorize(ctx, actor, access.ReadProfile, access.Resource{Namespace: access.AllNamespaces, Kind: "profile"}); err != nil {
		return nil, err
	}
	set := c.rules()
	for _, name := range set.Names() {
		p, _ := set.Profile(name)
		all = append(all, p)
	}
	return all, nil
}

// Profile is one profile by name, or ErrNotFound.
func (c *CA) Profile(ctx context.Context, actor access.Actor, name string) (*policies.Profile, error) {
	if err := c.authorize(ctx, actor, access.ReadProfile, access.Resource{Namespace: access.AllNamespaces, Kind: "profile", ID: name}); err != nil {
		return nil, err
	}
	p, ok := c.rules().Profile(name)
	if !ok {
		return nil, fmt.Errorf("profile %q: %w", name, ErrNotFound)
	}
	return p, nil
}

// Authorities are all authorities with their state, by name.
func (c *CA) Authorities(ctx context.Context, actor access.Actor) ([]AuthorityState, error) {
	if err := c.authorize(ctx, actor, access.ReadAuthority, access.Resource{Namespace: access.AllNamespaces, Kind: "authority"}); err != nil {
		return nil, err
	}
	records, err := c.PublicAuthorities(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing authorities: %w", err)
	}
	states := make([]AuthorityState, len(records))
	for i, r := range records {
		states[i] = AuthorityState{AuthorityRecord: r, Signing: c.authorities[r.Name] != nil}
		crl, err := c.CurrentCRL(ctx, r.Name, FullScope)
		switch {
		case err == nil:
			crl.DER = nil
			states[i].Current = &crl
		case !errors.Is(err, ErrNotFound) && !errors.Is(err, errUnservable):
			return nil, fmt.Errorf("reading the CRL state of %s: %w", r.Name, err)
		}
	}
	return states, nil
}
