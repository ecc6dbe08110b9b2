package ca

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
)

// eventsKept is a store of events.
type eventsKept struct {
	Store
	leaves []audit.Leaf
}

func (e *eventsKept) RecordEvents(_ context.Context, leaves ...audit.Leaf) error {
	e.leaves = append(e.leaves, leaves...)
	return nil
}

// Each refusal is an event, however long the name is of what was asked for: who wants to leave no trace asks for what is longer than a leaf.
func TestARefusalLeavesItsTraceWhateverWasAskedFor(t *testing.T) {
	t.Parallel()
	robot := access.Actor{ID: "token-1", Person: "robot", Namespace: "web", Roles: []access.Role{access.Requester}}
	for name, long := range map[string]string{
		"octets": strings.Repeat("x", 1<<20), "quotes": strings.Repeat(`"`, 20<<10), "signs": strings.Repeat("é", 20<<10), "short": "web",
	} {
		for what, ask := range map[string]func(*CA) error{
			"a token": func(c *CA) error { _, err := c.APIToken(t.Context(), robot, long); return err },
			"a token in": func(c *CA) error {
				_, _, err := c.CreateToken(t.Context(), robot, NewAPIToken{Namespace: long})
				return err
			},
			"a namespace": func(c *CA) error {
				_, err := c.SetNamespace(t.Context(), robot, access.Namespace{Name: long}, -1)
				return err
			},
		} {
			store := &eventsKept{}
			err := ask(publishing(store, time.Now))
			var denied *access.Denied
			if !errors.As(err, &denied) || len(store.leaves) != 1 || store.leaves[0].Kind() != audit.AccessDenied {
				t.Errorf("%s, %s: %d events, %.200v", what, name, len(store.leaves), err)
			}
		}
	}
}

// A credential that strays is an event once in an hour for each network that the event tells: not for each part of it, of which a site has many.
func TestAStolenCredentialWritesNoEndlessLog(t *testing.T) {
	t.Parallel()
	store := &eventsKept{}
	office := publishing(store, time.Now)
	office.visits = newVisits()
	robot := access.Actor{ID: "token-1", Person: "robot", Namespace: "web"}
	for _, from := range []string{"2001:db8:7:1::/64", "2001:db8:7:2::/64", "2001:db8:8:1::/64", "192.0.2.1/32", "192.0.2.2/32"} {
		if err := office.Strayed(t.Context(), robot, netip.MustParsePrefix(from)); err != nil {
			t.Fatal(err)
		}
	}
	if len(store.leaves) != 3 {
		t.Errorf("%d events of three networks", len(store.leaves))
	}
}
