package web

import (
	"sync"

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

// enter takes a place, unless the namespace has its share. What it returns gives the place back.
func (s *shares) enter(namespace string) (leave func(), ok bool) {
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

// limitShare turns a call away when too many of its namespace are being worked on. Those who run the service itself are not counted.
func (s *Server) limitShare(ctx huma.Context, next func(huma.Context)) {
	r, w := humachi.Unwrap(ctx)
	namespace := exchangeOf(r.Context()).actor.Namespace
	if namespace == "" || namespace == access.AllNamespaces {
		next(ctx)
		return
	}
	leave, ok := s.shares.enter(namespace)
	if !ok {
		writeProblem(w, r, newProblem(kindUnavailable, "too many requests of this namespace are being worked on").retryAfter(shortly))
		return
	}
	defer leave()
	next(ctx)
}
