package ca

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/policies"
)

const (
	// followEvery is how often a replica looks whether another set of policies rules: the longest that two replicas disagree.
	followEvery = time.Second
	// proposalLife is how long persons have to agree to a proposal.
	proposalLife = 7 * 24 * time.Hour
)

// PolicyPlan says where new policies come from, and who must agree to them.
type PolicyPlan struct {
	// Read loads what this replica's configuration names now: its directory of profiles, or those of the program. Nil: nothing to reload.
	Read func() (*policies.Set, error)
	// Approvals is how many persons, besides whoever proposes, must approve a set before it rules; 0: none.
	Approvals int
	// Signed asks that each approval be signed by the approver's own key.
	Signed bool
	// Shipped says that no policies are configured: those that Read loads come with the program, and change with it.
	Shipped bool
}

// PolicyStore keeps the life of policies. All of it is facts.
type PolicyStore interface {
	// RulingPolicies is the latest activation; ErrNotFound before the first.
	RulingPolicies(ctx context.Context) (PolicyActivation, error)
	// PolicyActivations are the latest activations, newest first: of one set or, when digest is empty, of all.
	PolicyActivations(ctx context.Context, digest string, limit int) ([]PolicyActivation, error)
	// PolicyFiles are the files of a set that was proposed or activated; ErrNotFound when it never was.
	PolicyFiles(ctx context.Context, digest string) ([]policies.File, error)
	// ActivatePolicies keeps a set and has it rule. ErrFenced when the activation's number is not one more than the last.
	ActivatePolicies(ctx context.Context, a PolicyActivation, files []policies.File, leaves ...audit.Leaf) error
	// ProposePolicies keeps a set and the proposal to have it rule.
	ProposePolicies(ctx context.Context, p PolicyProposal, files []policies.File, leaves ...audit.Leaf) error
	// PolicyProposals are the latest proposals, newest first, with their votes: the one with an ID or, when it is empty, all.
	PolicyProposals(ctx context.Context, id string, limit int) ([]PolicyProposal, error)
	// VoteOnPolicies records what a person says to a proposal: ErrExists when the person has spoken before, ErrProposalClosed when
	// it is rejected or activated. With the last approval that is needed the activation is recorded too, with its leaf, in the same
	// transaction, unless another set was activated in the meantime (ErrFenced: nothing is recorded).
	VoteOnPolicies(ctx context.Context, proposal string, v PolicyVote, voted audit.Leaf, a PolicyActivation,
		activated audit.Leaf) (rules bool, err error)
}

// PolicyActivation is the moment from which a set of policies rules.
type PolicyActivation struct {
	Number    int64 // 1 for the first; the highest rules
	Digest    string
	Proposal  string // its ID; empty when no approval was needed
	ActorID   string
	ActorName string
	Comment   string
	At        time.Time
	EventID   string // of the PolicyActivated leaf
}

// PolicyProposal is the wish to have a set rule in place of the one that rules.
type PolicyProposal struct {
	ID        string
	Digest    string
	Replaces  string // the digest that ruled when it was made; when another rules, it is void
	Needs     int    // approvals of distinct persons
	ActorID   string
	ActorName string
	Person    string
	Comment   string
	At        time.Time
	ExpiresAt time.Time
	EventID   string
	Votes     []PolicyVote // in order
	Activated bool
	// Superseded says that another set than the one to be replaced came to rule since. It may rule no more.
	Superseded bool
}

// PolicyVote is what a person says to a proposal.
type PolicyVote struct {
	Person    string
	Approves  bool
	ActorID   string
	ActorName string
	Comment   string
	At        time.Time
	EventID   string
	Evidence  *Evidence // nil: it is not signed
	Withdrawn bool      // as of ApprovalRecord
	Signed    bool      // of those before it, count the signed ones alone; not kept
	Needs     int       // approvals, where that is more than the proposal was made with; not kept
}

// State is "activated", "rejected", "superseded" (another set rules than the one it was to replace, or ruled since), "expired" or "open".
func (p PolicyProposal) State(now time.Time, ruling string) string {
	for _, v := range p.Votes {
		if !v.Approves {
			return "rejected"
		}
	}
	switch {
	case p.Activated:
		return "activated"
	case p.Superseded || ruling != p.Replaces:
		return "superseded"
	case !now.Before(p.ExpiresAt):
		return "expired"
	}
	return "open"
}

// PolicyChange is what came of the wish for other policies.
type PolicyChange struct {
	Digest     string
	Activation *PolicyActivation // set when the set rules now
	Proposal   *PolicyProposal   // set when it waits for approvals; neither: the set ruled already
}

// Errors of a change of policies that a front end decides on. What is wrong with the files is *policies.LoadError.
var (
	ErrProposalClosed = errors.New("the proposal is not open any more")
	ErrOwnProposal    = errors.New("whoever proposes a change of the policies cannot decide on it")
	ErrPoliciesMoved  = errors.New("other policies were activated in the meantime; look at them and try again")
	ErrVotedAlready   = errors.New("this person has decided on the proposal already")
)

// ruling is the set that decides, and the number of its activation: 0 before this replica has adopted one.
type ruling struct {
	set    *policies.Set
	number int64
}

// unfollowed is an activation that is known here while its set is not loaded.
type unfollowed struct {
	number int64
	digest string
	why    error
}

// rules is the set that decides now. Whoever asks twice may get two sets: a decision is made by one.
func (c *CA) rules() *policies.Set { return c.ruling.Load().set }

// PolicyDigest names the policies that rule, as far as this replica knows. Where it cannot load them, it decides nothing.
func (c *CA) PolicyDigest() string {
	if u := c.behind(); u != nil {
		return u.digest
	}
	return c.rules().Digest()
}

// behind is the activation that this replica should follow and does not; nil when it decides by what rules.
func (c *CA) behind() *unfollowed {
	if u := c.unfollowed.Load(); u != nil && u.number > c.ruling.Load().number {
		return u
	}
	return nil
}

// current refuses to decide by policies that rule no more: what they let through may be what others were activated against.
func (c *CA) current() error {
	if u := c.behind(); u != nil {
		// What is wrong with the set is told, and is not the caller's to mend: the error is none of a set that was sent.
		return fmt.Errorf("%w: the policies that rule are not loaded here: %s", ErrUnavailable, u.why.Error())
	}
	return nil
}

// HasProfile tells whether the policies that decide now have a profile of this name.
func (c *CA) HasProfile(name string) bool {
	_, ok := c.rules().Profile(name)
	return ok
}

// CheckPolicies checks what a set asks of other rooms: that the lints exist which its profiles name.
func CheckPolicies(set *policies.Set) error {
	var problems []policies.Problem
	for _, name := range set.Names() {
		profile, _ := set.Profile(name)
		if err := issuance.CheckLint(profile.Lint()); err != nil {
			problems = append(problems, policies.Problem{File: name + ".yaml", Field: "lint", Message: err.Error()})
		}
	}
	if len(problems) > 0 {
		return &policies.LoadError{Problems: problems}
	}
	return nil
}

// What the service comments when it activates at start what it was given: files of the configuration, or what comes with the program.
// Of an earlier program's words nobody knows which of the two it was.
const (
	takenFromFiles   = "taken from policies.directory at start"
	takenFromProgram = "taken from the program at start"
	takenFromEither  = "taken from the configuration at start"
)

// AdoptPolicies settles which policies decide, at start. What the database says rules, unless this replica was given a set that takes
// over. A set that rules and cannot be loaded here does not end the start: nothing is decided until it can be, or until another rules.
// A set that would take over and keep the service from its own certificates is refused, and nothing has changed.
func (c *CA) AdoptPolicies(ctx context.Context) error {
	own := c.rules()
	for try := 0; ; try++ {
		latest, err := c.store.RulingPolicies(ctx)
		first := errors.Is(err, ErrNotFound)
		switch {
		case err != nil && !first:
			return fmt.Errorf("adopting the policies: %w", err)
		case !first && latest.Digest == own.Digest():
			c.ruling.Store(&ruling{own, latest.Number})
			return nil
		case !first:
			takes, err := c.takesOver(ctx, own, latest)
			if err != nil {
				return fmt.Errorf("adopting the policies: %w", err)
			}
			if takes {
				break
			}
			c.log.WarnContext(ctx, "the configured policies are not those that rule; to have them rule, reload or activate them",
				"configured", own.Digest(), "ruling", latest.Digest, "since", latest.At, "by", latest.ActorName)
			if err := c.follow(ctx, latest); err != nil {
				c.log.ErrorContext(ctx, "nothing is issued here until the policies that rule can be loaded", "error", err)
			}
			return nil
		}
		if err := c.serves(ctx, own); err != nil {
			return fmt.Errorf("adopting the policies: %w", err)
		}
		comment := takenFromFiles
		if c.plan.Shipped {
			comment = takenFromProgram
		}
		_, err = c.activate(ctx, own, latest.Number, access.Service, access.Service, comment)
		if !errors.Is(err, ErrPoliciesMoved) || try == 3 {
			return err
		}
	}
}

// takesOver tells whether the set that a replica was given at start comes to rule, everywhere: new files were deployed, and no approvals
// are needed. One that ruled once does not come back by a restart, so that replicas that are restarted one after the other agree. And what
// comes with the program follows only on what came with a program: somebody chose the rest.
func (c *CA) takesOver(ctx context.Context, own *policies.Set, latest PolicyActivation) (bool, error) {
	came := latest.ActorID == access.Service && (latest.Comment == takenFromProgram || latest.Comment == takenFromEither)
	if c.plan.Approvals > 0 || c.plan.Shipped && !came {
		return false, nil
	}
	before, err := c.store.PolicyActivations(ctx, own.Digest(), 1)
	return err == nil && len(before) == 0, err
}

// FollowPolicies has the policies decide that another replica activated, if one did. While it fails, nothing is decided.
func (c *CA) FollowPolicies(ctx context.Context) error {
	_, err := c.latestPolicies(ctx)
	if err == nil {
		err = c.current()
	}
	return err
}

// latestPolicies is what rules. It is followed, where it can be.
func (c *CA) latestPolicies(ctx context.Context) (PolicyActivation, error) {
	latest, err := c.store.RulingPolicies(ctx)
	if err != nil {
		return PolicyActivation{}, fmt.Errorf("looking which policies rule: %w", err)
	}
	if latest.Number > c.ruling.Load().number {
		_ = c.follow(ctx, latest) // which current tells from here on
	}
	return latest, nil
}

// follow loads a set that was activated. While that fails, as with one that only a newer program understands, nothing is decided here.
func (c *CA) follow(ctx context.Context, a PolicyActivation) error {
	set, err := c.ruled(ctx, a.Digest)
	if err != nil {
		c.unfollowed.Store(&unfollowed{a.Number, a.Digest, err})
		return err
	}
	c.install(set, a.Number)
	c.log.InfoContext(ctx, "other policies rule", "digest", a.Digest, "number", a.Number)
	return nil
}

// ruled loads a set that was activated. What it does not meet of demands that came later is told, and does not end its rule.
func (c *CA) ruled(ctx context.Context, digest string) (*policies.Set, error) {
	files, err := c.store.PolicyFiles(ctx, digest)
	if err != nil {
		return nil, fmt.Errorf("reading the policies %s: %w", digest, err)
	}
	set, unmet, err := policies.LoadRuled(files)
	if err == nil {
		err = CheckPolicies(set)
	}
	if err == nil && set.Digest() != digest {
		err = fmt.Errorf("its files are those of %s", set.Digest())
	}
	if err != nil {
		return nil, fmt.Errorf("loading the policies %s: %w", digest, err)
	}
	TellUnmet(ctx, c.log, set, unmet)
	return set, nil
}

// TellUnmet tells the log of demands that a set which rules does not meet.
func TellUnmet(ctx context.Context, log *slog.Logger, set *policies.Set, unmet []policies.Problem) {
	for _, p := range unmet {
		log.WarnContext(ctx, "the policies ruled before this demand was made, and go on; those that follow must meet it",
			"digest", set.Digest(), "problem", p.String())
	}
}

// install has a set decide, unless a later one does already.
func (c *CA) install(set *policies.Set, number int64) {
	for {
		now := c.ruling.Load()
		if now.number >= number || c.ruling.CompareAndSwap(now, &ruling{set, number}) {
			return
		}
	}
}

// ReloadPolicies reads the configured policies again and has them rule, or proposes them where persons must agree. A set with a problem
// is refused as a whole, as *policies.LoadError, and the one that rules goes on.
func (c *CA) ReloadPolicies(ctx context.Context, actor access.Actor, comment string) (PolicyChange, error) {
	if err := c.authorize(ctx, actor, access.ChangePolicy, policyResource("")); err != nil {
		return PolicyChange{}, err
	}
	if c.plan.Read == nil {
		return PolicyChange{}, &InvalidError{
			Field: "policies", Message: "this replica has no policies of its own to read",
			Hint: "send the files",
		}
	}
	set, err := c.plan.Read()
	if err != nil {
		return PolicyChange{}, fmt.Errorf("reloading the policies: %w", err)
	}
	return c.change(ctx, actor, set, comment)
}

// ChangePolicies has the policies in files rule, or proposes them where persons must agree.
func (c *CA) ChangePolicies(ctx context.Context, actor access.Actor, files []policies.File, comment string) (PolicyChange, error) {
	if err := c.authorize(ctx, actor, access.ChangePolicy, policyResource("")); err != nil {
		return PolicyChange{}, err
	}
	set, err := policies.LoadFiles(files)
	if err != nil {
		return PolicyChange{}, fmt.Errorf("loading the policies: %w", err)
	}
	return c.change(ctx, actor, set, comment)
}

// serves checks that a set can rule here: that its lints and logs exist, and that the service gets its own certificates under it.
func (c *CA) serves(ctx context.Context, set *policies.Set) error {
	if err := CheckPolicies(set); err != nil {
		return err
	}
	if err := checkTransparency(set, c.transparency); err != nil {
		return err
	}
	return c.keepsService(ctx, set)
}

// change has a set rule in place of the one that does, also where that cannot be loaded here: so a replica gets out of it.
func (c *CA) change(ctx context.Context, actor access.Actor, set *policies.Set, comment string) (PolicyChange, error) {
	now, err := c.latestPolicies(ctx)
	if err != nil {
		return PolicyChange{}, err
	}
	if now.Digest == set.Digest() {
		return PolicyChange{Digest: set.Digest()}, nil
	}
	if err := c.serves(ctx, set); err != nil {
		return PolicyChange{}, fmt.Errorf("loading the policies: %w", err)
	}
	if c.plan.Approvals == 0 {
		a, err := c.activate(ctx, set, now.Number, actor.ID, actor.Name, comment)
		return PolicyChange{Digest: set.Digest(), Activation: &a}, err
	}
	if actor.Unnamed() {
		return PolicyChange{}, ErrUnnamed
	}
	p := PolicyProposal{
		ID: c.newID(), Digest: set.Digest(), Replaces: now.Digest, Needs: c.approvalsOf(actor.ID), ActorID: actor.ID, ActorName: actor.Name,
		Person: actor.Person, Comment: comment, At: c.now(), ExpiresAt: c.now().Add(proposalLife), EventID: c.newID(),
	}
	leaf, err := c.leafWithID(p.EventID, audit.PolicyProposed, actor.ID, access.AllNamespaces, p.At, map[string]string{
		"proposal": p.ID, "policy": p.Digest, "replaces": p.Replaces, "needs": strconv.Itoa(p.Needs), "person": p.Person, "comment": comment,
	})
	if err != nil {
		return PolicyChange{}, err
	}
	if err := c.store.ProposePolicies(ctx, p, set.Files(), leaf); err != nil {
		return PolicyChange{}, fmt.Errorf("proposing policies: %w", err)
	}
	return PolicyChange{Digest: p.Digest, Proposal: &p}, nil
}

// approvalsOf is how many approvals a proposal of an actor needs under the configuration of now.
func (c *CA) approvalsOf(actorID string) int {
	if actorID == access.Service {
		return max(c.plan.Approvals, unnamedNeeds)
	}
	return c.plan.Approvals
}

// activate makes an activation durable, then has its set decide here. Other replicas follow. A crash between the two ends in a start,
// which adopts what the database says.
func (c *CA) activate(ctx context.Context, set *policies.Set, after int64, actorID, actorName, comment string) (PolicyActivation, error) {
	a := PolicyActivation{
		Number: after + 1, Digest: set.Digest(), ActorID: actorID, ActorName: actorName, Comment: comment, At: c.now(), EventID: c.newID(),
	}
	leaf, err := c.activationLeaf(a)
	if err != nil {
		return PolicyActivation{}, err
	}
	switch err := c.store.ActivatePolicies(ctx, a, set.Files(), leaf); {
	case errors.Is(err, ErrFenced):
		return PolicyActivation{}, ErrPoliciesMoved
	case err != nil:
		return PolicyActivation{}, fmt.Errorf("activating policies: %w", err)
	}
	c.install(set, a.Number)
	c.log.InfoContext(ctx, "other policies rule", "digest", a.Digest, "number", a.Number, "actor", actorID)
	return a, nil
}

func (c *CA) activationLeaf(a PolicyActivation) (audit.Leaf, error) {
	return c.leafWithID(a.EventID, audit.PolicyActivated, a.ActorID, access.AllNamespaces, a.At, map[string]string{
		"policy": a.Digest, "number": strconv.FormatInt(a.Number, 10), "proposal": a.Proposal, "comment": a.Comment,
	})
}

// PolicyDecision is what a person says to a proposal.
type PolicyDecision struct {
	Proposal string
	Approves bool
	Comment  string
	// Signature, in PEM, is by the actor's own key over the proposal's statement. Needed for an approval where the plan says so.
	Signature []byte
}

// DecideOnPolicies records what a person says to a proposal. With the last approval that it needs its set rules; one rejection ends it.
// Whoever proposed it has no say, neither as the same person nor with the same credential.
func (c *CA) DecideOnPolicies(ctx context.Context, actor access.Actor, d PolicyDecision) (PolicyProposal, error) {
	if err := c.authorize(ctx, actor, access.ApprovePolicy, policyResource(d.Proposal)); err != nil {
		return PolicyProposal{}, err
	}
	now, err := c.latestPolicies(ctx)
	if err != nil {
		return PolicyProposal{}, err
	}
	p, err := c.proposal(ctx, d.Proposal)
	if err != nil {
		return PolicyProposal{}, err
	}
	switch {
	case actor.Unnamed() || d.Approves && access.Unnamed(p.ActorID, p.Person):
		return PolicyProposal{}, ErrUnnamed
	case actor.Person == p.Person || actor.ID == p.ActorID:
		return PolicyProposal{}, ErrOwnProposal
	case slices.ContainsFunc(p.Votes, func(v PolicyVote) bool { return isRenamed(actor, v.ActorID, v.Person) }):
		return PolicyProposal{}, ErrVotedAlready
	case p.State(c.now(), now.Digest) != "open":
		return PolicyProposal{}, fmt.Errorf("it is %s: %w", p.State(c.now(), now.Digest), ErrProposalClosed)
	}
	if d.Approves { // what was proposed through another replica, or to a program before this one
		if err := c.canRule(ctx, p.Digest); err != nil {
			return PolicyProposal{}, err
		}
	}
	evidence, err := c.evidence(ctx, p.statement(actor.Person, d.Approves), d.Signature, c.plan.Signed && d.Approves)
	if err != nil {
		return PolicyProposal{}, err
	}
	v := PolicyVote{
		Person: actor.Person, Approves: d.Approves, ActorID: actor.ID, ActorName: actor.Name, Comment: d.Comment, At: c.now(), EventID: c.newID(),
		Evidence: evidence, Signed: c.plan.Signed, Needs: p.Needs,
	}
	kind := audit.PolicyRejected
	if d.Approves {
		kind = audit.PolicyApproved
	}
	data := map[string]string{"proposal": p.ID, "policy": p.Digest, "person": v.Person, "comment": v.Comment}
	evidence.tell(data)
	voted, err := c.leafWithID(v.EventID, kind, actor.ID, access.AllNamespaces, v.At, data)
	if err != nil {
		return PolicyProposal{}, err
	}
	a := PolicyActivation{
		Number: now.Number + 1, Digest: p.Digest, Proposal: p.ID, ActorID: actor.ID, ActorName: actor.Name, Comment: p.Comment, At: v.At,
		EventID: c.newID(),
	}
	activated, err := c.activationLeaf(a)
	if err != nil {
		return PolicyProposal{}, err
	}
	rules, err := c.store.VoteOnPolicies(ctx, p.ID, v, voted, a, activated)
	switch {
	case errors.Is(err, ErrFenced):
		return PolicyProposal{}, ErrPoliciesMoved
	case errors.Is(err, ErrExists):
		return PolicyProposal{}, ErrVotedAlready
	case err != nil:
		return PolicyProposal{}, fmt.Errorf("deciding on policies: %w", err)
	}
	if rules {
		if err := c.follow(ctx, a); err != nil {
			c.log.ErrorContext(ctx, "approved policies are not followed yet; trying again", "error", err)
		}
	}
	return c.proposal(ctx, p.ID)
}

// canRule checks that a set which is proposed can rule here.
func (c *CA) canRule(ctx context.Context, digest string) error {
	files, err := c.store.PolicyFiles(ctx, digest)
	if err != nil {
		return fmt.Errorf("reading the policies %s: %w", digest, err)
	}
	set, err := policies.LoadFiles(files)
	if err == nil {
		err = c.serves(ctx, set)
	}
	if err != nil {
		return fmt.Errorf("loading the policies %s: %w", digest, err)
	}
	return nil
}

func (c *CA) proposal(ctx context.Context, id string) (PolicyProposal, error) {
	found, err := c.proposals(ctx, id, 1)
	switch {
	case err != nil:
		return PolicyProposal{}, fmt.Errorf("looking a proposal up: %w", err)
	case len(found) == 0 || id == "":
		return PolicyProposal{}, fmt.Errorf("proposal %q: %w", id, ErrNotFound)
	}
	return found[0], nil
}

// proposals are the latest proposals, each with what it needs now: where more approvals are asked for than when it was made, these are.
func (c *CA) proposals(ctx context.Context, id string, limit int) ([]PolicyProposal, error) {
	found, err := c.store.PolicyProposals(ctx, id, limit)
	for i, p := range found {
		found[i].Needs = max(p.Needs, c.approvalsOf(p.ActorID))
	}
	return found, err
}

// maxHistory is how many activations and proposals are shown at once.
const maxHistory = 200

// PolicyHistory are the latest activations, newest first.
func (c *CA) PolicyHistory(ctx context.Context, actor access.Actor) ([]PolicyActivation, error) {
	if err := c.authorize(ctx, actor, access.ReadPolicy, policyResource("")); err != nil {
		return nil, err
	}
	return c.store.PolicyActivations(ctx, "", maxHistory)
}

// PolicyProposals are the latest proposals, newest first.
func (c *CA) PolicyProposals(ctx context.Context, actor access.Actor) ([]PolicyProposal, error) {
	if err := c.authorize(ctx, actor, access.ReadPolicy, policyResource("")); err != nil {
		return nil, err
	}
	return c.proposals(ctx, "", maxHistory)
}

// PolicySet is what ruled, or was proposed, under a digest, file by file. An empty digest is that of the set that rules.
func (c *CA) PolicySet(ctx context.Context, actor access.Actor, digest string) (string, []policies.File, error) {
	if err := c.authorize(ctx, actor, access.ReadPolicy, policyResource(digest)); err != nil {
		return "", nil, err
	}
	if digest == "" {
		digest = c.PolicyDigest()
	}
	if now := c.rules(); digest == now.Digest() {
		return digest, now.Files(), nil
	}
	files, err := c.store.PolicyFiles(ctx, digest)
	if err != nil {
		return "", nil, fmt.Errorf("reading the policies %s: %w", strings.TrimSpace(digest), err)
	}
	return digest, files, nil
}

func policyResource(id string) access.Resource {
	return access.Resource{Namespace: access.AllNamespaces, Kind: "policy", ID: id}
}
