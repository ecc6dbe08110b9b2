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

// TestHealthTellsWhy: who asks whether a service is ready is told what /readyz says that it lacks.
func TestHealthTellsWhy(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status           int
		body, text, json string
	}{
		"ready":            {200, `{"status":"ready"}`, "ready\n", `{"ready":true,"status":200}`},
		"not ready":        {503, `{"title":"no","detail":"the key: away"}`, "not ready: the key: away\n", `{"ready":false,"status":503,"detail":"the key: away"}`},
		"of several lines": {503, `{"detail":"a\nready\u001b"}`, "not ready: a\n| ready\ufffd\n", `{"ready":false,"status":503,"detail":"a\nready\u001b"}`},
		"a proxy":          {502, `<html>`, "not ready: the answer was 502\n", `{"ready":false,"status":502}`},
	} {
		t.Run(name, func(t *testing.T) {
			service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			}))
			defer service.Close()
			for _, form := range []struct{ name, want string }{{"text", c.text}, {"json", c.json}} {
				var said bytes.Buffer
				err := run(t.Context(), []string{"health", "--url", service.URL, "-o", form.name}, Env{
					Stdin: strings.NewReader(""), Stdout: &said, Stderr: io.Discard, Now: time.Now, Random: rand.Reader,
				})
				got := said.String()
				if form.name == "json" {
					got = strings.NewReplacer("\n  ", "", "\n}\n", "}", `": `, `":`).Replace(got)
				}
				if (err == nil) != (c.status == 200) || got != form.want {
					t.Errorf("got %v and %q, want %q", err, got, form.want)
				}
			}
		})
	}
}
