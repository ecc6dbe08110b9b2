package main

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/chancery-ca/chancery/oidc"
	"github.com/chancery-ca/chancery/oidc/native"
	"github.com/chancery-ca/chancery/strictyaml"
	"github.com/chancery-ca/chancery/web"
	"github.com/chancery-ca/chancery/web/console"
)

// OIDCConfig is an OpenID Connect provider that is trusted to say who somebody is. What its people may do here, identities says.
type OIDCConfig struct {
	// Issuer is the provider's URL, exactly as its tokens have it in iss.
	Issuer string `yaml:"issuer"`
	// Audiences are those of tokens that are taken as bearer tokens of the API. Default: none of its tokens is; people sign in at the console.
	Audiences []string `yaml:"audiences"`
	// Algorithms of signatures that are taken. Default: RS256, PS256, ES256, ES384, EdDSA.
	Algorithms []string `yaml:"algorithms"`
	// CAFile holds the roots that the provider's TLS certificate leads to, PEM. Default: those of the system.
	CAFile string `yaml:"ca_file"`
	// CommandLine has people sign in here by `chancery login`. Default: nobody can.
	CommandLine CommandLineConfig `yaml:"command_line"`
}

// CommandLineConfig is what the command line is at the provider: a public client that comes back to any port of http://127.0.0.1/callback
// (RFC 8252), or has people sign in on another device (RFC 8628). All of it is told to everybody who asks at GET /api/v1/login.
type CommandLineConfig struct {
	// ClientID is that of the client at the provider. It has no secret.
	ClientID string `yaml:"client_id"`
	// Scopes are asked for besides openid. Default: profile, email, offline_access; without the last most logins end with the first token.
	Scopes []string `yaml:"scopes"`
	// Bearer is the token that is sent to the API: access_token, which must be a JSON Web Token with one of audiences, or id_token, whose
	// audience is the client. Default: access_token.
	Bearer string `yaml:"bearer"`
}

const (
	bearerAccess = "access_token"
	bearerID     = "id_token"
)

// ConsoleConfig is about the pages for people. Without a URL there are none.
type ConsoleConfig struct {
	// URL is where browsers reach the API's listener, such as https://ca.example:8443. Default: none, and no console.
	URL string `yaml:"url" env:"URL"`
	// Idle is after how long without use a session ends: 1m to 24h. Default: 30m.
	Idle strictyaml.Duration `yaml:"idle" env:"IDLE"`
	// Lifetime is after how long a session ends in any case: 5m to 24h. Default: 8h.
	Lifetime strictyaml.Duration `yaml:"lifetime" env:"LIFETIME"`
	// Login is where people sign in. Default: by links alone, which owners of API tokens make.
	Login LoginConfig `yaml:"login" envPrefix:"LOGIN_"`
}

// LoginConfig is what the console is at the provider.
type LoginConfig struct {
	// Issuer is one of oidc.
	Issuer string `yaml:"issuer" env:"ISSUER"`
	// ClientID is the console's at the provider. To be registered there: URL/console/callback, and URL/console/signed-out after logout.
	ClientID string `yaml:"client_id" env:"CLIENT_ID"`
	// ClientSecretFile holds the client's secret. It is read at each login. Default: none, a public client.
	ClientSecretFile string `yaml:"client_secret_file" env:"CLIENT_SECRET_FILE"`
	// Scopes are asked for besides openid. Default: profile, email.
	Scopes []string `yaml:"scopes" env:"SCOPES"`
}

func defaultConsole() ConsoleConfig {
	return ConsoleConfig{
		Idle: strictyaml.Duration(30 * time.Minute), Lifetime: strictyaml.Duration(8 * time.Hour),
		Login: LoginConfig{Scopes: []string{"profile", "email"}},
	}
}

func (c *Config) validateOIDC(doc *strictyaml.Document) {
	for i, o := range c.OIDC {
		field := fmt.Sprintf("oidc[%d]", i)
		if err := oidc.CheckURL(o.Issuer); err != nil {
			doc.Refuse(field+".issuer", "write it exactly as the provider's discovery document does", "%v", err)
		}
		if slices.ContainsFunc(c.OIDC[:i], func(other OIDCConfig) bool { return other.Issuer == o.Issuer }) {
			doc.Refuse(field+".issuer", "", "%q stands here twice", o.Issuer)
		}
		for j, name := range o.Algorithms {
			if err := oidc.CheckAlgorithm(name); err != nil {
				doc.Refuse(fmt.Sprintf("%s.algorithms[%d]", field, j), "leave it out for the usual ones", "%v", err)
			}
		}
		o.CommandLine.validate(doc, field+".command_line", o.Audiences)
		if slices.Contains(o.Audiences, "") {
			doc.Refuse(field+".audiences", "name what the provider writes into aud for this service", "an audience is empty")
		}
	}
	for i, one := range c.Identities {
		if one.OIDC != nil && len(c.OIDC) > 1 && len(one.OIDC["iss"]) == 0 {
			doc.Refuse(fmt.Sprintf("identities[%d].oidc", i), "match iss too: each provider has its own idea of a group's name",
				"with several providers, whoever runs one of them could let people in who are meant to come from another")
		}
	}
	c.Console.validate(doc, c.OIDC)
}

func (c CommandLineConfig) validate(doc *strictyaml.Document, field string, audiences []string) {
	switch {
	case c.ClientID == "" && (len(c.Scopes) > 0 || c.Bearer != ""):
		doc.Refuse(field+".client_id", "register a native client at the provider, with "+native.Redirect, "a login needs a client")
	case c.ClientID == "":
	case len(audiences) == 0:
		doc.Refuse(field, "set audiences to what the provider writes into aud of its tokens", "whoever logs in would not be let in")
	case c.Bearer != "" && c.Bearer != bearerAccess && c.Bearer != bearerID:
		doc.Refuse(field+".bearer", "use access_token or id_token", "%q is no kind of token", c.Bearer)
	case c.Bearer == bearerID && !slices.Contains(audiences, c.ClientID):
		doc.Refuse(field+".bearer", "add the client's ID to audiences", "an ID token is for its client, and %q is none of audiences", c.ClientID)
	}
}

// loginProviders are where people log in by the command line.
func (c *Config) loginProviders() ([]web.LoginProvider, error) {
	var all []web.LoginProvider
	for _, o := range c.OIDC {
		if o.CommandLine.ClientID == "" {
			continue
		}
		p := web.LoginProvider{
			Issuer: o.Issuer, ClientID: o.CommandLine.ClientID, Scopes: o.CommandLine.Scopes, Bearer: cmp.Or(o.CommandLine.Bearer, bearerAccess),
		}
		if p.Scopes == nil {
			p.Scopes = []string{"profile", "email", "offline_access"}
		}
		if o.CAFile != "" {
			text, err := os.ReadFile(o.CAFile)
			if err != nil {
				return nil, fmt.Errorf("reading the roots of the provider %s: %w", o.Issuer, err)
			}
			roots, _ := certificatesIn(text)
			p.Roots = pemOf(roots)
		}
		all = append(all, p)
	}
	return all, nil
}

func (c ConsoleConfig) validate(doc *strictyaml.Document, issuers []OIDCConfig) {
	if c.URL == "" {
		if c.Login.Issuer != "" || c.Login.ClientID != "" {
			doc.Refuse("console.url", "say where browsers reach the API's listener", "a login needs a console")
		}
		return
	}
	if u, err := url.Parse(c.URL); err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" ||
		u.User != nil {
		doc.Refuse("console.url", "write for example https://ca.example:8443", "%q is not an https URL without a path", c.URL)
	}
	for field, one := range map[string]struct{ length, low time.Duration }{
		"console.idle": {time.Duration(c.Idle), time.Minute}, "console.lifetime": {time.Duration(c.Lifetime), 5 * time.Minute},
	} {
		if one.length < one.low || one.length > 24*time.Hour {
			doc.Refuse(field, "leave it out for the default", "%s is not between %s and 24h", one.length, one.low)
		}
	}
	switch {
	case c.Login.Issuer == "" && c.Login.ClientID != "":
		doc.Refuse("console.login.issuer", "name one of oidc", "a client needs a provider")
	case c.Login.Issuer != "" && !slices.ContainsFunc(issuers, func(o OIDCConfig) bool { return o.Issuer == c.Login.Issuer }):
		doc.Refuse("console.login.issuer", "add it to oidc", "%q is none of oidc", c.Login.Issuer)
	case c.Login.Issuer != "" && c.Login.ClientID == "":
		doc.Refuse("console.login.client_id", "register the console at the provider, with "+c.URL+console.Callback, "a login needs a client")
	}
}

func (c *Config) resolveConsolePaths(dir string) {
	paths := []*string{&c.Console.Login.ClientSecretFile}
	for i := range c.OIDC {
		paths = append(paths, &c.OIDC[i].CAFile)
	}
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}

// issuer is the provider as the oidc room takes it.
func (o OIDCConfig) issuer() (oidc.Issuer, error) {
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2: true,
	}
	if o.CAFile != "" {
		text, err := os.ReadFile(o.CAFile)
		if err != nil {
			return oidc.Issuer{}, fmt.Errorf("reading the roots of the provider %s: %w", o.Issuer, err)
		}
		transport.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(text) {
			return oidc.Issuer{}, fmt.Errorf("reading the roots of the provider %s: %s holds no certificate", o.Issuer, o.CAFile)
		}
	}
	return oidc.Issuer{URL: o.Issuer, Audiences: o.Audiences, Algorithms: o.Algorithms, Client: &http.Client{Transport: transport}}, nil
}

// secret reads the client's secret each time, so that it can be replaced while the service runs.
func (l LoginConfig) secret() func() (string, error) {
	if l.ClientSecretFile == "" {
		return nil
	}
	return func() (string, error) { return readSecret(l.ClientSecretFile) }
}
