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
