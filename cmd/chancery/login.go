package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/client"
	"github.com/chancery-ca/chancery/oidc"
	"github.com/chancery-ca/chancery/oidc/native"
)

const loginTime = 5 * time.Minute // for a person to sign in

// loggingIn is how somebody logs in.
type loggingIn struct {
	api                    apiFlags
	issuer                 string
	device, noBrowser, yes bool
	wait                   time.Duration
}

func (a *app) loginCommand() *cobra.Command {
	var l loggingIn
	cmd := &cobra.Command{
		Use:   "login",
		Short: "Log in at a service by its identity provider, for the commands that follow",
		Long: `Log in at a service by its identity provider, for the commands that follow.

The service says which provider that is. A browser is opened, you sign in there, and every command that calls the same service is yours from
then on, until you log out or the provider ends it. Where the browser is on another machine, use --device.

What the provider gave is kept in $XDG_STATE_HOME/chancery/logins (~/.local/state/chancery/logins), in a file that is yours alone.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.login(cmd.Context(), l) },
	}
	l.api.addService(cmd)
	cmd.Flags().StringVar(&l.issuer, "issuer", "", "the provider's URL, where the service has several")
	cmd.Flags().BoolVar(&l.device, "device", false, "show an address and a code, to sign in by a browser on another machine")
	cmd.Flags().BoolVar(&l.noBrowser, "no-browser", false, "show the address and open nothing; the browser must be on this machine")
	cmd.Flags().BoolVar(&l.yes, "yes", false, "do not ask for confirmation")
	cmd.Flags().DurationVar(&l.wait, "wait", loginTime, "how long to wait for you to sign in")
	return cmd
}

// loggedIn is what login tells.
type loggedIn struct {
	Service string         `json:"service"`
	Caller  *client.Caller `json:"caller"`
	Login   *loginState    `json:"login,omitempty"` // left out for a credential of another kind
}

// loginState is what there is to know of a login but its tokens.
type loginState struct {
	Issuer  string     `json:"issuer"`
	Since   time.Time  `json:"since"`
	EndsAt  *time.Time `json:"ends_at,omitempty"` // of the token; left out: the provider did not say
	Prolong bool       `json:"prolonged"`         // before its end, by the command that needs it
}

func stateOf(l native.Login) *loginState {
	s := &loginState{Issuer: l.Provider.Issuer, Since: l.Since.UTC(), Prolong: l.Prolonged()}
	if _, ends := l.Bearer(); !ends.IsZero() {
		at := ends.UTC()
		s.EndsAt = &at
	}
	return s
}

func (a *app) login(ctx context.Context, l loggingIn) error {
	logins, err := a.logins()
	if err != nil {
		return err
	}
	address := cmp.Or(l.api.api, a.lookup("CHANCERY_API"))
	if address == "" {
		return misuse{errors.New("which service? give --api, or set CHANCERY_API")}
	}
	service, err := native.Service(address)
	if err != nil {
		return misuse{err}
	}
	cfg := client.Config{
		BaseURL: service, CAFile: cmp.Or(l.api.caBundle, a.lookup("CHANCERY_CA_BUNDLE")), UserAgent: "chancery/" + version(),
	}
	if cfg.CAFile != "" { // later commands are called elsewhere
		if cfg.CAFile, err = filepath.Abs(cfg.CAFile); err != nil {
			return fmt.Errorf("finding the roots: %w", err)
		}
	}
	provider, err := a.providerOf(ctx, cfg, l.issuer)
	if err != nil {
		return err
	}
	if err := a.confirmSharing(logins, service, provider, l.yes); err != nil {
		return err
	}
	tokens, err := a.signIn(ctx, provider, l)
	if err != nil {
		return err
	}
	login := native.Login{Service: service, Provider: provider, Since: a.Now(), CABundle: cfg.CAFile, Tokens: tokens}
	cfg.Token, _ = login.Bearer()
	who, err := whoIs(ctx, cfg)
	if err != nil {
		return errors.Join(fmt.Errorf("signed in at %s, and not known to %s: %w", provider.Issuer, service, err), withdraw(ctx, login))
	}
	// That of before is overwritten and not withdrawn: some providers would end the person's session with it, and the new tokens too.
	if err := logins.Keep(ctx, login); err != nil {
		return errors.Join(err, withdraw(ctx, login))
	}
	return a.printWho(loggedIn{Service: service, Caller: who, Login: stateOf(login)})
}

// withdraw has the provider forget tokens that are not kept. That it offers no such thing is no failure.
func withdraw(ctx context.Context, l native.Login) error {
	if err := l.Withdraw(ctx); err != nil && !errors.Is(err, oidc.ErrNotOffered) {
		return fmt.Errorf("what the provider gave could not be withdrawn and ends by itself: %w", err)
	}
	return nil
}

// whoIs asks a service who the owner of a token is.
func whoIs(ctx context.Context, cfg client.Config) (*client.Caller, error) {
	c, err := client.New(cfg)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.WhoAmI(ctx)
}

// providerOf asks a service whom people sign in at.
func (a *app) providerOf(ctx context.Context, cfg client.Config, issuer string) (native.Provider, error) {
	c, err := client.New(cfg)
	if err != nil {
		return native.Provider{}, err
	}
	defer c.Close()
	offered, err := c.LoginProviders(ctx)
	if err != nil {
		return native.Provider{}, fmt.Errorf("asking %s where people log in: %w", cfg.BaseURL, err)
	}
	if len(offered) == 0 {
		return native.Provider{}, fmt.Errorf("%s has nobody log in by an identity provider; ask its operators for an API token, and give "+
			"--token-file or set CHANCERY_TOKEN", cfg.BaseURL)
	}
	issuers := make([]string, len(offered))
	for i, p := range offered {
		issuers[i] = p.Issuer
	}
	i := slices.Index(issuers, issuer)
	switch {
	case i < 0 && issuer != "":
		return native.Provider{}, misuse{fmt.Errorf("--issuer: people log in at %s, and not at %q", strings.Join(issuers, ", "), issuer)}
	case i < 0 && len(offered) > 1:
		return native.Provider{}, misuse{fmt.Errorf("say by --issuer which of %s", strings.Join(issuers, ", "))}
	case i < 0:
		i = 0
	}
	p := offered[i]
	if p.Bearer != bearerAccess && p.Bearer != bearerID {
		return native.Provider{}, fmt.Errorf("%s asks for a %q, which this program does not know; use a newer one", cfg.BaseURL, p.Bearer)
	}
	return native.Provider{
		Issuer: p.Issuer, ClientID: p.ClientID, Scopes: p.Scopes, Roots: p.Roots, SendsID: p.Bearer == bearerID,
	}.By(a.Now), nil
}

// confirmSharing asks before a service is given tokens that another one takes as well. A counterfeit that names the provider and the client
// of the real service would otherwise be sent what lets it in there.
func (a *app) confirmSharing(logins native.Logins, service string, p native.Provider, yes bool) error {
	others, err := logins.Services()
	if err != nil {
		return err
	}
	for _, other := range others {
		l, err := logins.Find(other)
		if err != nil || other == service || l.Provider.Issuer != p.Issuer || l.Provider.ClientID != p.ClientID {
			continue // one that cannot be read shares nothing
		}
		if err := a.confirm(yes, fmt.Sprintf("%s would be sent tokens that %s takes as well. Is it run by the same people?", service, other)); err != nil {
			return err
		}
	}
	return nil
}

// signIn has the person sign in.
func (a *app) signIn(ctx context.Context, p native.Provider, l loggingIn) (oidc.Tokens, error) {
	limited, cancel := context.WithTimeout(ctx, l.wait)
	defer cancel()
	var tokens oidc.Tokens
	var err error
	if l.device {
		tokens, err = native.SignInElsewhere(limited, p, a.showDevice)
	} else {
		tokens, err = native.SignIn(limited, p, func(address string) error { return a.browse(ctx, address, !l.noBrowser) })
	}
	var refused *access.Unauthenticated
	switch {
	case err == nil:
		return tokens, nil
	case ctx.Err() != nil:
		return oidc.Tokens{}, errors.New("the login was cancelled")
	case errors.Is(err, context.DeadlineExceeded) && limited.Err() != nil:
		return oidc.Tokens{}, fmt.Errorf("nobody signed in within %s; try again, or give --wait", l.wait)
	case errors.As(err, &refused):
		return oidc.Tokens{}, fmt.Errorf("not logged in: %s", refused.Detail)
	case errors.Is(err, oidc.ErrNotOffered):
		return oidc.Tokens{}, fmt.Errorf("not logged in: %w; leave --device out and use a browser on this machine", err)
	}
	return oidc.Tokens{}, fmt.Errorf("not logged in: %w", err)
}

func (a *app) showDevice(d oidc.Device) {
	fmt.Fprintf(a.Stderr, "Open %s and type %s\n", d.URL, d.Code)
	if d.Whole != "" {
		fmt.Fprintf(a.Stderr, "or open %s and compare the code.\n", d.Whole)
	}
	fmt.Fprintln(a.Stderr, "Waiting for you to sign in there.")
}

func (a *app) logoutCommand() *cobra.Command {
	var api apiFlags
	cmd := &cobra.Command{
		Use:   "logout",
		Short: "End the login at a service, here and at its identity provider",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return a.logout(cmd.Context(), api) },
	}
	cmd.Flags().StringVar(&api.api, "api", "", "the service's address (or CHANCERY_API); may be left out where you are logged in at one alone")
	return cmd
}

// loggedOut is what logout tells.
type loggedOut struct {
	Service   string `json:"service"`
	Withdrawn bool   `json:"withdrawn"` // the provider has forgotten the tokens
	Because   string `json:"because,omitempty"`
}

func (a *app) logout(ctx context.Context, api apiFlags) error {
	logins, err := a.logins()
	if err != nil {
		return err
	}
	address := cmp.Or(api.api, a.lookup("CHANCERY_API"))
	if address == "" {
		if address, err = a.onlyLogin(); err != nil {
			return err
		}
		if address == "" {
			return native.ErrNone
		}
	}
	service, err := native.Service(address)
	if err != nil {
		return misuse{err}
	}
	revoked, err := logins.Forget(ctx, service)
	if err != nil {
		return err
	}
	out := loggedOut{Service: service, Withdrawn: revoked == nil}
	if revoked != nil {
		out.Because = revoked.Error()
	}
	return a.print(out, func(w io.Writer) {
		fmt.Fprintf(w, "Logged out at %s.\n", service)
		if revoked != nil {
			fmt.Fprintf(w, "The provider still knows the tokens, which are gone from here: %v.\n", revoked)
		}
	})
}

func (a *app) whoAmICommand() *cobra.Command {
	var api apiFlags
	cmd := &cobra.Command{
		Use:   "whoami",
		Short: "Say who you are to a service: name, namespace, roles, and when your login ends",
		Args:  cobra.NoArgs,
	}
	api.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := a.connect(api, access.Requester)
		if err != nil {
			return err
		}
		defer c.Close()
		who, err := c.WhoAmI(cmd.Context())
		if err != nil {
			return err
		}
		out := loggedIn{Service: c.Service(), Caller: who}
		if a.loggedInAt != "" {
			l, err := a.loginAt(a.loggedInAt)
			if err != nil {
				return err
			}
			out.Login = stateOf(l)
		}
		return a.printWho(out)
	}
	return cmd
}

func (a *app) printWho(l loggedIn) error {
	return a.print(l, func(w io.Writer) {
		c := l.Caller
		fmt.Fprintf(w, "%s at %s\n", legible(cmp.Or(c.Name, c.ID)), l.Service)
		for _, line := range []struct{ name, value string }{
			{"person", c.Person},
			{"credential", c.ID},
			{"namespace", c.Namespace},
			{"roles", strings.Join(c.Roles, ", ")},
			{"groups", strings.Join(c.Groups, ", ")},
			{"profiles", strings.Join(c.Profiles, ", ")},
			{"networks", strings.Join(c.Networks, ", ")},
		} {
			if line.value != "" {
				fmt.Fprintf(w, "  %-11s %s\n", line.name, audit.Legible(line.value, "              | "))
			}
		}
		if s := l.Login; s != nil {
			fmt.Fprintf(w, "  %-11s %s\n", "login", s.words())
		}
	})
}

func (s *loginState) words() string {
	text := "by " + s.Issuer + " since " + s.Since.Local().Format(time.RFC3339)
	switch {
	case s.Prolong:
		return text + ", prolonged as you use it"
	case s.EndsAt != nil:
		return text + ", ends at " + s.EndsAt.Local().Format(time.RFC3339)
	}
	return text
}
