package ca

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/csr"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/policies"
)

const (
	// issueDeadline bounds an issuance from its intent on. The requester's cancellation no longer counts by then.
	issueDeadline = 30 * time.Second
	// intentLease is how long a replica owns an intent. It exceeds issueDeadline, so that nobody else settles what may yet succeed.
	intentLease = 2 * issueDeadline
	// replayWait is how long a repeated request waits for the first one to end.
	replayWait = 5 * time.Second
)

// Order is a wish for a certificate.
type Order struct {
	Actor          access.Actor
	Profile        string
	Issuer         string // empty: the default authority
	CSR            *csr.Request
	Validity       time.Duration // 0: the profile's default
	Metadata       map[string]string
	IdempotencyKey string // empty: none
	Replaces       []byte // the serial of a certificate of the same namespace, to be revoked as superseded then; empty: none
}

// digest is the body that an idempotency key is bound to: what is asked for, however it was written.
func (o Order) digest() [32]byte {
	h := sha256.New()
	field := func(b []byte) {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
		h.Write(b)
	}
	field([]byte(o.Profile))
	field([]byte(o.Issuer))
	field(o.CSR.Raw())
	field(binary.BigEndian.AppendUint64(nil, uint64(o.Validity)))
	keys := make([]string, 0, len(o.Metadata))
	for k := range o.Metadata {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		field([]byte(k))
		field([]byte(o.Metadata[k]))
	}
	if len(o.Replaces) > 0 { // without, it is the digest that programs made before there was such a field
		field([]byte("replaces"))
		field(o.Replaces)
	}
	return [32]byte(h.Sum(nil))
}

// Outcome is what came of an order.
type Outcome struct {
	Certificate Certificate
	Chain       [][]byte        // DER: the certificate, then its issuers up to, but without, the root
	Replayed    bool            // the answer is that to an earlier request with the same idempotency key
	Replaced    []byte          // the serial that the order replaces, once it is not valid any more
	Waiting     *WaitingRequest // the request needs approval, or needed it and was not issued; there is no certificate
}

// Issue turns an order into a certificate. Reading it from top to bottom is reading the procedure:
// authorise, gather facts, decide, prepare and lint, record the intent, sign, record the certificate. Where the profile asks for
// certificate transparency, what is signed first is the precertificate, and finalise makes the certificate of it.
//
// It returns *access.Denied, *policies.Refusal, *InvalidError, ErrIdempotencyMismatch or ErrIdempotencyBusy when there is no
// certificate for a reason of the requester's, and an error wrapping ErrUnavailable when trying again later may help. With any error no
// certificate was released: either nothing was signed, or the intent on record is settled as possibly signed and revoked.
func (c *CA) Issue(ctx context.Context, o Order) (Outcome, error) {
	if len(o.Replaces) > 0 {
		return c.issueReplacing(ctx, o)
	}
	return c.issue(ctx, o)
}

func (c *CA) issue(ctx context.Context, o Order) (Outcome, error) {
	started := c.now()
	if err := c.authorize(ctx, o.Actor, access.IssueCertificate, access.Resource{
		Namespace: o.Actor.Namespace, Kind: "certificate", Profile: o.Profile,
	}); err != nil {
		return Outcome{}, err
	}
	authority, err := c.authority(o.Issuer)
	if err != nil {
		return Outcome{}, err
	}
	if err := c.clock.check(); err != nil {
		return Outcome{}, fmt.Errorf("issuing: %w", err)
	}
	namespace, known := c.namespace(o.Actor.Namespace)
	if err := c.rates.take(namespace, o.Profile, started); err != nil {
		c.metrics.Limited(o.Profile, "rate")
		return Outcome{}, err
	}
	idempotency := IdempotencyKey{Actor: o.Actor.ID, Key: o.IdempotencyKey, Body: o.digest()}
	if earlier, found, err := c.replay(ctx, authority, o.Actor.Namespace, idempotency); err != nil || found {
		return earlier, err
	}

	request, decision, err := c.decide(ctx, o, authority, inquiry{presumed: true})
	if err != nil {
		return Outcome{}, err
	}
	if !known {
		return Outcome{}, c.refuse(ctx, request, unknownNamespace(o.Profile, o.Actor.Namespace))
	}
	grant, err := decision.Grant()
	var needed *policies.ApprovalNeeded
	if errors.As(err, &needed) {
		if len(o.Replaces) > 0 {
			return Outcome{}, waitsToReplace()
		}
		if o.Actor.Unnamed() {
			return Outcome{}, ErrUnnamed
		}
		w, err := c.await(ctx, o, request, decision, needed, idempotency)
		if err != nil {
			return c.answered(ctx, authority, o.Actor.Namespace, idempotency, fmt.Errorf("recording a request that waits: %w", err))
		}
		return Outcome{Waiting: w}, nil
	}
	if err != nil {
		return Outcome{}, c.refuse(ctx, request, err)
	}
	certificate, err := c.complete(ctx, authority, issuable{grant, request, reservations(grant, namespace), idempotency, false})
	var refusal *policies.Refusal
	var exhausted *ExhaustedError
	switch {
	case errors.As(err, &refusal) && isCompromised(refusal):
		return Outcome{}, c.refuseCompromised(ctx, o, authority, err)
	case errors.As(err, &refusal), errors.As(err, &exhausted):
		return Outcome{}, c.refuse(ctx, request, err)
	case err != nil:
		return c.answered(ctx, authority, o.Actor.Namespace, idempotency, err)
	}
	c.metrics.Issued(authority.Name, o.Profile, c.now().Sub(started))
	return authority.outcome(Certificate{NewCertificate: certificate}, false), nil
}

// answered looks whether a request that could not be recorded was, under its idempotency key, an earlier one; otherwise err stands.
func (c *CA) answered(ctx context.Context, a *Authority, namespace string, k IdempotencyKey, err error) (Outcome, error) {
	var replay *Replay
	if !errors.As(err, &replay) && !errors.Is(err, ErrIdempotencyBusy) {
		return Outcome{}, err
	}
	earlier, found, err := c.replay(ctx, a, namespace, k)
	if err == nil && !found {
		err = fmt.Errorf("issuing: %w: the earlier request with this idempotency key came to nothing", ErrUnavailable)
	}
	return earlier, err
}

// issuable is a request that may be issued, with what its intent records.
type issuable struct {
	grant        *policies.Grant
	request      Request
	reservations []policies.Reservation
	idempotency  IdempotencyKey
	approved     bool // it has waited for this
}

// reservations are what the grant takes of what its profile bounds, and of the quotas of its namespace.
func reservations(g *policies.Grant, n access.Namespace) []policies.Reservation {
	return slices.Concat(g.Reservations(), quotas(n, g.Profile()))
}

// quotas are what a certificate of a profile takes of the quotas of its namespace.
func quotas(n access.Namespace, profile string) (all []policies.Reservation) {
	for _, q := range n.Quotas {
		scope := "namespace"
		if q.Profile != "" {
			scope = "namespace/profile/" + q.Profile
		}
		if q.Profile == "" || q.Profile == profile {
			all = append(all, policies.Reservation{Kind: policies.ReserveQuota, Scope: scope, Key: n.Name, Limit: q.Certificates, Window: q.Per})
		}
	}
	return all
}

// complete turns what may be issued into a certificate on record: it builds, lints, records the intent, signs, verifies, and records the
// certificate. A *policies.Refusal or an *ExhaustedError means that nothing was recorded, or that what was is settled; refusing the request is
// the caller's.
func (c *CA) complete(ctx context.Context, authority *Authority, what issuable) (NewCertificate, error) {
	request := what.request
	serial, err := issuance.NewSerial(c.now(), c.random)
	if err != nil {
		return NewCertificate{}, err
	}
	grant, prepared, err := c.draft(authority, what.grant, serial)
	if err != nil {
		return NewCertificate{}, c.unfit(ctx, request, err)
	}
	if !authority.healthy(c.now()) {
		return NewCertificate{}, fmt.Errorf("issuing: the key of %s failed a moment ago: %w", authority.Name, ErrUnavailable)
	}
	if err := c.loggable(grant); err != nil {
		return NewCertificate{}, err
	}
	if err := c.clock.check(); err != nil {
		return NewCertificate{}, fmt.Errorf("issuing: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return NewCertificate{}, fmt.Errorf("issuing: the requester left before anything was recorded: %w", err)
	}
	signatures := 1
	if prepared.Kind() == issuance.Precertificate {
		signatures = 2
	}
	if err := authority.Issuer.Reserve(signatures, c.now()); err != nil {
		c.metrics.Limited(request.Profile, "key")
		return NewCertificate{}, fmt.Errorf("issuing: %w: %w", ErrUnavailable, err)
	}

	// From the intent on, the requester's cancellation no longer counts: what has begun is ended, within a deadline.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), issueDeadline)
	defer cancel()
	intent := Intent{
		Issuer: authority.Name, Serial: serial, Kind: prepared.Kind(), CRLScope: grant.Template().CRLScope, NotAfter: grant.Template().NotAfter,
		Request: request, Idempotency: what.idempotency, Owner: c.replica, Lease: intentLease, Reservations: what.reservations,
		Approved: what.approved,
	}
	signed, err := authority.Issuer.Sign(ctx, prepared, c.intentRecorder(intent))
	switch {
	case errors.Is(err, issuance.ErrPossiblySigned):
		authority.failed(c.now())
		return NewCertificate{}, c.giveUp(ctx, intent, err)
	case errors.Is(err, ErrKeyCompromised): // the decision presumed that it was not, or it became so in between
		return NewCertificate{}, compromisedRefusal(request.Profile)
	case err != nil: // the intent was not recorded, so nothing was signed
		return NewCertificate{}, fmt.Errorf("issuing: recording the intent: %w", err)
	}
	authority.recovered()
	var logs []string
	if signed.Kind == issuance.Precertificate {
		if signed, logs, err = c.finalise(ctx, authority, grant, prepared, signed, &intent); err != nil {
			return NewCertificate{}, c.giveUp(ctx, intent, err)
		}
	}

	certificate := newCertificate(authority, grant, signed, request, c.now(), c.newID(), c.replica)
	if err := c.recordCertificate(ctx, certificate, signed.Signature, logs); err != nil {
		return NewCertificate{}, c.giveUp(ctx, intent, fmt.Errorf("recording the certificate: %w", err))
	}
	return certificate, nil
}

// giveUp settles an intent of which no certificate comes, and says so to the requester: refused, where the key became known as compromised
// while it was signed or the logs were asked.
func (c *CA) giveUp(ctx context.Context, i Intent, why error) error {
	c.abandon(ctx, i, why)
	if errors.Is(why, ErrKeyCompromised) {
		return compromisedRefusal(i.Request.Profile)
	}
	return fmt.Errorf("issuing: %w: %w", ErrUnavailable, why)
}

// draft builds and lints what is to be signed. The grant that comes back says on which CRL it will be.
func (c *CA) draft(a *Authority, g *policies.Grant, serial issuance.Serial) (*policies.Grant, *issuance.Prepared, error) {
	scope := a.lists.ScopeOf(serial)
	point := a.point(scope)
	g = g.Distributed(scope, point.URL, point.DeltaURL)
	prepared, err := a.Issuer.Prepare(g, serial, c.now())
	return g, prepared, err
}

// Evaluate tells what would be decided, rule by rule. Nothing is recorded, nothing is issued. It costs what a request costs until it is
// decided, which may ask the DNS, and counts as one against the rates of the namespace: *LimitedError.
func (c *CA) Evaluate(ctx context.Context, o Order) (*policies.Decision, error) {
	if err := c.authorize(ctx, o.Actor, access.EvaluateProfile, access.Resource{
		Namespace: o.Actor.Namespace, Kind: "profile", ID: o.Profile, Profile: o.Profile,
	}); err != nil {
		return nil, err
	}
	authority, err := c.authority(o.Issuer)
	if err != nil {
		return nil, err
	}
	namespace, known := c.namespace(o.Actor.Namespace)
	if err := c.rates.take(namespace, o.Profile, c.now()); err != nil {
		c.metrics.Limited(o.Profile, "rate")
		return nil, err
	}
	_, decision, err := c.decide(ctx, o, authority, inquiry{usage: true})
	if err == nil && !known {
		decision = decision.RefusedFor(unknownNamespace(o.Profile, o.Actor.Namespace))
	}
	return decision, err
}

// inquiry says which facts are looked up for a decision. Whoever issues learns some of them from the intent, which alone is right, and
// pays nothing twice.
type inquiry struct {
	usage    bool // how much of what a grant reserves is taken
	presumed bool // the key is taken for one that is not compromised, as long as that is what a certificate hangs on
}

// decide gathers the facts and asks the policies that rule. The request it returns holds all that the decision saw. While others rule than
// those that are loaded here, nothing is decided.
func (c *CA) decide(ctx context.Context, o Order, a *Authority, q inquiry) (Request, *policies.Decision, error) {
	if err := c.current(); err != nil {
		return Request{}, nil, fmt.Errorf("deciding: %w", err)
	}
	return c.decideBy(ctx, c.rules(), o, a, q) // once: others may come to rule meanwhile
}

// decideBy asks policies, whether they rule or not.
func (c *CA) decideBy(ctx context.Context, rules *policies.Set, o Order, a *Authority, q inquiry) (Request, *policies.Decision, error) {
	spki := sha256.Sum256(o.CSR.Key().SPKI)
	now := c.now()
	namespace, known := c.namespace(o.Actor.Namespace)
	if !known {
		namespace = access.Namespace{Name: o.Actor.Namespace} // which owns nothing
	}
	facts := policies.Request{
		CSR: o.CSR, Profile: o.Profile, Validity: o.Validity, Actor: o.Actor, Namespace: namespace,
		Issuer: a.Facts(a.Certificate, a.above), Now: now, AuthorityKeys: c.authorityKeys,
	}
	facts.Issuer.CAADomains = c.caa.Domains
	if q.usage {
		besides := quotas(namespace, o.Profile)
		usage, err := c.store.ReservationsTaken(ctx, slices.Concat(besides, rules.Reservations(facts)))
		if err != nil {
			return Request{}, nil, fmt.Errorf("deciding: counting what is reserved: %w", err)
		}
		for i, r := range besides {
			facts.Besides = append(facts.Besides, policies.Taken{Reservation: r, Used: usage[i].Used})
		}
		facts.Usage = usage[len(besides):]
	}
	decision, err := c.decision(ctx, rules, &facts, spki, q.presumed)
	if err != nil {
		return Request{}, nil, err
	}
	roles := make([]string, len(o.Actor.Roles))
	for i, r := range o.Actor.Roles {
		roles[i] = string(r)
	}
	return Request{
		ID: c.newID(), At: now, ActorID: o.Actor.ID, ActorName: o.Actor.Name, Namespace: o.Actor.Namespace, Roles: roles,
		Profile: o.Profile, Issuer: a.Name, CSR: o.CSR.Raw(), SPKI: spki, Validity: o.Validity, Metadata: o.Metadata,
		Verdict: decision.Verdict(), Objections: decision.Objections(), PolicyDigest: decision.PolicyDigest(),
		CompromisedKey: facts.CompromisedKey,
	}, decision, nil
}

// refuse records a refusal and returns it. When it cannot be recorded the requester is told to come again: a refusal leaves a trace too.
func (c *CA) refuse(ctx context.Context, r Request, why error) error {
	c.metrics.Refused(r.Profile)
	r.Verdict = policies.Refuse
	var exhausted *ExhaustedError
	if errors.As(why, &exhausted) {
		v := exhausted.Violation()
		r.Objections = append(r.Objections,
			policies.RuleResult{Rule: v.Rule, Source: "profile", Verdict: policies.Refuse, Violations: []policies.Violation{v}})
		c.metrics.Limited(r.Profile, v.Rule)
	}
	leaf, err := c.refusalLeaf(r, why)
	if err != nil {
		return err
	}
	if err := c.store.RecordRefusal(context.WithoutCancel(ctx), r, leaf); err != nil {
		return fmt.Errorf("recording a refusal: %w", err)
	}
	return why
}

// refusalLeaf tells the audit log which rules a request broke.
func (c *CA) refusalLeaf(r Request, why error) (audit.Leaf, error) {
	var rules []string
	var refusal *policies.Refusal
	var exhausted *ExhaustedError
	if errors.As(why, &refusal) {
		for _, v := range refusal.Violations {
			if !slices.Contains(rules, v.Rule) {
				rules = append(rules, v.Rule)
			}
		}
	} else if errors.As(why, &exhausted) {
		rules = append(rules, exhausted.Violation().Rule)
	}
	return c.leaf(audit.RequestRefused, r.ActorID, r.Namespace, r.At, map[string]string{
		"request": r.ID, "profile": r.Profile, "policy": r.PolicyDigest, "rules": strings.Join(rules, " "),
		"csr_sha256": hexSHA256(r.CSR), "spki_sha256": hex.EncodeToString(r.SPKI[:]),
	})
}

// unfit makes a refusal of what the policies granted and the lints, or the issuer's own bounds, did not. That is a fault of a profile, so
// it is told to the operator, and the requester learns which lint spoke.
func (c *CA) unfit(ctx context.Context, r Request, err error) error {
	var lint *issuance.LintError
	if !errors.As(err, &lint) {
		return fmt.Errorf("issuing: preparing the certificate: %w", err)
	}
	c.log.ErrorContext(ctx, "a granted certificate failed linting: the profile needs mending", "profile", r.Profile, "request", r.ID, "lint",
		lint.Error())
	refusal := &policies.Refusal{Profile: r.Profile}
	for _, f := range lint.Findings {
		refusal.Violations = append(refusal.Violations, policies.Violation{
			Rule: "lint." + f.Lint, Field: "certificate", Message: "the certificate would break " + f.Lint + " (" + f.Level + ")",
			Hint: "the profile lets through what its lints refuse; ask the operator to mend the profile",
		})
	}
	return refusal
}

func unknownNamespace(profile, name string) *policies.Refusal {
	return &policies.Refusal{Profile: profile, Violations: []policies.Violation{{
		Rule: "namespace.known", Field: "namespace", Message: fmt.Sprintf("there is no namespace %q", name),
		Hint: "ask the operator to set it, or use a token of another",
	}}}
}

// unknownRequester refuses what was asked for with an API token that was withdrawn since: whoever had it may not have been its owner.
func unknownRequester(profile string) *policies.Refusal {
	return &policies.Refusal{Profile: profile, Violations: []policies.Violation{{
		Rule: "requester.known", Field: "requester", Message: "the API token that this was asked for with was withdrawn",
		Hint: "ask for it anew, with another token",
	}}}
}

// ruleCompromised is the rule of the policies that an intent for a compromised key breaks.
const ruleCompromised = "key.compromised"

func isCompromised(r *policies.Refusal) bool {
	return slices.ContainsFunc(r.Violations, func(v policies.Violation) bool { return v.Rule == ruleCompromised })
}

// refuseCompromised refuses a request whose key its intent found to be compromised: decided anew with that fact, so that the record and the
// requester have it in the words of the policies. why stands where these do not mind.
func (c *CA) refuseCompromised(ctx context.Context, o Order, a *Authority, why error) error {
	request, decision, err := c.decide(ctx, o, a, inquiry{})
	if err != nil {
		return err
	}
	if _, err := decision.Grant(); err != nil {
		why = err
	}
	return c.refuse(ctx, request, why)
}

func compromisedRefusal(profile string) *policies.Refusal {
	return &policies.Refusal{Profile: profile, Violations: []policies.Violation{{
		Rule: ruleCompromised, Field: "subjectPublicKeyInfo", Message: ErrKeyCompromised.Error(), Hint: "make a new key pair",
	}}}
}

// intentRecorder makes the intent durable, with its audit leaf, when issuance is about to sign.
func (c *CA) intentRecorder(i Intent) issuance.Recorder {
	return issuance.RecorderFunc(func(ctx context.Context, s issuance.Signing) error {
		i.TBS = s.TBS
		leaf, err := c.intentLeaf(i)
		if err != nil {
			return err
		}
		return c.store.RecordIntent(ctx, i, leaf)
	})
}

// intentLeaf tells of an intent whose TBS is set.
func (c *CA) intentLeaf(i Intent) (audit.Leaf, error) {
	return c.leaf(audit.CertificateIntended, i.Request.ActorID, i.Request.Namespace, c.now(), map[string]string{
		"issuer": i.Issuer, "serial": i.Serial.String(), "kind": string(i.Kind), "tbs_sha256": hexSHA256(i.TBS), "request": i.Request.ID,
		"profile": i.Request.Profile, "policy": i.Request.PolicyDigest, "csr_sha256": hexSHA256(i.Request.CSR), "replica": i.Owner.Name,
	})
}

// recordCertificate makes the certificate durable together with what is said of it. While the store is away it tries again until the
// deadline: the signature exists, and losing it would cost a revocation.
func (c *CA) recordCertificate(ctx context.Context, n NewCertificate, s issuance.Signature, logs []string) error {
	leaves, err := c.issuedLeaves(n, s, logs)
	if err != nil {
		return err
	}
	return c.untilAvailable(ctx, func() error { return c.store.RecordCertificate(ctx, n, leaves...) })
}

// abandon settles an own intent at once where it can. Where it cannot, the intent's lease runs out and Recover settles it.
func (c *CA) abandon(ctx context.Context, i Intent, why error) {
	c.metrics.Failed("issue")
	c.log.ErrorContext(ctx, "an issuance failed after its intent was recorded", "issuer", i.Issuer, "serial", i.Serial.String(), "error", why)
	// The certificate may be on record after all: a settlement then finds no open intent, and leaves it alone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleDeadline)
	defer cancel()
	open := OpenIntent{
		Issuer: i.Issuer, Serial: i.Serial, Kind: i.Kind, TBS: i.TBS, Namespace: i.Request.Namespace, RequestID: i.Request.ID,
		Owner: i.Owner,
	}
	if err := c.settle(ctx, open, "the issuance failed after its intent was recorded"); err != nil && !errors.Is(err, ErrIntentLost) {
		c.log.WarnContext(ctx, "the intent stays open until its lease runs out", "issuer", i.Issuer, "serial", i.Serial.String(), "error", err)
	}
}

// replay finds the outcome of an earlier request with the same idempotency key. It waits a little for one that is being worked on. The same
// caller may act for another namespace by now: what was asked for in one is no answer in another, whose rules nobody has asked.
func (c *CA) replay(ctx context.Context, a *Authority, namespace string, k IdempotencyKey) (earlier Outcome, found bool, err error) {
	if k.Key == "" {
		return Outcome{}, false, nil
	}
	wait, cancel := context.WithTimeout(ctx, replayWait)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		replay, err := c.store.FindReplay(ctx, k)
		switch {
		case err != nil:
			return Outcome{}, false, fmt.Errorf("looking the idempotency key up: %w", err)
		case replay == nil:
			return Outcome{}, false, nil
		case replay.Mismatch:
			return Outcome{}, false, ErrIdempotencyMismatch
		case replay.Waiting != "":
			earlier, err := c.replayWaiting(ctx, a, namespace, replay.Waiting)
			return earlier, true, err
		case !replay.Open && replay.Certificate.Namespace != namespace:
			return Outcome{}, false, ErrIdempotencyMismatch
		case !replay.Open:
			if other, err := c.authority(replay.Certificate.Issuer); err == nil {
				a = other
			}
			return a.outcome(replay.Certificate, true), true, nil
		}
		select {
		case <-wait.Done():
			return Outcome{}, false, ErrIdempotencyBusy
		case <-tick.C:
		}
	}
}

// replayWaiting is the answer to a request that needs, or needed, approval: where it stands, or the certificate that it became.
func (c *CA) replayWaiting(ctx context.Context, a *Authority, namespace, id string) (Outcome, error) {
	w, err := c.store.WaitingRequest(ctx, id)
	if err != nil {
		return Outcome{}, fmt.Errorf("looking the waiting request up: %w", err)
	}
	if w.Namespace != namespace {
		return Outcome{}, ErrIdempotencyMismatch
	}
	if w.Status != StatusIssued {
		return Outcome{Waiting: &w, Replayed: true}, nil
	}
	issued, err := c.store.IssuedCertificate(ctx, w.Issuer, w.Serial)
	if err != nil {
		return Outcome{}, fmt.Errorf("looking up the certificate of request %s: %w", id, err)
	}
	if other, err := c.authority(issued.Issuer); err == nil {
		a = other
	}
	return a.outcome(issued, true), nil
}

func newCertificate(a *Authority, g *policies.Grant, s *issuance.Certificate, r Request, at time.Time, eventID string,
	owner Replica,
) NewCertificate {
	t := g.Template()
	return NewCertificate{
		Issuer: a.Name, Serial: s.Serial, Kind: s.Kind, DER: s.DER, SPKI: sha256.Sum256(t.SPKI), CRLScope: t.CRLScope, Profile: g.Profile(),
		PolicyDigest: g.PolicyDigest(), Namespace: r.Namespace, RequestID: r.ID, Subject: t.Subject.String(), Names: t.Names(),
		NotBefore: t.NotBefore, NotAfter: t.NotAfter, IssuedAt: at, EventID: eventID, Owner: owner,
	}
}

func hexSHA256(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func nonEmpty(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}
