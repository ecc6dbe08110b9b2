package client

import (
	"context"
	"net/http"
	"time"
)

// TokenSpec is what an API token shall be.
type TokenSpec struct {
	Name      string   `json:"name"`
	Person    string   `json:"person,omitempty"` // empty: the name
	Namespace string   `json:"namespace"`        // or "*"
	Roles     []string `json:"roles"`
	Profiles  []string `json:"profiles,omitempty"`   // empty: every one of the namespace
	Networks  []string `json:"networks,omitempty"`   // prefixes; empty: used from anywhere
	ExpiresIn string   `json:"expires_in,omitempty"` // "90d", which is what it is when empty
}

// TokenRotation is how a token is replaced.
type TokenRotation struct {
	Overlap   string `json:"overlap,omitempty"`    // "1h", which is what it is when empty; "0s": none
	ExpiresIn string `json:"expires_in,omitempty"` // of the successor
}

// Token is an API token as the service keeps it.
type Token struct {
	ID           string     `json:"id"`
	Name         string     `json:"name"`
	Person       string     `json:"person"`
	Namespace    string     `json:"namespace"`
	Roles        []string   `json:"roles"`
	Profiles     []string   `json:"profiles,omitempty"`
	Networks     []string   `json:"networks,omitempty"`
	Status       string     `json:"status"` // active, retiring, retired, expired or revoked
	CreatedAt    time.Time  `json:"created_at"`
	CreatedBy    string     `json:"created_by,omitempty"`
	ExpiresAt    *time.Time `json:"expires_at,omitempty"`
	Replaces     string     `json:"replaces,omitempty"`
	RetiresAt    *time.Time `json:"retires_at,omitempty"`
	RevokedAt    *time.Time `json:"revoked_at,omitempty"`
	LastUsedAt   *time.Time `json:"last_used_at,omitempty"`
	LastUsedFrom string     `json:"last_used_from,omitempty"`
	// Secret is the token itself. It is shown once: when the token is made or rotated.
	Secret string `json:"token,omitempty"`
}

// Tokens are the API tokens that the caller may see.
func (c *Client) Tokens(ctx context.Context) ([]Token, error) {
	var list struct {
		Tokens []Token `json:"tokens"`
	}
	if _, err := c.json(ctx, call{method: http.MethodGet, path: []string{"tokens"}}, &list); err != nil {
		return nil, err
	}
	return list.Tokens, nil
}

// Token is one API token, by its ID.
func (c *Client) Token(ctx context.Context, id string) (*Token, error) {
	return c.oneToken(ctx, call{method: http.MethodGet, path: []string{"tokens", id}})
}

// CreateToken makes an API token. It is asked for once: where the answer is lost there may be a token that nobody has.
func (c *Client) CreateToken(ctx context.Context, s TokenSpec) (*Token, error) {
	return c.oneToken(ctx, call{method: http.MethodPost, path: []string{"tokens"}, body: s, once: true})
}

// RotateToken replaces an API token by one that may do the same. It is asked for once, as CreateToken is.
func (c *Client) RotateToken(ctx context.Context, id string, r TokenRotation) (*Token, error) {
	return c.oneToken(ctx, call{method: http.MethodPost, path: []string{"tokens", id, "rotate"}, body: r, once: true})
}

// RevokeToken withdraws an API token from now on.
func (c *Client) RevokeToken(ctx context.Context, id string) (*Token, error) {
	return c.oneToken(ctx, call{method: http.MethodPost, path: []string{"tokens", id, "revoke"}, body: struct{}{}})
}

func (c *Client) oneToken(ctx context.Context, r call) (*Token, error) {
	var t Token
	if _, err := c.json(ctx, r, &t); err != nil {
		return nil, err
	}
	return &t, nil
}
