package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/csr/csrtest"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// TestFirstCertificate is the main job with programs that we did not write: openssl verifies the chain with the fetched CRL, certtool reads
// everything, and after the revocation openssl says that the certificate is revoked.
func TestFirstCertificate(t *testing.T) {
	t.Parallel()
	database := storagetest.New(t)
	s := newStack(t, database, false)
	keys := database.Column(t, `INSERT INTO idempotency_keys (actor, key, body, issuer, serial, created_at) SELECT 'a', 'of ' || days, sha256(''), 'issuing-1',
		decode(repeat('1c', 20), 'hex'), now() - make_interval(days => days) FROM unnest(ARRAY[6, 8]) AS days RETURNING key`)
	r := s.start("first", s.token.Module)
	eventually(t, 10*time.Second, "of "+strings.Join(keys, " and ")+" days ago, upkeep leaves the younger idempotency key", func() bool {
		return strings.Join(database.Column(t, `SELECT key FROM idempotency_keys WHERE actor = 'a'`), ",") == "of 6"
	})
	files := fetched{t: t, dir: t.TempDir()}
	issued, got, err := r.issue(t.Context(), "www.dev.example", nil)
	if err != nil || got.status != http.StatusCreated {
		t.Fatalf("%d %s, %v", got.status, got.body, err)
	}
	leaf, chain := files.keep("leaf.pem", []byte(issued.Certificate)), files.keep("issued-chain.pem", []byte(issued.Chain))
	for _, path := range []string{
		"/ca/" + devIssuer + ".cer", "/ca/" + devIssuer + ".pem", "/ca/" + devIssuer + "/chain.pem", "/ca/" + devIssuer + "/chain.p7c",
		"/ca/roots.pem", "/crl/" + devIssuer + ".crl", "/crl/" + devRoot + ".crl",
	} {
		files.fetch(r, path)
	}

	verify := func(extra ...string) (string, error) {
		args := append([]string{"verify", "-x509_strict", "-CAfile", files.path("roots.pem"), "-untrusted", chain}, extra...)
		return command(t, "openssl", append(args, leaf)...)
	}
	if out, err := verify("-crl_check", "-CRLfile", files.path(devIssuer+".crl")); err != nil {
		t.Errorf("openssl verify -crl_check: %v\n%s", err, out)
	}
	both := files.keep("both.pem", append(crlPEM(t, files.read(devIssuer+".crl")), crlPEM(t, files.read(devRoot+".crl"))...))
	if out, err := verify("-crl_check_all", "-CRLfile", both); err != nil {
		t.Errorf("openssl verify -crl_check_all: %v\n%s", err, out)
	}
	// With the chain as it is served, root and all, nothing else is needed.
	if out, err := command(t, "openssl", "verify", "-crl_check", "-CAfile", files.path("chain.pem"), "-CRLfile", files.path(devIssuer+".crl"), leaf); err != nil {
		t.Errorf("openssl verify with the served chain: %v\n%s", err, out)
	}
	for _, c := range [][]string{
		{"certtool", "--certificate-info", "--infile", leaf},
		{"certtool", "--certificate-info", "--inder", "--infile", files.path(devIssuer + ".cer")},
		{"certtool", "--certificate-info", "--infile", files.path("roots.pem")},
		{"certtool", "--crl-info", "--inder", "--infile", files.path(devIssuer + ".crl")},
		{"openssl", "crl", "-inform", "DER", "-text", "-noout", "-in", files.path(devIssuer + ".crl")},
		{"openssl", "crl", "-inform", "DER", "-text", "-noout", "-in", files.path(devRoot + ".crl")},
		{"openssl", "pkcs7", "-inform", "DER", "-print_certs", "-noout", "-in", files.path("chain.p7c")},
	} {
		if out, err := command(t, c[0], c[1:]...); err != nil {
			t.Errorf("%s: %v\n%s", strings.Join(c, " "), err, out)
		}
	}

	revokedAt := time.Now()
	got, err = r.call(t.Context(), http.MethodPost, "/api/v1/certificates/"+issued.Serial+"/revoke", access.Revoker,
		http.Header{"Content-Type": {"application/json"}}, []byte(`{"reason":"keyCompromise"}`))
	if err != nil || got.status != http.StatusOK {
		t.Fatalf("revoking: %d %s, %v", got.status, got.body, err)
	}
	eventually(t, 20*time.Second, "the revocation is on the CRL", func() bool {
		list, err := r.crl(t.Context())
		return err == nil && len(list.RevokedCertificateEntries) == 1
	})
	t.Logf("the revocation was on the CRL after %s", time.Since(revokedAt).Round(time.Millisecond))
	files.fetch(r, "/crl/"+devIssuer+".crl")
	if out, err := verify("-crl_check", "-CRLfile", files.path(devIssuer+".crl")); err == nil || !strings.Contains(out, "certificate revoked") {
		t.Errorf("openssl verify of a revoked certificate: %v\n%s", err, out)
	}

	// A key that was revoked as compromised is certified no more.
	key := revokedKeyRequest(t, r)
	if _, got, err = r.issueCSR(t.Context(), key, nil); err != nil || got.status != http.StatusUnprocessableEntity || !bytes.Contains(got.body, []byte("key.compromised")) {
		t.Errorf("a request for a compromised key was answered %d %s, %v", got.status, got.body, err)
	}
	r.stop()
}

// revokedKeyRequest gets a certificate, has it revoked as compromised, and returns the request for it.
func revokedKeyRequest(t *testing.T, r *replica) string {
	request := newRequest(t, "compromised.dev.example")
	issued, got, err := r.issueCSR(t.Context(), request, nil)
	if err != nil || got.status != http.StatusCreated {
		t.Fatalf("%d %s, %v", got.status, got.body, err)
	}
	got, err = r.call(t.Context(), http.MethodPost, "/api/v1/certificates/"+issued.Serial+"/revoke", access.Revoker,
		http.Header{"Content-Type": {"application/json"}}, []byte(`{"reason":"keyCompromise"}`))
	if err != nil || got.status != http.StatusOK {
		t.Fatalf("revoking: %d %s, %v", got.status, got.body, err)
	}
	return request
}

// TestHostileRequestsLeaveNothingBehind sends the whole corpus of hostile requests. Each is refused as a problem with a rule and a hint, and
// none leaves a certificate, an intent or an idempotency key.
func TestHostileRequestsLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	database := storagetest.New(t)
	s := newStack(t, database, false)
	r := s.start("hostile", s.token.Module)
	trace := func() []string {
		return database.Column(t, `SELECT format('%s certificates, %s intents, %s orphans', (SELECT count(*) FROM certificates),
			(SELECT count(*) FROM intents), (SELECT count(*) FROM orphans))`)
	}
	before := trace()
	for _, c := range csrtest.Hostile() {
		got, err := r.call(t.Context(), http.MethodPost, "/api/v1/certificates?profile=tls-server", access.Requester,
			http.Header{"Content-Type": {"application/pkcs10"}, "Idempotency-Key": {"hostile-" + hex.EncodeToString([]byte(c.Name))[:min(100, 2*len(c.Name))]}}, c.DER)
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		want := http.StatusUnprocessableEntity
		if c.Rule != "" {
			want = http.StatusBadRequest
		}
		var problem struct {
			Type       string
			Violations []struct{ Rule, Hint string }
		}
		err = json.Unmarshal(got.body, &problem)
		switch {
		case len(c.DER) > 1<<20 && got.status == http.StatusRequestEntityTooLarge:
		case got.status != want || err != nil || got.header.Get("Content-Type") != "application/problem+json":
			t.Errorf("%s: answered %d %s, want %d", c.Name, got.status, got.body, want)
		case len(problem.Violations) == 0 || problem.Violations[0].Rule == "" || problem.Violations[0].Hint == "":
			t.Errorf("%s: refused without a rule and a hint: %s", c.Name, got.body)
		case c.Rule != "" && problem.Violations[0].Rule != c.Rule:
			t.Errorf("%s: refused by %s, want %s", c.Name, problem.Violations[0].Rule, c.Rule)
		}
	}
	if after := trace(); after[0] != before[0] {
		t.Errorf("before: %s; after: %s", before[0], after[0])
	}
	r.stop()
}

// TestDevOnce plays the main job as `make dev ARGS=--once` does, twice in one home: the second run finds everything as it was.
func TestDevOnce(t *testing.T) {
	t.Parallel()
	home, err := os.MkdirTemp("", "chancery-dev-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	var root []byte
	for run := range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		cmd := exec.CommandContext(ctx, os.Args[0], "dev", "--once", "-o", []string{"text", "json"}[run], "--listen", "127.0.0.1:0", "--listen-distribution", "127.0.0.1:0")
		cmd.Env = append(os.Environ(), actAsChancery+"=1", "CHANCERY_HOME="+home)
		var out, said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &said
		err := cmd.Run()
		cancel()
		if err != nil {
			log, _ := os.ReadFile(filepath.Join(home, "service.log"))
			t.Fatalf("run %d: %v\n%s\n%s", run, err, &said, log)
		}
		var result struct{ Steps []devStep }
		switch err := json.Unmarshal(out.Bytes(), &result); {
		case run == 0 && out.Len() > 0:
			t.Errorf("as text, the steps are told on standard error, and nothing else is: %s", &out)
		case run == 1 && (err != nil || len(result.Steps) == 0 || result.Steps[len(result.Steps)-1].Step != "done"):
			t.Errorf("as JSON: %v\n%s", err, &out)
		}
		if !strings.Contains(said.String(), "done") {
			t.Errorf("run %d does not tell what it did:\n%s", run, &said)
		}
		again, err := os.ReadFile(filepath.Join(home, "root.pem"))
		if err != nil {
			t.Fatal(err)
		}
		if run > 0 && !bytes.Equal(root, again) {
			t.Error("the second run has another root")
		}
		root = again
	}
	operations := string(read(t, filepath.Join(home, journalName)))
	for _, op := range []string{`"op":"init"`, `"op":"open"`, `"op":"generate"`, `"op":"sign"`, `"op":"close"`} {
		if !strings.Contains(operations, op) {
			t.Errorf("the journal of the token lacks %s:\n%s", op, operations)
		}
	}
	for _, secret := range []string{"pin", "so-pin", "dev.json", journalName} {
		info, err := os.Stat(filepath.Join(home, secret))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v; want 0600", secret, info.Mode(), err)
		}
	}
	pin, err := os.ReadFile(filepath.Join(home, "pin"))
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(filepath.Join(home, "service.log"))
	if err != nil || bytes.Contains(log, bytes.TrimSpace(pin)) {
		t.Errorf("the log cannot be read or holds the PIN: %v", err)
	}
}

// fetched are files as a client has fetched them.
type fetched struct {
	t   *testing.T
	dir string
}

func (f fetched) path(name string) string { return filepath.Join(f.dir, name) }

func (f fetched) keep(name string, data []byte) string {
	f.t.Helper()
	if err := os.WriteFile(f.path(name), data, 0o600); err != nil {
		f.t.Fatal(err)
	}
	return f.path(name)
}

func (f fetched) read(name string) []byte {
	f.t.Helper()
	data, err := os.ReadFile(f.path(name))
	if err != nil {
		f.t.Fatal(err)
	}
	return data
}

// fetch gets a file of the distribution points, without authentication.
func (f fetched) fetch(r *replica, path string) {
	f.t.Helper()
	request, err := http.NewRequestWithContext(f.t.Context(), http.MethodGet, r.distribution+path, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	response, err := r.s.client.Do(request)
	if err != nil {
		f.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		f.t.Fatalf("%s: %d %s, %v", path, response.StatusCode, body, err)
	}
	f.keep(filepath.Base(path), body)
}

// command runs a program and returns what it printed.
func command(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	return string(out), err
}

func crlPEM(t *testing.T, der []byte) []byte {
	t.Helper()
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}
