package ca

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/issuance"
)

// unsettled is a store with open intents, of which some cannot be settled.
type unsettled struct {
	Store
	open    []OpenIntent
	failing map[issuance.Serial]error
	settled int
}

func (u *unsettled) ClaimExpiredIntents(context.Context, Replica, time.Duration, int) (claimed []OpenIntent, err error) {
	claimed, u.open = u.open, nil
	return claimed, nil
}

func (u *unsettled) SettleIntent(_ context.Context, _ Replica, o Settlement, _ ...audit.Leaf) error {
	if err := u.failing[o.Serial]; err != nil {
		return err
	}
	u.settled++
	return nil
}

// An intent that cannot be settled does not keep those after it open.
func TestOneIntentKeepsNoOtherOpen(t *testing.T) {
	odd := errors.New("the database refuses it")
	for _, one := range []struct {
		failure error
		settled int
	}{
		{odd, 2},
		{fmt.Errorf("claimed by another: %w", ErrIntentLost), 2},
		{fmt.Errorf("away: %w", ErrUnavailable), 0}, // it would fail for the others, too
	} {
		store := &unsettled{failing: map[issuance.Serial]error{{1}: one.failure}}
		for n := range 3 {
			store.open = append(store.open, OpenIntent{Issuer: "issuing-1", Serial: issuance.Serial{byte(n + 1)}, Kind: issuance.Final})
		}
		settled, err := publishing(store, time.Now).Recover(context.Background())
		if settled != one.settled || store.settled != one.settled || (err == nil) != errors.Is(one.failure, ErrIntentLost) {
			t.Errorf("%v: settled %d, want %d; %v", one.failure, settled, one.settled, err)
		}
	}
}
