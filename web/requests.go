package web

import (
	"context"
	"encoding/hex"
	"encoding/pem"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/policies"
)

// WaitingRequest is a request that needs, or needed, the approval of persons.
type WaitingRequest struct {
	ID            string               `json:"id"`
	Status        string               `json:"status" enum:"waiting,issuing,issued,rejected,expired,refused"`
	Why           string               `json:"why,omitempty" doc:"Why it waits no more without having been issued"`
	Serial        string               `json:"serial,omitempty" doc:"Of the certificate, lower-case hex"`
	Namespace     string               `json:"namespace"`
	Profile       string               `json:"profile"`
	Issuer        string               `json:"issuer" doc:"The authority that signs"`
	PolicyVersion string               `json:"policy_version" doc:"The policies that first decided"`
	Requester     Person               `json:"requester"`
	Subject       string               `json:"subject" doc:"Of the certificate that would be issued; RFC 4514"`
	Names         []string             `json:"names" doc:"Its subject alternative names"`
	CSR           string               `json:"csr,omitempty" doc:"PEM; left out in lists"`
	Metadata      map[string]string    `json:"metadata,omitempty"`
	AskedAt       time.Time            `json:"asked_at"`
	ExpiresAt     time.Time            `json:"expires_at" doc:"When it stops waiting"`
	ClosedAt      *time.Time           `json:"closed_at,omitempty"`
	Need          int                  `json:"need,omitempty" doc:"How many persons must approve under the policies that hold now; left out in lists"`
	Have          int                  `json:"have,omitempty" doc:"How many of the approvals given count"`
	Groups        []string             `json:"groups,omitempty" doc:"Of which an approver must be in one"`
	Binding       string               `json:"binding,omitempty" doc:"Names what an approval given now is for: the request, its profile, the policies"`
	Signed        bool                 `json:"signed,omitempty" doc:"Approvals must be signed by the approvers' own keys"`
	Policies      string               `json:"policies,omitempty" doc:"The policies that hold now; left out in lists"`
	Statement     string               `json:"statement,omitempty" doc:"While it waits: what the caller signs to approve it"`
	Reasons       []policies.Violation `json:"reasons,omitempty" doc:"What asks for approval"`
	Approvals     []Approval           `json:"approvals,omitempty" doc:"Left out in lists"`
}

// Person is who stands behind a credential.
type Person struct {
	ID     string `json:"id" doc:"Of the credential"`
	Name   string `json:"name"`
	Person string `json:"person"`
}

// Approval is one person's word for or against a request.
type Approval struct {
	Person     string    `json:"person"`
	Approved   bool      `json:"approved"`
	Binding    string    `json:"binding" doc:"What it was for; it counts while that is the request's own"`
	Comment    string    `json:"comment,omitempty"`
	At         time.Time `json:"at"`
	AuditEvent string    `json:"audit_event"`
	Evidence   *Evidence `json:"evidence,omitempty" doc:"Where the approval is signed"`
	Withdrawn  bool      `json:"withdrawn,omitempty" doc:"Its key ended, or its API token was withdrawn: an approval counts no more"`
}

// WaitingList is one page of requests, newest first.
type WaitingList struct {
	Requests []WaitingRequest `json:"requests"`
	Next     string           `json:"next,omitempty" doc:"The cursor of the next page; left out on the last"`
}

// Word is what a person says to a request.
type Word struct {
	Binding   string `json:"binding,omitempty" doc:"As the request showed it: when the policies have changed since, nothing is recorded"`
	Comment   string `json:"comment,omitempty" doc:"For people; at most 1,000 octets"`
	Signature string `json:"signature,omitempty" doc:"By the caller's own key over the statement, PEM; for a rejection over the statement that says reject"`
}

type requestsInput struct {
	Status string `query:"status" enum:"waiting,issuing,issued,rejected,expired,refused"`
	Cursor string `query:"cursor" doc:"As the last page gave it in next"`
	Limit  string `query:"limit" pattern:"^[0-9]{1,3}$" doc:"Requests on a page: 1 to 500, 100 when left out"`
}

var waitingStates = []string{ca.StatusWaiting, ca.StatusIssuing, ca.StatusIssued, ca.StatusRejected, ca.StatusExpired, ca.StatusRefused}

type requestsAnswer struct{ Body WaitingList }

func (s *Server) routeRequests(api huma.API) error {
	return route(s, api, call{
		method: http.MethodGet, path: "/requests", id: "list-requests", tag: tagRequests, success: http.StatusOK,
		summary: "Read the requests that need approval", description: "Newest first, those that were decided among them.",
		answers: []media{{name: typeJSON, json: WaitingList{}}},
	}, s.requests)
}

func (s *Server) requests(ctx context.Context, in *requestsInput) (*requestsAnswer, error) {
	f := ca.WaitingFilter{Status: in.Status, Cursor: in.Cursor}
	var all []policies.Violation
	if in.Status != "" && !slices.Contains(waitingStates, in.Status) {
		all = append(all, broken("status", "use "+strings.Join(waitingStates, ", "), "there is no such status"))
	}
	f.Limit, all = readPage(in.Cursor, in.Limit, all)
	if err := refusal(all...); err != nil {
		return nil, err
	}
	page, next, err := s.ca.Requests(ctx, exchangeOf(ctx).actor, f)
	if err != nil {
		return nil, err
	}
	list := WaitingList{Requests: []WaitingRequest{}, Next: next}
	for _, w := range page {
		list.Requests = append(list.Requests, showWaiting(w))
	}
	return &requestsAnswer{Body: list}, nil
}

type requestInput struct {
	ID string `path:"id" doc:"As the answer to the request gave it"`
}

type requestAnswer struct{ Body WaitingRequest }

func (s *Server) routeRequest(api huma.API) error {
	return route(s, api, call{
		method: http.MethodGet, path: "/requests/{id}", id: "get-request", tag: tagRequests, success: http.StatusOK,
		summary:     "Read a request that needs approval",
		description: "Gives where it stands, who has approved, and what is missing under the policies that hold now.",
		answers:     []media{{name: typeJSON, json: WaitingRequest{}}},
		problems:    []int{http.StatusNotFound},
	}, s.request)
}

func (s *Server) request(ctx context.Context, in *requestInput) (*requestAnswer, error) {
	state, err := s.ca.Request(ctx, exchangeOf(ctx).actor, in.ID)
	if err != nil {
		return nil, err
	}
	return &requestAnswer{Body: showState(ctx, state)}, nil
}

var decisionProblems = append([]int{http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity}, requestProblems...)

func (s *Server) routeApprove(api huma.API) error {
	return route(s, api, call{
		method: http.MethodPost, path: "/requests/{id}/approve", id: "approve-request", tag: tagRequests, success: http.StatusOK,
		summary: "Approve a request",
		description: "Records one person's approval; the last one that is needed issues the certificate. Nobody approves the own request, and " +
			"two credentials of one person are one person. The policies are asked anew: what they now refuse ends here. Repeating is harmless, " +
			"and takes up an issuance that failed.",
		bodies:   []media{{name: typeJSON, json: Word{}}},
		answers:  []media{{name: typeJSON, json: WaitingRequest{}}},
		problems: decisionProblems,
	}, s.approve)
}

func (s *Server) routeReject(api huma.API) error {
	return route(s, api, call{
		method: http.MethodPost, path: "/requests/{id}/reject", id: "reject-request", tag: tagRequests, success: http.StatusOK,
		summary:     "Reject a request",
		description: "Ends its waiting; the comment is what the requester reads.",
		bodies:      []media{{name: typeJSON, json: Word{}}},
		answers:     []media{{name: typeJSON, json: WaitingRequest{}}},
		problems:    decisionProblems,
	}, s.reject)
}

func (s *Server) approve(ctx context.Context, in *requestInput) (*requestAnswer, error) {
	return decideRequest(ctx, in, s.ca.Approve)
}

func (s *Server) reject(ctx context.Context, in *requestInput) (*requestAnswer, error) {
	return decideRequest(ctx, in, s.ca.Reject)
}

func decideRequest(ctx context.Context, in *requestInput,
	decide func(context.Context, ca.ApproveOrder) (ca.RequestState, error),
) (*requestAnswer, error) {
	var body Word
	if err := decodeStrict(exchangeOf(ctx).body, &body); err != nil {
		return nil, err
	}
	if !printable(strings.ReplaceAll(body.Comment, "\n", "")) {
		return nil, refusal(broken("comment", "send text", "the comment holds control characters"))
	}
	if len(body.Binding) > maxBinding || !printable(body.Binding) {
		return nil, refusal(broken("binding", "send it as the request showed it, or leave it out", "the binding is none"))
	}
	signature, err := readSignature(body.Signature)
	if err != nil {
		return nil, err
	}
	state, err := decide(ctx, ca.ApproveOrder{
		Actor: exchangeOf(ctx).actor, Request: in.ID, Binding: body.Binding, Comment: body.Comment, Signature: signature,
	})
	if err != nil {
		return nil, err
	}
	return &requestAnswer{Body: showState(ctx, state)}, nil
}

const maxBinding = 128 // octets

func showState(ctx context.Context, state ca.RequestState) WaitingRequest {
	shown := showWaiting(state.WaitingRequest)
	shown.Need, shown.Have, shown.Groups, shown.Binding, shown.Reasons = state.Need, state.Have, state.Groups, state.Binding, state.Reasons
	shown.Signed, shown.Policies, shown.Statement = state.Signed, state.Policies, state.Statement(exchangeOf(ctx).actor.Person)
	shown.CSR = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: state.CSR}))
	for _, a := range state.Approvals {
		shown.Approvals = append(shown.Approvals, Approval{
			Person: a.Person, Approved: a.Approved, Binding: a.Binding, Comment: a.Comment, At: a.At.UTC(), AuditEvent: a.EventID,
			Evidence: showEvidence(a.Evidence), Withdrawn: a.Withdrawn,
		})
	}
	return shown
}

func showWaiting(w ca.WaitingRequest) WaitingRequest {
	shown := WaitingRequest{
		ID: w.ID, Status: w.Status, Why: w.Why, Serial: hex.EncodeToString(w.Serial), Namespace: w.Namespace, Profile: w.Profile,
		Issuer:        w.Issuer,
		PolicyVersion: w.PolicyDigest, Requester: Person{ID: w.Actor.ID, Name: w.Actor.Name, Person: w.Actor.Person}, Subject: w.Subject,
		Names: slices.Concat([]string{}, w.Names), Metadata: w.Metadata, AskedAt: w.At.UTC(), ExpiresAt: w.ExpiresAt.UTC(),
	}
	if !w.ClosedAt.IsZero() {
		at := w.ClosedAt.UTC()
		shown.ClosedAt = &at
	}
	return shown
}
