package client

import (
	"context"
	"net/http"
	"time"
)

// PolicyState is which policies rule, which ruled, and which are proposed.
type PolicyState struct {
	Ruling      string             `json:"ruling"`      // the digest of the set that rules
	Activations []PolicyActivation `json:"activations"` // newest first; the first rules
	Proposals   []PolicyProposal   `json:"proposals"`   // newest first
}

// PolicyActivation is the moment from which a set of policies rules.
type PolicyActivation struct {
	Number     int64     `json:"number"`
	Digest     string    `json:"digest"`
	At         time.Time `json:"at"`
	Actor      string    `json:"actor"`
	Comment    string    `json:"comment,omitempty"`
	Proposal   string    `json:"proposal,omitempty"`
	AuditEvent string    `json:"audit_event"`
}

// PolicyProposal is the wish to have a set rule in place of the one that rules.
type PolicyProposal struct {
	ID         string       `json:"id"`
	State      string       `json:"state"` // "open", "activated", "rejected", "superseded", "expired"
	Digest     string       `json:"digest"`
	Replaces   string       `json:"replaces"`
	Needs      int          `json:"needs"`
	Actor      string       `json:"actor"`
	Person     string       `json:"person"`
	Comment    string       `json:"comment,omitempty"`
	At         time.Time    `json:"at"`
	ExpiresAt  time.Time    `json:"expires_at"`
	Votes      []PolicyVote `json:"votes"`
	Statement  string       `json:"statement,omitempty"` // what the caller signs to approve it, while it is open
	AuditEvent string       `json:"audit_event"`
}

// PolicyVote is what a person says to a proposal.
type PolicyVote struct {
	Person     string    `json:"person"`
	Approves   bool      `json:"approves"`
	Comment    string    `json:"comment,omitempty"`
	At         time.Time `json:"at"`
	AuditEvent string    `json:"audit_event"`
	Evidence   *Evidence `json:"evidence,omitempty"`  // where it is signed
	Withdrawn  bool      `json:"withdrawn,omitempty"` // its key ended, or its API token was withdrawn: an approval counts no more
}

// PolicyWord is what a person says to a proposal.
type PolicyWord struct {
	Comment   string `json:"comment,omitempty"`
	Signature string `json:"signature,omitempty"` // PEM, by the caller's own key over the statement
}

// PolicySet is a set of policies with its files: contents by name.
type PolicySet struct {
	Digest string            `json:"digest"`
	Files  map[string]string `json:"files"`
}

// PolicyChange is what came of the wish for other policies.
type PolicyChange struct {
	State      string            `json:"state"` // "activated", "proposed", "unchanged"
	Digest     string            `json:"digest"`
	Activation *PolicyActivation `json:"activation,omitempty"`
	Proposal   *PolicyProposal   `json:"proposal,omitempty"`
}

// Policies tells which policies rule, ruled, and are proposed.
func (c *Client) Policies(ctx context.Context) (*PolicyState, error) {
	state := &PolicyState{}
	if _, err := c.json(ctx, call{method: http.MethodGet, path: []string{"policies"}}, state); err != nil {
		return nil, err
	}
	return state, nil
}

// PolicySet reads the files of a set by its digest; "ruling" is the one that rules.
func (c *Client) PolicySet(ctx context.Context, digest string) (*PolicySet, error) {
	set := &PolicySet{}
	if _, err := c.json(ctx, call{method: http.MethodGet, path: []string{"policies", digest}}, set); err != nil {
		return nil, err
	}
	return set, nil
}

// ChangePolicies has the policies in files rule, or proposes them where persons must agree. It is asked for once: where the answer is lost there
// may be a proposal, or they rule, which Policies tells.
func (c *Client) ChangePolicies(ctx context.Context, files map[string]string, comment string) (*PolicyChange, error) {
	body := struct {
		Files   map[string]string `json:"files"`
		Comment string            `json:"comment,omitempty"`
	}{files, comment}
	return c.policyChange(ctx, call{method: http.MethodPost, path: []string{"policies"}, body: body, once: true})
}

// ReloadPolicies has the replica that answers read its configured policies again. It is asked for once, as ChangePolicies is.
func (c *Client) ReloadPolicies(ctx context.Context, comment string) (*PolicyChange, error) {
	return c.policyChange(ctx, call{method: http.MethodPost, path: []string{"policies", "reload"}, body: policyComment{comment}, once: true})
}

type policyComment struct {
	Comment string `json:"comment,omitempty"`
}

func (c *Client) policyChange(ctx context.Context, r call) (*PolicyChange, error) {
	change := &PolicyChange{}
	if _, err := c.json(ctx, r, change); err != nil {
		return nil, err
	}
	return change, nil
}

// ApprovePolicies agrees to a proposal. With the last approval that it needs its set rules.
func (c *Client) ApprovePolicies(ctx context.Context, proposal string, w PolicyWord) (*PolicyProposal, error) {
	return c.decideOnPolicies(ctx, proposal, "approve", w)
}

// RejectPolicies ends a proposal.
func (c *Client) RejectPolicies(ctx context.Context, proposal string, w PolicyWord) (*PolicyProposal, error) {
	return c.decideOnPolicies(ctx, proposal, "reject", w)
}

func (c *Client) decideOnPolicies(ctx context.Context, proposal, verb string, w PolicyWord) (*PolicyProposal, error) {
	p := &PolicyProposal{}
	r := call{method: http.MethodPost, path: []string{"policies", "proposals", proposal, verb}, body: w}
	if _, err := c.json(ctx, r, p); err != nil {
		return nil, err
	}
	return p, nil
}
