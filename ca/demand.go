package ca

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/chancery-ca/chancery/access"
)

// fencedPause is how long whoever wants a CRL now waits for a replica that is at it.
const fencedPause = 200 * time.Millisecond

// demandRest is the least time between two CRLs of a scope that are made here because somebody wants one: who wants them in a loop must not
// keep the key from other work.
const demandRest = 10 * time.Second

// PublishNow makes a new complete CRL of a scope of an authority, or of all where none is named, due or not, and tells where its scopes
// stand then. Where it made one within demandRest, and nothing waits for the next, that one will do. It returns *access.Denied, ErrNotFound
// where this replica has no key of such an authority or there is no such scope, or an error that wraps ErrUnavailable.
func (c *CA) PublishNow(ctx context.Context, actor access.Actor, name, scope string) ([]CRLState, error) {
	if err := c.authorize(ctx, actor, access.PublishCRL, access.Resource{Namespace: access.AllNamespaces, Kind: "authority", ID: name}); err != nil {
		return nil, err
	}
	a := c.authorities[name]
	if a == nil {
		return nil, fmt.Errorf("authority %q: %w", name, ErrNotFound)
	}
	states, err := c.store.CRLStates(ctx, a.Name)
	if err != nil {
		return nil, fmt.Errorf("reading the CRL scopes of %s: %w", a.Name, err)
	}
	if scope != "" && !slices.ContainsFunc(states, func(s CRLState) bool { return s.Scope == scope }) {
		return nil, fmt.Errorf("the CRL scope %q of %s: %w", scope, a.Name, ErrNotFound)
	}
	for _, s := range states {
		if scope != "" && s.Scope != scope {
			continue
		}
		again, granted := c.publications.demand(crlID{issuer: a.Name, scope: s.Scope}, c.now())
		if !granted && s.Pending == 0 {
			continue
		}
		if err := c.publishUnfenced(ctx, CRLDue{Issuer: a.Name, Scope: s.Scope, Why: "demand"}); err != nil {
			again()
			return nil, fmt.Errorf("publishing the CRL of %s, scope %s: %w", a.Name, s.Scope, err)
		}
	}
	states, err = c.store.CRLStates(ctx, a.Name)
	if err != nil {
		return nil, fmt.Errorf("reading the CRL scopes of %s: %w", a.Name, err)
	}
	return states, nil
}

// publishUnfenced publishes, if need be after another replica has.
func (c *CA) publishUnfenced(ctx context.Context, due CRLDue) error {
	ctx, cancel := context.WithTimeout(ctx, publishDeadline)
	defer cancel()
	tick := time.NewTicker(fencedPause)
	defer tick.Stop()
	for {
		err := c.publish(ctx, due)
		if !errors.Is(err, ErrFenced) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("another replica is at it: %w", ErrUnavailable)
		case <-tick.C:
		}
	}
}
