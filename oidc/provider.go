package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	jose "github.com/go-jose/go-jose/v4"
	"golang.org/x/oauth2"
)

const (
	// refreshAfter is how long keys are used before the provider is asked for them again, so that one which it withdrew is soon refused.
	refreshAfter = 10 * time.Minute
	// unaskedFor is after how long without a question what was known is no answer any more while the provider is asked: in a time in which no
	// token came, it may have withdrawn the key that the first is signed by.
	unaskedFor = 2 * refreshAfter
	// askAgainAfter is how long nothing is asked after a provider was asked, so that tokens with made-up key identifiers do not become a
	// flood of questions.
	askAgainAfter = 10 * time.Second
	// trustedFor is how long keys go on while the provider cannot be asked.
	trustedFor = 24 * time.Hour
	// maxWaiting is how many wait for one answer of a provider. Anybody can name a key that nobody knows, and each who waits has a seat of the
	// API meanwhile.
	maxWaiting = 32
)

// provider is one issuer with what it says of itself.
type provider struct {
	issuer Issuer
	log    *slog.Logger
	now    func() time.Time
	base   context.Context // ends with Close
	asking sync.WaitGroup

	mu      sync.Mutex
	said    *statement    // nil before the first answer
	askedAt time.Time     // when it was asked last
	endedAt time.Time     // when that question was asked whose answer, or failure, came last
	failed  error         // how that ended
	flight  chan struct{} // closed when the question under way is answered; nil: none is
	waiting int           // for that answer
}

// statement is what a provider says of itself at a time.
type statement struct {
	at                time.Time
	endpoint          oauth2.Endpoint
	endSession        string // empty: it has none
	revocation        string // RFC 7009; empty: it has none
	issuerInResponses bool   // RFC 9207
	keys              []jose.JSONWebKey
}

func newProvider(ctx context.Context, issuer Issuer, log *slog.Logger, now func() time.Time) (*provider, error) {
	if err := CheckURL(issuer.URL); err != nil {
		return nil, err
	}
	if len(issuer.Algorithms) == 0 {
		issuer.Algorithms = DefaultAlgorithms()
	}
	for _, name := range issuer.Algorithms {
		if err := CheckAlgorithm(name); err != nil {
			return nil, err
		}
	}
	if issuer.Client == nil {
		return nil, errors.New("it has no HTTP client")
	}
	guarded := *issuer.Client
	transport := guarded.Transport
	if transport == nil {
		transport = http.DefaultTransport
	}
	guarded.Transport, guarded.Timeout = bounded{transport}, fetchTime
	guarded.CheckRedirect = func(*http.Request, []*http.Request) error { return errors.New("a provider must not redirect") }
	issuer.Client = &guarded
	return &provider{issuer: issuer, log: log, now: now, base: ctx}, nil
}

// bounded cuts answers off, so that a provider cannot fill the memory.
type bounded struct{ http.RoundTripper }

// RoundTrip speaks https alone.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" {
		return nil, fmt.Errorf("%s is not https", r.URL.Redacted())
	}
	answer, err := b.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	answer.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(answer.Body, maxDocument), answer.Body}
	return answer, nil
}

// errUnknownKey says that a provider, asked just now, has no such key.
var errUnknownKey = errors.New("the provider has no such key")

// key finds the key that a token names. It returns errUnknownKey, or ErrUnavailable when the provider would have to be asked and cannot.
func (p *provider) key(ctx context.Context, id string) (*jose.JSONWebKey, error) {
	said, err := p.statement(ctx, func(s *statement) bool { return s.find(id) != nil })
	if err != nil {
		return nil, err
	}
	if k := said.find(id); k != nil {
		return k, nil
	}
	return nil, errUnknownKey
}

// find is the key with an identifier; a token that names none can mean an only key.
func (s *statement) find(id string) *jose.JSONWebKey {
	if id == "" && len(s.keys) == 1 {
		return &s.keys[0]
	}
	for i := range s.keys {
		if id != "" && s.keys[i].KeyID == id {
			return &s.keys[i]
		}
	}
	return nil
}

// statement is what the provider says of itself. While that is new enough and holds what is sought, nobody is asked. One that is old but
// holds it is good meanwhile, unless nobody has asked for long: then it is good where the provider cannot be asked. Without it the answer is
// waited for, unless one came just before, or too many wait already.
func (p *provider) statement(ctx context.Context, holds func(*statement) bool) (*statement, error) {
	p.mu.Lock()
	said, now := p.said, p.now()
	if said != nil && now.Sub(said.at) > trustedFor {
		said = nil
	}
	serves := said != nil && holds(said)
	if !serves || now.Sub(said.at) > refreshAfter {
		p.ask(now)
	}
	flight := p.flight
	failed := p.failed
	goesOn := serves && (flight == nil || now.Sub(p.endedAt) <= unaskedFor)
	waits := !goesOn && flight != nil && p.waiting < maxWaiting
	if waits {
		p.waiting++
	}
	p.mu.Unlock()
	switch {
	case goesOn:
		return said, nil
	case flight == nil && said != nil && failed == nil:
		return said, nil // asked just before: this is all that there is
	case flight == nil:
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, failed)
	case !waits:
		return nil, fmt.Errorf("%w: it is being asked, and %d wait for the answer", ErrUnavailable, maxWaiting)
	}
	var left error
	select {
	case <-flight:
	case <-ctx.Done():
		left = ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting--
	if left != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, left)
	}
	switch {
	case p.failed == nil:
		return p.said, nil
	case serves:
		return said, nil
	}
	return nil, fmt.Errorf("%w: %w", ErrUnavailable, p.failed)
}

// ask begins to ask the provider, unless that is under way or was done a moment ago. The mutex is held.
func (p *provider) ask(now time.Time) {
	if p.flight != nil || !p.askedAt.IsZero() && now.Sub(p.askedAt) < askAgainAfter {
		return
	}
	p.askedAt, p.flight = now, make(chan struct{})
	p.asking.Go(func() {
		ctx, cancel := context.WithTimeout(p.base, fetchTime) // whoever waits may leave: the answer is for all
		defer cancel()
		said, err := p.fetch(ctx)
		p.mu.Lock()
		defer p.mu.Unlock()
		close(p.flight)
		p.flight, p.failed, p.endedAt = nil, err, now
		if err != nil {
			p.log.WarnContext(ctx, "an identity provider could not be asked", "issuer", p.issuer.URL, "error", err)
			return
		}
		said.at = now
		p.said = said
	})
}

// fetch reads the discovery document (OpenID Connect Discovery 1.0, section 4) and the keys that it points to.
func (p *provider) fetch(ctx context.Context) (*statement, error) {
	discovered, err := gooidc.NewProvider(gooidc.ClientContext(ctx, p.issuer.Client), p.issuer.URL) // refuses another's document
	if err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	var about struct {
		Keys       string   `json:"jwks_uri"`
		EndSession string   `json:"end_session_endpoint"`
		Revocation string   `json:"revocation_endpoint"`
		Methods    []string `json:"token_endpoint_auth_methods_supported"`
		InResponse bool     `json:"authorization_response_iss_parameter_supported"`
	}
	if err := discovered.Claims(&about); err != nil {
		return nil, fmt.Errorf("discovery: %w", err)
	}
	said := &statement{
		endpoint: discovered.Endpoint(), issuerInResponses: about.InResponse, endSession: about.EndSession, revocation: about.Revocation,
	}
	said.endpoint.AuthStyle = oauth2.AuthStyleInHeader // the default of OpenID Connect Discovery 1.0, section 3
	if len(about.Methods) > 0 && !slices.Contains(about.Methods, "client_secret_basic") {
		said.endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	for _, address := range []string{
		said.endpoint.AuthURL, said.endpoint.TokenURL, said.endpoint.DeviceAuthURL, about.EndSession, about.Revocation,
	} {
		if u, err := url.Parse(address); address != "" && (err != nil || u.Scheme != "https") {
			return nil, fmt.Errorf("discovery: %q is not an https URL", address)
		}
	}
	said.keys, err = p.fetchKeys(ctx, about.Keys)
	return said, err
}

// fetchKeys reads a key set (RFC 7517, section 5). Keys that are not public ones for signatures are passed over.
func (p *provider) fetchKeys(ctx context.Context, address string) ([]jose.JSONWebKey, error) {
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	answer, err := p.issuer.Client.Do(ask)
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("keys: the answer is %s", answer.Status)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("keys: %d are too many", len(set.Keys))
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var k jose.JSONWebKey
		if err := k.UnmarshalJSON(raw); err != nil || !k.IsPublic() || k.Use != "" && k.Use != "sig" {
			continue // of a kind that we do not know, or for another purpose
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("keys: there is none for signatures")
	}
	return keys, nil
}
