package main

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestANewKeyIsThereWhileACertificateMayBe: a key goes only when the service has said that there is no certificate for it, and that of the
// certificate in use stays in its place until the new certificate is there.
func TestANewKeyIsThereWhileACertificateMayBe(t *testing.T) {
	t.Parallel()
	refuse := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(status)
			_, _ = fmt.Fprintf(w, `{"type":"urn:test","title":"no","status":%d}`, status)
		}
	}
	answer := func(status int, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, text)
		}
	}
	for name, c := range map[string]struct {
		service  http.HandlerFunc
		old      string // key in the place before, if any
		key, new string // what is there then: the old key, a new one, or nothing
	}{
		"refused":                  {refuse(http.StatusUnprocessableEntity), "", "", ""},
		"refused, renewing":        {refuse(http.StatusUnprocessableEntity), "old", "old", ""},
		"answer lost":              {answer(http.StatusCreated, `{"serial":`), "", "new", ""},
		"answer lost, renewing":    {answer(http.StatusCreated, `{"serial":`), "old", "old", "new"},
		"not finished":             {refuse(http.StatusInternalServerError), "", "new", ""},
		"under way":                {answer(http.StatusAccepted, `{"id":"r","status":"issuing"}`), "", "new", ""},
		"waits":                    {answer(http.StatusAccepted, `{"id":"r","status":"waiting"}`), "", "new", ""},
		"waits, renewing":          {answer(http.StatusAccepted, `{"id":"r","status":"waiting"}`), "old", "old", "new"},
		"issued":                   {answer(http.StatusCreated, `{"serial":"01","chain":"chain"}`), "", "new", ""},
		"issued, renewing":         {answer(http.StatusCreated, `{"serial":"01","chain":"chain"}`), "old", "new", ""},
		"busy with an earlier one": {refuse(http.StatusConflict), "old", "old", "new"},
	} {
		t.Run(name, func(t *testing.T) {
			service := httptest.NewServer(c.service)
			defer service.Close()
			dir := t.TempDir()
			key := filepath.Join(dir, "www.key")
			args := []string{
				"request", "--name", "www.dev.example", "--key", key, "--cert", filepath.Join(dir, "www.pem"), "--api", service.URL,
			}
			if c.old != "" {
				args = append(args, "--force")
				if err := os.WriteFile(key, []byte(c.old), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var said bytes.Buffer
			err := run(t.Context(), args, Env{
				Stdin: strings.NewReader(""), Stdout: &said, Stderr: &said, Environ: []string{"HOME=" + dir}, Now: time.Now, Random: rand.Reader,
			})
			for path, want := range map[string]string{key: c.key, key + ".new": c.new} {
				if got := whichKey(t, path); got != want {
					t.Errorf("%s holds %q, want %q: %v, %s", filepath.Base(path), got, want, err, said.String())
				}
			}
			if err != nil && c.key+c.new != c.old && !strings.Contains(err.Error(), "the key stays in "+dir) {
				t.Errorf("nobody is told where the key is: %v", err)
			}
		})
	}
}

// whichKey tells what a file holds: the old key, a new one, or nothing, where there is none.
func whichKey(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	switch {
	case os.IsNotExist(err):
		return ""
	case err != nil:
		t.Fatal(err)
	case strings.Contains(string(text), "PRIVATE KEY"):
		return "new"
	}
	return string(text)
}
