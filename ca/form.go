package ca

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/chancery-ca/chancery/issuance"
)

// reformRest is the least time between two complete CRLs of a scope that a replica makes, or tries to, for their form.
const reformRest = 10 * time.Second

// says tells whether a complete CRL says of itself what the next one would: which certificates it is for, and where its deltas are. One
// that says by its distribution point what it is for may stay where the scope seems to be alone: other scopes may not be known here yet.
func (a *Authority) says(complete *issuance.ReadList, scope string, alone bool) bool {
	return (complete.Distribution == a.Distribution(scope).URL || alone && complete.Distribution == "") &&
		complete.Contains == a.lists.Contains && complete.Freshest == a.point(scope).DeltaURL
}

// formsFirst puts complete CRLs in the place of deltas whose base has another form than it would have now: other scopes have come to be,
// or the configuration has changed. Deltas keep the form of their base, for otherwise no client takes them (RFC 5280, section 5.2.4); so
// the operator's wish would have to wait for the schedule, and until then complete CRLs would not tell of the deltas that now list what is
// revoked. Without deltas the next revocation brings the new form.
func (c *CA) formsFirst(ctx context.Context, a *Authority, due []CRLDue) []CRLDue {
	if a.lists.DeltaPeriod == 0 {
		return due
	}
	for _, d := range due {
		// A replica that starts knows none of them yet. That it cannot be read is told when the delta is made.
		if _, _, known := c.publications.cached(crlID{issuer: a.Name, scope: d.Scope}); d.Delta && !known {
			_, _ = c.CurrentCRL(ctx, a.Name, d.Scope)
		}
	}
	known := c.publications.complete(a.Name)
	alone := a.lists.Shards <= 1 && len(known) <= 1
	other := func(r CRLRecord) bool {
		read, err := issuance.ReadCRLHead(r.DER)
		return err == nil && !a.says(read, r.Scope, alone)
	}
	for _, r := range known {
		if !other(r) || !c.publications.mayReform(crlID{issuer: a.Name, scope: r.Scope}, c.now()) {
			continue
		}
		if r, err := c.CurrentCRL(ctx, a.Name, r.Scope); err != nil || !other(r) {
			continue // another replica has made it
		}
		due = slices.DeleteFunc(due, func(d CRLDue) bool { return d.Scope == r.Scope })
		due = append(due, CRLDue{Issuer: a.Name, Scope: r.Scope, Why: "form"})
	}
	return due
}

// complete are the complete CRLs of an authority that are known here.
func (p *publications) complete(authority string) (all []CRLRecord) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, known := range p.byID {
		if id.issuer == authority && !id.delta && known.record.Number != nil {
			all = append(all, known.record)
		}
	}
	return all
}

// mayReform tells whether a complete CRL may be made for its form, and notes that it is tried. Deltas are made meanwhile, in the form of
// their base.
func (p *publications) mayReform(id crlID, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.of(id)
	if now.Sub(known.reformedAt).Abs() < max(reformRest, known.formRest) {
		return false
	}
	known.reformedAt = now
	return true
}

// reformed remembers that a complete CRL was made for its form. Until the next it is twice as long each time, up to the period: replicas of
// different configuration take each other's CRLs for those of another form, and would make one after the other for as long as both run.
func (p *publications) reformed(id crlID, period time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.of(id)
	known.formRest = min(2*max(reformRest, known.formRest), period)
}

// baseOf reads the complete CRL that a claimed delta is to. While the claim lasts no other becomes the current one. It is not always that
// which is served here: there may be a later one, which the database had before it was restored, or failed over.
func (c *CA) baseOf(ctx context.Context, claim CRLClaim) (*issuance.ReadList, error) {
	r, _, _ := c.publications.cached(crlID{issuer: claim.Issuer, scope: claim.Scope})
	if r.Number == nil || r.Number.Cmp(claim.Published) != 0 {
		var err error
		if r, err = c.store.CurrentCRL(ctx, claim.Issuer, claim.Scope, nil); err == nil {
			err = c.checkStored(ctx, r)
		}
		if err != nil {
			return nil, fmt.Errorf("reading the complete CRL: %w", err)
		}
	}
	if r.Number.Cmp(claim.Published) != 0 {
		return nil, fmt.Errorf("the complete CRL %s cannot be read, only %s", claim.Published, r.Number)
	}
	return issuance.ReadCRLHead(r.DER)
}
