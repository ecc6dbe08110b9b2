package web

import (
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// RateLimit is how fast one actor may ask: so many requests a second on average, and Burst at once. A PerSecond of 0 is no limit.
type RateLimit struct {
	PerSecond float64
	Burst     int
}

// DefaultRateLimit is far above what one client of a healthy service reaches. It stops a loop that has lost its senses.
func DefaultRateLimit() RateLimit { return RateLimit{PerSecond: 5000, Burst: 10000} }

// manyActors is how many actors are remembered before those at rest are forgotten.
const manyActors = 10_000

// rates keeps one bucket of tokens for each actor.
type rates struct {
	limit RateLimit
	now   func() time.Time

	mu    sync.Mutex
	byID  map[string]*rate.Limiter
	prune int // how many actors there may be before those at rest are forgotten
}

func newRates(limit RateLimit, now func() time.Time) *rates {
	return &rates{limit: limit, now: now, byID: map[string]*rate.Limiter{}, prune: manyActors}
}

// wait is 0 when the actor may ask now, and otherwise how long it should wait. Being turned away costs the actor nothing.
func (r *rates) wait(actor string) time.Duration {
	if r.limit.PerSecond <= 0 || actor == "" {
		return 0
	}
	now := r.now()
	bucket := r.bucket(actor, now)
	if bucket.AllowN(now, 1) {
		return 0
	}
	missing := math.Max(0, 1-bucket.TokensAt(now))
	return time.Duration(math.Ceil(missing / r.limit.PerSecond * float64(time.Second)))
}

func (r *rates) bucket(actor string, now time.Time) *rate.Limiter {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b := r.byID[actor]; b != nil {
		return b
	}
	if len(r.byID) >= r.prune {
		for id, b := range r.byID {
			if b.TokensAt(now) >= float64(b.Burst()) { // a full bucket is as good as a new one
				delete(r.byID, id)
			}
		}
		r.prune = max(manyActors, 2*len(r.byID)) // so that a crowd of busy actors is not walked through for every newcomer
	}
	b := rate.NewLimiter(rate.Limit(r.limit.PerSecond), max(1, r.limit.Burst))
	r.byID[actor] = b
	return b
}
