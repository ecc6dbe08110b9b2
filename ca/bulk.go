package ca

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/issuance"
)

const (
	// LotSize is how many certificates one transaction of a job revokes: enough that the wait for the disk is shared, and few enough that
	// nobody waits long for its locks.
	LotSize = 500
	// AtOnce is how many certificates a job may have so that whoever orders it gets the outcome in the answer: one lot.
	AtOnce = LotSize
	// revocationLife is how long persons have to approve a job.
	revocationLife = 24 * time.Hour
	// atOnceDeadline is how long whoever ordered a job waits for it while the store is away; then it goes on in the background.
	atOnceDeadline = issueDeadline
	// revocationSelect bounds the search for the certificates of a job.
	revocationSelect = 50 * time.Second
)

// RevocationPlan says how revocations of many certificates go.
type RevocationPlan struct {
	// ApproveAbove is how many certificates one person may revoke by one order; for more, another must approve. 0: any number.
	ApproveAbove int
	// Signed asks that each approval be signed by the approver's own key.
	Signed bool
	// LotsPerSecond bounds how fast a job goes on, in lots of LotSize. Besides, unless keys are compromised, it rests as long as each lot
	// took, up to maxLotRest, so that issuance has half of the database's time. 0: DefaultLotsPerSecond.
	LotsPerSecond float64
}

// DefaultLotsPerSecond is the speed of a job where nothing else is said: 5,000 certificates a second at most.
const DefaultLotsPerSecond = 10

// Selection says which certificates are meant. Of each list one must fit; all criteria given must. Certificates that are not the
// namespace's are never met.
type Selection struct {
	Serials      [][]byte
	Certificates [][]byte   // DER
	Keys         [][32]byte // SHA-256 of the SubjectPublicKeyInfo
	Names        []string   // subject alternative names as text, whole, in any case
	Requester    string     // ID of the credential that asked for the certificate
	Profile      string
	Issuer       string // name of the authority
	Namespace    string // access.AllNamespaces for all
	IssuedFrom   time.Time
	IssuedUntil  time.Time // exclusive
	All          bool      // says that everything of an issuer, a profile or a namespace is meant
}

// narrow tells whether a selection names certificates by more than whole groups.
func (s Selection) narrow() bool {
	return len(s.Serials)+len(s.Certificates)+len(s.Keys)+len(s.Names) > 0 || s.Requester != "" || !s.IssuedFrom.IsZero() ||
		!s.IssuedUntil.IsZero()
}

// Text is the selection for people and for the audit log: long lists by their number.
func (s Selection) Text() map[string]string {
	const shown = 10
	text := map[string]string{}
	set := func(name, value string) {
		if value != "" {
			text[name] = value
		}
	}
	list := func(name string, n int, one func(int) string) {
		if n > shown {
			set(name, strconv.Itoa(n)+" of them")
			return
		}
		all := make([]string, n)
		for i := range all {
			all[i] = one(i)
		}
		set(name, strings.Join(all, ", "))
	}
	list("serials", len(s.Serials), func(i int) string { return hex.EncodeToString(s.Serials[i]) })
	list("certificates", len(s.Certificates), func(i int) string { return "sha256:" + hexSHA256(s.Certificates[i]) })
	list("keys", len(s.Keys), func(i int) string { return hex.EncodeToString(s.Keys[i][:]) })
	list("names", len(s.Names), func(i int) string { return s.Names[i] })
	set("requester", s.Requester)
	set("profile", s.Profile)
	set("issuer", s.Issuer)
	if s.Namespace != access.AllNamespaces {
		set("namespace", s.Namespace)
	}
	if !s.IssuedFrom.IsZero() {
		set("issued_from", s.IssuedFrom.UTC().Format(time.RFC3339))
	}
	if !s.IssuedUntil.IsZero() {
		set("issued_until", s.IssuedUntil.UTC().Format(time.RFC3339))
	}
	if s.All {
		set("all", "true")
	}
	return text
}

// RevocationOutlook is what a selection means for a reason: what would be revoked, and what would not and why.
type RevocationOutlook struct {
	Found      int            `json:"found"`     // certificates that the selection met
	ToRevoke   int            `json:"to_revoke"` // of these, whose state would change
	Already    int            `json:"already"`   // revoked before, or held, or not held: they stay as they are
	Expired    int            `json:"expired"`
	Keys       int            `json:"keys"`    // of those that stay as they are: to be remembered as compromised, each once
	Unknown    int            `json:"unknown"` // serials given that are nobody's, or another namespace's
	Issuers    map[string]int `json:"issuers"` // to be revoked, by authority
	Profiles   map[string]int `json:"profiles"`
	Namespaces map[string]int `json:"namespaces"`
	Examples   []struct {     // of those to be revoked, up to ten
		Serial  string   `json:"serial"`
		Issuer  string   `json:"issuer"`
		Subject string   `json:"subject"`
		Names   []string `json:"names"`
	} `json:"examples"`
	UnknownSerials []string `json:"unknown_serials"` // up to a thousand
}

// The states of a job.
const (
	JobWaiting   = "waiting"   // for approval
	JobExpired   = "expired"   // nobody approved in time
	JobRejected  = "rejected"  // by a person
	JobRunning   = "running"   // or about to
	JobFinished  = "finished"  // every certificate of it was seen to
	JobCancelled = "cancelled" // by a person; what was revoked stays so
)

// RevocationJob is an order to revoke certificates, and how far it has come. Which certificates is frozen when it is ordered.
type RevocationJob struct {
	ID             string
	Namespace      string // of who ordered it
	Actor          access.Actor
	Selection      map[string]string // as Selection.Text tells it
	Reason         issuance.Reason
	Comment        string
	InvalidityDate time.Time // zero: not told
	AskedAt        time.Time
	ExpiresAt      time.Time // it must be approved before
	Needs          int       // approvals of persons other than who ordered it
	Digest         [32]byte  // of its certificates: what is approved
	Lots           int
	Found          int
	Total          int // of these there was something to be done with: to revoke them, or to remember their keys
	Keys           int // to be remembered as compromised, of certificates that stay as they are
	EventID        string

	ApprovedAt time.Time // zero: it waits
	NextLot    int
	Counts     RevocationCounts
	Outcome    string // JobFinished, JobCancelled, JobRejected; empty while it goes on
	ClosedAt   time.Time
	Votes      []RevocationVote
}

// RevocationCounts says what became of certificates.
type RevocationCounts struct {
	Revoked int // or held, or released
	Already int // in that state before
	Expired int
	Refused int // by their profile, which knows no hold

	Remembered int // keys, of those that were revoked already or expired
}

func (n RevocationCounts) plus(m RevocationCounts) RevocationCounts {
	return RevocationCounts{
		n.Revoked + m.Revoked, n.Already + m.Already, n.Expired + m.Expired, n.Refused + m.Refused, n.Remembered + m.Remembered,
	}
}

// Status says where a job stands at a moment.
func (j RevocationJob) Status(now time.Time) string {
	switch {
	case j.Outcome != "":
		return j.Outcome
	case !j.ApprovedAt.IsZero():
		return JobRunning
	case !now.Before(j.ExpiresAt):
		return JobExpired
	}
	return JobWaiting
}

// RevocationVote is what a person says to a job.
type RevocationVote struct {
	Person    string
	Approves  bool
	Digest    [32]byte // of the certificates that were looked at
	ActorID   string
	ActorName string
	Comment   string
	At        time.Time
	EventID   string
	Evidence  *Evidence // nil: it is not signed
	Withdrawn bool      // as of ApprovalRecord
	Signed    bool      // of those before it, count the signed ones alone; not kept
}

// RevocationItem is a certificate of a job with its state.
type RevocationItem struct {
	Issuer    string
	Serial    []byte
	Profile   string
	Namespace string
	CRLScope  string
	SPKI      [32]byte
	NotAfter  time.Time
	Sequence  int             // of its latest entry; 0: none
	Reason    issuance.Reason // of that entry
	KeyKnown  bool            // as compromised
}

// RevocationLot is what one transaction of a job records.
type RevocationLot struct {
	Job         string
	Number      int
	Fence       int64
	Lease       time.Duration // from the database's now
	Counts      RevocationCounts
	Last        bool // the job is finished with it
	At          time.Time
	Revocations []Revocation // in order of issuer and serial; Sequence is the one that each gets
	// Keys are to be remembered as compromised although their certificates stay as they are: each once, and none of Revocations.
	Keys []RevocationItem
}

// BulkStore keeps jobs. The certificates of a job, once recorded, never change.
type BulkStore interface {
	// RevocationOutlook tells what a selection means for a reason at a moment.
	RevocationOutlook(ctx context.Context, s Selection, wish issuance.Reason, now time.Time) (RevocationOutlook, error)
	// RecordRevocationJob freezes the certificates that a selection meets and records the job, with the leaves that ready makes once
	// their digest is known. A job with nothing to do is finished at once; one that needs no approval is approved.
	RecordRevocationJob(ctx context.Context, j RevocationJob, s Selection,
		ready func(*RevocationJob) ([]audit.Leaf, error)) (RevocationJob, RevocationOutlook, error)
	// ClaimRevocationJob makes the claimant the only one to work on a job for the length of the lease: on the one with an ID or, when
	// that is empty, on the most urgent that nobody works on: keyCompromise first. ErrNotFound when there is none.
	ClaimRevocationJob(ctx context.Context, id string, by Replica, lease time.Duration) (j RevocationJob, fence int64, err error)
	// ClaimUrgentRevocation is ClaimRevocationJob for the jobs of keyCompromise alone.
	ClaimUrgentRevocation(ctx context.Context, by Replica, lease time.Duration) (j RevocationJob, fence int64, err error)
	// RevocationItems are the certificates of a lot with their state.
	RevocationItems(ctx context.Context, job string, lot int) ([]RevocationItem, error)
	// RecordRevocationLot records the revocations of a lot, all or none, and the progress of its job with them. ErrFenced when the
	// job has another worker or has ended: nothing was written. ErrExists when another revocation of one of its certificates came
	// first, or one of its keys became known as compromised: look at the lot again.
	RecordRevocationLot(ctx context.Context, l RevocationLot, leaves ...audit.Leaf) error
	// RevocationJob is one job with its votes; ErrNotFound.
	RevocationJob(ctx context.Context, id string) (RevocationJob, error)
	// RevocationJobs pages through jobs, newest first, without their votes. Namespace narrows unless it is access.AllNamespaces.
	RevocationJobs(ctx context.Context, namespace, cursor string, limit int) (page []RevocationJob, next string, err error)
	// VoteOnRevocation records what a person says to a job: ErrExists when the person has spoken before, ErrDecided when it does not
	// wait. The last approval that is needed lets it run; a rejection ends it.
	VoteOnRevocation(ctx context.Context, job string, v RevocationVote, leaves ...audit.Leaf) error
	// CancelRevocation ends a job; ErrDecided when it has ended.
	CancelRevocation(ctx context.Context, job string, at time.Time, leaves ...audit.Leaf) error
}

// BulkOrder is a wish to revoke many certificates.
type BulkOrder struct {
	Actor          access.Actor
	Selection      Selection
	Reason         issuance.Reason
	Comment        string
	InvalidityDate time.Time // zero: not told
}

// prepare checks an order, and narrows its selection to the actor's namespace.
func (c *CA) prepare(ctx context.Context, o *BulkOrder) error {
	if err := c.authorize(ctx, o.Actor, access.RevokeCertificate,
		access.Resource{Namespace: o.Actor.Namespace, Kind: "certificate"}); err != nil {
		return err
	}
	if o.Selection.Namespace == "" || o.Selection.Namespace == access.AllNamespaces {
		o.Selection.Namespace = o.Actor.Namespace
	}
	if err := c.authorize(ctx, o.Actor, access.RevokeCertificate,
		access.Resource{Namespace: o.Selection.Namespace, Kind: "certificate"}); err != nil {
		return err
	}
	if !o.Selection.narrow() && !o.Selection.All {
		return &InvalidError{
			Field: "all", Message: "the selection names no certificates, only a whole group of them",
			Hint: "give serials, certificates, keys, names, a requester or a time, or set all if everything is meant",
		}
	}
	if s := o.Selection; !s.IssuedFrom.IsZero() && !s.IssuedUntil.IsZero() && !s.IssuedFrom.Before(s.IssuedUntil) {
		return &InvalidError{Field: "issued_until", Message: "the time range is empty", Hint: "it must be after issued_from"}
	}
	return c.checkRevocation(o.Reason, o.Comment, o.InvalidityDate)
}

// PreviewRevocation tells what an order would do. Nothing is recorded.
func (c *CA) PreviewRevocation(ctx context.Context, o BulkOrder) (RevocationOutlook, error) {
	if err := c.prepare(ctx, &o); err != nil {
		return RevocationOutlook{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, revocationSelect)
	defer cancel()
	return c.store.RevocationOutlook(ctx, o.Selection, o.Reason, c.now())
}

// RevokeMany orders certificates to be revoked. The order is durable when it returns. Few certificates are revoked by then, and the job
// is finished; many are revoked from now on, by any replica, whatever happens to this one; above the plan's threshold another person
// must approve first. Each certificate is judged as Revoke does: what is revoked already, or has expired, is counted and left alone, and
// where keys are compromised, its key is remembered all the same.
func (c *CA) RevokeMany(ctx context.Context, o BulkOrder) (RevocationJob, RevocationOutlook, error) {
	if err := c.prepare(ctx, &o); err != nil {
		return RevocationJob{}, RevocationOutlook{}, err
	}
	now := c.now()
	j := RevocationJob{
		ID: c.newID(), Namespace: o.Actor.Namespace, Actor: o.Actor, Selection: o.Selection.Text(), Reason: o.Reason, Comment: o.Comment,
		InvalidityDate: o.InvalidityDate.Truncate(time.Second), AskedAt: now, ExpiresAt: now.Add(revocationLife), EventID: c.newID(),
	}
	selecting, cancel := context.WithTimeout(context.WithoutCancel(ctx), revocationSelect)
	defer cancel()
	j, outlook, err := c.store.RecordRevocationJob(selecting, j, o.Selection, c.readyJob)
	if err != nil {
		return RevocationJob{}, RevocationOutlook{}, fmt.Errorf("recording the order: %w", err)
	}
	c.metrics.RevocationJob(j.Status(now))
	if j.Status(now) != JobRunning {
		return j, outlook, nil
	}
	if j.Total > AtOnce {
		c.jobs.ring()
		return j, outlook, nil
	}
	j, err = c.revokeAtOnce(ctx, j)
	return j, outlook, err
}

// readyJob completes a job whose certificates are known, and makes its leaf.
func (c *CA) readyJob(j *RevocationJob) ([]audit.Leaf, error) {
	if above := c.bulk.ApproveAbove; above > 0 && j.Total > above {
		if j.Actor.Unnamed() {
			return nil, ErrUnnamed
		}
		j.Needs = 1
	}
	data := map[string]string{
		"job": j.ID, "reason": j.Reason.String(), "comment": j.Comment, "person": j.Actor.Person,
		"certificates": strconv.Itoa(j.Total), "certificates_sha256": hex.EncodeToString(j.Digest[:]), "needs": strconv.Itoa(j.Needs),
	}
	if j.Reason == issuance.KeyCompromise {
		data["keys"] = strconv.Itoa(j.Keys)
	}
	for name, value := range j.Selection {
		data["select_"+name] = value
	}
	leaf, err := c.leafWithID(j.EventID, audit.RevocationOrdered, j.Actor.ID, j.Namespace, j.AskedAt, data)
	return []audit.Leaf{leaf}, err
}

// revokeAtOnce works on a job here and now. Another replica may have taken it up in this moment: then its end is waited for.
func (c *CA) revokeAtOnce(ctx context.Context, j RevocationJob) (RevocationJob, error) {
	claimed, fence, err := c.store.ClaimRevocationJob(ctx, j.ID, c.replica, jobLease)
	if err == nil {
		working, cancel := context.WithTimeout(context.WithoutCancel(ctx), atOnceDeadline)
		defer cancel()
		err = c.work(working, claimed, fence, 0)
	}
	if err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrFenced) {
		c.jobs.ring()
		c.log.WarnContext(ctx, "a revocation job goes on in the background", "job", j.ID, "error", err)
	}
	const look, patience = 50 * time.Millisecond, 100 // five seconds
	for range patience {
		if j, err = c.store.RevocationJob(ctx, j.ID); err != nil || j.Status(c.now()) != JobRunning {
			return j, err
		}
		timer := time.NewTimer(look)
		select {
		case <-ctx.Done():
			timer.Stop()
			return j, nil // it is on record, and goes on
		case <-timer.C:
		}
	}
	return j, nil
}

// RevocationJob is one job of the actor's namespace.
func (c *CA) RevocationJob(ctx context.Context, actor access.Actor, id string) (RevocationJob, error) {
	return c.job(ctx, actor, access.ReadRevocation, id)
}

// job finds a job that the actor may do something with. One of another namespace is refused as hidden.
func (c *CA) job(ctx context.Context, actor access.Actor, action access.Action, id string) (RevocationJob, error) {
	if err := c.authorize(ctx, actor, action, access.Resource{Namespace: actor.Namespace, Kind: "revocation", ID: id}); err != nil {
		return RevocationJob{}, err
	}
	j, err := c.store.RevocationJob(ctx, id)
	if err != nil {
		return RevocationJob{}, fmt.Errorf("looking the job up: %w", err)
	}
	return j, c.authorize(ctx, actor, action, access.Resource{Namespace: j.Namespace, Kind: "revocation", ID: id})
}

// RevocationJobs pages through the jobs of the actor's namespace, newest first.
func (c *CA) RevocationJobs(ctx context.Context, actor access.Actor, cursor string,
	limit int,
) (page []RevocationJob, next string, err error) {
	if err := c.authorize(ctx, actor, access.ReadRevocation, access.Resource{Namespace: actor.Namespace, Kind: "revocation"}); err != nil {
		return nil, "", err
	}
	return c.store.RevocationJobs(ctx, actor.Namespace, cursor, limit)
}

// RevocationDecision is what a person says to a job. Digest, when given, is that of the certificates that were looked at.
type RevocationDecision struct {
	Job      string
	Approves bool
	Digest   []byte
	Comment  string
	// Signature, in PEM, is by the actor's own key over the job's statement. Needed for an approval where the plan says so.
	Signature []byte
}

// DecideOnRevocation records what a person says to a job that needs approval: with the last one that is needed it runs; one rejection ends
// it. Whoever ordered it has no say, neither as the same person nor with the same credential. It returns ErrOwnRequest, ErrUnnamed,
// ErrDecided, ErrVotedAlready, ErrBindingChanged, ErrNotFound, or *access.Denied.
func (c *CA) DecideOnRevocation(ctx context.Context, actor access.Actor, d RevocationDecision) (RevocationJob, error) {
	j, err := c.job(ctx, actor, access.ApproveRevocation, d.Job)
	switch {
	case err != nil:
		return RevocationJob{}, err
	case actor.Unnamed() || d.Approves && j.Actor.Unnamed():
		return RevocationJob{}, ErrUnnamed
	case actor.Person == j.Actor.Person || actor.ID == j.Actor.ID:
		return RevocationJob{}, ErrOwnRequest
	case slices.ContainsFunc(j.Votes, func(v RevocationVote) bool { return isRenamed(actor, v.ActorID, v.Person) }):
		return RevocationJob{}, ErrVotedAlready
	case j.Status(c.now()) != JobWaiting:
		return RevocationJob{}, ErrDecided
	case len(d.Digest) > 0 && !bytes.Equal(d.Digest, j.Digest[:]):
		return RevocationJob{}, ErrBindingChanged
	case len(d.Comment) > maxComment:
		return RevocationJob{}, longComment()
	}
	evidence, err := c.evidence(ctx, j.statement(actor.Person, d.Approves), d.Signature, c.bulk.Signed && d.Approves)
	if err != nil {
		return RevocationJob{}, err
	}
	v := RevocationVote{
		Person: actor.Person, Approves: d.Approves, Digest: j.Digest, ActorID: actor.ID, ActorName: actor.Name, Comment: d.Comment, At: c.now(),
		EventID: c.newID(), Evidence: evidence, Signed: c.bulk.Signed,
	}
	kind := audit.RevocationRejected
	if d.Approves {
		kind = audit.RevocationApproved
	}
	data := map[string]string{
		"job": j.ID, "person": v.Person, "certificates_sha256": hex.EncodeToString(j.Digest[:]), "comment": d.Comment,
	}
	evidence.tell(data)
	leaf, err := c.leafWithID(v.EventID, kind, actor.ID, j.Namespace, v.At, data)
	if err != nil {
		return RevocationJob{}, err
	}
	switch err := c.store.VoteOnRevocation(ctx, j.ID, v, leaf); {
	case errors.Is(err, ErrExists):
		return RevocationJob{}, ErrVotedAlready
	case err != nil:
		return RevocationJob{}, fmt.Errorf("deciding on a revocation: %w", err)
	}
	c.jobs.ring()
	j, err = c.store.RevocationJob(ctx, j.ID)
	if err == nil {
		c.metrics.RevocationJob(j.Status(c.now()))
	}
	return j, err
}

// CancelRevocation ends a job: what it has revoked stays revoked, and nothing more is. ErrDecided when it has ended.
func (c *CA) CancelRevocation(ctx context.Context, actor access.Actor, id string) (RevocationJob, error) {
	j, err := c.job(ctx, actor, access.RevokeCertificate, id)
	if err != nil {
		return RevocationJob{}, err
	}
	leaf, err := c.leaf(audit.RevocationCancelled, actor.ID, j.Namespace, c.now(), map[string]string{"job": j.ID, "person": actor.Person})
	if err != nil {
		return RevocationJob{}, err
	}
	if err := c.store.CancelRevocation(ctx, j.ID, c.now(), leaf); err != nil {
		return RevocationJob{}, fmt.Errorf("cancelling a revocation: %w", err)
	}
	c.metrics.RevocationJob(JobCancelled)
	return c.store.RevocationJob(ctx, j.ID)
}
