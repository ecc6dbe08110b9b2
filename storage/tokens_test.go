package storage_test

import (
	"context"
	"crypto/rand"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
)

func newToken(name string) ca.APIToken {
	return ca.APIToken{
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
		token  ca.APIToken
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
	all, err := f.Tokens(ctx, access.AllNamespaces)
	if err != nil || len(all) != 3 || all[0].RevokedAt.IsZero() || !reflect.DeepEqual(all[1:], []ca.APIToken{expired, later}) {
		t.Errorf("the tokens are %+v, %v", all, err)
	}
}

func TestATokenIsRotatedOnce(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	old, oldDigest, digest := newToken("ci"), random32(), random32()
	old.Scope = access.Scope{
		Profiles: []string{"tls-server"},
		Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")},
	}
	old.CreatedBy = "operator-1"
	if err := f.CreateToken(ctx, old, oldDigest); err != nil {
		t.Fatal(err)
	}
	next := old
	next.ID, next.Replaces = newID(), old.ID
	for range 2 { // the second time as after an answer that was lost
		if err := f.RotateToken(ctx, next, digest, now().Add(time.Hour), leafWithID(t, next.ID, audit.TokenRotated)); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range [][32]byte{oldDigest, digest} {
		if actor, err := f.ActorByToken(ctx, d); err != nil || !reflect.DeepEqual(actor.Scope, old.Scope) {
			t.Errorf("within the overlap: %+v, %v", actor, err)
		}
	}
	other := old
	other.ID, other.Replaces = newID(), old.ID
	if err := f.RotateToken(ctx, other, random32(), now()); !errors.Is(err, ca.ErrTokenEnded) {
		t.Errorf("a second successor: %v", err)
	}
	other.Replaces = "none"
	if err := f.RotateToken(ctx, other, random32(), now()); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("the successor of none: %v", err)
	}
	other.Replaces = next.ID
	if err := f.RotateToken(ctx, other, random32(), now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ActorByToken(ctx, digest); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("after the overlap: %v", err)
	}
	got, err := f.Token(ctx, next.ID)
	if err != nil || got.Replaces != old.ID || got.RetiresAt.IsZero() || !reflect.DeepEqual(got.Scope, old.Scope) ||
		got.CreatedBy != "operator-1" {
		t.Errorf("kept %+v, %v", got, err)
	}
	if _, err := f.Token(ctx, "none"); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("reading none: %v", err)
	}
	f.wantCounts("audit_leaves", 1)
}

// An operator that was made before there were policy admins, or by an older program beside this one, goes on changing policies.
func TestOperatorsOfOldLoseNothing(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	old, oldDigest, digest := newToken("old"), random32(), random32()
	old.Roles = []access.Role{access.Operator}
	young := old
	young.ID, young.CreatedBy = newID(), "local:root"
	if err := errors.Join(f.CreateToken(ctx, old, oldDigest), f.CreateToken(ctx, young, digest)); err != nil {
		t.Fatal(err)
	}
	if a, err := f.ActorByToken(ctx, oldDigest); err != nil ||
		!reflect.DeepEqual(a.Roles, []access.Role{access.Operator, access.PolicyAdmin}) {
		t.Errorf("of old: %+v, %v", a, err)
	}
	if a, err := f.ActorByToken(ctx, digest); err != nil || !reflect.DeepEqual(a.Roles, []access.Role{access.Operator}) {
		t.Errorf("of now: %+v, %v", a, err)
	}
}

func TestTheLastUseOfATokenNeverGoesBack(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	token, at := newToken("ci"), now()
	if err := f.CreateToken(ctx, token, random32()); err != nil {
		t.Fatal(err)
	}
	from := netip.MustParseAddr("10.0.0.7")
	for _, u := range []ca.TokenUse{{ID: token.ID, At: at, From: from}, {ID: token.ID, At: at.Add(-time.Minute)}, {ID: "none", At: at}} {
		if err := f.RecordTokenUses(ctx, []ca.TokenUse{u}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := f.Token(ctx, token.ID); err != nil || !got.LastUsedAt.Equal(at) || got.LastUsedFrom != from {
		t.Errorf("%+v, %v", got, err)
	}
	if all, err := f.Tokens(ctx, "db"); err != nil || len(all) != 0 {
		t.Errorf("another namespace's: %+v, %v", all, err)
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
	if err := f.owner.QueryRow(context.Background(), `SELECT kind, leaf FROM audit_leaves WHERE id = $1`, a.ID()).Scan(&kind,
		&canonical); err != nil {
		t.Fatal(err)
	}
	if kind != string(audit.AccessDenied) || string(canonical) != string(a.Bytes()) {
		t.Errorf("kept %s %s", kind, canonical)
	}
	f.wantCounts("audit_leaves", 2)
}

// TestOnePersonsTokensHoldNoDutiesApart: what must not be in one hand is not given in two tokens of one person either, as far as both hold
// in one namespace, and as long as both do.
func TestOnePersonsTokensHoldNoDutiesApart(t *testing.T) {
	t.Parallel()
	f := setUp(t)
	ctx := t.Context()
	desk := ca.TokenDesk{Store: f, Now: time.Now, NewID: newID, Random: rand.Reader, Actor: "test"}
	give := func(person, namespace string, roles ...access.Role) (ca.APIToken, error) {
		made, _, err := desk.Create(ctx, ca.NewAPIToken{Name: person, Person: person, Namespace: namespace, Roles: roles})
		return made, err
	}
	operator, err := give("alice", "web", access.Operator)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		person, namespace string
		role              access.Role
		refused           bool
	}{
		{"alice", "web", access.Approver, true},
		{"alice", access.AllNamespaces, access.Approver, true},
		{"alice", access.AllNamespaces, access.PolicyAdmin, true},
		{"alice", "shop", access.Approver, false},
		{"alice", "web", access.Operator, false},
		{"alice", "web", access.Auditor, false},
		{"bob", "web", access.Approver, false},
	} {
		made, err := give(c.person, c.namespace, c.role)
		var invalid *ca.InvalidError
		if errors.As(err, &invalid) != c.refused || !c.refused && err != nil {
			t.Errorf("%s in %s for %s: %v", c.role, c.namespace, c.person, err)
		}
		if c.refused && err != nil && !strings.Contains(err.Error(), operator.ID) {
			t.Errorf("nobody says which token is in the way: %v", err)
		}
		if err == nil && c.role == access.Operator { // the one in the way stays alone
			if _, err := desk.Revoke(ctx, made.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, _, err := desk.Rotate(ctx, ca.Rotation{ID: operator.ID}); err != nil {
		t.Errorf("a token stands in its own way: %v", err)
	}
	before := newToken("from before this was held")
	before.Roles, before.CreatedBy, before.Person = []access.Role{access.Approver}, "test", "alice"
	if err := f.CreateToken(ctx, before, random32()); err != nil {
		t.Fatal(err)
	}
	var invalid *ca.InvalidError
	if _, _, err := desk.Rotate(ctx, ca.Rotation{ID: before.ID}); !errors.As(err, &invalid) {
		t.Errorf("both tokens are prolonged: %v", err)
	}
	old := newToken("from before there were policy admins")
	old.Roles, old.Person = []access.Role{access.Operator}, "olga"
	if err := f.CreateToken(ctx, old, random32()); err != nil {
		t.Fatal(err)
	}
	if _, err := give("olga", "web", access.Operator); err != nil {
		t.Errorf("an operator's token of old is not replaced by a new one: %v", err)
	}
}
