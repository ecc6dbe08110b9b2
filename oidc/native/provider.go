package native

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/chancery-ca/chancery/oidc"
)

// Provider is whom people sign in at for a service, and as what the program is known there. The service tells it.
type Provider struct {
	Issuer   string   `json:"issuer"`
	ClientID string   `json:"client_id"` // of a public client: it has no secret (RFC 8252, section 8.5)
	Scopes   []string `json:"scopes"`    // besides openid
	Roots    string   `json:"roots,omitempty"`
	// SendsID tells that the service takes the ID token, and not the access token.
	SendsID bool `json:"sends_id,omitempty"`

	now func() time.Time
}

// By gives the provider a clock.
func (p Provider) By(now func() time.Time) Provider {
	p.now = now
	return p
}

// open makes what talks to the provider. Nobody is asked yet.
func (p Provider) open(redirect string) (*oidc.Providers, *oidc.Login, error) {
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
		DisableKeepAlives: true, // a command asks two or three things and ends
	}
	if p.Roots != "" {
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM([]byte(p.Roots)) {
			return nil, nil, fmt.Errorf("the roots of the provider %s hold no certificate", p.Issuer)
		}
	}
	providers, err := oidc.New(oidc.Config{
		Issuers: []oidc.Issuer{{URL: p.Issuer, Client: &http.Client{Transport: transport}}}, Log: slog.New(slog.DiscardHandler), Now: p.now,
	})
	if err != nil {
		return nil, nil, err
	}
	login, err := providers.Login(oidc.Party{Issuer: p.Issuer, ClientID: p.ClientID, Redirect: redirect, Scopes: p.Scopes})
	if err != nil {
		providers.Close()
		return nil, nil, err
	}
	return providers, login, nil
}

// SignInElsewhere has a person sign in by a browser on another machine; see oidc.Login.Device.
func SignInElsewhere(ctx context.Context, at Provider, show func(oidc.Device)) (oidc.Tokens, error) {
	providers, login, err := at.open(Redirect)
	if err != nil {
		return oidc.Tokens{}, err
	}
	defer providers.Close()
	return login.Device(ctx, show)
}

// refresh gets new tokens for old ones.
func (p Provider) refresh(ctx context.Context, old oidc.Tokens) (oidc.Tokens, error) {
	providers, login, err := p.open(Redirect)
	if err != nil {
		return oidc.Tokens{}, err
	}
	defer providers.Close()
	return login.Refresh(ctx, old)
}

// revoke has the provider forget the tokens.
func (p Provider) revoke(ctx context.Context, tokens oidc.Tokens) error {
	providers, login, err := p.open(Redirect)
	if err != nil {
		return err
	}
	defer providers.Close()
	return login.Revoke(ctx, tokens)
}
