package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/oidc/oidctest"
)

// here is a replica in this process, on addresses that were known before its configuration was written.
type here struct {
	q    *queueStack
	api  string
	log  *logBuffer
	stop func()
}

// serveHere starts one. more makes the rest of the configuration of the API's address.
func (q *queueStack) serveHere(name string, more func(api string) string) *here {
	t := q.t
	t.Helper()
	l, err := listen(ListenConfig{API: "127.0.0.1:0", Distribution: "127.0.0.1:0", Operations: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	h := &here{q: q, api: "https://" + l.api.Addr().String(), log: newLog("serving")}
	text := q.config(name, q.token.Module) + fmt.Sprintf("policies: {directory: %q}\n", q.policies) + more(h.api)
	cfg, err := parseConfig(filepath.Join(q.dir, name+".yaml"), []byte(text), nil)
	if err != nil {
		l.close()
		t.Fatal(err)
	}
	a := &app{Env: Env{Stdout: io.Discard, Stderr: h.log, Now: time.Now, Random: q.app.Random, Environ: environ()}}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- a.serve(ctx, cfg, l, nil, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-ended:
		cancel()
		t.Fatalf("replica %s does not serve: %v\n%s", name, err, h.log)
	}
	h.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("replica %s: %v\n%s", name, err, h.log)
		}
	}
	t.Cleanup(func() {
		h.stop()
		if t.Failed() {
			t.Log(h.log)
		}
	})
	return h
}

// call asks the API of the replica.
func (h *here) call(method, path, token string, body any) answer {
	h.q.t.Helper()
	encoded, err := json.Marshal(body)
	if err != nil {
		h.q.t.Fatal(err)
	}
	header := http.Header{"Authorization": {"Bearer " + token}}
	if body != nil {
		header.Set("Content-Type", "application/json")
	} else {
		encoded = nil
	}
	got, err := (&replica{s: h.q.stack, api: h.api}).call(h.q.t.Context(), method, path, "", header, encoded)
	if err != nil {
		h.q.t.Fatal(err)
	}
	return got
}

// trust writes the roots of a provider where a configuration can name them.
func trust(t *testing.T, roots []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "provider.pem")
	if err := os.WriteFile(file, roots, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestTokensOfAProvider calls the API as a pipeline does that has a token of its provider and none of ours.
func TestTokensOfAProvider(t *testing.T) {
	t.Parallel()
	issuer, q := oidctest.NewIssuer(t), newQueueStack(t)
	ca := trust(t, issuer.Roots())
	issuer.Down(true) // the service starts all the same
	h := q.serveHere("alpha", func(string) string {
		return fmt.Sprintf(`oidc: [{issuer: %q, audiences: [chancery], ca_file: %q}]
identities:
  - {name: pipelines, oidc: {iss: [%[1]q], sub: ["repo:*:main"]}, namespace: "${namespace}", roles: [requester]}
`, issuer.URL, ca)
	})
	claims := map[string]any{
		"iss": issuer.URL, "sub": "repo:web:main", "aud": "chancery", "exp": time.Now().Add(time.Hour).Unix(), "namespace": "dev",
	}
	token := issuer.Token(claims, nil)
	want := func(got answer, status int, word string) {
		t.Helper()
		if got.status != status || !strings.Contains(string(got.body), word) {
			t.Errorf("answered %d: %s; want %d with %q", got.status, got.body, status, word)
		}
	}
	away := h.call(http.MethodGet, "/api/v1/profiles", token, nil)
	want(away, http.StatusServiceUnavailable, "unavailable")
	if away.header.Get("Retry-After") == "" {
		t.Error("nobody is told when to try again")
	}
	issuer.Down(false)
	// It is asked again after ten seconds.
	eventually(t, 30*time.Second, "the provider is back, and its tokens are taken", func() bool {
		return h.call(http.MethodGet, "/api/v1/profiles", token, nil).status == http.StatusOK
	})
	request := map[string]string{"profile": "tls-server", "csr": newRequest(t, "pipeline.dev.example")}
	want(h.call(http.MethodPost, "/api/v1/certificates", token, request), http.StatusCreated, "BEGIN CERTIFICATE")
	want(h.call(http.MethodPost, "/api/v1/console/logins", token, map[string]string{}), http.StatusNotFound, "no console")
	for claim, value := range map[string]any{"aud": "another", "sub": "repo:web:feature", "namespace": "*", "exp": 1} {
		bad := map[string]any{}
		for k, v := range claims {
			bad[k] = v
		}
		bad[claim] = value
		want(h.call(http.MethodGet, "/api/v1/profiles", issuer.Token(bad, nil), nil), http.StatusUnauthorized, "unauthenticated")
	}
	if strings.Contains(h.log.String(), token) {
		t.Error("the log holds a token")
	}
}

// consoleConfig is the configuration of a console at a provider, for a person who approves and revokes.
func consoleConfig(provider *oidctest.Provider, ca, secret, api string) string {
	return fmt.Sprintf(`oidc: [{issuer: %[1]q, ca_file: %[2]q}]
console: {url: %[3]q, login: {issuer: %[1]q, client_id: %[4]q, client_secret_file: %[5]q}}
identities:
  - {name: on call, oidc: {iss: [%[1]q], groups: [%[6]s]}, namespace: "*", roles: [approver, revoker], person: "${email}", groups: groups}
`, provider.URL, ca, api, oidctest.ClientID, secret, oidctest.Group)
}

// TestTheConsoleInABrowser is a day of a person on call: signs in at the provider, approves, revokes, looks around on another replica,
// and signs out again. No page may have anything for the browser to complain of.
func TestTheConsoleInABrowser(t *testing.T) {
	t.Parallel()
	findChromium(t)
	q := newQueueStack(t)
	q.write("guarded", guarded(1, ""))
	secret := filepath.Join(q.dir, "client-secret")
	if err := os.WriteFile(secret, []byte(oidctest.ClientSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var provider *oidctest.Provider
	var ca, first string
	alpha := q.serveHere("alpha", func(api string) string {
		provider = oidctest.NewProvider(t, api+"/console/callback", api+"/console/signed-out")
		ca, first = trust(t, provider.Roots()), api
		return consoleConfig(provider, ca, secret, api)
	})
	q.more = consoleConfig(provider, ca, secret, first)
	beta := q.start("beta")

	requester := q.tokens[access.Requester]
	waits := q.want(alpha.call(http.MethodPost, "/api/v1/certificates", requester, map[string]string{
		"profile": "guarded", "csr": newRequest(t, "guarded.dev.example"),
	}), http.StatusAccepted)
	got := alpha.call(http.MethodPost, "/api/v1/certificates", requester,
		map[string]string{"profile": "tls-server", "csr": newRequest(t, "www.dev.example")})
	var issued issuedJSON
	if err := json.Unmarshal(got.body, &issued); err != nil || got.status != http.StatusCreated {
		t.Fatalf("%d %s", got.status, got.body)
	}

	b := newBrowser(t)
	b.open(alpha.api + "/console/requests")
	b.says("/console/login", "Sign in at")
	b.picture("1-login")
	b.press("Sign in at")
	b.fill("username", oidctest.Username)
	b.fill("password", oidctest.Password)
	b.press("Sign in")
	b.says(alpha.api+"/console/requests", "Requests that need approval", "guarded.dev.example", "waiting", "Ada Lovelace")
	b.picture("2-requests")

	b.press("guarded.dev.example")
	b.says(waits.ID, "0 of 1", "BEGIN CERTIFICATE REQUEST")
	b.fill("comment", "seen, and agreed in the meeting")
	b.picture("3-request")
	b.press("Approve")
	b.says("issued", "ada@dev.example approved", "seen, and agreed in the meeting")

	b.press("Certificates")
	b.says("www.dev.example", "guarded.dev.example", "valid")
	b.picture("4-certificates")
	b.fill("q", issued.Serial)
	b.press("Search")
	b.says("/console/certificates/"+issued.Serial, "BEGIN CERTIFICATE")
	b.picture("5-certificate")
	b.press("Revoke")
	b.picture("6-revoke")
	b.fill("reason", "superseded")
	b.eval(`document.querySelector("[name=sure]").click()`, nil)
	b.fill("comment", "replaced by a newer one")
	b.press("Revoke")
	b.says("/console/certificates/"+issued.Serial, "revoked", "superseded", "replaced by a newer one")
	var shown issuedJSON
	state := alpha.call(http.MethodGet, "/api/v1/certificates/"+issued.Serial, q.tokens[access.Auditor], nil)
	if err := json.Unmarshal(state.body, &shown); err != nil || shown.Status != "revoked" {
		t.Errorf("the API tells %s: %v", state.body, err)
	}

	b.open(beta.api + "/console/authorities") // the session is every replica's
	b.says("issuing-1", "root-1", "current", "open here")
	b.picture("7-authorities")
	b.press("You")
	b.says("ada@dev.example", "approver, revoker", "pki-approvers", "certificate.revoke")
	b.picture("8-you")

	b.press("Sign out")
	b.says("You are signed out")
	b.picture("9-signed-out")
	b.press("Sign out at")
	b.says(alpha.api + "/console/signed-out")
	b.open(alpha.api + "/console/certificates")
	b.says("/console/login")
	b.content()
	if log := alpha.log.String(); !strings.Contains(log, "/console/requests/{id}/approve") || strings.Contains(log, "code=") {
		t.Errorf("the log does not tell what was done, or tells codes: %s", log)
	}
}

// TestALinkOpensTheConsole signs in by a link of the command line, as where there is no provider.
func TestALinkOpensTheConsole(t *testing.T) {
	t.Parallel()
	q := newQueueStack(t)
	h := q.serveHere("alpha", func(api string) string { return fmt.Sprintf("console: {url: %q}\n", api) })
	var out strings.Builder
	a := Env{
		Stdout: &out, Stderr: io.Discard, Now: time.Now, Random: q.app.Random,
		Environ: []string{"CHANCERY_API=" + h.api, "CHANCERY_TOKEN=" + q.tokens[access.Auditor], "CHANCERY_CA_BUNDLE=" + q.root()},
	}
	if err := run(t.Context(), []string{"console", "login"}, a); err != nil {
		t.Fatal(err)
	}
	link := strings.TrimSpace(out.String())
	if !regexp.MustCompile(`^` + h.api + `/console/enter\?code=[A-Z2-7]{26}$`).MatchString(link) {
		t.Fatalf("the link is %q", link)
	}
	code := link[strings.Index(link, "=")+1:]
	browser := *q.client
	browser.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	press := func() *http.Response {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.api+"/console/enter",
			strings.NewReader(url.Values{"code": {code}}.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", h.api)
		got, err := browser.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = got.Body.Close()
		return got
	}
	entered := press()
	if entered.StatusCode != http.StatusSeeOther || len(entered.Cookies()) != 1 {
		t.Fatalf("the link: %d, %v", entered.StatusCode, entered.Cookies())
	}
	if again := press(); again.StatusCode != http.StatusUnauthorized || len(again.Cookies()) != 0 {
		t.Errorf("the link again: %d, %v", again.StatusCode, again.Cookies())
	}
	look := func() int {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.api+"/console/certificates", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.AddCookie(entered.Cookies()[0])
		got, err := browser.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = got.Body.Close()
		return got.StatusCode
	}
	if status := look(); status != http.StatusOK {
		t.Errorf("signed in: %d", status)
	}
	q.exec(`UPDATE api_tokens SET revoked_at = now()`)
	if status := look(); status != http.StatusSeeOther {
		t.Errorf("after the token was withdrawn: %d", status)
	}
}
