package storage_test

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/storage"
)

func newToken(name string) storage.Token {
	return storage.Token{
		ID: newID(), Name: name, Person: "ada", Namespace: "web", Roles: []access.Role{access.Requester, access.Revoker}, CreatedAt: now(),
	}
}

func TestATokenNamesItsActorUntilItEnds(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	token, digest := newToken("ci"), random32()
	for range 2 { // the second time as after an answer that was lost
		if err := f.CreateToken(ctx, token, digest, leafWithID(t, token.ID, audit.TokenCreated)); err != nil {
			t.Fatal(err)
		}
	}
	want := access.Actor{ID: token.ID, Name: "ci", Person: "ada", Namespace: "web", Roles: token.Roles}
	if actor, err := f.ActorByToken(ctx, digest); err != nil || !reflect.DeepEqual(actor, want) {
		t.Errorf("the actor is %+v, %v\nwant %+v", actor, err, want)
	}
	if _, err := f.ActorByToken(ctx, random32()); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("an unknown token: %v, want ErrNotFound", err)
	}
	if err := f.CreateToken(ctx, newToken("copy"), digest); !errors.Is(err, ca.ErrExists) {
		t.Errorf("a second token with the digest: %v, want ErrExists", err)
	}

	expired, expiredDigest := newToken("old"), random32()
	expired.ExpiresAt = now().Add(-time.Second)
	later, laterDigest := newToken("new"), random32()
	later.ExpiresAt = now().Add(time.Hour)
	for _, c := range []struct {
		token  storage.Token
		digest [32]byte
	}{{expired, expiredDigest}, {later, laterDigest}} {
		if err := f.CreateToken(ctx, c.token, c.digest); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.ActorByToken(ctx, expiredDigest); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("an expired token: %v, want ErrNotFound", err)
	}
	if _, err := f.ActorByToken(ctx, laterDigest); err != nil {
		t.Errorf("a token that has not expired: %v", err)
	}

	for range 2 {
		if err := f.RevokeToken(ctx, token.ID, leaf(t, audit.TokenRevoked)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.ActorByToken(ctx, digest); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("a revoked token: %v, want ErrNotFound", err)
	}
	if err := f.RevokeToken(ctx, "none"); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("revoking an unknown token: %v, want ErrNotFound", err)
	}
	f.wantCounts("audit_leaves", 2)
	all, err := f.Tokens(ctx)
	if err != nil || len(all) != 3 || all[0].RevokedAt.IsZero() || !reflect.DeepEqual(all[1:], []storage.Token{expired, later}) {
		t.Errorf("the tokens are %+v, %v", all, err)
	}
}

func TestEventsAreRecordedOnce(t *testing.T) {
	f := setUp(t)
	a, b := leaf(t, audit.AccessDenied), leaf(t, audit.ServiceStarted)
	for range 2 {
		if err := f.RecordEvents(context.Background(), a, b); err != nil {
			t.Fatal(err)
		}
	}
	other := leafWithID(t, a.ID(), audit.ServiceStopped)
	if err := f.RecordEvents(context.Background(), other); err == nil || errors.Is(err, ca.ErrUnavailable) {
		t.Errorf("another event with the same ID: %v", err)
	}
	if err := f.RecordEvents(context.Background()); err == nil {
		t.Error("no events were recorded without an error")
	}
	var kind string
	var canonical []byte
	if err := f.owner.QueryRow(context.Background(), `SELECT kind, leaf FROM audit_leaves WHERE id = $1`, a.ID()).Scan(&kind, &canonical); err != nil {
		t.Fatal(err)
	}
	if kind != string(audit.AccessDenied) || string(canonical) != string(a.Bytes()) {
		t.Errorf("kept %s %s", kind, canonical)
	}
	f.wantCounts("audit_leaves", 2)
}
