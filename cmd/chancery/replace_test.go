package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/storage"
)

// A request that replaces a certificate revokes it as superseded once the new one is on record, and not before: what is refused, or waits,
// revokes nothing. A process that is killed in between has issued and not revoked, and the same request, repeated, makes up for it.
func TestARenewalSupersedes(t *testing.T) {
	t.Parallel()
	q := newQueueStack(t)
	store, err := storage.Open(t.Context(), storage.Config{URL: q.database.URL, MaxConns: 2, Unsafe: q.unsafe})
	if err != nil {
		t.Fatal(err)
	}
	for person, namespace := range map[string]string{"renewer": "dev", "stranger": "other"} {
		q.people[person], err = q.app.createToken(t.Context(), store, ca.NewAPIToken{
			Name: person, Person: person, Namespace: namespace, Roles: []access.Role{access.Requester, access.Revoker},
		}, "test")
		if err != nil {
			t.Fatal(err)
		}
	}
	store.Close()
	armed := filepath.Join(q.dir, "armed")
	living, mortal := q.start("living"), q.start("mortal", dieAt+"=after certificate", dieWhen+"="+armed)
	order := func(r *replica, person, profile, csr, replaces, key string) (answer, map[string]string) {
		header := http.Header{}
		if key != "" {
			header.Set("Idempotency-Key", key)
		}
		got := q.as(person, r, http.MethodPost, "/api/v1/certificates", header,
			map[string]string{"profile": profile, "csr": csr, "replaces": replaces})
		var issued map[string]string
		if got.status == http.StatusCreated {
			if err := json.Unmarshal(got.body, &issued); err != nil {
				t.Fatal(err)
			}
		}
		return got, issued
	}
	said := func(serial string) string {
		return strings.Join(q.database.Column(t, `SELECT reason || ' ' || comment FROM revocations WHERE serial = decode($1, 'hex')`, serial),
			";")
	}
	csr := newRequest(t, "www.dev.example")
	_, old := order(living, "renewer", "tls-server", csr, "", "")

	for what, c := range map[string]struct {
		person, profile, replaces string
		status                    int
		says                      string
	}{
		"without the right to revoke": {"alice", "tls-server", old["serial"], http.StatusForbidden, "role"},
		"of another namespace":        {"stranger", "tls-server", old["serial"], http.StatusBadRequest, "no such certificate"},
		"of nobody":                   {"renewer", "tls-server", "0102", http.StatusBadRequest, "no such certificate"},
		"no serial":                   {"renewer", "tls-server", "AB:CD", http.StatusBadRequest, "not a serial number"},
		"that waits":                  {"renewer", "guarded", old["serial"], http.StatusBadRequest, "needs approval"},
		"that is refused":             {"renewer", "none", old["serial"], http.StatusUnprocessableEntity, "profile"},
	} {
		got, _ := order(living, c.person, c.profile, csr, c.replaces, "")
		if got.status != c.status || !strings.Contains(string(got.body), c.says) {
			t.Errorf("%s: %d %s", what, got.status, got.body)
		}
	}
	if told := said(old["serial"]); told != "" {
		t.Fatalf("what was not replaced is revoked: %s", told)
	}

	got, renewed := order(living, "renewer", "tls-server", csr, old["serial"], "first")
	if got.status != http.StatusCreated || renewed["replaced"] != old["serial"] {
		t.Fatalf("%d %s", got.status, got.body)
	}
	want := "4 replaced by " + renewed["serial"] + " of " + devIssuer
	if told := said(old["serial"]); told != want {
		t.Errorf("the replaced certificate: %q, want %q", told, want)
	}
	if again, same := order(living, "renewer", "tls-server", csr, old["serial"], "first"); same["serial"] != renewed["serial"] ||
		same["replaced"] != old["serial"] {
		t.Errorf("asked again: %d %s", again.status, again.body)
	}
	if told := said(old["serial"]); told != want {
		t.Errorf("asked again, it is revoked again: %q", told)
	}

	if err := os.WriteFile(armed, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, _ := order(mortal, "renewer", "tls-server", csr, renewed["serial"], "second"); got.status != 0 {
		t.Fatalf("the process did not die: %d %s", got.status, got.body)
	}
	if told := said(renewed["serial"]); told != "" {
		t.Fatalf("the killed process revoked: %s", told)
	}
	got, third := order(living, "renewer", "tls-server", csr, renewed["serial"], "second")
	if got.status != http.StatusCreated || got.header.Get("Idempotency-Replayed") != "true" || third["replaced"] != renewed["serial"] {
		t.Fatalf("repeated: %d %s", got.status, got.body)
	}
	if told := said(renewed["serial"]); told != "4 replaced by "+third["serial"]+" of "+devIssuer {
		t.Errorf("after the repetition: %q", told)
	}
	living.stop()
}
