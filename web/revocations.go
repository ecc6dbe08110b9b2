package web

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/policies"
)

// Revocations is what the surface asks of the authority about revoking many certificates, and by the certificate's key.
type Revocations interface {
	PreviewRevocation(ctx context.Context, o ca.BulkOrder) (ca.RevocationOutlook, error)
	RevokeMany(ctx context.Context, o ca.BulkOrder) (ca.RevocationJob, ca.RevocationOutlook, error)
	RevocationJob(ctx context.Context, actor access.Actor, id string) (ca.RevocationJob, error)
	RevocationJobs(ctx context.Context, actor access.Actor, cursor string, limit int) (page []ca.RevocationJob, next string, err error)
	DecideOnRevocation(ctx context.Context, actor access.Actor, d ca.RevocationDecision) (ca.RevocationJob, error)
	CancelRevocation(ctx context.Context, actor access.Actor, id string) (ca.RevocationJob, error)
	RevokeByKey(ctx context.Context, issuer string, serial []byte, p ca.Possession, comment string) (ca.Revocation, error)
}

// RevocationRequest asks for many certificates to be revoked. Of each list one must fit; all criteria given must.
type RevocationRequest struct {
	Serials        []string `json:"serials,omitempty" doc:"Lower-case hex"`
	Certificates   string   `json:"certificates,omitempty" doc:"PEM, any number of certificates"`
	Keys           []string `json:"keys,omitempty" doc:"SHA-256 of the SubjectPublicKeyInfo, lower-case hex"`
	Names          []string `json:"names,omitempty" doc:"Subject alternative names, whole"`
	Requester      string   `json:"requester,omitempty" doc:"ID of the credential that asked for the certificate"`
	Profile        string   `json:"profile,omitempty"`
	Issuer         string   `json:"issuer,omitempty" doc:"The authority"`
	Namespace      string   `json:"namespace,omitempty" doc:"The caller's own when left out, or all for a caller of all"`
	IssuedFrom     string   `json:"issued_from,omitempty" format:"date-time"`
	IssuedUntil    string   `json:"issued_until,omitempty" format:"date-time" doc:"Exclusive"`
	All            bool     `json:"all,omitempty" doc:"Says that all of an issuer, a profile or a namespace are meant"`
	Reason         string   `json:"reason" example:"keyCompromise" doc:"Of RFC 5280, by name or number; removeFromCRL ends holds"`
	Comment        string   `json:"comment,omitempty" doc:"For people; at most 1,000 octets"`
	InvalidityDate string   `json:"invalidity_date,omitempty" format:"date-time" doc:"Since when the keys are not to be trusted"`
	DryRun         bool     `json:"dry_run,omitempty" doc:"Tell what would be revoked, and revoke nothing"`
}

// RevocationOutlook is what a selection meets.
type RevocationOutlook struct {
	Found          int                 `json:"found" doc:"Certificates that the selection meets"`
	ToRevoke       int                 `json:"to_revoke" doc:"Of these, whose state changes"`
	Already        int                 `json:"already" doc:"In that state before, or revoked for good"`
	Expired        int                 `json:"expired" doc:"Left alone"`
	Keys           int                 `json:"keys" doc:"For keyCompromise: keys of those that are left as they are, which are remembered as compromised; each once"`
	Unknown        int                 `json:"unknown" doc:"Serials given that are of no certificate that you may see"`
	UnknownSerials []string            `json:"unknown_serials,omitempty" doc:"Up to a thousand of them"`
	Issuers        map[string]int      `json:"issuers" doc:"To be revoked, by authority"`
	Profiles       map[string]int      `json:"profiles"`
	Namespaces     map[string]int      `json:"namespaces"`
	Examples       []RevocationExample `json:"examples" doc:"Of those to be revoked, up to ten"`
}

// RevocationExample is one certificate that is to be revoked.
type RevocationExample struct {
	Serial  string   `json:"serial"`
	Issuer  string   `json:"issuer"`
	Subject string   `json:"subject"`
	Names   []string `json:"names"`
}

// RevocationJob is an order to revoke certificates, and how far it has come.
type RevocationJob struct {
	ID             string            `json:"id"`
	Status         string            `json:"status" enum:"waiting,expired,rejected,running,finished,cancelled"`
	Namespace      string            `json:"namespace"`
	Requester      Person            `json:"requester"`
	Selection      map[string]string `json:"selection" doc:"What was asked for, in words; which certificates that were is frozen"`
	Reason         string            `json:"reason"`
	Comment        string            `json:"comment,omitempty"`
	InvalidityDate *time.Time        `json:"invalidity_date,omitempty"`
	AskedAt        time.Time         `json:"asked_at"`
	ExpiresAt      *time.Time        `json:"expires_at,omitempty" doc:"While it waits: it must be approved before"`
	ClosedAt       *time.Time        `json:"closed_at,omitempty"`
	Digest         string            `json:"digest" doc:"SHA-256 of the list of certificates: what is approved"`
	Found          int               `json:"found" doc:"Certificates that the selection met"`
	Total          int               `json:"total" doc:"Of these there was something to be done with: to revoke them, or to remember their keys"`
	Keys           int               `json:"keys" doc:"Of the total: left as they are, and their keys remembered as compromised"`
	Done           int               `json:"done" doc:"Of the total, seen to so far"`
	Revoked        int               `json:"revoked" doc:"Or held, or released"`
	Already        int               `json:"already" doc:"Left as they were: revoked before"`
	Expired        int               `json:"expired" doc:"Left as they were"`
	Refused        int               `json:"refused" doc:"Left as they were: their profile knows no hold"`
	Remembered     int               `json:"remembered" doc:"Keys of certificates that were left as they were, remembered as compromised"`
	Need           int               `json:"need,omitempty" doc:"Approvals that it needs"`
	Statement      string            `json:"statement,omitempty" doc:"While it waits: what the caller signs to approve it"`
	Approvals      []Vote            `json:"approvals,omitempty" doc:"Left out in lists"`
	AuditEvent     string            `json:"audit_event"`
}

// Vote is one person's word for or against a job.
type Vote struct {
	Person     string    `json:"person"`
	Approved   bool      `json:"approved"`
	Comment    string    `json:"comment,omitempty"`
	At         time.Time `json:"at"`
	AuditEvent string    `json:"audit_event"`
	Evidence   *Evidence `json:"evidence,omitempty" doc:"Where it is signed"`
	Withdrawn  bool      `json:"withdrawn,omitempty" doc:"Its key ended, or its API token was withdrawn: an approval counts no more"`
}

// RevocationAnswer tells what is, or would be, revoked.
type RevocationAnswer struct {
	DryRun  bool              `json:"dry_run"`
	Outlook RevocationOutlook `json:"outlook"`
	Job     *RevocationJob    `json:"job,omitempty" doc:"Left out of a dry run"`
}

// RevocationList is one page of jobs, newest first.
type RevocationList struct {
	Jobs []RevocationJob `json:"jobs"`
	Next string          `json:"next,omitempty" doc:"The cursor of the next page; left out on the last"`
}

// RevocationWord is what a person says to a job.
type RevocationWord struct {
	Digest    string `json:"digest,omitempty" doc:"As the job showed it: nothing else is approved"`
	Comment   string `json:"comment,omitempty" doc:"For people; at most 1,000 octets"`
	Signature string `json:"signature,omitempty" doc:"By the caller's own key over the statement, PEM; for a rejection over the statement that says reject"`
}

const (
	maxSelection     = 8 << 20 // octets of the body of an order to revoke: some 180,000 serials
	selectionsAtOnce = 8       // of these orders, by everybody together: each holds its body in memory
)

type revocationsAnswer struct {
	Status   int    `hidden:"true"`
	Location string `header:"Location" doc:"Where the job is from now on"`
	Body     RevocationAnswer
}

func (s *Server) routeRevokeMany(api huma.API) error {
	return route(s, api, call{
		method: http.MethodPost, path: "/revocations", id: "revoke-certificates", tag: tagRevocations, success: http.StatusOK,
		summary: "Revoke many certificates",
		description: fmt.Sprintf("Revokes the certificates that a selection meets, or tells which these would be. Up to %d are revoked when the "+
			"answer comes (200). More are revoked from then on by a job, which goes on whatever happens to this service, and above a threshold "+
			"waits until another person has approved it (202; Location leads to it). Which certificates a job revokes is settled now: later ones "+
			"are not among them. What is revoked already or has expired is counted and left alone; where keys are compromised, the keys of "+
			"these are remembered all the same.", ca.AtOnce),
		bodies:   []media{{name: typeJSON, json: RevocationRequest{}}},
		answers:  []media{{name: typeJSON, json: RevocationAnswer{}}},
		accepted: []media{{name: typeJSON, json: RevocationAnswer{}}},
		problems: append([]int{http.StatusNotFound}, requestProblems...),
		maxBody:  maxSelection, places: s.selections,
	}, s.revokeMany)
}

func (s *Server) revokeMany(ctx context.Context, _ *struct{}) (*revocationsAnswer, error) {
	var body RevocationRequest
	if err := decodeStrict(exchangeOf(ctx).body, &body); err != nil {
		return nil, err
	}
	wish, err := readSelection(ctx, body)
	if err != nil {
		return nil, err
	}
	if body.DryRun {
		outlook, err := s.ca.PreviewRevocation(ctx, wish)
		if err != nil {
			return nil, err
		}
		return &revocationsAnswer{Status: http.StatusOK, Body: RevocationAnswer{DryRun: true, Outlook: showOutlook(outlook)}}, nil
	}
	job, outlook, err := s.ca.RevokeMany(ctx, wish)
	if err != nil {
		return nil, err
	}
	shown := s.showJob(ctx, job)
	answer := &revocationsAnswer{
		Status: http.StatusOK, Location: pattern("/revocations/" + job.ID), Body: RevocationAnswer{Outlook: showOutlook(outlook), Job: &shown},
	}
	if shown.Status == ca.JobRunning || shown.Status == ca.JobWaiting {
		answer.Status = http.StatusAccepted
	}
	return answer, nil
}

// readSelection makes an order of the body and reports all that is wrong with it.
func readSelection(ctx context.Context, body RevocationRequest) (ca.BulkOrder, error) {
	o := ca.BulkOrder{Actor: exchangeOf(ctx).actor, Comment: body.Comment}
	o.Selection = ca.Selection{
		Names: body.Names, Requester: body.Requester, Profile: body.Profile, Issuer: body.Issuer, Namespace: body.Namespace, All: body.All,
	}
	var all []policies.Violation
	report := func(field, hint, message string) {
		if len(all) < maxViolations {
			all = append(all, broken(field, hint, message))
		}
	}
	for i, text := range body.Serials {
		serial, err := parseSerial(text)
		var bad *invalid
		if errors.As(err, &bad) {
			report(fmt.Sprintf("serials[%d]", i), bad.violations[0].Hint, bad.violations[0].Message)
		}
		o.Selection.Serials = append(o.Selection.Serials, serial)
	}
	for i, text := range body.Keys {
		digest, err := hex.DecodeString(text)
		if err != nil || len(digest) != 32 || text != strings.ToLower(text) {
			report(fmt.Sprintf("keys[%d]", i), "give the SHA-256 of the SubjectPublicKeyInfo in lower-case hex", "the digest is none")
			continue
		}
		o.Selection.Keys = append(o.Selection.Keys, [32]byte(digest))
	}
	for i, name := range body.Names {
		if name == "" || len(name) > maxQuery || !printable(name) {
			report(fmt.Sprintf("names[%d]", i), "give a whole subject alternative name", "the name is none")
		}
	}
	for field, name := range map[string]string{"profile": body.Profile, "issuer": body.Issuer} {
		if name != "" && !nameable(name) {
			report(field, "names have letters, digits and hyphens", "nothing has such a name")
		}
	}
	for field, name := range map[string]string{"requester": body.Requester, "namespace": body.Namespace} {
		if len(name) > maxQuery || !printable(name) {
			report(field, "give it as certificates and requests show it", "nothing has such a name")
		}
	}
	var ok bool
	if o.Selection.Certificates, ok = readCertificates(body.Certificates); !ok {
		report("certificates", "send certificates in PEM and nothing else", "the certificates cannot be read")
	}
	for field, given := range map[string]struct {
		text string
		to   *time.Time
	}{
		"issued_from": {body.IssuedFrom, &o.Selection.IssuedFrom}, "issued_until": {body.IssuedUntil, &o.Selection.IssuedUntil},
		"invalidity_date": {body.InvalidityDate, &o.InvalidityDate},
	} {
		if given.text == "" {
			continue
		}
		at, err := time.Parse(time.RFC3339, given.text)
		if err != nil {
			report(field, timeHint, notTime)
		}
		*given.to = at
	}
	var err error
	if o.Reason, err = ca.ParseReason(body.Reason); err != nil {
		report("reason", "use one of "+strings.Join(ca.ReasonNames(), ", "), "there is no such reason")
	}
	if !printable(strings.ReplaceAll(body.Comment, "\n", "")) {
		report("comment", "send text", "the comment holds control characters")
	}
	return o, refusal(all...)
}

// readCertificates reads certificates in PEM, and nothing besides. A decoder of PEM passes over a block that it cannot decode: what it takes
// must be one, or a certificate would stay valid that was to be revoked.
func readCertificates(text string) (all [][]byte, ok bool) {
	for rest := bytes.TrimSpace([]byte(text)); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		if !bytes.HasPrefix(rest, []byte("-----BEGIN CERTIFICATE-----")) {
			return nil, false
		}
		block, after := pem.Decode(rest)
		if block == nil || len(block.Headers) > 0 || bytes.Count(rest[:len(rest)-len(after)], []byte("-----BEGIN ")) != 1 {
			return nil, false
		}
		all, rest = append(all, block.Bytes), after
	}
	return all, true
}

func showOutlook(o ca.RevocationOutlook) RevocationOutlook {
	shown := RevocationOutlook{
		Found: o.Found, ToRevoke: o.ToRevoke, Already: o.Already, Expired: o.Expired, Keys: o.Keys, Unknown: o.Unknown,
		UnknownSerials: o.UnknownSerials, Issuers: orNone(o.Issuers), Profiles: orNone(o.Profiles), Namespaces: orNone(o.Namespaces), Examples: []RevocationExample{},
	}
	for _, e := range o.Examples {
		shown.Examples = append(shown.Examples, RevocationExample(e))
	}
	return shown
}

// orNone is an empty map in place of none, which JSON would show as null.
func orNone(counts map[string]int) map[string]int {
	if counts == nil {
		return map[string]int{}
	}
	return counts
}

func (s *Server) showJob(ctx context.Context, j ca.RevocationJob) RevocationJob {
	shown := RevocationJob{
		ID: j.ID, Status: j.Status(s.now()), Namespace: j.Namespace,
		Requester: Person{ID: j.Actor.ID, Name: j.Actor.Name, Person: j.Actor.Person},
		Selection: j.Selection, Reason: j.Reason.String(), Comment: j.Comment, InvalidityDate: showTime(j.InvalidityDate),
		AskedAt:  j.AskedAt.UTC(),
		ClosedAt: showTime(j.ClosedAt), Digest: hex.EncodeToString(j.Digest[:]), Found: j.Found, Total: j.Total,
		Keys: j.Keys, Remembered: j.Counts.Remembered, Done: min(j.NextLot*ca.LotSize, j.Total),
		Revoked: j.Counts.Revoked, Already: j.Counts.Already, Expired: j.Counts.Expired, Refused: j.Counts.Refused, Need: j.Needs,
		AuditEvent: j.EventID,
	}
	if shown.Selection == nil {
		shown.Selection = map[string]string{}
	}
	if shown.Status == ca.JobWaiting || shown.Status == ca.JobExpired {
		shown.ExpiresAt = showTime(j.ExpiresAt)
	}
	for _, v := range j.Votes {
		shown.Approvals = append(shown.Approvals, Vote{
			Person: v.Person, Approved: v.Approves, Comment: v.Comment, At: v.At.UTC(), AuditEvent: v.EventID, Evidence: showEvidence(v.Evidence),
			Withdrawn: v.Withdrawn,
		})
	}
	if shown.Status == ca.JobWaiting {
		shown.Statement = j.Statement(exchangeOf(ctx).actor.Person)
	}
	return shown
}

type jobsInput struct {
	Cursor string `query:"cursor" doc:"As the last page gave it in next"`
	Limit  string `query:"limit" pattern:"^[0-9]{1,3}$" doc:"Jobs on a page: 1 to 500, 100 when left out"`
}

type jobsAnswer struct{ Body RevocationList }

func (s *Server) routeJobs(api huma.API) error {
	return route(s, api, call{
		method: http.MethodGet, path: "/revocations", id: "list-revocations", tag: tagRevocations, success: http.StatusOK,
		summary: "Read the orders to revoke many certificates", description: "Newest first, those that have ended among them.",
		answers: []media{{name: typeJSON, json: RevocationList{}}},
	}, s.jobs)
}

func (s *Server) jobs(ctx context.Context, in *jobsInput) (*jobsAnswer, error) {
	limit, all := readPage(in.Cursor, in.Limit, nil)
	if err := refusal(all...); err != nil {
		return nil, err
	}
	page, next, err := s.ca.RevocationJobs(ctx, exchangeOf(ctx).actor, in.Cursor, limit)
	if err != nil {
		return nil, err
	}
	list := RevocationList{Jobs: []RevocationJob{}, Next: next}
	for _, j := range page {
		list.Jobs = append(list.Jobs, s.showJob(ctx, j))
	}
	return &jobsAnswer{Body: list}, nil
}

type jobInput struct {
	Job string `path:"job" doc:"As the answer to the order gave it"`
}

type jobAnswer struct{ Body RevocationJob }

func (s *Server) routeJob(api huma.API) error {
	return route(s, api, call{
		method: http.MethodGet, path: "/revocations/{job}", id: "get-revocation", tag: tagRevocations, success: http.StatusOK,
		summary: "Read an order to revoke many certificates", description: "Tells how far it has come, and who has approved it.",
		answers:  []media{{name: typeJSON, json: RevocationJob{}}},
		problems: []int{http.StatusNotFound},
	}, s.job)
}

func (s *Server) job(ctx context.Context, in *jobInput) (*jobAnswer, error) {
	j, err := s.ca.RevocationJob(ctx, exchangeOf(ctx).actor, in.Job)
	return s.answerJob(ctx, j, err)
}

func (s *Server) answerJob(ctx context.Context, j ca.RevocationJob, err error) (*jobAnswer, error) {
	if err != nil {
		return nil, err
	}
	return &jobAnswer{Body: s.showJob(ctx, j)}, nil
}

func (s *Server) routeApproveJob(api huma.API) error {
	return route(s, api, call{
		method: http.MethodPost, path: "/revocations/{job}/approve", id: "approve-revocation", tag: tagRevocations, success: http.StatusOK,
		summary: "Approve an order to revoke many certificates",
		description: "With the last approval that is needed it begins. Nobody approves the own order, and two credentials of one person " +
			"are one " +
			"person. The digest names the list of certificates that was looked at.",
		bodies:   []media{{name: typeJSON, json: RevocationWord{}}},
		answers:  []media{{name: typeJSON, json: RevocationJob{}}},
		problems: decisionProblems,
	}, func(ctx context.Context, in *jobInput) (*jobAnswer, error) { return s.decideJob(ctx, in, true) })
}

func (s *Server) routeRejectJob(api huma.API) error {
	return route(s, api, call{
		method: http.MethodPost, path: "/revocations/{job}/reject", id: "reject-revocation", tag: tagRevocations, success: http.StatusOK,
		summary: "Reject an order to revoke many certificates", description: "Ends it before it has begun.",
		bodies:   []media{{name: typeJSON, json: RevocationWord{}}},
		answers:  []media{{name: typeJSON, json: RevocationJob{}}},
		problems: decisionProblems,
	}, func(ctx context.Context, in *jobInput) (*jobAnswer, error) { return s.decideJob(ctx, in, false) })
}

func (s *Server) decideJob(ctx context.Context, in *jobInput, approves bool) (*jobAnswer, error) {
	var body RevocationWord
	if err := decodeStrict(exchangeOf(ctx).body, &body); err != nil {
		return nil, err
	}
	digest, err := hex.DecodeString(body.Digest)
	if err != nil || len(digest) != 0 && len(digest) != 32 {
		return nil, refusal(broken("digest", "send it as the job showed it, or leave it out", "the digest is none"))
	}
	if !printable(strings.ReplaceAll(body.Comment, "\n", "")) {
		return nil, refusal(broken("comment", "send text", "the comment holds control characters"))
	}
	signature, err := readSignature(body.Signature)
	if err != nil {
		return nil, err
	}
	j, err := s.ca.DecideOnRevocation(ctx, exchangeOf(ctx).actor, ca.RevocationDecision{
		Job: in.Job, Approves: approves, Digest: digest, Comment: body.Comment, Signature: signature,
	})
	return s.answerJob(ctx, j, err)
}

func (s *Server) routeCancelJob(api huma.API) error {
	return route(s, api, call{
		method: http.MethodPost, path: "/revocations/{job}/cancel", id: "cancel-revocation", tag: tagRevocations, success: http.StatusOK,
		summary: "End an order to revoke many certificates", description: "What it has revoked stays revoked; nothing more is.",
		bodies:   []media{{name: typeJSON, json: Empty{}}},
		answers:  []media{{name: typeJSON, json: RevocationJob{}}},
		problems: append([]int{http.StatusNotFound, http.StatusConflict}, requestProblems...),
	}, s.cancelJob)
}

func (s *Server) cancelJob(ctx context.Context, in *jobInput) (*jobAnswer, error) {
	if err := decodeStrict(exchangeOf(ctx).body, &struct{}{}); err != nil {
		return nil, err
	}
	j, err := s.ca.CancelRevocation(ctx, exchangeOf(ctx).actor, in.Job)
	return s.answerJob(ctx, j, err)
}
