package web

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/chancery-ca/chancery/access"
)

// shares counts the calls that are worked on, by the namespace of whoever calls, so that one team's flood does not take all places.
type shares struct {
	most int // of one namespace

	mu   sync.Mutex
	held map[string]int
}

// newShares gives each namespace at most half of the places.
func newShares(places int) *shares { return &shares{most: max(1, places/2), held: map[string]int{}} }

// enter takes a place, unless the namespace has its share. What it returns gives the place back. Those who run the service itself, and who
// has no namespace, are not counted.
func (s *shares) enter(namespace string) (leave func(), ok bool) {
	if namespace == "" || namespace == access.AllNamespaces {
		return func() {}, true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[namespace] >= s.most {
		return nil, false
	}
	s.held[namespace]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.held[namespace]--; s.held[namespace] == 0 {
			delete(s.held, namespace)
		}
	}, true
}

// limitShare turns a call away when too many of its namespace are being worked on.
func (s *Server) limitShare(ctx huma.Context, next func(huma.Context)) {
	r, w := humachi.Unwrap(ctx)
	leave, ok := s.shares.enter(exchangeOf(r.Context()).actor.Namespace)
	if !ok {
		writeProblem(w, r, newProblem(kindUnavailable, "too many requests of this namespace are being worked on").retryAfter(shortly))
		return
	}
	defer leave()
	next(ctx)
}

// seats are places that are all alike, for so many requests at once: waiting would only move the queue into memory.
type seats chan struct{}

// take takes one, unless there is none. Who has one leaves it.
func (s seats) take() (taken bool) {
	select {
	case s <- struct{}{}:
		return true
	default:
		return false
	}
}

func (s seats) leave() { <-s }

// enter is take for a request. What it returns leaves the seat.
func (s seats) enter(*http.Request) (leave func(), refused *Problem) {
	if !s.take() {
		return nil, tooBusy()
	}
	return s.leave, nil
}

func tooBusy() *Problem {
	return newProblem(kindUnavailable, "too many requests are being worked on").retryAfter(shortly)
}

// aWhile is after how long a call that found no place should come back: those that have one keep it for longer than a single request.
const aWhile = 5 * time.Second

// places are taken by calls that are worked on, so many at once. One namespace, or network, has at most half of them, however long its calls
// last.
type places struct {
	taken  seats
	shares *shares
	of     string // what has a share, in words
}

func newPlaces(most int, of string) *places {
	return &places{taken: make(seats, most), shares: newShares(most), of: of}
}

// enter takes a place, unless there is none. What it returns gives the place back.
func (p *places) enter(whose string) (leave func(), refused *Problem) {
	back, ok := p.shares.enter(whose)
	if !ok {
		return nil, newProblem(kindUnavailable, "as many of these calls as one "+p.of+" may have are being worked on").retryAfter(aWhile)
	}
	if !p.taken.take() {
		back()
		return nil, newProblem(kindUnavailable, "as many of these calls as may be are being worked on").retryAfter(aWhile)
	}
	return func() { p.taken.leave(); back() }, nil
}

// publicPart is the part of the places that calls have which need no credentials.
const publicPart = 8

// hall holds the requests that are worked on. What needs no credentials has a few places of its own, from before its body is read, so that
// who has none, and takes his time, keeps nobody out who has some.
type hall struct {
	taken  seats
	public *places
}

func newHall(most int) *hall {
	return &hall{taken: make(seats, most), public: newPlaces(max(1, most/publicPart), "network")}
}

// enter takes a place, unless there is none. What it returns gives the place back.
func (h *hall) enter(r *http.Request, public bool) (leave func(), refused *Problem) {
	if public {
		return h.public.enter(neighbourhood(exchangeOf(r.Context()).from).String())
	}
	return h.taken.enter(r)
}

// halls are one for who comes over the network, and one for who is on the machine itself: a flood from outside leaves the socket free.
type halls struct{ network, local *hall }

func newHalls(most int) halls { return halls{newHall(most), newHall(most)} }

func (h halls) enter(r *http.Request, public bool) (leave func(), refused *Problem) {
	if isLocal(r.Context()) {
		return h.local.enter(r, public)
	}
	return h.network.enter(r, public)
}

// inPlace has a request be worked on in a place.
func inPlace(enter func(*http.Request) (leave func(), refused *Problem)) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			leave, refused := enter(r)
			if refused != nil {
				writeProblem(w, r, refused)
				return
			}
			defer leave()
			next.ServeHTTP(w, r)
		})
	}
}

// limitInFlight bounds how many requests are worked on at once, where all are alike.
func limitInFlight(most int) func(http.Handler) http.Handler {
	return inPlace(make(seats, most).enter)
}

// takePlace has a call of the API be worked on in a place.
func (s *Server) takePlace(ctx huma.Context, next func(huma.Context)) {
	r, w := humachi.Unwrap(ctx)
	leave, refused := s.calls.enter(r, permissions[ctx.Operation().Method+" "+ctx.Operation().Path] == public)
	if refused != nil {
		writeProblem(w, r, refused)
		return
	}
	defer leave()
	next(ctx)
}

// localKey is where the context of a request says that it came from the machine itself.
type localKey struct{}

func isLocal(ctx context.Context) bool { return ctx.Value(localKey{}) != nil }

// Local is API for who is on the machine itself, with places of its own.
func (s *Server) Local() http.Handler {
	api := s.API()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		api.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), localKey{}, true)))
	})
}
