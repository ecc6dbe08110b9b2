package ca

import (
	"math/big"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
)

// TestCRLsOnDemandRest: whoever asks for CRLs in a loop has one signed now and then, unless there is something to put on it. A demand that
// failed is no demand.
func TestCRLsOnDemandRest(t *testing.T) {
	t.Parallel()
	now := time.Now().UTC().Truncate(time.Second)
	a, key := openAuthority(t, "issuing-1", now)
	clock := func() time.Time { return now }
	store := &quiet{now: clock, number: new(big.Int)}
	c := publishing(store, clock, a)
	revoker := access.Actor{ID: "token-1", Person: "rita", Namespace: "web", Roles: []access.Role{access.Revoker}}
	demand := func(want int) {
		t.Helper()
		if states, err := c.PublishNow(t.Context(), revoker, "issuing-1", ""); err != nil || len(states) != 1 || store.recorded != want {
			t.Errorf("%d CRLs, want %d; %v, %v", store.recorded, want, states, err)
		}
	}
	key.away = true
	if _, err := c.PublishNow(t.Context(), revoker, "issuing-1", ""); err == nil {
		t.Fatal("a CRL by a key that is away")
	}
	key.away = false
	now = now.Add(keyRest)
	demand(1)
	for range 5 {
		demand(1)
	}
	store.pending = 1
	demand(2)
	store.pending = 0
	demand(2)
	now = now.Add(demandRest)
	demand(3)
}
