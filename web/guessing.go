package web

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/chancery-ca/chancery/access"
)

// Failures of credentials from one network that are answered as such. Beyond them the answer is 429, and good credentials from the same
// network go on working: they are looked at first, and cost what they always cost. So nobody is locked out by who shares an address.
const (
	failuresPerSecond = 1
	failuresAtOnce    = 20
	guessingLasts     = time.Hour // before the same network is an event again
	maxGuessers       = 1000      // networks that are an event in an hour: the audit log forgets nothing
)

// guessing watches credentials that are not good.
type guessing struct {
	failures *rates

	mu   sync.Mutex
	told map[netip.Prefix]time.Time
}

func newGuessing(now func() time.Time) *guessing {
	return &guessing{
		failures: newRates(RateLimit{PerSecond: failuresPerSecond, Burst: failuresAtOnce}, now),
		told:     map[netip.Prefix]time.Time{},
	}
}

// neighbourhood is what is counted as one source: an IPv4 address, or the 64 bits of IPv6 that one site has.
func neighbourhood(from netip.Addr) netip.Prefix {
	from = from.Unmap()
	bits := 32
	if from.Is6() {
		bits = 64
	}
	network, err := from.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{} // of no address: all of these are one source
	}
	return network
}

// fail counts a failure. It is 0 when the failure may be answered as such, and otherwise how long the caller should wait. tell says
// that this is an event.
func (g *guessing) fail(from netip.Addr, now time.Time) (wait time.Duration, tell bool) {
	network := neighbourhood(from)
	if wait = g.failures.wait(network.String()); wait == 0 {
		return 0, false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if last, known := g.told[network]; known && now.Sub(last) < guessingLasts {
		return wait, false
	}
	if len(g.told) >= maxGuessers {
		maps.DeleteFunc(g.told, func(_ netip.Prefix, at time.Time) bool { return now.Sub(at) >= guessingLasts })
	}
	if len(g.told) >= maxGuessers {
		return wait, false
	}
	g.told[network] = now
	return wait, true
}

// refuse answers to credentials that are missing or not good.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, refused *access.Unauthenticated) {
	s.log.LogAttrs(r.Context(), slog.LevelInfo, "credentials were refused", slog.String("request", requestID(r.Context())),
		slog.Any("error", refused))
	if !refused.Shown {
		s.metrics.Unauthenticated("missing")
		writeProblem(w, r, unauthenticated(refused))
		return
	}
	from := exchangeOf(r.Context()).from
	wait, tell := s.guessing.fail(from, s.now())
	if tell {
		if err := s.ca.Guessing(context.WithoutCancel(r.Context()), neighbourhood(from), failuresAtOnce); err != nil {
			s.log.LogAttrs(r.Context(), slog.LevelError, "guessing could not be recorded", slog.Any("error", err))
		}
	}
	if wait > 0 {
		s.metrics.Unauthenticated("limited")
		writeProblem(w, r, newProblem(kindTooMany, "too many credentials from your address were not good").retryAfter(wait))
		return
	}
	s.metrics.Unauthenticated("refused")
	writeProblem(w, r, unauthenticated(refused))
}
