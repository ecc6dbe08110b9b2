// Package console owns the pages for people: who am I, certificates, requests that wait, authorities, the audit log; and signing in and out of them.
//
// Every page calls the authority's verbs as the person who is signed in, and shows what comes back: it decides nothing, and keeps nothing
// but what a browser holds. Pages are whole without a script, and load nothing from elsewhere.
package console

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/go-chi/chi/v5"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/oidc"
	"github.com/chancery-ca/chancery/web"
)

// Authority is what the pages ask of the certificate authority. *ca.CA is one.
type Authority interface {
	Certificate(ctx context.Context, actor access.Actor, issuer string, serial []byte) (ca.Certificate, error)
	List(ctx context.Context, actor access.Actor, f ca.Filter) (ca.Page, error)
	ChainOf(ctx context.Context, certificate ca.Certificate) ([][]byte, error)
	Revoke(ctx context.Context, o ca.RevokeOrder) (ca.Revocation, error)
	Requests(ctx context.Context, actor access.Actor, f ca.WaitingFilter) (page []ca.WaitingRequest, next string, err error)
	Request(ctx context.Context, actor access.Actor, id string) (ca.RequestState, error)
	Approve(ctx context.Context, o ca.ApproveOrder) (ca.RequestState, error)
	Reject(ctx context.Context, o ca.ApproveOrder) (ca.RequestState, error)
	Authorities(ctx context.Context, actor access.Actor) ([]ca.AuthorityState, error)
	SearchEvents(ctx context.Context, actor access.Actor, f ca.EventFilter) (ca.EventPage, error)
	Event(ctx context.Context, actor access.Actor, id string) (ca.LoggedEvent, error)
	Receipt(ctx context.Context, actor access.Actor, event string, cosigned int) (audit.Receipt, error)
	Log(ctx context.Context, actor access.Actor) (ca.LogView, error)

	OpenSession(ctx context.Context, s ca.Session, secret [32]byte, life time.Duration) error
	OfferedLogin(ctx context.Context, login [32]byte) (access.Actor, error)
	TakeLogin(ctx context.Context, login, secret [32]byte, idle, life time.Duration) (ca.Session, error)
	Session(ctx context.Context, secret [32]byte) (ca.Session, error)
	EndSession(ctx context.Context, s ca.Session, everywhere bool) error
}

var _ Authority = (*ca.CA)(nil)

// Provider signs people in. *oidc.Login is one.
type Provider interface {
	Issuer() string
	Begin(ctx context.Context) (attempt oidc.Attempt, page string, err error)
	Finish(ctx context.Context, a oidc.Attempt, answer url.Values) (access.Actor, error)
	SignOutURL(ctx context.Context, back string) string
}

var _ Provider = (*oidc.Login)(nil)

// Callback is the path of the page that a provider sends browsers back to.
const Callback = "/console/callback"

// Config is what a Console is made of.
type Config struct {
	CA       Authority
	Provider Provider // nil: people sign in by links alone
	URL      string   // where browsers reach the service, without a path
	Idle     time.Duration
	Life     time.Duration // of a session, however much it is used
	Log      *slog.Logger
	Now      func() time.Time
	Random   io.Reader
	Version  string
}

// Console is the pages.
type Console struct {
	Config
	pages pages
}

var _ web.Pages = (*Console)(nil)

// New makes a Console. Its only errors are a configuration that lacks something, and a page that is not sound.
func New(cfg Config) (*Console, error) {
	if cfg.CA == nil || cfg.Log == nil || cfg.Now == nil || cfg.Random == nil || cfg.URL == "" || cfg.Idle <= 0 || cfg.Life <= 0 {
		return nil, errors.New("console: the configuration lacks an authority, log, clock, randomness, URL or the lengths of sessions")
	}
	all, err := readPages()
	if err != nil {
		return nil, err
	}
	return &Console{Config: cfg, pages: all}, nil
}

// maxForm is the largest form, in octets.
const maxForm = 64 << 10

// Routes serves everything below /console.
func (c *Console) Routes(d web.Desk) http.Handler {
	v := &visits{Console: c, desk: d}
	// Whatever changes something must come from a page of ours: browsers say where a request comes from, and each form carries the
	// session's own token besides.
	guard := http.NewCrossOriginProtection()
	guard.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v.refuse(w, r, nil, http.StatusForbidden, "This was not sent from a page of the console", "Open the console and try again.")
	}))
	r := chi.NewRouter()
	r.Use(guard.Handler, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !web.Legible(r) {
				v.problem(w, r, nil, d.NotFound())
				return
			}
			r.Body = http.MaxBytesReader(w, r.Body, maxForm)
			next.ServeHTTP(w, r)
		})
	})
	r.NotFound(func(w http.ResponseWriter, r *http.Request) { v.problem(w, r, nil, d.NotFound()) })
	r.MethodNotAllowed(func(w http.ResponseWriter, r *http.Request) {
		v.refuse(w, r, nil, http.StatusMethodNotAllowed, "This page cannot be asked so", "")
	})

	r.Get("/console.css", serveStyle)
	r.Get("/login", v.login)
	r.Get("/begin", v.begin)
	r.Get("/callback", v.callback)
	r.Get("/enter", v.offered)
	r.Post("/enter", v.enter)
	r.Get("/signed-out", v.signedOut)

	r.Get("/", v.in(v.home))
	r.Post("/logout", v.in(v.logout))
	r.Get("/certificates", v.in(v.certificates))
	r.Get("/certificates/{serial}", v.in(v.certificate))
	r.Get("/certificates/{serial}/revoke", v.in(v.confirmRevoke))
	r.Post("/certificates/{serial}/revoke", v.in(v.revoke))
	r.Get("/requests", v.in(v.requests))
	r.Get("/requests/{id}", v.in(v.request))
	r.Post("/requests/{id}/approve", v.in(v.decide(c.CA.Approve)))
	r.Post("/requests/{id}/reject", v.in(v.decide(c.CA.Reject)))
	r.Get("/authorities", v.in(v.authorities))
	r.Get("/audit", v.in(v.events))
	r.Get("/audit/log", v.in(v.log))
	r.Get("/audit/log/checkpoint", v.in(v.checkpoint))
	r.Get("/audit/events/{event}", v.in(v.event))
	r.Get("/audit/events/{event}/receipt", v.in(v.receipt))
	return r
}

// openPages are those for who is not signed in, by their paths.
var openPages = []string{"/console/console.css", "/console/login", "/console/begin", "/console/callback", "/console/enter", "/console/signed-out"}

// Open implements web.Pages.
func (*Console) Open(r *http.Request) bool { return slices.Contains(openPages, r.URL.Path) }

// visits serves the pages with a desk.
type visits struct {
	*Console
	desk web.Desk
}
