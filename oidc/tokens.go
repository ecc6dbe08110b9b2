package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// Tokens are what a provider gives to a program for the person who signed in. They are secrets: as a text they tell nothing.
type Tokens struct {
	Access        string    `json:"access"`
	AccessExpires time.Time `json:"access_expires,omitzero"` // zero: the provider did not say
	ID            string    `json:"id"`                      // verified when it came
	IDExpires     time.Time `json:"id_expires"`
	Refresh       string    `json:"refresh,omitempty"` // empty: the provider gave none, and the login ends with the tokens
	Subject       string    `json:"subject"`           // whom the ID token is about
}

// String hides them.
func (Tokens) String() string { return "tokens that are not shown" }

// GoString hides them.
func (t Tokens) GoString() string { return t.String() }

// ErrNotOffered is returned for what a provider's discovery document has no address for.
var ErrNotOffered = errors.New("the identity provider does not offer this")

// Exchange ends an attempt with what the provider sent the browser back with, and returns the tokens, for a program that calls others on
// the person's behalf. The error is *access.Unauthenticated, or wraps ErrUnavailable.
func (l *Login) Exchange(ctx context.Context, a Attempt, answer url.Values) (Tokens, error) {
	tokens, _, err := l.exchange(ctx, a, answer)
	return tokens, err
}

// Device is what a person is shown who signs in on another device (RFC 8628, section 3.2).
type Device struct {
	URL     string    // where to type the code
	Whole   string    // the same with the code in it; empty: the provider has none
	Code    string    // to type, or to compare
	Expires time.Time // zero: the provider did not say
}

// Device signs a person in who has a browser elsewhere (RFC 8628): show is called once with what the person is to see, and then the
// provider is asked again and again until the person has decided, the code has ended or the context has. The error is
// *access.Unauthenticated, or wraps ErrUnavailable, ErrNotOffered or the context's error.
func (l *Login) Device(ctx context.Context, show func(Device)) (Tokens, error) {
	config, said, err := l.config(ctx)
	if err != nil {
		return Tokens{}, err
	}
	if said.endpoint.DeviceAuthURL == "" {
		return Tokens{}, fmt.Errorf("%w: signing in on another device", ErrNotOffered)
	}
	body, err := l.post(ctx, config, said.endpoint.DeviceAuthURL, url.Values{"scope": {strings.Join(config.Scopes, " ")}},
		"the provider begins no login on another device")
	if err != nil {
		return Tokens{}, err
	}
	asked := &oauth2.DeviceAuthResponse{}
	if err := json.Unmarshal(body, asked); err != nil {
		return Tokens{}, failed("the provider's answer cannot be read")
	}
	device := Device{URL: asked.VerificationURI, Whole: asked.VerificationURIComplete, Code: asked.UserCode, Expires: asked.Expiry}
	if err := device.check(); err != nil {
		return Tokens{}, failed("the provider's answer cannot be shown: " + err.Error())
	}
	show(device)
	got, err := config.DeviceAccessToken(l.asking(ctx), asked)
	switch {
	case ctx.Err() != nil:
		return Tokens{}, ctx.Err()
	case errors.Is(err, context.DeadlineExceeded):
		return Tokens{}, failed("the code has ended before anybody signed in with it")
	case err != nil:
		return Tokens{}, l.notGiven(err, "the provider did not sign you in")
	}
	tokens, _, err := l.tokens(ctx, got, l.isForUs)
	return tokens, err
}

// check refuses what could lead a person elsewhere, or write to the terminal what is no text.
func (d Device) check() error {
	for _, address := range []string{d.URL, d.Whole} {
		u, err := url.Parse(address)
		if address == "" && d.URL != "" {
			continue
		}
		if err != nil || u.Scheme != "https" || u.Host == "" || !printable(address) {
			return errors.New("its address is not an https URL")
		}
	}
	if d.Code == "" || len(d.Code) > 64 || !printable(d.Code) {
		return errors.New("its code is none")
	}
	return nil
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e })
}

// Refresh gets new tokens for old ones (RFC 6749, section 6; OpenID Connect Core 1.0, section 12). The old refresh token may be worth
// nothing from then on. The error is *access.Unauthenticated when the provider has ended the login, or wraps ErrUnavailable.
func (l *Login) Refresh(ctx context.Context, old Tokens) (Tokens, error) {
	if old.Refresh == "" {
		return Tokens{}, failed("the provider gave nothing to prolong the login with")
	}
	config, _, err := l.config(ctx)
	if err != nil {
		return Tokens{}, err
	}
	asking, cancel := context.WithTimeout(l.asking(ctx), fetchTime)
	defer cancel()
	got, err := config.TokenSource(asking, &oauth2.Token{RefreshToken: old.Refresh}).Token()
	if err != nil {
		return Tokens{}, l.notGiven(err, "the provider does not prolong the login")
	}
	if _, given := got.Extra("id_token").(string); !given { // it need not give one
		next := l.withoutID(got)
		next.ID, next.IDExpires, next.Subject = old.ID, old.IDExpires, old.Subject
		return next, nil
	}
	tokens, _, err := l.tokens(ctx, got, func(c claims) error {
		if c.Subject != old.Subject {
			return refuse("it is about somebody else")
		}
		return l.isForUs(c)
	})
	return tokens, err
}

// Revoke has the provider forget a login (RFC 7009). The error wraps ErrNotOffered or ErrUnavailable, or says that the provider refused.
func (l *Login) Revoke(ctx context.Context, t Tokens) error {
	config, said, err := l.config(ctx)
	if err != nil {
		return err
	}
	if said.revocation == "" {
		return fmt.Errorf("%w: withdrawing tokens", ErrNotOffered)
	}
	form := url.Values{"token": {t.Refresh}, "token_type_hint": {"refresh_token"}}
	if t.Refresh == "" {
		form = url.Values{"token": {t.Access}, "token_type_hint": {"access_token"}}
	}
	_, err = l.post(ctx, config, said.revocation, form, "the provider did not withdraw the tokens")
	return err
}

// post sends a form to the provider as its client, and returns the answer, which was a success.
func (l *Login) post(ctx context.Context, config *oauth2.Config, address string, form url.Values, failing string) ([]byte, error) {
	form.Set("client_id", config.ClientID)
	if config.Endpoint.AuthStyle == oauth2.AuthStyleInParams && config.ClientSecret != "" {
		form.Set("client_secret", config.ClientSecret)
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, fmt.Errorf("asking the provider: %w", err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if config.Endpoint.AuthStyle == oauth2.AuthStyleInHeader {
		request.SetBasicAuth(url.QueryEscape(config.ClientID), url.QueryEscape(config.ClientSecret))
	}
	answer, err := l.provider.issuer.Client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	case answer.StatusCode >= http.StatusInternalServerError:
		return nil, fmt.Errorf("%w: it answers %d", ErrUnavailable, answer.StatusCode)
	case answer.StatusCode != http.StatusOK:
		var said struct{ Error string }
		_ = json.Unmarshal(body, &said) // a body that cannot be read is one without a reason
		return nil, failed(failing + " (" + word(said.Error) + ")")
	}
	return body, nil
}

// asking is a context with the client that may speak to the provider.
func (l *Login) asking(ctx context.Context) context.Context {
	return gooidc.ClientContext(ctx, l.provider.issuer.Client)
}

// notGiven turns what oauth2 says about tokens that were not given into an error of ours. A provider's own words may hold anything, what it
// was sent among it: its code alone is repeated.
func (l *Login) notGiven(err error, what string) error {
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if refused.Response.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("%w: it answers %d", ErrUnavailable, refused.Response.StatusCode)
	}
	return failed(what + " (" + word(refused.ErrorCode) + ")")
}

// tokens are ours of what a provider gave, with an ID token that must be good and be accepted, and whom it is about.
func (l *Login) tokens(ctx context.Context, got *oauth2.Token, accept func(claims) error) (Tokens, holder, error) {
	t := l.withoutID(got)
	t.ID, _ = got.Extra("id_token").(string)
	h, err := l.provider.verify(ctx, t.ID, loginTypes, func(c claims) error {
		t.IDExpires, t.Subject = time.Time(*c.Expires), c.Subject
		return accept(c)
	})
	if err != nil {
		return Tokens{}, holder{}, err
	}
	return t, h, nil
}

func (l *Login) withoutID(got *oauth2.Token) Tokens {
	t := Tokens{Access: got.AccessToken, Refresh: got.RefreshToken}
	if got.ExpiresIn > 0 { // by our clock: oauth2 takes that of the machine
		t.AccessExpires = l.provider.now().Add(time.Duration(got.ExpiresIn) * time.Second)
	}
	return t
}
