package policies

import (
	"errors"
	"testing"

	"github.com/chancery-ca/chancery/csr/csrtest"
)

// A request is decided on again without its proof, and such a decision grants nothing.
func TestReplayingGrantsNothing(t *testing.T) {
	set, r := shippedSet(t), benign(t)
	d := set.Replay(r)
	if d.Verdict() != Allow {
		t.Fatalf("replayed: %s %+v", d.Verdict(), d.Violations())
	}
	if grant, err := d.Grant(); grant != nil || !errors.Is(err, ErrUndecided) {
		t.Errorf("a replayed decision grants %v, %v", grant, err)
	}
	if grant, err := set.Decide(r).Grant(); err != nil || !grant.Valid() {
		t.Errorf("decided on: %v", err)
	}
	b := csrtest.Base()
	b.RawSPKI, b.Key = spkiOf(t, b.Key.Public()), authorityTestKey() // signed by another key than it holds
	r.CSR = parseCSR(t, b)
	if d := set.Decide(r); d.Verdict() != Refuse {
		t.Errorf("an unproven request: %s", d.Verdict())
	}
	if d := set.Replay(r); d.Verdict() != Allow {
		t.Errorf("replayed without its proof: %s %+v", d.Verdict(), d.Violations())
	}
}
