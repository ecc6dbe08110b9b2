package ca

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
)

// Spans of API tokens.
const (
	DefaultTokenLife = 90 * 24 * time.Hour  // where nobody says
	MaxTokenLife     = 366 * 24 * time.Hour // the longest that can be asked for, unless the configuration says another
	DefaultOverlap   = time.Hour            // how long a token goes on beside its successor, where nobody says
	MaxOverlap       = 7 * 24 * time.Hour
)

// ErrTokenEnded is returned when a token that was rotated before, withdrawn, or has expired should be rotated.
var ErrTokenEnded = errors.New("the token was rotated before, was withdrawn, or has expired: make a new one")

// APIToken is an API token as it is kept: whose it is and what it may do, never the token itself.
type APIToken struct {
	ID           string
	Name         string
	Person       string // who stands behind it
	Namespace    string
	Roles        []access.Role
	Scope        access.Scope
	CreatedAt    time.Time
	CreatedBy    string     // the credential's ID; empty for tokens made before this was kept
	ExpiresAt    time.Time  // zero: never
	Replaces     string     // the ID of the token that it was rotated from; empty: none
	RetiresAt    time.Time  // the end of its overlap with its successor; zero: it was not rotated
	RevokedAt    time.Time  // zero: not
	LastUsedAt   time.Time  // to about a minute; zero: never, or not since this is kept
	LastUsedFrom netip.Addr // zero: unknown
}

// Status is how a token stands at a time: "active", "retiring" beside its successor, "retired", "expired" or "revoked".
func (t APIToken) Status(now time.Time) string {
	switch {
	case !t.RevokedAt.IsZero():
		return "revoked"
	case !t.ExpiresAt.IsZero() && !now.Before(t.ExpiresAt):
		return "expired"
	case !t.RetiresAt.IsZero() && !now.Before(t.RetiresAt):
		return "retired"
	case !t.RetiresAt.IsZero():
		return "retiring"
	}
	return "active"
}

// TokenUse is the latest use of a token that a replica has seen.
type TokenUse struct {
	ID   string
	At   time.Time
	From netip.Addr // zero: unknown
}

// TokenStore keeps API tokens, under the SHA-256 digest of their text.
type TokenStore interface {
	// CreateToken adds a token; ErrExists when the ID or the digest is taken by another.
	CreateToken(ctx context.Context, t APIToken, sha256 [32]byte, leaves ...audit.Leaf) error
	// RotateToken adds the successor of the token that t.Replaces names, which ends at retires unless it ends earlier. ErrNotFound when
	// there is no such token, ErrTokenEnded when it goes on no more.
	RotateToken(ctx context.Context, t APIToken, sha256 [32]byte, retires time.Time, leaves ...audit.Leaf) error
	// RevokeToken withdraws a token from now on. One withdrawn before stays as it is and the leaves are not written; ErrNotFound when
	// there is no such token.
	RevokeToken(ctx context.Context, id string, leaves ...audit.Leaf) error
	// Token is one token, ErrNotFound when there is none.
	Token(ctx context.Context, id string) (APIToken, error)
	// Tokens are the tokens of a namespace, or all for access.AllNamespaces, oldest first.
	Tokens(ctx context.Context, namespace string) ([]APIToken, error)
	// RecordTokenUses keeps when tokens were last used, as far as that is later than what is on record.
	RecordTokenUses(ctx context.Context, uses []TokenUse) error
}

// NewAPIToken is what somebody asks a token to be.
type NewAPIToken struct {
	Name      string
	Person    string // empty: the name
	Namespace string
	Roles     []access.Role
	Scope     access.Scope
	Life      time.Duration // 0: DefaultTokenLife
}

// Rotation is how a token is replaced by one that may do the same.
type Rotation struct {
	ID      string
	Overlap time.Duration // how long both work; negative: DefaultOverlap
	Life    time.Duration // of the successor; 0: DefaultTokenLife
}

// TokenDesk makes, replaces and withdraws API tokens for somebody who may: for the CA, which has asked access, and for who is at the
// keyboard of the machine itself.
type TokenDesk struct {
	Store   TokenStore
	Now     func() time.Time
	NewID   func() string
	Random  io.Reader
	Actor   string        // who does it, for the audit log
	MaxLife time.Duration // 0: MaxTokenLife
}

// Create makes a token. Its text is returned this once and kept nowhere. It returns *InvalidError for what no token can be.
func (d TokenDesk) Create(ctx context.Context, n NewAPIToken) (APIToken, string, error) {
	if n.Person == "" {
		n.Person = n.Name
	}
	if err := d.check(n); err != nil {
		return APIToken{}, "", err
	}
	if err := d.checkPerson(ctx, n.Person, n.Namespace, n.Roles, ""); err != nil {
		return APIToken{}, "", err
	}
	now := d.Now()
	t := APIToken{
		ID: d.NewID(), Name: n.Name, Person: n.Person, Namespace: n.Namespace, Roles: n.Roles, Scope: n.Scope,
		CreatedAt: now, CreatedBy: d.Actor, ExpiresAt: now.Add(lifeOf(n.Life)),
	}
	text, digest, err := access.NewToken(d.Random)
	if err != nil {
		return APIToken{}, "", err
	}
	leaf, err := d.leaf(audit.TokenCreated, t, nil)
	if err != nil {
		return APIToken{}, "", err
	}
	if err := d.Store.CreateToken(ctx, t, digest, leaf); err != nil {
		return APIToken{}, "", fmt.Errorf("recording the token: %w", err)
	}
	return t, text, nil
}

// Rotate makes the successor of a token. The errors are those of Create and of TokenStore.RotateToken.
func (d TokenDesk) Rotate(ctx context.Context, r Rotation) (APIToken, string, error) {
	if r.Overlap < 0 {
		r.Overlap = DefaultOverlap
	}
	if r.Overlap > MaxOverlap {
		return APIToken{}, "", &InvalidError{
			Field: "overlap", Message: "the overlap is longer than 7 days",
			Hint: "two tokens of one purpose are one too many",
		}
	}
	if err := d.checkLife(r.Life); err != nil {
		return APIToken{}, "", err
	}
	old, err := d.Store.Token(ctx, r.ID)
	if err != nil {
		return APIToken{}, "", fmt.Errorf("reading token %q: %w", r.ID, err)
	}
	if err := d.checkPerson(ctx, old.Person, old.Namespace, old.Roles, old.ID); err != nil {
		return APIToken{}, "", err
	}
	now := d.Now()
	next := old
	next.ID, next.Replaces, next.CreatedAt, next.CreatedBy, next.ExpiresAt = d.NewID(), old.ID, now, d.Actor, now.Add(lifeOf(r.Life))
	next.RetiresAt, next.RevokedAt, next.LastUsedAt, next.LastUsedFrom = time.Time{}, time.Time{}, time.Time{}, netip.Addr{}
	text, digest, err := access.NewToken(d.Random)
	if err != nil {
		return APIToken{}, "", err
	}
	retires := now.Add(r.Overlap)
	leaf, err := d.leaf(audit.TokenRotated, next, map[string]string{"replaces": old.ID, "retires_at": retires.UTC().Format(time.RFC3339)})
	if err != nil {
		return APIToken{}, "", err
	}
	if err := d.Store.RotateToken(ctx, next, digest, retires, leaf); err != nil {
		return APIToken{}, "", fmt.Errorf("recording the successor of token %q: %w", r.ID, err)
	}
	return next, text, nil
}

// Revoke withdraws a token: from its next use on it is refused, on every replica. Again, it changes nothing.
func (d TokenDesk) Revoke(ctx context.Context, id string) (APIToken, error) {
	t, err := d.Store.Token(ctx, id)
	if err != nil {
		return APIToken{}, fmt.Errorf("reading token %q: %w", id, err)
	}
	leaf, err := d.leaf(audit.TokenRevoked, t, nil)
	if err != nil {
		return APIToken{}, err
	}
	if err := d.Store.RevokeToken(ctx, id, leaf); err != nil {
		return APIToken{}, fmt.Errorf("withdrawing token %q: %w", id, err)
	}
	return d.Store.Token(ctx, id)
}

func lifeOf(d time.Duration) time.Duration {
	if d == 0 {
		return DefaultTokenLife
	}
	return d
}

func (d TokenDesk) leaf(kind audit.Kind, t APIToken, more map[string]string) (audit.Leaf, error) {
	data := map[string]string{
		"token": t.ID, "name": t.Name, "person": t.Person, "roles": joinRoles(t.Roles), "expires_at": t.ExpiresAt.UTC().Format(time.RFC3339),
	}
	if len(t.Scope.Profiles) > 0 {
		data["profiles"] = strings.Join(t.Scope.Profiles, ",")
	}
	if len(t.Scope.Networks) > 0 {
		data["networks"] = strings.Join(asText(t.Scope.Networks), ",")
	}
	for k, v := range more {
		data[k] = v
	}
	leaf, err := audit.New(audit.Event{ID: d.NewID(), Kind: kind, Time: d.Now(), Actor: d.Actor, Namespace: t.Namespace, Data: data})
	if err != nil {
		return audit.Leaf{}, fmt.Errorf("recording %s: %w", kind, err)
	}
	return leaf, nil
}

func joinRoles(roles []access.Role) string {
	names := make([]string, len(roles))
	for i, r := range roles {
		names[i] = string(r)
	}
	return strings.Join(names, ",")
}

func asText(networks []netip.Prefix) []string {
	text := make([]string, len(networks))
	for i, n := range networks {
		text[i] = n.String()
	}
	return text
}

const (
	maxTokenName  = 200 // octets
	maxTokenScope = 64  // profiles, networks
)

// check refuses what no token can be.
func (d TokenDesk) check(n NewAPIToken) error {
	invalid := func(field, hint, format string, args ...any) error {
		return &InvalidError{Field: field, Message: fmt.Sprintf(format, args...), Hint: hint}
	}
	for field, text := range map[string]string{"name": n.Name, "person": n.Person} {
		if text == "" || len(text) > maxTokenName || strings.ContainsFunc(text, unicode.IsControl) {
			return invalid(field, "say in a few words what it is for, or whose", "the %s must be 1 to %d octets without control characters", field,
				maxTokenName)
		}
	}
	if err := (access.Namespace{Name: n.Namespace}).Validate(); err != nil {
		return invalid("namespace", "give a namespace, or * for all", "%v", err)
	}
	if len(n.Roles) == 0 {
		return invalid("roles", "give at least one", "a token without roles can do nothing")
	}
	for i, r := range n.Roles {
		if _, err := access.ParseRole(string(r)); err != nil {
			return invalid("roles", "", "%v", err)
		}
		if slices.Contains(n.Roles[:i], r) {
			return invalid("roles", "", "%s stands there twice", r)
		}
	}
	if err := access.CheckDuties(n.Roles); err != nil {
		return invalid("roles", "give them to two persons, with a token each", "%v", err)
	}
	if len(n.Scope.Profiles) > maxTokenScope || len(n.Scope.Networks) > maxTokenScope {
		return invalid("scope", "", "there are more than %d profiles or networks", maxTokenScope)
	}
	if err := (access.Namespace{Name: n.Namespace, Profiles: n.Scope.Profiles}).Validate(); err != nil {
		return invalid("profiles", "", "%v", err)
	}
	for _, p := range n.Scope.Networks {
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
			return invalid("networks", "write a prefix such as 10.1.0.0/16, with its host bits zero", "%q is not a prefix of addresses", p)
		}
	}
	return d.checkLife(n.Life)
}

// checkPerson refuses a token with roles that, with those of the person's other tokens, must not be in one hand: as far as both hold in one
// namespace. The token that it replaces does not count. Of two that are made at one moment neither knows of the other.
func (d TokenDesk) checkPerson(ctx context.Context, person, namespace string, roles []access.Role, replaces string) error {
	all, err := d.Store.Tokens(ctx, access.AllNamespaces)
	if err != nil {
		return fmt.Errorf("reading the tokens of %q: %w", person, err)
	}
	now := d.Now()
	for _, t := range all {
		meet := t.Namespace == namespace || t.Namespace == access.AllNamespaces || namespace == access.AllNamespaces
		if status := t.Status(now); t.Person != person || t.ID == replaces || !meet || status != "active" && status != "retiring" {
			continue
		}
		if err := access.CheckUnion(roles, t.Roles); err != nil {
			return &InvalidError{
				Field: "roles", Message: fmt.Sprintf("%s has the token %s already: %v", person, t.ID, err),
				Hint: "give them to two persons, or withdraw that token",
			}
		}
	}
	return nil
}

func (d TokenDesk) checkLife(life time.Duration) error {
	longest := d.MaxLife
	if longest == 0 {
		longest = MaxTokenLife
	}
	if life = lifeOf(life); life < time.Minute || life > longest {
		return &InvalidError{
			Field: "expires", Message: fmt.Sprintf("a token lasts from 1m to %s, not %s", longest, life),
			Hint: "rotate it in time; that is one command",
		}
	}
	return nil
}

// desk is the token desk for an actor whom access has let in.
func (c *CA) desk(actor access.Actor) TokenDesk {
	return TokenDesk{Store: c.store, Now: c.now, NewID: c.newID, Random: c.random, Actor: actor.ID, MaxLife: c.tokenLife}
}

func tokenResource(namespace, id string) access.Resource {
	return access.Resource{Namespace: namespace, Kind: "token", ID: id}
}

// APITokens are the tokens of the actor's namespace, or all, where the actor acts in all.
func (c *CA) APITokens(ctx context.Context, actor access.Actor) ([]APIToken, error) {
	if err := c.authorize(ctx, actor, access.ReadToken, tokenResource(actor.Namespace, "")); err != nil {
		return nil, err
	}
	all, err := c.store.Tokens(ctx, actor.Namespace)
	if err != nil {
		return nil, fmt.Errorf("reading the API tokens: %w", err)
	}
	return all, nil
}

// APIToken is one token; ErrNotFound when there is none that the actor may see.
func (c *CA) APIToken(ctx context.Context, actor access.Actor, id string) (APIToken, error) {
	return c.tokenFor(ctx, actor, access.ReadToken, id)
}

// tokenFor reads a token for an actor who wants to do something with it. What is said to who may not is the same whether there is such a
// token or not.
func (c *CA) tokenFor(ctx context.Context, actor access.Actor, action access.Action, id string) (APIToken, error) {
	if err := c.authorize(ctx, actor, action, tokenResource(actor.Namespace, id)); err != nil {
		return APIToken{}, err
	}
	t, err := c.store.Token(ctx, id)
	if err != nil {
		return APIToken{}, fmt.Errorf("reading token %q: %w", id, err)
	}
	return t, c.authorize(ctx, actor, action, tokenResource(t.Namespace, id))
}

// CreateToken makes a token over the API. Besides the errors of TokenDesk.Create, it refuses roles that are not given so
// (access.CheckGrant), and namespaces that are not known or not the actor's.
func (c *CA) CreateToken(ctx context.Context, actor access.Actor, n NewAPIToken) (APIToken, string, error) {
	if err := c.authorize(ctx, actor, access.ManageToken, tokenResource(n.Namespace, "")); err != nil {
		return APIToken{}, "", err
	}
	if _, known := c.namespace(n.Namespace); !known && n.Namespace != access.AllNamespaces || n.Namespace == ServiceNamespace {
		return APIToken{}, "", &InvalidError{
			Field: "namespace", Message: fmt.Sprintf("there is no namespace %q", n.Namespace),
			Hint: "set it first: chancery namespace set",
		}
	}
	if err := checkGrant(n.Roles); err != nil {
		return APIToken{}, "", err
	}
	t, text, err := c.desk(actor).Create(ctx, n)
	if err != nil {
		return APIToken{}, "", err
	}
	c.log.InfoContext(ctx, "an API token was created", "token", t.ID, "namespace", t.Namespace, "roles", joinRoles(t.Roles), "actor", actor.ID)
	return t, text, nil
}

// RotateToken replaces a token over the API. Roles that are not given over the API are not given by rotation either.
func (c *CA) RotateToken(ctx context.Context, actor access.Actor, r Rotation) (APIToken, string, error) {
	old, err := c.tokenFor(ctx, actor, access.ManageToken, r.ID)
	if err != nil {
		return APIToken{}, "", err
	}
	if err := checkGrant(old.Roles); err != nil {
		return APIToken{}, "", err
	}
	t, text, err := c.desk(actor).Rotate(ctx, r)
	if err != nil {
		return APIToken{}, "", err
	}
	c.log.InfoContext(ctx, "an API token was rotated", "token", t.ID, "replaces", t.Replaces, "actor", actor.ID)
	return t, text, nil
}

// RevokeToken withdraws a token over the API.
func (c *CA) RevokeToken(ctx context.Context, actor access.Actor, id string) (APIToken, error) {
	if _, err := c.tokenFor(ctx, actor, access.ManageToken, id); err != nil {
		return APIToken{}, err
	}
	t, err := c.desk(actor).Revoke(ctx, id)
	if err == nil {
		c.log.InfoContext(ctx, "an API token was withdrawn", "token", id, "actor", actor.ID)
	}
	return t, err
}

func checkGrant(roles []access.Role) error {
	if err := access.CheckGrant(roles); err != nil {
		return &InvalidError{
			Field: "roles", Message: err.Error(),
			Hint: "approvers and policy admins hold the operator too, so the operator does not make them",
		}
	}
	return nil
}
