package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/strictyaml"
	"github.com/chancery-ca/chancery/web"
)

// Config is the configuration of `serve` and of the operator's commands: one YAML file, whose scalar fields can be overridden by
// environment variables named CHANCERY_ and the field's path in capitals (CHANCERY_HSM_PIN_FILE). It holds no secrets but names files
// that do; the database URL may be given in place, for development.
type Config struct {
	// Replica names this process among those that share the database. It must be unique among living replicas and stay the same over
	// restarts. Default: the host name.
	Replica string `yaml:"replica" env:"REPLICA"`
	// Database is where everything is kept.
	Database DatabaseConfig `yaml:"database" envPrefix:"DATABASE_"`
	// HSM says where the authorities' keys are used, and which token holds them, where there is one.
	HSM KeysConfig `yaml:"hsm" envPrefix:"HSM_"`
	// Tokens are the tokens that hold the authorities' keys, where there are several: each authority's record says in which its key is.
	Tokens []NamedToken `yaml:"tokens"`
	// Compliance is what keys and their tokens must be.
	Compliance []ComplianceConfig `yaml:"compliance"`
	// Authorities are the names of the authorities whose keys are opened. The first is the default issuer.
	Authorities []string `yaml:"authorities" env:"AUTHORITIES"`
	// OCSP says for which authorities OCSP requests are answered, and with which key. Default: for none.
	OCSP []OCSPConfig `yaml:"ocsp"`
	// Policies says where the profiles are.
	Policies PoliciesConfig `yaml:"policies" envPrefix:"POLICIES_"`
	// CAA is about the records by which owners of public names choose their authorities.
	CAA CAAConfig `yaml:"caa" envPrefix:"CAA_"`
	// Namespaces are the teams' shares of the name space. Those that stand here are changed here alone, at the start of a replica; others
	// can be set while the service runs (chancery namespace set).
	Namespaces []NamespaceConfig `yaml:"namespaces"`
	// Listen holds the addresses listened on.
	Listen ListenConfig `yaml:"listen" envPrefix:"LISTEN_"`
	// TLS is about the API's own certificate.
	TLS TLSConfig `yaml:"tls" envPrefix:"TLS_"`
	// Identities are the rules by which callers come in without an API token; the first that fits counts.
	Identities []IdentityConfig `yaml:"identities"`
	// Clients says which client certificates are looked at.
	Clients ClientsConfig `yaml:"clients" envPrefix:"CLIENTS_"`
	// Proxies names the proxies whose headers count.
	Proxies ProxiesConfig `yaml:"proxies" envPrefix:"PROXIES_"`
	// Limits bound what a caller can ask for.
	Limits LimitsConfig `yaml:"limits" envPrefix:"LIMITS_"`
	// Revocation says how many certificates are revoked by one order.
	Revocation RevocationConfig `yaml:"revocation" envPrefix:"REVOCATION_"`
	// CRLs says which CRLs the authorities make, and where they are put.
	CRLs CRLsConfig `yaml:"crls" envPrefix:"CRLS_"`
	// Transparency says which certificate transparency logs there are.
	Transparency TransparencyConfig `yaml:"transparency" envPrefix:"TRANSPARENCY_"`
	// Archive says what becomes of months whose certificates have all ended.
	Archive ArchiveConfig `yaml:"archive" envPrefix:"ARCHIVE_"`
	// OIDC are the OpenID Connect providers whose word is taken for who somebody is.
	OIDC []OIDCConfig `yaml:"oidc"`
	// Console is about the pages for people.
	Console ConsoleConfig `yaml:"console" envPrefix:"CONSOLE_"`
	// Orders says what others must approve, of what cannot be undone.
	Orders OrdersConfig `yaml:"orders" envPrefix:"ORDERS_"`
	// Delivery says who gets the audit log, and who is told of what waits.
	Delivery DeliveryConfig `yaml:"delivery" envPrefix:"DELIVERY_"`
	// Audit says who signs the checkpoints of the audit log, and who witnesses them.
	Audit AuditConfig `yaml:"audit" envPrefix:"AUDIT_"`
	// Log is about the log on standard error.
	Log LogConfig `yaml:"log" envPrefix:"LOG_"`
}

// DatabaseConfig is where everything is kept. One of URL and URLFile is required.
type DatabaseConfig struct {
	// URL is a Postgres connection URL.
	URL string `yaml:"url" env:"URL"`
	// URLFile is a file that holds the URL, for URLs with a password.
	URLFile string `yaml:"url_file" env:"URL_FILE"`
	// MaxConnections is the size of the connection pool; 2 to 500. Default: 16.
	MaxConnections int `yaml:"max_connections" env:"MAX_CONNECTIONS"`
	// MaxClockSkew is how far this machine's clock may be off the database's: 1s to 1h. Beyond it nothing is issued. Default: 30s.
	MaxClockSkew strictyaml.Duration `yaml:"max_clock_skew" env:"MAX_CLOCK_SKEW"`
	// SynchronousStandbys is how many standbys must have each commit before it is acknowledged, so that a failover loses nothing: 0 to 10.
	// A server that waits for fewer (synchronous_standby_names, synchronous_commit) is refused, at start and after every failover.
	// Default: 0, one server whose disk is what lasts.
	SynchronousStandbys int `yaml:"synchronous_standbys" env:"SYNCHRONOUS_STANDBYS"`
	// Unsafe permits a Postgres that may lose what it acknowledged (fsync off). For tests alone.
	Unsafe bool `yaml:"unsafe" env:"UNSAFE"`
}

// PoliciesConfig says where the profiles are.
type PoliciesConfig struct {
	// Directory holds profiles, one *.yaml each. Default: the profiles that come with the program.
	Directory string `yaml:"directory" env:"DIRECTORY"`
	// KeyLists are files of keys that nobody may have certified, as `chancery policy blocklist build` makes them.
	KeyLists []string `yaml:"key_lists" env:"KEY_LISTS"`
	// Activation says who must agree before other policies rule.
	Activation ActivationConfig `yaml:"activation" envPrefix:"ACTIVATION_"`
}

// ActivationConfig says who must agree before other policies rule. All replicas must have the same.
type ActivationConfig struct {
	// Approvals is how many approvers, besides whoever proposes, must agree: 0 to 10. Default: 0, what is reloaded rules at once.
	Approvals int `yaml:"approvals" env:"APPROVALS"`
	// Signed asks that each approval be signed by the approver's own key (chancery approver key add).
	Signed bool `yaml:"signed" env:"SIGNED"`
}

// RevocationConfig says how many certificates are revoked by one order. All replicas must have the same.
type RevocationConfig struct {
	// ApproveAbove is how many certificates one person may revoke by one order: for more, another must approve. Default: 0, any number.
	ApproveAbove int `yaml:"approve_above" env:"APPROVE_ABOVE"`
	// Signed asks that each approval be signed by the approver's own key (chancery approver key add).
	Signed bool `yaml:"signed" env:"SIGNED"`
	// LotsPerSecond bounds how fast such an order is carried out, in lots of 500 certificates: 1 to 1000. Unless keys are compromised, it
	// also rests after each lot for as long as that took, five seconds at most, so that issuance has half of the database's time. Default: 10.
	LotsPerSecond int `yaml:"lots_per_second" env:"LOTS_PER_SECOND"`
}

// NamespaceConfig is a team's share of the name space.
type NamespaceConfig struct {
	// Name names the namespace: lower-case letters, digits and hyphens.
	Name string `yaml:"name"`
	// DNS holds domains: each owns itself and everything under it.
	DNS []string `yaml:"dns"`
	// IP holds prefixes such as 10.1.0.0/16.
	IP []string `yaml:"ip"`
	// Email holds mail domains.
	Email []string `yaml:"email"`
	// URI holds URI prefixes such as spiffe://example.org.
	URI []string `yaml:"uri"`
	// Subjects holds the organisations that may stand in a subject's O. "*" is any.
	Subjects []string `yaml:"subjects"`
	// Profiles that may be used. Default: every one that is not restricted.
	Profiles []string `yaml:"profiles"`
	// Quotas bound the certificates that it gets. Default: none.
	Quotas []QuotaConfig `yaml:"quotas"`
	// Rates bound how fast it may ask each replica. Default: none.
	Rates []RateConfig `yaml:"rates"`
}

// QuotaConfig bounds certificates: at most so many in any span of a length.
type QuotaConfig struct {
	// Profile is the profile under which they are counted. Default: all together.
	Profile string `yaml:"profile"`
	// Certificates is how many; 0 means none.
	Certificates int `yaml:"certificates"`
	// Per is the length of the span, such as 24h; whole seconds, at most 366d.
	Per strictyaml.Duration `yaml:"per"`
}

// RateConfig bounds requests: so many in a span on average, and so many at once.
type RateConfig struct {
	// Profile is the profile under which they are counted. Default: all together.
	Profile string `yaml:"profile"`
	// Requests is how many.
	Requests int `yaml:"requests"`
	// Per is the length of the span, such as 1m; whole seconds, at most 366d.
	Per strictyaml.Duration `yaml:"per"`
}

// ListenConfig holds the addresses listened on, host:port.
type ListenConfig struct {
	// API is for HTTPS. Default: 127.0.0.1:8443.
	API string `yaml:"api" env:"API"`
	// Distribution is for plain HTTP: certificates, chains, CRLs, OCSP. Default: 127.0.0.1:8080.
	Distribution string `yaml:"distribution" env:"DISTRIBUTION"`
	// Operations is for health and metrics; keep it on loopback. Default: 127.0.0.1:8081.
	Operations string `yaml:"operations" env:"OPERATIONS"`
	// Local is the path of a Unix socket for callers of this machine, whom identities let in by their user. Default: none.
	Local string `yaml:"local" env:"LOCAL"`
}

// TLSConfig is about the API's own certificate, which the default authority issues at start and renews.
type TLSConfig struct {
	// Names are the DNS names and IP addresses that clients reach the API at. Default: localhost, 127.0.0.1, ::1.
	Names []string `yaml:"names" env:"NAMES"`
}

// LimitsConfig bounds what a caller can ask for.
type LimitsConfig struct {
	// Body is the largest request body: octets, or with KiB or MiB; who asks for a certificate has 160KiB at most. Default: 1MiB.
	Body string `yaml:"body" env:"BODY"`
	// RequestsPerSecond bounds each credential: API token, client certificate, person; 0 means no bound.
	RequestsPerSecond int `yaml:"requests_per_second" env:"REQUESTS_PER_SECOND"`
	// TokenLife is how long an API token lasts at most: 1h to 10y. Default: 366d.
	TokenLife strictyaml.Duration `yaml:"token_life" env:"TOKEN_LIFE"`
}

// LogConfig is about the log on standard error.
type LogConfig struct {
	// Level is debug, info, warn or error. Default: info.
	Level string `yaml:"level" env:"LEVEL"`
	// Format is json or text. Default: json.
	Format string `yaml:"format" env:"FORMAT"`
}

// defaultConfig is what holds where file and environment are silent.
func defaultConfig() Config {
	return Config{
		Replica:    hostName(),
		Revocation: RevocationConfig{LotsPerSecond: ca.DefaultLotsPerSecond},
		Database:   DatabaseConfig{MaxConnections: 16, MaxClockSkew: strictyaml.Duration(30 * time.Second)},
		HSM:        KeysConfig{Isolation: isolationNone, HSMConfig: HSMConfig{Sessions: 8}},
		Listen:     ListenConfig{API: "127.0.0.1:8443", Distribution: "127.0.0.1:8080", Operations: "127.0.0.1:8081"},
		Clients:    ClientsConfig{Mode: clientsOff},
		CAA:        CAAConfig{Timeout: "10s"},
		CRLs:       CRLsConfig{S3: S3Config{Region: defaultRegion}},
		TLS:        TLSConfig{Names: []string{"localhost", "127.0.0.1", "::1"}},
		Limits:     LimitsConfig{Body: "1MiB", TokenLife: strictyaml.Duration(ca.MaxTokenLife)},
		Archive:    ArchiveConfig{After: defaultArchiveAfter},
		Console:    defaultConsole(),
		Delivery:   DeliveryConfig{Expiring: strictyaml.Duration(defaultExpiring), GiveUp: strictyaml.Duration(defaultGiveUp)},
		Log:        LogConfig{Level: "info", Format: "json"},
	}
}

func hostName() string {
	host, err := os.Hostname()
	if err != nil {
		return "chancery"
	}
	return host
}

// loadConfig reads, overrides and validates a configuration as a whole. Its errors name file and line of everything that is wrong.
func loadConfig(path string, environ []string) (Config, error) {
	data, unfit, err := readOwn(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, fmt.Errorf("reading the configuration: %w (--config names another file)", err)
	}
	if err != nil {
		return Config{}, fmt.Errorf("reading the configuration: %w", err)
	}
	c, err := parseConfig(path, data, environ)
	// A URL that is not in the file came from the environment.
	if err == nil && unfit != nil && holdsPassword(c.Database.URL) && strings.Contains(string(data), c.Database.URL) {
		return Config{}, fmt.Errorf("reading the configuration: %w", unfit)
	}
	return c, err
}

func parseConfig(path string, data []byte, environ []string) (Config, error) {
	c := defaultConfig()
	doc := strictyaml.Decode(path, data, &c)
	if err := doc.Err(); err != nil {
		return Config{}, err
	}
	if err := c.override(environ); err != nil {
		return Config{}, err
	}
	c.validate(doc)
	if err := doc.Err(); err != nil {
		return Config{}, err
	}
	c.resolvePaths(filepath.Dir(path))
	return c, nil
}

// resolvePaths makes relative paths relative to the file that they stand in.
func (c *Config) resolvePaths(dir string) {
	for _, p := range []*string{&c.Database.URLFile, &c.HSM.Socket, &c.Policies.Directory, &c.Archive.Directory} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	for i, list := range c.Policies.KeyLists {
		if !filepath.IsAbs(list) {
			c.Policies.KeyLists[i] = filepath.Join(dir, list)
		}
	}
	for i, o := range c.OCSP {
		if o.PublicKey != "" && !filepath.IsAbs(o.PublicKey) {
			c.OCSP[i].PublicKey = filepath.Join(dir, o.PublicKey)
		}
	}
	c.resolveConsolePaths(dir)
	c.HSM.resolvePaths(dir)
	c.Transparency.resolvePaths(dir)
	c.CRLs.resolvePaths(dir)
	c.resolveIdentityPaths(dir)
	c.Delivery.resolvePaths(dir)
	c.Audit.resolvePaths(dir)
	for i := range c.Tokens {
		c.Tokens[i].resolvePaths(dir)
	}
}

var namespaceName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func (c *Config) validate(doc *strictyaml.Document) {
	within := func(field string, n, low, high int) {
		if n < low || n > high {
			doc.Refuse(field, "", "%d is not between %d and %d", n, low, high)
		}
	}
	if c.Replica == "" || len(c.Replica) > 100 {
		doc.Refuse("replica", "give a short name that no other replica has", "the replica needs a name of at most 100 octets")
	}
	if (c.Database.URL == "") == (c.Database.URLFile == "") {
		doc.Refuse("database", "give url, or url_file for a URL with a password", "exactly one of url and url_file is needed")
	}
	within("policies.activation.approvals", c.Policies.Activation.Approvals, 0, 10)
	within("revocation.approve_above", c.Revocation.ApproveAbove, 0, 1_000_000_000)
	within("revocation.lots_per_second", c.Revocation.LotsPerSecond, 1, 1000)
	within("database.max_connections", c.Database.MaxConnections, 2, 500)
	if skew := time.Duration(c.Database.MaxClockSkew); skew < time.Second || skew > time.Hour {
		doc.Refuse("database.max_clock_skew", "leave it out for 30s", "%s is not between 1s and 1h", skew)
	}
	within("database.synchronous_standbys", c.Database.SynchronousStandbys, 0, 10)
	if c.Database.SynchronousStandbys > 0 && c.Database.Unsafe {
		doc.Refuse("database.unsafe", "leave one of the two out", "a database that may lose what it acknowledged cannot have it on standbys")
	}
	c.validateTokens(doc)
	c.validateCompliance(doc)
	if len(c.Authorities) == 0 {
		doc.Refuse("authorities", "name those added with `chancery authority add`", "at least one authority is needed")
	}
	for i, name := range c.Authorities {
		if slices.Contains(c.Authorities[:i], name) {
			doc.Refuse(fmt.Sprintf("authorities[%d]", i), "", "%q stands here twice", name)
		}
	}
	c.validateOCSP(doc)
	c.validateOIDC(doc)
	c.validateAudit(doc)
	c.CAA.validate(doc)
	validateNamespaces(doc, c.Namespaces)
	for field, address := range map[string]string{
		"listen.api": c.Listen.API, "listen.distribution": c.Listen.Distribution,
		"listen.operations": c.Listen.Operations,
	} {
		if _, port, err := net.SplitHostPort(address); err != nil || port == "" {
			doc.Refuse(field, "write host:port, for example 127.0.0.1:8443", "%q is not an address", address)
		}
	}
	c.validateIdentities(doc)
	c.Transparency.validate(doc)
	c.CRLs.validate(doc, c.Authorities)
	c.Archive.validate(doc)
	c.Delivery.validate(doc)
	c.Orders.validate(doc)
	if len(c.TLS.Names) == 0 {
		doc.Refuse("tls.names", "name what clients connect to", "at least one DNS name or IP address is needed")
	}
	for i, name := range c.TLS.Names {
		own := ca.NewServiceNamespace(TLSConfig{Names: []string{name}}.serviceName())
		if name == "*" || own.Validate() != nil {
			doc.Refuse(fmt.Sprintf("tls.names[%d]", i), "write for example ca.example or 192.0.2.1",
				"%q is neither a DNS name nor an IP address", name)
		}
	}
	if _, err := c.Limits.bodyOctets(); err != nil {
		doc.Refuse("limits.body", "write for example 1MiB", "%v", err)
	}
	within("limits.requests_per_second", c.Limits.RequestsPerSecond, 0, 1_000_000)
	if life := c.Limits.tokenLife(); life < time.Hour || life > 3660*24*time.Hour {
		doc.Refuse("limits.token_life", "leave it out for 366d", "%s is not between 1h and 10y", c.Limits.TokenLife)
	}
	if _, err := c.Log.level(); err != nil {
		doc.Refuse("log.level", "use debug, info, warn or error", "%q is not a level", c.Log.Level)
	}
	if c.Log.Format != "json" && c.Log.Format != "text" {
		doc.Refuse("log.format", "use json or text", "%q is not a format", c.Log.Format)
	}
}

// validateNamespaces reports what is wrong with each of a document's namespaces, and with all together.
func validateNamespaces(doc *strictyaml.Document, all []NamespaceConfig) {
	for i, n := range all {
		field := fmt.Sprintf("namespaces[%d]", i)
		for _, other := range all[:i] {
			if other.Name == n.Name {
				doc.Refuse(field+".name", "", "namespace %q stands here twice", n.Name)
			}
		}
		n.validate(doc, field+".")
	}
}

// validate reports what is wrong with a namespace, at fields that begin with a path.
func (n NamespaceConfig) validate(doc *strictyaml.Document, path string) {
	if !namespaceName.MatchString(n.Name) || n.Name == ca.ServiceNamespace {
		doc.Refuse(path+"name", "use lower-case letters, digits and hyphens", "%q cannot be a namespace's name", n.Name)
	}
	for j, prefix := range n.IP {
		if _, err := netip.ParsePrefix(prefix); err != nil {
			doc.Refuse(fmt.Sprintf("%sip[%d]", path, j), "write a prefix such as 10.1.0.0/16", "%q is not a prefix of addresses", prefix)
		}
	}
	if err := n.namespace().Validate(); err != nil {
		doc.Refuse(strings.TrimSuffix(path, "."), "", "%v", err)
	}
}

func (n NamespaceConfig) namespace() access.Namespace {
	namespace := access.Namespace{Name: n.Name, DNS: n.DNS, Email: n.Email, URI: n.URI, Subjects: n.Subjects, Profiles: n.Profiles}
	for _, text := range n.IP {
		if prefix, err := netip.ParsePrefix(text); err == nil { // validate has refused any other
			namespace.IP = append(namespace.IP, prefix)
		}
	}
	for _, q := range n.Quotas {
		namespace.Quotas = append(namespace.Quotas, access.Quota{Profile: q.Profile, Certificates: q.Certificates, Per: time.Duration(q.Per)})
	}
	for _, r := range n.Rates {
		namespace.Rates = append(namespace.Rates, access.Rate{Profile: r.Profile, Requests: r.Requests, Per: time.Duration(r.Per)})
	}
	return namespace
}

// fileNamespaces are the configured namespaces.
func (c Config) fileNamespaces() (all []access.Namespace) {
	for _, n := range c.Namespaces {
		all = append(all, n.namespace())
	}
	return all
}

// namespaces are the configured namespaces and the service's own.
func (c Config) namespaces() map[string]access.Namespace {
	all := map[string]access.Namespace{ca.ServiceNamespace: ca.NewServiceNamespace(c.TLS.serviceName())}
	for _, n := range c.Namespaces {
		all[n.Name] = n.namespace()
	}
	return all
}

func (t TLSConfig) serviceName() ca.ServiceName {
	var n ca.ServiceName
	for _, name := range t.Names {
		if ip, err := netip.ParseAddr(name); err == nil {
			n.IP = append(n.IP, ip)
		} else {
			n.DNS = append(n.DNS, strings.ToLower(name))
		}
	}
	return n
}

// databaseURL is the URL in place or in its file.
func (d DatabaseConfig) databaseURL() (string, error) {
	if d.URL != "" {
		return d.URL, fitSecretFiles(d.URL)
	}
	data, unfit, err := readOwn(d.URLFile)
	if err != nil {
		return "", fmt.Errorf("reading the database URL: %w", err)
	}
	url := strings.TrimSpace(string(data))
	if unfit != nil && holdsPassword(url) {
		return "", fmt.Errorf("reading the database URL: %w", unfit)
	}
	return url, fitSecretFiles(url)
}

var bodySize = regexp.MustCompile(`^([0-9]{1,9})(|KiB|MiB)$`)

func (l LimitsConfig) bodyOctets() (int64, error) {
	form := bodySize.FindStringSubmatch(l.Body)
	if form == nil {
		return 0, fmt.Errorf("%q is not a size", l.Body)
	}
	n, err := strconv.ParseInt(form[1], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a size", l.Body)
	}
	n *= map[string]int64{"": 1, "KiB": 1 << 10, "MiB": 1 << 20}[form[2]]
	if n < 16<<10 || n > 64<<20 {
		return 0, fmt.Errorf("%q is not between 16KiB and 64MiB", l.Body)
	}
	return n, nil
}

// rateLimit is the bound on one API token: twice the rate at once, so that a client that starts is not turned away.
func (l LimitsConfig) rateLimit() web.RateLimit {
	return web.RateLimit{PerSecond: float64(l.RequestsPerSecond), Burst: 2 * l.RequestsPerSecond}
}

func (l LimitsConfig) tokenLife() time.Duration { return time.Duration(l.TokenLife) }

func (l LogConfig) level() (level slog.Level, err error) {
	err = level.UnmarshalText([]byte(l.Level))
	return level, err
}
