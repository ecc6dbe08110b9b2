package storage_test

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
)

func newSession(person string) ca.Session {
	return ca.Session{
		ID: newID(), Method: ca.SignedInByOIDC, Provider: "https://id.example", Idle: 30 * time.Minute,
		Actor: access.Actor{
			ID: "oidc:https://id.example " + person, Name: person, Person: person, Namespace: "web", Roles: []access.Role{access.Approver},
			Groups: []string{"pki"}, Attributes: map[string][]string{"email": {person + "@web.example"}},
		},
	}
}

func TestASessionIsFoundByItsSecretUntilItEnds(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	session, secret := newSession("ada"), random32()
	opened := leaf(t, audit.SessionOpened)
	for range 2 { // the second time as after an answer that was lost
		if err := f.OpenSession(ctx, session, secret, nil, 8*time.Hour, opened); err != nil {
			t.Fatal(err)
		}
	}
	other := f.db.Store(t) // another replica
	got, err := other.Session(ctx, secret)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.Actor, session.Actor) || got.ID != session.ID || got.Provider != session.Provider || got.Idle != session.Idle ||
		got.ExpiresAt.Sub(got.OpenedAt) != 8*time.Hour {
		t.Errorf("the session is %+v\nwant %+v", got, session)
	}
	if _, err := f.Session(ctx, random32()); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("an unknown secret: %v, want ErrNotFound", err)
	}
	for range 2 {
		if err := f.EndSessions(ctx, session, false, leaf(t, audit.SessionEnded)); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []interface {
		Session(context.Context, [32]byte) (ca.Session, error)
	}{f, other} {
		if _, err := s.Session(ctx, secret); !errors.Is(err, ca.ErrNotFound) {
			t.Errorf("after it was ended: %v, want ErrNotFound", err)
		}
	}
	f.wantCounts("console_sessions", 1, "audit_leaves", 2)
}

func TestSessionsRunOut(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	session, secret := newSession("ada"), random32()
	if err := f.OpenSession(ctx, session, secret, nil, 8*time.Hour); err != nil {
		t.Fatal(err)
	}
	found := func(want bool, when string) {
		t.Helper()
		_, err := f.Session(ctx, secret)
		if want && err != nil || !want && !errors.Is(err, ca.ErrNotFound) {
			t.Errorf("%s: %v", when, err)
		}
	}
	f.exec(`UPDATE console_sessions SET seen_at = now() - interval '29 minutes'`)
	found(true, "used in time")
	f.exec(`UPDATE console_sessions SET seen_at = seen_at - interval '29 minutes'`)
	found(true, "used again: the first use counted")
	f.exec(`UPDATE console_sessions SET seen_at = now() - interval '31 minutes'`)
	found(false, "not used for long")
	f.exec(`UPDATE console_sessions SET seen_at = now(), expires_at = now() - interval '1 second'`)
	found(false, "past its end, however much it is used")

	f.exec(`UPDATE console_sessions SET expires_at = now() - interval '2 days'`)
	if err := f.OpenSession(ctx, newSession("bob"), random32(), nil, time.Hour); err != nil {
		t.Fatal(err)
	}
	f.wantCounts("console_sessions", 1) // the old one is forgotten
}

func TestSigningOutEverywhere(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	here, there, bobs := random32(), random32(), random32()
	session := newSession("ada")
	for secret, s := range map[[32]byte]ca.Session{here: session, there: newSession("ada"), bobs: newSession("bob")} {
		if err := f.OpenSession(ctx, s, secret, nil, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.EndSessions(ctx, session, true); err != nil {
		t.Fatal(err)
	}
	for _, secret := range [][32]byte{here, there} {
		if _, err := f.Session(ctx, secret); !errors.Is(err, ca.ErrNotFound) {
			t.Errorf("a session of hers goes on: %v", err)
		}
	}
	if _, err := f.Session(ctx, bobs); err != nil {
		t.Errorf("his ended too: %v", err)
	}
}

func TestALinkOpensOneSession(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	token, link := newToken("ada"), random32()
	if err := f.CreateToken(ctx, token, random32()); err != nil {
		t.Fatal(err)
	}
	if _, err := f.OfferLogin(ctx, link, "nobody", ca.LoginLife); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("a link for no token: %v, want ErrNotFound", err)
	}
	expires, err := f.OfferLogin(ctx, link, token.ID, ca.LoginLife)
	if left := time.Until(expires); err != nil || left < time.Minute || left > 3*time.Minute {
		t.Fatalf("the link ends at %s, %v", expires, err)
	}
	actor, err := f.OfferedLogin(ctx, link)
	if err != nil || actor.ID != token.ID || actor.Person != "ada" {
		t.Fatalf("the link is of %+v, %v", actor, err)
	}

	var opened atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			s := ca.Session{ID: newID(), Actor: actor, Method: ca.SignedInByToken, Token: token.ID, Idle: time.Hour}
			switch err := f.OpenSession(ctx, s, random32(), &link, time.Hour, leaf(t, audit.SessionOpened)); {
			case err == nil:
				opened.Add(1)
			case !errors.Is(err, ca.ErrNotFound):
				t.Error(err)
			}
		})
	}
	all.Wait()
	if opened.Load() != 1 {
		t.Errorf("one link opened %d sessions", opened.Load())
	}
	if _, err := f.OfferedLogin(ctx, link); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("a link that was used: %v, want ErrNotFound", err)
	}
	f.wantCounts("console_sessions", 1, "audit_leaves", 1)

	old := random32()
	if _, err := f.OfferLogin(ctx, old, token.ID, ca.LoginLife); err != nil {
		t.Fatal(err)
	}
	f.exec(`UPDATE console_logins SET expires_at = now() - interval '1 second'`)
	if _, err := f.OfferedLogin(ctx, old); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("a link that is too old: %v, want ErrNotFound", err)
	}
	s := ca.Session{ID: newID(), Actor: actor, Method: ca.SignedInByToken, Token: token.ID, Idle: time.Hour}
	if err := f.OpenSession(ctx, s, random32(), &old, time.Hour); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("a session by a link that is too old: %v, want ErrNotFound", err)
	}
}

// TestLinksThatNobodyOpensAreForgotten: with a token that may do nothing else, links are offered without end.
func TestLinksThatNobodyOpensAreForgotten(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	token := newToken("ada")
	if err := f.CreateToken(ctx, token, random32()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := f.OfferLogin(ctx, random32(), token.ID, ca.LoginLife); err != nil {
			t.Fatal(err)
		}
	}
	f.exec(`UPDATE console_logins SET expires_at = now() - interval '2 hours'`)
	if _, err := f.OfferLogin(ctx, random32(), token.ID, ca.LoginLife); err != nil {
		t.Fatal(err)
	}
	f.wantCounts("console_logins", 1)
}

func TestASessionEndsWithItsToken(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	token, link, secret := newToken("ada"), random32(), random32()
	if err := f.CreateToken(ctx, token, random32()); err != nil {
		t.Fatal(err)
	}
	if _, err := f.OfferLogin(ctx, link, token.ID, ca.LoginLife); err != nil {
		t.Fatal(err)
	}
	s := ca.Session{ID: newID(), Actor: access.Actor{ID: token.ID}, Method: ca.SignedInByToken, Token: token.ID, Idle: time.Hour}
	if err := f.OpenSession(ctx, s, secret, &link, time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Session(ctx, secret); err != nil {
		t.Fatal(err)
	}
	next := random32()
	if _, err := f.OfferLogin(ctx, next, token.ID, ca.LoginLife); err != nil {
		t.Fatal(err)
	}
	if err := f.RevokeToken(ctx, token.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Session(ctx, secret); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("the session outlives its token: %v", err)
	}
	if _, err := f.OfferedLogin(ctx, next); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("the link outlives its token: %v", err)
	}
	if _, err := f.OfferLogin(ctx, random32(), token.ID, ca.LoginLife); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("a link for a token that was withdrawn: %v, want ErrNotFound", err)
	}
}
