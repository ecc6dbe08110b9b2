package web

import (
	"context"
	"net/http"
	"net/netip"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/policies"
)

// TokenRequest is what an API token shall be.
type TokenRequest struct {
	Name      string   `json:"name" example:"ci of the web shop" doc:"What it is for"`
	Person    string   `json:"person,omitempty" example:"ada" doc:"Who stands behind it; left out: the name. Two tokens of one person are one person"`
	Namespace string   `json:"namespace" example:"web" doc:"Where it acts, or * for all namespaces"`
	Roles     []string `json:"roles" example:"[\"requester\"]" doc:"Roles that operators give: requester, revoker, auditor, operator"`
	Profiles  []string `json:"profiles,omitempty" doc:"The only profiles that it asks for certificates under; left out: every one of the namespace"`
	Networks  []string `json:"networks,omitempty" example:"[\"10.1.0.0/16\"]" doc:"The only addresses that it is used from; left out: every one"`
	ExpiresIn string   `json:"expires_in,omitempty" example:"90d" doc:"How long it lasts; left out: 90 days"`
}

// TokenRotation is how a token is replaced.
type TokenRotation struct {
	Overlap   string `json:"overlap,omitempty" example:"1h" doc:"How long both work, 7 days at most; 0s: the old one ends at once; left out: an hour"`
	ExpiresIn string `json:"expires_in,omitempty" example:"90d" doc:"How long the successor lasts; left out: 90 days"`
}

// Token is an API token as it is kept: whose it is and what it may do.
type Token struct {
	ID           string     `json:"id"`
	Name         string     `json:"name"`
	Person       string     `json:"person"`
	Namespace    string     `json:"namespace"`
	Roles        []string   `json:"roles"`
	Profiles     []string   `json:"profiles,omitempty"`
	Networks     []string   `json:"networks,omitempty"`
	Status       string     `json:"status" enum:"active,retiring,retired,expired,revoked"`
	CreatedAt    time.Time  `json:"created_at"`
	CreatedBy    string     `json:"created_by,omitempty" doc:"The credential's ID"`
	ExpiresAt    *time.Time `json:"expires_at,omitempty" doc:"Left out: never"`
	Replaces     string     `json:"replaces,omitempty" doc:"The token that it was rotated from"`
	RetiresAt    *time.Time `json:"retires_at,omitempty" doc:"When it was rotated: the end of the overlap"`
	RevokedAt    *time.Time `json:"revoked_at,omitempty"`
	LastUsedAt   *time.Time `json:"last_used_at,omitempty" doc:"To about a minute"`
	LastUsedFrom string     `json:"last_used_from,omitempty" doc:"An address"`
}

// NewToken is a token with its text, which is shown this once and kept nowhere.
type NewToken struct {
	Token
	Secret string `json:"token" doc:"Send it as Authorization: Bearer. It is shown this once"`
}

// TokenList is every token that the caller may see.
type TokenList struct {
	Tokens []Token `json:"tokens"`
}

type (
	tokenInput struct {
		ID string `path:"id" doc:"The token's ID, which is not the token"`
	}
	tokensAnswer   struct{ Body TokenList }
	tokenAnswer    struct{ Body Token }
	newTokenAnswer struct{ Body NewToken }
)

func (s *Server) routeTokens(api huma.API) error {
	return route(s, api, call{
		method: http.MethodGet, path: "/tokens", id: "list-tokens", tag: tagTokens, success: http.StatusOK,
		summary:     "List the API tokens",
		description: "Those of the caller's namespace, or all, where the caller acts in all. Never the tokens themselves.",
		answers:     []media{{name: typeJSON, json: TokenList{}}},
	}, s.listTokens)
}

func (s *Server) listTokens(ctx context.Context, _ *struct{}) (*tokensAnswer, error) {
	all, err := s.ca.APITokens(ctx, exchangeOf(ctx).actor)
	if err != nil {
		return nil, err
	}
	out := &tokensAnswer{Body: TokenList{Tokens: []Token{}}}
	for _, t := range all {
		out.Body.Tokens = append(out.Body.Tokens, s.showToken(t))
	}
	return out, nil
}

func (s *Server) routeToken(api huma.API) error {
	return route(s, api, call{
		method: http.MethodGet, path: "/tokens/{id}", id: "get-token", tag: tagTokens, success: http.StatusOK,
		summary: "Read an API token", description: "Whose it is, what it may do, and when it was last used.",
		answers:  []media{{name: typeJSON, json: Token{}}},
		problems: []int{http.StatusNotFound},
	}, s.token)
}

func (s *Server) token(ctx context.Context, in *tokenInput) (*tokenAnswer, error) {
	return s.tokenShown(s.ca.APIToken(ctx, exchangeOf(ctx).actor, in.ID))
}

func (s *Server) routeCreateToken(api huma.API) error {
	return route(s, api, call{
		method: http.MethodPost, path: "/tokens", id: "create-token", tag: tagTokens, success: http.StatusCreated,
		summary:     "Create an API token",
		description: "The answer shows the token this once. Repeating the call makes another token.",
		bodies:      []media{{name: typeJSON, json: TokenRequest{}}},
		answers:     []media{{name: typeJSON, json: NewToken{}}},
		problems:    append([]int{http.StatusNotFound}, requestProblems...),
	}, s.createToken)
}

func (s *Server) createToken(ctx context.Context, _ *struct{}) (*newTokenAnswer, error) {
	var body TokenRequest
	if err := decodeStrict(exchangeOf(ctx).body, &body); err != nil {
		return nil, err
	}
	n, violations := body.read()
	if len(violations) > 0 {
		return nil, refusal(violations...)
	}
	return s.tokenMade(s.ca.CreateToken(ctx, exchangeOf(ctx).actor, n))
}

func (s *Server) routeRotateToken(api huma.API) error {
	return route(s, api, call{
		method: http.MethodPost, path: "/tokens/{id}/rotate", id: "rotate-token", tag: tagTokens, success: http.StatusCreated,
		summary: "Replace an API token",
		description: "Makes a token that may do the same. Both work until the overlap ends. A token is rotated once; its successor can be " +
			"rotated again.",
		bodies:   []media{{name: typeJSON, json: TokenRotation{}}},
		answers:  []media{{name: typeJSON, json: NewToken{}}},
		problems: append([]int{http.StatusNotFound, http.StatusConflict}, requestProblems...),
	}, s.rotateToken)
}

func (s *Server) rotateToken(ctx context.Context, in *tokenInput) (*newTokenAnswer, error) {
	var body TokenRotation
	if err := decodeStrict(exchangeOf(ctx).body, &body); err != nil {
		return nil, err
	}
	r := ca.Rotation{ID: in.ID, Overlap: -1}
	life, violations := readLife(body.ExpiresIn)
	r.Life = life
	switch body.Overlap {
	case "":
	case "0s":
		r.Overlap = 0
	default:
		overlap, err := parseValidity(body.Overlap)
		if err != nil {
			violations = append(violations, broken("overlap", validityHint, err.Error()))
		}
		r.Overlap = overlap
	}
	if len(violations) > 0 {
		return nil, refusal(violations...)
	}
	return s.tokenMade(s.ca.RotateToken(ctx, exchangeOf(ctx).actor, r))
}

func (s *Server) routeRevokeToken(api huma.API) error {
	return route(s, api, call{
		method: http.MethodPost, path: "/tokens/{id}/revoke", id: "revoke-token", tag: tagTokens, success: http.StatusOK,
		summary: "Withdraw an API token", description: "It is refused from its next use on, by every replica. Repeating changes nothing.",
		bodies:   []media{{name: typeJSON, json: Empty{}}},
		answers:  []media{{name: typeJSON, json: Token{}}},
		problems: append([]int{http.StatusNotFound}, requestProblems...),
	}, s.revokeToken)
}

func (s *Server) revokeToken(ctx context.Context, in *tokenInput) (*tokenAnswer, error) {
	if err := decodeStrict(exchangeOf(ctx).body, &struct{}{}); err != nil {
		return nil, err
	}
	return s.tokenShown(s.ca.RevokeToken(ctx, exchangeOf(ctx).actor, in.ID))
}

func (s *Server) tokenShown(t ca.APIToken, err error) (*tokenAnswer, error) {
	if err != nil {
		return nil, err
	}
	return &tokenAnswer{Body: s.showToken(t)}, nil
}

func (s *Server) tokenMade(t ca.APIToken, text string, err error) (*newTokenAnswer, error) {
	if err != nil {
		return nil, err
	}
	return &newTokenAnswer{Body: NewToken{Token: s.showToken(t), Secret: text}}, nil
}

func readLife(text string) (life time.Duration, violations []policies.Violation) {
	if text == "" {
		return 0, nil
	}
	life, err := parseValidity(text)
	if err != nil {
		return 0, []policies.Violation{broken("expires_in", validityHint, err.Error())}
	}
	return life, nil
}

// read makes of what came what a token shall be, and reports what is wrong with its form.
func (r TokenRequest) read() (n ca.NewAPIToken, violations []policies.Violation) {
	n = ca.NewAPIToken{Name: r.Name, Person: r.Person, Namespace: r.Namespace, Scope: access.Scope{Profiles: r.Profiles}}
	for _, text := range r.Roles {
		n.Roles = append(n.Roles, access.Role(text)) // whether there is such a role is asked where the token is made
	}
	for _, text := range r.Networks {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			violations = append(violations, broken("networks", "write a prefix such as 10.1.0.0/16", "it is not a prefix of addresses"))
		}
		n.Scope.Networks = append(n.Scope.Networks, prefix)
	}
	life, more := readLife(r.ExpiresIn)
	n.Life = life
	return n, append(violations, more...)
}

func (s *Server) showToken(t ca.APIToken) Token {
	shown := Token{
		ID: t.ID, Name: t.Name, Person: t.Person, Namespace: t.Namespace, Profiles: t.Scope.Profiles, Status: t.Status(s.now()),
		CreatedAt: t.CreatedAt.UTC(), CreatedBy: t.CreatedBy, ExpiresAt: given(t.ExpiresAt), Replaces: t.Replaces,
		RetiresAt: given(t.RetiresAt), RevokedAt: given(t.RevokedAt), LastUsedAt: given(t.LastUsedAt),
	}
	for _, r := range t.Roles {
		shown.Roles = append(shown.Roles, string(r))
	}
	for _, n := range t.Scope.Networks {
		shown.Networks = append(shown.Networks, n.String())
	}
	if t.LastUsedFrom.IsValid() {
		shown.LastUsedFrom = t.LastUsedFrom.String()
	}
	return shown
}

// given is nil for the zero time, which is left out of JSON.
func given(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	utc := t.UTC()
	return &utc
}
