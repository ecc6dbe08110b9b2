package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/blocklist"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/delivery"
	"github.com/chancery-ca/chancery/identity"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/oidc"
	"github.com/chancery-ca/chancery/policies"
	"github.com/chancery-ca/chancery/storage"
	"github.com/chancery-ca/chancery/web"
)

const (
	drainTime  = 35 * time.Second // longer than an issuance may take after its intent
	renewCheck = 10 * time.Second
	renewAgain = 10 * time.Minute // after a failure, while the certificate of now is still good
	crlsEvery  = time.Minute      // so often CRLs about client certificates of others are read
)

func (a *app) serveCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "serve --config chancery.yaml",
		Short: "Serve the API, the distribution points and the operations listener",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(path, a.Environ)
			if err != nil {
				return err
			}
			listeners, err := listen(cfg.Listen)
			if err != nil {
				return err
			}
			hangups := make(chan os.Signal, 1)
			signal.Notify(hangups, syscall.SIGHUP)
			defer signal.Stop(hangups)
			return a.serve(cmd.Context(), cfg, listeners, hangups, func() {})
		},
	}
	configFlag(cmd, &path)
	return cmd
}

func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", "chancery.yaml", "configuration file")
}

// listeners are the bound addresses.
type listeners struct {
	api, distribution, operations net.Listener
	local                         net.Listener // nil: there is no socket for local callers
}

func listen(c ListenConfig) (l listeners, err error) {
	for _, one := range []struct {
		to      *net.Listener
		address string
		flag    string
	}{
		{&l.api, c.API, "listen.api"},
		{&l.distribution, c.Distribution, "listen.distribution"},
		{&l.operations, c.Operations, "listen.operations"},
	} {
		bound, err := net.Listen("tcp", one.address)
		if err != nil {
			l.close()
			return listeners{}, fmt.Errorf("listening for %s: %w; is another chancery running here? choose another address", one.flag, err)
		}
		*one.to = web.LimitConnections(bound, web.MaxConnections)
	}
	if c.Local != "" {
		local, err := listenLocal(c.Local)
		if err != nil {
			l.close()
			return listeners{}, fmt.Errorf("listening for listen.local: %w", err)
		}
		l.local = web.LimitConnections(local, web.MaxConnections) // every user of the machine may open some
	}
	return l, nil
}

// listenLocal binds a Unix socket. Everybody on the machine may connect: who comes in is said by the rules of the configuration, by the
// user that the kernel names; the directory's mode can keep others away. A socket that nobody listens on, of a process that died, is taken
// over.
func listenLocal(path string) (net.Listener, error) {
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("somebody listens on %s already; is another chancery running here?", path)
	}
	if at, err := os.Lstat(path); err == nil && at.Mode().Type() == os.ModeSocket {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l listeners) close() {
	for _, one := range []net.Listener{l.api, l.distribution, l.operations, l.local} {
		if one != nil {
			_ = one.Close()
		}
	}
}

// service is everything that serves, opened.
type service struct {
	cfg     Config
	env     Env
	log     *slog.Logger
	store   *storage.Store
	keys    keyring
	lists   *blocklist.Lists
	ca      *ca.CA
	web     *web.Server
	metrics *web.Metrics
	replica ca.Replica
	tls     atomic.Pointer[tls.Certificate] // nil until there is one
	tried   time.Time                       // when its renewal failed last
	clients *identity.Certificates          // nil: client certificates are not looked at

	providers *oidc.Providers

	deliveries []delivery.Delivery
}

// serve opens everything, settles what an earlier run left open, and serves until the context ends. Then it takes no new requests, ends
// those that it has begun, and closes what it opened. At each of hangups the policies are read again. ready is called once requests are
// answered.
func (a *app) serve(ctx context.Context, cfg Config, l listeners, hangups <-chan os.Signal, ready func()) (err error) {
	defer l.close()
	defer tuneMemory(a.Env)()
	s, err := a.open(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()

	if err := s.ca.CheckClock(ctx); err != nil {
		return err
	}
	if err := s.ca.Join(ctx); err != nil { // before anything of an earlier run is touched: it must not live
		return err
	}
	if _, err := s.ca.Recover(ctx); err != nil {
		return fmt.Errorf("settling what an earlier run left open: %w", err)
	}
	if err := s.ca.AdoptLogKey(ctx); err != nil {
		return err
	}
	if err := s.ca.AddCRLScopes(ctx); err != nil {
		return err
	}
	s.ca.PublishDue(ctx) // before the first certificate: whoever gets one finds a CRL
	// Before the first request: from here on Postgres may go away. One that suffered there is made anew, by the loops.
	if err := s.ca.LearnPublished(ctx); err != nil {
		s.log.WarnContext(ctx, "reading what is published failed; trying again", "error", err)
	}
	// What this replica's configuration changes for all comes last: a start that fails before has changed none of it.
	if err := s.ca.AdoptPolicies(ctx); err != nil {
		return err
	}
	if err := s.ca.AdoptNamespaces(ctx, cfg.fileNamespaces()); err != nil {
		return err
	}
	// Without certificates of its own the service cannot be asked for others, and publishes all the same.
	if err := s.ca.RenewResponders(ctx); err != nil {
		s.log.ErrorContext(ctx, "an OCSP responder has no certificate, or an old one; trying again", "error", err)
	}
	if err := s.renewTLS(ctx); err != nil {
		s.log.ErrorContext(ctx, "the API has no TLS certificate, and cannot be reached but by listen.local; trying again", "error", err)
	}
	if err := s.record(ctx, audit.ServiceStarted); err != nil {
		return err
	}

	// The loops end after the servers: a revocation made by the last request is still published.
	loops, stopLoops := context.WithCancel(context.WithoutCancel(ctx))
	group, serving := errgroup.WithContext(ctx)
	background := errgroup.Group{}
	ran := make(chan error, 1)
	background.Go(func() error { ran <- s.ca.Run(loops, s.chores()...); return nil })
	background.Go(func() error { s.reloadAt(loops, hangups); return nil })
	background.Go(func() error { s.deliver(loops); return nil })
	defer func() { stopLoops(); err = errors.Join(err, background.Wait()) }()

	tlsConfig := web.TLSConfig(func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		if own := s.tls.Load(); own != nil {
			return own, nil
		}
		return nil, errUnreachable
	})
	s.askForCertificates(tlsConfig)
	serve := func(name string, server *http.Server, listener net.Listener) {
		group.Go(func() error { return s.serveUntil(serving, name, server, listener) })
	}
	if l.local != nil {
		server := web.NewHTTPServer(s.web.Local(), s.log)
		server.ConnContext = identity.PeerContext
		serve("local", server, l.local)
	}
	for _, one := range []struct {
		name     string
		listener net.Listener
		handler  http.Handler
	}{
		{"api", tls.NewListener(l.api, tlsConfig), s.web.API()},
		{"distribution", l.distribution, s.web.Distribution()},
		{"operations", l.operations, s.web.Operations()},
	} {
		server := web.NewHTTPServer(one.handler, s.log)
		serve(one.name, server, one.listener)
	}
	group.Go(func() error { // a replica whose name another has taken stops
		select {
		case <-serving.Done():
			return nil
		case err := <-ran:
			return err
		}
	})
	s.log.InfoContext(ctx, "serving", "api", l.api.Addr().String(), "distribution", l.distribution.Addr().String(),
		"operations", l.operations.Addr().String(), "replica", s.replica.Name, "policies", s.ca.PolicyDigest(), "version", version())
	ready()
	err = group.Wait()
	s.log.Info("stopping: requests begun have been answered")
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return errors.Join(err, s.record(ending, audit.ServiceStopped))
}

// serveUntil serves one of the listeners until the context ends. Who was cut off at the end, as he would not take his answer, is no
// failure: a stranger who reads slowly could make one otherwise.
func (s *service) serveUntil(ctx context.Context, name string, server *http.Server, l net.Listener) error {
	err := web.ServeUntil(ctx, server, l, drainTime)
	if errors.Is(err, web.ErrCutOff) {
		s.log.WarnContext(ctx, "stopping: somebody was cut off", "listener", name, "error", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// open joins the rooms: store, policies, keys, authorities, the CA, the web.
func (a *app) open(ctx context.Context, cfg Config) (_ *service, err error) {
	s := &service{cfg: cfg, env: a.Env, log: newLogger(a.Stderr, cfg.Log), replica: ca.Replica{Name: cfg.Replica, Run: uuid.NewString()}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.store, err = openStore(ctx, cfg, s.log, func(c *storage.Config) { c.Alone = a.WritesAlone }); err != nil {
		return nil, err
	}
	if err := s.store.EnsurePartitions(ctx, a.Now()); err != nil {
		return nil, err
	}
	set, err := s.loadPolicies(ctx)
	if err != nil {
		return nil, err
	}
	if s.deliveries, err = cfg.Delivery.deliveries(a.Now); err != nil {
		return nil, err
	}
	caaRecords, err := cfg.CAA.open(set)
	if err != nil {
		return nil, err
	}
	if err := s.openLists(); err != nil {
		return nil, err
	}
	metrics := web.NewMetrics(func(profile string) bool { return s.ca.HasProfile(profile) })
	s.metrics = metrics
	metrics.PartitionedUntil(s.store.CoveredUntil())
	timestamps, err := openLogs(cfg.Transparency, set, a.Now, metrics)
	if err != nil {
		return nil, err
	}
	records, err := s.configuredAuthorities(ctx)
	if err != nil {
		return nil, err
	}
	if s.keys, err = a.openKeys(ctx, cfg, records, serviceObserver{metrics, s.store, s.log}, s.log); err != nil {
		return nil, err
	}
	authorities, err := s.openAuthorities(ctx, records)
	if err != nil {
		return nil, err
	}
	responders, err := s.openResponders(ctx, records)
	if err != nil {
		return nil, err
	}
	logPlan, err := s.openLog(ctx)
	if err != nil {
		return nil, err
	}
	var store ca.Store = s.store
	if a.WrapStore != nil {
		store = a.WrapStore(store)
	}
	mirrors, err := cfg.CRLs.mirrors(a.Env)
	if err != nil {
		return nil, err
	}
	s.ca, err = ca.New(ca.Config{
		Lists: cfg.CRLs.lists(), Mirrors: mirrors, AuditLog: logPlan, Expiring: time.Duration(cfg.Delivery.Expiring),
		Store: store, Authorities: authorities, Policies: set, KeyLists: s.lists, CAA: caaRecords, Namespaces: cfg.namespaces(),
		MaxSkew: time.Duration(cfg.Database.MaxClockSkew), Replica: s.replica, About: ca.About{Version: version(), Host: hostName()}, Now: a.Now,
		Random: a.Random, NewID: newID, Log: s.log, Metrics: metrics, Transparency: timestamps, OCSP: responders,
		TokenLife: cfg.Limits.tokenLife(),
		Revocations: ca.RevocationPlan{
			ApproveAbove: cfg.Revocation.ApproveAbove, Signed: cfg.Revocation.Signed,
			LotsPerSecond: float64(cfg.Revocation.LotsPerSecond),
		},
		PolicyPlan: ca.PolicyPlan{
			Read: func() (*policies.Set, error) { return loadPolicies(cfg.Policies) }, Approvals: cfg.Policies.Activation.Approvals,
			Signed: cfg.Policies.Activation.Signed, Shipped: cfg.Policies.Directory == "",
		},
	})
	if err != nil {
		return nil, err
	}
	body, err := cfg.Limits.bodyOctets()
	if err != nil {
		return nil, err
	}
	if err := s.openProviders(); err != nil {
		return nil, err
	}
	pages, err := s.openConsole()
	if err != nil {
		return nil, err
	}
	certificates := map[string]*x509.Certificate{}
	for _, opened := range authorities {
		certificates[opened.Name] = opened.Certificate
	}
	if s.clients, err = openClients(ctx, cfg, s.ca, certificates, a.Now, s.tellRefusedCRL); err != nil {
		return nil, err
	}
	ambient := []web.Authenticator{identity.Peers{Rules: cfg.rules(), Persons: cfg.Orders.Persons}}
	if s.clients != nil {
		ambient = append(ambient, s.clients)
	}
	logins, err := cfg.loginProviders()
	if err != nil {
		return nil, err
	}
	s.web, err = web.New(web.Config{
		Providers: logins,
		Bearers:   []web.Authenticator{bearers{s.providers}}, Pages: pages, PageURL: cfg.Console.URL,
		Ambient: ambient, Gate: s.gate(), ClientAddr: cfg.Proxies.proxies().ClientAddr,
		CA: reachable{s.ca, s}, Tokens: s.store, Log: s.log, Now: a.Now, NewID: newID, MaxBody: body, RateLimit: cfg.Limits.rateLimit(),
		Metrics: metrics, Version: version(),
	})
	return s, err
}

// configuredAuthorities are the records of the authorities that the configuration names, in its order.
func (s *service) configuredAuthorities(ctx context.Context) ([]ca.AuthorityRecord, error) {
	records, err := s.store.Authorities(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading the authorities: %w", err)
	}
	if err := s.cfg.CRLs.checkSubordinates(records); err != nil {
		return nil, err
	}
	known := map[string]ca.AuthorityRecord{}
	for _, r := range records {
		known[r.Name] = r
	}
	var configured []ca.AuthorityRecord
	for _, name := range s.cfg.Authorities {
		record, ok := known[name]
		if !ok {
			return nil, fmt.Errorf("authority %q is configured but not known; add it with `chancery authority add`", name)
		}
		if !record.Online {
			return nil, fmt.Errorf("authority %q is an offline one: its key signs in ceremonies alone; remove it from the configuration's "+
				"authorities", name)
		}
		configured = append(configured, record)
	}
	return configured, nil
}

// openAuthorities opens the key of each configured authority. A key that the token does not vouch for, that is not the certificate's, or
// that is not what the configuration requires, ends the start.
func (s *service) openAuthorities(ctx context.Context, records []ca.AuthorityRecord) ([]*ca.Authority, error) {
	var opened []*ca.Authority
	for _, record := range records {
		authority, err := s.openAuthority(ctx, record)
		if err != nil {
			return nil, fmt.Errorf("opening authority %q: %w", record.Name, err)
		}
		opened = append(opened, authority)
	}
	return opened, nil
}

func (s *service) openAuthority(ctx context.Context, record ca.AuthorityRecord) (*ca.Authority, error) {
	certificate, err := parseCertificate(record.Certificate)
	if err != nil {
		return nil, err
	}
	key, err := s.keys.signer(ctx, record, certificate.PublicKey)
	if err != nil {
		return nil, err
	}
	if s.env.WrapKey != nil {
		key = s.env.WrapKey(record.Name, key)
	}
	issuer, err := issuance.NewIssuer(certificate, key)
	if err != nil {
		return nil, err
	}
	return ca.OpenAuthority(record, issuer)
}

func (s *service) close() error {
	var err error
	if s.providers != nil {
		s.providers.Close()
	}
	if s.keys != nil {
		err = s.keys.Close()
	}
	if s.lists != nil {
		err = errors.Join(err, s.lists.Close())
	}
	if s.store != nil {
		s.store.Close()
	}
	return err
}

// renewTLS replaces the service's own certificate.
func (s *service) renewTLS(ctx context.Context) error {
	certificate, err := s.ca.IssueServiceCertificate(ctx, s.cfg.TLS.serviceName())
	if err != nil {
		return err
	}
	s.tls.Store(certificate)
	s.log.InfoContext(ctx, "the service has a new TLS certificate", "serial", certificate.Leaf.SerialNumber.Text(16), "not_after",
		certificate.Leaf.NotAfter)
	return nil
}

var errUnreachable = errors.New("the API has no TLS certificate that is valid")

// reachable is the CA of a service whose API has a certificate: else no request is to be sent there.
type reachable struct {
	*ca.CA
	s *service
}

// Ready tells whether requests can be served.
func (r reachable) Ready(ctx context.Context) error {
	if err := r.CA.Ready(ctx); err != nil {
		return err
	}
	if own := r.s.tls.Load(); own == nil || r.s.env.Now().After(own.Leaf.NotAfter) {
		return errUnreachable
	}
	return nil
}

// chores are what this process does again and again for itself.
func (s *service) chores() []ca.Chore {
	return []ca.Chore{
		{
			Every: refreshEvery, Level: slog.LevelError, Failed: "a list of keys cannot be read; the one before it stays in use",
			Do: s.refreshLists,
		},
		{
			Every: crlsEvery, Level: slog.LevelError,
			Failed: "a CRL about client certificates was not taken; once the one before has ended, nobody comes in by it", Do: s.refreshCRLs,
		},
		{
			Every: renewCheck, Level: slog.LevelError, Failed: "getting the service's certificate failed; trying again", Once: true,
			Do: s.renewTLSInTime,
		},
		{Every: archiveEvery, Level: slog.LevelError, Failed: "archiving failed; trying again", Do: s.archiveDue},
		{
			Every: partitionsEvery, Level: slog.LevelError, Failed: "issuance will stop for want of partitions; trying again",
			Do: s.watchPartitions,
		},
	}
}

// askForCertificates has callers show a client certificate, where that is configured. The handshake proves that they hold its key; whether
// it is good is judged at each request, so that a revocation ends what goes on over an open connection too.
func (s *service) askForCertificates(c *tls.Config) {
	if s.clients == nil {
		return
	}
	c.ClientAuth, c.ClientCAs = tls.RequestClientCert, x509.NewCertPool()
	if s.cfg.Clients.Mode == clientsRequired && s.cfg.Proxies.CertificateHeader == "" {
		c.ClientAuth = tls.RequireAnyClientCert
	}
	for _, anchor := range s.clients.Anchors { // the names that the handshake tells, by which browsers choose a certificate
		for _, certificate := range anchor.Certificates {
			c.ClientCAs.AddCert(certificate)
		}
	}
}

// gate is what every caller passes first, where client certificates are required: local callers, whom the kernel vouches for, do not.
func (s *service) gate() func(*http.Request) error {
	if s.cfg.Clients.Mode != clientsRequired {
		return nil
	}
	return func(r *http.Request) error {
		if identity.IsLocal(r) {
			return nil
		}
		return s.clients.Require(r)
	}
}

// refreshCRLs reads the lists of others again.
func (s *service) refreshCRLs(ctx context.Context) error {
	if s.clients == nil {
		return nil
	}
	var failed []error
	for _, anchor := range s.clients.Anchors {
		if anchor.Lists == nil {
			continue
		}
		for _, r := range anchor.Lists.Refresh(ctx) {
			s.metrics.ClientCRLRefused(anchor.Name, string(r.Reason))
			failed = append(failed, r)
		}
	}
	return errors.Join(failed...)
}

// tellRefusedCRL tells of a list that was not taken when the service started.
func (s *service) tellRefusedCRL(trust string, r *identity.RefusedList) {
	s.metrics.ClientCRLRefused(trust, string(r.Reason))
	s.log.Error("a CRL about client certificates was not taken", "trust", trust, "error", r)
}

// renewTLSInTime renews the service's certificate when two thirds of its life have passed, if the authority lasts longer than it, or when
// there is none.
func (s *service) renewTLSInTime(ctx context.Context) error {
	own := s.tls.Load()
	if own == nil {
		return s.renewTLS(ctx)
	}
	leaf, now := own.Leaf, s.env.Now()
	if s.ca.FreshServiceCertificate(leaf) || now.Before(leaf.NotAfter) && now.Before(s.tried.Add(renewAgain)) {
		return nil
	}
	if err := s.renewTLS(ctx); err != nil {
		s.tried = now
		return fmt.Errorf("that of now ends at %s: %w", leaf.NotAfter.Format(time.RFC3339), err)
	}
	return nil
}

// reloadAt reads the configured policies again at each signal. What is wrong with them is told in the log, and those that rule go on.
func (s *service) reloadAt(ctx context.Context, hangups <-chan os.Signal) {
	local := access.Actor{
		ID: access.Service, Name: "signal", Person: access.Service, Namespace: access.AllNamespaces,
		Roles: []access.Role{access.PolicyAdmin},
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			switch change, err := s.ca.ReloadPolicies(ctx, local, "reloaded by SIGHUP"); {
			case err != nil:
				s.log.ErrorContext(ctx, "the policies were not reloaded; those before go on", "error", err)
			case change.Proposal != nil:
				s.log.InfoContext(ctx, "the policies are proposed and wait for approvals", "digest", change.Digest, "proposal", change.Proposal.ID)
			default:
				s.log.InfoContext(ctx, "the policies are reloaded", "digest", change.Digest, "changed", change.Activation != nil)
			}
		}
	}
}

// record tells the audit log of the service's own doings.
func (s *service) record(ctx context.Context, kinds ...audit.Kind) error {
	var leaves []audit.Leaf
	for _, kind := range kinds {
		leaf, err := audit.New(audit.Event{ID: newID(), Kind: kind, Time: s.env.Now(), Actor: access.Service, Data: map[string]string{
			"replica": s.replica.Name, "run": s.replica.Run, "policy": s.ca.PolicyDigest(), "version": version(),
			"token": strings.Join(s.keys.serials(), ","),
		}})
		if err != nil {
			return err
		}
		leaves = append(leaves, leaf)
	}
	if err := s.store.RecordEvents(ctx, leaves...); err != nil {
		return fmt.Errorf("writing to the audit log: %w", err)
	}
	return nil
}

func openStore(ctx context.Context, cfg Config, log *slog.Logger, change ...func(*storage.Config)) (*storage.Store, error) {
	url, err := cfg.Database.databaseURL()
	if err != nil {
		return nil, err
	}
	c := storage.Config{
		URL: url, MaxConns: cfg.Database.MaxConnections, Unsafe: cfg.Database.Unsafe,
		Standbys: cfg.Database.SynchronousStandbys, Log: log,
	}
	for _, change := range change {
		change(&c)
	}
	return storage.Open(ctx, c)
}

// loadPolicies loads the configured policies at start. Those that ruled before a demand was made do not end it.
func (s *service) loadPolicies(ctx context.Context) (*policies.Set, error) {
	set, why := loadPolicies(s.cfg.Policies)
	var unsound *policies.LoadError
	if !errors.As(why, &unsound) || s.cfg.Policies.Directory == "" {
		return set, why
	}
	files, err := policies.ReadFiles(os.DirFS(s.cfg.Policies.Directory))
	if err != nil {
		return nil, why
	}
	set, unmet, err := policies.LoadRuled(files)
	if err != nil || ca.CheckPolicies(set) != nil {
		return nil, why
	}
	before, err := s.store.PolicyActivations(ctx, set.Digest(), 1)
	if err != nil || len(before) == 0 {
		return nil, errors.Join(why, err)
	}
	ca.TellUnmet(ctx, s.log, set, unmet)
	return set, nil
}

// loadPolicies loads the profiles and checks that the lints which they name exist.
func loadPolicies(c PoliciesConfig) (*policies.Set, error) {
	set, err := policies.Shipped()
	if c.Directory != "" {
		set, err = policies.Load(os.DirFS(c.Directory))
	}
	if err != nil {
		return nil, fmt.Errorf("loading the policies: %w", err)
	}
	if err := ca.CheckPolicies(set); err != nil {
		return nil, fmt.Errorf("loading the policies: %w", err)
	}
	return set, nil
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }
