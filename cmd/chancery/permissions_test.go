package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/client"
	"github.com/chancery-ca/chancery/storage"
	"github.com/chancery-ca/chancery/web"
)

// where says what a call of a route is about.
type where string

const (
	own    where = "own" // what lies in the caller's namespace, whichever that is
	inDev  where = "dev" // what lies in dev
	ofAll  where = access.AllNamespaces
	nobody where = "" // the route needs no credentials
)

// asking is one well-formed call of a route.
type asking struct {
	path, body string
	of         where
}

// matrix is what TestWhoMayCallWhat calls: one probe for each route of the table.
type matrix struct {
	*queueStack
	replica *replica
	owner   *pgx.Conn
	tokens  map[[2]string]client.Token // by role and namespace
}

func newMatrix(t *testing.T) *matrix {
	m := &matrix{queueStack: newQueueStack(t), tokens: map[[2]string]client.Token{}}
	m.more = `console: {url: "https://localhost:1"}` + "\n" // of which no page is opened here
	m.replica = m.start("one")
	operator := m.replica.clientOf(m.stack.tokens[access.Operator])
	if _, err := operator.SetNamespace(t.Context(), "other", client.NamespaceSpec{DNS: []string{"other.example"}}, -1); err != nil {
		t.Fatal(err)
	}
	store, err := storage.Open(t.Context(), storage.Config{URL: m.database.URL, MaxConns: 2, Unsafe: m.unsafe})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	for _, role := range access.Roles() {
		for _, namespace := range []string{"dev", "other", access.AllNamespaces} {
			made, text, err := m.app.tokenDesk(store, "test", 0).Create(t.Context(), ca.NewAPIToken{
				Name: string(role) + " of " + namespace, Namespace: namespace, Roles: []access.Role{role},
			})
			if err != nil {
				t.Fatal(err)
			}
			m.tokens[[2]string{string(role), namespace}] = client.Token{ID: made.ID, Secret: text}
		}
	}
	if m.owner, err = pgx.Connect(t.Context(), m.database.OwnerURL); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.owner.Close(context.Background()) })
	return m
}

// probes makes what the calls are about, in dev, and returns them by route.
func (m *matrix) probes() map[string]asking {
	m.t.Helper()
	ctx := m.t.Context()
	asked, got, err := m.replica.issue(ctx, "www.dev.example", nil)
	if err != nil || got.status != http.StatusCreated {
		m.t.Fatalf("issuing: %d %s %v", got.status, got.body, err)
	}
	waits := m.want(m.ask(m.replica, newRequest(m.t, "guarded.dev.example"), ""), http.StatusAccepted)
	spare, got, err := m.replica.issue(ctx, "spare.dev.example", nil)
	if err != nil || got.status != http.StatusCreated {
		m.t.Fatalf("issuing: %d %s %v", got.status, got.body, err)
	}
	var ordering struct{ Job struct{ ID string } }
	ordered := m.call("revoker", "dev", http.MethodPost, "/api/v1/revocations",
		fmt.Sprintf(`{"serials":[%q],"reason":"superseded"}`, spare.Serial))
	if err := json.Unmarshal(ordered.body, &ordering); err != nil || ordering.Job.ID == "" {
		m.t.Fatalf("ordering a revocation: %d %s %v", ordered.status, ordered.body, err)
	}
	job, token := ordering.Job, m.tokens[[2]string{"auditor", "dev"}]
	target := m.call("operator", "dev", http.MethodPost, "/api/v1/tokens", `{"name":"target","namespace":"dev","roles":["requester"]}`)
	var made client.Token
	if err := json.Unmarshal(target.body, &made); err != nil || made.ID == "" {
		m.t.Fatalf("making a token: %d %s %v", target.status, target.body, err)
	}
	csr := newRequest(m.t, "again.dev.example")
	issue, err := issueBody(csr)
	if err != nil {
		m.t.Fatal(err)
	}
	evaluate, err := json.Marshal(map[string]string{"csr": csr})
	if err != nil {
		m.t.Fatal(err)
	}
	const api = "/api/v1"
	return map[string]asking{
		"POST /api/v1/certificates":                        {api + "/certificates", string(issue), own},
		"POST /api/v1/certificates:batch":                  {api + "/certificates:batch", string(issue), own},
		"GET /api/v1/certificates":                         {api + "/certificates", "", own},
		"GET /api/v1/certificates/{serial}":                {api + "/certificates/" + asked.Serial, "", inDev},
		"POST /api/v1/certificates/{serial}/revoke":        {api + "/certificates/" + asked.Serial + "/revoke", `{"reason":"superseded"}`, inDev},
		"POST /api/v1/certificates/{serial}/revoke-by-key": {api + "/certificates/" + asked.Serial + "/revoke-by-key", "", nobody},
		"POST /api/v1/revocations": {
			api + "/revocations",
			fmt.Sprintf(`{"serials":[%q],"reason":"superseded","dry_run":true}`, asked.Serial), own,
		},
		"GET /api/v1/revocations":                      {api + "/revocations", "", own},
		"GET /api/v1/revocations/{job}":                {api + "/revocations/" + job.ID, "", inDev},
		"POST /api/v1/revocations/{job}/approve":       {api + "/revocations/" + job.ID + "/approve", `{}`, inDev},
		"POST /api/v1/revocations/{job}/reject":        {api + "/revocations/" + job.ID + "/reject", `{}`, inDev},
		"POST /api/v1/revocations/{job}/cancel":        {api + "/revocations/" + job.ID + "/cancel", `{}`, inDev},
		"GET /api/v1/requests":                         {api + "/requests", "", own},
		"GET /api/v1/requests/{id}":                    {api + "/requests/" + waits.ID, "", inDev},
		"POST /api/v1/requests/{id}/approve":           {api + "/requests/" + waits.ID + "/approve", `{}`, inDev},
		"POST /api/v1/requests/{id}/reject":            {api + "/requests/" + waits.ID + "/reject", `{}`, inDev},
		"GET /api/v1/namespaces":                       {api + "/namespaces", "", own},
		"GET /api/v1/namespaces/{name}":                {api + "/namespaces/dev", "", inDev},
		"PUT /api/v1/namespaces/{name}":                {api + "/namespaces/spare", `{"dns":["spare.example"]}`, ofAll},
		"DELETE /api/v1/namespaces/{name}":             {api + "/namespaces/spare", "", ofAll},
		"GET /api/v1/profiles":                         {api + "/profiles", "", ofAll},
		"GET /api/v1/profiles/{name}":                  {api + "/profiles/tls-server", "", ofAll},
		"POST /api/v1/profiles/{name}/evaluate":        {api + "/profiles/tls-server/evaluate", string(evaluate), own},
		"GET /api/v1/authorities":                      {api + "/authorities", "", ofAll},
		"GET /api/v1/authorities/{name}":               {api + "/authorities/" + devIssuer, "", ofAll},
		"POST /api/v1/authorities/{name}/crl":          {api + "/authorities/" + devIssuer + "/crl", `{}`, ofAll},
		"POST /api/v1/console/logins":                  {api + "/console/logins", `{}`, own},
		"GET /api/v1/login":                            {api + "/login", "", nobody},
		"GET /api/v1/whoami":                           {api + "/whoami", "", own},
		"GET /api/v1/openapi.json":                     {api + "/openapi.json", "", nobody},
		"GET /api/v1/docs":                             {api + "/docs", "", nobody},
		"GET /api/v1/docs/{file}":                      {api + "/docs/init.js", "", nobody},
		"GET /api/v1/policies":                         {api + "/policies", "", ofAll},
		"GET /api/v1/policies/{digest}":                {api + "/policies/ruling", "", ofAll},
		"POST /api/v1/policies":                        {api + "/policies", `{"files":{"broken.yaml":"nonsense"}}`, ofAll},
		"POST /api/v1/policies/reload":                 {api + "/policies/reload", `{}`, ofAll},
		"POST /api/v1/policies/proposals/{id}/approve": {api + "/policies/proposals/" + newID() + "/approve", `{}`, ofAll},
		"POST /api/v1/policies/proposals/{id}/reject":  {api + "/policies/proposals/" + newID() + "/reject", `{}`, ofAll},
		"GET /api/v1/audit/checkpoint":                 {api + "/audit/checkpoint", "", ofAll},
		"POST /api/v1/audit/checkpoint":                {api + "/audit/checkpoint", "no note", ofAll},
		"GET /api/v1/audit/keys":                       {api + "/audit/keys", "", ofAll},
		"GET /api/v1/audit/entries":                    {api + "/audit/entries?from=0&to=1", "", ofAll},
		"GET /api/v1/audit/proof":                      {api + "/audit/proof?index=0&size=1", "", ofAll},
		"GET /api/v1/audit/receipt/{event}":            {api + "/audit/receipt/" + asked.AuditEvent, "", inDev},
		"GET /api/v1/audit/events":                     {api + "/audit/events", "", own},
		"GET /api/v1/audit/log/checkpoint":             {api + "/audit/log/checkpoint", "", ofAll},
		"GET /api/v1/audit/log/tile/{path}":            {api + "/audit/log/tile/0/000", "", ofAll},
		"GET /api/v1/orders":                           {api + "/orders", "", ofAll},
		"GET /api/v1/orders/{id}":                      {api + "/orders/" + newID(), "", ofAll},
		"POST /api/v1/orders/{id}/approve":             {api + "/orders/" + newID() + "/approve", `{}`, ofAll},
		"POST /api/v1/orders/{id}/reject":              {api + "/orders/" + newID() + "/reject", `{}`, ofAll},
		"GET /api/v1/tokens":                           {api + "/tokens", "", own},
		"GET /api/v1/tokens/{id}":                      {api + "/tokens/" + token.ID, "", inDev},
		"POST /api/v1/tokens":                          {api + "/tokens", `{"name":"new","namespace":"dev","roles":["requester"]}`, inDev},
		"POST /api/v1/tokens/{id}/rotate":              {api + "/tokens/" + made.ID + "/rotate", `{}`, inDev},
		"POST /api/v1/tokens/{id}/revoke":              {api + "/tokens/" + made.ID + "/revoke", `{}`, inDev},
	}
}

func (m *matrix) call(role, namespace, method, path, body string) answer {
	m.t.Helper()
	header := http.Header{"Authorization": {"Bearer " + m.tokens[[2]string{role, namespace}].Secret}}
	if role == "" {
		header = http.Header{}
	}
	if body != "" {
		header.Set("Content-Type", "application/json")
	}
	if body == "no note" {
		header.Set("Content-Type", "text/plain")
	}
	if strings.HasSuffix(path, ":batch") {
		header.Set("Content-Type", "application/x-ndjson")
	}
	got, err := m.replica.call(m.t.Context(), method, path, "", header, []byte(body))
	if err != nil {
		m.t.Fatal(err)
	}
	return got
}

// refusals counts the refusals of an action to an actor in the audit log, which every refusal is in.
func (m *matrix) refusals(actor string, action access.Action) (n int) {
	m.t.Helper()
	rows, err := m.owner.Query(m.t.Context(), `SELECT leaf FROM audit_leaves WHERE kind = $1`, string(audit.AccessDenied))
	if err != nil {
		m.t.Fatal(err)
	}
	leaves, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	if err != nil {
		m.t.Fatal(err)
	}
	for _, leaf := range leaves {
		if !bytes.Contains(leaf, []byte(actor)) {
			continue
		}
		event, err := audit.Parse(leaf)
		if err != nil {
			m.t.Fatal(err)
		}
		if event.Actor == actor && event.Data["action"] == string(action) {
			n++
		}
	}
	return n
}

// TestWhoMayCallWhat calls every route of a running service as every role, in its own namespace, in another one, and in all, and without
// credentials. What the tables allow is not refused; what they do not is, and is in the audit log; and what lies elsewhere is as nothing.
func TestWhoMayCallWhat(t *testing.T) {
	t.Parallel()
	m := newMatrix(t)
	probes := m.probes()
	calls := 0
	for _, p := range web.Permissions() {
		route := p.Method + " " + p.Path
		probe, known := probes[route]
		if !known {
			t.Errorf("no probe is for %s: add one", route)
			continue
		}
		if anonymous := m.call("", "", p.Method, probe.path, probe.body); (anonymous.status == http.StatusUnauthorized) != (p.Action != "") {
			t.Errorf("%s without credentials: %d", route, anonymous.status)
		}
		if p.Action == "" {
			continue
		}
		for key, token := range m.tokens {
			role, namespace := key[0], key[1]
			actor := access.Actor{ID: token.ID, Namespace: namespace, Roles: []access.Role{access.Role(role)}}
			lies := string(probe.of)
			if probe.of == own {
				lies = namespace
			}
			denial := access.Authorize(actor, p.Action, access.Resource{Namespace: lies})
			before := m.refusals(token.ID, p.Action)
			var got answer
			eventually(t, 10*time.Second, route+" is not asked too often", func() bool { // a CRL is made once in a second
				got = m.call(role, namespace, p.Method, probe.path, probe.body)
				return got.status != http.StatusTooManyRequests
			})
			refused := m.refusals(token.ID, p.Action) > before
			calls++
			switch {
			case denial == nil && (refused || got.status == http.StatusForbidden || got.status == http.StatusUnauthorized || got.status >= 500):
				t.Errorf("%s as %s of %s: %d, refused %v; the tables allow it: %s", route, role, namespace, got.status, refused, got.body)
			case denial != nil && (!refused || got.status != http.StatusForbidden && got.status != http.StatusNotFound):
				t.Errorf("%s as %s of %s: %d, refused %v; the tables do not allow it: %s", route, role, namespace, got.status, refused, got.body)
			}
		}
	}
	if want := 18 * 30; calls < want {
		t.Errorf("only %d calls were made", calls)
	}
	t.Logf("%d calls", calls)
}
