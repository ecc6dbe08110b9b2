package web

import (
	"net/http"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
)

// plainProfile is the smallest sound profile.
const plainProfile = `name: plain
description: For tests.
keys: {ecdsa: {curves: [P-256], key_usage: [digitalSignature]}}
ext_key_usage: [serverAuth]
validity: {default: 30d, max: 90d}
names: {min: 1, dns: {}}
lint: {sources: [RFC5280]}
`

func TestPoliciesAreRead(t *testing.T) {
	s := newSurface(t)
	state := decode[PolicyState](t, s.call(ask{path: "/api/v1/policies", role: access.Auditor}), http.StatusOK)
	if state.Ruling != s.office.policies.Digest() || len(state.Activations) != 1 || state.Activations[0].Digest != state.Ruling {
		t.Errorf("what rules is not shown: %+v", state)
	}
	if p := state.Proposals[0]; p.State != "open" || p.Needs != 2 || len(p.Votes) != 1 || p.Votes[0].Person != "Ann" {
		t.Errorf("the proposal is shown as %+v", p)
	}
	for _, name := range []string{"ruling", state.Ruling} {
		set := decode[PolicySet](t, s.call(ask{path: "/api/v1/policies/" + name, role: access.Auditor}), http.StatusOK)
		if set.Digest != state.Ruling || !strings.Contains(set.Files["tls-server.yaml"], "name: tls-server") {
			t.Errorf("%s: %s with %d files", name, set.Digest, len(set.Files))
		}
	}
	for _, name := range []string{"sha256:" + strings.Repeat("0", 64), "sha256:0", "other"} {
		wantProblem(t, s.call(ask{path: "/api/v1/policies/" + name, role: access.Auditor}), http.StatusNotFound, "not-found")
	}
}

func TestPoliciesAreChanged(t *testing.T) {
	s := newSurface(t)
	files := map[string]string{}
	for _, f := range s.office.policies.Files() {
		files[f.Name] = string(f.Content)
	}
	a := ask{method: http.MethodPost, path: "/api/v1/policies", role: access.PolicyAdmin}
	change := decode[PolicyChange](t, s.call(a.json(ChangePoliciesRequest{Files: files, Comment: "as before"})), http.StatusOK)
	if change.State != "proposed" || change.Digest != s.office.policies.Digest() || change.Proposal == nil || change.Activation != nil {
		t.Errorf("proposing: %+v", change)
	}
	// What is wrong is told with file and line, and every other problem too.
	files["tls-server.yaml"] = strings.Replace(files["tls-server.yaml"], "name: tls-server", "name: tls-server\nname: twice", 1)
	files["../up.yaml"] = "x"
	delete(files, "tls-public.yaml")
	p := wantProblem(t, s.call(a.json(ChangePoliciesRequest{Files: files})), http.StatusUnprocessableEntity, "unsound-policies")
	wantRule(t, p, "policy.load")
	delete(files, "../up.yaml")
	p = wantProblem(t, s.call(a.json(ChangePoliciesRequest{Files: files})), http.StatusUnprocessableEntity, "unsound-policies")
	if v := p.Violations[0]; !strings.HasPrefix(v.Field, "tls-server.yaml:") || !strings.Contains(v.Message, "twice") {
		t.Errorf("the place is told as %+v", v)
	}
	wantProblem(t, s.call(a.json(ChangePoliciesRequest{Files: files, Comment: "\x07"})), http.StatusBadRequest, "invalid")

	a.path = "/api/v1/policies/reload"
	if change := decode[PolicyChange](t, s.call(a.json(CommentRequest{})), http.StatusOK); change.State != "unchanged" {
		t.Errorf("reloading: %+v", change)
	}
}

func TestProposalsAreDecidedOn(t *testing.T) {
	s := newSurface(t)
	a := ask{method: http.MethodPost, path: "/api/v1/policies/proposals/p-1/approve", role: access.Approver}
	if p := decode[PolicyProposal](t, s.call(a.json(CommentRequest{Comment: "fine"})), http.StatusOK); p.State != "activated" ||
		p.Votes[1].Comment != "fine" {
		t.Errorf("approved: %+v", p)
	}
	a.path = "/api/v1/policies/proposals/p-1/reject"
	if p := decode[PolicyProposal](t, s.call(a.json(CommentRequest{})), http.StatusOK); p.State != "rejected" {
		t.Errorf("rejected: %+v", p)
	}
	for err, want := range map[error]string{
		ca.ErrOwnProposal: "denied", ca.ErrProposalClosed: "conflict", ca.ErrVotedAlready: "conflict", ca.ErrPoliciesMoved: "conflict",
		ca.ErrNotFound: "not-found",
	} {
		s.office.err = err
		status := map[string]int{"denied": http.StatusForbidden, "conflict": http.StatusConflict, "not-found": http.StatusNotFound}[want]
		wantProblem(t, s.call(a.json(CommentRequest{})), status, want)
	}
}
