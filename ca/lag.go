package ca

import (
	"slices"
	"sync"
	"time"
)

// lags are the revocations made here that no CRL made here shows yet: how long they wait is what clients wait.
type lags struct {
	mu      sync.Mutex
	waiting map[[2]string][]lag // by authority and scope, in order of time
}

// lag is one revocation, or the many of one lot.
type lag struct {
	at    time.Time
	count int
}

func newLags() *lags { return &lags{waiting: map[[2]string][]lag{}} }

// revoked begins the wait of revocations that are durable now.
func (l *lags) revoked(authority, scope string, count int, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := [2]string{authority, scope}
	l.waiting[key] = append(l.waiting[key], lag{at, count})
}

// elsewhere ends the wait of revocations that another replica's CRL shows. When it came to be this replica does not know, so nothing is
// told of them.
func (l *lags) elsewhere(authority, scope string, thisUpdate time.Time) {
	l.published(authority, scope, thisUpdate)
}

// published ends the wait of the revocations that were durable when a CRL's contents were read, and returns them.
func (l *lags) published(authority, scope string, read time.Time) []lag {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := [2]string{authority, scope}
	all := l.waiting[key]
	n, _ := slices.BinarySearchFunc(all, read, func(one lag, read time.Time) int { return one.at.Compare(read) })
	ended := slices.Clone(all[:n])
	l.waiting[key] = slices.Clone(all[n:])
	if n == len(all) {
		delete(l.waiting, key)
	}
	return ended
}

// tellLags tells how long revocations waited for the CRL that was made now, of what was read at a moment.
func (c *CA) tellLags(authority, scope string, read time.Time) {
	now := c.now()
	for _, one := range c.lags.published(authority, scope, read) {
		c.metrics.RevocationsPublished(authority, scope, one.count, now.Sub(one.at))
	}
}
