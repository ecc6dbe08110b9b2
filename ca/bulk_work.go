package ca

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/issuance"
)

const (
	// jobLease is how long a claim on a job lasts from its last lot on. A worker that dies delays its job by no more than this; one that
	// comes back late is fenced off.
	jobLease = 10 * time.Second
	// jobsEvery is how often a replica looks for jobs that nobody works on. Those ordered or approved here wake it at once.
	jobsEvery = time.Second
	// maxLotRest is the longest rest after a lot that took long: the claim lasts beyond it.
	maxLotRest = jobLease / 2
)

// RunRevocations works on the jobs that nobody works on, until there is none. Any number of replicas may do it at once: each job has one
// worker at a time.
func (c *CA) RunRevocations(ctx context.Context) error {
	for {
		j, fence, err := c.store.ClaimRevocationJob(ctx, "", c.replica, jobLease)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err == nil {
			err = c.work(ctx, j, fence, c.lotPace())
		}
		if err != nil && !errors.Is(err, ErrFenced) { // another has taken over, or the job was cancelled
			return fmt.Errorf("working on revocation jobs: %w", err)
		}
	}
}

// lotPace is the least time from the beginning of one lot to that of the next.
func (c *CA) lotPace() time.Duration {
	rate := c.bulk.LotsPerSecond
	if rate <= 0 {
		rate = DefaultLotsPerSecond
	}
	return time.Duration(float64(time.Second) / rate)
}

// work brings a claimed job to its end, lot by lot. The cursor moves in the transaction of each lot: a crash leaves a job that goes on
// with the lot after the last one that is on record. With a pace it rests between lots, and gives way to what is more urgent.
func (c *CA) work(ctx context.Context, j RevocationJob, fence int64, pace time.Duration) error {
	total := j.Counts
	for lot := j.NextLot; lot < j.Lots; {
		passed := stopwatch() // a clock that is put right in the meantime makes no rest of hours
		counts, err := c.workLot(ctx, j, lot, fence, total)
		if errors.Is(err, ErrExists) {
			continue // somebody revoked one of them in this moment: look again
		}
		if err != nil {
			return err
		}
		total = total.plus(counts)
		lot++
		if pace > 0 && lot < j.Lots {
			took := passed()
			rest := pace - took
			if j.Reason != issuance.KeyCompromise { // every second counts there; else issuance goes before
				rest = max(rest, min(took, maxLotRest)) // of a lot that waited for the store, most of that was no work
			}
			if !pauseFor(ctx, rest) {
				return ctx.Err()
			}
			if j.Reason != issuance.KeyCompromise {
				c.giveWay(ctx, j, pace)
			}
		}
	}
	c.metrics.RevocationJob(JobFinished)
	return nil
}

// giveWay works on the jobs of compromised keys that nobody works on before another goes on. Should these take longer than its claim, a
// replica that has nothing to do goes on with it, and this one is fenced off. A fault of theirs does not hold it up: they are claimed anew.
func (c *CA) giveWay(ctx context.Context, running RevocationJob, pace time.Duration) {
	for {
		j, fence, err := c.store.ClaimUrgentRevocation(ctx, c.replica, jobLease)
		if err == nil {
			err = c.work(ctx, j, fence, pace)
		}
		switch {
		case err == nil, errors.Is(err, ErrFenced): // another has taken over, or the job was cancelled: there may be more
		case errors.Is(err, ErrNotFound), ctx.Err() != nil:
			return
		default:
			c.log.ErrorContext(ctx, "revoking where keys are compromised failed; trying again", "job", j.ID, "after", running.ID, "error", err)
			return
		}
	}
}

// workLot revokes the certificates of one lot.
func (c *CA) workLot(ctx context.Context, j RevocationJob, number int, fence int64, before RevocationCounts) (RevocationCounts, error) {
	items, err := c.store.RevocationItems(ctx, j.ID, number)
	if err != nil {
		return RevocationCounts{}, fmt.Errorf("reading lot %d of job %s: %w", number, j.ID, err)
	}
	l := RevocationLot{Job: j.ID, Number: number, Fence: fence, Lease: jobLease, Last: number == j.Lots-1, At: c.now()}
	var leaves []audit.Leaf
	var left []RevocationItem
	for _, item := range items {
		r, count := c.judgeItem(j, item, l.At)
		l.Counts = l.Counts.plus(count)
		if count.Revoked == 0 {
			left = append(left, item)
			continue
		}
		leaf, err := c.jobLeaf(j, item, r)
		if err != nil {
			return RevocationCounts{}, err
		}
		l.Revocations, leaves = append(l.Revocations, r), append(leaves, leaf)
	}
	if j.Reason == issuance.KeyCompromise {
		l.Keys = keysOf(left, l.Revocations)
		l.Counts.Remembered = len(l.Keys)
	}
	for _, item := range l.Keys {
		data := keyData(item.Issuer, item.Serial, item.SPKI)
		data["job"] = j.ID
		leaf, err := c.leaf(audit.KeyCompromised, j.Actor.ID, item.Namespace, l.At, data)
		if err != nil {
			return RevocationCounts{}, err
		}
		leaves = append(leaves, leaf)
	}
	if l.Last {
		leaf, err := c.finishedLeaf(j, before.plus(l.Counts), l.At)
		if err != nil {
			return RevocationCounts{}, err
		}
		leaves = append(leaves, leaf)
	}
	if err := c.untilAvailable(ctx, func() error { return c.store.RecordRevocationLot(ctx, l, leaves...) }); err != nil {
		return RevocationCounts{}, fmt.Errorf("recording lot %d of job %s: %w", number, j.ID, err)
	}
	scopes := map[[2]string]int{}
	for _, r := range l.Revocations {
		c.metrics.Revoked(r.Issuer, r.Reason.String())
		scopes[[2]string{r.Issuer, r.CRLScope}]++
	}
	for scope, count := range scopes {
		c.lags.revoked(scope[0], scope[1], count, c.now())
	}
	c.publications.wakeUp()
	return l.Counts, nil
}

// judgeItem says what a job does to one certificate: the revocation to record, or what it is counted as instead.
func (c *CA) judgeItem(j RevocationJob, item RevocationItem, at time.Time) (Revocation, RevocationCounts) {
	var latest *Revocation
	if item.Sequence > 0 {
		latest = &Revocation{Sequence: item.Sequence, Reason: item.Reason}
	}
	after, done, err := nextRevocation(latest, j.Reason)
	switch {
	case done || err != nil:
		return Revocation{}, RevocationCounts{Already: 1}
	case at.After(item.NotAfter):
		return Revocation{}, RevocationCounts{Expired: 1}
	case j.Reason == issuance.CertificateHold && !c.allowsHold(item.Profile):
		return Revocation{}, RevocationCounts{Refused: 1}
	}
	return Revocation{
		Issuer: item.Issuer, Serial: item.Serial, Sequence: after + 1, Reason: j.Reason, At: at.Truncate(time.Second),
		InvalidityDate: j.InvalidityDate, Comment: j.Comment, Actor: j.Actor.ID, EventID: c.newID(), CRLScope: item.CRLScope,
		NotAfter: item.NotAfter, SPKI: item.SPKI,
	}, RevocationCounts{Revoked: 1}
}

// keysOf are, of certificates that stay as they are, those whose keys are not known as compromised, and do not become so by the revocation of
// another: of each key one.
func keysOf(left []RevocationItem, revoked []Revocation) (keys []RevocationItem) {
	known := make(map[[32]byte]bool, len(revoked))
	for _, r := range revoked {
		known[r.SPKI] = true
	}
	for _, item := range left {
		if !item.KeyKnown && !known[item.SPKI] {
			keys, known[item.SPKI] = append(keys, item), true
		}
	}
	return keys
}

func (c *CA) jobLeaf(j RevocationJob, item RevocationItem, r Revocation) (audit.Leaf, error) {
	kind, data := revocationData(r)
	data["job"] = j.ID
	return c.leafWithID(r.EventID, kind, j.Actor.ID, item.Namespace, r.At, data)
}

func (c *CA) finishedLeaf(j RevocationJob, n RevocationCounts, at time.Time) (audit.Leaf, error) {
	data := map[string]string{
		"job": j.ID, "reason": j.Reason.String(), "certificates_sha256": hex.EncodeToString(j.Digest[:]), "revoked": strconv.Itoa(n.Revoked),
		"already": strconv.Itoa(n.Already), "expired": strconv.Itoa(n.Expired), "refused": strconv.Itoa(n.Refused),
	}
	if j.Reason == issuance.KeyCompromise {
		data["remembered"] = strconv.Itoa(n.Remembered)
	}
	return c.leaf(audit.RevocationFinished, j.Actor.ID, j.Namespace, at, data)
}

// pauseFor waits, and tells whether the context still goes on.
func pauseFor(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
