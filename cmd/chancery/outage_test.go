package main

import (
	"bytes"
	"io"
	"net/http"
	"testing"

	"github.com/chancery-ca/chancery/storage/storagetest"
)

// Whoever verifies is served while Postgres is away, also what nobody asked this replica for before; whoever wants something new is told
// to come again, and gets it as soon as Postgres is back.
func TestWhatIsPublishedStaysServedWhilePostgresIsAway(t *testing.T) {
	t.Parallel()
	server := storagetest.NewServer(t, storagetest.Options{})
	s := newStack(t, &server.Database, false)
	r := s.start("replica-1", s.token.Module)
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"/ca/roots.pem", "/intermediates.pem", "/ca/" + devRoot + ".cer", "/ca/" + devIssuer + ".cer", "/ca/" + devIssuer + "/chain.pem",
		"/crl/" + devRoot + ".crl", "/crl/" + devIssuer + ".crl",
	} {
		if status, body := fetch(t, r.distribution+path); status != http.StatusOK || len(body) == 0 {
			t.Errorf("%s while Postgres is away: status %d, %d octets", path, status, len(body))
		}
	}
	if _, a, err := r.issue(t.Context(), "www.dev.example", nil); err != nil || a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("a request while Postgres is away: status %d, Retry-After %q, %v", a.status, a.header.Get("Retry-After"), err)
	}
	_, before := fetch(t, r.distribution+"/ca/"+devIssuer+".cer")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	if _, a, err := r.issue(t.Context(), "www.dev.example", nil); err != nil || a.status != http.StatusCreated {
		t.Errorf("a request when Postgres is back: status %d %s, %v", a.status, a.body, err)
	}
	if _, after := fetch(t, r.distribution+"/ca/"+devIssuer+".cer"); !bytes.Equal(before, after) {
		t.Error("the issuer's certificate is another one when Postgres is back")
	}
	r.stop()
}

func fetch(t *testing.T, url string) (status int, body []byte) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err = io.ReadAll(response.Body); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, body
}
