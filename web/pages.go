package web

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/chancery-ca/chancery/access"
)

// pagesPath is where pages are, beside the API on its listener.
const pagesPath = "/console"

// Pages are what people see in a browser. The package web/console makes them.
type Pages interface {
	// Routes serves everything below /console. Requests have an identifier, are logged, counted and limited before they come here.
	Routes(d Desk) http.Handler
	// Open tells whether a request is for a page that needs no session.
	Open(r *http.Request) bool
}

// Desk is what the surface does for pages, as it does for the API.
type Desk interface {
	// Admit notes who acts, as the API does for its callers. It returns a problem when the actor may not come from there, asks too fast, or
	// cannot be recorded.
	Admit(r *http.Request, actor access.Actor) *Problem
	// Problem turns an error of the authority into what the caller may know of it. The rest goes into the log.
	Problem(ctx context.Context, err error) *Problem
	// NotFound is the problem of what is not there, or not for this caller to see.
	NotFound() *Problem
}

// desk is the Desk of a server.
type desk struct{ s *Server }

func (d desk) Admit(r *http.Request, actor access.Actor) *Problem {
	exchangeOf(r.Context()).actor = actor
	var refused *access.Unauthenticated
	switch err := d.s.admit(r, actor); {
	case errors.As(err, &refused):
		return unauthenticated(refused)
	case err != nil:
		return d.s.problem(r.Context(), err)
	}
	if wait := d.s.rates.wait(actor.ID); wait > 0 {
		return newProblem(kindTooMany, "slow down").retryAfter(wait)
	}
	return nil
}

func (d desk) Problem(ctx context.Context, err error) *Problem {
	return d.s.problem(ctx, err)
}

func (desk) NotFound() *Problem { return newProblem(kindNotFound, notFoundDetail) }

// pageHeaders go with every page: nothing is loaded from elsewhere, no script runs, nobody frames it, and no address is told to other
// sites.
func pageHeaders(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Strict-Transport-Security", "max-age=31536000")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; "+
		"frame-ancestors 'none'")
	h.Set("Referrer-Policy", "same-origin") // with no-referrer, browsers would not say where a form comes from
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
}

// passGate has the gate stand before every page, also before those that sign people in: a session is no way around it.
func (s *Server) passGate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.gate(r); err != nil {
			s.turnAway(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// withPages serves the pages beside the API.
func (s *Server) withPages(pages Pages, inFlight int) http.Handler {
	router := s.newRouter(pageHeaders)
	places := newHalls(inFlight)
	router.Use(inPlace(func(r *http.Request) (func(), *Problem) { return places.enter(r, pages.Open(r)) }), s.passGate)
	router.Mount(pagesPath, pages.Routes(desk{s}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == pagesPath || strings.HasPrefix(r.URL.Path, pagesPath+"/") {
			router.ServeHTTP(w, r)
			return
		}
		s.api.ServeHTTP(w, r)
	})
}
