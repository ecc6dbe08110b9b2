package ca

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/policies"
)

// closing is a store that counts the requests whose waiting ends.
type closing struct {
	Store
	closed int
}

func (c *closing) CloseWaiting(context.Context, string, string, string, time.Time, ...audit.Leaf) error {
	c.closed++
	return nil
}

// A request that persons have approved does not end because name servers did not answer for a moment.
func TestATemporaryRefusalDoesNotEndTheWaiting(t *testing.T) {
	store := &closing{}
	c := publishing(store, time.Now)
	request := Request{ID: c.newID(), At: time.Now(), ActorID: "actor-1", Namespace: "web", Profile: "tls-server"}
	for _, one := range []struct {
		violations []policies.Violation
		closed     int
	}{
		{[]policies.Violation{{Rule: "names.caa", Temporary: true}}, 0},
		{[]policies.Violation{{Rule: "names.caa", Temporary: true}, {Rule: "key.compromised"}}, 1},
		{[]policies.Violation{{Rule: "key.compromised"}}, 2},
	} {
		why := &policies.Refusal{Profile: "tls-server", Violations: one.violations}
		var refusal *policies.Refusal
		if err := c.closeRefused(context.Background(), request, why); !errors.As(err, &refusal) || store.closed != one.closed {
			t.Errorf("%v: closed %d, want %d: %v", one.violations, store.closed, one.closed, err)
		}
	}
}
