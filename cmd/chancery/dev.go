package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ceremony"
	"github.com/chancery-ca/chancery/client"
	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/storage"
	"github.com/chancery-ca/chancery/storage/postgres"
)

const (
	devIssuer    = "issuing-1"
	devRoot      = "root-1"
	devNamespace = "dev"
	devLabel     = "chancery-dev"

	devResponderLabel = devIssuer + "-ocsp"

	devConsoleRole = access.Revoker // whom the link to the console signs in: a first certificate is looked at, and revoked

	devLogLabel  = "audit-log"
	devLogOrigin = "dev.example/audit-log"
)

type devOptions struct {
	listen, distribution, operations string
	once, verbose                    bool
}

func (a *app) devCommand() *cobra.Command {
	var o devOptions
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run everything on this machine: token, database, ceremony, service",
		Long: `Run everything on this machine, for trying and developing.

Makes a private SoftHSM token and a private Postgres cluster under $CHANCERY_HOME (default: ./.chancery), runs a ceremony that makes a
root and an issuing authority, serves, and prints the URLs, an API token for each role, and a first request to paste. Started again, it
finds everything as it was. This is no setting for production: keys are in software, and everything runs as one user.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.dev(cmd.Context(), o) },
	}
	cmd.Flags().StringVar(&o.listen, "listen", "", "address of the API (default 127.0.0.1:8443, or that of the last run)")
	cmd.Flags().StringVar(&o.distribution, "listen-distribution", "",
		"address of the distribution points (default 127.0.0.1:8080, or that of the last run)")
	cmd.Flags().StringVar(&o.operations, "listen-operations", "", "address for health and metrics (default: any free port of 127.0.0.1)")
	cmd.Flags().BoolVar(&o.once, "once", false, "play the main job once, end to end, and exit")
	cmd.Flags().BoolVarP(&o.verbose, "verbose", "v", false, "show the service's log")
	return cmd
}

// dev reads from top to bottom as what a first day with Chancery consists of.
func (a *app) dev(ctx context.Context, o devOptions) (err error) {
	home, err := a.home()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(home, 0o755); err != nil {
		return fmt.Errorf("making CHANCERY_HOME: %w", err)
	}
	unlock, err := lockHome(home)
	if err != nil {
		return err
	}
	defer unlock()
	d, err := readDevFile(home)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.Distribution = distributionIn(home)
	case err != nil:
		return err
	}
	d.Issuer, d.CABundle = devIssuer, filepath.Join(home, "root.pem")

	// Ports are bound before the ceremony: the URLs that it writes into certificates must stay true.
	listeners, err := d.bind(o)
	if err != nil {
		return err
	}
	defer listeners.close()
	var steps []devStep
	say := func(step, format string, args ...any) {
		steps = append(steps, devStep{step, fmt.Sprintf(format, args...)})
		fmt.Fprintf(a.Stderr, "  %-12s %s\n", step, fmt.Sprintf(format, args...))
	}

	cluster, err := startCluster(ctx, home)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Stop(context.WithoutCancel(ctx), postgres.Fast)) }()
	d.DatabaseURL = cluster.URL(postgres.Owner, postgres.Database)
	if _, err := storage.Migrate(ctx, d.DatabaseURL); err != nil {
		return err
	}
	if err := storage.GrantService(ctx, d.DatabaseURL, postgres.Service); err != nil {
		return err
	}
	say("database", "Postgres %s", filepath.Join(home, "postgres"))

	operations, err := openJournal(filepath.Join(home, journalName))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, operations.Close()) }()
	if err := a.devToken(ctx, home, &d.PKCS11, operations); err != nil {
		return err
	}
	say("token", "SoftHSM, label %s", devLabel)
	say("keeper", "a child of this process: it keeps a library's crash out, and is no boundary")

	cfg := d.config(cluster, home, o)
	store, err := openStore(ctx, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	err = errors.Join(a.devHierarchy(ctx, home, d, cfg, store, operations), a.devTokens(ctx, &d, store))
	if err == nil {
		cfg.OCSP, err = a.devResponder(ctx, home, cfg, store, operations)
	}
	if err == nil {
		cfg.Audit, err = a.devLog(ctx, home, cfg, operations)
	}
	store.Close()
	if err != nil {
		return err
	}
	if err := d.write(home); err != nil {
		return err
	}
	say("authorities", "%s (offline), %s", devRoot, devIssuer)

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	played := make(chan error, 1)
	service := *a
	if !o.verbose {
		service.Stderr = io.Discard
		if logFile, err := os.OpenFile(filepath.Join(home, serviceLog), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err == nil {
			defer logFile.Close()
			service.Stderr = logFile
		}
	}
	err = service.serve(ctx, cfg, listeners, nil, func() {
		if !o.once {
			a.greet(ctx, home, d)
			played <- nil
			return
		}
		go func() {
			err := a.playOnce(ctx, d, say)
			if err == nil {
				err = a.print(map[string][]devStep{"steps": steps}, func(io.Writer) {}) // as text they are told already
			}
			played <- err
			stop()
		}()
	})
	if err != nil {
		return o.failed(err, home)
	}
	return <-played
}

// serviceLog is the file in the home that has the service's log, where it is not shown.
const serviceLog = "service.log"

// failed says, of an error of the service, where its log tells more.
func (o devOptions) failed(err error, home string) error {
	if o.verbose { // it was shown
		return err
	}
	return fmt.Errorf("%w\n(the service's log is in %s)", err, filepath.Join(home, serviceLog))
}

// devStep is one step of dev. It is told on standard error, so that standard output is the result's.
type devStep struct {
	Step   string `json:"step"`
	Detail string `json:"detail"`
}

// distributionIn is the address that the certificates of a home say, where there are any: a first run that was interrupted after its
// ceremony has left nothing else of it.
func distributionIn(home string) string {
	bundles, err := readBundles(filepath.Join(home, "ceremony"))
	if err != nil {
		return ""
	}
	at, err := url.Parse(bundles[0].CRLURL)
	if err != nil {
		return ""
	}
	return (&url.URL{Scheme: at.Scheme, Host: at.Host}).String()
}

// bind listens where the flags say, else where the last run did, else on the defaults, and notes the addresses. A flag with port 0 takes
// the last run's port where there was one.
func (d *devFile) bind(o devOptions) (listeners, error) {
	choose := func(flag, last, fallback string) string {
		kept := ""
		if u, err := url.Parse(last); err == nil {
			kept = u.Host
		}
		switch {
		case flag != "" && !(strings.HasSuffix(flag, ":0") && kept != ""):
			return flag
		case kept != "":
			return kept
		}
		return fallback
	}
	before := d.Distribution
	l, err := listen(ListenConfig{
		API: choose(o.listen, d.API, "127.0.0.1:8443"), Distribution: choose(o.distribution, d.Distribution, "127.0.0.1:8080"),
		Operations: choose(o.operations, "", "127.0.0.1:0"),
	})
	if err != nil {
		return l, fmt.Errorf("%w (--listen, --listen-distribution; port 0 takes any free one)", err)
	}
	d.API, d.Distribution = "https://"+l.api.Addr().String(), "http://"+l.distribution.Addr().String()
	d.Operations = "http://" + l.operations.Addr().String()
	if before != "" && before != d.Distribution {
		l.close()
		return listeners{}, fmt.Errorf("this home's certificates say %s, and the address given is %s; use the former, or another CHANCERY_HOME",
			before, d.Distribution)
	}
	return l, nil
}

// config is the configuration that `dev` serves with.
func (d devFile) config(cluster postgres.Cluster, home string, o devOptions) Config {
	c := defaultConfig()
	c.Replica = "dev"
	c.Database.URL = cluster.URL(postgres.Service, postgres.Database)
	c.HSM = KeysConfig{
		Isolation: isolationChild, Socket: filepath.Join(home, "keeper", "keeper.sock"),
		HSMConfig: HSMConfig{Module: d.PKCS11.Module, Token: TokenConfig{Label: devLabel}, PIN: PINConfig{File: d.PKCS11.PINFile}, Sessions: 8},
	}
	c.Authorities = []string{devIssuer}
	c.Namespaces = []NamespaceConfig{{
		Name: devNamespace, DNS: []string{"dev.example", "localhost"}, IP: []string{"127.0.0.0/8", "::1/128"},
		Email: []string{"dev.example"}, Subjects: []string{"*"},
		Profiles: []string{"tls-server", "tls-client", "tls-public", "smime", "code-signing", "ocsp-responder"},
	}}
	if host, _, err := net.SplitHostPort(strings.TrimPrefix(d.API, "https://")); err == nil {
		if ip, err := netip.ParseAddr(host); err == nil && !ip.IsLoopback() && !ip.IsUnspecified() {
			c.TLS.Names = append(c.TLS.Names, host)
		}
	}
	c.Console.URL = d.API
	c.Log = LogConfig{Level: "info", Format: "json"}
	if o.verbose {
		c.Log.Format = "text"
	}
	return c
}

// startCluster starts the private Postgres, making it at the first run.
func startCluster(ctx context.Context, home string) (postgres.Cluster, error) {
	cluster, err := postgres.New(filepath.Join(home, "postgres"))
	if err != nil {
		return cluster, err
	}
	if err := cluster.Init(ctx); err != nil {
		return cluster, err
	}
	return cluster, cluster.Start(ctx)
}

// devToken makes the private token at the first run, and points SoftHSM at it.
func (a *app) devToken(ctx context.Context, home string, t *devToken, observer hsm.Observer) error {
	module, err := hsm.FindSoftHSM()
	if err != nil {
		return err
	}
	dir := filepath.Join(home, "softhsm")
	if t.Conf, err = hsm.WriteSoftHSMConf(dir); err != nil {
		return err
	}
	// SoftHSM has no other way to be told where its tokens are.
	if err := os.Setenv("SOFTHSM2_CONF", t.Conf); err != nil {
		return fmt.Errorf("pointing SoftHSM at its configuration: %w", err)
	}
	t.Module, t.Token, t.PINFile = module, devLabel, filepath.Join(home, "pin")
	soPINFile := filepath.Join(home, "so-pin")
	for _, file := range []string{t.PINFile, soPINFile} {
		if err := a.makePIN(file); err != nil {
			return err
		}
	}
	_, err = hsm.InitToken(ctx, hsm.InitConfig{
		Module: module, Label: devLabel, SOPIN: hsm.PINFromFile(soPINFile), UserPIN: hsm.PINFromFile(t.PINFile), Actor: operator(),
		Observer: observer,
	})
	if errors.Is(err, hsm.ErrTokenExists) {
		return nil
	}
	return err
}

// makePIN writes a random PIN into a file, unless the file is there.
func (a *app) makePIN(file string) error {
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	raw := make([]byte, 18)
	if _, err := io.ReadFull(a.Random, raw); err != nil {
		return fmt.Errorf("making a PIN: %w", err)
	}
	return writeFile(file, []byte(base64.RawURLEncoding.EncodeToString(raw)+"\n"), 0o600)
}

// devHierarchy runs the ceremony at the first run, and registers what it made. What a run that was interrupted has left undone is done by
// the next; what came later, further authorities and newer CRLs of the root, stays.
func (a *app) devHierarchy(ctx context.Context, home string, d devFile, cfg Config, store *storage.Store, observer hsm.Observer) error {
	known, err := store.Authorities(ctx)
	if err != nil {
		return err
	}
	registered := func(name string) bool {
		return slices.ContainsFunc(known, func(r ca.AuthorityRecord) bool { return r.Name == name })
	}
	if !registered(devRoot) || !registered(devIssuer) {
		bundles, err := a.devCeremony(ctx, home, d, cfg, observer)
		if err != nil {
			return err
		}
		for _, b := range bundles {
			if err := a.registrar(store).AddAuthority(ctx, authorityRecord(b)); err != nil {
				return err
			}
		}
	}
	switch _, err := store.CurrentCRL(ctx, devRoot, ca.FullScope, nil); {
	case errors.Is(err, ca.ErrNotFound):
		crl, err := os.ReadFile(filepath.Join(home, "ceremony", devRoot+".crl"))
		if err != nil {
			return fmt.Errorf("reading the root's CRL: %w", err)
		}
		if _, err := a.registrar(store).ImportCRL(ctx, devRoot, crl); err != nil {
			return err
		}
	case err != nil:
		return err
	}
	if _, err := os.Stat(d.CABundle); err == nil {
		return nil
	}
	root, err := os.ReadFile(filepath.Join(home, "ceremony", devRoot+".pem"))
	if err != nil {
		return fmt.Errorf("reading the root: %w", err)
	}
	return writeFile(d.CABundle, root, 0o644)
}

// devResponder makes the key of the OCSP responder, once, and says how OCSP is answered. The hierarchy of an older home offers none.
func (a *app) devResponder(ctx context.Context, home string, cfg Config, store *storage.Store,
	observer hsm.Observer,
) (_ []OCSPConfig, err error) {
	known, err := store.Authorities(ctx)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(known, func(r ca.AuthorityRecord) bool { return r.Name == devIssuer && r.OCSPURL != "" }) {
		return nil, nil
	}
	config := []OCSPConfig{{Authority: devIssuer, PublicKey: filepath.Join(home, devResponderLabel+".pem"), Label: devResponderLabel}}
	return config, a.devKey(ctx, cfg, hsm.ECDSAP256, devResponderLabel, config[0].PublicKey, observer)
}

// devLog makes the key of the audit log, once, and says how its checkpoints are signed.
func (a *app) devLog(ctx context.Context, home string, cfg Config, observer hsm.Observer) (AuditConfig, error) {
	config := AuditConfig{Origin: devLogOrigin, Key: LogKeyConfig{PublicKey: filepath.Join(home, devLogLabel+".pem"), Label: devLogLabel}}
	if err := a.devKey(ctx, cfg, hsm.Ed25519, devLogLabel, config.Key.PublicKey, observer); err != nil {
		return config, err
	}
	public, err := readPublicKey(config.Key.PublicKey)
	if err != nil {
		return config, err
	}
	verifier, err := audit.NewVerifier(config.Origin, public)
	if err != nil {
		return config, err
	}
	return config, writeFile(filepath.Join(home, devLogLabel+".vkey"), []byte(verifier.String()+"\n"), 0o644)
}

// devKey makes a key in the token and writes its public half into a file, once.
func (a *app) devKey(ctx context.Context, cfg Config, algorithm hsm.Algorithm, label, file string, observer hsm.Observer) (err error) {
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	token, err := a.openToken(ctx, cfg.HSM.HSMConfig, operator(), observer)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, token.Close()) }()
	public, err := token.PublicKey(hsm.KeyRef{Label: label}) // of a run that was interrupted here
	if errors.Is(err, hsm.ErrKeyNotFound) {
		_, public, err = token.GenerateKey(ctx, hsm.KeySpec{Algorithm: algorithm, Label: label, Usages: []hsm.Usage{hsm.UseSign}})
	}
	if err != nil {
		return fmt.Errorf("making the key %q: %w", label, err)
	}
	text, err := publicKeyPEM(public)
	if err != nil {
		return err
	}
	return writeFile(file, text, 0o644)
}

// devCeremony makes the root and the issuing authority, or reads what an earlier run made.
func (a *app) devCeremony(ctx context.Context, home string, d devFile, cfg Config, observer hsm.Observer) (_ []ceremony.Bundle, err error) {
	out := filepath.Join(home, "ceremony")
	if bundles, err := readBundles(out); err == nil {
		return bundles, nil
	}
	if _, err := os.Stat(out); err == nil {
		return nil, fmt.Errorf("the first run was interrupted in its ceremony; remove %s and start again", home)
	}
	plan, err := ceremony.ParsePlan("dev-ceremony.yaml", []byte(devPlan(d.Distribution)))
	if err != nil {
		return nil, err
	}
	plan.Output = out
	token, err := a.openToken(ctx, cfg.HSM.HSMConfig, operator(), observer)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, token.Close()) }()
	_, err = ceremony.Run(ctx, plan,
		ceremony.Options{Token: token, Now: a.Now, Random: a.Random, Out: io.Discard, Confirm: func(string) error { return nil }})
	if err != nil {
		return nil, fmt.Errorf("running the ceremony: %w", err)
	}
	return readBundles(out)
}

func readBundles(dir string) (bundles []ceremony.Bundle, err error) {
	for _, name := range []string{devRoot, devIssuer} {
		b, err := ceremony.ReadBundle(filepath.Join(dir, name+".authority.json"))
		if err != nil {
			return nil, err
		}
		bundles = append(bundles, b)
	}
	return bundles, nil
}

// devPlan is the ceremony of `dev`, the same as on hardware but for the token.
func devPlan(distribution string) string {
	return fmt.Sprintf(`ceremony: dev
description: Root and issuing authority for development
output: ceremony
authorities:
  - name: %[1]s
    key: {algorithm: ecdsa-p384, label: %[1]s}
    subject: {common_name: Chancery Development Root, organization: Chancery Development, country: NL}
    validity: 10y
    path_len: 1
    crl: {validity: 360d}
    urls: {crl: "%[3]s/crl/%[1]s.crl", issuer: "%[3]s/ca/%[1]s.cer"}
  - name: %[2]s
    issuer: %[1]s
    key: {algorithm: ecdsa-p256, label: %[2]s}
    subject: {common_name: Chancery Development Issuing 1, organization: Chancery Development, country: NL}
    validity: 5y
    path_len: 0
    crl: {period: 1h, validity: 7d}
    urls: {crl: "%[3]s/crl/%[2]s.crl", issuer: "%[3]s/ca/%[2]s.cer", ocsp: "%[3]s/ocsp/%[2]s"}
`, devRoot, devIssuer, distribution)
}

// devTokens makes an API token for each role, once.
func (a *app) devTokens(ctx context.Context, d *devFile, store *storage.Store) error {
	if d.Tokens == nil {
		d.Tokens = map[string]string{}
	}
	for _, role := range access.Roles() {
		if token := d.Tokens[string(role)]; token != "" {
			if digest, err := access.TokenDigest(token); err == nil {
				if _, err := store.ActorByToken(ctx, digest); err == nil {
					continue
				}
			}
		}
		namespace := access.AllNamespaces
		if role == access.Requester {
			namespace = devNamespace
		}
		token, err := a.createToken(ctx, store, ca.NewAPIToken{
			Name: "dev " + string(role), Namespace: namespace, Roles: []access.Role{role}, Life: 10 * 365 * 24 * time.Hour,
		}, "dev")
		if err != nil {
			return err
		}
		d.Tokens[string(role)] = token
	}
	return nil
}

// greet prints how to use what is running.
func (a *app) greet(ctx context.Context, home string, d devFile) {
	page, program := a.devConsole(ctx, d), programName()
	_ = a.print(d, func(w io.Writer) {
		fmt.Fprintf(w, `
Chancery is running. Stop it with Ctrl-C; start it again and it finds everything as it was.

  console        %s
                 (the link opens it once, as %s; another: %s console login --as ROLE)
  API            %s/api/v1        (reference: %s/api/v1/docs)
  distribution   %s
  health         %s/readyz
  everything     %s

API tokens, one for each role:
`, page, devConsoleRole, program, d.API, d.API, d.Distribution, d.Operations, filepath.Join(home, "dev.json"))
		for _, role := range access.Roles() {
			fmt.Fprintf(w, "  %-12s %s\n", role, d.Tokens[string(role)])
		}
		fmt.Fprintf(w, `
A first certificate. Paste this:

  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout www.key -outform DER -out www.csr \
    -subj /CN=www.dev.example -addext subjectAltName=DNS:www.dev.example
  curl --fail-with-body --cacert %[1]s -o www.pem \
    -H 'Authorization: Bearer %[2]s' \
    -H 'Content-Type: application/pkcs10' -H 'Accept: application/pem-certificate-chain' \
    --data-binary @www.csr '%[3]s/api/v1/certificates?profile=tls-server'
  curl -s %[4]s/crl/%[5]s.crl -o issuing.crl
  openssl verify -crl_check -CAfile %[1]s -untrusted www.pem -CRLfile issuing.crl www.pem

or, without openssl and curl:

  %[6]s request --name www.dev.example

`, d.CABundle, d.Tokens[string(access.Requester)], d.API, d.Distribution, d.Issuer, program)
	})
}

// programName is how the shell of whoever reads it starts this program: after make dev it is in nobody's PATH.
func programName() string {
	self, err := os.Executable()
	if err != nil {
		return "chancery"
	}
	if found, err := exec.LookPath("chancery"); err == nil && found == self {
		return "chancery"
	}
	return self
}

// devConsole is a link to the console, or the page that says how to get one.
func (a *app) devConsole(ctx context.Context, d devFile) string {
	page := d.API + "/console/login"
	c, err := client.New(client.Config{BaseURL: d.API, Token: d.Tokens[string(devConsoleRole)], CAFile: d.CABundle})
	if err != nil {
		return page
	}
	defer c.Close()
	link, err := c.ConsoleLogin(ctx)
	if err != nil {
		return page
	}
	return link.URL
}
