package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/client"
)

// apiFlags say where the service is and who calls. Without them the environment is asked (CHANCERY_API, CHANCERY_TOKEN,
// CHANCERY_CA_BUNDLE, CHANCERY_CLIENT_CERT, CHANCERY_CLIENT_KEY), then a running `chancery dev`, which has tokens of its own, and then what
// `chancery login` kept. A client certificate stands in place of the token of a running `chancery dev` and of a login; named by its flag, of
// CHANCERY_TOKEN too. There is no flag for the token itself: whoever lists processes would read it.
type apiFlags struct {
	api, tokenFile, caBundle string
	certificate, key         string
	breakGlass               string
}

func (f *apiFlags) add(cmd *cobra.Command) {
	f.addService(cmd)
	cmd.Flags().StringVar(&f.tokenFile, "token-file", "",
		"file that holds the API token (or the token itself in CHANCERY_TOKEN), in place of what chancery login kept")
	cmd.Flags().StringVar(&f.certificate, "client-cert", "",
		"client certificate with its chain, PEM, instead of a token (or CHANCERY_CLIENT_CERT)")
	cmd.Flags().StringVar(&f.key, "client-key", "", "file of its key, PEM (or CHANCERY_CLIENT_KEY)")
	cmd.Flags().StringVar(&f.breakGlass, "break-glass", "", "in an emergency, on the service's own machine: why; it is recorded, loudly")
}

// addService adds the flags that say where the service is.
func (f *apiFlags) addService(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.api, "api", "",
		"the service's address, such as https://ca.example:8443 or unix:///run/chancery/local.sock (or CHANCERY_API)")
	cmd.Flags().StringVar(&f.caBundle, "ca-bundle", "", "roots that the service's TLS certificate leads to, PEM (or CHANCERY_CA_BUNDLE)")
}

// connect makes a client. Role chooses among the tokens of `chancery dev` and matters nowhere else, but that without one nobody's token is
// sent.
func (a *app) connect(f apiFlags, role access.Role) (*client.Client, error) {
	cfg := client.Config{
		BaseURL: cmp.Or(f.api, a.lookup("CHANCERY_API")), Token: a.lookup("CHANCERY_TOKEN"),
		CAFile:   cmp.Or(f.caBundle, a.lookup("CHANCERY_CA_BUNDLE")),
		CertFile: cmp.Or(f.certificate, a.lookup("CHANCERY_CLIENT_CERT")), KeyFile: cmp.Or(f.key, a.lookup("CHANCERY_CLIENT_KEY")),
		Emergency: f.breakGlass, UserAgent: "chancery/" + version(),
	}
	if f.certificate != "" || role == "" { // a token that lies about would count, and not the certificate that is named
		cfg.Token = ""
	}
	if f.tokenFile != "" {
		data, unfit, err := readOwn(f.tokenFile)
		if err := cmp.Or(err, unfit); err != nil {
			return nil, fmt.Errorf("reading the token: %w", err)
		}
		cfg.Token = strings.TrimSpace(string(data))
	}
	if cfg.KeyFile != "" {
		if _, err := readSecret(cfg.KeyFile); err != nil {
			return nil, err
		}
	}
	ofDev := false
	if cfg.BaseURL == "" {
		var err error
		if ofDev, err = a.findService(&cfg, role); err != nil {
			return nil, err
		}
	}
	if role != "" && cfg.Token == "" && cfg.CertFile == "" && !ofDev { // the file names roots, too: a login is not sent by its word
		if err := a.useLogin(&cfg); err != nil {
			return nil, err
		}
	}
	return client.New(cfg)
}

// findService has a client call the running `chancery dev`, or else the one service that somebody is logged in at. ofDev tells that it is the
// first.
func (a *app) findService(cfg *client.Config, role access.Role) (ofDev bool, err error) {
	home, err := a.home()
	if err != nil {
		return false, err
	}
	d, err := readDevFile(home)
	if err == nil {
		// Who unpacked the directory that this is run in may have written the file: it gets no token but those that stand in it.
		if cfg.Token != "" && !d.knows(cfg.Token) {
			return false, misuse{fmt.Errorf("which service? give --api, or set CHANCERY_API: the token that is given is none of those in %s, and is "+
				"not sent to where that file says", filepath.Join(home, "dev.json"))}
		}
		cfg.BaseURL, cfg.CAFile = d.API, cmp.Or(cfg.CAFile, d.CABundle)
		if cfg.CertFile == "" {
			cfg.Token = cmp.Or(cfg.Token, d.Tokens[string(role)])
		}
		return true, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if cfg.Token == "" { // a token that was given is not sent to where it was not meant to go
		if cfg.BaseURL, err = a.onlyLogin(); err != nil || cfg.BaseURL != "" {
			return false, err
		}
	}
	return false, misuse{errors.New("which service? give --api, or set CHANCERY_API, or start `chancery dev` here; say who you are by " +
		"`chancery login`, --token-file or CHANCERY_TOKEN")}
}

// overAPI is a command that calls the service under a role.
func (a *app) overAPI(cmd *cobra.Command, role access.Role,
	do func(ctx context.Context, c *client.Client, args []string) error,
) *cobra.Command {
	var api apiFlags
	api.add(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.connect(api, role)
		if err != nil {
			return err
		}
		defer c.Close()
		return do(cmd.Context(), c, args)
	}
	return cmd
}

// collect walks through what the service lists, to the end or to a limit; 0 is none. It returns no nil slice, which JSON would show as
// null.
func collect[T any](all iter.Seq2[T, error], limit int) ([]T, error) {
	found := []T{}
	for one, err := range all {
		if err != nil {
			return nil, err
		}
		if found = append(found, one); limit > 0 && len(found) == limit {
			break
		}
	}
	return found, nil
}
