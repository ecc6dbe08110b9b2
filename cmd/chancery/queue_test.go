package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
	"github.com/chancery-ca/chancery/policies"
	"github.com/chancery-ca/chancery/storage"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// guarded is a profile whose certificates need the approval of so many persons.
func guarded(count int, more string) string {
	return fmt.Sprintf(`name: guarded
description: Servers that persons answer for.
approval: {count: %d}
keys: {ecdsa: {curves: [P-256], key_usage: [digitalSignature]}%s}
ext_key_usage: [serverAuth]
validity: {default: 30d, max: 90d, backdate: 5m}
subject: {attributes: [{type: commonName, presence: optional}], common_name: copy-of-san}
names: {min: 1, max: 10, dns: {}, ip: {reserved: true}}
subject_key_id: true
lint: {sources: [RFC5280]}
`, count, more)
}

// queueStack is a stack whose replicas use a directory of policies, and whose people have tokens.
type queueStack struct {
	*stack
	policies string
	people   map[string]string // tokens by person
}

func newQueueStack(t *testing.T) *queueStack {
	q := &queueStack{stack: newStack(t, storagetest.New(t), false), people: map[string]string{}}
	q.policies = filepath.Join(q.dir, "policies")
	if err := os.Mkdir(q.policies, 0o700); err != nil {
		t.Fatal(err)
	}
	q.write("guarded", guarded(2, ""))
	q.write("tls-server", strings.Replace(strings.Replace(guarded(2, ""), "name: guarded", "name: tls-server", 1), "approval: {count: 2}\n",
		"", 1))
	store, err := storage.Open(t.Context(), storage.Config{URL: q.database.URL, MaxConns: 2, Unsafe: q.unsafe})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for _, person := range []string{"alice", "bob", "carol", "dave"} {
		q.people[person], err = q.app.createToken(t.Context(), store, ca.NewAPIToken{
			Name: person, Person: person, Namespace: "dev", Roles: []access.Role{access.Requester, access.Approver},
		}, "test")
		if err != nil {
			t.Fatal(err)
		}
	}
	return q
}

func (q *queueStack) write(profile, text string) {
	q.t.Helper()
	if err := os.WriteFile(filepath.Join(q.policies, profile+".yaml"), []byte(text), 0o600); err != nil {
		q.t.Fatal(err)
	}
}

func (q *queueStack) start(name string, environ ...string) *replica {
	q.t.Helper()
	return q.stack.start(name, q.token.Module, append(environ, "CHANCERY_POLICIES_DIRECTORY="+q.policies)...)
}

// as calls the API with a person's token.
func (q *queueStack) as(person string, r *replica, method, path string, header http.Header, body any) answer {
	q.t.Helper()
	encoded, err := json.Marshal(body)
	if err != nil {
		q.t.Fatal(err)
	}
	if header == nil {
		header = http.Header{}
	}
	header.Set("Authorization", "Bearer "+q.people[person])
	if body != nil {
		header.Set("Content-Type", "application/json")
	}
	got, err := r.call(context.Background(), method, path, "", header, encoded)
	if err != nil {
		return answer{body: []byte(err.Error())}
	}
	return got
}

// exec does to the tables what no replica may.
func (q *queueStack) exec(sql string) {
	q.t.Helper()
	conn, err := pgx.Connect(q.t.Context(), q.database.OwnerURL)
	if err != nil {
		q.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(q.t.Context(), sql); err != nil {
		q.t.Fatal(err)
	}
}

type waitingJSON struct {
	ID, Status, Serial, Binding, Why string
	Need, Have                       int
}

func (q *queueStack) want(got answer, status int) (w waitingJSON) {
	q.t.Helper()
	if got.status != status {
		q.t.Fatalf("status %d, want %d: %s", got.status, status, got.body)
	}
	if err := json.Unmarshal(got.body, &w); err != nil {
		q.t.Fatal(err)
	}
	return w
}

func (q *queueStack) ask(r *replica, csr, key string) answer {
	header := http.Header{}
	if key != "" {
		header.Set("Idempotency-Key", key)
	}
	return q.as("alice", r, http.MethodPost, "/api/v1/certificates", header, map[string]string{"profile": "guarded", "csr": csr})
}

func (q *queueStack) approve(person string, r *replica, id string) answer {
	return q.as(person, r, http.MethodPost, "/api/v1/requests/"+id+"/approve", nil, map[string]string{})
}

// A request waits for two persons, over replicas; however it is asked for, it is one, and one certificate comes of it.
func TestApprovalAcrossReplicas(t *testing.T) {
	t.Parallel()
	q := newQueueStack(t)
	one, two := q.start("one"), q.start("two")
	csr := newRequest(t, "guarded.dev.example")
	first := q.ask(one, csr, "k-1")
	w := q.want(first, http.StatusAccepted)
	again := q.ask(two, csr, "k-1")
	if q.want(again, http.StatusAccepted).ID != w.ID || again.header.Get("Location") != first.header.Get("Location") ||
		first.header.Get("Location") != "/api/v1/requests/"+w.ID || again.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("asked again: %v %s", again.header, again.body)
	}
	if got := q.ask(two, newRequest(t, "guarded.dev.example"), "k-1"); got.status != http.StatusConflict {
		t.Errorf("another request with the key: %d %s", got.status, got.body)
	}
	if got := q.approve("alice", one, w.ID); got.status != http.StatusForbidden {
		t.Errorf("the requester approves: %d %s", got.status, got.body)
	}
	if got := q.want(q.approve("bob", one, w.ID), http.StatusOK); got.Need != 2 || got.Have != 1 || got.Status != "waiting" {
		t.Errorf("after bob: %+v", got)
	}

	// Everybody else at once, on both replicas.
	var all sync.WaitGroup
	answers := make([]answer, 8)
	for i := range answers {
		all.Go(func() { answers[i] = q.approve([]string{"carol", "dave"}[i%2], []*replica{one, two}[i/2%2], w.ID) })
	}
	all.Wait()
	issued := q.want(q.as("alice", two, http.MethodGet, "/api/v1/requests/"+w.ID, nil, nil), http.StatusOK)
	if issued.Status != "issued" || len(issued.Serial) != 40 {
		t.Fatalf("it is %+v", issued)
	}
	for _, got := range answers {
		if got.status != http.StatusOK && got.status != http.StatusConflict {
			t.Errorf("an approval was answered %d: %s", got.status, got.body)
		}
	}
	if got := q.database.Column(t, `SELECT count(*)::text FROM certificates WHERE profile = 'guarded'`); got[0] != "1" {
		t.Errorf("%s certificates", got[0])
	}
	replayed := q.ask(one, csr, "k-1")
	if replayed.status != http.StatusCreated || !strings.Contains(string(replayed.body), issued.Serial) {
		t.Errorf("asked for once more: %d %s", replayed.status, replayed.body)
	}
	kinds := strings.Join(q.database.Column(t, `SELECT kind FROM audit_leaves
		WHERE convert_from(leaf, 'UTF8')::jsonb->'data'->>'request' = $1 ORDER BY kind`, w.ID), " ")
	if !strings.HasPrefix(kinds, "certificate.intended certificate.issued request.approved request.approved") ||
		!strings.HasSuffix(kinds, "request.waiting") {
		t.Errorf("the audit log tells of %s", kinds)
	}
}

// A caller that acts for another namespace, as a login can by a claim, gets nothing of what its idempotency keys led to in the one before:
// neither a certificate nor a request that waits.
func TestAnIdempotencyKeyIsOfItsNamespace(t *testing.T) {
	t.Parallel()
	q := newQueueStack(t)
	r := q.start("one")
	csr := newRequest(t, "both.dev.example")
	ask := func(profile string) answer {
		return q.as("alice", r, http.MethodPost, "/api/v1/certificates", http.Header{"Idempotency-Key": {"of-" + profile}},
			map[string]string{"profile": profile, "csr": csr})
	}
	for profile, status := range map[string]int{"tls-server": http.StatusCreated, "guarded": http.StatusAccepted} {
		for range 2 {
			if got := ask(profile); got.status != status {
				t.Errorf("%s: %d %s", profile, got.status, got.body)
			}
		}
	}
	q.exec(`ALTER TABLE api_tokens DISABLE TRIGGER USER`)
	q.exec(`UPDATE api_tokens SET namespace = 'team' WHERE person = 'alice'`)
	for _, profile := range []string{"tls-server", "guarded"} {
		if got := ask(profile); got.status != http.StatusConflict || !strings.Contains(string(got.body), "idempotency-key-reused") {
			t.Errorf("%s, in another namespace: %d %s", profile, got.status, got.body)
		}
	}
}

// What a thief asked for or approved with a stolen token does nothing any more once the token is withdrawn: the approval does not count when
// another person comes, and the request is not issued, neither with the next approval nor by itself.
func TestAWithdrawnTokenApprovesNothing(t *testing.T) {
	t.Parallel()
	q := newQueueStack(t)
	r := q.start("one")
	approved := q.want(q.ask(r, newRequest(t, "approved.dev.example"), ""), http.StatusAccepted)
	asked := q.want(q.ask(r, newRequest(t, "asked.dev.example"), ""), http.StatusAccepted)
	left := q.want(q.ask(r, newRequest(t, "left.dev.example"), ""), http.StatusAccepted)
	status := func(id string) string {
		return q.want(q.as("dave", r, http.MethodGet, "/api/v1/requests/"+id, nil, nil), http.StatusOK).Status
	}
	q.want(q.approve("bob", r, approved.ID), http.StatusOK)
	q.exec(`UPDATE api_tokens SET revoked_at = now() WHERE person = 'bob'`)
	if got := q.want(q.approve("carol", r, approved.ID), http.StatusOK); got.Status != "waiting" || got.Have != 1 || got.Need != 2 {
		t.Errorf("approved by a withdrawn token and by carol: %+v", got)
	}
	if got := q.want(q.approve("dave", r, approved.ID), http.StatusOK); got.Status != "issued" {
		t.Errorf("approved by dave, too: %+v", got)
	}

	q.want(q.approve("carol", r, asked.ID), http.StatusOK)
	q.want(q.approve("carol", r, left.ID), http.StatusOK)
	q.exec(`UPDATE api_tokens SET revoked_at = now() WHERE person = 'alice'`)
	if got := q.approve("dave", r, asked.ID); got.status != http.StatusUnprocessableEntity || !strings.Contains(string(got.body), "requester.known") {
		t.Errorf("the last approval of what a withdrawn token asked for: %d %s", got.status, got.body)
	}
	if got := status(asked.ID); got != "refused" {
		t.Errorf("afterwards it is %s", got)
	}
	// As if dave's replica had been killed between his approval and the intent, some minutes ago.
	q.exec(`ALTER TABLE approvals DISABLE TRIGGER USER`)
	q.exec(`INSERT INTO approvals (request_id, binding, person, approved, actor, groups, comment, at, event_id)
		SELECT request_id, binding, 'dave', true, 'token-of-dave', groups, '', at, gen_random_uuid() FROM approvals
		WHERE request_id = '` + left.ID + `'`)
	q.exec(`UPDATE approvals SET at = at - interval '5 minutes'`)
	eventually(t, 30*time.Second, "the one that was left is refused", func() bool { return status(left.ID) != "waiting" })
	if got := status(left.ID); got != "refused" {
		t.Errorf("what a withdrawn token asked for is %s", got)
	}
}

// Approvals are for the policies that were looked at. Under others they count no more; what those refuse ends.
func TestAPolicyChangeDecidesAnew(t *testing.T) {
	t.Parallel()
	q := newQueueStack(t)
	r := q.start("one")
	kept := q.want(q.ask(r, newRequest(t, "kept.dev.example"), ""), http.StatusAccepted)
	refused := q.want(q.ask(r, newRequest(t, "refused.dev.example"), ""), http.StatusAccepted)
	for _, w := range []waitingJSON{kept, refused} {
		q.want(q.approve("bob", r, w.ID), http.StatusOK)
	}
	before := q.want(q.as("bob", r, http.MethodGet, "/api/v1/requests/"+kept.ID, nil, nil), http.StatusOK)
	r.stop()

	q.write("guarded", strings.Replace(guarded(2, ""), "dns: {}", "dns: {pattern: 'kept[.].*'}", 1))
	r = q.start("one")
	after := q.want(q.as("bob", r, http.MethodGet, "/api/v1/requests/"+kept.ID, nil, nil), http.StatusOK)
	if before.Have != 1 || after.Have != 0 || after.Need != 2 || after.Binding == before.Binding {
		t.Errorf("before %+v, after %+v", before, after)
	}
	stale := q.as("carol", r, http.MethodPost, "/api/v1/requests/"+kept.ID+"/approve", nil, map[string]string{"binding": before.Binding})
	if stale.status != http.StatusConflict {
		t.Errorf("an approval of what was seen before: %d %s", stale.status, stale.body)
	}
	if got := q.want(q.approve("carol", r, kept.ID), http.StatusOK); got.Status != "waiting" || got.Have != 1 {
		t.Errorf("one old and one new approval: %+v", got)
	}
	if got := q.want(q.approve("bob", r, kept.ID), http.StatusOK); got.Status != "issued" {
		t.Errorf("two new approvals: %+v", got)
	}
	if got := q.approve("carol", r, refused.ID); got.status != http.StatusUnprocessableEntity ||
		!strings.Contains(string(got.body), "names.pattern") {
		t.Errorf("what the policies now refuse: %d %s", got.status, got.body)
	}
	if got := q.want(q.as("alice", r, http.MethodGet, "/api/v1/requests/"+refused.ID, nil, nil), http.StatusOK); got.Status != "refused" ||
		got.Why == "" {
		t.Errorf("afterwards it is %+v", got)
	}
}

// Time ends a waiting request, and what was approved and left without a certificate is taken up by itself.
func TestWaitingRequestsAreLookedAfter(t *testing.T) {
	t.Parallel()
	q := newQueueStack(t)
	r := q.start("one")
	late := q.want(q.ask(r, newRequest(t, "late.dev.example"), "late"), http.StatusAccepted)
	left := q.want(q.ask(r, newRequest(t, "left.dev.example"), ""), http.StatusAccepted)
	q.want(q.approve("bob", r, left.ID), http.StatusOK)
	// As if carol's replica had been killed between her approval and the intent, some minutes ago.
	q.exec(`INSERT INTO approvals (request_id, binding, person, approved, actor, groups, comment, at, event_id)
		SELECT request_id, binding, 'carol', true, 'token-of-carol', groups, '', at - interval '5 minutes', gen_random_uuid() FROM approvals`)
	q.exec(`ALTER TABLE approvals DISABLE TRIGGER USER`)
	q.exec(`UPDATE approvals SET at = at - interval '5 minutes'`)
	q.exec(`UPDATE waiting_requests SET expires_at = now() WHERE request_id = '` + late.ID + `'`)
	status := func(id string) string {
		return q.want(q.as("alice", r, http.MethodGet, "/api/v1/requests/"+id, nil, nil), http.StatusOK).Status
	}
	eventually(t, 30*time.Second, "the late one expires", func() bool { return status(late.ID) == "expired" })
	eventually(t, 30*time.Second, "the approved one is issued", func() bool { return status(left.ID) == "issued" })
	if got := q.approve("bob", r, late.ID); got.status != http.StatusConflict {
		t.Errorf("an approval of what has expired: %d %s", got.status, got.body)
	}
	if got := q.want(q.ask(r, newRequest(t, "late.dev.example"), ""), http.StatusAccepted); got.Status != "waiting" {
		t.Errorf("asked for anew: %+v", got)
	}
}

// Wherever the service is killed on the way from a request through its approval to the certificate: what was answered stands, nothing waits
// twice, and repeating what was not answered leads to one certificate.
func TestKillAtEachStepOfAnApproval(t *testing.T) {
	t.Parallel()
	q := newQueueStack(t)
	q.write("guarded", guarded(1, ", once: true"))
	armed := filepath.Join(q.dir, "armed")
	for _, step := range append(queueSteps, issueSteps...) {
		t.Run(step, func(t *testing.T) {
			mortal := q.start("mortal", dieAt+"="+step, dieWhen+"="+armed)
			if err := os.WriteFile(armed, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			key := strings.ReplaceAll(step, " ", "-")
			csr := newRequest(t, key+".dev.example")
			asked := q.ask(mortal, csr, key)
			if asked.status == http.StatusAccepted {
				w := q.want(asked, http.StatusAccepted)
				if got := q.approve("bob", mortal, w.ID); got.status != 0 {
					t.Fatalf("the replica that should have died answered %d %s", got.status, got.body)
				}
			} else if asked.status != 0 {
				t.Fatalf("asking was answered %d %s", asked.status, asked.body)
			}
			<-mortal.ended
			if err := os.Remove(armed); err != nil {
				t.Fatal(err)
			}

			back := q.start("mortal")
			again := q.ask(back, csr, key)
			if again.status == http.StatusCreated && step == "after certificate" {
				back.stop()
				return
			}
			w := q.want(again, http.StatusAccepted)
			if asked.status == http.StatusAccepted && q.want(asked, http.StatusAccepted).ID != w.ID {
				t.Error("the request waits twice")
			}
			if got := q.want(q.approve("bob", back, w.ID), http.StatusOK); got.Status != "issued" {
				t.Errorf("approved again it is %+v", got)
			}
			if got := q.ask(back, csr, key); got.status != http.StatusCreated {
				t.Errorf("in the end: %d %s", got.status, got.body)
			}
			back.stop()
		})
	}
	for what, sql := range map[string]string{
		"requests that waited twice":    `SELECT spki_sha256::text FROM requests WHERE profile = 'guarded' GROUP BY spki_sha256 HAVING count(*) <> 1`,
		"keys certified twice":          `SELECT spki_sha256::text FROM certificates WHERE profile = 'guarded' GROUP BY spki_sha256 HAVING count(*) <> 1`,
		"approvals without their leaf":  `SELECT event_id::text FROM approvals WHERE NOT EXISTS (SELECT FROM audit_leaves WHERE id = event_id)`,
		"certificates without approval": `SELECT request_id::text FROM certificates AS c WHERE profile = 'guarded' AND NOT EXISTS (SELECT FROM approvals AS a WHERE a.request_id = c.request_id)`,
		"open intents":                  `SELECT serial::text FROM intents`,
	} {
		if found := q.database.Column(t, sql); len(found) > 0 {
			t.Errorf("%s: %v", what, found)
		}
	}
	if n := len(q.database.Column(t,
		`SELECT serial::text FROM certificates WHERE profile = 'guarded'`)); n != len(queueSteps)+len(issueSteps) {
		t.Errorf("%d certificates", n)
	}
}

// A namespace set through one replica holds on another within two seconds, and its quota over both.
func TestNamespacesAcrossReplicas(t *testing.T) {
	q := newQueueStack(t)
	one, two := q.start("one"), q.start("two")
	put := func(path string, body any) answer {
		encoded, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		header := http.Header{"Content-Type": {"application/json"}}
		got, err := one.call(t.Context(), http.MethodPut, path, access.Operator, header, encoded)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := put("/api/v1/namespaces/dev", map[string]any{}); got.status != http.StatusConflict {
		t.Errorf("that of the file: %d %s", got.status, got.body)
	}
	spec := map[string]any{"dns": []string{"team.example"}, "quotas": []map[string]any{{"certificates": 3, "per": "1h"}}}
	if got := put("/api/v1/namespaces/team", spec); got.status != http.StatusOK {
		t.Fatalf("%d %s", got.status, got.body)
	}
	store, err := storage.Open(t.Context(), storage.Config{URL: q.database.URL, MaxConns: 2, Unsafe: q.unsafe})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if q.people["eve"], err = q.app.createToken(t.Context(), store, ca.NewAPIToken{
		Name: "eve", Person: "eve", Namespace: "team", Roles: []access.Role{access.Requester},
	}, "test"); err != nil {
		t.Fatal(err)
	}
	issue := func(r *replica, name string) answer {
		return q.as("eve", r, http.MethodPost, "/api/v1/certificates", nil,
			map[string]string{"profile": "tls-server", "csr": newRequest(t, name)})
	}
	passed, end := hsmtest.Passing()
	defer end()
	eventually(t, 30*time.Second, "the other replica knows the namespace",
		func() bool { return issue(two, "a.team.example").status == http.StatusCreated })
	if took := passed(); took > 3*time.Second { // docs/namespaces.md promises two, and a request takes its time
		t.Errorf("it took %s", took)
	}
	var all sync.WaitGroup
	answers := make([]answer, 10)
	for i := range answers {
		all.Go(func() { answers[i] = issue([]*replica{one, two}[i%2], fmt.Sprintf("n%d.team.example", i)) })
	}
	all.Wait()
	created := 0
	for _, got := range answers {
		switch {
		case got.status == http.StatusCreated:
			created++
		case got.status != http.StatusTooManyRequests || got.header.Get("Retry-After") == "" ||
			!strings.Contains(string(got.body), "quota-exhausted"):
			t.Errorf("%d %v %s", got.status, got.header, got.body)
		}
	}
	if created != 2 {
		t.Errorf("%d more were issued of a quota of three", created)
	}
}

// An evaluation says what a request would be told: it counts against the rates of its namespace, and where there is none it refuses.
func TestAnEvaluationIsARequest(t *testing.T) {
	t.Parallel()
	q := newQueueStack(t)
	nameless := strings.NewReplacer("name: guarded", "name: nameless", "approval: {count: 2}\n", "", "presence: optional", "presence: required",
		"copy-of-san", "free", "names: {min: 1, max: 10, dns: {}, ip: {reserved: true}}", "names: {min: 0}")
	q.write("nameless", nameless.Replace(guarded(2, "")))
	r := q.start("one")
	namespace := func(method string, rates ...map[string]any) {
		t.Helper()
		body, err := json.Marshal(map[string]any{"rates": append([]map[string]any{}, rates...)})
		if err != nil {
			t.Fatal(err)
		}
		header := http.Header{}
		if method == http.MethodPut {
			header.Set("Content-Type", "application/json")
		} else {
			body = nil
		}
		got, err := r.call(t.Context(), method, "/api/v1/namespaces/team", access.Operator, header, body)
		if err != nil || got.status != http.StatusOK {
			t.Fatalf("%d %s %v", got.status, got.body, err)
		}
	}
	store, err := storage.Open(t.Context(), storage.Config{URL: q.database.URL, MaxConns: 2, Unsafe: q.unsafe})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	namespace(http.MethodPut, map[string]any{"requests": 2, "per": "1h"})
	if q.people["eve"], err = q.app.createToken(t.Context(), store, ca.NewAPIToken{
		Name: "eve", Person: "eve", Namespace: "team", Roles: []access.Role{access.Requester},
	}, "test"); err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "nobody"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	csr := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
	evaluate := func() answer {
		return q.as("eve", r, http.MethodPost, "/api/v1/profiles/nameless/evaluate", nil, map[string]string{"csr": csr})
	}
	for n, status := range []int{http.StatusOK, http.StatusOK, http.StatusTooManyRequests} {
		if got := evaluate(); got.status != status || (status != http.StatusOK) != (got.header.Get("Retry-After") != "") {
			t.Errorf("evaluation %d of two: %d %v %s", n+1, got.status, got.header, got.body)
		}
	}
	if limited := r.metric(t, `chancery_requests_limited_total{by="rate"`); limited != 1 {
		t.Errorf("%v were counted as turned away", limited)
	}

	namespace(http.MethodPut)
	tells := func(what, verdict, rule string) {
		t.Helper()
		got := evaluate()
		var d struct {
			Verdict       string
			PolicyVersion string `json:"policy_version"`
			Violations    []policies.Violation
		}
		if err := json.Unmarshal(got.body, &d); err != nil || got.status != http.StatusOK || d.Verdict != verdict || d.PolicyVersion == "" ||
			rule != "" && (len(d.Violations) != 1 || d.Violations[0].Rule != rule) {
			t.Errorf("%s: %d %s", what, got.status, got.body)
		}
	}
	tells("while there is the namespace", "allow", "")
	namespace(http.MethodDelete)
	tells("once it is removed", "refuse", "namespace.known")
	issued := q.as("eve", r, http.MethodPost, "/api/v1/certificates", nil, map[string]string{"profile": "nameless", "csr": csr})
	if issued.status != http.StatusUnprocessableEntity || !strings.Contains(string(issued.body), "namespace.known") {
		t.Errorf("a request then: %d %s", issued.status, issued.body)
	}
}
