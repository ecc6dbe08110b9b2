package main

import (
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
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/client"
	"github.com/chancery-ca/chancery/policies"
	"github.com/chancery-ca/chancery/storage"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// holds is what a replica says of a namespace: its version, or 0 when there is none.
func (r *replica) holds(t testing.TB, name string) int {
	t.Helper()
	found, err := r.clientOf(r.s.tokens[access.Operator]).Namespaces(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range found {
		if n.Name == name {
			return n.Version
		}
	}
	return 0
}

// TestANamespaceTakenAwayStaysAway restarts a replica with the file from before a namespace was removed, and one from before it was
// narrowed: neither gives back what was taken. What takes away holds at once, and an operator has the old back by saying so.
func TestANamespaceTakenAwayStaysAway(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	ctx := t.Context()
	const (
		devName = "www.dev.example"
		dev     = "{name: dev, dns: [dev.example, localhost, example.com], ip: [127.0.0.0/8]}"
		team    = "{name: team, dns: [team.example]}"
	)
	shares := func(all ...string) { s.shares = "[" + strings.Join(all, ", ") + "]" }
	shares(dev, team)
	one, two := s.start("one", s.token.Module), s.start("two", s.token.Module)
	if _, got, err := one.issue(ctx, devName, nil); err != nil || got.status != http.StatusCreated {
		t.Fatalf("before: %d %s, %v", got.status, got.body, err)
	}

	// Removed from the file of one; two, killed, comes back with its old file.
	one.stop()
	shares(team)
	one = s.start("one", s.token.Module)
	two.kill()
	shares(dev, team)
	two = s.start("two", s.token.Module)
	for _, r := range []*replica{one, two} {
		if _, got, err := r.issue(ctx, devName, nil); err != nil || got.status != http.StatusUnprocessableEntity {
			t.Errorf("%s issues in a namespace that was removed: %d %s, %v", r.name, got.status, got.body, err)
		}
	}
	if said := two.log.String(); !strings.Contains(said, "chancery namespace set") {
		t.Errorf("the way out is not told:\n%s", said)
	}

	// Saying it again is what brings it back, and from then on it is the file's.
	operator := two.clientOf(s.tokens[access.Operator])
	spec := client.NamespaceSpec{DNS: []string{"dev.example", "localhost", "example.com"}, IP: []string{"127.0.0.0/8"}}
	if _, err := operator.SetNamespace(ctx, "dev", spec, -1); err != nil {
		t.Fatal(err)
	}
	if _, got, err := two.issue(ctx, devName, nil); err != nil || got.status != http.StatusCreated {
		t.Errorf("after it was set again: %d %s, %v", got.status, got.body, err)
	}
	version := two.holds(t, "dev")
	two.stop()
	two = s.start("two", s.token.Module)
	if got := two.holds(t, "dev"); got != version {
		t.Errorf("after a restart with the same the version is %d, and was %d", got, version)
	}

	// Narrowed in the file: at once, though it was so before. Widened by an old file: not before somebody says so.
	wide := "{name: team, dns: [team.example, second.example]}"
	for _, step := range []struct {
		file string
		dns  string
	}{
		{wide, "team.example second.example"},
		{team, "team.example"},
		{wide, "team.example"},
		{"{name: team, dns: [team.example, third.example]}", "team.example third.example"},
	} {
		two.stop()
		shares(dev, step.file)
		two = s.start("two", s.token.Module)
		operator = two.clientOf(s.tokens[access.Operator])
		now, err := operator.Namespace(ctx, "team")
		if err != nil || strings.Join(now.DNS, " ") != step.dns {
			t.Fatalf("with %s: %+v, %v", step.file, now, err)
		}
		if step.file != wide || step.dns == "team.example second.example" {
			continue
		}
		var problem *client.Problem
		if _, err := operator.SetNamespace(ctx, "team", client.NamespaceSpec{DNS: []string{"other.example"}}, -1); !errors.As(err, &problem) ||
			problem.Status != http.StatusConflict {
			t.Errorf("setting what the file does not say: %v", err)
		}
		set, err := operator.SetNamespace(ctx, "team", client.NamespaceSpec{DNS: []string{"team.example", "second.example"}}, -1)
		if err != nil || set.Source != ca.SourceFile {
			t.Errorf("setting what the file says: %+v, %v", set, err)
		}
	}
	one.stop()
	two.stop()
}

// activated has a set rule behind the replicas' back: as a program of another version, or somebody else, did.
func (s *stack) activated(set []policies.File, digest string, number int64, actor, comment string) {
	s.t.Helper()
	store, err := storage.Open(s.t.Context(), storage.Config{URL: s.database.URL, MaxConns: 2, Unsafe: s.unsafe})
	if err != nil {
		s.t.Fatal(err)
	}
	defer store.Close()
	a := ca.PolicyActivation{
		Number: number, Digest: digest, ActorID: actor, ActorName: actor, Comment: comment, At: time.Now(), EventID: newID(),
	}
	leaf, err := audit.New(audit.Event{
		ID: a.EventID, Kind: audit.PolicyActivated, Time: a.At, Actor: actor, Namespace: access.AllNamespaces,
		Data: map[string]string{"policy": digest},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := store.ActivatePolicies(s.t.Context(), a, set, leaf); err != nil {
		s.t.Fatal(err)
	}
}

// changed are the shipped profiles with a text of one replaced, and their digest where they can be loaded.
func changed(t testing.TB, name, old, by string) (files []policies.File, digest string) {
	t.Helper()
	set, err := policies.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range set.Files() {
		if f.Name == name {
			text := strings.Replace(string(f.Content), old, by, 1)
			if text == string(f.Content) {
				t.Fatalf("%s does not hold %q", name, old)
			}
			f.Content = []byte(text)
		}
		files = append(files, f)
	}
	if set, _, err := policies.LoadRuled(files); err == nil {
		digest = set.Digest()
	}
	return files, digest
}

// answers asks a replica's operations listener.
func (r *replica) answers(t testing.TB, path string) (status int, body string) {
	t.Helper()
	response, err := r.s.client.Get(r.operations + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var text strings.Builder
	if err := response.Write(&text); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, text.String()
}

func (r *replica) isReady(t testing.TB) func() bool {
	return func() bool { status, _ := r.answers(t, "/readyz"); return status == http.StatusOK }
}

// TestPoliciesThatCannotBeRead has policies come to rule that only a newer program understands. Nothing is issued by the old ones, the
// replica says so, and it goes on publishing, also when it is started then. Other policies end it.
func TestPoliciesThatCannotBeRead(t *testing.T) {
	t.Parallel()
	s, dir := policiesNeeding(t, 0)
	ctx := t.Context()
	one := s.start("one", s.token.Module)
	newer, _ := changed(t, "tls-server.yaml", "name: tls-server", "name: tls-server\nfuture: field")
	s.activated(newer, "sha256:newer", 2, "operator", "by a newer program")
	eventually(t, 20*time.Second, "nothing is issued", func() bool {
		_, got, err := one.issue(ctx, "old.dev.example", nil)
		return err == nil && got.status == http.StatusServiceUnavailable
	})
	publishes := func(r *replica) {
		t.Helper()
		if status, said := r.answers(t, "/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(said, "future") {
			t.Errorf("%s says that it is ready: %d %s", r.name, status, said)
		}
		if list, err := r.crl(ctx); err != nil || list.NextUpdate.Before(time.Now()) {
			t.Errorf("%s does not publish: %v", r.name, err)
		}
	}
	publishes(one)
	two := s.start("two", s.token.Module)
	publishes(two)

	// A replica that can still be reached is told of others.
	edit(t, filepath.Join(dir, "tls-server.yaml"), "description: ", "description: Out of it. ")
	change, err := one.clientOf(s.tokens[access.PolicyAdmin]).ReloadPolicies(ctx, "what this program understands")
	if err != nil || change.State != "activated" || change.Activation.Number != 3 {
		t.Fatalf("%+v, %v", change, err)
	}
	for _, r := range []*replica{one, two} {
		eventually(t, time.Minute, r.name+" is ready again", r.isReady(t))
		if _, got, err := r.issue(ctx, "new.dev.example", nil); err != nil || got.status != http.StatusCreated {
			t.Errorf("%s: %d %s, %v", r.name, got.status, got.body, err)
		}
		r.stop()
	}
}

// approving has the service's own profile ask for an approval.
const approving = "approval: {count: 1}\nname: tls-server"

// TestPoliciesLeaveTheServiceItsCertificate: no change, and no start, brings policies to rule under which the service's API could not be
// reached any more. Where they do rule, the replica starts, publishes, asks nobody for anything, and recovers.
func TestPoliciesLeaveTheServiceItsCertificate(t *testing.T) {
	t.Parallel()
	s, dir := policiesNeeding(t, 0)
	ctx := t.Context()
	one := s.start("one", s.token.Module)
	before := one.ruling(t)
	profile := filepath.Join(dir, "tls-server.yaml")
	edit(t, profile, "name: tls-server", approving)
	_, err := one.clientOf(s.tokens[access.PolicyAdmin]).ReloadPolicies(ctx, "four eyes")
	var problem *client.Problem
	if !errors.As(err, &problem) || problem.Type != "urn:chancery:problem:unsound-policies" ||
		!strings.Contains(err.Error(), "its own certificate") {
		t.Errorf("reloading: %v", err)
	}

	// A start with them fails, and has changed nothing for the others: not the policies, not the namespaces that its file no longer has.
	s.shares = "[]"
	rival := program(os.Args[0], "serve", "--config", s.write("rival", s.token.Module))
	if said, err := rival.CombinedOutput(); err == nil || !strings.Contains(string(said), "its own certificate") {
		t.Errorf("a replica starts with them: %v\n%s", err, said)
	}
	s.shares = ""
	if one.ruling(t) != before || one.holds(t, "dev") != 1 {
		t.Errorf("the start that failed changed what rules to %s, or namespace dev to version %d", one.ruling(t), one.holds(t, "dev"))
	}

	// A program from before this let them rule.
	files, digest := changed(t, "tls-server.yaml", "name: tls-server", approving)
	s.activated(files, digest, 2, "operator", "four eyes")
	one.stop()
	edit(t, profile, approving, "name: tls-server")
	for range 2 {
		one = s.start("one", s.token.Module)
		if status, said := one.answers(t, "/readyz"); status != http.StatusServiceUnavailable {
			t.Errorf("a replica that cannot be reached says that it is ready: %d %s", status, said)
		}
		if _, err := one.crl(ctx); err != nil {
			t.Errorf("it does not publish: %v", err)
		}
		one.stop()
	}
	asked := s.database.Column(t, `SELECT id::text FROM audit_leaves WHERE kind IN ('request.waiting', 'request.refused')`)
	if len(asked) > 0 {
		t.Errorf("the starts asked for %d certificates in vain", len(asked))
	}
	one = s.start("one", s.token.Module)
	edit(t, profile, "description: ", "description: Out of it. ")
	one.signal(t, syscall.SIGHUP)
	eventually(t, time.Minute, "it can be reached again", one.isReady(t))
	if _, got, err := one.issue(ctx, "www.dev.example", nil); err != nil || got.status != http.StatusCreated {
		t.Errorf("%d %s, %v", got.status, got.body, err)
	}
	one.stop()
}

// TestShippedPoliciesFollowShippedOnes: what comes with a new program takes the place of what came with the one before, and not of what
// somebody activated.
func TestShippedPoliciesFollowShippedOnes(t *testing.T) {
	t.Parallel()
	shipped, err := policies.Shipped()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		actor, comment string
		takes          bool
	}{
		"came with a program":      {access.Service, "taken from the program at start", true},
		"of an older program":      {access.Service, "taken from the configuration at start", true},
		"came from a directory":    {access.Service, "taken from policies.directory at start", false},
		"was activated":            {"operator", "ours", false},
		"was activated, and lies":  {"operator", "taken from the program at start", false},
		"was reloaded by a signal": {access.Service, "reloaded by SIGHUP", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStack(t, storagetest.New(t), false)
			ours, digest := changed(t, "tls-server.yaml", "description: ", "description: Of the last year. ")
			s.activated(ours, digest, 1, c.actor, c.comment)
			one := s.start("one", s.token.Module)
			want := digest
			if c.takes {
				want = shipped.Digest()
			}
			if got := one.ruling(t); got != want {
				t.Errorf("%s rules, want %s", got, want)
			}
			one.stop()
		})
	}
}

// TestPoliciesFromBeforeADemand starts on policies that ruled before a standard made a demand which they do not meet, from the database and
// from the directory: they go on, which is told, and what follows must meet it.
func TestPoliciesFromBeforeADemand(t *testing.T) {
	t.Parallel()
	s, dir := policiesNeeding(t, 1)
	const lint = "  except:\n"
	const excepted = lint + "    - {lint: e_dnsname_not_valid_tld, reason: it was allowed}\n"
	files, digest := changed(t, "tls-public.yaml", lint, excepted)
	s.activated(files, digest, 1, "operator", "as they were")
	edit(t, filepath.Join(dir, "tls-public.yaml"), lint, excepted)
	for _, from := range []string{s.policies, "{activation: {approvals: 1}}"} {
		s.policies = from
		one := s.start("one", s.token.Module)
		if got := one.ruling(t); got != digest {
			t.Errorf("%s rules, want %s", got, digest)
		}
		if said := one.log.String(); !strings.Contains(said, "before this demand was made") || !strings.Contains(said, "lint.except") {
			t.Errorf("the demand is not told:\n%s", said)
		}
		if _, got, err := one.issue(t.Context(), "www.dev.example", nil); err != nil || got.status != http.StatusCreated {
			t.Errorf("%d %s, %v", got.status, got.body, err)
		}
		sent := map[string]string{}
		for _, f := range files {
			sent[f.Name] = string(f.Content) + "# changed\n"
		}
		_, err := one.clientOf(s.tokens[access.PolicyAdmin]).ChangePolicies(t.Context(), sent, "again")
		if err == nil || !strings.Contains(err.Error(), "lint.except") {
			t.Errorf("policies that do not meet the demand: %v", err)
		}
		one.stop()
	}

	// Files that never ruled are refused, with the line.
	edit(t, filepath.Join(dir, "tls-public.yaml"), "description: ", "description: Never ruled. ")
	s.policies = fmt.Sprintf("{directory: %q}", dir)
	refused, err := program(os.Args[0], "serve", "--config", s.write("one", s.token.Module)).CombinedOutput()
	if err == nil || !strings.Contains(string(refused), "tls-public.yaml:") || !strings.Contains(string(refused), "lint.except") {
		t.Errorf("files that never ruled: %v\n%s", err, refused)
	}
}
