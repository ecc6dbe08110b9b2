// Package oidc finds out who a person or a program is by what an OpenID Connect provider says: it verifies the JSON Web Tokens that
// providers sign, and signs people in by the authorization code flow.
//
// It owns issuers and their keys, the rules of a token (RFC 7519, RFC 8725, RFC 9068, OpenID Connect Core 1.0), and the two legs of a
// login. It knows nothing of sessions, cookies or HTTP answers, and what an identity may do is not said here: verified claims become an
// actor by rules that are given to it.
package oidc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/access"
)

// Limits of what is taken from outside.
const (
	Leeway      = 30 * time.Second // by which a provider's clock may differ from ours
	maxToken    = 16 << 10         // octets
	maxDocument = 1 << 20          // octets of a discovery document, a key set or an answer with tokens
	maxKeys     = 100              // of one issuer
	fetchTime   = 5 * time.Second  // for all that a provider is asked at once
)

// ErrUnavailable is returned when a provider is needed and cannot be asked. The caller may try again; nobody is let in meanwhile.
var ErrUnavailable = errors.New("the identity provider cannot be reached for the moment")

// Issuer is a provider that is trusted to say who somebody is.
type Issuer struct {
	URL        string   // as it stands in iss, exactly; https
	Audiences  []string // of bearer tokens that are meant for this service; empty: none of its tokens is taken as a bearer token
	Algorithms []string // of signatures; empty: DefaultAlgorithms
	Client     *http.Client
}

// DefaultAlgorithms are the signatures that are taken where an issuer's configuration says nothing: those by public keys. HMAC and none
// are never among the algorithms of an issuer.
func DefaultAlgorithms() []string {
	return []string{"RS256", "PS256", "ES256", "ES384", "EdDSA"}
}

// known are the algorithms that an issuer may be configured with (RFC 7518, section 3.1; RFC 8037).
var known = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// CheckAlgorithm refuses an algorithm that no token can be verified with here.
func CheckAlgorithm(name string) error {
	if !slices.Contains(known, name) {
		return fmt.Errorf("%q is not one of %s", name, strings.Join(known, ", "))
	}
	return nil
}

// CheckURL refuses a URL that no issuer can have (OpenID Connect Discovery 1.0, section 3).
func CheckURL(issuer string) error {
	u, err := url.Parse(issuer)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https":
		return fmt.Errorf("%q is not an https URL", issuer)
	case u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return fmt.Errorf("%q has a query, a fragment or a user", issuer)
	}
	return nil
}

// Config is what Providers are made of.
type Config struct {
	Issuers []Issuer
	Rules   access.Rules // that make actors of identities; those of other means are passed over
	Log     *slog.Logger
	Now     func() time.Time
}

// Providers are the issuers that are trusted, each with the keys that it has at present. They are asked when they are needed first, and
// again now and then, so that a service starts while they are away.
type Providers struct {
	byURL map[string]*provider
	rules access.Rules
	stop  context.CancelFunc
}

// New makes Providers. Its errors are those of the configuration; no provider is asked yet.
func New(cfg Config) (*Providers, error) {
	if cfg.Log == nil || cfg.Now == nil {
		return nil, errors.New("oidc: the configuration lacks a log or a clock")
	}
	ctx, stop := context.WithCancel(context.Background())
	ps := &Providers{byURL: map[string]*provider{}, rules: cfg.Rules, stop: stop}
	for _, issuer := range cfg.Issuers {
		p, err := newProvider(ctx, issuer, cfg.Log, cfg.Now)
		if err == nil && ps.byURL[issuer.URL] != nil {
			err = errors.New("it is given twice")
		}
		if err != nil {
			stop()
			return nil, fmt.Errorf("oidc: issuer %q: %w", issuer.URL, err)
		}
		ps.byURL[issuer.URL] = p
	}
	return ps, nil
}

// Close ends what providers are being asked, and waits for it.
func (ps *Providers) Close() {
	ps.stop()
	for _, p := range ps.byURL {
		p.asking.Wait()
	}
}

// actor is who the rules say that the holder of a verified token is.
func (ps *Providers) actor(h holder) (access.Actor, error) {
	evidence := access.Evidence{
		Means: access.ByOIDC, Subject: h.issuer + " " + h.subject, Facts: h.claims,
		Name: cmp.Or(only(h.claims["name"]), only(h.claims["preferred_username"]), only(h.claims["email"]), h.subject),
	}
	actor, known := ps.rules.Identify(evidence)
	if !known {
		return access.Actor{}, &access.Unauthenticated{
			Shown:  true,
			Detail: "your provider knows you, but no rule of this service's configuration says who you are here",
		}
	}
	return actor, nil
}

// only is the one value of a claim, or nothing.
func only(values []string) string {
	if len(values) != 1 {
		return ""
	}
	return values[0]
}
