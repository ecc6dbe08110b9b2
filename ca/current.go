package ca

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	crlFreshness       = 250 * time.Millisecond // how old the cached CRL may be before the store is asked for its number
	directoryFreshness = 2 * time.Second
	learnEvery         = 10 * time.Second // how often what nobody asks for is read all the same
)

// publications are the current CRLs as this replica knows them. They stay served while the store is away.
type publications struct {
	wake chan struct{}
	mu   sync.Mutex
	byID map[[2]string]*publication
}

type publication struct {
	record    CRLRecord
	checkedAt time.Time
	madeAt    time.Time // when this replica last made one
}

func newPublications() *publications {
	return &publications{wake: make(chan struct{}, 1), byID: map[[2]string]*publication{}}
}

// wakeUp makes the publisher look at once. A wake-up that is waiting already is enough.
func (p *publications) wakeUp() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *publications) rested(d CRLDue, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.byID[[2]string{d.Issuer, d.Scope}]
	return known == nil || now.Sub(known.madeAt).Abs() >= publishRest
}

func (p *publications) entries(authority, scope string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known := p.byID[[2]string{authority, scope}]; known != nil {
		return known.record.Entries
	}
	return 0
}

// keep remembers a CRL that was made here.
func (p *publications) keep(r CRLRecord, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.byID[[2]string{r.Issuer, r.Scope}] = &publication{record: r, checkedAt: now, madeAt: now}
}

func (p *publications) cached(authority, scope string) (CRLRecord, time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.byID[[2]string{authority, scope}]
	if known == nil {
		return CRLRecord{}, time.Time{}, false
	}
	return known.record, known.checkedAt, true
}

// refresh remembers what the store said; the higher number wins.
func (p *publications) refresh(authority, scope string, r CRLRecord, now time.Time) CRLRecord {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := [2]string{authority, scope}
	known := p.byID[id]
	if known == nil {
		known = &publication{}
		p.byID[id] = known
	}
	known.checkedAt = now
	if len(r.DER) > 0 && (known.record.Number == nil || r.Number.Cmp(known.record.Number) > 0) {
		known.record = r
	}
	return known.record
}

// CurrentCRL is the CRL to serve for a scope, not older than a quarter of a second; while the store is away, the last one known. It
// returns ErrNotFound when there has never been one. Everybody may read it.
func (c *CA) CurrentCRL(ctx context.Context, authority, scope string) (CRLRecord, error) {
	known, checkedAt, ok := c.publications.cached(authority, scope)
	now := c.now()
	if ok && now.Sub(checkedAt).Abs() < crlFreshness {
		return known, nil
	}
	fresh, err := c.store.CurrentCRL(ctx, authority, scope, known.Number)
	switch {
	case err == nil:
		if len(fresh.DER) > 0 {
			c.lags.elsewhere(authority, scope, fresh.ThisUpdate)
		}
		return c.publications.refresh(authority, scope, fresh, now), nil
	case ok && !errors.Is(err, ErrNotFound):
		c.log.WarnContext(ctx, "serving the last CRL known: the store does not answer", "authority", authority, "error", err)
		return known, nil
	}
	return CRLRecord{}, err
}

// directory is the list of authorities as this replica knows it. It stays served while the store is away.
type directory struct {
	mu     sync.Mutex
	list   []AuthorityRecord
	readAt time.Time
}

func newDirectory() *directory { return &directory{} }

// PublicAuthorities are all authorities, by name. Everybody may read them: they are what clients fetch chains from.
func (c *CA) PublicAuthorities(ctx context.Context) ([]AuthorityRecord, error) {
	c.directory.mu.Lock()
	defer c.directory.mu.Unlock()
	if c.directory.list != nil && c.now().Sub(c.directory.readAt).Abs() < directoryFreshness {
		return c.directory.list, nil
	}
	list, err := c.store.Authorities(ctx)
	if err != nil {
		if c.directory.list != nil {
			c.log.WarnContext(ctx, "serving the last list of authorities known: the store does not answer", "error", err)
			return c.directory.list, nil
		}
		return nil, err
	}
	slices.SortFunc(list, func(a, b AuthorityRecord) int { return strings.Compare(a.Name, b.Name) })
	c.directory.list, c.directory.readAt = list, c.now()
	return list, nil
}

// PublicAuthority is one authority by name, or ErrNotFound.
func (c *CA) PublicAuthority(ctx context.Context, name string) (AuthorityRecord, error) {
	list, err := c.PublicAuthorities(ctx)
	if err != nil {
		return AuthorityRecord{}, err
	}
	for _, a := range list {
		if a.Name == name {
			return a, nil
		}
	}
	return AuthorityRecord{}, ErrNotFound
}

// LearnPublished reads what everybody may read, so that this replica can serve it while the store is away, asked for before or not.
func (c *CA) LearnPublished(ctx context.Context) error {
	authorities, err := c.PublicAuthorities(ctx)
	if err != nil {
		return fmt.Errorf("reading the authorities: %w", err)
	}
	for _, a := range authorities {
		// An authority may have no CRL yet.
		if _, err := c.CurrentCRL(ctx, a.Name, FullScope); err != nil && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("reading the CRL of %q: %w", a.Name, err)
		}
	}
	return nil
}
