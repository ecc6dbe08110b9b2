package storage_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/policies"
)

func filesOf(content string) []policies.File {
	return []policies.File{{Name: "a.yaml", Content: []byte(content)}, {Name: "b.yaml", Content: []byte("b: \x00\xff")}}
}

func activation(number int64, digest string) ca.PolicyActivation {
	return ca.PolicyActivation{Number: number, Digest: digest, ActorID: "a", ActorName: "op", Comment: "because", At: now(), EventID: newID()}
}

func proposal(digest string, needs int) ca.PolicyProposal {
	return ca.PolicyProposal{
		ID: newID(), Digest: digest, Replaces: "sha256:1", Needs: needs, ActorID: "a", ActorName: "op", Person: "Olga", Comment: "tighter", At: now(),
		ExpiresAt: now().Add(time.Hour), EventID: newID(),
	}
}

func vote(person string, approves bool) ca.PolicyVote {
	return ca.PolicyVote{Person: person, Approves: approves, ActorID: "id of " + person, ActorName: person, Comment: "yes", At: now(), EventID: newID()}
}

func (f *fixture) votes(p ca.PolicyProposal, v ca.PolicyVote, a ca.PolicyActivation) (bool, error) {
	a.Proposal, a.Digest = p.ID, p.Digest
	return f.VoteOnPolicies(context.Background(), p.ID, v, leafWithID(f.t, v.EventID, audit.PolicyApproved), a, leafWithID(f.t, a.EventID, audit.PolicyActivated))
}

func TestPoliciesRuleOneAfterTheOther(t *testing.T) {
	f, ctx := setUp(t), context.Background()
	if _, err := f.RulingPolicies(ctx); !errors.Is(err, ca.ErrNotFound) {
		t.Fatalf("before the first: %v", err)
	}
	first := activation(1, "sha256:1")
	if err := f.ActivatePolicies(ctx, first, filesOf("one"), leaf(t, audit.PolicyActivated)); err != nil {
		t.Fatal(err)
	}
	for _, number := range []int64{1, 3} { // too low, too high: somebody else was there, or will be
		if err := f.ActivatePolicies(ctx, activation(number, "sha256:2"), filesOf("two"), leaf(t, audit.PolicyActivated)); !errors.Is(err, ca.ErrFenced) {
			t.Errorf("number %d: %v", number, err)
		}
	}
	f.wantCounts("policy_activations", 1, "policy_sets", 1, "audit_leaves", 1)
	for number, digest := range map[int64]string{2: "sha256:2"} {
		if err := f.ActivatePolicies(ctx, activation(number, digest), filesOf("two"), leaf(t, audit.PolicyActivated)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.ActivatePolicies(ctx, activation(3, "sha256:1"), filesOf("one"), leaf(t, audit.PolicyActivated)); err != nil {
		t.Fatal(err) // the first set comes back
	}
	f.wantCounts("policy_activations", 3, "policy_sets", 2, "audit_leaves", 3)
	ruling, err := f.RulingPolicies(ctx)
	if err != nil || ruling.Number != 3 || ruling.Digest != "sha256:1" {
		t.Errorf("%+v rules, %v", ruling, err)
	}
	all, err := f.PolicyActivations(ctx, "", 10)
	if err != nil || len(all) != 3 || all[2] != first {
		t.Errorf("the history is %+v, %v", all, err)
	}
	one, err := f.PolicyActivations(ctx, "sha256:2", 10)
	if err != nil || len(one) != 1 || one[0].Number != 2 {
		t.Errorf("of one set it is %+v, %v", one, err)
	}
	files, err := f.PolicyFiles(ctx, "sha256:2")
	if err != nil || len(files) != 2 || string(files[0].Content) != "two" || string(files[1].Content) != "b: \x00\xff" {
		t.Errorf("the files are %q, %v", files, err)
	}
	if _, err := f.PolicyFiles(ctx, "sha256:3"); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("a set that never was: %v", err)
	}
}

// Of many who activate at once, one succeeds, and the others are told.
func TestOneActivationAtATime(t *testing.T) {
	f := setUp(t)
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		a, l := activation(1, "sha256:1"), leaf(t, audit.PolicyActivated)
		wg.Go(func() { errs[i] = f.ActivatePolicies(context.Background(), a, filesOf("one"), l) })
	}
	wg.Wait()
	succeeded := 0
	for _, err := range errs {
		if err == nil {
			succeeded++
		} else if !errors.Is(err, ca.ErrFenced) {
			t.Error(err)
		}
	}
	if succeeded != 1 {
		t.Errorf("%d succeeded", succeeded)
	}
	f.wantCounts("policy_activations", 1, "audit_leaves", 1)
}

// TestAProposalNeedsWhatIsAskedForNow: when more approvals are asked for than a proposal was made with, these are needed.
func TestAProposalNeedsWhatIsAskedForNow(t *testing.T) {
	f, ctx := setUp(t), context.Background()
	if err := f.ActivatePolicies(ctx, activation(1, "sha256:1"), filesOf("one"), leaf(t, audit.PolicyActivated)); err != nil {
		t.Fatal(err)
	}
	p := proposal("sha256:2", 1)
	if err := f.ProposePolicies(ctx, p, filesOf("two"), leaf(t, audit.PolicyProposed)); err != nil {
		t.Fatal(err)
	}
	for i, person := range []string{"Ada", "Bob"} {
		v := vote(person, true)
		v.Needs = 2
		if rules, err := f.votes(p, v, activation(2, "")); err != nil || rules != (i == 1) {
			t.Errorf("with the approval of %s it rules: %v, %v", person, rules, err)
		}
	}
}

func TestAProposalRulesWithItsLastApproval(t *testing.T) {
	f, ctx := setUp(t), context.Background()
	if err := f.ActivatePolicies(ctx, activation(1, "sha256:1"), filesOf("one"), leaf(t, audit.PolicyActivated)); err != nil {
		t.Fatal(err)
	}
	p := proposal("sha256:2", 2)
	if err := f.ProposePolicies(ctx, p, filesOf("two"), leaf(t, audit.PolicyProposed)); err != nil {
		t.Fatal(err)
	}
	ann := vote("Ann", true)
	if rules, err := f.votes(p, ann, activation(2, "")); rules || err != nil {
		t.Fatalf("the first of two: %v, %v", rules, err)
	}
	if _, err := f.votes(p, vote("Ann", true), activation(2, "")); !errors.Is(err, ca.ErrExists) {
		t.Errorf("the same person again: %v", err)
	}
	if _, err := f.votes(p, vote("Bob", true), activation(5, "")); !errors.Is(err, ca.ErrFenced) {
		t.Errorf("when other policies rule: %v", err)
	}
	f.wantCounts("policy_votes", 1, "policy_activations", 1, "audit_leaves", 3)
	if rules, err := f.votes(p, vote("Bob", true), activation(2, "")); !rules || err != nil {
		t.Fatalf("the second of two: %v, %v", rules, err)
	}
	if _, err := f.votes(p, vote("Cid", true), activation(3, "")); !errors.Is(err, ca.ErrProposalClosed) {
		t.Errorf("one too many: %v", err)
	}
	f.wantCounts("policy_votes", 2, "policy_activations", 2, "audit_leaves", 5)
	found, err := f.PolicyProposals(ctx, p.ID, 1)
	if err != nil || len(found) != 1 || !found[0].Activated || len(found[0].Votes) != 2 || found[0].Votes[0] != ann || found[0].Person != "Olga" {
		t.Errorf("the proposal is %+v, %v", found, err)
	}
	if ruling, err := f.RulingPolicies(ctx); err != nil || ruling.Proposal != p.ID || ruling.Digest != "sha256:2" {
		t.Errorf("%+v rules, %v", ruling, err)
	}
}

// TestAnotherSetEndsAProposal: a proposal does not come back with the set that it was to replace. Its approvers agreed to something else.
func TestAnotherSetEndsAProposal(t *testing.T) {
	f, ctx := setUp(t), context.Background()
	at, p := now(), proposal("sha256:2", 2)
	p.At = at.Add(-time.Millisecond) // by a clock that is a little behind
	states := func(p ca.PolicyProposal, want string) {
		t.Helper()
		found, err := f.PolicyProposals(ctx, p.ID, 1)
		if err != nil || len(found) != 1 || found[0].State(at, "sha256:1") != want {
			t.Errorf("%+v, %v; want it %s", found, err, want)
		}
	}
	for number, digest := range []string{"sha256:0", "sha256:1", "sha256:3", "sha256:1"} {
		a := activation(int64(number)+1, digest)
		if a.At = at.Add(time.Duration(number-1) * time.Second); number == 1 {
			if err := f.ProposePolicies(ctx, p, filesOf("two"), leaf(t, audit.PolicyProposed)); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.ActivatePolicies(ctx, a, filesOf(digest), leaf(t, audit.PolicyActivated)); err != nil {
			t.Fatal(err)
		}
		if number == 1 {
			states(p, "open")
		}
	}
	states(p, "superseded")
	own := proposal("sha256:2", 1)
	own.At = at.Add(time.Minute)
	if err := f.ProposePolicies(ctx, own, filesOf("two"), leaf(t, audit.PolicyProposed)); err != nil {
		t.Fatal(err)
	}
	last := activation(5, "")
	last.At = at.Add(time.Hour)
	if rules, err := f.votes(own, vote("Ann", true), last); !rules || err != nil {
		t.Fatal(rules, err)
	}
	states(own, "activated")
}

func TestARejectionEndsAProposal(t *testing.T) {
	f, ctx := setUp(t), context.Background()
	p := proposal("sha256:2", 1)
	if err := f.ProposePolicies(ctx, p, filesOf("two"), leaf(t, audit.PolicyProposed)); err != nil {
		t.Fatal(err)
	}
	if rules, err := f.votes(p, vote("Ann", false), activation(1, "")); rules || err != nil {
		t.Fatal(rules, err)
	}
	if _, err := f.votes(p, vote("Bob", true), activation(1, "")); !errors.Is(err, ca.ErrProposalClosed) {
		t.Errorf("an approval after it: %v", err)
	}
	p.ID = newID()
	if _, err := f.votes(p, vote("Bob", true), activation(1, "")); !errors.Is(err, ca.ErrNotFound) {
		t.Errorf("of nothing: %v", err)
	}
	f.wantCounts("policy_votes", 1, "policy_activations", 0, "audit_leaves", 2)
	all, err := f.PolicyProposals(ctx, "", 10)
	if err != nil || len(all) != 1 || all[0].State(now(), "sha256:1") != "rejected" {
		t.Errorf("the proposals are %+v, %v", all, err)
	}
}

// One login that votes twice at once, as two persons, is one approver: neither vote has seen the other, and the count does.
func TestOneLoginIsOneApprover(t *testing.T) {
	t.Parallel()
	f, ctx := setUp(t), context.Background()
	f.issue()
	p := proposal("sha256:2", 2)
	if err := f.ProposePolicies(ctx, p, filesOf("two"), leaf(t, audit.PolicyProposed)); err != nil {
		t.Fatal(err)
	}
	j, _ := f.order(everywhere, newJob(issuance.Superseded), 2)
	for _, c := range []struct {
		person, login string
		decided       bool
	}{{"bob", "oidc:1", false}, {"bobby", "oidc:1", false}, {"carol", "oidc:2", true}} {
		v := vote(c.person, true)
		v.ActorID = c.login
		if rules, err := f.votes(p, v, activation(1, "")); rules != c.decided || err != nil {
			t.Errorf("policies, approved by %s: they rule: %t, %v", c.person, rules, err)
		}
		r := ca.RevocationVote{Person: c.person, Approves: true, Digest: j.Digest, ActorID: c.login, ActorName: "n", At: now(), EventID: newID()}
		if err := f.VoteOnRevocation(ctx, j.ID, r, leafWithID(t, r.EventID, audit.RevocationApproved)); err != nil {
			t.Fatal(err)
		}
		if j, err := f.RevocationJob(ctx, j.ID); err != nil || j.ApprovedAt.IsZero() == c.decided {
			t.Errorf("a revocation, approved by %s: since %v, %v", c.person, j.ApprovedAt, err)
		}
	}
}

// Two who give the last two approvals at once count each other.
func TestApprovalsAtOnceAreCounted(t *testing.T) {
	f, ctx := setUp(t), context.Background()
	for range 5 {
		before := f.count("policy_activations")
		p := proposal("sha256:2", 2)
		if err := f.ProposePolicies(ctx, p, filesOf("two"), leaf(t, audit.PolicyProposed)); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		var ruled [2]bool
		for i, person := range []string{"Ann", "Bob"} {
			v, a := vote(person, true), activation(int64(before)+1, "")
			wg.Go(func() {
				var err error
				if ruled[i], err = f.votes(p, v, a); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if ruled[0] == ruled[1] {
			t.Errorf("ruled: %v", ruled)
		}
		f.wantCounts("policy_activations", before+1)
	}
}
