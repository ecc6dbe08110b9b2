package ca

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/chancery-ca/chancery/issuance"
)

// CRLLists says which CRLs an authority makes, and when. The zero value is one complete CRL by the plan of the authority's record.
type CRLLists struct {
	// Shards is among how many CRLs the certificates that are issued are spread; 0 or 1: there is one for all. A certificate stays with
	// the CRL that it names, whatever this says later.
	Shards int
	// Period and Validity stand in for those of the authority's record, where they are not zero.
	Period, Validity time.Duration
	// Jitter is how much sooner than the period a scope may be due. Each scope has a part of it.
	Jitter time.Duration
	// DeltaPeriod is how often a delta CRL is made at least; 0: there are none, and complete CRLs and certificates name none.
	DeltaPeriod time.Duration
	// Contains narrows what the CRLs are for, where the authority issues nothing else.
	Contains issuance.Contents
}

const (
	// MaxShards bounds CRLLists.Shards.
	MaxShards = 1000
	// minUpdates is how many periods a CRL must be valid for at least: one that is missed must not leave clients without a CRL.
	minUpdates = 2
	// deltaUpdates is how many of its periods a delta CRL is valid for.
	deltaUpdates = 3
)

// check refuses what would leave clients without a CRL.
func (l CRLLists) check(a *Authority) error {
	plan := l.over(a.CRL)
	switch {
	case l.Shards < 0 || l.Shards > MaxShards:
		return fmt.Errorf("%d shards are not between 0 and %d", l.Shards, MaxShards)
	case l.Period < 0 || l.Validity < 0 || l.Jitter < 0 || l.DeltaPeriod < 0:
		return fmt.Errorf("a time is negative")
	case (l.Period > 0 || l.Validity > 0) && plan.Validity < minUpdates*plan.Period:
		return fmt.Errorf("CRLs are made every %s and valid for %s: that is less than %d periods, and one that is late would leave clients without", plan.Period, plan.Validity, minUpdates)
	case l.Jitter > plan.Period/2:
		return fmt.Errorf("the jitter of %s is more than half the period of %s", l.Jitter, plan.Period)
	case l.DeltaPeriod > 0 && l.DeltaPeriod > plan.Period/2:
		return fmt.Errorf("deltas every %s are of no use to complete CRLs every %s", l.DeltaPeriod, plan.Period)
	case (l.Shards > 1 || l.DeltaPeriod > 0) && !strings.HasSuffix(a.CRLURL, ".crl"):
		return fmt.Errorf("the authority's CRL is at %q, and where shards and deltas are can only be told of one that ends in .crl", a.CRLURL)
	}
	return nil
}

func (l CRLLists) over(p CRLPlan) CRLPlan {
	if l.Period > 0 {
		p.Period = l.Period
	}
	if l.Validity > 0 {
		p.Validity = l.Validity
	}
	return p
}

func (l CRLLists) deltaValidity(complete time.Duration) time.Duration {
	return min(complete, deltaUpdates*l.DeltaPeriod)
}

func (a *Authority) plan() CRLPlan { return a.lists.over(a.CRL) }

func (a *Authority) schedule() CRLSchedule {
	return CRLSchedule{Issuer: a.Name, Period: a.plan().Period, Jitter: a.lists.Jitter, DeltaPeriod: a.lists.DeltaPeriod}
}

// scopes are those that certificates issued now belong to.
func (a *Authority) scopes() []string {
	if a.lists.Shards <= 1 {
		return []string{FullScope}
	}
	all := make([]string, a.lists.Shards)
	for n := range all {
		all[n] = strconv.Itoa(n)
	}
	return all
}

// ScopeOf is the scope that a certificate with a serial is issued into: its last random octets choose.
func (l CRLLists) ScopeOf(s issuance.Serial) string {
	if l.Shards <= 1 {
		return FullScope
	}
	return strconv.FormatUint(binary.BigEndian.Uint64(s[len(s)-8:])%uint64(l.Shards), 10)
}

// DistributionPoint is where the CRLs of a scope are fetched. The complete one's stands in certificates and, where there are several
// scopes, in the CRL itself, byte for byte the same.
type DistributionPoint struct {
	URL, DeltaURL string
}

// Distribution is where the CRLs of a scope are.
func (a AuthorityRecord) Distribution(scope string) DistributionPoint {
	base := strings.TrimSuffix(a.CRLURL, ".crl")
	if scope == FullScope {
		return DistributionPoint{URL: a.CRLURL, DeltaURL: base + "/delta.crl"}
	}
	return DistributionPoint{URL: base + "/" + scope + ".crl", DeltaURL: base + "/" + scope + "/delta.crl"}
}

// point is where certificates of a scope are told to look; the delta's is empty where there are none.
func (a *Authority) point(scope string) DistributionPoint {
	p := a.Distribution(scope)
	if a.lists.DeltaPeriod == 0 {
		p.DeltaURL = ""
	}
	return p
}

// IsShard tells whether a scope's name is that of a shard: a number in its only spelling.
func IsShard(scope string) bool {
	n, err := strconv.ParseUint(scope, 10, 16)
	return err == nil && n < MaxShards && strconv.FormatUint(n, 10) == scope
}

// AddCRLScopes makes the scopes of the configured shards known, so that each has a CRL before its first certificate.
func (c *CA) AddCRLScopes(ctx context.Context) error {
	for _, a := range c.authorities {
		if a.lists.Shards <= 1 {
			continue // an authority is recorded with its full scope
		}
		if err := c.store.AddCRLScopes(ctx, a.Name, a.scopes()); err != nil {
			return fmt.Errorf("adding the CRL scopes of %s: %w", a.Name, err)
		}
	}
	return nil
}

// keptList is the list of a scope as this replica has it in memory, and up to where.
type keptList struct {
	working sync.Mutex // held while a CRL of the scope is made
	revoked issuance.Revoked
	at      FeedPosition // zero: nothing has been read yet
	ended   time.Time    // certificates that ended before may have left
}

// apply brings a claim's changes into the list. Certificates that ended before the last CRL leave, unless that could not show them. One from
// a time that is still to come, made when the database's clock was ahead, has shown nothing after the end of those that end until then.
func (k *keptList) apply(claim CRLClaim, thisUpdate time.Time) error {
	if err := k.revoked.Apply(thisUpdate, claim.Changes); err != nil {
		return err
	}
	k.at = claim.Position
	if claim.PublishedAt.IsZero() {
		return nil
	}
	pending := make(map[string]bool, len(claim.Pending))
	for _, p := range claim.Pending {
		pending[string(p.Serial)] = true
	}
	ended := claim.PublishedAt
	if thisUpdate.Before(ended) {
		ended = thisUpdate
	}
	if ended.After(k.ended) {
		k.ended = ended
	}
	k.revoked.Expire(ended, func(serial []byte) bool { return pending[string(serial)] })
	return nil
}

// scopeName tells a scope's delta from its complete CRL, for people and metrics.
func (d CRLDue) scopeName() string {
	if d.Delta {
		return d.Scope + "/delta"
	}
	return d.Scope
}
