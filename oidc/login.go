package oidc

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/url"
	"slices"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/chancery-ca/chancery/access"
)

// Party is this service as a provider knows it: a client that people are signed in for.
type Party struct {
	Issuer   string // one of the Providers
	ClientID string
	// Secret reads the client's secret each time that it is needed; nil for a public client, which has none.
	Secret func() (string, error)
	// Redirect is where the provider sends browsers back to, as it is registered there.
	Redirect string
	Scopes   []string // besides openid
}

// Login signs people in at one provider by the authorization code flow with PKCE (RFC 6749, section 4.1; RFC 7636).
type Login struct {
	party     Party
	provider  *provider
	providers *Providers
}

// Login makes a Login at one of the issuers.
func (ps *Providers) Login(party Party) (*Login, error) {
	p := ps.byURL[party.Issuer]
	if p == nil {
		return nil, fmt.Errorf("oidc: %q is none of the issuers", party.Issuer)
	}
	if party.ClientID == "" || party.Redirect == "" {
		return nil, errors.New("oidc: a login needs a client ID and a URL to come back to")
	}
	return &Login{party: party, provider: p, providers: ps}, nil
}

// Attempt is a login that has begun. The browser that begins it keeps it and shows it again at the end: nobody else may end it.
type Attempt struct {
	State    string `json:"s"`
	Nonce    string `json:"n"`
	Verifier string `json:"v"` // of PKCE
}

// Issuer is whom people sign in at.
func (l *Login) Issuer() string { return l.party.Issuer }

// Begin makes an attempt and the URL at the provider that the browser is sent to. The error wraps ErrUnavailable.
func (l *Login) Begin(ctx context.Context) (Attempt, string, error) {
	config, _, err := l.config(ctx)
	if err != nil {
		return Attempt{}, "", err
	}
	a := Attempt{State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier()}
	return a, config.AuthCodeURL(a.State, gooidc.Nonce(a.Nonce), oauth2.S256ChallengeOption(a.Verifier)), nil
}

// config is what oauth2 needs to know, for one exchange.
func (l *Login) config(ctx context.Context) (*oauth2.Config, *statement, error) {
	said, err := l.provider.statement(ctx, func(*statement) bool { return true })
	if err != nil {
		return nil, nil, err
	}
	config := &oauth2.Config{
		ClientID: l.party.ClientID, RedirectURL: l.party.Redirect, Endpoint: said.endpoint,
		Scopes: append([]string{gooidc.ScopeOpenID}, l.party.Scopes...),
	}
	if l.party.Secret == nil {
		config.Endpoint.AuthStyle = oauth2.AuthStyleInParams
		return config, said, nil
	}
	if config.ClientSecret, err = l.party.Secret(); err != nil {
		return nil, nil, fmt.Errorf("reading the client's secret: %w", err)
	}
	return config, said, nil
}

// loginTypes are the types that an ID token may have.
var loginTypes = []string{"", "jwt"}

// Finish ends an attempt with what the provider sent the browser back with. The error is *access.Unauthenticated, or wraps ErrUnavailable.
func (l *Login) Finish(ctx context.Context, a Attempt, answer url.Values) (access.Actor, error) {
	_, h, err := l.exchange(ctx, a, answer)
	if err != nil {
		return access.Actor{}, err
	}
	return l.providers.actor(h)
}

// exchange gets tokens for the code that a browser brought, and whom the ID token among them is about.
func (l *Login) exchange(ctx context.Context, a Attempt, answer url.Values) (Tokens, holder, error) {
	if !l.Concerns(a, answer) {
		return Tokens{}, holder{}, failed("this login was not begun in this browser, or was ended before")
	}
	config, said, err := l.config(ctx)
	if err != nil {
		return Tokens{}, holder{}, err
	}
	// Who answers must be who was asked (RFC 9207).
	if issuer := answer.Get("iss"); issuer != "" && issuer != l.party.Issuer || issuer == "" && said.issuerInResponses {
		return Tokens{}, holder{}, failed("another provider than the one that was asked has answered")
	}
	if answer.Has("error") {
		return Tokens{}, holder{}, failed("the provider did not sign you in (" + word(answer.Get("error")) + ")")
	}
	if answer.Get("code") == "" || len(answer["code"]) != 1 {
		return Tokens{}, holder{}, failed("the provider sent no code")
	}
	exchange, cancel := context.WithTimeout(l.asking(ctx), fetchTime)
	defer cancel()
	got, err := config.Exchange(exchange, answer.Get("code"), oauth2.VerifierOption(a.Verifier))
	if err != nil {
		return Tokens{}, holder{}, l.notGiven(err, "the provider did not take the code")
	}
	return l.tokens(ctx, got, func(c claims) error { return l.isOurs(a, c) })
}

// Concerns tells whether what a browser brings is the answer to an attempt: its state is the attempt's.
func (l *Login) Concerns(a Attempt, answer url.Values) bool {
	return a.State != "" && same(answer.Get("state"), a.State) && len(answer["state"]) == 1
}

// isOurs judges an ID token by whom and what it was made for (OpenID Connect Core 1.0, section 3.1.3.7).
func (l *Login) isOurs(a Attempt, c claims) error {
	if !same(c.Nonce, a.Nonce) {
		return refuse("it is of another login")
	}
	return l.isForUs(c)
}

func (l *Login) isForUs(c claims) error {
	if !slices.Contains(c.Audience, l.party.ClientID) || c.Party != "" && c.Party != l.party.ClientID || len(c.Audience) > 1 && c.Party == "" {
		return refuse("it is meant for another client")
	}
	return nil
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

func failed(why string) error { return &access.Unauthenticated{Detail: why} }

// word keeps of a provider's error what may be shown: RFC 6749, section 5.2, has printable ASCII alone.
func word(code string) string {
	if len(code) > 64 {
		code = code[:64]
	}
	for _, c := range code {
		if c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			return "unreadable"
		}
	}
	if code == "" {
		return "without a reason"
	}
	return code
}

// SignOutURL is where a browser signs out at the provider as well, and from where it comes back (OpenID Connect RP-Initiated Logout 1.0);
// empty where the provider offers none, or cannot be asked.
func (l *Login) SignOutURL(ctx context.Context, back string) string {
	said, err := l.provider.statement(ctx, func(*statement) bool { return true })
	if err != nil || said.endSession == "" {
		return ""
	}
	u, err := url.Parse(said.endSession)
	if err != nil {
		return ""
	}
	q := u.Query()
	q.Set("client_id", l.party.ClientID)
	q.Set("post_logout_redirect_uri", back)
	u.RawQuery = q.Encode()
	return u.String()
}
