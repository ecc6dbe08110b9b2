package client

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"time"
)

// Selection says which certificates are meant. Of each list one must fit; all criteria given must.
type Selection struct {
	Serials      []string  `json:"serials,omitempty"`      // lower-case hex
	Certificates string    `json:"certificates,omitempty"` // PEM, any number
	Keys         []string  `json:"keys,omitempty"`         // SHA-256 of the SubjectPublicKeyInfo, hex
	Names        []string  `json:"names,omitempty"`        // subject alternative names, whole
	Requester    string    `json:"requester,omitempty"`    // ID of the credential that asked
	Profile      string    `json:"profile,omitempty"`
	Issuer       string    `json:"issuer,omitempty"`
	Namespace    string    `json:"namespace,omitempty"`
	IssuedFrom   time.Time `json:"issued_from,omitzero"`
	IssuedUntil  time.Time `json:"issued_until,omitzero"` // exclusive
	All          bool      `json:"all,omitempty"`         // everything of an issuer, a profile or a namespace is meant
}

// RevokeManyInput says what to revoke and why.
type RevokeManyInput struct {
	Selection
	Reason         string    `json:"reason"` // RFC 5280, section 5.3.1, by name or number
	Comment        string    `json:"comment,omitempty"`
	InvalidityDate time.Time `json:"invalidity_date,omitzero"`
	DryRun         bool      `json:"dry_run,omitempty"`
}

// RevocationOutlook is what a selection meets.
type RevocationOutlook struct {
	Found          int                 `json:"found"`
	ToRevoke       int                 `json:"to_revoke"`
	Already        int                 `json:"already"`
	Expired        int                 `json:"expired"`
	Keys           int                 `json:"keys"` // of those that stay as they are: to be remembered as compromised
	Unknown        int                 `json:"unknown"`
	UnknownSerials []string            `json:"unknown_serials,omitempty"` // up to a thousand
	Issuers        map[string]int      `json:"issuers"`
	Profiles       map[string]int      `json:"profiles"`
	Namespaces     map[string]int      `json:"namespaces"`
	Examples       []RevocationExample `json:"examples"` // up to ten
}

// RevocationExample is one certificate that is to be revoked.
type RevocationExample struct {
	Serial  string   `json:"serial"`
	Issuer  string   `json:"issuer"`
	Subject string   `json:"subject"`
	Names   []string `json:"names"`
}

// States of a RevocationJob: the two that it does not stay in, and that of one that was ended half way.
const (
	JobWaiting   = "waiting" // for approval
	JobRunning   = "running"
	JobCancelled = "cancelled"
)

// RevocationJob is an order to revoke certificates, and how far it has come.
type RevocationJob struct {
	ID             string            `json:"id"`
	Status         string            `json:"status"` // JobWaiting, JobRunning, JobCancelled, "expired", "rejected", "finished"
	Namespace      string            `json:"namespace"`
	Requester      Person            `json:"requester"`
	Selection      map[string]string `json:"selection"`
	Reason         string            `json:"reason"`
	Comment        string            `json:"comment,omitempty"`
	InvalidityDate *time.Time        `json:"invalidity_date,omitempty"`
	AskedAt        time.Time         `json:"asked_at"`
	ExpiresAt      *time.Time        `json:"expires_at,omitempty"`
	ClosedAt       *time.Time        `json:"closed_at,omitempty"`
	Digest         string            `json:"digest"`
	Found          int               `json:"found"`
	Total          int               `json:"total"`
	Keys           int               `json:"keys"` // of the total: they stay as they are, and their keys are remembered as compromised
	Done           int               `json:"done"`
	Revoked        int               `json:"revoked"`
	Already        int               `json:"already"`
	Expired        int               `json:"expired"`
	Refused        int               `json:"refused"`
	Remembered     int               `json:"remembered"` // keys of certificates that stayed as they were
	Need           int               `json:"need,omitempty"`
	Statement      string            `json:"statement,omitempty"` // what the caller signs to approve it, while it waits
	Approvals      []Vote            `json:"approvals,omitempty"`
	AuditEvent     string            `json:"audit_event"`
}

// Vote is one person's word for or against a job.
type Vote struct {
	Person     string    `json:"person"`
	Approved   bool      `json:"approved"`
	Comment    string    `json:"comment,omitempty"`
	At         time.Time `json:"at"`
	AuditEvent string    `json:"audit_event"`
	Evidence   *Evidence `json:"evidence,omitempty"`  // where it is signed
	Withdrawn  bool      `json:"withdrawn,omitempty"` // its key ended, or its API token was withdrawn: an approval counts no more
}

// Revocations is what came of an order to revoke many. Job is nil of a dry run.
type Revocations struct {
	DryRun  bool              `json:"dry_run"`
	Outlook RevocationOutlook `json:"outlook"`
	Job     *RevocationJob    `json:"job,omitempty"`
}

// RevokeMany revokes the certificates that a selection meets, or tells which they would be. A job that runs or waits goes on by itself. It is
// ordered once: where the answer is lost there may be a job, which RevocationJobs has.
func (c *Client) RevokeMany(ctx context.Context, in RevokeManyInput) (*Revocations, error) {
	answer := &Revocations{}
	if _, err := c.json(ctx, call{method: http.MethodPost, path: []string{"revocations"}, body: in, once: !in.DryRun}, answer); err != nil {
		return nil, err
	}
	return answer, nil
}

// RevocationJob is one job.
func (c *Client) RevocationJob(ctx context.Context, id string) (*RevocationJob, error) {
	return c.job(ctx, call{method: http.MethodGet, path: []string{"revocations", id}})
}

// RevocationJobs are the jobs, newest first.
func (c *Client) RevocationJobs(ctx context.Context) iter.Seq2[RevocationJob, error] {
	return func(yield func(RevocationJob, error) bool) {
		for cursor := ""; ; {
			var page struct {
				Jobs []RevocationJob `json:"jobs"`
				Next string          `json:"next"`
			}
			where := call{method: http.MethodGet, path: []string{"revocations"}, query: given(map[string]string{"cursor": cursor})}
			_, err := c.json(ctx, where, &page)
			if err == nil && page.Next != "" && page.Next == cursor {
				err = errors.New("listing revocations: the service gave the same page twice")
			}
			if err != nil {
				yield(RevocationJob{}, err)
				return
			}
			for _, j := range page.Jobs {
				if !yield(j, nil) {
					return
				}
			}
			if page.Next == "" {
				return
			}
			cursor = page.Next
		}
	}
}

// JobWord is what a person says to a job.
type JobWord struct {
	Digest    string `json:"digest,omitempty"` // as the job showed it; empty: whatever it is
	Comment   string `json:"comment,omitempty"`
	Signature string `json:"signature,omitempty"` // PEM, by the caller's own key over the statement
}

// ApproveRevocation approves a job; with the last approval that is needed it begins.
func (c *Client) ApproveRevocation(ctx context.Context, id string, w JobWord) (*RevocationJob, error) {
	return c.job(ctx, call{method: http.MethodPost, path: []string{"revocations", id, "approve"}, body: w})
}

// RejectRevocation ends a job before it has begun.
func (c *Client) RejectRevocation(ctx context.Context, id string, w JobWord) (*RevocationJob, error) {
	return c.job(ctx, call{method: http.MethodPost, path: []string{"revocations", id, "reject"}, body: w})
}

// CancelRevocation ends a job; what it has revoked stays revoked.
func (c *Client) CancelRevocation(ctx context.Context, id string) (*RevocationJob, error) {
	return c.job(ctx, call{method: http.MethodPost, path: []string{"revocations", id, "cancel"}, body: struct{}{}})
}

func (c *Client) job(ctx context.Context, r call) (*RevocationJob, error) {
	found := &RevocationJob{}
	if _, err := c.json(ctx, r, found); err != nil {
		return nil, err
	}
	return found, nil
}
