package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
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
		"refused":                   {refuse(http.StatusUnprocessableEntity), "", "", ""},
		"refused, renewing":         {refuse(http.StatusUnprocessableEntity), "old", "old", ""},
		"answer lost":               {answer(http.StatusCreated, `{"serial":`), "", "new", ""},
		"answer lost, renewing":     {answer(http.StatusCreated, `{"serial":`), "old", "old", "new"},
		"not finished":              {refuse(http.StatusInternalServerError), "", "new", ""},
		"under way":                 {answer(http.StatusAccepted, `{"id":"r","status":"issuing"}`), "", "new", ""},
		"waits":                     {answer(http.StatusAccepted, `{"id":"r","status":"waiting"}`), "", "new", ""},
		"waits, renewing":           {answer(http.StatusAccepted, `{"id":"r","status":"waiting"}`), "old", "old", "new"},
		"issued":                    {answer(http.StatusCreated, `{"serial":"01","chain":"chain"}`), "", "new", ""},
		"issued, renewing":          {answer(http.StatusCreated, `{"serial":"01","chain":"chain"}`), "old", "new", ""},
		"busy with an earlier one":  {refuse(http.StatusConflict), "old", "old", "new"},
		"answer lost, then refused": {inTurn(hangUp, refuse(http.StatusUnauthorized)), "", "new", ""},
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

// TestAKeyThatMayHaveACertificateIsNotOverwritten: that of an earlier request, whose answer was lost, stays beside the next one's.
func TestAKeyThatMayHaveACertificateIsNotOverwritten(t *testing.T) {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"serial":`)
	}))
	defer service.Close()
	dir := t.TempDir()
	key := filepath.Join(dir, "www.key")
	for path, text := range map[string]string{key: "old", key + ".new": "lost"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{
		"request", "--name", "www.dev.example", "--key", key, "--cert", filepath.Join(dir, "www.pem"), "--api", service.URL, "--force",
	}
	err := run(t.Context(), args, Env{
		Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard,
		Environ: []string{"HOME=" + dir}, Now: time.Now, Random: rand.Reader,
	})
	if err == nil || !strings.Contains(err.Error(), "the key stays in "+key+".new-2") {
		t.Errorf("got %v", err)
	}
	for path, want := range map[string]string{key: "old", key + ".new": "lost", key + ".new-2": "new"} {
		if got := whichKey(t, path); got != want {
			t.Errorf("%s holds %q, want %q", filepath.Base(path), got, want)
		}
	}
}

// inTurn answers each request by the next handler, and the last of them goes on.
func inTurn(handlers ...http.HandlerFunc) http.HandlerFunc {
	var n atomic.Int32
	return func(w http.ResponseWriter, r *http.Request) { handlers[min(int(n.Add(1)), len(handlers))-1](w, r) }
}

// hangUp ends the connection in place of an answer.
func hangUp(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// TestFilesAreLookedAtFirst: nothing is asked for where the certificate has no place, or another file has it; and what is issued all the same
// is named.
func TestFilesAreLookedAtFirst(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for path, text := range map[string]string{at("bk.key"): "precious", at("www.csr"): "a request"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(at("gone"), 0o700), syscall.Mkfifo(at("pipe"), 0o600)); err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Header.Get("Idempotency-Key") == "lose the directory" {
			_ = os.Remove(at("gone"))
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"serial":"1cab","chain":"chain"}`)
	}))
	defer service.Close()
	for name, c := range map[string]struct {
		args  []string
		want  string // of the error; empty: none
		asked int32
	}{
		"another's file":     {[]string{"--cert", at("bk.key")}, "exists", 0},
		"no directory":       {[]string{"--cert", at("none/www.pem")}, "cannot be written", 0},
		"a directory":        {[]string{"--cert", dir, "--force"}, "is a directory", 0},
		"a pipe":             {[]string{"--cert", at("pipe"), "--force"}, "is no file", 0},
		"a key":              {[]string{"--key", at("www.key")}, "for a new key", 0},
		"a kind of key":      {[]string{"--key-type", "rsa-2048"}, "for a new key", 0},
		"nothing there":      {[]string{"--cert", at("www.pem")}, "", 1},
		"its own, by force":  {[]string{"--cert", at("old.pem"), "--force"}, "", 1},
		"lost in the middle": {[]string{"--cert", at("gone/www.pem"), "--idempotency-key", "lose the directory"}, "chancery get 1cab", 1},
	} {
		asked.Store(0)
		err := run(t.Context(), append([]string{"request", "--csr", at("www.csr"), "--api", service.URL}, c.args...), Env{
			Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard,
			Environ: []string{"HOME=" + dir}, Now: time.Now, Random: rand.Reader,
		})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) || asked.Load() != c.asked {
			t.Errorf("%s: %v, after %d calls", name, err, asked.Load())
		}
	}
	if text, err := os.ReadFile(at("bk.key")); string(text) != "precious" {
		t.Errorf("bk.key holds %q, %v", text, err)
	}
	if left, _ := filepath.Glob(at(".*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
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

// TestANewKeyGoesWhereALinkLeads: the file behind a symbolic link gets the new key, and the link stays.
func TestANewKeyGoesWhereALinkLeads(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, err := range []error{
		os.Mkdir(at("archive"), 0o700), os.WriteFile(at("archive/1.key"), []byte("old"), 0o600), os.WriteFile(at("archive/1.pem"), []byte("old"), 0o600),
		os.Symlink("archive/1.key", at("live.key")), os.Symlink("archive/1.pem", at("live.pem")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"serial":"1cab","chain":"chain"}`)
	}))
	defer service.Close()
	err := run(t.Context(), []string{
		"request", "--name", "www.example", "--api", service.URL, "--key", at("live.key"), "--cert", at("live.pem"), "--force",
	}, Env{Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard, Environ: []string{"HOME=" + dir}, Now: time.Now, Random: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	if got := whichKey(t, at("archive/1.key")); got != "new" {
		t.Errorf("behind the link is %q", got)
	}
	if text, err := os.ReadFile(at("archive/1.pem")); string(text) != "chain" {
		t.Errorf("behind the link is the certificate %q, %v", text, err)
	}
	for _, name := range []string{"live.key", "live.pem"} {
		if _, err := os.Readlink(at(name)); err != nil {
			t.Errorf("the link: %v", err)
		}
	}
}
