package ca

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/approval"
	"github.com/chancery-ca/chancery/audit"
)

// ordering is a store of one order.
type ordering struct {
	Store
	order ActOrder
}

func (o *ordering) RecordOrder(_ context.Context, placed ActOrder, _ ...audit.Leaf) error {
	o.order = placed
	return nil
}

func (o *ordering) Orders(context.Context, string, int) ([]ActOrder, error) {
	return []ActOrder{o.order}, nil
}

func (o *ordering) UseOrder(context.Context, string, string, time.Time, string, ...audit.Leaf) error {
	return nil
}

// Two persons stand behind every order: whoever placed it and another or, where it is not known who that was, two others.
func TestTwoPersonsStandBehindAnOrder(t *testing.T) {
	facts := []approval.Fact{{Name: "key_label", Value: "old"}}
	for name, c := range map[string]struct {
		person   string // of who places it
		asked    int
		approved []string
		ready    bool
	}{
		"unnamed, one approval":      {"", 1, []string{"ada"}, false},
		"unnamed, two approvals":     {"", 1, []string{"ada", "bob"}, true},
		"unnamed, one person twice":  {"", 1, []string{"ada", "ada"}, false},
		"unnamed, as many as asked":  {"", 3, []string{"ada", "bob"}, false},
		"named, another approves":    {"ada", 1, []string{"bob"}, true},
		"named, approves the own":    {"ada", 1, []string{"ada"}, false},
		"named, as many as asked":    {"ada", 2, []string{"bob"}, false},
		"named, the own among three": {"ada", 2, []string{"ada", "bob", "carl"}, true},
		"one login, two persons":     {"ada", 2, []string{"bob by login", "bobby by login"}, false},
		"by the login of the own":    {"ada", 1, []string{"bob by local:ada"}, false},
	} {
		store := &ordering{}
		r := Registrar{
			Store: store, Now: time.Now, NewID: func() string { return "01890a5d-ac96-774b-bcce-b302099a8057" },
			Actor: "local:ada", Person: c.person,
		}
		o, err := r.PlaceOrder(t.Context(), OrderDestroyKey, facts, c.asked, false, "")
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range c.approved {
			person, login, _ := strings.Cut(word, " by ")
			store.order.Votes = append(store.order.Votes, OrderVote{Person: person, Actor: cmp.Or(login, "token of "+person), Approves: true})
		}
		store.order.Needs = 1 // as of a program that did not know better
		if _, err := r.UseOrder(t.Context(), o.ID, OrderDestroyKey, facts, c.asked, false); (err == nil) != c.ready ||
			err != nil && !errors.Is(err, ErrOrderNotReady) {
			t.Errorf("%s: needs %d, %v", name, o.Needs, err)
		}
	}
}
