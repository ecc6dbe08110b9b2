package ca

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/policies"
)

// askedBy is a store of what one actor has asked persons to approve.
type askedBy struct {
	Store
	by    access.Actor
	votes []access.Actor // who has approved it
}

func (a *askedBy) WaitingRequest(context.Context, string) (WaitingRequest, error) {
	w := WaitingRequest{Request: Request{ID: "r", Namespace: "web"}, Actor: a.by, Status: StatusWaiting, ExpiresAt: time.Now().Add(time.Hour)}
	for _, v := range a.votes {
		w.Approvals = append(w.Approvals, ApprovalRecord{Approval: policies.Approval{Person: v.Person, Actor: v.ID}, Approved: true})
	}
	return w, nil
}

func (a *askedBy) RevocationJob(context.Context, string) (RevocationJob, error) {
	j := RevocationJob{ID: "j", Namespace: "web", Actor: a.by, Needs: 3, ExpiresAt: time.Now().Add(time.Hour)}
	for _, v := range a.votes {
		j.Votes = append(j.Votes, RevocationVote{Person: v.Person, ActorID: v.ID, Approves: true})
	}
	return j, nil
}

func (a *askedBy) Orders(context.Context, string, int) ([]ActOrder, error) {
	o := ActOrder{ID: "o", Actor: a.by.ID, Person: a.by.Person, Needs: 3, ExpiresAt: time.Now().Add(time.Hour)}
	for _, v := range a.votes {
		o.Votes = append(o.Votes, OrderVote{Person: v.Person, Actor: v.ID, Approves: true})
	}
	return []ActOrder{o}, nil
}

func (a *askedBy) RulingPolicies(context.Context) (PolicyActivation, error) {
	return PolicyActivation{}, nil
}

func (a *askedBy) PolicyProposals(context.Context, string, int) ([]PolicyProposal, error) {
	p := PolicyProposal{ID: "p", ActorID: a.by.ID, Person: a.by.Person, Needs: 3, ExpiresAt: time.Now().Add(time.Hour)}
	for _, v := range a.votes {
		p.Votes = append(p.Votes, PolicyVote{Person: v.Person, ActorID: v.ID, Approves: true})
	}
	return []PolicyProposal{p}, nil
}

// A user of the machine of whom nobody says which person that is decides on nothing, and what such a user asked for is approved by nobody:
// either might be the one person that both are. Only an order waits for two others then. Nobody decides on what the same credential asked
// for either, whichever person it was then.
func TestWhoIsUnnamedTakesNoPartInApprovals(t *testing.T) {
	t.Parallel()
	const all = access.AllNamespaces
	unnamed := access.Actor{ID: "local:ada", Person: "local:ada", Namespace: all, Roles: []access.Role{access.Approver, access.Revoker}}
	named := access.Actor{ID: "token-1", Person: "ada", Namespace: all, Roles: unnamed.Roles}
	renamed := named // one login of which two rules say that it is two persons
	renamed.Person = "ada@dev.example"
	for name, c := range map[string]struct {
		by, says        access.Actor
		approved, other error // of what an order is not: of requests and jobs
		order           error
	}{
		"an unnamed approver": {by: named, says: unnamed, approved: ErrUnnamed, other: ErrUnnamed, order: ErrUnnamed},
		"an unnamed asker":    {by: unnamed, says: named, approved: ErrUnnamed},
		"the same, unnamed":   {by: unnamed, says: unnamed, approved: ErrUnnamed, other: ErrUnnamed, order: ErrUnnamed},
		"the same, named":     {by: named, says: named, approved: ErrOwnRequest, order: ErrOwnRequest},
		"the same, renamed":   {by: named, says: renamed, approved: ErrOwnRequest, order: ErrOwnRequest},
	} {
		office := publishing(&askedBy{by: c.by}, time.Now)
		office.ruling.Store(&ruling{set: &policies.Set{}})
		ctx := t.Context()
		_, err := office.Approve(ctx, ApproveOrder{Actor: c.says, Request: "r"})
		if !errors.Is(err, c.approved) {
			t.Errorf("%s, a request: %v", name, err)
		}
		if _, err = office.DecideOnRevocation(ctx, c.says, RevocationDecision{Job: "j", Approves: true}); !errors.Is(err, c.approved) {
			t.Errorf("%s, a revocation: %v", name, err)
		}
		policy := c.approved
		if errors.Is(policy, ErrOwnRequest) {
			policy = ErrOwnProposal
		}
		if _, err = office.DecideOnPolicies(ctx, c.says, PolicyDecision{Proposal: "p", Approves: true}); !errors.Is(err, policy) {
			t.Errorf("%s, policies: %v", name, err)
		}
		if c.other != nil { // a word against it has further to go, to a store that is not here
			if _, err = office.Reject(ctx, ApproveOrder{Actor: c.says, Request: "r"}); !errors.Is(err, c.other) {
				t.Errorf("%s, against a request: %v", name, err)
			}
			if _, err = office.DecideOnRevocation(ctx, c.says, RevocationDecision{Job: "j"}); !errors.Is(err, c.other) {
				t.Errorf("%s, against a revocation: %v", name, err)
			}
		}
		if c.order != nil {
			if _, err = office.DecideOnOrder(ctx, c.says, OrderDecision{Order: "o", Approves: true}); !errors.Is(err, c.order) {
				t.Errorf("%s, an order: %v", name, err)
			}
		}
	}
}

// One login of which two rules say that it is two persons, by the claims that it has each time, approves once.
func TestOneCredentialApprovesOnce(t *testing.T) {
	t.Parallel()
	by := access.Actor{ID: "token-1", Person: "ada", Namespace: access.AllNamespaces, Roles: []access.Role{access.Revoker}}
	bob := access.Actor{ID: "oidc:bob", Person: "bob", Namespace: access.AllNamespaces, Roles: []access.Role{access.Approver}}
	renamed := bob
	renamed.Person = "bob@dev.example"
	office := publishing(&askedBy{by: by, votes: []access.Actor{bob}}, time.Now)
	office.ruling.Store(&ruling{set: &policies.Set{}})
	ctx := t.Context()
	if _, err := office.Approve(ctx, ApproveOrder{Actor: renamed, Request: "r"}); !errors.Is(err, ErrApprovalIdle) {
		t.Errorf("a request: %v", err)
	}
	if _, err := office.DecideOnRevocation(ctx, renamed, RevocationDecision{Job: "j", Approves: true}); !errors.Is(err, ErrVotedAlready) {
		t.Errorf("a revocation: %v", err)
	}
	if _, err := office.DecideOnPolicies(ctx, renamed, PolicyDecision{Proposal: "p", Approves: true}); !errors.Is(err, ErrVotedAlready) {
		t.Errorf("policies: %v", err)
	}
	if _, err := office.DecideOnOrder(ctx, renamed, OrderDecision{Order: "o", Approves: true}); !errors.Is(err, ErrVotedAlready) {
		t.Errorf("an order: %v", err)
	}
}

// Only what needs an approval is kept from an unnamed user.
func TestWhoIsUnnamedRevokesAsManyAsOneMay(t *testing.T) {
	t.Parallel()
	c := publishing(nil, time.Now)
	c.bulk.ApproveAbove = 5
	for total, want := range map[int]error{5: nil, 6: ErrUnnamed} {
		job := RevocationJob{
			ID: c.newID(), EventID: c.newID(), Actor: access.Actor{ID: "local:ada", Person: "local:ada"}, Total: total, AskedAt: time.Now(),
		}
		if _, err := c.readyJob(&job); !errors.Is(err, want) {
			t.Errorf("%d certificates: %v", total, err)
		}
	}
}

// votedOn keeps what is said to a proposal.
type votedOn struct {
	askedBy
	vote PolicyVote
}

func (v *votedOn) VoteOnPolicies(_ context.Context, _ string, said PolicyVote, _ audit.Leaf, _ PolicyActivation, _ audit.Leaf) (bool, error) {
	v.vote = said
	return false, nil
}

// A proposal needs what the configuration asks for now, where that is more than when it was made; one of a signal two approvals at least.
func TestAProposalNeedsWhatTheConfigurationAsksFor(t *testing.T) {
	t.Parallel()
	admin := access.Actor{ID: "token-1", Person: "ada"}
	bob := access.Actor{ID: "token-2", Person: "bob", Namespace: access.AllNamespaces, Roles: []access.Role{access.Approver}}
	for approvals, want := range map[int]int{2: 3, 4: 4} { // it was made with three
		store := &votedOn{askedBy: askedBy{by: admin}}
		office := publishing(store, time.Now)
		office.plan.Approvals = approvals
		office.ruling.Store(&ruling{set: &policies.Set{}})
		decided, err := office.DecideOnPolicies(t.Context(), bob, PolicyDecision{Proposal: "p"})
		if err != nil || decided.Needs != want || store.vote.Needs != want {
			t.Errorf("where %d are asked for it needs %d, and the store is told %d, %v; want %d", approvals, decided.Needs, store.vote.Needs, err, want)
		}
		if all, err := office.PolicyProposals(t.Context(), bob); err != nil || all[0].Needs != want {
			t.Errorf("where %d are asked for %+v is shown, %v", approvals, all, err)
		}
	}
	if n := publishing(nil, time.Now).approvalsOf(access.Service); n != unnamedNeeds {
		t.Errorf("of a signal it needs %d", n)
	}
}
