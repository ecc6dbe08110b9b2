package web

import (
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

// aWhile is after how long a call that found no place should come back: those that have one keep it for longer than a single request.
const aWhile = 5 * time.Second

// places are taken by calls that are worked on, so many at once. One namespace has at most half of them, however long its calls last.
type places struct {
	taken  chan struct{}
	shares *shares
}

func newPlaces(most int) *places {
	return &places{taken: make(chan struct{}, most), shares: newShares(most)}
}

// enter takes a place, unless there is none. What it returns gives the place back.
func (p *places) enter(namespace string) (leave func(), refused *Problem) {
	back, ok := p.shares.enter(namespace)
	if !ok {
		return nil, newProblem(kindUnavailable, "as many of these calls as one namespace may have are being worked on").retryAfter(aWhile)
	}
	select {
	case p.taken <- struct{}{}:
		return func() { <-p.taken; back() }, nil
	default:
		back()
		return nil, newProblem(kindUnavailable, "as many of these calls as may be are being worked on").retryAfter(aWhile)
	}
}
