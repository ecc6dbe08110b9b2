package ca

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
)

// LoginLife is how long a link that signs in to the console can be used.
const LoginLife = 2 * time.Minute

// How a person signed in to the console.
const (
	SignedInByOIDC  = "oidc"  // at an OpenID Connect provider
	SignedInByToken = "token" // by a link that the owner of an API token was given
)

// Session is a person signed in to the console.
type Session struct {
	ID        string
	Actor     access.Actor // as it was when the person signed in
	Method    string       // SignedInByOIDC or SignedInByToken
	Provider  string       // the issuer of the identity; empty for a token
	Token     string       // the ID of the API token, with which the session ends; empty for OIDC
	Idle      time.Duration
	OpenedAt  time.Time
	ExpiresAt time.Time
}

// SessionStore keeps the sessions of the console, and the links that open some. Both go by the database's clock, which all replicas share.
type SessionStore interface {
	// OpenSession keeps a session under the digest of its secret, for life at most. Where it is opened by a link, its digest is login: the
	// link is used up in the same transaction, and ErrNotFound returned when it was used before or has expired.
	OpenSession(ctx context.Context, s Session, secret [32]byte, login *[32]byte, life time.Duration, leaves ...audit.Leaf) error
	// Session finds a session and notes that it is used. ErrNotFound: there is none, it has been ended, has expired, was idle for too
	// long, or the API token by which it was opened is no longer good.
	Session(ctx context.Context, secret [32]byte) (Session, error)
	// EndSessions ends a session or, when everywhere, all sessions of its actor. Those that ended before are left as they are; the leaves
	// are written when one ended now.
	EndSessions(ctx context.Context, s Session, everywhere bool, leaves ...audit.Leaf) error
	// OfferLogin keeps a link for the owner of an API token. ErrNotFound when there is no such token, or it is no longer good.
	OfferLogin(ctx context.Context, login [32]byte, token string, life time.Duration) (expires time.Time, err error)
	// OfferedLogin tells whose a link is, without using it up. ErrNotFound when it was used, has expired, or its token is no longer good.
	OfferedLogin(ctx context.Context, login [32]byte) (access.Actor, error)
}

// ErrNotByToken is returned when a link to the console is asked for with something else than an API token.
var ErrNotByToken = errors.New("only an API token can be exchanged for a link to the console; sign in at your provider instead")

// OfferLogin makes a link for the actor, who must have an API token, by which a browser is signed in once within LoginLife. The secret of
// the link stays with the caller; its digest is kept.
func (c *CA) OfferLogin(ctx context.Context, actor access.Actor, login [32]byte) (expires time.Time, err error) {
	if err := c.authorizeSession(ctx, actor); err != nil {
		return time.Time{}, err
	}
	expires, err = c.store.OfferLogin(ctx, login, actor.ID, LoginLife)
	switch {
	case errors.Is(err, ErrNotFound):
		return time.Time{}, ErrNotByToken
	case err != nil:
		return time.Time{}, fmt.Errorf("offering a login: %w", err)
	}
	return expires, nil
}

// OfferedLogin tells whose a link is, without using it up; ErrNotFound when it is of no use any more.
func (c *CA) OfferedLogin(ctx context.Context, login [32]byte) (access.Actor, error) {
	actor, err := c.store.OfferedLogin(ctx, login)
	if err != nil {
		return access.Actor{}, fmt.Errorf("looking up a login: %w", err)
	}
	return actor, nil
}

// OpenSession signs a person in: s says who, by what, and for how long when nothing is asked; life is for how long at most. The caller
// has authenticated the actor.
func (c *CA) OpenSession(ctx context.Context, s Session, secret [32]byte, life time.Duration) error {
	return c.openSession(ctx, s, secret, nil, life)
}

// TakeLogin signs in whoever has a link, once. The session's actor and token are the link's. ErrNotFound when it is of no use any more.
func (c *CA) TakeLogin(ctx context.Context, login, secret [32]byte, idle, life time.Duration) (Session, error) {
	actor, err := c.OfferedLogin(ctx, login)
	if err != nil {
		return Session{}, err
	}
	s := Session{Actor: actor, Method: SignedInByToken, Token: actor.ID, Idle: idle}
	return s, c.openSession(ctx, s, secret, &login, life)
}

func (c *CA) openSession(ctx context.Context, s Session, secret [32]byte, login *[32]byte, life time.Duration) error {
	if err := c.authorizeSession(ctx, s.Actor); err != nil {
		return err
	}
	s.ID = c.newID()
	leaf, err := c.leaf(audit.SessionOpened, s.Actor.ID, s.Actor.Namespace, c.now(), map[string]string{
		"session": s.ID, "method": s.Method, "provider": s.Provider, "token": s.Token, "name": s.Actor.Name, "person": s.Actor.Person,
	})
	if err != nil {
		return err
	}
	if err := c.store.OpenSession(ctx, s, secret, login, life, leaf); err != nil {
		return fmt.Errorf("opening a session: %w", err)
	}
	return nil
}

// authorizeSession asks whether the actor may use the console at all. What it may do there is asked again at each step.
func (c *CA) authorizeSession(ctx context.Context, actor access.Actor) error {
	return c.authorize(ctx, actor, access.OpenSession, access.Resource{Namespace: actor.Namespace, Kind: "session"})
}

// Session finds the session of a secret; ErrNotFound when nobody is signed in by it.
func (c *CA) Session(ctx context.Context, secret [32]byte) (Session, error) {
	s, err := c.store.Session(ctx, secret)
	if err != nil {
		return Session{}, fmt.Errorf("looking up a session: %w", err)
	}
	return s, nil
}

// EndSession signs a person out: of this session or, when everywhere, of all.
func (c *CA) EndSession(ctx context.Context, s Session, everywhere bool) error {
	which := s.ID
	if everywhere {
		which = "all"
	}
	leaf, err := c.leaf(audit.SessionEnded, s.Actor.ID, s.Actor.Namespace, c.now(), map[string]string{"session": which})
	if err != nil {
		return err
	}
	if err := c.store.EndSessions(context.WithoutCancel(ctx), s, everywhere, leaf); err != nil {
		return fmt.Errorf("ending a session: %w", err)
	}
	return nil
}
