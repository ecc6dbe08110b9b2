package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/csr"
	"github.com/chancery-ca/chancery/policies"
)

// Problem is every answer that is not a success (RFC 9457). Its type is stable: clients may decide on it.
type Problem struct {
	Type       string               `json:"type" format:"uri" example:"urn:chancery:problem:refused" doc:"What went wrong; stable"`
	Title      string               `json:"title" example:"The policies refuse the request" doc:"The type in words"`
	Status     int                  `json:"status" example:"422" doc:"The HTTP status"`
	Detail     string               `json:"detail,omitempty" doc:"What went wrong this time"`
	Instance   string               `json:"instance,omitempty" format:"uri" doc:"This request, as the service's log names it"`
	Violations []policies.Violation `json:"violations,omitempty" doc:"Every rule broken, and how to satisfy it"`

	header http.Header
}

// Error is the problem in one line.
func (p *Problem) Error() string { return p.Title + ": " + p.Detail }

// GetStatus is the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders are the headers that go with the problem.
func (p *Problem) GetHeaders() http.Header { return p.header }

// ContentType is the media type of a problem, whatever the caller would have accepted for a success.
func (p *Problem) ContentType(string) string { return problemType }

const problemType = "application/problem+json"

func (p *Problem) with(name, value string) *Problem {
	p.header.Set(name, value)
	return p
}

func (p *Problem) retryAfter(d time.Duration) *Problem {
	return p.with("Retry-After", strconv.Itoa(max(1, int((d+time.Second-1)/time.Second))))
}

// kind is a type of problem. The names are part of the surface: one may be added, none renamed.
type kind struct {
	name   string
	status int
	title  string
}

var (
	kindMalformed       = kind{"malformed", http.StatusBadRequest, "The request cannot be read"}
	kindInvalid         = kind{"invalid", http.StatusBadRequest, "The request makes no sense"}
	kindUnreadableCSR   = kind{"unreadable-csr", http.StatusBadRequest, "The certification request cannot be read"}
	kindUnauthenticated = kind{"unauthenticated", http.StatusUnauthorized, "Credentials are needed"}
	kindDenied          = kind{"denied", http.StatusForbidden, "You are not allowed to do this"}
	kindNotFound        = kind{"not-found", http.StatusNotFound, "There is no such thing"}
	kindNotLogged       = kind{"not-logged-yet", http.StatusNotFound, "The audit log does not cover it yet"}
	kindMethod          = kind{"method-not-allowed", http.StatusMethodNotAllowed, "The method is not allowed here"}
	kindNotAcceptable   = kind{"not-acceptable", http.StatusNotAcceptable, "No acceptable media type"}
	kindArchived        = kind{"archived", http.StatusGone, "The certificate has ended and is archived"}
	kindTimeout         = kind{"timeout", http.StatusRequestTimeout, "The request took too long to arrive"}
	kindConflict        = kind{"conflict", http.StatusConflict, "The state does not allow this"}
	kindAmbiguous       = kind{"ambiguous-serial", http.StatusConflict, "The serial is not of one issuer alone"}
	kindKeyReused       = kind{"idempotency-key-reused", http.StatusConflict, "The idempotency key was used for another request"}
	kindKeyBusy         = kind{"idempotency-key-busy", http.StatusConflict, "The first request with this idempotency key is being worked on"}
	kindTooLarge        = kind{"too-large", http.StatusRequestEntityTooLarge, "The request is too large"}
	kindMediaType       = kind{"unsupported-media-type", http.StatusUnsupportedMediaType, "The media type is not read here"}
	kindUnsigned        = kind{"signature-needed", http.StatusForbidden, "A signature by the approver's own key is needed"}
	kindRefused         = kind{"refused", http.StatusUnprocessableEntity, "The policies refuse the request"}
	kindBadPolicies     = kind{"unsound-policies", http.StatusUnprocessableEntity, "The policies cannot be loaded"}
	kindTooMany         = kind{"too-many-requests", http.StatusTooManyRequests, "Too many requests"}
	kindQuota           = kind{"quota-exhausted", http.StatusTooManyRequests, "A quota is used up"}
	kindInternal        = kind{"internal", http.StatusInternalServerError, "The service failed"}
	kindUnavailable     = kind{"unavailable", http.StatusServiceUnavailable, "The service is not available for the moment"}
)

func newProblem(k kind, detail string) *Problem {
	return &Problem{Type: "urn:chancery:problem:" + k.name, Title: k.title, Status: k.status, Detail: detail, header: http.Header{}}
}

// invalid is a request that breaks rules of its form. It carries every violation found, not only the first.
type invalid struct {
	kind       kind
	violations []policies.Violation
}

func (e *invalid) Error() string {
	if len(e.violations) == 0 {
		return e.kind.title
	}
	return e.violations[0].Message
}

// broken reports a field of a request that breaks a rule of its form.
func broken(field, hint, message string) policies.Violation {
	return policies.Violation{Rule: "request." + field, Field: field, Message: message, Hint: hint}
}

// refusal is nil for no violations.
func refusal(violations ...policies.Violation) error {
	if len(violations) == 0 {
		return nil
	}
	return &invalid{kind: kindInvalid, violations: violations}
}

const (
	notFoundDetail = "there is nothing of this name that you may see"
	shortly        = time.Second
	temporarily    = time.Minute // a refusal that time mends, by the time of others: name servers
)

// outcomes says which problem an error of the authority is; the first that fits counts. Only the sentinel's own words reach the caller.
var outcomes = []struct {
	err   error
	kind  kind
	retry time.Duration
}{
	{ca.ErrAmbiguousSerial, kindAmbiguous, 0},
	{ca.ErrIdempotencyMismatch, kindKeyReused, 0},
	{ca.ErrIdempotencyBusy, kindKeyBusy, shortly},
	{ca.ErrRevokedOtherwise, kindConflict, 0},
	{ca.ErrExpired, kindConflict, 0},
	{ca.ErrDecided, kindConflict, 0},
	{ca.ErrBindingChanged, kindConflict, 0},
	{ca.ErrOwnRequest, kindDenied, 0},
	{ca.ErrUnnamed, kindDenied, 0},
	{ca.ErrUnsigned, kindUnsigned, 0},
	{ca.ErrSignature, kindUnsigned, 0},
	{ca.ErrApprovalIdle, kindDenied, 0},
	{ca.ErrOfFile, kindConflict, 0},
	{ca.ErrChanged, kindConflict, 0},
	{ca.ErrKeyCompromised, kindRefused, 0},
	{ca.ErrOwnProposal, kindDenied, 0},
	{ca.ErrProposalClosed, kindConflict, 0},
	{ca.ErrVotedAlready, kindConflict, 0},
	{ca.ErrPoliciesMoved, kindConflict, shortly},
	{ca.ErrNotLogged, kindNotLogged, shortly},
	{ca.ErrTokenEnded, kindConflict, 0},
	{ca.ErrNotByToken, kindConflict, 0},
	{ca.ErrUnavailable, kindUnavailable, shortly},
}

// problem turns an error into the answer that the caller gets. What the caller must not know goes into the log alone.
func (s *Server) problem(ctx context.Context, err error) *Problem {
	p := s.translate(ctx, err)
	p.Instance = instance(ctx)
	return p
}

func (s *Server) translate(ctx context.Context, err error) *Problem {
	var (
		ready    *Problem
		bad      *invalid
		csrError *csr.Error
		field    *ca.InvalidError
		refused  *policies.Refusal
		denied   *access.Denied
		limited  *ca.LimitedError
		used     *ca.ExhaustedError
		unsound  *policies.LoadError
		archived *ca.ArchivedError
	)
	switch {
	case errors.As(err, &ready):
		return ready
	case errors.As(err, &bad):
		p := newProblem(bad.kind, bad.Error())
		p.Violations = bad.violations
		return p
	case errors.As(err, &csrError):
		p := newProblem(kindUnreadableCSR, csrError.Message)
		p.Violations = []policies.Violation{csrViolation(csrError)}
		return p
	case errors.As(err, &field):
		p := newProblem(kindInvalid, field.Error())
		p.Violations = []policies.Violation{broken(field.Field, field.Hint, field.Message)}
		return p
	case errors.As(err, &unsound):
		return unsoundProblem(unsound)
	case errors.As(err, &refused):
		return refusedProblem(refused)
	case errors.As(err, &limited):
		return newProblem(kindTooMany, limited.Error()).retryAfter(limited.RetryAfter)
	case errors.As(err, &used):
		return exhaustedProblem(used)
	case errors.As(err, &archived):
		return newProblem(kindArchived, archived.Error())
	case errors.As(err, &denied) && denied.ByScope:
		return newProblem(kindDenied, "your credential is not for the profile "+denied.Resource.Profile)
	case errors.As(err, &denied) && !denied.Hidden:
		return newProblem(kindDenied, "your roles do not allow "+string(denied.Action))
	case denied != nil, errors.Is(err, ca.ErrNotFound):
		return newProblem(kindNotFound, notFoundDetail)
	}
	for _, o := range outcomes {
		if errors.Is(err, o.err) {
			return s.known(ctx, newProblem(o.kind, o.err.Error()), o.retry, err)
		}
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return s.known(ctx, newProblem(kindUnavailable, "the request could not be ended in time"), shortly, err)
	}
	s.log.LogAttrs(ctx, slog.LevelError, "a request failed", slog.String("request", requestID(ctx)), slog.Any("error", err))
	return newProblem(kindInternal, "the service's log tells more under this request's identifier")
}

// known finishes a problem whose kind says all. What is away is told to the operator.
func (s *Server) known(ctx context.Context, p *Problem, retry time.Duration, err error) *Problem {
	if p.Status == http.StatusServiceUnavailable {
		s.log.LogAttrs(ctx, slog.LevelWarn, "a request could not be served", slog.String("request", requestID(ctx)), slog.Any("error", err))
	}
	if retry > 0 {
		p.retryAfter(retry)
	}
	return p
}

// exhaustedProblem tells what has no room. Where that changes with time it says when.
func exhaustedProblem(e *ca.ExhaustedError) *Problem {
	p := newProblem(kindRefused, e.Error())
	if e.RetryAfter > 0 {
		p = newProblem(kindQuota, e.Error()).retryAfter(e.RetryAfter)
	}
	p.Violations = []policies.Violation{e.Violation()}
	return p
}

// unsoundProblem names everything that is wrong with a set of policies, with file and line.
func unsoundProblem(e *policies.LoadError) *Problem {
	p := newProblem(kindBadPolicies, fmt.Sprintf("%d things are wrong; the policies that rule go on", len(e.Problems)))
	for _, one := range e.Problems[:min(len(e.Problems), maxViolations)] {
		place := one.File
		if one.Line > 0 {
			place = fmt.Sprintf("%s:%d", one.File, one.Line)
		}
		p.Violations = append(p.Violations, policies.Violation{
			Rule: "policy.load", Field: place, Message: strings.TrimPrefix(one.Field+": "+one.Message, ": "), Hint: one.Hint,
		})
	}
	return p
}

func refusedProblem(r *policies.Refusal) *Problem {
	rules := make([]string, 0, len(r.Violations))
	for _, v := range r.Violations {
		rules = append(rules, v.Rule)
	}
	detail := "the request breaks " + strings.Join(rules, ", ")
	if len(rules) == 0 {
		detail = "the request cannot be granted as it stands"
	}
	p := newProblem(kindRefused, detail)
	p.Violations = r.Violations
	if r.Temporary() {
		p.retryAfter(temporarily)
	}
	return p
}

func csrViolation(e *csr.Error) policies.Violation {
	return policies.Violation{Rule: e.Rule, Field: e.Field, Message: e.Message, Hint: e.Hint}
}

// writeProblem answers with a problem.
func writeProblem(w http.ResponseWriter, r *http.Request, p *Problem) {
	p.Instance = instance(r.Context())
	for name, values := range p.header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	if r.Method == http.MethodHead {
		return
	}
	_ = json.NewEncoder(w).Encode(p) // the caller has left: there is nobody to tell
}

// methodNotAllowed answers 405 with the methods that a path has (RFC 9110, section 15.5.6).
func (s *Server) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	allowed := strings.Join(allowedMethods(r), ", ")
	writeProblem(w, r, newProblem(kindMethod, "use "+allowed).with("Allow", allowed))
}
