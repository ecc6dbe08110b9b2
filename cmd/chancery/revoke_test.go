package main

import (
	"bytes"
	"crypto/rand"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestWhetherManyAreOrdered: who was turned away, or reached nobody, is not told that something may have been ordered.
func TestWhetherManyAreOrdered(t *testing.T) {
	t.Parallel()
	problem := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"type":"urn:test","title":"no"}`)
		}
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		sure   bool
	}{
		"refused":     {problem(http.StatusForbidden), true},
		"turned away": {problem(http.StatusTooManyRequests), true},
		"failed":      {problem(http.StatusInternalServerError), false},
		"answer lost": {hangUp, false},
	} {
		service := httptest.NewServer(inTurn(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"outlook":{"to_revoke":2}}`)
		}, c.answer))
		err := run(t.Context(), []string{"revoke", "1cab", "1cac", "--reason", "superseded", "--yes", "--api", service.URL}, Env{
			Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard, Environ: []string{"HOME=" + t.TempDir()},
			Now: time.Now, Random: rand.Reader,
		})
		service.Close()
		if err == nil || strings.Contains(err.Error(), "is not known") == c.sure {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAnOrderThatIsNotCarriedOutWholeFails: what is given by its serial and not revoked then is a failure, also where nobody is asked.
func TestAnOrderThatIsNotCarriedOutWholeFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ outlook, job, out, err string }{
		"whole": {`{"to_revoke":1}`, `{"status":"finished","revoked":1}`, "revoked", ""},
		"unknown": {
			`{"unknown":2,"unknown_serials":["1cab"]}`, `{"status":"finished"}`,
			"unknown serial   1cab\nunknown serials  1 more\n", "2 of the serials",
		},
		"no hold":   {`{"to_revoke":1}`, `{"status":"finished","refused":3}`, "refused", "3 certificates are not held"},
		"cancelled": {`{"to_revoke":9}`, `{"status":"cancelled","done":4,"total":9}`, "cancelled", "4 of 9"},
	} {
		t.Run(name, func(t *testing.T) {
			service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, `{"outlook":`+c.outlook+`,"job":`+c.job+`}`)
			}))
			defer service.Close()
			var said bytes.Buffer
			err := run(t.Context(), []string{"revoke", "1cab", "1cac", "--reason", "superseded", "--yes", "--api", service.URL}, Env{
				Stdin: strings.NewReader(""), Stdout: &said, Stderr: io.Discard, Environ: []string{"HOME=" + t.TempDir()},
				Now: time.Now, Random: rand.Reader,
			})
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) || !strings.Contains(said.String(), c.out) {
				t.Errorf("got %v and\n%s", err, said.String())
			}
		})
	}
}
