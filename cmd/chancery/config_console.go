package main

import (
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
	"github.com/chancery-ca/chancery/strictyaml"
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
}

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
