package ca

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chancery-ca/chancery/issuance"
)

const (
	crlFreshness       = 250 * time.Millisecond // how old the cached CRL may be before the store is asked for its number
	directoryFreshness = 2 * time.Second
	storePatience      = time.Second      // how long the store is waited for where what is known will do
	learnEvery         = 10 * time.Second // how often what nobody asks for is read all the same
)

// publications are the current CRLs as this replica knows them. They stay served while the store is away.
type publications struct {
	mu    sync.Mutex
	wake  bell // of the publishers
	byID  map[crlID]*publication
	first map[crlID]*crlReading // of those of which nothing is known: there may be no such CRL
	lists map[crlID]*keptList
	work  sync.WaitGroup // of those who read
	// failing are the rows of failures that have been told: of a scope, or, where a part is away that all scopes need, of all (everyScope).
	failing       map[crlID]bool
	lookingFailed atomic.Bool // what is due could not be asked for
}

// everyScope stands for all scopes of an authority. No scope has such a name.
const everyScope = "*"

// crlID names a scope's complete CRL, or its delta.
type crlID struct {
	issuer, scope string
	delta         bool
}

type publication struct {
	record     CRLRecord
	checkedAt  time.Time
	madeAt     time.Time     // when this replica last made one
	took       time.Duration // how long that was at it
	fenced     int           // how often in a row one took longer than its claim
	demandedAt time.Time     // when one was last made here because somebody wanted it
	reformedAt time.Time     // when one was last tried here for its form
	formRest   time.Duration // how long that keeps the next one from being tried
	spoilt     bool          // what the store holds cannot be served
	warnedAt   time.Time
	reading    *crlReading // nil: nobody reads it
}

func newPublications() *publications {
	return &publications{
		wake: newBell(), byID: map[crlID]*publication{}, first: map[crlID]*crlReading{}, lists: map[crlID]*keptList{}, failing: map[crlID]bool{},
	}
}

// wakeUp makes the publishers look at once. A wake-up that is waiting already is enough.
func (p *publications) wakeUp() { p.wake.ring() }

// of is what is known of a CRL; p.mu is held.
func (p *publications) of(id crlID) *publication {
	known := p.byID[id]
	if known == nil {
		known = &publication{}
		p.byID[id] = known
	}
	return known
}

// kept is the list of a scope in memory.
func (p *publications) kept(issuer, scope string) *keptList {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := crlID{issuer: issuer, scope: scope}
	if p.lists[id] == nil {
		p.lists[id] = &keptList{}
	}
	return p.lists[id]
}

// failed remembers that a CRL could not be made, and tells whether that is news. While the key or the store is away one scope after the other
// fails, for the same reason.
func (p *publications) failed(d CRLDue, why error) (news bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := crlID{d.Issuer, d.Scope, d.Delta}
	if errors.Is(why, ErrUnavailable) {
		id = crlID{issuer: d.Issuer, scope: everyScope}
	}
	news = !p.failing[id]
	p.failing[id] = true
	return news
}

// fencedOff remembers that making a CRL took longer than its claim.
func (p *publications) fencedOff(d CRLDue) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of(crlID{d.Issuer, d.Scope, d.Delta}).fenced++
}

// lease is how long a CRL of so many entries is claimed for. Where others took over in the middle, it is twice as long each time, until one is
// made: replicas whose token or database has become slow would fence each other off for ever.
func (p *publications) lease(ask CRLAsk, entries int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	lease := publishLease + time.Duration(entries)*publishLeasePerEntry
	for range p.of(crlID{ask.Issuer, ask.Scope, ask.Delta}).fenced {
		if lease >= publishDeadline {
			break
		}
		lease *= 2
	}
	return lease
}

// rested tells whether the next CRL may be made: the longer one takes, the more revocations share the next.
func (p *publications) rested(d CRLDue, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.byID[crlID{d.Issuer, d.Scope, d.Delta}]
	return known == nil || now.Sub(known.madeAt).Abs() >= max(publishRest, known.took)
}

// demand notes that somebody wants the next CRL, unless somebody did within demandRest. Where none comes of it, again takes that back.
func (p *publications) demand(id crlID, now time.Time) (again func(), granted bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.of(id)
	if !known.demandedAt.IsZero() && now.Sub(known.demandedAt).Abs() < demandRest {
		return func() {}, false
	}
	known.demandedAt = now
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		known.demandedAt = time.Time{}
	}, true
}

// keep remembers a CRL that was made here. Another replica may have published a later one since, which is read beside this and is the one
// to serve.
func (p *publications) keep(r CRLRecord, now time.Time, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id := crlID{r.Issuer, r.Scope, r.Base != nil}
	delete(p.failing, id)
	delete(p.failing, crlID{issuer: r.Issuer, scope: everyScope})
	known := p.of(id)
	known.madeAt, known.took, known.fenced = now, took, 0
	if known.record.Number != nil && r.Number.Cmp(known.record.Number) < 0 && !known.spoilt {
		return
	}
	r.Pending = nil
	known.record, known.checkedAt, known.spoilt = r, now, false
}

func (p *publications) cached(id crlID) (CRLRecord, time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.byID[id]
	if known == nil || known.record.Number == nil {
		return CRLRecord{}, time.Time{}, false
	}
	return known.record, known.checkedAt, true
}

// refresh remembers what the store said; the higher number wins.
func (p *publications) refresh(id crlID, r CRLRecord, now time.Time) CRLRecord {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.of(id)
	known.checkedAt = now
	if len(r.DER) > 0 && (known.record.Number == nil || r.Number.Cmp(known.record.Number) > 0) {
		known.record, known.spoilt = r, false
	}
	return known.record
}

// spoil remembers that the store's CRL cannot be served; it tells whether that is news.
func (p *publications) spoil(id crlID, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.of(id)
	news := !known.spoilt
	known.spoilt, known.checkedAt = true, now
	return news
}

// takeSpoilt are scopes of an authority that need a CRL because the current one cannot be served. That of an offline authority is for its
// operator to import again.
func (p *publications) takeSpoilt(authority string) (due []CRLDue) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, known := range p.byID {
		if known.spoilt && id.issuer == authority {
			due = append(due, CRLDue{Issuer: id.issuer, Scope: id.scope, Delta: id.delta, Why: "corrupted"})
		}
	}
	return due
}

// CurrentCRL is the CRL to serve for a scope, not older than a quarter of a second; while the store is away, the last one known. It
// returns ErrNotFound when there has never been one. Everybody may read it.
func (c *CA) CurrentCRL(ctx context.Context, authority, scope string) (CRLRecord, error) {
	return c.currentCRL(ctx, crlID{issuer: authority, scope: scope}, c.store.CurrentCRL)
}

// CurrentDelta is CurrentCRL for the delta CRL of a scope.
func (c *CA) CurrentDelta(ctx context.Context, authority, scope string) (CRLRecord, error) {
	return c.currentCRL(ctx, crlID{authority, scope, true}, c.store.CurrentDelta)
}

func (c *CA) currentCRL(ctx context.Context, id crlID, read readCRL) (CRLRecord, error) {
	known, checkedAt, ok := c.publications.cached(id)
	switch {
	case !ok:
		return c.readFirst(ctx, id, read)
	case c.now().Sub(checkedAt).Abs() < crlFreshness:
		return known, nil
	}
	reading := c.readBeside(ctx, id, read)
	patience := time.NewTimer(storePatience)
	defer patience.Stop()
	select {
	case <-reading.done:
		return reading.record, reading.err
	case <-ctx.Done():
		return known, nil
	case <-patience.C:
		c.log.WarnContext(ctx, "serving the last CRL known: the store takes long to give the current one", "authority", id.issuer)
		return c.publications.refresh(id, CRLRecord{}, c.now()), nil // others need not wait for the same
	}
}

// readCRL reads a CRL of a scope from the store, without its DER if it has the number given.
type readCRL func(ctx context.Context, issuer, scope string, unless *big.Int) (CRLRecord, error)

// crlReading is a CRL that is being read for all who wait for it.
type crlReading struct {
	done chan struct{}
	end  func()

	// Written before done is closed.
	record CRLRecord
	err    error

	waiting int // for the first one of a CRL
}

// readFirst reads a CRL of which nothing is known for all who ask for it meanwhile. Anybody may ask for one that there is not: the reading ends
// when all have left, and nothing is kept of what was not found.
func (c *CA) readFirst(ctx context.Context, id crlID, read readCRL) (CRLRecord, error) {
	p := c.publications
	p.mu.Lock()
	one := p.first[id]
	if one == nil {
		reading, end := context.WithCancel(context.WithoutCancel(ctx))
		one = &crlReading{done: make(chan struct{}), end: end}
		p.first[id] = one
		c.startReading(reading, one, id, CRLRecord{}, read, func() { p.forgetFirst(id, one) })
	}
	one.waiting++
	p.mu.Unlock()
	select {
	case <-one.done:
		return one.record, one.err
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if one.waiting--; one.waiting == 0 {
		p.forgetFirst(id, one) // before it has ended: who comes now begins anew
		one.end()
	}
	return CRLRecord{}, fmt.Errorf("reading the CRL of %s: %w: %w", id.issuer, ErrUnavailable, ctx.Err())
}

// forgetFirst forgets a reading, unless another has begun; p.mu is held.
func (p *publications) forgetFirst(id crlID, one *crlReading) {
	if p.first[id] == one {
		delete(p.first, id)
	}
}

// readBeside has a CRL read beside whoever asks for it, once at a time, however many ask. The reading goes on when they leave: a long CRL
// may take longer to come than any of them waits, and would otherwise never arrive.
func (c *CA) readBeside(ctx context.Context, id crlID, read readCRL) *crlReading {
	p := c.publications
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.of(id)
	if one.reading == nil {
		reading, end := context.WithTimeout(context.WithoutCancel(ctx), publishDeadline)
		one.reading = &crlReading{done: make(chan struct{}), end: end}
		c.startReading(reading, one.reading, id, one.record, read, func() { one.reading = nil })
	}
	return one.reading
}

// startReading reads a CRL, and ends the reading: forget takes it from where it is found, with the mutex held.
func (c *CA) startReading(ctx context.Context, r *crlReading, id crlID, known CRLRecord, read readCRL, forget func()) {
	p := c.publications
	p.work.Go(func() {
		defer r.end()
		r.record, r.err = c.readCurrent(ctx, id, known, read)
		p.mu.Lock()
		forget()
		p.mu.Unlock()
		close(r.done)
	})
}

// errUnservable is of a CRL that suffered in the store, where no good one is known.
var errUnservable = fmt.Errorf("the one in the store cannot be served: %w", ErrUnavailable)

// readCurrent reads the current CRL, where it is not the one that is known, which is served where that cannot be done.
func (c *CA) readCurrent(ctx context.Context, id crlID, known CRLRecord, read readCRL) (CRLRecord, error) {
	now, ok := c.now(), known.Number != nil
	fresh, err := read(ctx, id.issuer, id.scope, known.Number)
	switch {
	case err == nil:
		if err := c.checkStored(ctx, fresh); err == nil {
			if len(fresh.DER) > 0 {
				c.lags.elsewhere(id.issuer, id.scope, fresh.ThisUpdate)
			}
			return c.publications.refresh(id, fresh, now), nil
		} else if c.publications.spoil(id, now) {
			c.metrics.Failed("stored crl")
			c.log.ErrorContext(ctx, "the stored CRL cannot be served; the last good one stays served, and a new one is made", "authority", id.issuer,
				"scope", id.scope, "number", fresh.Number.String(), "error", err)
			c.publications.wakeUp()
		}
		if ok {
			return known, nil
		}
		return CRLRecord{}, fmt.Errorf("the CRL of %s: %w", id.issuer, errUnservable)
	case ok && !errors.Is(err, ErrNotFound):
		c.log.WarnContext(ctx, "serving the last CRL known: the store does not answer", "authority", id.issuer, "error", err)
		c.publications.refresh(id, CRLRecord{}, c.now()) // others need not wait for the same
		return known, nil
	}
	return CRLRecord{}, err
}

// checkStored reads a CRL that came from the store from end to end and verifies it: it may be another replica's, and it may have suffered.
func (c *CA) checkStored(ctx context.Context, r CRLRecord) error {
	if len(r.DER) == 0 {
		return nil // it is the one that is known
	}
	read, err := issuance.ReadCRL(r.DER)
	if err != nil {
		return err
	}
	if read.Number.Cmp(r.Number) != 0 || (read.Base == nil) != (r.Base == nil) {
		return fmt.Errorf("it has the number %s", read.Number)
	}
	certificate, err := c.certificateOf(ctx, r.Issuer)
	if err != nil {
		return err
	}
	return read.VerifiedBy(certificate)
}

// certificateOf is the certificate of any authority known.
func (c *CA) certificateOf(ctx context.Context, name string) (*x509.Certificate, error) {
	if a := c.authorities[name]; a != nil {
		return a.Certificate, nil
	}
	a, err := c.PublicAuthority(ctx, name)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(a.Certificate)
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
	reading := ctx
	if c.directory.list != nil {
		var cancel context.CancelFunc
		reading, cancel = context.WithTimeout(context.WithoutCancel(ctx), storePatience) // for all who wait, whoever leaves
		defer cancel()
	}
	list, err := c.store.Authorities(reading)
	if err != nil {
		if c.directory.list != nil {
			c.directory.readAt = c.now() // others need not wait for the same
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

// LearnPublished reads what everybody may read, so that this replica can serve it while the store is away, asked for before or not. A CRL
// that suffered there keeps no other from being learnt.
func (c *CA) LearnPublished(ctx context.Context) error {
	authorities, err := c.PublicAuthorities(ctx)
	if err != nil {
		return fmt.Errorf("reading the authorities: %w", err)
	}
	var failed error
	for _, a := range authorities {
		states, err := c.store.CRLStates(ctx, a.Name)
		if err != nil {
			return errors.Join(failed, fmt.Errorf("reading the CRL scopes of %q: %w", a.Name, err))
		}
		for _, s := range states {
			// A scope may have no CRL yet; and of a delta that is left where none is made any more nobody need be told.
			for _, one := range []struct {
				delta  bool
				number *big.Int
				read   func(context.Context, string, string) (CRLRecord, error)
			}{{false, s.Number, c.CurrentCRL}, {true, s.Delta, c.CurrentDelta}} {
				if one.delta && c.makesNoDeltas(a.Name) {
					continue
				}
				r, _, known := c.publications.cached(crlID{a.Name, s.Scope, one.delta})
				var err error
				if one.number != nil && (!known || r.Number.Cmp(one.number) != 0) {
					r, err = one.read(ctx, a.Name, s.Scope)
				}
				switch {
				case errors.Is(err, errUnservable):
					failed = errors.Join(failed, fmt.Errorf("scope %s: %w", s.Scope, err))
				case err != nil && !errors.Is(err, ErrNotFound):
					return errors.Join(failed, fmt.Errorf("reading a CRL of %q: %w", a.Name, err))
				}
				if len(r.DER) > 0 {
					c.metrics.Serves(a.Name, CRLDue{Scope: r.Scope, Delta: one.delta}.scopeName(), r)
				}
				c.mirrorCRL(r)
			}
		}
	}
	return failed
}
