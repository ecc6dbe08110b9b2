// Package web is HTTP in, HTTP out: the REST API, the distribution of certificates and CRLs, and the operations endpoints, one resource
// per file.
//
// It owns what stands on the wire: paths, media types, statuses, problems, limits. It reads a request strictly, finds out who calls, asks
// the authority, and writes down the answer. It decides nothing about certificates and keeps nothing.
package web

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/policies"
)

// Authority is what the surface asks of the certificate authority. *ca.CA is one.
type Authority interface {
	Admits(ctx context.Context, actor access.Actor, action access.Action) error
	Issue(ctx context.Context, o ca.Order) (ca.Outcome, error)
	Evaluate(ctx context.Context, o ca.Order) (*policies.Decision, error)
	Revoke(ctx context.Context, o ca.RevokeOrder) (ca.Revocation, error)
	Revocations
	Credentials
	Requests(ctx context.Context, actor access.Actor, f ca.WaitingFilter) (page []ca.WaitingRequest, next string, err error)
	Request(ctx context.Context, actor access.Actor, id string) (ca.RequestState, error)
	Approve(ctx context.Context, o ca.ApproveOrder) (ca.RequestState, error)
	Reject(ctx context.Context, o ca.ApproveOrder) (ca.RequestState, error)
	Namespaces(ctx context.Context, actor access.Actor) ([]ca.NamespaceVersion, error)
	NamespaceHistory(ctx context.Context, actor access.Actor, name string) ([]ca.NamespaceVersion, error)
	SetNamespace(ctx context.Context, actor access.Actor, n access.Namespace, after int) (ca.NamespaceVersion, error)
	RemoveNamespace(ctx context.Context, actor access.Actor, name string, after int) (ca.NamespaceVersion, error)
	Certificate(ctx context.Context, actor access.Actor, issuer string, serial []byte) (ca.Certificate, error)
	List(ctx context.Context, actor access.Actor, f ca.Filter) (ca.Page, error)
	ChainOf(ctx context.Context, certificate ca.Certificate) ([][]byte, error)
	Profiles(ctx context.Context, actor access.Actor) ([]*policies.Profile, error)
	Profile(ctx context.Context, actor access.Actor, name string) (*policies.Profile, error)
	PolicyDigest() string
	PolicyHistory(ctx context.Context, actor access.Actor) ([]ca.PolicyActivation, error)
	PolicyProposals(ctx context.Context, actor access.Actor) ([]ca.PolicyProposal, error)
	PolicySet(ctx context.Context, actor access.Actor, digest string) (string, []policies.File, error)
	ReloadPolicies(ctx context.Context, actor access.Actor, comment string) (ca.PolicyChange, error)
	ChangePolicies(ctx context.Context, actor access.Actor, files []policies.File, comment string) (ca.PolicyChange, error)
	DecideOnPolicies(ctx context.Context, actor access.Actor, d ca.PolicyDecision) (ca.PolicyProposal, error)
	Orders(ctx context.Context, actor access.Actor) ([]ca.ActOrder, error)
	Order(ctx context.Context, actor access.Actor, id string) (ca.ActOrder, error)
	DecideOnOrder(ctx context.Context, actor access.Actor, d ca.OrderDecision) (ca.ActOrder, error)
	Authorities(ctx context.Context, actor access.Actor) ([]ca.AuthorityState, error)
	PublicAuthorities(ctx context.Context) ([]ca.AuthorityRecord, error)
	PublicAuthority(ctx context.Context, name string) (ca.AuthorityRecord, error)
	CurrentCRL(ctx context.Context, authority, scope string) (ca.CRLRecord, error)
	OCSP(ctx context.Context, authority string, request []byte) (*ca.OCSPResponse, error)
	CurrentDelta(ctx context.Context, authority, scope string) (ca.CRLRecord, error)
	PublishNow(ctx context.Context, actor access.Actor, authority, scope string) ([]ca.CRLState, error)
	Log
	Events
	OfferLogin(ctx context.Context, actor access.Actor, login [32]byte) (expires time.Time, err error)
	Ready(ctx context.Context) error
}

// Log is what the surface asks of the audit log.
type Log interface {
	Checkpoint(ctx context.Context, actor access.Actor, cosigned int) ([]byte, error)
	Cosign(ctx context.Context, actor access.Actor, signed []byte) (witnesses []string, err error)
	LogKeys(ctx context.Context, actor access.Actor) ([]string, error)
	AuditEntries(ctx context.Context, actor access.Actor, from, to int64) ([]ca.AuditEntry, error)
	ProveInclusion(ctx context.Context, actor access.Actor, index, size int64) (ca.LogProof, error)
	ProveConsistency(ctx context.Context, actor access.Actor, from, to int64) (ca.LogProof, error)
	Receipt(ctx context.Context, actor access.Actor, event string, cosigned int) (audit.Receipt, error)
	Tile(ctx context.Context, actor access.Actor, t audit.Tile) ([]byte, error)
}

var _ Authority = (*ca.CA)(nil)

// Tokens finds out who a bearer token belongs to. The token itself never leaves this package: its digest is looked up.
type Tokens interface {
	// ActorByToken returns an error wrapping ca.ErrNotFound for a token that is unknown, expired or withdrawn.
	ActorByToken(ctx context.Context, digest [32]byte) (access.Actor, error)
}

// Credentials is what the surface asks of the authority about credentials and their use.
type Credentials interface {
	APITokens(ctx context.Context, actor access.Actor) ([]ca.APIToken, error)
	APIToken(ctx context.Context, actor access.Actor, id string) (ca.APIToken, error)
	CreateToken(ctx context.Context, actor access.Actor, n ca.NewAPIToken) (t ca.APIToken, text string, err error)
	RotateToken(ctx context.Context, actor access.Actor, r ca.Rotation) (t ca.APIToken, text string, err error)
	RevokeToken(ctx context.Context, actor access.Actor, id string) (ca.APIToken, error)
	Visit(ctx context.Context, actor access.Actor, from netip.Addr) error
	Strayed(ctx context.Context, actor access.Actor, from netip.Prefix) error
	Guessing(ctx context.Context, from netip.Prefix, failures int) error
}

// Limits of the surface.
const (
	DefaultMaxBody  = 1 << 20 // octets of a request's body
	DefaultInFlight = 512     // requests worked on at once, by each of the API and the distribution

	readHeaderTimeout = 5 * time.Second
	readTimeout       = 30 * time.Second // the whole request, body included
	writeTimeout      = 60 * time.Second // an issuance may take 30 s from its intent on, and waits before it are short
	slowestReading    = 16 << 10         // octets a second that are waited for where an answer takes longer
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 32 << 10
)

// Config is what a Server is made of. Every field that has no default is required.
type Config struct {
	CA     Authority
	Tokens Tokens
	// Bearers know tokens of other kinds in the Authorization header, Ambient what comes without one. Both may be empty.
	Bearers, Ambient []Authenticator
	// Gate is asked first of every request that needs credentials: *access.Unauthenticated for one that gets no further, whatever else it
	// carries. Nil: there is no gate.
	Gate func(*http.Request) error
	// ClientAddr tells where a caller is, through proxies that are trusted. Nil: where the connection comes from.
	ClientAddr func(*http.Request) netip.Addr

	Log       *slog.Logger
	Now       func() time.Time
	NewID     func() string // makes request IDs: unique, no secrets
	Metrics   *Metrics
	Version   string    // of the program, as OpenAPI and /version tell it
	MaxBody   int64     // octets; 0: DefaultMaxBody
	InFlight  int       // 0: DefaultInFlight
	RateLimit RateLimit // the zero value: no limit

	Providers []LoginProvider // that people sign in at who call the API; may be empty

	Pages   Pages  // nil: there are none
	PageURL string // where browsers reach the service, without a path; needed with Pages
}

// Server is the surface: three handlers for three listeners.
type Server struct {
	ca         Authority
	log        *slog.Logger
	now        func() time.Time
	newID      func() string
	metrics    *Metrics
	version    string
	maxBody    int64
	rates      *rates
	shares     *shares
	batches    *places // one for each batch that is read or worked on
	selections *places // one for each order to revoke many that is read or worked on

	bearers, ambient []Authenticator
	gate             func(*http.Request) error
	clientAddr       func(*http.Request) netip.Addr
	guessing         *guessing

	calls    halls   // of the API
	lookups  *places // of the distribution
	inFlight int     // requests worked on at once, by each listener and of OCSP

	api          *chi.Mux
	distribution *chi.Mux
	operations   *chi.Mux

	providers []LoginProvider

	pages   http.Handler // the API with the pages beside it; nil: there are none
	pageURL string
}

// New makes a Server of a configuration. Its only error is a configuration that lacks something.
func New(cfg Config) (*Server, error) {
	if cfg.CA == nil || cfg.Tokens == nil || cfg.Log == nil || cfg.Now == nil || cfg.NewID == nil || cfg.Metrics == nil {
		return nil, errors.New("web: the configuration lacks an authority, tokens, log, clock, identifiers or metrics")
	}
	s := &Server{
		ca: cfg.CA, log: cfg.Log, now: cfg.Now, newID: cfg.NewID, metrics: cfg.Metrics, version: cfg.Version,
		bearers: append([]Authenticator{tokenAuthenticator{cfg.Tokens}}, cfg.Bearers...), ambient: cfg.Ambient,
		gate: cfg.Gate, clientAddr: cfg.ClientAddr, guessing: newGuessing(cfg.Now),
		providers: append([]LoginProvider{}, cfg.Providers...), // never null
		maxBody:   cfg.MaxBody, rates: newRates(cfg.RateLimit, cfg.Now), batches: newPlaces(batchesAtOnce, "namespace"),
		selections: newPlaces(selectionsAtOnce, "namespace"),
	}
	if s.gate == nil {
		s.gate = func(*http.Request) error { return nil }
	}
	if s.clientAddr == nil {
		s.clientAddr = remoteAddr
	}
	if s.maxBody == 0 {
		s.maxBody = DefaultMaxBody
	}
	inFlight := cfg.InFlight
	if inFlight == 0 {
		inFlight = DefaultInFlight
	}
	s.shares, s.calls, s.inFlight = newShares(inFlight), newHalls(inFlight), inFlight
	if err := s.routeAPI(); err != nil {
		return nil, err
	}
	if cfg.Pages != nil {
		s.pageURL, s.pages = cfg.PageURL, s.withPages(cfg.Pages, inFlight)
	}
	s.routeDistribution(inFlight)
	s.routeOperations()
	return s, nil
}

// API is the REST API and, where there are any, the pages, for the TLS listener.
func (s *Server) API() http.Handler {
	if s.pages == nil {
		return s.api
	}
	return s.pages
}

// Distribution serves certificates, chains, CRLs and OCSP answers to everybody, for the plain HTTP listener.
func (s *Server) Distribution() http.Handler { return s.withOCSP(s.distribution, s.inFlight) }

// Operations serves liveness, readiness and metrics, for a listener that only operators reach.
func (s *Server) Operations() http.Handler { return s.operations }

func (s *Server) routeAPI() error {
	s.api = s.newRouter(apiHeaders)
	s.api.Use(refuseIllegible, foldTilePath, middleware.GetHead)
	api := s.newOpenAPI(s.api)
	api.UseMiddleware(s.takePlace, s.authenticate, s.limitShare, s.limitRate, s.checkQuery, s.negotiateAnswer, s.readBody)
	for _, register := range []func(huma.API) error{
		s.routeIssue, s.routeBatch, s.routeCertificate, s.routeCertificates, s.routeRevoke, s.routeRevokeByKey,
		s.routeRevokeMany, s.routeJobs, s.routeJob, s.routeApproveJob, s.routeRejectJob, s.routeCancelJob,
		s.routeRequests, s.routeRequest, s.routeApprove, s.routeReject,
		s.routeNamespaces, s.routeNamespace, s.routeSetNamespace, s.routeRemoveNamespace, s.routeProfiles, s.routeProfile, s.routeEvaluate,
		s.routePolicies, s.routePolicySet, s.routeChangePolicies, s.routeReloadPolicies, s.routeApprovePolicies, s.routeRejectPolicies,
		s.routeAuthorities, s.routeAuthority, s.routePublishCRL, s.routeAudit, s.routeEvents,
		s.routeTokens, s.routeToken, s.routeCreateToken, s.routeRotateToken, s.routeRevokeToken,
		s.routeOfferLogin, s.routeProviders, s.routeWhoAmI,
		s.routeOrders, s.routeOrder, s.routeApproveOrder, s.routeRejectOrder,
	} {
		if err := register(api); err != nil {
			return err
		}
	}
	return s.routeDocs(api)
}

// newRouter makes a router with what every request goes through: an identifier, headers, the log, and answers that are problems to what has
// no route.
func (s *Server) newRouter(headers func(http.Header)) *chi.Mux {
	r := chi.NewRouter()
	r.Use(s.identify(headers), s.observe, s.recoverPanics)
	r.NotFound(func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, r, newProblem(kindNotFound, "there is nothing at this path"))
	})
	r.MethodNotAllowed(s.methodNotAllowed)
	return r
}

// Legible tells whether the path of a request is text. Nothing here has a name with a control character in it, or with octets that are not
// UTF-8, and a database cannot even be asked for one.
func Legible(r *http.Request) bool { return utf8.ValidString(r.URL.Path) && printable(r.URL.Path) }

func refuseIllegible(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !Legible(r) {
			writeProblem(w, r, newProblem(kindNotFound, "there is nothing at this path"))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// NewHTTPServer makes the http.Server for a handler, with every limit set. The caller gives it a TLSConfig where it speaks TLS.
func NewHTTPServer(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug), // broken handshakes and the like: the peer's affair
	}
}

// TLSConfig is the TLS of the API: version 1.3 alone, the certificate of the moment, and no resumption, so that each connection is
// checked anew.
func TLSConfig(certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		GetCertificate:         certificate,
		NextProtos:             []string{"h2", "http/1.1"},
		SessionTicketsDisabled: true,
	}
}

// remoteAddr is where the connection comes from; the zero value for a Unix socket.
func remoteAddr(r *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr().Unmap()
}

// pattern is a path of the API, version and all.
func pattern(path string) string { return "/api/v1" + path }

var errUnlisted = errors.New("web: a route stands in no row of the table of permissions")

func unlisted(method, path string) error { return fmt.Errorf("%w: %s %s", errUnlisted, method, path) }
