package web

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	"github.com/chancery-ca/chancery/access"
)

// exchange is what is found out about a request on its way to the handler.
type exchange struct {
	id        string
	from      netip.Addr // where the caller is; the zero value: unknown
	actor     access.Actor
	mediaType string // of the body
	body      []byte // nobody else holds or changes it
	answer    string // the media type that the caller prefers among those offered
}

type exchangeKey struct{}

// exchangeOf is the exchange that identify began.
func exchangeOf(ctx context.Context) *exchange {
	e, _ := ctx.Value(exchangeKey{}).(*exchange)
	return e
}

func requestID(ctx context.Context) string {
	if e := exchangeOf(ctx); e != nil {
		return e.id
	}
	return ""
}

func instance(ctx context.Context) string { return "urn:chancery:request:" + requestID(ctx) }

// identify begins the exchange. The identifier is always our own: one from outside could be anybody's words in our log.
func (s *Server) identify(headers func(http.Header)) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			answerAtOnce(w, r)
			e := &exchange{id: s.newID(), from: s.clientAddr(r)}
			w.Header().Set("X-Request-Id", e.id)
			w.Header().Set("X-Content-Type-Options", "nosniff")
			headers(w.Header())
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), exchangeKey{}, e)))
		})
	}
}

// answerAtOnce has the answer to a GET go out while a body is still on its way, which means nothing there (RFC 9110, section 9.3.1).
// Otherwise net/http would wait for the body within the handler, and the request would keep its place for as long as its caller likes. The
// connection ends with the answer. HTTP/2 never waits.
func answerAtOnce(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 && r.ContentLength != 0 && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		w.Header().Set("Connection", "close")
	}
}

// apiHeaders go with every answer of the API. None of it is a page but the docs, which set their own policy.
func apiHeaders(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Strict-Transport-Security", "max-age=31536000")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
}

func noHeaders(http.Header) {}

// observe writes one line of log for a request and counts it. Neither credentials nor bodies nor query strings are written.
func (s *Server) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := s.now()
		ww := middleware.NewWrapResponseWriter(w, r.ProtoMajor)
		defer func() {
			status := ww.Status()
			if status == 0 {
				status = http.StatusOK
			}
			e, route, took := exchangeOf(r.Context()), routeOf(r), s.now().Sub(begun)
			s.metrics.served(route, r.Method, status, took)
			s.log.LogAttrs(r.Context(), slog.LevelInfo, "request", slog.String("request", e.id), slog.String("method", r.Method),
				slog.String("route", route), slog.Int("status", status), slog.Duration("took", took), slog.Int("bytes", ww.BytesWritten()),
				slog.String("actor", e.actor.ID), slog.String("remote", r.RemoteAddr), slog.String("from", e.from.String()))
		}()
		next.ServeHTTP(ww, r)
	})
}

// routeOf is the pattern that a request matched. Anything else is one word, so that callers cannot make up labels.
func routeOf(r *http.Request) string {
	if c := chi.RouteContext(r.Context()); c != nil && c.RoutePattern() != "" {
		return c.RoutePattern()
	}
	return "unmatched"
}

// recoverPanics answers 500 and tells the log where the panic came from.
func (s *Server) recoverPanics(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			cause := recover()
			if cause == nil {
				return
			}
			if cause == http.ErrAbortHandler { //nolint:errorlint // net/http compares the value too
				panic(cause)
			}
			s.log.LogAttrs(r.Context(), slog.LevelError, "a request panicked", slog.String("request", requestID(r.Context())),
				slog.Any("panic", cause), slog.String("stack", string(debug.Stack())))
			if ww, ok := w.(middleware.WrapResponseWriter); ok && ww.Status() != 0 {
				panic(http.ErrAbortHandler) // half an answer is out: the caller must see that it is cut off
			}
			writeProblem(w, r, newProblem(kindInternal, "the service's log tells more under this request's identifier"))
		}()
		next.ServeHTTP(w, r)
	})
}

// limitRate bounds how fast one actor may ask.
func (s *Server) limitRate(ctx huma.Context, next func(huma.Context)) {
	r, w := humachi.Unwrap(ctx)
	if wait := s.rates.wait(exchangeOf(r.Context()).actor.ID); wait > 0 {
		writeProblem(w, r, newProblem(kindTooMany, "slow down").retryAfter(wait))
		return
	}
	next(ctx)
}

// drainFactor says how much of a body that is too large is read to be thrown away, as a multiple of the limit. A caller that is still
// sending when the connection closes would see a reset instead of the answer.
const (
	drainFactor = 16
	drainMost   = 64 << 20 // octets
)

// discard reads what is left of a body that may have so many octets, and keeps nothing. Where few may come it reads as much as of others.
func discard(r *http.Request, limit int64) {
	_, _ = io.CopyN(io.Discard, r.Body, min(drainFactor*max(limit, DefaultMaxBody), drainMost))
}

// readBody reads the body of a call that has one, into memory that nobody else holds.
func (s *Server) readBody(ctx huma.Context, next func(huma.Context)) {
	accepted := acceptedBodies(ctx.Operation())
	if len(accepted) == 0 {
		next(ctx)
		return
	}
	r, w := humachi.Unwrap(ctx)
	mediaType, err := bodyType(r.Header.Values("Content-Type"), accepted)
	if err != nil {
		writeProblem(w, r, s.problem(r.Context(), err))
		return
	}
	limit, _ := ctx.Operation().Metadata[maxBodyOf].(int64)
	if limit == 0 {
		limit = s.maxBody
	}
	actor := exchangeOf(r.Context()).actor
	if limit > s.maxBody { // the role is asked for before so much is taken into memory, and not only by the verb
		action := permissions[ctx.Operation().Method+" "+ctx.Operation().Path]
		if err := s.ca.Admits(r.Context(), actor, action); err != nil {
			discard(r, limit)
			writeProblem(w, r, s.problem(r.Context(), err))
			return
		}
	}
	if at, _ := ctx.Operation().Metadata[placesOf].(*places); at != nil {
		leave, refused := at.enter(actor.Namespace)
		if refused != nil {
			discard(r, limit)
			writeProblem(w, r, refused)
			return
		}
		defer leave()
	}
	body, err := wholeBody(r, limit)
	if err != nil {
		writeProblem(w, r, s.problem(r.Context(), err))
		return
	}
	e := exchangeOf(r.Context())
	e.mediaType, e.body = mediaType, body
	next(ctx)
}

func wholeBody(r *http.Request, limit int64) ([]byte, error) {
	var body bytes.Buffer
	_, err := io.Copy(&body, io.LimitReader(r.Body, limit+1))
	var late net.Error
	switch {
	case errors.As(err, &late) && late.Timeout():
		return nil, newProblem(kindTimeout, "the body did not arrive in time").with("Connection", "close")
	case err != nil:
		return nil, newProblem(kindMalformed, "the body ended before its end")
	case int64(body.Len()) > limit:
		discard(r, limit)
		return nil, newProblem(kindTooLarge, "the body is larger than this service reads")
	}
	return body.Bytes(), nil
}

// allowedMethods are the methods that a request's path can be asked with.
func allowedMethods(r *http.Request) []string {
	var allowed []string
	routes, path := chi.RouteContext(r.Context()).Routes, r.URL.Path
	if r.URL.RawPath != "" {
		path = r.URL.RawPath
	}
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
		if !routes.Match(chi.NewRouteContext(), m, path) {
			continue
		}
		allowed = append(allowed, m)
		if m == http.MethodGet { // what can be got can be asked about (RFC 9110, section 9.1)
			allowed = append(allowed, http.MethodHead)
		}
	}
	return allowed
}
