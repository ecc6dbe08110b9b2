// Package oidctest gives tests identity providers: a whole one with a page to sign in at, and one whose tokens and keys a test makes as it
// likes.
package oidctest

import (
	"context"
	"crypto/rand"
	"errors"
	"html/template"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/zitadel/oidc/v3/example/server/storage"
	protocol "github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// The clients that a Provider knows, and its person. CommandLine is a public client of programs on people's machines, which come back to
// any port of http://127.0.0.1/callback, or sign in on another device.
const (
	ClientID     = "console"
	ClientSecret = "a secret of tests"
	CommandLine  = "command-line"
	Username     = "ada"
	Password     = "verysecure"
	Group        = "pki-approvers"
)

// Provider is a whole OpenID Connect provider over TLS on a free port of the loopback address.
type Provider struct {
	URL    string
	Client *http.Client // trusts its certificate
	server *httptest.Server

	mu    sync.Mutex
	down  bool
	life  time.Duration // of access tokens; 0: as the library's example has it
	asked map[string]int
}

// Roots is the certificate of its server, PEM.
func (p *Provider) Roots() []byte { return rootsOf(p.server) }

// Down has the provider answer nothing, or everything again.
func (p *Provider) Down(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
}

// Life sets for how long access tokens are good that are made from now on.
func (p *Provider) Life(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.life = d
}

// Asked tells how often a path was asked for; at the token endpoint with the kind of grant behind it, as in "/oauth/token refresh_token".
func (p *Provider) Asked(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[path]
}

// note counts a request, and tells whether the provider is down.
func (p *Provider) note(r *http.Request) (down bool) {
	path := r.URL.Path
	if grant := r.PostFormValue("grant_type"); grant != "" {
		path += " " + grant
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked[path]++
	return p.down
}

// NewProvider starts a provider with two clients, one of which has these URLs, and one person. It ends with the test.
func NewProvider(t testing.TB, redirect, signedOut string) *Provider {
	t.Helper()
	p := &Provider{asked: map[string]int{}}
	var routes http.Handler
	p.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.note(r) {
			http.Error(w, "down for tests", http.StatusServiceUnavailable)
			return
		}
		routes.ServeHTTP(w, r)
	}))
	t.Cleanup(p.server.Close)
	p.URL, p.Client = p.server.URL, p.server.Client()
	kept := store{
		Storage: storage.NewStorageWithClients(people{}, map[string]*storage.Client{
			ClientID:    storage.WebClient(ClientID, ClientSecret, redirect),
			CommandLine: storage.NativeClient(CommandLine, "http://127.0.0.1/callback"),
		}),
		back: signedOut, provider: p, devices: &sync.Mutex{},
	}
	config := &op.Config{
		CodeMethodS256: true, AuthMethodPost: true, DefaultLogoutRedirectURI: "/signed-out", GrantTypeRefreshToken: true,
		DeviceAuthorization: op.DeviceAuthorizationConfig{
			Lifetime: 5 * time.Minute, PollInterval: time.Second, UserFormPath: "/device", UserCode: op.UserCodeBase20,
		},
	}
	if _, err := rand.Read(config.CryptoKey[:]); err != nil {
		t.Fatal(err)
	}
	provider, err := op.NewProvider(config, kept, op.StaticIssuer(p.URL))
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
		http.Redirect(w, r, op.AuthCallbackURL(provider)(op.ContextWithIssuer(r.Context(), p.URL), id), http.StatusFound)
	})
	mux.HandleFunc("POST /device", func(w http.ResponseWriter, r *http.Request) {
		if err := kept.decide(r); err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
		}
	})
	mux.Handle("/", provider)
	routes = mux
	return p
}

var loginPage = template.Must(template.New("").Parse(`<!doctype html><html lang="en"><title>Identity provider</title><link rel="icon" href="data:,">
<form method="post" action="/login/username"><input type="hidden" name="id" value="{{.}}">
<label>Name <input name="username" id="username" autocomplete="username"></label> <label>Password <input name="password" id="password" type="password" autocomplete="current-password"></label> <button>Sign in</button></form>`))

func showLogin(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = loginPage.Execute(w, r.FormValue("authRequestID"))
}

// store is the library's example of a store, with one person, one group, clients that may come back after signing out, and access tokens
// that are JSON Web Tokens for programs on people's machines.
type store struct {
	*storage.Storage
	back     string
	provider *Provider
	devices  *sync.Mutex // the example hands out what it goes on changing
}

// GetClientByClientID finds a client.
func (s store) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	found, err := s.Storage.GetClientByClientID(ctx, id)
	if err != nil {
		return nil, err
	}
	if id == CommandLine {
		return native{client{found, s.back}}, nil
	}
	return client{found, s.back}, nil
}

// SetUserinfoFromRequest adds the person's groups to an ID token.
func (s store) SetUserinfoFromRequest(ctx context.Context, about *protocol.UserInfo, token op.IDTokenRequest, scopes []string) error {
	about.AppendClaims("groups", []string{"everybody", Group})
	return s.Storage.SetUserinfoFromRequest(ctx, about, token, scopes)
}

// GetPrivateClaimsFromScopes adds the person's groups, name and address to an access token.
func (store) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	return map[string]any{"groups": []string{"everybody", Group}, "email": ada().Email, "name": ada().FirstName + " " + ada().LastName}, nil
}

// CreateAccessAndRefreshTokens bounds the life of an access token. The example forgets for whom a device's tokens are.
func (s store) CreateAccessAndRefreshTokens(ctx context.Context, request op.TokenRequest, current string) (id, refresh string, ends time.Time,
	err error,
) {
	if device, ok := request.(*op.DeviceAuthorizationState); ok {
		request = &storage.AuthRequest{ApplicationID: device.ClientID, UserID: device.Subject, Scopes: device.Scopes}
	}
	id, refresh, ends, err = s.Storage.CreateAccessAndRefreshTokens(ctx, request, current)
	s.provider.mu.Lock()
	defer s.provider.mu.Unlock()
	if s.provider.life != 0 {
		ends = time.Now().Add(s.provider.life)
	}
	return id, refresh, ends, err
}

// GetDeviceAuthorizatonState copies what the example knows of a device, and says for whom its tokens are.
func (s store) GetDeviceAuthorizatonState(ctx context.Context, clientID, code string) (*op.DeviceAuthorizationState, error) {
	s.devices.Lock()
	defer s.devices.Unlock()
	state, err := s.Storage.GetDeviceAuthorizatonState(ctx, clientID, code)
	if err != nil {
		return nil, err
	}
	known := *state
	known.Audience = []string{clientID}
	return &known, nil
}

// decide is what a person does on the page for devices.
func (s store) decide(r *http.Request) error {
	s.devices.Lock()
	defer s.devices.Unlock()
	code := r.PostFormValue("user_code")
	if r.PostFormValue("username") != Username || r.PostFormValue("password") != Password {
		return errors.New("nobody is known by these")
	}
	if r.PostFormValue("deny") != "" {
		return s.DenyDeviceAuthorization(r.Context(), code)
	}
	return s.CompleteDeviceAuthorization(r.Context(), code, ada().ID)
}

type client struct {
	op.Client
	back string
}

// PostLogoutRedirectURIs are where browsers may be sent after signing out.
func (c client) PostLogoutRedirectURIs() []string { return []string{c.back} }

// IDTokenUserinfoClaimsAssertion has ID tokens tell what the scopes ask for.
func (c client) IDTokenUserinfoClaimsAssertion() bool { return true }

// native is a client that is a program on a person's machine.
type native struct{ client }

// AccessTokenType has the service read access tokens.
func (native) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeJWT }

// GrantTypes are all that people sign in by.
func (native) GrantTypes() []protocol.GrantType {
	return []protocol.GrantType{protocol.GrantTypeCode, protocol.GrantTypeRefreshToken, protocol.GrantTypeDeviceCode}
}

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
