package ca

import (
	"context"
	"maps"
	"math/big"
	"sync"
	"time"
)

// CRLMirror takes CRLs to where clients fetch them besides from the service: a directory that another server serves, or a bucket.
type CRLMirror interface {
	// PutCRL puts a CRL at the path of its URL, such as "crl/issuing-1/7.crl": the whole one, or none of it. What is there with a higher
	// number stays.
	PutCRL(ctx context.Context, path string, r CRLRecord) error
}

// CRLAge is how long a CRL may be kept without asking again, wherever it is fetched from. It adds to the time until a revocation is seen.
const CRLAge = 30 * time.Second

const (
	mirrorEvery    = 5 * time.Second  // how often what could not be put into a mirror is tried again
	mirrorPatience = 30 * time.Second // how long a mirror may take over one CRL
	mirrorFailures = 3                // after so many failures a mirror is left alone until the next time
)

// mirroring brings CRLs to one mirror, beside everything else: a mirror that is slow or away holds up no publication and no other mirror.
// Of each CRL the latest waits; those before it need not be put any more. What a replica that ends leaves behind is put when one starts.
type mirroring struct {
	name     string
	mirror   CRLMirror
	wake     bell
	failing  bool // of the one goroutine that puts
	warnedAt time.Time

	mu      sync.Mutex
	waiting map[crlID]CRLRecord
	put     map[crlID]*big.Int // the numbers of those that are there
}

func newMirrorings(mirrors map[string]CRLMirror) (all []*mirroring) {
	for name, mirror := range mirrors {
		all = append(all, &mirroring{name: name, mirror: mirror, wake: newBell(), waiting: map[crlID]CRLRecord{}, put: map[crlID]*big.Int{}})
	}
	return all
}

// mirrorCRL has a CRL put into every mirror, once.
func (c *CA) mirrorCRL(r CRLRecord) {
	if len(r.DER) == 0 {
		return
	}
	for _, m := range c.mirrors {
		m.offer(r)
	}
}

func (m *mirroring) offer(r CRLRecord) {
	id := crlID{r.Issuer, r.Scope, r.Base != nil}
	m.mu.Lock()
	defer m.mu.Unlock()
	if put := m.put[id]; put != nil && put.Cmp(r.Number) >= 0 {
		return
	}
	if waiting, is := m.waiting[id]; is && waiting.Number.Cmp(r.Number) >= 0 {
		return
	}
	r.Pending = nil
	m.waiting[id] = r
	m.wake.ring()
}

// putWaiting puts what waits into a mirror. What fails goes on waiting. The order is random, so that one place that cannot be written does
// not keep others from their turn.
func (c *CA) putWaiting(ctx context.Context, m *mirroring) {
	m.mu.Lock()
	waiting := maps.Clone(m.waiting)
	m.mu.Unlock()
	failures := 0
	for id, r := range waiting {
		err := m.putOne(ctx, id, r)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			continue
		}
		c.metrics.Failed("mirror crl")
		if !m.failing || c.now().Sub(m.warnedAt).Abs() > warnEvery {
			m.failing, m.warnedAt = true, c.now()
			c.log.ErrorContext(ctx, "putting CRLs into a mirror fails; trying again until it is done", "mirror", m.name, "authority", id.issuer,
				"scope", id.scope, "delta", id.delta, "error", err)
		}
		if failures++; failures == mirrorFailures {
			return
		}
	}
	if m.failing && failures == 0 {
		m.failing = false
		c.log.InfoContext(ctx, "the mirror holds every CRL again", "mirror", m.name)
	}
}

func (m *mirroring) putOne(ctx context.Context, id crlID, r CRLRecord) error {
	ctx, cancel := context.WithTimeout(ctx, mirrorPatience)
	defer cancel()
	if err := m.mirror.PutCRL(ctx, CRLPath(id.issuer, id.scope, id.delta), r); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.put[id] = r.Number
	if m.waiting[id].Number.Cmp(r.Number) == 0 {
		delete(m.waiting, id)
	}
	return nil
}

// CRLPath is where a CRL is served, without the first slash.
func CRLPath(issuer, scope string, delta bool) string {
	path := "crl/" + issuer
	if scope != FullScope {
		path += "/" + scope
	}
	if delta {
		return path + "/delta.crl"
	}
	return path + ".crl"
}

// warnEvery is how often an end that comes near is told again.
const warnEvery = 5 * time.Minute

// watchEnds tells of CRLs whose nextUpdate comes near: less is left than a third of the time that they are valid for, which a schedule
// that is kept never lets happen. A delta that is left of an authority which makes none any more ends as it should.
func (c *CA) watchEnds(ctx context.Context) {
	for _, r := range c.publications.ending(c.now()) {
		if r.Base != nil && c.makesNoDeltas(r.Issuer) {
			continue
		}
		c.metrics.Failed("crl ending")
		c.log.ErrorContext(ctx, "a CRL runs out and no new one was made", "authority", r.Issuer, "scope", r.Scope, "delta", r.Base != nil,
			"next_update", r.NextUpdate)
	}
}

// makesNoDeltas tells of an authority whose key is open here that no deltas are configured.
func (c *CA) makesNoDeltas(authority string) bool {
	a := c.authorities[authority]
	return a != nil && a.lists.DeltaPeriod == 0
}

func (p *publications) ending(now time.Time) (near []CRLRecord) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, known := range p.byID {
		r := known.record
		if r.Number == nil || r.NextUpdate.Sub(now) > r.NextUpdate.Sub(r.ThisUpdate)/3 || now.Sub(known.warnedAt).Abs() < warnEvery {
			continue
		}
		known.warnedAt = now
		near = append(near, r)
	}
	return near
}
