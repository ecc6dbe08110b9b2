package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/csr"
	"github.com/chancery-ca/chancery/policies"
)

func TestErrorsBecomeProblems(t *testing.T) {
	s := newSurface(t)
	_, inPEM := newCSR(t, "a.dev.example")
	post := ask{method: http.MethodPost, path: "/api/v1/certificates", role: access.Requester}.json(IssueRequest{
		Profile: "tls-server",
		CSR:     inPEM,
	})
	refused := &policies.Refusal{Profile: "tls-server", Violations: []policies.Violation{
		{Rule: "names.namespace", Field: "dns", Message: "not yours", Hint: "ask for yours"}, {
			Rule: "key.size", Field: "key",
			Message: "too small", Hint: "bigger",
		},
	}}
	for name, c := range map[string]struct {
		err    error
		status int
		kind   string
		rule   string
		retry  bool
	}{
		"refusal":    {refused, 422, "refused", "key.size", false},
		"for now":    {&policies.Refusal{Violations: []policies.Violation{{Rule: "names.caa", Field: "names", Message: "no answer", Hint: "later", Temporary: true}}}, 422, "refused", "names.caa", true},
		"compromise": {ca.ErrKeyCompromised, 422, "refused", "", false},
		"csr":        {&csr.Error{Rule: "csr.key", Field: "key", Message: "bad", Hint: "make another"}, 400, "unreadable-csr", "csr.key", false},
		"field":      {&ca.InvalidError{Field: "reason", Message: "bad", Hint: "other"}, 400, "invalid", "request.reason", false},
		"denied":     {&access.Denied{Actor: "x", Action: access.IssueCertificate}, 403, "denied", "", false},
		"hidden":     {&access.Denied{Actor: "x", Hidden: true}, 404, "not-found", "", false},
		"missing":    {ca.ErrNotFound, 404, "not-found", "", false},
		"archived":   {&ca.ArchivedError{File: "chancery-2026-01-5f3a9c01.ndjson.gz"}, 410, "archived", "", false},
		"ambiguous":  {ca.ErrAmbiguousSerial, 409, "ambiguous-serial", "", false},
		"mismatch":   {ca.ErrIdempotencyMismatch, 409, "idempotency-key-reused", "", false},
		"busy":       {ca.ErrIdempotencyBusy, 409, "idempotency-key-busy", "", true},
		"otherwise":  {ca.ErrRevokedOtherwise, 409, "conflict", "", false},
		"expired":    {ca.ErrExpired, 409, "conflict", "", false},
		"away":       {ca.ErrUnavailable, 503, "unavailable", "", true},
		"late":       {context.DeadlineExceeded, 503, "unavailable", "", true},
		"left":       {context.Canceled, 503, "unavailable", "", true},
		"unknown":    {errors.New("boom"), 500, "internal", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			s.office.err = fmt.Errorf("issuing at host secret.internal: %w", c.err)
			w := s.call(post.with("Accept", typeChain)) // problems stay JSON whatever was asked for
			p := wantProblem(t, w, c.status, c.kind)
			if c.rule != "" {
				wantRule(t, p, c.rule)
			}
			if (w.Header().Get("Retry-After") != "") != c.retry {
				t.Errorf("Retry-After %q", w.Header().Get("Retry-After"))
			}
			if strings.Contains(w.Body.String(), "secret.internal") || strings.Contains(w.Body.String(), "boom") {
				t.Errorf("the answer tells what is inside: %s", w.Body)
			}
		})
	}
	s.office.err = &access.Denied{Action: access.IssueCertificate, Resource: access.Resource{Profile: "tls-server"}, ByScope: true}
	if p := wantProblem(t, s.call(post), http.StatusForbidden, "denied"); !strings.Contains(p.Detail, "tls-server") ||
		strings.Contains(p.Detail, "role") {
		t.Errorf("whose roles would do is told %q", p.Detail)
	}
	s.office.err = ca.ErrNotFound
	withIssuer := ask{method: http.MethodPost, path: "/api/v1/certificates", role: access.Requester}.
		json(IssueRequest{Profile: "tls-server", CSR: inPEM, Issuer: "other"})
	wantRule(t, wantProblem(t, s.call(withIssuer), http.StatusBadRequest, "invalid"), "request.issuer")
}

func TestRefusalHasEveryViolation(t *testing.T) {
	s := newSurface(t)
	p := s.translate(context.Background(), &policies.Refusal{Violations: []policies.Violation{{Rule: "a"}, {Rule: "b"}}})
	if len(p.Violations) != 2 || p.Detail != "the request breaks a, b" {
		t.Errorf("got %+v", p)
	}
}

func TestWhatHasNoRoute(t *testing.T) {
	s := newSurface(t)
	for _, path := range []string{
		"/", "/api/v1", "/api/v2/certificates", "/api/v1/certificates/", "/api/v1/nothing",
		"/api/v1/docs/passwd", "/api/v1/docs/..%2fserver.go",
	} {
		wantProblem(t, s.call(ask{path: path, role: access.Auditor}), http.StatusNotFound, "not-found")
	}
	for _, c := range []struct{ method, path, allow string }{
		{http.MethodDelete, "/api/v1/certificates", "GET, HEAD, POST"},
		{http.MethodGet, "/api/v1/certificates/1c/revoke", "POST"},
		{http.MethodPost, "/api/v1/namespaces/dev", "GET, HEAD, PUT, DELETE"},
		{http.MethodPost, "/api/v1/openapi.json", "GET, HEAD"},
		{"BREW", "/api/v1/profiles", "GET, HEAD"},
	} {
		w := s.call(ask{method: c.method, path: c.path, role: access.Auditor})
		wantProblem(t, w, http.StatusMethodNotAllowed, "method-not-allowed")
		if w.Header().Get("Allow") != c.allow {
			t.Errorf("%s %s: Allow %q, want %q", c.method, c.path, w.Header().Get("Allow"), c.allow)
		}
	}
}
