package ca

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/policies"
)

// LimitedError turns away a request that came too soon after others of its namespace. It says nothing of the request itself.
type LimitedError struct {
	Rate       access.Rate
	RetryAfter time.Duration
}

func (e *LimitedError) Error() string {
	which := "its requests"
	if e.Rate.Profile != "" {
		which = "its requests under profile " + e.Rate.Profile
	}
	return fmt.Sprintf("the namespace may send %d of %s in %s", e.Rate.Requests, which, e.Rate.Per)
}

// ExhaustedError turns away a request because something that it would have to reserve has no room. RetryAfter is when there is some
// again; 0 means that waiting does not help.
type ExhaustedError struct {
	Reservation policies.Reservation
	RetryAfter  time.Duration
}

func (e *ExhaustedError) Error() string { return e.Violation().Message }

// Violation is the refusal in words for the requester.
func (e *ExhaustedError) Violation() policies.Violation {
	r := e.Reservation
	if r.Kind == policies.ReserveKey {
		return policies.Violation{
			Rule: "quota", Field: "subjectPublicKeyInfo", Message: "the key has been certified before, and is certified once", Hint: "make a new key pair",
		}
	}
	v := policies.Violation{
		Rule: "quota", Field: "profile", Message: fmt.Sprintf("the quota of %d certificates (%s) is used up", r.Limit, r.Scope),
		Hint: "ask the operator for a larger quota",
	}
	if e.RetryAfter > 0 {
		v.Hint = fmt.Sprintf("wait %s, or ask the operator for a larger quota", e.RetryAfter)
	}
	return v
}

// rates are the rates of all namespaces, as far as this replica sees their requests: N replicas let through N times as many. Each is kept
// as the moment at which a bucket that drips evenly would be full again (the generic cell rate algorithm).
type rates struct {
	mu   sync.Mutex
	full map[rateKey]time.Time
}

type rateKey struct {
	namespace string
	rate      access.Rate
}

func newRates() *rates { return &rates{full: map[rateKey]time.Time{}} }

// take lets one request through, or tells which rate it exceeds. Being turned away costs nothing.
func (r *rates) take(n access.Namespace, profile string, now time.Time) error {
	if len(n.Rates) == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	next := map[rateKey]time.Time{}
	var limited []*LimitedError
	for _, rate := range n.Rates {
		if rate.Profile != "" && rate.Profile != profile {
			continue
		}
		key := rateKey{n.Name, rate}
		full := r.full[key]
		if full.Before(now) {
			full = now
		}
		full = full.Add(rate.Per / time.Duration(rate.Requests))
		if over := full.Sub(now) - rate.Per; over > 0 {
			limited = append(limited, &LimitedError{Rate: rate, RetryAfter: over})
		}
		next[key] = full
	}
	if len(limited) > 0 {
		return slices.MaxFunc(limited, func(a, b *LimitedError) int { return cmp.Compare(a.RetryAfter, b.RetryAfter) })
	}
	for key, full := range next {
		r.full[key] = full
	}
	r.forget(now)
	return nil
}

// forget drops what is as good as new, now and then.
func (r *rates) forget(now time.Time) {
	const many = 10_000
	if len(r.full) < many {
		return
	}
	for key, full := range r.full {
		if !full.After(now) {
			delete(r.full, key)
		}
	}
}
