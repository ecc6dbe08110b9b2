package ca

import (
	"context"
	"time"
)

// CRLMirror takes CRLs to where clients fetch them besides from the service: a directory that another server serves, or a bucket.
type CRLMirror interface {
	// PutCRL puts a CRL at the path of its URL, such as "crl/issuing-1/7.crl": the whole one, or none of it. What is there with a higher
	// number stays.
	PutCRL(ctx context.Context, path string, r CRLRecord) error
}

// mirrorCRL puts a CRL into the mirror, once. What fails is tried again when the CRL is looked at the next time.
func (c *CA) mirrorCRL(ctx context.Context, r CRLRecord) {
	if c.mirror == nil || len(r.DER) == 0 || !c.publications.toMirror(r) {
		return
	}
	if err := c.mirror.PutCRL(ctx, CRLPath(r.Issuer, r.Scope, r.Base != nil), r); err != nil {
		c.publications.unmirrored(r)
		c.metrics.Failed("mirror crl")
		c.log.ErrorContext(ctx, "putting a CRL into the mirror failed; trying again", "authority", r.Issuer, "scope", r.Scope, "error", err)
	}
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

func (p *publications) toMirror(r CRLRecord) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.of(crlID{r.Issuer, r.Scope, r.Base != nil})
	if known.mirrored != nil && known.mirrored.Cmp(r.Number) >= 0 {
		return false
	}
	known.mirrored = r.Number
	return true
}

func (p *publications) unmirrored(r CRLRecord) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of(crlID{r.Issuer, r.Scope, r.Base != nil}).mirrored = nil
}

// warnEvery is how often an end that comes near is told again.
const warnEvery = 5 * time.Minute

// watchEnds tells of CRLs whose nextUpdate comes near: less is left than a third of the time that they are valid for, which a schedule
// that is kept never lets happen.
func (c *CA) watchEnds(ctx context.Context) {
	for _, r := range c.publications.ending(c.now()) {
		c.metrics.Failed("crl ending")
		c.log.ErrorContext(ctx, "a CRL runs out and no new one was made", "authority", r.Issuer, "scope", r.Scope, "delta", r.Base != nil,
			"next_update", r.NextUpdate)
	}
}

func (p *publications) ending(now time.Time) (near []CRLRecord) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, known := range p.byID {
		r := known.record
		if r.Number == nil || r.NextUpdate.Sub(now) > r.NextUpdate.Sub(r.ThisUpdate)/3 || now.Sub(known.warnedAt) < warnEvery {
			continue
		}
		known.warnedAt = now
		near = append(near, r)
	}
	return near
}
