package ca

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/issuance"
)

const (
	// publishEvery is how often a replica looks for CRLs that are due. Revocations made here wake it at once; this is for those made by
	// other replicas, and well below the five seconds within which a revocation must be on a CRL.
	publishEvery = 500 * time.Millisecond
	// publishRest is the least time between two CRLs of a scope made here: revocations that come in the meantime share the next one.
	publishRest = time.Second
	// publishDeadline bounds the steps after a CRL's intent.
	publishDeadline = 20 * time.Second
	// publishLease is how long a claim on a scope lasts for a CRL without entries; each entry adds publishLeasePerEntry. A publisher that
	// dies delays the next by no more than this. One that comes back late is fenced off.
	publishLease         = 3 * time.Second
	publishLeasePerEntry = 20 * time.Microsecond
)

// publishAtOnce is how many scopes of an authority a replica works on at a time: while one waits for the key or the disk, another is built.
const publishAtOnce = 4

// publisher makes the CRLs of one authority, one lot after the other.
type publisher struct {
	*Authority
	lots    chan []CRLDue
	missed  atomic.Bool // something was due while it was at work on the lot before
	pressed atomic.Bool // and of that something does not wait
}

// offer gives it what is due, unless it is at work.
func (p *publisher) offer(due []CRLDue) {
	select {
	case p.lots <- due:
	default:
		p.missed.Store(len(due) > 0)
		p.pressed.Store(slices.ContainsFunc(due, CRLDue.presses))
	}
}

// keepPublishing makes the CRLs that are due, until the context ends. What is due is asked for all authorities at once; in making it they do not
// wait for each other: a key that hangs holds up its own authority's CRLs alone.
func (c *CA) keepPublishing(ctx context.Context) {
	var publishing sync.WaitGroup
	var publishers []*publisher
	for _, a := range c.authorities {
		p := &publisher{Authority: a, lots: make(chan []CRLDue)}
		publishers = append(publishers, p)
		publishing.Go(func() { c.publishLots(ctx, p) })
	}
	c.every(ctx, publishEvery, c.publications.wake, func() {
		defer c.watchEnds(ctx) // also while the store is away
		due, err := c.dueCRLs(ctx)
		if err != nil {
			return
		}
		for _, p := range publishers {
			p.offer(due[p.Name])
		}
	})
	for _, p := range publishers {
		close(p.lots)
	}
	publishing.Wait()
}

// publishLots makes what an authority's publisher is given, until there is no more.
func (c *CA) publishLots(ctx context.Context, p *publisher) {
	for due := range p.lots {
		p.pressed.Store(false)
		c.publishAll(ctx, p.Authority, due, p.pressed.Load)
		if p.missed.Swap(false) {
			c.publications.wakeUp()
		}
	}
}

// PublishDue makes the CRLs that are due. Another replica doing so is no error, and what fails is due again at the next look.
func (c *CA) PublishDue(ctx context.Context) {
	defer c.watchEnds(ctx)
	due, err := c.dueCRLs(ctx)
	if err != nil {
		return
	}
	var publishing sync.WaitGroup
	for _, a := range c.authorities {
		publishing.Go(func() { c.publishAll(ctx, a, due[a.Name], func() bool { return false }) })
	}
	publishing.Wait()
}

// dueCRLs asks the store what is due, by authority. That it could not be asked has been told, a row of failures once.
func (c *CA) dueCRLs(ctx context.Context) (map[string][]CRLDue, error) {
	var schedules []CRLSchedule
	for _, a := range c.authorities {
		schedules = append(schedules, a.schedule())
	}
	all, err := c.store.DueCRLs(ctx, schedules)
	before := c.publications.lookingFailed.Swap(err != nil)
	if err != nil {
		if !before && ctx.Err() == nil {
			c.log.ErrorContext(ctx, "looking for due CRLs failed; the last ones stay served", "error", err)
		}
		return nil, err
	}
	due := map[string][]CRLDue{}
	for _, d := range all {
		due[d.Issuer] = append(due[d.Issuer], d)
	}
	return due, nil
}

// publishAll makes what is due of one authority. What is due by its schedule gives way to what presses: once a few of it are made, the rest
// waits for the next lot.
func (c *CA) publishAll(ctx context.Context, a *Authority, due []CRLDue, pressed func() bool) {
	due = c.formsFirst(ctx, a, due)
	for _, d := range c.publications.takeSpoilt(a.Name) {
		if !d.Delta || !c.makesNoDeltas(a.Name) { // one that is left stays as it is
			due = append(due, d)
		}
	}
	due = append(due, c.doubtedKey(a, due)...)
	var working sync.WaitGroup
	places := make(chan struct{}, publishAtOnce)
	patient := 0
	for _, d := range byUrgency(due) {
		if !c.publications.rested(d, c.now()) {
			continue
		}
		places <- struct{}{}
		if !d.presses() {
			if patient >= publishAtOnce && pressed() {
				break
			}
			patient++
		}
		working.Go(func() {
			defer func() { <-places }()
			c.publishOne(ctx, d)
		})
	}
	working.Wait()
}

// presses tells of what has five seconds, for it tells of a revocation, and of what a delta waits for, which may tell of one. What is due
// by its schedule has hours.
func (d CRLDue) presses() bool { return d.Why == "revocation" || d.Why == "form" }

// byUrgency puts first what presses.
func byUrgency(due []CRLDue) []CRLDue {
	rank := func(d CRLDue) int {
		if d.presses() {
			return 0
		}
		return 1
	}
	return slices.SortedStableFunc(slices.Values(due), func(one, other CRLDue) int { return rank(one) - rank(other) })
}

// doubtedKey is a CRL that nobody needs, and that shows whether a key which has failed is back: one that fails costs a number, where a
// certificate would have to be revoked.
func (c *CA) doubtedKey(a *Authority, due []CRLDue) []CRLDue {
	is := func(d CRLDue) bool { return d.Scope == FullScope && !d.Delta }
	if !a.doubted(c.now()) || slices.ContainsFunc(due, is) {
		return nil
	}
	return []CRLDue{{Issuer: a.Name, Scope: FullScope, Why: "key"}}
}

// errKeyRests means that nothing was tried: the key failed a moment ago.
var errKeyRests = fmt.Errorf("its key failed a moment ago: %w", ErrUnavailable)

// publishOne makes one CRL. What was tried and failed is counted, and told where it is not the next of a row of failures: they are tried
// every second.
func (c *CA) publishOne(ctx context.Context, d CRLDue) {
	switch err := c.publish(ctx, d); {
	case err == nil, errors.Is(err, ErrFenced), errors.Is(err, errKeyRests), ctx.Err() != nil:
	default:
		c.metrics.Failed("publish")
		if c.publications.failed(d, err) {
			c.log.ErrorContext(ctx, "publishing a CRL failed; trying again", "authority", d.Issuer, "scope", d.Scope, "delta", d.Delta, "why", d.Why, "error", err)
		}
	}
}

// publish makes the next CRL of a scope. Reading it from top to bottom is reading the procedure: claim the scope, bring what has changed
// into the list that is kept of it, build the CRL, record the intent, sign and verify, make it the current one. Where a keeper has signed a
// higher number than is on record (for a service that was taken over, or before the database was restored), the CRL goes above it.
//
// ErrFenced means that another replica is at it, or has taken over in the middle: what was signed here is then never served. A crash
// after the intent leaves a number unused; the next number is higher.
func (c *CA) publish(ctx context.Context, due CRLDue) (failed error) {
	started := c.now()
	a, err := c.authority(due.Issuer)
	if err != nil {
		return err
	}
	if !a.healthy(c.now()) {
		return fmt.Errorf("authority %s: %w", a.Name, errKeyRests)
	}
	kept := c.publications.kept(a.Name, due.Scope)
	kept.working.Lock()
	defer kept.working.Unlock()
	claim, contents, err := c.nextContents(ctx, a, due, kept)
	published := false
	defer func() {
		if claim.Fence > 0 && !published {
			c.release(ctx, claim)
		}
		if claim.Fence > 0 && errors.Is(failed, ErrFenced) {
			c.publications.fencedOff(due)
			c.log.WarnContext(ctx, "another replica has taken over a CRL that took longer than its claim; the next claim is for longer",
				"authority", a.Name, "scope", due.Scope, "delta", due.Delta, "took", c.now().Sub(started))
		}
	}()
	if err != nil {
		return err
	}
	prepared, err := a.Issuer.PrepareCRL(contents)
	if err != nil {
		return fmt.Errorf("building CRL %s: %w", contents.Number, err)
	}

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishDeadline)
	defer cancel()
	signed, err := a.Issuer.SignCRL(ctx, prepared, c.crlRecorder(claim))
	if passed := issuance.PassedNumber(nil); errors.As(err, &passed) {
		c.log.WarnContext(ctx, "the keeper has signed a CRL of this scope with a higher number than any on record; going on above it",
			"authority", a.Name, "scope", due.Scope, "number", contents.Number, "signed", passed.LastNumber())
		contents.Number = new(big.Int).Add(passed.LastNumber(), big.NewInt(1))
		if prepared, err = a.Issuer.PrepareCRL(contents); err == nil {
			signed, err = a.Issuer.SignCRL(ctx, prepared, c.crlRecorder(claim))
		}
	}
	if err != nil {
		if errors.Is(err, issuance.ErrPossiblySigned) {
			a.failed(c.now())
			return fmt.Errorf("signing CRL %s: %w: %w", contents.Number, ErrUnavailable, err)
		}
		return fmt.Errorf("recording the intent of CRL %s: %w", contents.Number, err)
	}
	a.recovered()
	record, err := c.recordCRL(ctx, claim, contents.Base, signed)
	if err != nil {
		return fmt.Errorf("recording CRL %s: %w", contents.Number, err)
	}
	published = true
	c.publications.keep(record, c.now(), c.now().Sub(started))
	if due.Why == "form" {
		c.publications.reformed(crlID{issuer: a.Name, scope: due.Scope}, a.plan().Period)
	}
	c.mirrorCRL(record)
	c.tellLags(a.Name, due.Scope, started)
	c.metrics.Published(a.Name, due.scopeName(), c.now().Sub(started))
	c.metrics.Serves(a.Name, due.scopeName(), record)
	return nil
}

// release gives a claim back of which no CRL came: another replica, whose key may be well, need not wait for its lease, which is long where
// the CRL is.
func (c *CA) release(ctx context.Context, claim CRLClaim) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleDeadline)
	defer cancel()
	if err := c.store.ReleaseCRL(ctx, claim); err != nil {
		c.log.WarnContext(ctx, "giving up a CRL scope failed; the claim runs out by itself", "authority", claim.Issuer, "scope", claim.Scope, "error", err)
	}
}

// nextContents claims a scope and says what its next CRL holds.
func (c *CA) nextContents(ctx context.Context, a *Authority, due CRLDue, kept *keptList) (CRLClaim, issuance.CRLContents, error) {
	ask := CRLAsk{Issuer: a.Name, Scope: due.Scope, By: c.replica, Delta: due.Delta}
	if due.Delta {
		// Its base is read before, while nobody is held up by a claim: it may be long.
		if _, err := c.CurrentCRL(ctx, a.Name, due.Scope); err != nil {
			return CRLClaim{}, issuance.CRLContents{}, fmt.Errorf("reading the complete CRL: %w", err)
		}
		ask.Lease = c.publications.lease(ask, 0)
		claim, err := c.store.ClaimCRL(ctx, ask)
		if err != nil {
			return claim, issuance.CRLContents{}, fmt.Errorf("claiming the CRL scope: %w", err)
		}
		if claim.Published == nil {
			return claim, issuance.CRLContents{}, fmt.Errorf("a delta needs a complete CRL: %w", ErrNotFound)
		}
		base, err := c.baseOf(ctx, claim)
		if err != nil {
			return claim, issuance.CRLContents{}, err
		}
		contents := a.contents(claim, a.lists.deltaValidity(a.plan().Validity))
		contents.Base, contents.Freshest = claim.Published, ""
		contents.Distribution, contents.Contains = base.Distribution, base.Contains
		for _, e := range claim.Changes {
			contents.Entries = append(contents.Entries, c.listable(ctx, ask, e).CRLEntry)
		}
		return claim, contents, nil
	}
	claim, err := c.claimKept(ctx, ask, kept)
	if err != nil {
		return claim, issuance.CRLContents{}, err
	}
	for n, e := range claim.Changes {
		claim.Changes[n] = c.listable(ctx, ask, e)
	}
	contents := a.contents(claim, a.plan().Validity)
	if err := kept.apply(claim, contents.ThisUpdate); err != nil {
		return claim, issuance.CRLContents{}, fmt.Errorf("bringing changes into the list: %w", err)
	}
	contents.Revoked = &kept.revoked
	return claim, contents, nil
}

// claimKept claims a scope from where the kept list stands. A list that is not there yet is read first, while nobody is held up by a claim.
// So is one that lacks what has not ended: certificates left it by a clock that was ahead and has been put right since.
func (c *CA) claimKept(ctx context.Context, ask CRLAsk, kept *keptList) (CRLClaim, error) {
	for try := 0; ; try++ {
		if kept.at == (FeedPosition{}) {
			if err := c.readList(ctx, ask, kept); err != nil {
				return CRLClaim{}, fmt.Errorf("reading what is revoked: %w", err)
			}
		}
		ask.Since = kept.at
		ask.Lease = c.publications.lease(ask, kept.revoked.Len())
		claim, err := c.store.ClaimCRL(ctx, ask)
		switch {
		case try == 0 && errors.Is(err, ErrStalePosition): // the server has begun another life
			kept.at = FeedPosition{}
			continue
		case try == 0 && err == nil && claim.Now.Before(kept.ended):
			c.release(ctx, claim)
			kept.at = FeedPosition{}
			continue
		case err != nil:
			return claim, fmt.Errorf("claiming the CRL scope: %w", err)
		}
		return claim, nil
	}
}

// readBatch is how many entries are brought into a list at a time while it is read.
const readBatch = 10_000

func (c *CA) readList(ctx context.Context, ask CRLAsk, kept *keptList) error {
	ctx, cancel := context.WithTimeout(ctx, publishDeadline)
	defer cancel()
	// No entry may be later than the CRL, which is dated by the database: one revoked on a machine whose clock is ahead is.
	now, err := c.store.ServerTime(ctx)
	if err != nil {
		return fmt.Errorf("asking for the time: %w", err)
	}
	var list issuance.Revoked
	batch := make([]issuance.RevokedEntry, 0, readBatch)
	flush := func() error {
		err := list.Apply(now, batch)
		batch = batch[:0]
		return err
	}
	at, err := c.store.ListedRevocations(ctx, ask.Issuer, ask.Scope, func(e issuance.RevokedEntry) error {
		if batch = append(batch, c.listable(ctx, ask, e)); len(batch) == readBatch {
			return flush()
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := flush(); err != nil {
		return err
	}
	kept.revoked, kept.at, kept.ended = list, at, now
	return nil
}

// listable is an entry as a CRL can have it. An invalidity date that cannot be written is left out: earlier versions recorded such dates
// (one before the year 0, by its zone), what is recorded stays, and a CRL is refused as a whole for one entry. That the certificate is
// revoked matters more than since when its key is not trusted.
func (c *CA) listable(ctx context.Context, ask CRLAsk, e issuance.RevokedEntry) issuance.RevokedEntry {
	if e.InvalidityDate.IsZero() || issuance.CanSayInvalidity(e.InvalidityDate) {
		return e
	}
	c.log.WarnContext(ctx, "the invalidity date of a revocation cannot be written on a CRL, which lists it without", "authority", ask.Issuer,
		"scope", ask.Scope, "serial", hex.EncodeToString(e.Serial), "year", e.InvalidityDate.UTC().Year())
	e.InvalidityDate = time.Time{}
	return e
}

// contents are what the next CRL of a claimed scope says, but for its entries. The number is the Unix time in milliseconds, or one more
// than the last where the clock is behind it, so that not even a restored backup brings a lower one.
func (a *Authority) contents(claim CRLClaim, validity time.Duration) issuance.CRLContents {
	number := big.NewInt(claim.Now.UnixMilli())
	if next := new(big.Int).Add(claim.LastNumber, big.NewInt(1)); next.Cmp(number) > 0 {
		number = next
	}
	thisUpdate := claim.Now.Truncate(time.Second)
	c := issuance.CRLContents{Number: number, ThisUpdate: thisUpdate, NextUpdate: thisUpdate.Add(validity), Contains: a.lists.Contains}
	point := a.Distribution(claim.Scope)
	if !claim.Alone {
		c.Distribution = point.URL
	}
	if a.lists.DeltaPeriod > 0 {
		c.Freshest = point.DeltaURL
	}
	return c
}

// crlRecorder makes a CRL's intent durable, with its audit leaf, when issuance is about to sign.
func (c *CA) crlRecorder(claim CRLClaim) issuance.Recorder {
	return issuance.RecorderFunc(func(ctx context.Context, s issuance.Signing) error {
		i := CRLIntent{Issuer: claim.Issuer, Scope: claim.Scope, Number: s.Number, TBS: s.Digest, Fence: claim.Fence, Owner: c.replica, At: c.now()}
		leaf, err := c.leaf(audit.CRLIntended, access.Service, "", i.At, map[string]string{
			"issuer": i.Issuer, "scope": i.Scope, "number": i.Number.String(), "tbs_sha256": hex.EncodeToString(i.TBS[:]),
		})
		if err != nil {
			return err
		}
		return c.store.RecordCRLIntent(ctx, i, leaf)
	})
}

func (c *CA) recordCRL(ctx context.Context, claim CRLClaim, base *big.Int, signed *issuance.CRL) (CRLRecord, error) {
	record := CRLRecord{
		Issuer: claim.Issuer, Scope: claim.Scope, Number: signed.Number, Base: base, DER: signed.DER, ThisUpdate: signed.ThisUpdate,
		NextUpdate: signed.NextUpdate, Entries: signed.Entries, Pending: claim.Pending, EventID: c.newID(),
	}
	published, err := c.leafWithID(record.EventID, audit.CRLPublished, access.Service, "", c.now(), crlData(record))
	if err != nil {
		return CRLRecord{}, err
	}
	key, err := c.signatureLeaf(claim.Issuer, "", signed.Signature)
	if err != nil {
		return CRLRecord{}, err
	}
	return record, c.untilAvailable(ctx, func() error { return c.store.RecordCRL(ctx, record, claim.Fence, published, key) })
}

func crlData(r CRLRecord) map[string]string {
	data := map[string]string{
		"issuer": r.Issuer, "scope": r.Scope, "number": r.Number.String(), "crl_sha256": hexSHA256(r.DER), "entries": fmt.Sprint(r.Entries),
		"this_update": r.ThisUpdate.UTC().Format(time.RFC3339), "next_update": r.NextUpdate.UTC().Format(time.RFC3339),
	}
	if r.Base != nil {
		data["base"] = r.Base.String()
	}
	return data
}
