package client

import (
	"context"
	"net/http"
)

// LoginProvider is an identity provider that people sign in at who call the API, and as what a program of theirs is known there.
type LoginProvider struct {
	Issuer   string   `json:"issuer"`
	ClientID string   `json:"client_id"`
	Scopes   []string `json:"scopes"` // besides openid
	Bearer   string   `json:"bearer"` // which of the provider's tokens the service takes: access_token or id_token
	Roots    string   `json:"roots"`  // PEM, that the provider's TLS certificate leads to; empty: those of the system
}

// Caller is who a caller is to the service.
type Caller struct {
	ID        string   `json:"id"` // of the credential
	Name      string   `json:"name"`
	Person    string   `json:"person"`    // who stands behind the credential
	Namespace string   `json:"namespace"` // * is everywhere
	Roles     []string `json:"roles"`
	Groups    []string `json:"groups,omitempty"`
	Profiles  []string `json:"profiles,omitempty"` // the only ones that the credential may be used for; none: every one of the namespace
	Networks  []string `json:"networks,omitempty"` // the only ones that it may be used from; none: every one
}

// LoginProviders are where people sign in. It needs no token.
func (c *Client) LoginProviders(ctx context.Context) ([]LoginProvider, error) {
	var list struct {
		Providers []LoginProvider `json:"providers"`
	}
	_, err := c.json(ctx, call{method: http.MethodGet, path: []string{"login"}}, &list)
	return list.Providers, err
}

// WhoAmI is who the owner of the client's token is to the service.
func (c *Client) WhoAmI(ctx context.Context) (*Caller, error) {
	who := &Caller{}
	if _, err := c.json(ctx, call{method: http.MethodGet, path: []string{"whoami"}}, who); err != nil {
		return nil, err
	}
	return who, nil
}
