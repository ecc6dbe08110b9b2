package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/client"
)

// TestUsersOfTheMachineAreNobodyInApprovals: who comes by the local socket, and of whom the configuration does not say which person that
// is, has whatever needs no approval, asks for nothing that does, and approves nothing: the same human may hold a token besides. Listed in
// orders.persons, the user is the person who holds the token.
func TestUsersOfTheMachineAreNobodyInApprovals(t *testing.T) {
	t.Parallel()
	q := newQueueStack(t)
	sockets := t.TempDir()
	start := func(name, user, person string) *replica {
		q.more = fmt.Sprintf(`orders: {persons: {%q: %s}}
identities:
  - {name: tools, local: {uid: ["%[3]d"]}, namespace: dev, roles: [requester, revoker]}
  - {name: glass, local: {uid: ["%[3]d"]}, namespace: "*", roles: [policy-admin, approver], emergency: true}
`, user, person, os.Getuid())
		return q.start(name, "CHANCERY_LISTEN_LOCAL="+filepath.Join(sockets, name), "CHANCERY_REVOCATION_APPROVE_ABOVE=1",
			"CHANCERY_POLICIES_ACTIVATION_APPROVALS=1")
	}
	local := func(name, emergency string) *client.Client {
		c, err := client.New(client.Config{BaseURL: "unix://" + filepath.Join(sockets, name), Emergency: emergency})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return c
	}
	issue := func(c *client.Client, host string) string {
		t.Helper()
		issued, err := c.Request(t.Context(), client.RequestInput{Profile: "tls-server", CSR: newRequest(t, host)})
		if err != nil {
			t.Fatalf("a certificate that needs no approval: %v", err)
		}
		return issued.Serial
	}
	many := func(serials ...string) client.RevokeManyInput {
		return client.RevokeManyInput{Selection: client.Selection{Serials: serials}, Reason: "superseded"}
	}
	refused := func(what string, err error) {
		t.Helper()
		var problem *client.Problem
		if !errors.As(err, &problem) || problem.Status != http.StatusForbidden || !strings.Contains(problem.Detail, "orders.persons") {
			t.Errorf("%s: %v, want a refusal that says what to do", what, err)
		}
	}

	one := start("one", "somebody-else", "carol")
	unnamed, glass := local("one", ""), local("one", "rehearsal")
	serials := []string{issue(unnamed, "a.dev.example"), issue(unnamed, "b.dev.example"), issue(unnamed, "c.dev.example")}
	_, err := unnamed.Request(t.Context(), client.RequestInput{Profile: "guarded", CSR: newRequest(t, "guarded.dev.example")})
	refused("a request that needs approval", err)
	_, err = unnamed.RevokeMany(t.Context(), many(serials...))
	refused("a revocation that needs approval", err)
	if _, err := unnamed.RevokeMany(t.Context(), many(serials[0])); err != nil {
		t.Errorf("a revocation that needs none: %v", err)
	}
	q.write("guarded", guarded(2, "")+"# changed\n")
	_, err = glass.ReloadPolicies(t.Context(), "rehearsal")
	refused("policies that need approval", err)
	asked := q.want(q.ask(one, newRequest(t, "asked.dev.example"), ""), http.StatusAccepted)
	_, err = glass.Approve(t.Context(), asked.ID, client.Word{})
	refused("approving", err)
	_, err = glass.Reject(t.Context(), asked.ID, client.Word{Comment: "no"})
	refused("rejecting", err)
	for w, err := range unnamed.Requests(t.Context(), client.RequestFilter{}) {
		if err != nil || w.ID != asked.ID || len(w.Approvals) != 0 {
			t.Errorf("what was refused is on record: %+v, %v", w, err)
		}
	}

	two := start("two", strings.TrimPrefix(operator(), localActor), "alice")
	named := local("two", "")
	_, err = named.Request(t.Context(), client.RequestInput{Profile: "guarded", CSR: newRequest(t, "guarded.dev.example")})
	var waiting *client.Waiting
	if !errors.As(err, &waiting) || waiting.Request.Requester.Person != "alice" {
		t.Fatalf("a request of a person: %v", err)
	}
	if got := q.approve("alice", two, waiting.Request.ID); got.status != http.StatusForbidden {
		t.Errorf("the same person with a token: %d %s", got.status, got.body)
	}
	for _, person := range []string{"bob", "carol"} {
		q.want(q.approve(person, two, waiting.Request.ID), http.StatusOK)
	}
	ordered, err := named.RevokeMany(t.Context(), many(serials[1:]...))
	if err != nil || ordered.Job == nil || ordered.Job.Status != client.JobWaiting {
		t.Fatalf("a revocation by a person: %+v, %v", ordered, err)
	}
	path := "/api/v1/revocations/" + ordered.Job.ID + "/approve"
	if got := q.as("alice", two, http.MethodPost, path, nil, map[string]string{}); got.status != http.StatusForbidden {
		t.Errorf("the same person with a token: %d %s", got.status, got.body)
	}
	q.want(q.as("bob", two, http.MethodPost, path, nil, map[string]string{}), http.StatusOK)
}
