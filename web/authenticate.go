package web

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
)

// Authenticator finds out who calls by one kind of credentials. Who sends an Authorization header is asked about nothing else: API tokens
// first, then Config.Bearers in their order. Who sends none is asked about what comes by itself, Config.Ambient: a client certificate, the
// peer of a Unix socket, a session's cookie.
type Authenticator interface {
	// Authenticate finds who calls. found is false when the request carries none of this kind of credentials, and the next one is asked.
	// *access.Unauthenticated says that it carries some which are not good: then nobody else is asked, so that nobody gets in by a second
	// credential after the first was refused. Any other error is a failure of the service.
	Authenticate(r *http.Request) (actor access.Actor, found bool, err error)
}

// authenticate finds out who calls. Without an actor nothing behind it is reached.
func (s *Server) authenticate(ctx huma.Context, next func(huma.Context)) {
	r, w := humachi.Unwrap(ctx)
	if action, listed := permissions[ctx.Operation().Method+" "+ctx.Operation().Path]; listed && action == public {
		next(ctx)
		return
	}
	var actor access.Actor
	err := s.gate(r)
	if err == nil {
		actor, err = s.whoCalls(r)
	}
	if err == nil {
		err = s.admit(r, actor)
	}
	if err != nil {
		s.turnAway(w, r, err)
		return
	}
	exchangeOf(r.Context()).actor = actor
	next(ctx)
}

// turnAway answers who was not let in, or of whom that could not be found out.
func (s *Server) turnAway(w http.ResponseWriter, r *http.Request, err error) {
	var refused *access.Unauthenticated
	if errors.As(err, &refused) {
		s.refuse(w, r, refused)
		return
	}
	writeProblem(w, r, s.problem(r.Context(), err))
}

// admit holds that a credential is used from where it may be, and has the visit recorded. A credential that is used from elsewhere was
// stolen or lost: whoever has it is told no more than who guesses, and the audit log is told which it was.
func (s *Server) admit(r *http.Request, actor access.Actor) error {
	from := exchangeOf(r.Context()).from
	if !actor.Scope.MayComeFrom(from) {
		if err := s.ca.Strayed(r.Context(), actor, neighbourhood(from)); err != nil {
			return err
		}
		return badToken()
	}
	return s.ca.Visit(r.Context(), actor, from)
}

// whoCalls asks one authenticator after the other. A request with several Authorization headers, or with one that nobody knows, is
// refused whatever else it carries: which of them counts must not be a matter of taste.
func (s *Server) whoCalls(r *http.Request) (access.Actor, error) {
	asked, missing := s.ambient, noCredentials
	switch headers := r.Header.Values("Authorization"); {
	case len(headers) > 1:
		return access.Actor{}, missing()
	case len(headers) == 1:
		asked = s.bearers
		if _, isBearer := Bearer(r); isBearer {
			missing = badToken
		}
	}
	for _, a := range asked {
		if actor, found, err := a.Authenticate(r); found || err != nil {
			return actor, err
		}
	}
	return access.Actor{}, missing()
}

// tokenAuthenticator knows API tokens.
type tokenAuthenticator struct{ tokens Tokens }

// Authenticate looks the token's digest up. The token itself is compared with nothing, so that no time tells about it.
func (a tokenAuthenticator) Authenticate(r *http.Request) (access.Actor, bool, error) {
	token, ok := Bearer(r)
	if !ok || !strings.HasPrefix(token, access.TokenPrefix) {
		return access.Actor{}, false, nil
	}
	actor, err := a.actor(r.Context(), token)
	if errors.Is(err, ca.ErrNotFound) || errors.Is(err, access.ErrNotAToken) {
		return access.Actor{}, false, badToken()
	}
	return actor, err == nil, err
}

func (a tokenAuthenticator) actor(ctx context.Context, token string) (access.Actor, error) {
	digest, err := access.TokenDigest(token)
	if err != nil {
		return access.Actor{}, err
	}
	return a.tokens.ActorByToken(ctx, digest)
}

// Bearer reads the one Authorization header (RFC 6750, section 2.1). Several are none.
func Bearer(r *http.Request) (token string, ok bool) {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return "", false
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	token = strings.TrimSpace(token)
	return token, ok && token != "" && strings.EqualFold(scheme, "Bearer")
}

const (
	challenge    = `Bearer realm="chancery"`
	challengeBad = challenge + `, error="invalid_token"`
)

func noCredentials() error {
	return &access.Unauthenticated{Challenge: challenge, Detail: "send an API token as Authorization: Bearer"}
}

// badToken is the one answer to every token that is not good, so that the answer tells nothing about it.
func badToken() error {
	return &access.Unauthenticated{Challenge: challengeBad, Shown: true, Detail: "the token is unknown, has expired or was withdrawn"}
}

// unauthenticated is the answer to who is not let in. It names a scheme also where other credentials were looked at, for which HTTP has
// none: no 401 may be without (RFC 9110, section 15.5.2), and an API token would do as well.
func unauthenticated(refused *access.Unauthenticated) *Problem {
	return newProblem(kindUnauthenticated, refused.Detail).with("WWW-Authenticate", cmp.Or(refused.Challenge, challenge))
}
