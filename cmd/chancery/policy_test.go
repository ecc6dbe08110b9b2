package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/client"
	"github.com/chancery-ca/chancery/policies"
	"github.com/chancery-ca/chancery/storage"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// shippedIn puts the shipped profiles into a directory.
func shippedIn(t testing.TB, dir string) {
	t.Helper()
	set, err := policies.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range set.Files() {
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.Content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// edit replaces a text in a file that must hold it.
func edit(t testing.TB, path, old, by string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil || !bytes.Contains(content, []byte(old)) {
		t.Fatalf("%s does not hold %q: %v", path, old, err)
	}
	if err := os.WriteFile(path, bytes.Replace(content, []byte(old), []byte(by), 1), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (r *replica) clientOf(token string) *client.Client {
	r.s.t.Helper()
	c, err := client.New(client.Config{BaseURL: r.api, Token: token, CAFile: r.s.root()})
	if err != nil {
		r.s.t.Fatal(err)
	}
	r.s.t.Cleanup(c.Close)
	return c
}

// ruling is the digest by which a replica decides.
func (r *replica) ruling(t testing.TB) string {
	t.Helper()
	got, err := r.call(t.Context(), http.MethodGet, "/api/v1/profiles", access.Auditor, nil, nil)
	var list struct {
		PolicyVersion string `json:"policy_version"`
	}
	if err != nil || json.Unmarshal(got.body, &list) != nil {
		t.Fatalf("reading the profiles: %v: %s", err, got.body)
	}
	return list.PolicyVersion
}

// TestPoliciesAreReloaded changes the policies of running replicas: by signal, by the API, and by another replica's hand. While they
// change, requests go on, and each certificate names policies that ruled.
func TestPoliciesAreReloaded(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	dir := filepath.Join(s.dir, "profiles")
	shippedIn(t, dir)
	s.policies = fmt.Sprintf("{directory: %q}", dir)
	one, two := s.start("one", s.token.Module), s.start("two", s.token.Module)
	operator := one.clientOf(s.tokens[access.PolicyAdmin])
	ctx := t.Context()
	before := one.ruling(t)

	requests, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		for requests.Err() == nil {
			if _, got, err := two.issue(requests, "live.dev.example", nil); requests.Err() == nil &&
				(err != nil || got.status != http.StatusCreated) {
				done <- fmt.Errorf("while the policies changed: %d %s %v", got.status, got.body, err)
				return
			}
		}
		done <- nil
	}()

	// By a signal: what is wrong with the new files is refused, and the old ones go on.
	profile := filepath.Join(dir, "tls-server.yaml")
	edit(t, profile, "name: tls-server", "name: tls-server\nunknown: field")
	if err := one.process.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the refusal is in the log", func() bool { return strings.Contains(one.log.String(), "tls-server.yaml:") })
	_, err := operator.ReloadPolicies(ctx, "")
	var problem *client.Problem
	if !errors.As(err, &problem) || problem.Type != "urn:chancery:problem:unsound-policies" ||
		!strings.Contains(err.Error(), "unknown field") {
		t.Errorf("reloading an unsound set: %v", err)
	}
	if one.ruling(t) != before {
		t.Error("an unsound set rules")
	}
	edit(t, profile, "unknown: field\n", "")
	edit(t, profile, "description: ", "description: Since the signal. ")
	if err := one.process.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the new set rules on the replica that was told", func() bool { return one.ruling(t) != before })
	second := one.ruling(t)
	eventually(t, 20*time.Second, "and on the other", func() bool { return two.ruling(t) == second })

	// By the API.
	if change, err := operator.ReloadPolicies(ctx, "nothing new"); err != nil || change.State != "unchanged" || change.Digest != second {
		t.Errorf("reloading the same: %+v, %v", change, err)
	}
	edit(t, profile, "Since the signal. ", "Since the call. ")
	change, err := two.clientOf(s.tokens[access.PolicyAdmin]).ReloadPolicies(ctx, "a better description")
	if err != nil || change.State != "activated" || change.Activation.Number != 3 {
		t.Fatalf("reloading: %+v, %v", change, err)
	}
	eventually(t, 20*time.Second, "the first replica follows", func() bool { return one.ruling(t) == change.Digest })
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}

	// Each certificate names the policies that decided, and their files are kept.
	issued := s.database.Column(t, `SELECT DISTINCT policy_digest FROM certificates WHERE profile = 'tls-server'
		AND policy_digest NOT IN (SELECT digest FROM policy_activations)`)
	if len(issued) != 0 {
		t.Errorf("certificates name policies that never ruled: %v", issued)
	}
	auditor := one.clientOf(s.tokens[access.Auditor])
	old, err := auditor.PolicySet(ctx, before)
	if err != nil || strings.Contains(old.Files["tls-server.yaml"], "Since the") ||
		!strings.Contains(old.Files["tls-server.yaml"], "name: tls-server") {
		t.Errorf("what ruled at first is %v, %v", old, err)
	}
	leaves := s.database.Column(t, `SELECT convert_from(leaf, 'UTF8') FROM audit_leaves WHERE kind = 'policy.activated' ORDER BY written_at`)
	if len(leaves) != 3 || !strings.Contains(leaves[2], "comment_salted") || !strings.Contains(leaves[2], change.Digest) {
		t.Errorf("the audit log says %q", leaves)
	}

	// A restart with files that ruled once does not bring them back; new ones come to rule.
	two.stop()
	edit(t, profile, "Since the call. ", "Since the signal. ")
	again := s.start("two", s.token.Module)
	if got := again.ruling(t); got != change.Digest {
		t.Errorf("after a restart with old files %s rules", got)
	}
	again.stop()
	edit(t, profile, "Since the signal. ", "Since the restart. ")
	again = s.start("two", s.token.Module)
	if got := again.ruling(t); got == change.Digest || got == second {
		t.Errorf("after a restart with new files %s rules", got)
	}
	eventually(t, 20*time.Second, "the first replica follows the restarted one", func() bool { return one.ruling(t) == again.ruling(t) })
	again.stop()
	one.stop()
}

// approverToken makes a token for a person.
func (s *stack) approverToken(person string, roles ...access.Role) string {
	s.t.Helper()
	store, err := storage.Open(s.t.Context(), storage.Config{URL: s.database.URL, MaxConns: 2, Unsafe: s.unsafe})
	if err != nil {
		s.t.Fatal(err)
	}
	defer store.Close()
	token, err := s.app.createToken(s.t.Context(), store, ca.NewAPIToken{
		Name: person, Person: person, Namespace: access.AllNamespaces, Roles: roles,
	}, "test")
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}

// policiesNeeding is a stack whose policies, in dir, are changed with so many approvals.
func policiesNeeding(t *testing.T, approvals int) (s *stack, dir string) {
	t.Helper()
	s = newStack(t, storagetest.New(t), false)
	dir = filepath.Join(s.dir, "profiles")
	shippedIn(t, dir)
	s.policies = fmt.Sprintf("{directory: %q, activation: {approvals: %d}}", dir, approvals)
	return s, dir
}

// TestPoliciesNeedApprovals has a change of the policies agreed to by two persons.
func TestPoliciesNeedApprovals(t *testing.T) {
	t.Parallel()
	s, dir := policiesNeeding(t, 2)
	one := s.start("one", s.token.Module)
	ctx := t.Context()
	before := one.ruling(t)
	olga := one.clientOf(s.approverToken("Olga", access.PolicyAdmin, access.Approver))
	ann, bob := one.clientOf(s.approverToken("Ann", access.Approver)), one.clientOf(s.approverToken("Bob", access.Approver))
	annToo := one.clientOf(s.approverToken("Ann", access.Approver))
	status := func(err error) int {
		var problem *client.Problem
		if !errors.As(err, &problem) {
			t.Fatalf("no problem, but %v", err)
		}
		return problem.Status
	}
	propose := func(word string) *client.PolicyProposal {
		t.Helper()
		edit(t, filepath.Join(dir, "tls-server.yaml"), "description: ", "description: "+word+" ")
		change, err := olga.ReloadPolicies(ctx, word)
		if err != nil || change.State != "proposed" || change.Proposal.Needs != 2 || change.Proposal.Replaces != before {
			t.Fatalf("proposing: %+v, %v", change, err)
		}
		return change.Proposal
	}

	rival, p := propose("First."), propose("Second.")
	if _, err := olga.ApprovePolicies(ctx, p.ID, client.PolicyWord{Comment: ""}); status(err) != http.StatusForbidden {
		t.Errorf("her own proposal: %v", err)
	}
	if got, err := ann.ApprovePolicies(ctx, p.ID, client.PolicyWord{Comment: "read it"}); err != nil || got.State != "open" ||
		len(got.Votes) != 1 {
		t.Fatalf("the first approval: %+v, %v", got, err)
	}
	if _, err := annToo.ApprovePolicies(ctx, p.ID, client.PolicyWord{Comment: ""}); status(err) != http.StatusConflict {
		t.Errorf("the same person with another token: %v", err)
	}
	if one.ruling(t) != before {
		t.Error("one approval of two is enough")
	}
	if got, err := bob.ApprovePolicies(ctx, p.ID, client.PolicyWord{Comment: ""}); err != nil || got.State != "activated" {
		t.Fatalf("the second approval: %+v, %v", got, err)
	}
	if one.ruling(t) != p.Digest {
		t.Error("what two approved does not rule")
	}
	// What was proposed in place of the set before is void.
	if _, err := ann.ApprovePolicies(ctx, rival.ID, client.PolicyWord{Comment: ""}); status(err) != http.StatusConflict {
		t.Errorf("a proposal that was overtaken: %v", err)
	}
	before = p.Digest
	p = propose("Third.")
	if got, err := bob.RejectPolicies(ctx, p.ID, client.PolicyWord{Comment: "too late in the year"}); err != nil || got.State != "rejected" {
		t.Errorf("rejecting: %+v, %v", got, err)
	}
	if _, err := ann.ApprovePolicies(ctx, p.ID, client.PolicyWord{Comment: ""}); status(err) != http.StatusConflict {
		t.Errorf("a rejected proposal: %v", err)
	}

	// Where approvals are needed a restart brings nothing new.
	one.stop()
	one = s.start("one", s.token.Module)
	if one.ruling(t) != before || !strings.Contains(one.log.String(), "not those that rule") {
		t.Errorf("after a restart %s rules:\n%s", one.ruling(t), one.log)
	}
	one.stop()
}

// TestPoliciesBySignalNeedTwo: who sent a signal may be who approves then; another must as well, also where one would do.
func TestPoliciesBySignalNeedTwo(t *testing.T) {
	t.Parallel()
	s, dir := policiesNeeding(t, 1)
	one := s.start("one", s.token.Module)
	ctx := t.Context()
	before := one.ruling(t)
	ann, bob := one.clientOf(s.approverToken("Ann", access.Approver)), one.clientOf(s.approverToken("Bob", access.Approver))
	edit(t, filepath.Join(dir, "tls-server.yaml"), "description: ", "description: Since the signal. ")
	if err := one.process.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	var p client.PolicyProposal
	eventually(t, 20*time.Second, "the set is proposed", func() bool {
		state, err := ann.Policies(ctx)
		if err != nil || len(state.Proposals) == 0 {
			return false
		}
		p = state.Proposals[0]
		return true
	})
	if p.Needs != 2 {
		t.Errorf("it needs %d approvals", p.Needs)
	}
	if got, err := ann.ApprovePolicies(ctx, p.ID, client.PolicyWord{}); err != nil || got.State != "open" || one.ruling(t) != before {
		t.Fatalf("the first approval: %+v, %v", got, err)
	}
	if got, err := bob.ApprovePolicies(ctx, p.ID, client.PolicyWord{}); err != nil || got.State != "activated" || one.ruling(t) != p.Digest {
		t.Fatalf("the second approval: %+v, %v", got, err)
	}
	one.stop()
}
