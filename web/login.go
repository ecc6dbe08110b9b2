package web

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

// LoginProvider is an OpenID Connect provider that people sign in at who call the API by a program of their own. All of it is public: the client
// has no secret (RFC 8252, section 8.5).
type LoginProvider struct {
	Issuer   string   `json:"issuer" format:"uri" doc:"Of the provider, whose discovery document is below it"`
	ClientID string   `json:"client_id" doc:"Of a public client, which comes back to any port of http://127.0.0.1/callback (RFC 8252)"`
	Scopes   []string `json:"scopes" doc:"To ask for besides openid"`
	Bearer   string   `json:"bearer" enum:"access_token,id_token" doc:"Which of the provider's tokens this service takes"`
	Roots    string   `json:"roots,omitempty" doc:"PEM, that the provider's TLS certificate leads to; left out: those of the system"`
}

// LoginProviderList is where people can sign in.
type LoginProviderList struct {
	Providers []LoginProvider `json:"providers" doc:"Empty where callers need an API token or a client certificate"`
}

type providersAnswer struct{ Body LoginProviderList }

func (s *Server) routeProviders(api huma.API) error {
	return route(s, api, call{
		method: http.MethodGet, path: "/login", id: "list-login-providers", tag: tagLogin, success: http.StatusOK,
		summary: "Read where people sign in",
		description: "Gives the identity providers whose tokens the API takes of people, and what a program on their own machine needs to " +
			"know to get one. It needs no credentials and tells none.",
		answers: []media{{name: typeJSON, json: LoginProviderList{}}},
	}, s.loginProviders)
}

func (s *Server) loginProviders(context.Context, *struct{}) (*providersAnswer, error) {
	return &providersAnswer{Body: LoginProviderList{Providers: s.providers}}, nil
}
