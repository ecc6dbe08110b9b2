// Package oidctest gives tests identity providers: a whole one with a page to sign in at, and one whose tokens and keys a test makes as it
// likes.
package oidctest

import (
	"context"
	"crypto/rand"
	"html/template"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/zitadel/oidc/v3/example/server/storage"
	protocol "github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// The client that a Provider knows, and its person.
const (
	ClientID     = "console"
	ClientSecret = "a secret of tests"
	Username     = "ada"
	Password     = "verysecure"
	Group        = "pki-approvers"
)

// Provider is a whole OpenID Connect provider over TLS on a free port of the loopback address.
type Provider struct {
	URL    string
	Client *http.Client // trusts its certificate
	server *httptest.Server
}

// NewProvider starts a provider with one client, whose URLs these are, and one person. It ends with the test.
func NewProvider(t testing.TB, redirect, signedOut string) *Provider {
	t.Helper()
	var routes http.Handler
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { routes.ServeHTTP(w, r) }))
	t.Cleanup(server.Close)
	kept := store{
		Storage: storage.NewStorageWithClients(people{},
			map[string]*storage.Client{ClientID: storage.WebClient(ClientID, ClientSecret, redirect)}),
		back: signedOut,
	}
	config := &op.Config{CodeMethodS256: true, AuthMethodPost: true, DefaultLogoutRedirectURI: "/signed-out"}
	if _, err := rand.Read(config.CryptoKey[:]); err != nil {
		t.Fatal(err)
	}
	provider, err := op.NewProvider(config, kept, op.StaticIssuer(server.URL))
	if err != nil {
		t.Fatalf("starting an identity provider: %v", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /login/username", showLogin)
	mux.HandleFunc("POST /login/username", func(w http.ResponseWriter, r *http.Request) {
		id := r.PostFormValue("id")
		if err := kept.CheckUsernamePassword(r.PostFormValue("username"), r.PostFormValue("password"), id); err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		http.Redirect(w, r, op.AuthCallbackURL(provider)(op.ContextWithIssuer(r.Context(), server.URL), id), http.StatusFound)
	})
	mux.Handle("/", provider)
	routes = mux
	return &Provider{URL: server.URL, Client: server.Client(), server: server}
}

var loginPage = template.Must(template.New("").Parse(`<!doctype html><html lang="en"><title>Identity provider</title><link rel="icon" href="data:,">
<form method="post" action="/login/username"><input type="hidden" name="id" value="{{.}}">
<label>Name <input name="username" id="username" autocomplete="username"></label> <label>Password <input name="password" id="password" type="password" autocomplete="current-password"></label> <button>Sign in</button></form>`))

func showLogin(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = loginPage.Execute(w, r.FormValue("authRequestID"))
}

// store is the library's example of a store, with one person, one group, and a client that may come back after signing out.
type store struct {
	*storage.Storage
	back string
}

// GetClientByClientID finds the client.
func (s store) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	found, err := s.Storage.GetClientByClientID(ctx, id)
	if err != nil {
		return nil, err
	}
	return client{found, s.back}, nil
}

// SetUserinfoFromRequest adds the person's groups to an ID token.
func (s store) SetUserinfoFromRequest(ctx context.Context, about *protocol.UserInfo, token op.IDTokenRequest, scopes []string) error {
	about.AppendClaims("groups", []string{"everybody", Group})
	return s.Storage.SetUserinfoFromRequest(ctx, about, token, scopes)
}

type client struct {
	op.Client
	back string
}

// PostLogoutRedirectURIs are where browsers may be sent after signing out.
func (c client) PostLogoutRedirectURIs() []string { return []string{c.back} }

// IDTokenUserinfoClaimsAssertion has ID tokens tell what the scopes ask for.
func (c client) IDTokenUserinfoClaimsAssertion() bool { return true }

// people is everybody.
type people struct{}

func ada() *storage.User {
	return &storage.User{
		ID: "id-of-ada", Username: Username, Password: Password, FirstName: "Ada", LastName: "Lovelace", Email: "ada@dev.example",
		EmailVerified: true,
	}
}

// GetUserByID finds the one person.
func (people) GetUserByID(id string) *storage.User {
	if u := ada(); u.ID == id {
		return u
	}
	return nil
}

// GetUserByUsername finds the one person.
func (people) GetUserByUsername(name string) *storage.User {
	if name == Username {
		return ada()
	}
	return nil
}

// ExampleClientID is nobody's.
func (people) ExampleClientID() string { return "" }
