package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/chancery-ca/chancery/client"
	"github.com/chancery-ca/chancery/oidc/native"
)

// logins are those of the user of this machine. As the XDG Base Directory Specification has it, a relative $XDG_STATE_HOME is passed over.
func (a *app) logins() (native.Logins, error) {
	state := a.lookup("XDG_STATE_HOME")
	if !filepath.IsAbs(state) {
		home := a.lookup("HOME")
		if !filepath.IsAbs(home) {
			return native.Logins{}, errors.New("there is no place to keep a login: set HOME or XDG_STATE_HOME")
		}
		state = filepath.Join(home, ".local", "state")
	}
	return native.Logins{Dir: filepath.Join(state, "chancery", "logins"), Now: a.Now}, nil
}

// onlyLogin is the service that somebody is logged in at, where that is one; empty where it is none.
func (a *app) onlyLogin() (string, error) {
	logins, err := a.logins()
	if err != nil {
		return "", nil // nobody without a home has logged in
	}
	services, err := logins.Services()
	switch {
	case err != nil || len(services) == 0:
		return "", err
	case len(services) > 1:
		return "", misuse{fmt.Errorf("which service? You are logged in at %s: give --api, or set CHANCERY_API", strings.Join(services, ", "))}
	}
	return services[0], nil
}

// loginAt is the login at a service.
func (a *app) loginAt(service string) (native.Login, error) {
	logins, err := a.logins()
	if err != nil {
		return native.Login{}, err
	}
	return logins.Find(service)
}

// useLogin has a client call as who is logged in at its service. Where nobody is, it goes on without: not every call needs somebody, and a
// Unix socket says who calls.
func (a *app) useLogin(cfg *client.Config) error {
	service, err := native.Service(cfg.BaseURL)
	if err != nil {
		return nil // a socket, or an address that the client refuses
	}
	again := "log in: chancery login --api " + service
	logins, err := a.logins()
	if err != nil { // there is nowhere to look
		a.advice = again
		return nil
	}
	login, err := logins.Find(service)
	if errors.Is(err, native.ErrNone) {
		a.advice = again + "; or give --token-file, or set CHANCERY_TOKEN"
		return nil
	}
	if err != nil {
		return err
	}
	a.loggedInAt, a.advice = service, "the service takes your login no more; "+again
	cfg.CAFile = cmp.Or(cfg.CAFile, login.CABundle)
	cfg.TokenSource = func(ctx context.Context) (string, error) {
		token, err := logins.Token(ctx, service)
		if errors.Is(err, native.ErrEnded) || errors.Is(err, native.ErrNone) {
			err = fmt.Errorf("%w; %s", err, again)
		}
		return token, err
	}
	return nil
}

// advise adds what may help to the error of a service that does not know who calls, and of one that is not known here.
func (a *app) advise(err error) error {
	var problem *client.Problem
	if a.advice != "" && errors.As(err, &problem) && problem.Status == http.StatusUnauthorized {
		return fmt.Errorf("%w\n%s", err, a.advice)
	}
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		return fmt.Errorf("%w\nname the roots that the service's certificate leads to: --ca-bundle root.pem, or CHANCERY_CA_BUNDLE", err)
	}
	return err
}
