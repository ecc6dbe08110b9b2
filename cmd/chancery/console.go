package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/client"
	"github.com/chancery-ca/chancery/oidc"
	"github.com/chancery-ca/chancery/web"
	"github.com/chancery-ca/chancery/web/console"
)

// openProviders makes the identity providers of the configuration. None is asked yet: the service starts while they are away.
func (s *service) openProviders() error {
	var issuers []oidc.Issuer
	for _, o := range s.cfg.OIDC {
		issuer, err := o.issuer()
		if err != nil {
			return err
		}
		issuers = append(issuers, issuer)
	}
	var err error
	s.providers, err = oidc.New(oidc.Config{Issuers: issuers, Rules: s.cfg.rules(), Log: s.log, Now: s.env.Now})
	return err
}

// openConsole makes the console; nil where none is configured.
func (s *service) openConsole() (web.Pages, error) {
	c := s.cfg.Console
	if c.URL == "" {
		return nil, nil
	}
	cfg := console.Config{
		CA: s.ca, URL: c.URL, Idle: time.Duration(c.Idle), Life: time.Duration(c.Lifetime), Log: s.log, Now: s.env.Now, Random: s.env.Random,
		Version: version(),
	}
	if c.Login.Issuer != "" {
		login, err := s.providers.Login(oidc.Party{
			Issuer: c.Login.Issuer, ClientID: c.Login.ClientID, Secret: c.Login.secret(), Redirect: c.URL + console.Callback, Scopes: c.Login.Scopes,
		})
		if err != nil {
			return nil, err
		}
		cfg.Provider = login
	}
	return console.New(cfg)
}

// bearers takes tokens of providers beside API tokens. A provider that is away is an unavailable part of the service.
type bearers struct{ providers *oidc.Providers }

// Authenticate finds out who calls by a token of a provider.
func (b bearers) Authenticate(r *http.Request) (access.Actor, bool, error) {
	actor, found, err := b.providers.Authenticate(r)
	if errors.Is(err, oidc.ErrUnavailable) {
		err = fmt.Errorf("%w: %w", ca.ErrUnavailable, err)
	}
	return actor, found, err
}

func (a *app) consoleCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "console", Short: "Open the console: the pages for people, in a browser"}
	role := string(devConsoleRole)
	login := &cobra.Command{
		Use:   "login",
		Short: "Print a link that signs a browser in, once, within two minutes",
		Long: `Print a link that signs a browser in to the console, once, within two minutes.

Whoever opens it is signed in as the owner of the API token of this call. The session ends with the token.
Where the service has an identity provider, sign in there instead: open the service's address with /console/ in a browser.`,
		Args: cobra.NoArgs,
	}
	login.Flags().StringVar(&role, "as", role, "with chancery dev: the role whose token is used")
	var api apiFlags
	api.add(login)
	login.RunE = func(cmd *cobra.Command, _ []string) error {
		as, err := access.ParseRole(role)
		if err != nil {
			return misuse{fmt.Errorf("--as: %w", err)}
		}
		c, err := a.connect(api, as)
		if err != nil {
			return err
		}
		defer c.Close()
		return a.printLogin(cmd.Context(), c)
	}
	cmd.AddCommand(login)
	return cmd
}

func (a *app) printLogin(ctx context.Context, c *client.Client) error {
	link, err := c.ConsoleLogin(ctx)
	if err != nil {
		return err
	}
	return a.print(link, func(w io.Writer) { fmt.Fprintln(w, link.URL) })
}
