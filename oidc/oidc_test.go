package oidc_test

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"go.uber.org/goleak"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/oidc"
	"github.com/chancery-ca/chancery/oidc/oidctest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const audience = "https://ca.dev.example"

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// rules let the group in, as itself.
var rules = access.Rules{{
	Name: "approvers", Means: access.ByOIDC, Match: map[string][]string{"groups": {oidctest.Group}}, Namespace: "*",
	Roles: []access.Role{access.Approver}, Person: "${email}", Groups: "groups",
}}

func newProviders(t *testing.T, c *clock, issuers ...oidc.Issuer) *oidc.Providers {
	t.Helper()
	ps, err := oidc.New(oidc.Config{Issuers: issuers, Rules: rules, Log: slog.New(slog.DiscardHandler), Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ps.Close)
	return ps
}

func setUp(t *testing.T) (*oidctest.Issuer, *oidc.Providers, *clock) {
	t.Helper()
	issuer, c := oidctest.NewIssuer(t), &clock{at: time.Now()}
	return issuer, newProviders(t, c, oidc.Issuer{URL: issuer.URL, Audiences: []string{audience}, Client: issuer.Client}), c
}

// good are the claims of a token that is let in.
func good(issuer *oidctest.Issuer, c *clock) map[string]any {
	return map[string]any{
		"iss": issuer.URL, "sub": "id-of-ada", "aud": []string{"another", audience}, "exp": c.now().Add(time.Hour).Unix(), "iat": c.now().Unix(),
		"name": "Ada Lovelace", "email": "ada@dev.example", "groups": []string{"everybody", oidctest.Group}, "email_verified": true,
		"realm_access": map[string]any{"roles": []string{"pki"}},
	}
}

// but is the claims with some changed; nil takes one away.
func but(claims, changes map[string]any) map[string]any {
	changed := maps.Clone(claims)
	maps.Copy(changed, changes)
	maps.DeleteFunc(changed, func(_ string, v any) bool { return v == nil })
	return changed
}

func refused(err error) bool {
	var u *access.Unauthenticated
	return errors.As(err, &u)
}

func TestABearerTokenIsAnActor(t *testing.T) {
	issuer, ps, c := setUp(t)
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "bearer "+issuer.Token(good(issuer, c), map[jose.HeaderKey]any{"typ": "at+jwt"}))
	actor, found, err := ps.Authenticate(r)
	if err != nil || !found {
		t.Fatalf("found %v, %v", found, err)
	}
	if actor.ID != "oidc:"+issuer.URL+" id-of-ada" || actor.Name != "Ada Lovelace" || actor.Person != "ada@dev.example" ||
		len(actor.Groups) != 2 || len(actor.Roles) != 1 || actor.Attributes["email_verified"][0] != "true" ||
		actor.Attributes["realm_access.roles"][0] != "pki" {
		t.Errorf("the actor is %+v", actor)
	}
	for _, header := range []string{"", "Bearer chancery_abc", "Basic YTpi", "Bearer a.b"} {
		r.Header.Set("Authorization", header)
		if _, found, err := ps.Authenticate(r); found || err != nil {
			t.Errorf("%q is taken for a token: %v, %v", header, found, err)
		}
	}
}

// TestNumbersAreFactsAsTheyAreWritten: beyond 2^53 floating point would make one tenant of two.
func TestNumbersAreFactsAsTheyAreWritten(t *testing.T) {
	issuer, ps, c := setUp(t)
	for _, n := range []struct{ written, fact string }{
		{"9007199254740993", "9007199254740993"},
		{"9007199254740992", "9007199254740992"},
		{"-123456789012345678901234567890", "-123456789012345678901234567890"},
		{"0", "0"},
		{"1.50", "1.5"},
		{"1e3", "1000"},
		{"1e999", "1e999"},
	} {
		token := issuer.Token(but(good(issuer, c), map[string]any{"tenant": map[string]any{"id": json.RawMessage(n.written)}}), nil)
		actor, err := ps.Bearer(t.Context(), token)
		if err != nil || !slices.Equal(actor.Attributes["tenant.id"], []string{n.fact}) {
			t.Errorf("%s: %q, %v", n.written, actor.Attributes["tenant.id"], err)
		}
	}
}

// TestBadTokens has one row for each way that a token can be bad.
func TestBadTokens(t *testing.T) {
	issuer, ps, c := setUp(t)
	claims, another := good(issuer, c), oidctest.NewIssuer(t)
	if _, err := ps.Bearer(context.Background(), issuer.Token(claims, nil)); err != nil {
		t.Fatalf("the good one is refused: %v", err)
	}
	whole := issuer.Token(claims, nil)
	parts := strings.Split(whole, ".")
	encode := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	spki, err := x509.MarshalPKIXPublicKey(oidctest.PublicOf(issuer.Key(1)))
	if err != nil {
		t.Fatal(err)
	}
	first := issuer.Key(1)
	stranger := another.Key(1)
	stranger.KeyID = first.KeyID
	unknown := another.Key(1)
	unknown.KeyID = "nobody's"
	bare := first
	bare.KeyID = ""

	now, elsewhere := c.now(), but(claims, map[string]any{"aud": "another"})
	for name, token := range map[string]string{
		"expired":                    issuer.Token(but(claims, map[string]any{"exp": now.Add(-31 * time.Second).Unix()}), nil),
		"without an end":             issuer.Token(but(claims, map[string]any{"exp": nil}), nil),
		"an end that is no time":     issuer.Token(but(claims, map[string]any{"exp": "tomorrow"}), nil),
		"not valid yet":              issuer.Token(but(claims, map[string]any{"nbf": now.Add(time.Minute).Unix()}), nil),
		"issued in the future":       issuer.Token(but(claims, map[string]any{"iat": now.Add(time.Minute).Unix()}), nil),
		"for another audience":       issuer.Token(but(claims, map[string]any{"aud": "another"}), nil),
		"for no audience":            issuer.Token(but(claims, map[string]any{"aud": nil}), nil),
		"for a part of the audience": issuer.Token(but(claims, map[string]any{"aud": audience + "/"}), nil),
		"without a subject":          issuer.Token(but(claims, map[string]any{"sub": ""}), nil),
		"of an unknown issuer":       issuer.Token(but(claims, map[string]any{"iss": another.URL}), nil),
		"of an issuer and a slash":   issuer.Token(but(claims, map[string]any{"iss": issuer.URL + "/"}), nil),
		"of no issuer":               issuer.Token(but(claims, map[string]any{"iss": nil}), nil),
		"alg none":                   encode(`{"alg":"none"}`) + "." + parts[1] + ".",
		"alg none, signature kept":   encode(`{"alg":"none","kid":"key-1"}`) + "." + parts[1] + "." + parts[2],
		"HS256 with the public key":  oidctest.Sign(t, jose.HS256, jose.JSONWebKey{Key: spki, KeyID: first.KeyID}, claims, nil),
		"signed by a stranger":       oidctest.Sign(t, jose.ES256, stranger, claims, nil),
		"an unknown key":             oidctest.Sign(t, jose.ES256, unknown, claims, nil),
		"its own key in the header":  oidctest.Sign(t, jose.ES256, another.Key(1), claims, map[jose.HeaderKey]any{"jku": another.URL + "/keys"}),
		"claims tampered with":       parts[0] + "." + encode(strings.Replace(decode(t, parts[1]), "id-of-ada", "id-of-bob", 1)) + "." + parts[2],
		"header tampered with":       encode(strings.Replace(decode(t, parts[0]), "ES256", "ES384", 1)) + "." + parts[1] + "." + parts[2],
		"cut off":                    whole[:len(whole)-2],
		"an unknown crit":            oidctest.Sign(t, jose.ES256, first, claims, map[jose.HeaderKey]any{"crit": []string{"exp"}, "exp": 1}),
		"a logout token":             issuer.Token(claims, map[jose.HeaderKey]any{"typ": "logout+jwt"}),
		"a DPoP proof":               issuer.Token(claims, map[jose.HeaderKey]any{"typ": "dpop+jwt"}),
		"far too long":               issuer.Token(but(claims, map[string]any{"x": strings.Repeat("x", 20<<10)}), nil),
		"in no group that counts":    issuer.Token(but(claims, map[string]any{"groups": []string{"everybody"}}), nil),
		"a group by its beginning":   issuer.Token(but(claims, map[string]any{"groups": []string{oidctest.Group + "x"}}), nil),
		"two persons at once":        issuer.Token(but(claims, map[string]any{"email": []string{"ada@dev.example", "bob@dev.example"}}), nil),
		"a subject in capitals":      issuer.Token(but(claims, map[string]any{"sub": nil, "SUB": "id-of-bob"}), nil),
		"a second subject":           issuer.Token(but(claims, map[string]any{"\u017fub": "id-of-bob"}), nil),
		"an audience in capitals":    issuer.Token(but(claims, map[string]any{"aud": nil, "Aud": audience}), nil),
		"an end in capitals":         issuer.Token(but(claims, map[string]any{"exp": nil, "EXP": claims["exp"]}), nil),
		"a beginning in capitals":    issuer.Token(but(claims, map[string]any{"NBF": now.Unix()}), nil),
		"a second audience":          oidctest.Sign(t, jose.ES256, first, with(elsewhere, "AUD", audience), nil),
		"an audience twice":          oidctest.Sign(t, jose.ES256, first, with(elsewhere, "aud", audience), nil),
		"with too many claims":       issuer.Token(but(claims, map[string]any{"many": slices.Repeat([]int{1}, 1000)}), nil),
		"no token at all":            "a.b.c",
		"JSON of a signature":        `{"payload":"a.b","signatures":[".."]}`,
	} {
		t.Run(name, func(t *testing.T) {
			if actor, err := ps.Bearer(context.Background(), token); !refused(err) {
				t.Errorf("the answer is %+v, %v; want a refusal", actor, err)
			}
		})
	}

	for name, token := range map[string]string{
		"expired a moment ago, by our clock": issuer.Token(but(claims, map[string]any{"exp": now.Add(-29 * time.Second).Unix()}), nil),
		"valid in a moment, by our clock":    issuer.Token(but(claims, map[string]any{"nbf": now.Add(29 * time.Second).Unix()}), nil),
		"one audience as a text":             issuer.Token(but(claims, map[string]any{"aud": audience}), nil),
		"as many claims as may be":           issuer.Token(but(claims, map[string]any{"many": slices.Repeat([]int{1}, 900)}), nil),
		"the only key, not named":            oidctest.Sign(t, jose.ES256, bare, claims, nil),
	} {
		if _, err := ps.Bearer(context.Background(), token); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// with is the claims with one more at the end, which may stand there already.
func with(claims map[string]any, name, value string) json.RawMessage {
	text, _ := json.Marshal(claims)
	return fmt.Appendf(text[:len(text)-1], ",%q:%q}", name, value)
}

func decode(t *testing.T, part string) string {
	t.Helper()
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestAnIssuerWithoutAudiencesHasNoBearerTokens(t *testing.T) {
	issuer, c := oidctest.NewIssuer(t), &clock{at: time.Now()}
	ps := newProviders(t, c, oidc.Issuer{URL: issuer.URL, Client: issuer.Client})
	if _, err := ps.Bearer(context.Background(), issuer.Token(good(issuer, c), nil)); !refused(err) {
		t.Errorf("a token of it: %v, want a refusal", err)
	}
}

func TestAnAlgorithmThatIsNotConfiguredIsRefused(t *testing.T) {
	issuer, c := oidctest.NewIssuer(t), &clock{at: time.Now()}
	ps := newProviders(t, c, oidc.Issuer{URL: issuer.URL, Audiences: []string{audience}, Algorithms: []string{"RS256"}, Client: issuer.Client})
	if _, err := ps.Bearer(context.Background(), issuer.Token(good(issuer, c), nil)); !refused(err) {
		t.Errorf("ES256: %v, want a refusal", err)
	}
}

// TestKeysRotate: a new key is learnt at its first token, the old one is refused once the provider no longer shows it, and tokens with
// made-up keys do not become questions to the provider.
func TestKeysRotate(t *testing.T) {
	issuer, ps, c := setUp(t)
	ctx := context.Background()
	old := issuer.Token(good(issuer, c), nil)
	if _, err := ps.Bearer(ctx, old); err != nil {
		t.Fatal(err)
	}
	issuer.Rotate()
	fresh := issuer.Token(good(issuer, c), nil)
	if _, err := ps.Bearer(ctx, fresh); !refused(err) {
		t.Errorf("the provider was asked again at once: %v", err)
	}
	c.pass(11 * time.Second)
	if _, err := ps.Bearer(ctx, fresh); err != nil {
		t.Errorf("the new key: %v", err)
	}
	if _, err := ps.Bearer(ctx, old); !refused(err) {
		t.Errorf("the old key: %v, want a refusal", err)
	}
	asked := issuer.Asked("/keys")
	made := issuer.Key(2)
	for range 100 {
		made.KeyID += "x"
		if _, err := ps.Bearer(ctx, oidctest.Sign(t, jose.ES256, made, good(issuer, c), nil)); !refused(err) {
			t.Fatalf("a made-up key: %v", err)
		}
	}
	if more := issuer.Asked("/keys") - asked; more > 1 {
		t.Errorf("a hundred made-up keys were %d questions", more)
	}
}

// TestAWithdrawnKeyIsForgotten: a key that the provider took back is refused, although no token with another key ever came.
func TestAWithdrawnKeyIsForgotten(t *testing.T) {
	issuer, ps, c := setUp(t)
	ctx := context.Background()
	old := issuer.Token(good(issuer, c), nil)
	if _, err := ps.Bearer(ctx, old); err != nil {
		t.Fatal(err)
	}
	made := issuer.Key(1)
	made.KeyID = "made-up"
	issuer.Rotate()
	c.pass(10*time.Minute + time.Second)
	if _, err := ps.Bearer(ctx, old); err != nil { // has the provider asked, and is let in meanwhile
		t.Error(err)
	}
	if _, err := ps.Bearer(ctx, oidctest.Sign(t, jose.ES256, made, good(issuer, c), nil)); !refused(err) { // waits for the answer
		t.Error(err)
	}
	if _, err := ps.Bearer(ctx, old); !refused(err) {
		t.Errorf("the key goes on: %v", err)
	}
}

// TestAKeyWithdrawnWhileNobodyCameIsForgotten: the first token after a time in which none came is judged by what the provider says now.
func TestAKeyWithdrawnWhileNobodyCameIsForgotten(t *testing.T) {
	issuer, ps, c := setUp(t)
	ctx := context.Background()
	old := issuer.Token(but(good(issuer, c), map[string]any{"exp": c.now().Add(100 * time.Hour).Unix()}), nil)
	if _, err := ps.Bearer(ctx, old); err != nil {
		t.Fatal(err)
	}
	issuer.Down(true)
	c.pass(11 * time.Minute)
	if _, err := ps.Bearer(ctx, old); err != nil { // has the provider asked, which is away
		t.Error(err)
	}
	made := issuer.Key(1)
	made.KeyID = "made-up"
	unknown := oidctest.Sign(t, jose.ES256, made, good(issuer, c), nil)
	if _, err := ps.Bearer(ctx, unknown); !errors.Is(err, oidc.ErrUnavailable) { // waits for the failure
		t.Error(err)
	}
	issuer.Down(false)
	issuer.Rotate()
	c.pass(9 * time.Hour)
	var all sync.WaitGroup
	for range 20 { // nor does one that comes beside the first get in
		all.Go(func() {
			if _, err := ps.Bearer(ctx, old); !refused(err) {
				t.Errorf("a key that was withdrawn hours ago goes on: %v", err)
			}
		})
	}
	all.Wait()
}

// TestKeysComeOverTLS: a key set that anybody on the way could have written is not read.
func TestKeysComeOverTLS(t *testing.T) {
	issuer, ps, c := setUp(t)
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []any{&jose.JSONWebKey{Key: oidctest.PublicOf(issuer.Key(1)), KeyID: "key-1"}}})
	}))
	defer plain.Close()
	issuer.Say("jwks_uri", plain.URL)
	if _, err := ps.Bearer(context.Background(), issuer.Token(good(issuer, c), nil)); !errors.Is(err, oidc.ErrUnavailable) {
		t.Errorf("%v, want ErrUnavailable", err)
	}
}

func TestAProviderThatIsAway(t *testing.T) {
	issuer, ps, c := setUp(t)
	ctx := context.Background()
	token := issuer.Token(but(good(issuer, c), map[string]any{"exp": c.now().Add(100 * time.Hour).Unix()}), nil)
	issuer.Down(true)
	for range 2 {
		if _, err := ps.Bearer(ctx, token); !errors.Is(err, oidc.ErrUnavailable) || refused(err) {
			t.Fatalf("before any key is known: %v, want ErrUnavailable", err)
		}
	}
	if n := issuer.Asked("/.well-known/openid-configuration"); n != 1 {
		t.Errorf("it was asked %d times within a moment", n)
	}
	issuer.Down(false)
	c.pass(11 * time.Second)
	if _, err := ps.Bearer(ctx, token); err != nil {
		t.Fatalf("when it is back: %v", err)
	}

	issuer.Down(true)
	c.pass(23 * time.Hour)
	if _, err := ps.Bearer(ctx, token); err != nil {
		t.Errorf("a key that is known goes on for a day: %v", err)
	}
	made := issuer.Key(1)
	made.KeyID = "new"
	unknown := oidctest.Sign(t, jose.ES256, made, but(good(issuer, c), nil), nil)
	c.pass(11 * time.Second)
	if _, err := ps.Bearer(ctx, unknown); !errors.Is(err, oidc.ErrUnavailable) {
		t.Errorf("a key that may be new: %v, want ErrUnavailable", err)
	}
	c.pass(2 * time.Hour)
	if _, err := ps.Bearer(ctx, token); !errors.Is(err, oidc.ErrUnavailable) {
		t.Errorf("a key that nobody has confirmed for a day: %v, want ErrUnavailable", err)
	}
}

// silent is a provider that does not answer.
type silent struct{}

func (silent) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// TestStrangersDoNotWaitForASilentProvider: anybody can make up a key's name, and whoever waits for the provider keeps a seat of the API.
func TestStrangersDoNotWaitForASilentProvider(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ps, err := oidc.New(oidc.Config{
			Issuers: []oidc.Issuer{{URL: "https://id.example", Audiences: []string{audience}, Client: &http.Client{Transport: silent{}}}},
			Log:     slog.New(slog.DiscardHandler), Now: time.Now,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer ps.Close()
		part := base64.RawURLEncoding.EncodeToString
		token := part([]byte(`{"alg":"RS256","kid":"made up"}`)) + "." + part([]byte(`{"iss":"https://id.example"}`)) + "." + part([]byte("none"))
		for range 2 { // who has waited keeps nobody from it the next time
			began, waited := time.Now(), atomic.Int64{}
			var all sync.WaitGroup
			for range 512 {
				all.Go(func() {
					if _, err := ps.Bearer(t.Context(), token); !errors.Is(err, oidc.ErrUnavailable) {
						t.Errorf("%v, want ErrUnavailable", err)
					}
					if time.Since(began) > 0 {
						waited.Add(1)
					}
				})
			}
			all.Wait()
			if n := waited.Load(); n != 32 {
				t.Errorf("%d of 512 strangers waited", n)
			}
			time.Sleep(time.Minute) // of the bubble's clock: then the provider is asked again
		}
	})
}

func TestSomebodyElsesDocumentIsRefused(t *testing.T) {
	for member, value := range map[string]any{
		"issuer": "https://evil.example", "jwks_uri": "http://127.0.0.1/keys", "token_endpoint": "http://127.0.0.1/token",
		"authorization_endpoint": "http://127.0.0.1/authorize",
	} {
		issuer, ps, c := setUp(t)
		issuer.Say(member, value)
		if _, err := ps.Bearer(context.Background(), issuer.Token(good(issuer, c), nil)); !errors.Is(err, oidc.ErrUnavailable) {
			t.Errorf("%s = %v: %v, want ErrUnavailable", member, value, err)
		}
	}
}

func TestTokensFromManyAtOnce(t *testing.T) {
	issuer, ps, c := setUp(t)
	token := issuer.Token(good(issuer, c), nil)
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			if _, err := ps.Bearer(context.Background(), token); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := issuer.Asked("/keys"); n != 1 {
		t.Errorf("32 tokens at once asked %d times", n)
	}
}

func TestConfigurationsThatMakeNoSense(t *testing.T) {
	c := &clock{at: time.Now()}
	client := http.DefaultClient
	for name, issuers := range map[string][]oidc.Issuer{
		"no https":     {{URL: "http://id.example", Client: client}},
		"no host":      {{URL: "https://", Client: client}},
		"a query":      {{URL: "https://id.example/?a", Client: client}},
		"a user":       {{URL: "https://a@id.example/", Client: client}},
		"HS256":        {{URL: "https://id.example", Algorithms: []string{"HS256"}, Client: client}},
		"none":         {{URL: "https://id.example", Algorithms: []string{"none"}, Client: client}},
		"no client":    {{URL: "https://id.example"}},
		"the same one": {{URL: "https://id.example", Client: client}, {URL: "https://id.example", Client: client}},
	} {
		if _, err := oidc.New(oidc.Config{Issuers: issuers, Log: slog.New(slog.DiscardHandler), Now: c.now}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzBearer(f *testing.F) {
	ps, err := oidc.New(oidc.Config{
		Issuers: []oidc.Issuer{{URL: "https://id.example", Audiences: []string{audience}, Client: &http.Client{Transport: nowhere{}}}},
		Rules:   rules, Log: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(ps.Close)
	encode := base64.RawURLEncoding.EncodeToString
	f.Add(encode([]byte(`{"alg":"ES256","kid":"a"}`)) + "." + encode([]byte(`{"iss":"https://id.example","aud":["a"],"exp":1e9}`)) + "." +
		encode(make([]byte, 64)))
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, token string) {
		if actor, err := ps.Bearer(context.Background(), token); err == nil {
			t.Fatalf("%q is %+v, without a key of any provider", token, actor)
		}
	})
}

// nowhere is a network on which nobody is.
type nowhere struct{}

func (nowhere) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("nobody is there")
}
