package oidc_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/oidc"
	"github.com/chancery-ca/chancery/oidc/oidctest"
)

const callback = "https://ca.dev.example/console/callback"

// TestALoginAtARealProvider signs a person in at a whole provider, as a browser does.
func TestALoginAtARealProvider(t *testing.T) {
	provider, c := oidctest.NewProvider(t, callback, "https://ca.dev.example/console/signed-out"), &clock{at: time.Now()}
	ps := newProviders(t, c, oidc.Issuer{URL: provider.URL, Client: provider.Client})
	login, err := ps.Login(oidc.Party{
		Issuer: provider.URL, ClientID: oidctest.ClientID, Secret: func() (string, error) { return oidctest.ClientSecret, nil },
		Redirect: callback, Scopes: []string{"profile", "email"},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	attempt, page, err := login.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	answer := signIn(t, provider, page)
	actor, err := login.Finish(ctx, attempt, answer)
	if err != nil {
		t.Fatal(err)
	}
	if actor.Person != "ada@dev.example" || actor.Name != "Ada Lovelace" || actor.ID != "oidc:"+provider.URL+" id-of-ada" {
		t.Errorf("the actor is %+v", actor)
	}
	if _, err := login.Finish(ctx, attempt, answer); !refused(err) {
		t.Errorf("the code a second time: %v, want a refusal", err)
	}
	stolen := attempt
	stolen.Verifier = strings.Repeat("v", 43)
	again := signIn(t, provider, page)
	if _, err := login.Finish(ctx, stolen, again); !refused(err) {
		t.Errorf("a code with another verifier: %v, want a refusal", err)
	}
	out, err := url.Parse(login.SignOutURL(ctx, "https://ca.dev.example/console/signed-out"))
	if err != nil || !strings.HasPrefix(out.String(), provider.URL+"/end_session?") || out.Query().Get("client_id") != oidctest.ClientID {
		t.Errorf("signing out is at %s, %v", out, err)
	}
}

// signIn does what a person does at the provider, and returns what the browser is sent back with.
func signIn(t *testing.T, provider *oidctest.Provider, page string) url.Values {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := *provider.Client
	browser.Jar = jar
	browser.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), callback) {
			return http.ErrUseLastResponse
		}
		return nil
	}
	form, err := browser.Get(page)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(form.Body)
	_ = form.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), `name="id" value="`)
	id, _, found := strings.Cut(rest, `"`)
	if !found {
		t.Fatalf("the provider shows no form: %d %s", form.StatusCode, text)
	}
	answer, err := browser.PostForm(provider.URL+"/login/username",
		url.Values{"id": {id}, "username": {oidctest.Username}, "password": {oidctest.Password}})
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	back, err := answer.Location()
	if err != nil || back.Query().Get("code") == "" {
		t.Fatalf("the provider sends no code: %d %v", answer.StatusCode, err)
	}
	return back.Query()
}

// TestAnswersThatAreNotTakenForALogin has one row for each way that a provider's answer can be another's, or forged.
func TestAnswersThatAreNotTakenForALogin(t *testing.T) {
	issuer, ps, c := setUp(t)
	ctx := context.Background()
	login, err := ps.Login(oidc.Party{Issuer: issuer.URL, ClientID: "console", Redirect: callback})
	if err != nil {
		t.Fatal(err)
	}
	attempt, page, err := login.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	asked, err := url.Parse(page)
	if err != nil {
		t.Fatal(err)
	}
	q := asked.Query()
	if q.Get("code_challenge_method") != "S256" || q.Get("code_challenge") == "" || q.Get("state") != attempt.State ||
		q.Get("nonce") != attempt.Nonce ||
		q.Get("redirect_uri") != callback || q.Get("response_type") != "code" || q.Get("client_id") != "console" {
		t.Errorf("the provider is asked %s", page)
	}
	claims := but(good(issuer, c), map[string]any{"aud": "console", "nonce": attempt.Nonce})
	tokens := func(changes map[string]any) map[string]any {
		return map[string]any{"access_token": "opaque", "token_type": "Bearer", "id_token": issuer.Token(but(claims, changes), nil)}
	}
	whole := url.Values{"state": {attempt.State}, "code": {"c"}}
	with := func(name string, values ...string) url.Values {
		v := url.Values{"state": whole["state"], "code": whole["code"]}
		v[name] = values
		return v
	}
	issuer.Answer(tokens(nil))
	if _, err := login.Finish(ctx, attempt, whole); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	for name, row := range map[string]struct {
		answer  url.Values
		attempt oidc.Attempt
		tokens  map[string]any
	}{
		"another state":                 {answer: with("state", "another"), attempt: attempt, tokens: tokens(nil)},
		"two states":                    {answer: with("state", attempt.State, "another"), attempt: attempt, tokens: tokens(nil)},
		"no state":                      {answer: url.Values{"code": {"c"}}, attempt: oidc.Attempt{}, tokens: tokens(nil)},
		"an empty state":                {answer: with("state", ""), attempt: oidc.Attempt{}, tokens: tokens(nil)},
		"no code":                       {answer: with("code", ""), attempt: attempt, tokens: tokens(nil)},
		"two codes":                     {answer: with("code", "c", "d"), attempt: attempt, tokens: tokens(nil)},
		"another issuer answers":        {answer: with("iss", "https://evil.example"), attempt: attempt, tokens: tokens(nil)},
		"the person said no":            {answer: with("error", "access_denied"), attempt: attempt, tokens: tokens(nil)},
		"an error that cannot be shown": {answer: with("error", "<b>\x00"), attempt: attempt, tokens: tokens(nil)},
		"the code was used":             {answer: whole, attempt: attempt, tokens: nil},
		"no ID token": {
			answer: whole, attempt: attempt,
			tokens: map[string]any{"access_token": "opaque", "token_type": "Bearer"},
		},
		"the nonce of another": {answer: whole, attempt: attempt, tokens: tokens(map[string]any{"nonce": "another"})},
		"no nonce":             {answer: whole, attempt: attempt, tokens: tokens(map[string]any{"nonce": nil})},
		"another client's":     {answer: whole, attempt: attempt, tokens: tokens(map[string]any{"aud": "another"})},
		"many audiences, made for other": {
			answer: whole, attempt: attempt,
			tokens: tokens(map[string]any{"aud": []string{"console", "b"}, "azp": "b"}),
		},
		"many audiences, made for none": {answer: whole, attempt: attempt, tokens: tokens(map[string]any{"aud": []string{"console", "b"}})},
		"expired": {
			answer: whole, attempt: attempt,
			tokens: tokens(map[string]any{"exp": c.now().Add(-time.Minute).Unix()}),
		},
		"in no group that counts": {answer: whole, attempt: attempt, tokens: tokens(map[string]any{"groups": []string{"everybody"}})},
	} {
		issuer.Answer(row.tokens)
		if actor, err := login.Finish(ctx, row.attempt, row.answer); !refused(err) {
			t.Errorf("%s: %+v, %v; want a refusal", name, actor, err)
		} else if strings.Contains(err.Error(), "<b>") {
			t.Errorf("%s: the refusal repeats what came: %v", name, err)
		}
	}

	issuer.Down(true)
	if _, err := login.Finish(ctx, attempt, whole); !errors.Is(err, oidc.ErrUnavailable) {
		t.Errorf("the provider is away: %v, want ErrUnavailable", err)
	}
}

func TestAProviderThatNamesItselfMustDoSo(t *testing.T) {
	issuer, ps, _ := setUp(t)
	issuer.Say("authorization_response_iss_parameter_supported", true)
	login, err := ps.Login(oidc.Party{Issuer: issuer.URL, ClientID: "console", Redirect: callback})
	if err != nil {
		t.Fatal(err)
	}
	attempt, _, err := login.Begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := login.Finish(context.Background(), attempt, url.Values{"state": {attempt.State}, "code": {"c"}}); !refused(err) {
		t.Errorf("an answer of nobody: %v, want a refusal", err)
	}
}

func TestALoginWhileTheProviderIsAway(t *testing.T) {
	issuer, ps, _ := setUp(t)
	issuer.Down(true)
	login, err := ps.Login(oidc.Party{Issuer: issuer.URL, ClientID: "console", Redirect: callback})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := login.Begin(context.Background()); !errors.Is(err, oidc.ErrUnavailable) {
		t.Errorf("%v, want ErrUnavailable", err)
	}
	if login.SignOutURL(context.Background(), "https://ca.dev.example/") != "" {
		t.Error("there is a way to sign out at a provider that is away")
	}
	if _, err := ps.Login(oidc.Party{Issuer: "https://another.example", ClientID: "console", Redirect: callback}); err == nil {
		t.Error("a login at an issuer that is not configured was made")
	}
}
