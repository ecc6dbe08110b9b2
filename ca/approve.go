package ca

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/csr"
	"github.com/chancery-ca/chancery/policies"
)

const (
	expireEvery = 5 * time.Second
	resumeEvery = 15 * time.Second
	tendBatch   = 100
	// resumeAfter is how old the last approval must be before a request that has all of them is taken up again: by then whoever gave it
	// has the answer, or never will.
	resumeAfter = 2 * issueDeadline
)

// The states of a request that needs, or needed, approval.
const (
	StatusWaiting  = "waiting"
	StatusIssuing  = "issuing" // an intent is on record, and no certificate yet
	StatusIssued   = "issued"
	StatusRejected = "rejected" // by a person
	StatusExpired  = "expired"  // nobody decided in time
	StatusRefused  = "refused"  // by the policies, which have changed since
)

// WaitingRequest is a request that needs approval, and what became of it.
type WaitingRequest struct {
	Request
	Actor     access.Actor // who asked, as the decision saw it
	Subject   string       // of the certificate that would be issued; RFC 4514
	Names     []string     // its subject alternative names as text
	ExpiresAt time.Time
	Status    string
	Why       string    // it ended, for people
	ClosedAt  time.Time // zero: it has not, or it was issued
	Serial    []byte    // of the certificate, or of the intent
	Withdrawn bool      // the API token is that it was asked for with: nothing is issued
	Approvals []ApprovalRecord
}

// ApprovalRecord is one person's word for or against a request.
type ApprovalRecord struct {
	policies.Approval
	Approved  bool
	Comment   string
	EventID   string    // of its leaf
	Evidence  *Evidence // nil: it is not signed
	Withdrawn bool      // it counts no more: the key that signed it has ended, or the API token that it was given with was withdrawn
}

// RequestState is a waiting request with what it still needs under the policies that hold now. Need is 0 where it waits no more.
type RequestState struct {
	WaitingRequest
	Need, Have int
	Groups     []string             // of which an approver must be in one; empty: any approver
	Signed     bool                 // each must sign with the own key
	Binding    string               // names what an approval given now would be for
	Policies   string               // digest of those that decided now
	Reasons    []policies.Violation // what asks for approval
	Decision   *policies.Decision   // nil where it waits no more
}

// WaitingFilter selects requests that need, or needed, approval.
type WaitingFilter struct {
	Namespace string // access.AllNamespaces for all
	Status    string // empty: any
	Cursor    string // as the last page gave it
	Limit     int    // 1 to 500
}

// ApprovalStore keeps requests that wait, and the approvals of them.
type ApprovalStore interface {
	// RecordWaiting makes a request that needs approval durable, with its claim of an idempotency key. Of the key it says what
	// RecordIntent says.
	RecordWaiting(ctx context.Context, w WaitingRequest, k IdempotencyKey, leaves ...audit.Leaf) error
	// RecordApproval adds a person's word; one against the request ends its waiting, with the comment as the reason. ErrDecided when it
	// waits no more. The same person's same word for the same binding again changes nothing, and its leaves are not written.
	RecordApproval(ctx context.Context, request string, a ApprovalRecord, leaves ...audit.Leaf) error
	// CloseWaiting ends the waiting of a request: StatusExpired or StatusRefused. ErrDecided when it waits no more.
	CloseWaiting(ctx context.Context, request, status, why string, at time.Time, leaves ...audit.Leaf) error
	// WaitingRequest is one request with its approvals; ErrNotFound.
	WaitingRequest(ctx context.Context, id string) (WaitingRequest, error)
	// WaitingRequests pages through requests, newest first, without their approvals.
	WaitingRequests(ctx context.Context, f WaitingFilter) (page []WaitingRequest, next string, err error)
	// OverdueRequests are at most max requests whose time to wait has run out by the database's clock.
	OverdueRequests(ctx context.Context, max int) ([]string, error)
	// ExpiringRequests are at most max requests that wait, have waited for three quarters of their time at least, end within a span, and of
	// which no event says so yet.
	ExpiringRequests(ctx context.Context, within time.Duration, max int) ([]ExpiringRequest, error)
	// ApprovedRequests are at most max requests that wait although somebody approved them at least an age ago.
	ApprovedRequests(ctx context.Context, age time.Duration, max int) ([]string, error)
}

// ExpiringRequest is a request that will soon wait no more. Event and moment of telling so come of the request alone: all replicas tell the
// same.
type ExpiringRequest struct {
	ID, Namespace, Profile string
	ExpiresAt              time.Time
	EventID                string
	At                     time.Time // since when it is to be told
}

// await records a request that needs approval.
func (c *CA) await(ctx context.Context, o Order, r Request, d *policies.Decision, needed *policies.ApprovalNeeded,
	k IdempotencyKey,
) (*WaitingRequest, error) {
	w := WaitingRequest{Request: r, Actor: o.Actor, ExpiresAt: r.At.Add(needed.Expires), Status: StatusWaiting}
	if t, ok := d.Template(); ok {
		w.Subject, w.Names = t.Subject.String(), t.Names()
	}
	leaf, err := c.leaf(audit.RequestWaiting, r.ActorID, r.Namespace, r.At, map[string]string{
		"request": r.ID, "profile": r.Profile, "policy": r.PolicyDigest, "csr_sha256": hexSHA256(r.CSR), "binding": needed.Binding,
		"approvals": strconv.Itoa(needed.Need), "expires": w.ExpiresAt.UTC().Format(time.RFC3339),
	})
	if err != nil {
		return nil, err
	}
	if err := c.store.RecordWaiting(context.WithoutCancel(ctx), w, k, leaf); err != nil {
		return nil, err
	}
	c.metrics.Waiting(r.Profile)
	return &w, nil
}

// Requests pages through the requests of the actor's namespace that need, or needed, approval.
func (c *CA) Requests(ctx context.Context, actor access.Actor, f WaitingFilter) (page []WaitingRequest, next string, err error) {
	if err := c.authorize(ctx, actor, access.ReadRequest, access.Resource{Namespace: actor.Namespace, Kind: "request"}); err != nil {
		return nil, "", err
	}
	f.Namespace = actor.Namespace
	page, next, err = c.store.WaitingRequests(ctx, f)
	if err != nil {
		return nil, "", fmt.Errorf("listing requests: %w", err)
	}
	return page, next, nil
}

// Request is one request, with what it still needs.
func (c *CA) Request(ctx context.Context, actor access.Actor, id string) (RequestState, error) {
	w, err := c.findRequest(ctx, actor, access.ReadRequest, id)
	if err != nil {
		return RequestState{}, err
	}
	state, _, err := c.judge(ctx, w)
	return state, err
}

func (c *CA) findRequest(ctx context.Context, actor access.Actor, action access.Action, id string) (WaitingRequest, error) {
	if err := c.authorize(ctx, actor, action, access.Resource{Namespace: actor.Namespace, Kind: "request", ID: id}); err != nil {
		return WaitingRequest{}, err
	}
	w, err := c.store.WaitingRequest(ctx, id)
	if err != nil {
		return WaitingRequest{}, fmt.Errorf("looking the request up: %w", err)
	}
	return w, c.authorize(ctx, actor, action, access.Resource{Namespace: w.Namespace, Kind: "request", ID: id})
}

// judge asks the policies that hold now about a request that waits, and tells what it still needs. The request with the facts of the new
// decision keeps its ID.
func (c *CA) judge(ctx context.Context, w WaitingRequest) (RequestState, Request, error) {
	state := RequestState{WaitingRequest: w}
	if w.Status != StatusWaiting {
		return state, w.Request, nil
	}
	parsed, err := csr.Parse(w.CSR)
	if err != nil {
		return state, w.Request, fmt.Errorf("reading the CSR of request %s again: %w", w.ID, err)
	}
	authority, err := c.authority(w.Issuer)
	if err != nil {
		return state, w.Request, err
	}
	o := Order{Actor: w.Actor, Profile: w.Profile, Issuer: w.Issuer, CSR: parsed, Validity: w.Validity, Metadata: w.Metadata}
	request, decision, err := c.decide(ctx, o, authority, inquiry{})
	if err != nil {
		return state, w.Request, err
	}
	request.ID, state.Decision = w.ID, decision
	var needed *policies.ApprovalNeeded
	if _, err := decision.Grant(w.approvals()...); errors.As(err, &needed) {
		state.Need, state.Have, state.Groups = needed.Need, needed.Have, needed.Groups
		state.Binding, state.Reasons = needed.Binding, needed.Reasons
		state.Signed, state.Policies = needed.Signed, request.PolicyDigest
	}
	return state, request, nil
}

// approvals are the words for the request that nobody has withdrawn. Which of them count, the decision knows.
func (w WaitingRequest) approvals() (all []policies.Approval) {
	for _, a := range w.Approvals {
		if a.Approved && !a.Withdrawn {
			all = append(all, a.Approval)
		}
	}
	return all
}

// ApproveOrder is a person's word for or against a request.
type ApproveOrder struct {
	Actor   access.Actor
	Request string
	Binding string // as Request gave it; when the policies have changed since, the approval is turned down. Empty: whatever holds now
	Comment string
	// Signature, in PEM, is by the actor's own key over the statement that goes with the word: RequestState.Statement for an approval, the
	// same with the other decision for a rejection. Needed where the state says so.
	Signature []byte
}

// Approve adds an approval to a request, and with the last one that it needs issues the certificate. The policies are asked anew: under
// changed ones earlier approvals no longer count, and what they now refuse ends as refused. Approving again is harmless, and takes up an
// issuance that failed.
//
// It returns ErrNotFound, ErrDecided, ErrOwnRequest, ErrUnnamed, ErrApprovalIdle, ErrBindingChanged, ErrUnsigned, ErrSignature,
// *policies.Refusal, *ExhaustedError, *InvalidError, *access.Denied, or an error wrapping ErrUnavailable. The approval,
// once recorded, stays whatever becomes of the issuance.
func (c *CA) Approve(ctx context.Context, o ApproveOrder) (RequestState, error) {
	w, err := c.findOpen(ctx, o)
	if err != nil {
		return RequestState{}, err
	}
	given := w.wordOf(o.Actor.Person)
	if w.Status == StatusIssued && given {
		return RequestState{WaitingRequest: w}, nil
	}
	if w.Status != StatusWaiting {
		return RequestState{}, ErrDecided
	}
	switch {
	case o.Actor.Unnamed() || w.Actor.Unnamed():
		return RequestState{}, ErrUnnamed
	case o.Actor.Person == w.Actor.Person || o.Actor.ID == w.Actor.ID:
		return RequestState{}, ErrOwnRequest
	case slices.ContainsFunc(w.Approvals, func(a ApprovalRecord) bool { return isRenamed(o.Actor, a.Actor, a.Person) }):
		return RequestState{}, ErrApprovalIdle
	}
	state, request, err := c.judge(ctx, w)
	if err != nil {
		return RequestState{}, err
	}
	if state.Decision.Verdict() == policies.Refuse {
		_, err := state.Decision.Grant()
		return RequestState{}, c.closeRefused(ctx, request, err)
	}
	if o.Binding != "" && o.Binding != state.Binding {
		return RequestState{}, ErrBindingChanged
	}
	if err := c.addApproval(ctx, o, state); err != nil {
		return RequestState{}, err
	}
	if w, err = c.store.WaitingRequest(ctx, o.Request); err != nil {
		return RequestState{}, fmt.Errorf("reading the approvals: %w", err)
	}
	if err := c.issueApproved(ctx, w, request, state.Decision); err != nil {
		return RequestState{}, err
	}
	if w, err = c.store.WaitingRequest(ctx, o.Request); err != nil {
		return RequestState{}, fmt.Errorf("reading the request: %w", err)
	}
	state.WaitingRequest, state.Need, state.Have = w, 0, 0
	var needed *policies.ApprovalNeeded
	if _, err := state.Decision.Grant(w.approvals()...); errors.As(err, &needed) && w.Status == StatusWaiting {
		state.Need, state.Have = needed.Need, needed.Have
	}
	return state, nil
}

// isRenamed tells whether a word was given with the credential that an actor has, as another person: a login may be another person by the claims
// that it has the next time, and one credential is one approver. Of two words at once neither is seen here: whoever counts them counts one.
func isRenamed(actor access.Actor, id, person string) bool {
	return actor.ID == id && actor.Person != person
}

// wordOf tells whether a person has approved.
func (w WaitingRequest) wordOf(person string) bool {
	for _, a := range w.Approvals {
		if a.Approved && a.Person == person {
			return true
		}
	}
	return false
}

func (c *CA) findOpen(ctx context.Context, o ApproveOrder) (WaitingRequest, error) {
	w, err := c.findRequest(ctx, o.Actor, access.ApproveRequest, o.Request)
	if err != nil {
		return WaitingRequest{}, err
	}
	if len(o.Comment) > maxComment {
		return w, &InvalidError{Field: "comment", Message: fmt.Sprintf("the comment has more than %d octets", maxComment), Hint: "shorten it"}
	}
	if w.Status == StatusWaiting && !c.now().Before(w.ExpiresAt) {
		if err := c.expire(ctx, w); err != nil && !errors.Is(err, ErrDecided) {
			return w, err
		}
		return w, ErrDecided
	}
	return w, nil
}

// addApproval records the actor's approval, if it counts and is not on record.
func (c *CA) addApproval(ctx context.Context, o ApproveOrder, state RequestState) error {
	evidence, err := c.evidence(ctx, state.statement(o.Actor.Person, true), o.Signature, false)
	if err != nil {
		return err
	}
	approval := policies.Approval{Person: o.Actor.Person, Actor: o.Actor.ID, Groups: o.Actor.Groups, At: c.now(), Binding: state.Binding}
	if evidence != nil {
		approval.Key = evidence.Key.Fingerprint()
	}
	if slices.ContainsFunc(state.Approvals, func(a ApprovalRecord) bool {
		return a.Withdrawn && a.Approved && a.Person == o.Actor.Person && a.Binding == state.Binding
	}) {
		return ErrApprovalIdle // a person speaks once
	}
	var still *policies.ApprovalNeeded
	if _, err := state.Decision.Grant(append(state.approvals(), approval)...); errors.As(err, &still) && still.Have <= state.Have {
		for _, a := range state.Approvals {
			if a.Approved && a.Person == o.Actor.Person && a.Binding == state.Binding {
				return nil
			}
		}
		if state.Signed && evidence == nil {
			return ErrUnsigned
		}
		return ErrApprovalIdle
	}
	record := ApprovalRecord{Approval: approval, Approved: true, Comment: o.Comment, EventID: c.newID(), Evidence: evidence}
	return c.recordWord(ctx, audit.RequestApproved, o, state.WaitingRequest, record)
}

func (c *CA) recordWord(ctx context.Context, kind audit.Kind, o ApproveOrder, w WaitingRequest, a ApprovalRecord) error {
	data := map[string]string{
		"request": w.ID, "person": a.Person, "binding": a.Binding, "profile": w.Profile, "csr_sha256": hexSHA256(w.CSR),
		"comment": a.Comment,
	}
	a.Evidence.tell(data)
	leaf, err := c.leafWithID(a.EventID, kind, o.Actor.ID, w.Namespace, a.At, data)
	if err != nil {
		return err
	}
	if err := c.store.RecordApproval(ctx, w.ID, a, leaf); err != nil {
		return fmt.Errorf("recording the word of %s: %w", a.Person, err)
	}
	return nil
}

// issueApproved issues the certificate of a request that has all its approvals; for one that lacks some it does nothing. Where another
// replica was first, its issuance stands.
func (c *CA) issueApproved(ctx context.Context, w WaitingRequest, request Request, d *policies.Decision) error {
	started := c.now()
	namespace, known := c.namespace(w.Namespace)
	if !known {
		return c.closeRefused(ctx, request, unknownNamespace(w.Profile, w.Namespace))
	}
	if w.Withdrawn {
		return c.closeRefused(ctx, request, unknownRequester(w.Profile))
	}
	grant, err := d.Grant(w.approvals()...)
	var needed *policies.ApprovalNeeded
	if errors.As(err, &needed) {
		return nil
	}
	if err != nil {
		return c.closeRefused(ctx, request, err)
	}
	authority, err := c.authority(w.Issuer)
	if err != nil {
		return err
	}
	_, err = c.complete(ctx, authority, issuable{grant, request, reservations(grant, namespace), IdempotencyKey{}, true})
	var refusal *policies.Refusal
	switch {
	case errors.As(err, &refusal):
		return c.closeRefused(ctx, request, err)
	case errors.Is(err, ErrDecided):
		return nil
	case err != nil:
		return err
	}
	c.metrics.Issued(authority.Name, w.Profile, c.now().Sub(started))
	c.metrics.Decided(w.Profile, StatusIssued)
	return nil
}

// closeRefused ends the waiting of a request that the policies now refuse, and returns the refusal. After one that time alone may mend, as
// where name servers do not answer, the request goes on waiting: an approval can be repeated, and what is approved is resumed.
func (c *CA) closeRefused(ctx context.Context, r Request, why error) error {
	var refusal *policies.Refusal
	if errors.As(why, &refusal) && refusal.Temporary() {
		return why
	}
	leaf, err := c.refusalLeaf(r, why)
	if err != nil {
		return err
	}
	err = c.store.CloseWaiting(context.WithoutCancel(ctx), r.ID, StatusRefused, why.Error(), c.now(), leaf)
	if err != nil {
		return fmt.Errorf("recording a refusal: %w", err)
	}
	c.metrics.Refused(r.Profile)
	c.metrics.Decided(r.Profile, StatusRefused)
	return why
}

// Reject ends the waiting of a request. Its errors are those of Approve.
func (c *CA) Reject(ctx context.Context, o ApproveOrder) (RequestState, error) {
	w, err := c.findOpen(ctx, o)
	switch {
	case err != nil:
		return RequestState{}, err
	case w.Status != StatusWaiting:
		return RequestState{}, ErrDecided
	case o.Actor.Unnamed():
		return RequestState{}, ErrUnnamed
	}
	evidence, err := c.rejectionEvidence(ctx, o, w)
	if err != nil {
		return RequestState{}, err
	}
	record := ApprovalRecord{
		Approval: policies.Approval{Person: o.Actor.Person, Actor: o.Actor.ID, Groups: o.Actor.Groups, At: c.now(), Binding: o.Binding},
		Comment:  o.Comment, EventID: c.newID(), Evidence: evidence,
	}
	if err := c.recordWord(ctx, audit.RequestRejected, o, w, record); err != nil {
		return RequestState{}, err
	}
	c.metrics.Decided(w.Profile, StatusRejected)
	w, err = c.store.WaitingRequest(ctx, o.Request)
	if err != nil {
		return RequestState{}, fmt.Errorf("reading the request: %w", err)
	}
	return RequestState{WaitingRequest: w}, nil
}

// rejectionEvidence verifies the signature of a rejection, which nobody needs to give: what it is over is what an approval would be.
func (c *CA) rejectionEvidence(ctx context.Context, o ApproveOrder, w WaitingRequest) (*Evidence, error) {
	if len(o.Signature) == 0 {
		return nil, nil
	}
	state, _, err := c.judge(ctx, w)
	if err != nil {
		return nil, err
	}
	return c.evidence(ctx, state.statement(o.Actor.Person, false), o.Signature, true)
}

// ExpireWaiting ends the waiting of requests whose time has run out. Any number of replicas may do it at once.
func (c *CA) ExpireWaiting(ctx context.Context) error {
	overdue, err := c.store.OverdueRequests(ctx, tendBatch)
	if err != nil {
		return fmt.Errorf("looking for overdue requests: %w", err)
	}
	for _, id := range overdue {
		w, err := c.store.WaitingRequest(ctx, id)
		if err != nil {
			return fmt.Errorf("reading an overdue request: %w", err)
		}
		if err := c.expire(ctx, w); err != nil && !errors.Is(err, ErrDecided) {
			return err
		}
	}
	return nil
}

// ResumeApproved takes up requests that have all their approvals and were left without a certificate: by a crash, by a key that failed, by
// a quota that was used up. Any number of replicas may do it at once; one of them issues.
func (c *CA) ResumeApproved(ctx context.Context) error {
	approved, err := c.store.ApprovedRequests(ctx, resumeAfter, tendBatch)
	if err != nil {
		return fmt.Errorf("looking for approved requests: %w", err)
	}
	for _, id := range approved {
		if err := c.resume(ctx, id); err != nil {
			c.log.WarnContext(ctx, "an approved request could not be issued; trying again", "request", id, "error", err)
		}
	}
	return nil
}

// TellExpiring records of each request that will soon wait no more that it will, once, for those who are notified. Any number of replicas
// may do it at once: they record the same.
func (c *CA) TellExpiring(ctx context.Context) error {
	if c.expiring == 0 {
		return nil
	}
	soon, err := c.store.ExpiringRequests(ctx, c.expiring, tendBatch)
	if err != nil {
		return fmt.Errorf("looking for requests that expire: %w", err)
	}
	for _, r := range soon {
		leaf, err := audit.New(audit.Event{
			ID: r.EventID, Kind: audit.RequestExpiring, Time: r.At, Actor: access.Service, Namespace: r.Namespace,
			Data: map[string]string{"request": r.ID, "profile": r.Profile, "expires": r.ExpiresAt.UTC().Format(time.RFC3339)},
		})
		if err != nil {
			return fmt.Errorf("recording that request %s expires: %w", r.ID, err)
		}
		if err := c.store.RecordEvents(ctx, leaf); err != nil {
			return fmt.Errorf("recording that request %s expires: %w", r.ID, err)
		}
	}
	return nil
}

func (c *CA) resume(ctx context.Context, id string) error {
	w, err := c.store.WaitingRequest(ctx, id)
	if err != nil || w.Status != StatusWaiting {
		return err
	}
	state, request, err := c.judge(ctx, w)
	if err != nil {
		return err
	}
	// Judging may have asked others, and taken a while: what was withdrawn meanwhile counts no more.
	if w, err = c.store.WaitingRequest(ctx, id); err != nil || w.Status != StatusWaiting {
		return err
	}
	return c.issueApproved(ctx, w, request, state.Decision)
}

func (c *CA) expire(ctx context.Context, w WaitingRequest) error {
	leaf, err := c.leaf(audit.RequestExpired, access.Service, w.Namespace, c.now(), map[string]string{
		"request": w.ID, "profile": w.Profile, "csr_sha256": hexSHA256(w.CSR), "expired": w.ExpiresAt.UTC().Format(time.RFC3339),
	})
	if err != nil {
		return err
	}
	if err := c.store.CloseWaiting(ctx, w.ID, StatusExpired, "nobody decided in time", c.now(), leaf); err != nil {
		return fmt.Errorf("ending an overdue request: %w", err)
	}
	c.metrics.Decided(w.Profile, StatusExpired)
	return nil
}
