package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"time"
)

// WaitingRequest is a request that needs, or needed, the approval of persons.
type WaitingRequest struct {
	ID            string            `json:"id"`
	Status        string            `json:"status"` // "waiting", "issuing", "issued", "rejected", "expired", "refused"
	Why           string            `json:"why,omitempty"`
	Serial        string            `json:"serial,omitempty"` // of the certificate
	Namespace     string            `json:"namespace"`
	Profile       string            `json:"profile"`
	Issuer        string            `json:"issuer"`
	PolicyVersion string            `json:"policy_version"`
	Requester     Person            `json:"requester"`
	Subject       string            `json:"subject"`
	Names         []string          `json:"names"`
	CSR           string            `json:"csr,omitempty"` // PEM; empty in lists
	Metadata      map[string]string `json:"metadata,omitempty"`
	AskedAt       time.Time         `json:"asked_at"`
	ExpiresAt     time.Time         `json:"expires_at"`
	ClosedAt      *time.Time        `json:"closed_at,omitempty"`
	Need          int               `json:"need,omitempty"` // 0 in lists, as are Have, Groups, Binding, Reasons and Approvals
	Have          int               `json:"have,omitempty"`
	Groups        []string          `json:"groups,omitempty"`
	Binding       string            `json:"binding,omitempty"`
	Signed        bool              `json:"signed,omitempty"`    // approvals must be signed
	Policies      string            `json:"policies,omitempty"`  // digest of those that hold now
	Statement     string            `json:"statement,omitempty"` // what the caller signs to approve it, while it waits
	Reasons       []Violation       `json:"reasons,omitempty"`
	Approvals     []Approval        `json:"approvals,omitempty"`
}

// Person is who stands behind a credential.
type Person struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Person string `json:"person"`
}

// Approval is one person's word for or against a request.
type Approval struct {
	Person     string    `json:"person"`
	Approved   bool      `json:"approved"`
	Binding    string    `json:"binding"`
	Comment    string    `json:"comment,omitempty"`
	At         time.Time `json:"at"`
	AuditEvent string    `json:"audit_event"`
	Evidence   *Evidence `json:"evidence,omitempty"`  // where it is signed
	Withdrawn  bool      `json:"withdrawn,omitempty"` // its key ended, or its API token was withdrawn: an approval counts no more
}

// Evidence is a signed word, whole.
type Evidence struct {
	Statement string `json:"statement"`
	Signature string `json:"signature"` // PEM
	Key       string `json:"key"`       // the approver's public key
	Digest    string `json:"evidence_sha256"`
}

// Waiting is the error of a request that has no certificate because it needs approval, or needed it and did not get it. Asking again with
// the same idempotency key gets the certificate once it is issued.
type Waiting struct {
	Request WaitingRequest
}

func (w *Waiting) Error() string {
	text := fmt.Sprintf("request %s is %s", w.Request.ID, w.Request.Status)
	if w.Request.Why != "" {
		text += ": " + w.Request.Why
	}
	return text
}

// RequestFilter selects requests that need, or needed, approval.
type RequestFilter struct {
	Status   string // empty: any
	PageSize int    // 1 to 500; 0: the service's choice
}

// Requests are the requests that need, or needed, approval, newest first.
func (c *Client) Requests(ctx context.Context, f RequestFilter) iter.Seq2[WaitingRequest, error] {
	return func(yield func(WaitingRequest, error) bool) {
		for cursor := ""; ; {
			var page struct {
				Requests []WaitingRequest `json:"requests"`
				Next     string           `json:"next"`
			}
			values := map[string]string{"status": f.Status, "cursor": cursor}
			if f.PageSize > 0 {
				values["limit"] = fmt.Sprint(f.PageSize)
			}
			if _, err := c.json(ctx, call{method: http.MethodGet, path: []string{"requests"}, query: given(values)}, &page); err != nil {
				yield(WaitingRequest{}, err)
				return
			}
			for _, r := range page.Requests {
				if !yield(r, nil) {
					return
				}
			}
			if page.Next == "" {
				return
			}
			if page.Next == cursor {
				yield(WaitingRequest{}, errors.New("listing requests: the service gave the same page twice"))
				return
			}
			cursor = page.Next
		}
	}
}

// WaitingRequest is one request, with what it still needs.
func (c *Client) WaitingRequest(ctx context.Context, id string) (*WaitingRequest, error) {
	return c.request(ctx, call{method: http.MethodGet, path: []string{"requests", id}})
}

// Word is what a person says to a request.
type Word struct {
	Binding   string `json:"binding,omitempty"` // as the request showed it; empty: whatever holds now
	Comment   string `json:"comment,omitempty"`
	Signature string `json:"signature,omitempty"` // PEM, by the caller's own key over the statement
}

// Approve approves a request; the last approval that is needed issues the certificate. Repeating is harmless.
func (c *Client) Approve(ctx context.Context, id string, w Word) (*WaitingRequest, error) {
	return c.request(ctx, call{method: http.MethodPost, path: []string{"requests", id, "approve"}, body: w})
}

// Reject ends the waiting of a request.
func (c *Client) Reject(ctx context.Context, id string, w Word) (*WaitingRequest, error) {
	return c.request(ctx, call{method: http.MethodPost, path: []string{"requests", id, "reject"}, body: w})
}

func (c *Client) request(ctx context.Context, r call) (*WaitingRequest, error) {
	found := &WaitingRequest{}
	if _, err := c.json(ctx, r, found); err != nil {
		return nil, err
	}
	return found, nil
}
