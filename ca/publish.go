package ca

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"time"

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

// PublishDue makes the CRLs that are due. Another replica doing so is no error, and what fails is due again at the next look.
func (c *CA) PublishDue(ctx context.Context) {
	names := make([]string, 0, len(c.authorities))
	for name := range c.authorities {
		names = append(names, name)
	}
	due, err := c.store.DueCRLs(ctx, names)
	if err != nil {
		if ctx.Err() == nil {
			c.log.ErrorContext(ctx, "looking for due CRLs failed; the last ones stay served", "error", err)
		}
		return
	}
	for _, d := range due {
		if !c.publications.rested(d, c.now()) {
			continue
		}
		switch err := c.Publish(ctx, d.Issuer, d.Scope); {
		case err == nil, errors.Is(err, ErrFenced), ctx.Err() != nil:
		default:
			c.metrics.Failed("publish")
			c.log.ErrorContext(ctx, "publishing a CRL failed; trying again", "authority", d.Issuer, "scope", d.Scope, "why", d.Why, "error", err)
		}
	}
}

// Publish makes the next CRL of a scope. Reading it from top to bottom is reading the procedure: claim the scope, read its state in one
// snapshot, build the list, record the intent, sign and verify, make it the current one.
//
// ErrFenced means that another replica is at it, or has taken over in the middle: what was signed here is then never served. A crash
// after the intent leaves a number unused; the next number is higher.
func (c *CA) Publish(ctx context.Context, authority, scope string) error {
	started := c.now()
	a, err := c.authority(authority)
	if err != nil {
		return err
	}
	if !a.healthy(c.now()) {
		return fmt.Errorf("the key of %s failed a moment ago: %w", a.Name, ErrUnavailable)
	}
	lease := publishLease + time.Duration(c.publications.entries(a.Name, scope))*publishLeasePerEntry
	claim, err := c.store.ClaimCRL(ctx, a.Name, scope, c.replica, lease)
	if err != nil {
		return fmt.Errorf("claiming the CRL scope: %w", err)
	}
	contents := nextCRL(claim, a.CRL)
	prepared, err := a.Issuer.PrepareCRL(contents)
	if err != nil {
		return fmt.Errorf("building CRL %s: %w", contents.Number, err)
	}

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), publishDeadline)
	defer cancel()
	signed, err := a.Issuer.SignCRL(ctx, prepared, c.crlRecorder(claim))
	if err != nil {
		if errors.Is(err, issuance.ErrPossiblySigned) {
			a.failed(c.now())
			return fmt.Errorf("signing CRL %s: %w: %w", contents.Number, ErrUnavailable, err)
		}
		return fmt.Errorf("recording the intent of CRL %s: %w", contents.Number, err)
	}
	a.recovered()
	record, err := c.recordCRL(ctx, claim, signed)
	if err != nil {
		return fmt.Errorf("recording CRL %s: %w", contents.Number, err)
	}
	c.publications.keep(record, c.now())
	c.tellLags(a.Name, scope, started)
	c.metrics.Published(a.Name, scope, signed.Entries, c.now().Sub(started), signed.NextUpdate)
	return nil
}

// nextCRL is what the next CRL of a claimed scope says. The number is the Unix time in milliseconds, or one more than the last where the
// clock is behind it, so that not even a restored backup brings a lower one.
func nextCRL(claim CRLClaim, plan CRLPlan) issuance.CRLContents {
	number := big.NewInt(claim.Now.UnixMilli())
	if next := new(big.Int).Add(claim.LastNumber, big.NewInt(1)); next.Cmp(number) > 0 {
		number = next
	}
	thisUpdate := claim.Now.Truncate(time.Second)
	return issuance.CRLContents{Number: number, ThisUpdate: thisUpdate, NextUpdate: thisUpdate.Add(plan.Validity), Entries: claim.Entries}
}

// crlRecorder makes a CRL's intent durable, with its audit leaf, when issuance is about to sign.
func (c *CA) crlRecorder(claim CRLClaim) issuance.Recorder {
	return issuance.RecorderFunc(func(ctx context.Context, s issuance.Signing) error {
		i := CRLIntent{Issuer: claim.Issuer, Scope: claim.Scope, Number: s.Number, TBS: sha256.Sum256(s.TBS), Fence: claim.Fence, Owner: c.replica, At: c.now()}
		leaf, err := c.leaf(audit.CRLIntended, "system", "", i.At, map[string]string{
			"issuer": i.Issuer, "scope": i.Scope, "number": i.Number.String(), "tbs_sha256": hex.EncodeToString(i.TBS[:]),
		})
		if err != nil {
			return err
		}
		return c.store.RecordCRLIntent(ctx, i, leaf)
	})
}

func (c *CA) recordCRL(ctx context.Context, claim CRLClaim, signed *issuance.CRL) (CRLRecord, error) {
	record := CRLRecord{
		Issuer: claim.Issuer, Scope: claim.Scope, Number: signed.Number, DER: signed.DER, ThisUpdate: signed.ThisUpdate,
		NextUpdate: signed.NextUpdate, Entries: signed.Entries, Pending: claim.Pending, EventID: c.newID(),
	}
	published, err := c.leafWithID(record.EventID, audit.CRLPublished, "system", "", c.now(), crlData(record))
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
	return map[string]string{
		"issuer": r.Issuer, "scope": r.Scope, "number": r.Number.String(), "crl_sha256": hexSHA256(r.DER), "entries": fmt.Sprint(r.Entries),
		"this_update": r.ThisUpdate.UTC().Format(time.RFC3339), "next_update": r.NextUpdate.UTC().Format(time.RFC3339),
	}
}
