package web

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/policies"
)

// maxComment is how many octets a comment on a change of policies may have.
const maxComment = 1000

// PolicyState is which policies rule, which ruled, and which are proposed.
type PolicyState struct {
	Ruling      string             `json:"ruling" doc:"The digest of the set that rules"`
	Activations []PolicyActivation `json:"activations" doc:"Newest first; the first rules"`
	Proposals   []PolicyProposal   `json:"proposals" doc:"Newest first"`
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
	State      string       `json:"state" enum:"open,activated,rejected,superseded,expired"`
	Digest     string       `json:"digest"`
	Replaces   string       `json:"replaces" doc:"The digest that ruled when it was made"`
	Needs      int          `json:"needs" doc:"Approvals of distinct persons, none of them who proposed"`
	Actor      string       `json:"actor"`
	Person     string       `json:"person"`
	Comment    string       `json:"comment,omitempty"`
	At         time.Time    `json:"at"`
	ExpiresAt  time.Time    `json:"expires_at"`
	Votes      []PolicyVote `json:"votes"`
	Statement  string       `json:"statement,omitempty" doc:"While it waits: what the caller signs to approve it"`
	AuditEvent string       `json:"audit_event"`
}

// PolicyVote is what a person says to a proposal.
type PolicyVote struct {
	Person     string    `json:"person"`
	Approves   bool      `json:"approves"`
	Comment    string    `json:"comment,omitempty"`
	At         time.Time `json:"at"`
	AuditEvent string    `json:"audit_event"`
	Evidence   *Evidence `json:"evidence,omitempty" doc:"Where it is signed"`
	Withdrawn  bool      `json:"withdrawn,omitempty" doc:"Its key ended, or its API token was withdrawn: an approval counts no more"`
}

type policiesAnswer struct{ Body PolicyState }

func (s *Server) routePolicies(api huma.API) error {
	return route(s, api, call{
		method: http.MethodGet, path: "/policies", id: "read-policies", tag: tagPolicies, success: http.StatusOK,
		summary: "Read which policies rule", description: "With those that ruled before, and what is proposed: the latest 200 of each.",
		answers: []media{{name: typeJSON, json: PolicyState{}}},
	}, s.policies)
}

func (s *Server) policies(ctx context.Context, _ *struct{}) (*policiesAnswer, error) {
	actor := exchangeOf(ctx).actor
	history, err := s.ca.PolicyHistory(ctx, actor)
	if err != nil {
		return nil, err
	}
	proposals, err := s.ca.PolicyProposals(ctx, actor)
	if err != nil {
		return nil, err
	}
	state := PolicyState{Ruling: s.ca.PolicyDigest(), Activations: []PolicyActivation{}, Proposals: []PolicyProposal{}}
	for _, a := range history {
		state.Activations = append(state.Activations, showActivation(a))
	}
	for _, p := range proposals {
		state.Proposals = append(state.Proposals, s.showProposal(ctx, p))
	}
	return &policiesAnswer{Body: state}, nil
}

func showActivation(a ca.PolicyActivation) PolicyActivation {
	return PolicyActivation{
		Number: a.Number, Digest: a.Digest, At: a.At.UTC(), Actor: a.ActorName, Comment: a.Comment, Proposal: a.Proposal, AuditEvent: a.EventID,
	}
}

func (s *Server) showProposal(ctx context.Context, p ca.PolicyProposal) PolicyProposal {
	shown := PolicyProposal{
		ID: p.ID, State: p.State(s.now(), s.ca.PolicyDigest()), Digest: p.Digest, Replaces: p.Replaces, Needs: p.Needs, Actor: p.ActorName,
		Person: p.Person, Comment: p.Comment, At: p.At.UTC(), ExpiresAt: p.ExpiresAt.UTC(), Votes: []PolicyVote{}, AuditEvent: p.EventID,
	}
	for _, v := range p.Votes {
		shown.Votes = append(shown.Votes, PolicyVote{
			Person: v.Person, Approves: v.Approves, Comment: v.Comment, At: v.At.UTC(), AuditEvent: v.EventID, Evidence: showEvidence(v.Evidence),
			Withdrawn: v.Withdrawn,
		})
	}
	if shown.State == "open" {
		shown.Statement = p.Statement(exchangeOf(ctx).actor.Person)
	}
	return shown
}

// PolicySet is a set of policies with its files.
type PolicySet struct {
	Digest string            `json:"digest"`
	Files  map[string]string `json:"files" doc:"Contents by name"`
}

type policySetInput struct {
	Digest string `path:"digest" doc:"As decisions and certificates name it, or \"ruling\""`
}

type policySetAnswer struct{ Body PolicySet }

var policyDigest = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

func (s *Server) routePolicySet(api huma.API) error {
	return route(s, api, call{
		method: http.MethodGet, path: "/policies/{digest}", id: "read-policy-set", tag: tagPolicies, success: http.StatusOK,
		summary: "Read a set of policies", description: "Exactly the files that ruled, or were proposed, under a digest.",
		answers:  []media{{name: typeJSON, json: PolicySet{}}},
		problems: []int{http.StatusNotFound},
	}, s.policySet)
}

func (s *Server) policySet(ctx context.Context, in *policySetInput) (*policySetAnswer, error) {
	digest := in.Digest
	switch {
	case digest == "ruling":
		digest = ""
	case !policyDigest.MatchString(digest):
		return nil, ca.ErrNotFound
	}
	digest, files, err := s.ca.PolicySet(ctx, exchangeOf(ctx).actor, digest)
	if err != nil {
		return nil, err
	}
	set := PolicySet{Digest: digest, Files: map[string]string{}}
	for _, f := range files {
		set.Files[f.Name] = string(f.Content)
	}
	return &policySetAnswer{Body: set}, nil
}

// ChangePoliciesRequest asks that other policies rule.
type ChangePoliciesRequest struct {
	Files   map[string]string `json:"files" doc:"The whole set: contents by name, such as tls-server.yaml"`
	Comment string            `json:"comment,omitempty" doc:"Why, for those who decide and for the audit log"`
}

// CommentRequest says why something is done to the policies.
type CommentRequest struct {
	Comment string `json:"comment,omitempty" doc:"Why, for those who decide and for the audit log"`
}

// PolicyChange is what came of the wish for other policies.
type PolicyChange struct {
	State      string            `json:"state" enum:"activated,proposed,unchanged"`
	Digest     string            `json:"digest"`
	Activation *PolicyActivation `json:"activation,omitempty" doc:"Set when it rules now"`
	Proposal   *PolicyProposal   `json:"proposal,omitempty" doc:"Set when it waits for approvals"`
}

type policyChangeAnswer struct{ Body PolicyChange }

func (s *Server) routeChangePolicies(api huma.API) error {
	return route(s, api, call{
		method: http.MethodPost, path: "/policies", id: "change-policies", tag: tagPolicies, success: http.StatusOK,
		summary: "Have other policies rule",
		description: "The set is loaded as a whole. With a single problem nothing changes. Where approvals are needed it is proposed, " +
			"and waits " +
			"for them.",
		bodies:   []media{{name: typeJSON, json: ChangePoliciesRequest{}}},
		answers:  []media{{name: typeJSON, json: PolicyChange{}}},
		problems: append([]int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity}, requestProblems...),
	}, s.changePolicies)
}

func (s *Server) changePolicies(ctx context.Context, _ *struct{}) (*policyChangeAnswer, error) {
	var body ChangePoliciesRequest
	if err := decodeStrict(exchangeOf(ctx).body, &body); err != nil {
		return nil, err
	}
	if err := checkComment(body.Comment); err != nil {
		return nil, err
	}
	files := make([]policies.File, 0, len(body.Files))
	for _, name := range sortedKeys(body.Files) {
		files = append(files, policies.File{Name: name, Content: []byte(body.Files[name])})
	}
	change, err := s.ca.ChangePolicies(ctx, exchangeOf(ctx).actor, files, body.Comment)
	if err != nil {
		return nil, err
	}
	return s.showChange(ctx, change), nil
}

func (s *Server) routeReloadPolicies(api huma.API) error {
	return route(s, api, call{
		method: http.MethodPost, path: "/policies/reload", id: "reload-policies", tag: tagPolicies, success: http.StatusOK,
		summary:     "Read the configured policies again",
		description: "As SIGHUP does: the replica that answers reads its directory, and all replicas follow it.",
		bodies:      []media{{name: typeJSON, json: CommentRequest{}}},
		answers:     []media{{name: typeJSON, json: PolicyChange{}}},
		problems:    append([]int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity}, requestProblems...),
	}, s.reloadPolicies)
}

func (s *Server) reloadPolicies(ctx context.Context, _ *struct{}) (*policyChangeAnswer, error) {
	comment, err := readComment(ctx)
	if err != nil {
		return nil, err
	}
	change, err := s.ca.ReloadPolicies(ctx, exchangeOf(ctx).actor, comment)
	if err != nil {
		return nil, err
	}
	return s.showChange(ctx, change), nil
}

func (s *Server) showChange(ctx context.Context, c ca.PolicyChange) *policyChangeAnswer {
	shown := PolicyChange{State: "unchanged", Digest: c.Digest}
	if c.Activation != nil {
		a := showActivation(*c.Activation)
		shown.State, shown.Activation = "activated", &a
	}
	if c.Proposal != nil {
		p := s.showProposal(ctx, *c.Proposal)
		shown.State, shown.Proposal = "proposed", &p
	}
	return &policyChangeAnswer{Body: shown}
}

// PolicyWord is what a person says to a proposal.
type PolicyWord struct {
	Comment   string `json:"comment,omitempty" doc:"For people and for the audit log"`
	Signature string `json:"signature,omitempty" doc:"By the caller's own key over the statement, PEM; for a rejection over the statement that says reject"`
}

type proposalInput struct {
	ID string `path:"id"`
}

type proposalAnswer struct{ Body PolicyProposal }

func (s *Server) routeApprovePolicies(api huma.API) error {
	return s.routeDecision(api, "approve", "Approve proposed policies", "With the last approval that is needed they rule.", true)
}

func (s *Server) routeRejectPolicies(api huma.API) error {
	return s.routeDecision(api, "reject", "Reject proposed policies", "One rejection ends a proposal.", false)
}

func (s *Server) routeDecision(api huma.API, verb, summary, description string, approves bool) error {
	return route(s, api, call{
		method: http.MethodPost, path: "/policies/proposals/{id}/" + verb, id: verb + "-policies", tag: tagPolicies, success: http.StatusOK,
		summary: summary, description: description + " Whoever proposed them has no say, and each person speaks once.",
		bodies:   []media{{name: typeJSON, json: PolicyWord{}}},
		answers:  []media{{name: typeJSON, json: PolicyProposal{}}},
		problems: append([]int{http.StatusNotFound, http.StatusConflict}, requestProblems...),
	}, func(ctx context.Context, in *proposalInput) (*proposalAnswer, error) {
		return s.decideOnPolicies(ctx, in, approves)
	})
}

func (s *Server) decideOnPolicies(ctx context.Context, in *proposalInput, approves bool) (*proposalAnswer, error) {
	if !nameable(in.ID) {
		return nil, ca.ErrNotFound
	}
	var body PolicyWord
	if err := decodeStrict(exchangeOf(ctx).body, &body); err != nil {
		return nil, err
	}
	if err := checkComment(body.Comment); err != nil {
		return nil, err
	}
	signature, err := readSignature(body.Signature)
	if err != nil {
		return nil, err
	}
	p, err := s.ca.DecideOnPolicies(ctx, exchangeOf(ctx).actor, ca.PolicyDecision{
		Proposal: in.ID, Approves: approves, Comment: body.Comment, Signature: signature,
	})
	if err != nil {
		return nil, err
	}
	return &proposalAnswer{Body: s.showProposal(ctx, p)}, nil
}

func readComment(ctx context.Context) (string, error) {
	var body CommentRequest
	if err := decodeStrict(exchangeOf(ctx).body, &body); err != nil {
		return "", err
	}
	return body.Comment, checkComment(body.Comment)
}

func checkComment(comment string) error {
	if len(comment) > maxComment || !printable(strings.ReplaceAll(comment, "\n", "")) {
		return refusal(broken("comment", fmt.Sprintf("a comment has at most %d octets of text", maxComment), "the comment is not acceptable"))
	}
	return nil
}
