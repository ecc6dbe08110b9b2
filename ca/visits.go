package ca

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
)

const (
	// visitLasts is for how long an actor that was seen needs no new event. An event for each request would cost issuance a row, and an
	// auditor the view.
	visitLasts = time.Hour
	useEvery   = time.Minute // how often the last use of tokens is written down

	maxVisits = 100_000 // actors remembered; with more, all are forgotten, which costs an event each and nothing else
)

// visits remembers who has called.
type visits struct {
	mu   sync.Mutex
	seen map[string]time.Time // by actor: when its event was recorded
	uses map[string]TokenUse  // since they were last written down
}

func newVisits() *visits { return &visits{seen: map[string]time.Time{}, uses: map[string]TokenUse{}} }

// isNew tells whether an actor's visit needs an event.
func (v *visits) isNew(actor string, now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	last, known := v.seen[actor]
	return !known || now.Sub(last) >= visitLasts || now.Before(last)
}

func (v *visits) recorded(actor string, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.seen) >= maxVisits {
		clear(v.seen)
	}
	v.seen[actor] = now
}

// Visit takes note of an authenticated actor that calls from an address. The first call in an hour is an event, and so is every one of an
// actor that has broken the glass. When the event cannot be recorded nothing is done for the caller: an error wrapping ErrUnavailable. The
// address stays out of the audit log, which cannot forget.
func (c *CA) Visit(ctx context.Context, actor access.Actor, from netip.Addr) error {
	now, means := c.now(), meansOf(actor)
	if means == meansToken {
		c.visits.mu.Lock()
		c.visits.uses[actor.ID] = TokenUse{ID: actor.ID, At: now, From: from}
		c.visits.mu.Unlock()
	}
	kind, data := audit.IdentityUsed, map[string]string{"means": means, "person": actor.Person, "roles": joinRoles(actor.Roles)}
	switch {
	case actor.Emergency != "":
		kind, data["comment"] = audit.GlassBroken, actor.Emergency
		c.log.WarnContext(ctx, "the glass is broken: a local administrator acts by a rule for emergencies", "actor", actor.ID, "name", actor.Name,
			"reason", actor.Emergency, "roles", joinRoles(actor.Roles))
	case !c.visits.isNew(actor.ID, now):
		return nil
	}
	leaf, err := c.leaf(kind, actor.ID, actor.Namespace, now, data)
	if err != nil {
		return err
	}
	if err := c.store.RecordEvents(ctx, leaf); err != nil {
		return fmt.Errorf("recording who calls: %w", err)
	}
	if kind == audit.IdentityUsed {
		c.visits.recorded(actor.ID, now)
	}
	return nil
}

const meansToken = "token"

// meansOf is the means by which an actor showed who it is: it begins the IDs of all but API tokens (access.Rules).
func meansOf(a access.Actor) string {
	if means, _, found := strings.Cut(a.ID, ":"); found {
		return means
	}
	return meansToken
}

// Strayed records that a credential was used from a network that it may not be used from, once in an hour. It is not good there.
func (c *CA) Strayed(ctx context.Context, actor access.Actor, from netip.Prefix) error {
	now, visit := c.now(), actor.ID+" from "+coarse(from)
	if !c.visits.isNew(visit, now) {
		return nil
	}
	leaf, err := c.leaf(audit.AccessDenied, actor.ID, actor.Namespace, now, map[string]string{
		"action": "authenticate", "kind": "network", "id": coarse(from), "namespace": actor.Namespace,
	})
	if err != nil {
		return err
	}
	c.log.WarnContext(ctx, "a credential was used from a network that it may not be used from: it may be stolen", "actor", actor.ID, "from",
		from)
	if err := c.store.RecordEvents(ctx, leaf); err != nil {
		return fmt.Errorf("recording a credential that strayed: %w", err)
	}
	c.visits.recorded(visit, now)
	return nil
}

// coarse is as much of where a caller is as the audit log may keep, which cannot forget: the network, and not who in it. The log on
// standard error holds the rest.
func coarse(from netip.Prefix) string {
	bits := 24
	if from.Addr().Is6() {
		bits = 48
	}
	network, err := from.Addr().Prefix(bits)
	if err != nil {
		return "unknown"
	}
	return network.String()
}

// Guessing records that credentials which are not good come from one network again and again.
func (c *CA) Guessing(ctx context.Context, from netip.Prefix, failures int) error {
	leaf, err := c.leaf(audit.GuessingSeen, "unknown", "", c.now(), map[string]string{"from": coarse(from), "failures": fmt.Sprint(failures)})
	if err != nil {
		return err
	}
	c.log.WarnContext(ctx, "credentials that are not good come from one network again and again", "from", from, "failures", failures)
	return c.store.RecordEvents(ctx, leaf)
}

// recordUses writes down when tokens were last used. It is done beside the requests, so that none waits for it.
func (c *CA) recordUses(ctx context.Context) error {
	c.visits.mu.Lock()
	uses := c.visits.uses
	c.visits.uses = map[string]TokenUse{}
	c.visits.mu.Unlock()
	if len(uses) == 0 {
		return nil
	}
	all := make([]TokenUse, 0, len(uses))
	for _, id := range slices.Sorted(maps.Keys(uses)) { // in one order on all replicas: so they do not lock each other out
		all = append(all, uses[id])
	}
	if err := c.store.RecordTokenUses(ctx, all); err != nil {
		c.visits.mu.Lock()
		defer c.visits.mu.Unlock()
		for _, u := range all {
			if _, newer := c.visits.uses[u.ID]; !newer && len(c.visits.uses) < maxVisits {
				c.visits.uses[u.ID] = u
			}
		}
		return err
	}
	return nil
}
