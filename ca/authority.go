package ca

import (
	"context"
	"crypto/x509"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/chancery-ca/chancery/issuance"
)

// keyRest is how long a key that failed is left alone. Every attempt with a broken key leaves an intent to be settled and a serial to be
// revoked; one attempt a second is enough to notice that the key is back.
const keyRest = time.Second

// keyDoubt is after how long a key that failed, and that nobody has tried since, is tried by making a CRL: a replica that says that it is
// not ready is sent no requests, and would not find out that its key is back.
const keyDoubt = 5 * time.Second

// Authority is an authority whose key is open: it can sign.
type Authority struct {
	AuthorityRecord
	Certificate *x509.Certificate
	Issuer      *issuance.Issuer

	above []*x509.Certificate // of the authorities above it
	lists CRLLists
	health
}

// health is that of a key.
type health struct {
	failedAt atomic.Int64 // Unix nanoseconds of the key's last failure, until it signs again or has rested
	told     atomic.Bool  // that it does not sign stands in the log
}

// OpenAuthority joins an authority's record with its issuer. It refuses an issuer of another certificate, and a chain that cannot be read.
func OpenAuthority(r AuthorityRecord, i *issuance.Issuer) (*Authority, error) {
	if string(i.Certificate().Raw) != string(r.Certificate) {
		return nil, fmt.Errorf("opening authority %q: the key was opened for another certificate", r.Name)
	}
	above, err := r.Above()
	if err != nil {
		return nil, err
	}
	return &Authority{AuthorityRecord: r, Certificate: i.Certificate(), Issuer: i, above: above}, nil
}

// failed begins the rest, and tells whether the key had signed until now.
func (h *health) failed(now time.Time) (first bool) { return h.failedAt.Swap(now.UnixNano()) == 0 }

// healthy tells whether the key may be tried. After a failure one caller in each keyRest is let through.
func (h *health) healthy(now time.Time) bool {
	at := h.failedAt.Load()
	if at == 0 {
		return true
	}
	if now.Sub(time.Unix(0, at)).Abs() < keyRest {
		return false
	}
	return h.failedAt.CompareAndSwap(at, now.UnixNano())
}

// doubted tells whether the key failed, and nobody has tried it for a while.
func (h *health) doubted(now time.Time) bool {
	at := h.failedAt.Load()
	return at != 0 && now.Sub(time.Unix(0, at)).Abs() >= keyDoubt
}

// recovered ends the rest: the key has signed.
func (h *health) recovered() { h.failedAt.Store(0) }

// outcome is a certificate with its chain, the root left out: who trusts a root has it.
func (a *Authority) outcome(c Certificate, replayed bool) Outcome {
	chain := [][]byte{c.DER}
	if n := len(a.Chain); n > 1 {
		chain = append(chain, a.Chain[:n-1]...)
	} else {
		chain = append(chain, a.Chain...)
	}
	return Outcome{Certificate: c, Chain: chain, Replayed: replayed}
}

// authority finds an authority that can sign; the empty name is the default.
func (c *CA) authority(name string) (*Authority, error) {
	if name == "" {
		return c.first, nil
	}
	if a := c.authorities[name]; a != nil {
		return a, nil
	}
	return nil, fmt.Errorf("authority %q: %w", name, ErrNotFound)
}

// Ready tells whether requests can be served: the store keeps what it is given, the clock is right, the policies that rule are loaded, and
// the key that issues, that of the default authority, has not just failed. Another key that fails makes no replica unready: where all share
// it, none would be left, and those of old authorities are the least that a service does. Metrics and the log tell of it.
func (c *CA) Ready(ctx context.Context) error {
	if err := c.store.Ping(ctx); err != nil {
		return fmt.Errorf("the store: %w", err)
	}
	if err := c.clock.check(); err != nil {
		return fmt.Errorf("the clock: %w", err)
	}
	if err := c.current(); err != nil {
		return err
	}
	if c.first.failedAt.Load() != 0 {
		return fmt.Errorf("the key of %s: %w", c.first.Name, ErrUnavailable)
	}
	return nil
}

// keysEvery is how often it is looked which keys sign.
const keysEvery = time.Second

// watchKeys tells of each key whether it signed when it was last asked to. That of an OCSP responder that failed, and that nobody has asked
// since, is tried by an answer that nobody gets; that of an authority is, by making a CRL.
func (c *CA) watchKeys(ctx context.Context) error {
	for _, a := range c.authorities {
		c.tellKey(ctx, ForAuthority, a.Name, &a.health)
	}
	for _, r := range c.ocsp.responders {
		if r.key == nil {
			continue
		}
		c.tellKey(ctx, ForOCSP, r.authority.Name, r.health)
		if r.health.doubted(c.now()) {
			if err := c.tryResponder(ctx, r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *CA) tellKey(ctx context.Context, kind, name string, h *health) {
	available := h.failedAt.Load() == 0
	c.metrics.KeyAvailable(kind, name, available)
	switch {
	case h.told.Swap(!available) == !available:
	case available:
		c.log.InfoContext(ctx, "the key signs again", "kind", kind, "name", name)
	default:
		c.log.ErrorContext(ctx, "a key does not sign; trying it again and again", "kind", kind, "name", name)
	}
}
