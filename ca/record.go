package ca

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/issuance"
)

// authorize asks access, and leaves a trace of every refusal.
func (c *CA) authorize(ctx context.Context, actor access.Actor, action access.Action, on access.Resource) error {
	denial := access.Authorize(actor, action, on)
	if denial == nil {
		return nil
	}
	id := actor.ID
	if id == "" {
		id = "unknown"
	}
	leaf, err := c.leaf(audit.AccessDenied, id, actor.Namespace, c.now(), map[string]string{
		"action": string(action), "kind": on.Kind, "id": audit.Beginning(on.ID, maxNamed), "namespace": audit.Beginning(on.Namespace, maxNamed),
	})
	if err != nil {
		return err
	}
	if err := c.store.RecordEvents(context.WithoutCancel(ctx), leaf); err != nil {
		c.log.ErrorContext(ctx, "a refusal of access could not be recorded", "actor", id, "action", action, "error", err)
	}
	return denial
}

// maxNamed is how many octets of a name the event of a refusal has: it leaves its trace whatever was asked for. No name of ours is as long.
const maxNamed = 500

// Admits tells whether an actor may do an action at all, to what is of its own namespace: nil, or *access.Denied, which leaves its trace.
// A front end asks before it takes in what is large; what exactly is asked for is looked at again by the verb itself.
func (c *CA) Admits(ctx context.Context, actor access.Actor, action access.Action) error {
	kind, _, _ := strings.Cut(string(action), ".")
	return c.authorize(ctx, actor, action, access.Resource{Namespace: actor.Namespace, Kind: kind})
}

func (c *CA) leaf(kind audit.Kind, actor, namespace string, at time.Time, data map[string]string) (audit.Leaf, error) {
	return c.leafWithID(c.newID(), kind, actor, namespace, at, data)
}

func (c *CA) leafWithID(id string, kind audit.Kind, actor, namespace string, at time.Time, data map[string]string) (audit.Leaf, error) {
	data["replica"] = c.replica.Name
	leaf, err := audit.New(audit.Event{ID: id, Kind: kind, Time: at, Actor: actor, Namespace: namespace, Data: data})
	if err != nil {
		return audit.Leaf{}, fmt.Errorf("recording %s: %w", kind, err)
	}
	return leaf, nil
}

// signatureLeaf tells of one use of an authority's key. It rides with what was signed.
func (c *CA) signatureLeaf(authority, namespace string, s issuance.Signature) (audit.Leaf, error) {
	return c.leaf(audit.KeySigned, access.Service, namespace, c.now(), map[string]string{
		"authority": authority, "key": hex.EncodeToString(s.KeyID), "mechanism": s.Algorithm, "tbs_sha256": hex.EncodeToString(s.Digest),
		"microseconds": strconv.FormatInt(s.Duration.Microseconds(), 10),
	})
}

// untilAvailable repeats a write that may be repeated while the store is away, until the context ends.
func (c *CA) untilAvailable(ctx context.Context, write func() error) error {
	const first, longest = 20 * time.Millisecond, 500 * time.Millisecond
	for pause := first; ; pause = min(2*pause, longest) {
		err := write()
		if err == nil || !errors.Is(err, ErrUnavailable) {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
		}
	}
}

// noMetrics counts nothing.
type noMetrics struct{}

func (noMetrics) Issued(string, string, time.Duration)                    {}
func (noMetrics) Refused(string)                                          {}
func (noMetrics) Failed(string)                                           {}
func (noMetrics) Revoked(string, string)                                  {}
func (noMetrics) RevocationJob(string)                                    {}
func (noMetrics) Orphaned(string)                                         {}
func (noMetrics) Published(string, string, time.Duration)                 {}
func (noMetrics) Serves(string, string, CRLRecord)                        {}
func (noMetrics) RevocationsPublished(string, string, int, time.Duration) {}
func (noMetrics) Waiting(string)                                          {}
func (noMetrics) Decided(string, string)                                  {}
func (noMetrics) Limited(string, string)                                  {}
func (noMetrics) LookedUpCAA(int, time.Duration)                          {}
func (noMetrics) Leads(string, string, time.Time)                         {}
func (noMetrics) Log(LogState)                                            {}
func (noMetrics) CertificateEnds(string, string, time.Time)               {}
func (noMetrics) RenewalFailed(string, string)                            {}
func (noMetrics) KeyAvailable(string, string, bool)                       {}
func (noMetrics) OCSPAnswered(string, string, string, time.Duration)      {}
func (noMetrics) OCSPSigned(string, time.Duration)                        {}
func (noMetrics) OCSPKept(string, int)                                    {}
