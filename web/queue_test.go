package web

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/policies"
)

// A request that needs approval is answered with where it waits, whatever its caller would read of a certificate.
func TestAWaitingRequestIsAccepted(t *testing.T) {
	s := newSurface(t)
	s.office.outcome = ca.Outcome{Waiting: &s.office.waits.WaitingRequest}
	_, csr := newCSR(t, "a.dev.example")
	post := ask{method: http.MethodPost, path: "/api/v1/certificates", role: access.Requester}.json(IssueRequest{Profile: "code-signing", CSR: csr})
	for _, accept := range []string{"", typeJSON, typeChain} {
		for _, replayed := range []bool{false, true} {
			s.office.outcome.Replayed = replayed
			w := s.call(post.with("Accept", accept))
			got := decode[WaitingRequest](t, w, http.StatusAccepted)
			if w.Header().Get("Location") != "/api/v1/requests/r-7" || w.Header().Get("Content-Type") != typeJSON || got.ID != "r-7" || got.Status != "waiting" ||
				(w.Header().Get("Idempotency-Replayed") == "true") != replayed {
				t.Errorf("%q: %v %+v", accept, w.Header(), got)
			}
		}
	}
}

func TestRequestsAreShown(t *testing.T) {
	s := newSurface(t)
	got := decode[WaitingRequest](t, s.call(ask{path: "/api/v1/requests/r-7", role: access.Approver}), http.StatusOK)
	if got.Need != 2 || got.Have != 1 || got.Binding != "sha256:b" || got.Requester.Person != "alice" || len(got.Approvals) != 1 ||
		got.Approvals[0].AuditEvent != "e-3" || !strings.HasPrefix(got.CSR, "-----BEGIN CERTIFICATE REQUEST") || got.ClosedAt != nil || got.Serial != "" {
		t.Errorf("got %+v", got)
	}
	list := decode[WaitingList](t, s.call(ask{path: "/api/v1/requests?status=waiting&limit=5", role: access.Requester}), http.StatusOK)
	if len(list.Requests) != 1 || list.Next != "r-6" || list.Requests[0].CSR != "" {
		t.Errorf("got %+v", list)
	}
	for query, rule := range map[string]string{"status=lost": "request.status", "limit=0": "request.limit", "limit=x": "request.limit", "cursor=%00": "request.cursor"} {
		w := s.call(ask{path: "/api/v1/requests?" + query, role: access.Requester})
		wantRule(t, wantProblem(t, w, http.StatusBadRequest, "invalid"), rule)
	}
}

func TestAWordOnARequest(t *testing.T) {
	s := newSurface(t)
	for _, verb := range []string{"approve", "reject"} {
		a := ask{method: http.MethodPost, path: "/api/v1/requests/r-7/" + verb, role: access.Approver}
		s.office.words = nil
		decode[WaitingRequest](t, s.call(a.json(Word{Binding: "sha256:b", Comment: "two\nlines"})), http.StatusOK)
		if len(s.office.words) != 1 || s.office.words[0].Request != "r-7" || s.office.words[0].Binding != "sha256:b" || s.office.words[0].Comment != "two\nlines" ||
			s.office.words[0].Actor.ID != "actor-approver" {
			t.Errorf("%s: asked %+v", verb, s.office.words)
		}
		wantRule(t, wantProblem(t, s.call(a.json(Word{Comment: "\x07"})), http.StatusBadRequest, "invalid"), "request.comment")
		wantRule(t, wantProblem(t, s.call(a.json(Word{Binding: strings.Repeat("b", 200)})), http.StatusBadRequest, "invalid"), "request.binding")
		for err, want := range map[error]struct {
			status int
			name   string
		}{
			ca.ErrDecided: {409, "conflict"}, ca.ErrBindingChanged: {409, "conflict"}, ca.ErrOwnRequest: {403, "denied"}, ca.ErrUnnamed: {403, "denied"},
			ca.ErrApprovalIdle: {403, "denied"}, ca.ErrNotFound: {404, "not-found"}, ca.ErrUnavailable: {503, "unavailable"},
		} {
			s.office.err = err
			wantProblem(t, s.call(a.json(Word{})), want.status, want.name)
		}
		s.office.err = nil
	}
}

func TestWhatHasNoRoomSaysWhenItHas(t *testing.T) {
	s := newSurface(t)
	_, csr := newCSR(t, "a.dev.example")
	post := ask{method: http.MethodPost, path: "/api/v1/certificates", role: access.Requester}.json(IssueRequest{Profile: "tls-server", CSR: csr})
	quota := policies.Reservation{Kind: policies.ReserveQuota, Scope: "namespace", Key: "dev", Limit: 3, Window: time.Hour}
	for _, c := range []struct {
		err    error
		status int
		name   string
		retry  string
	}{
		{&ca.ExhaustedError{Reservation: quota, RetryAfter: 90 * time.Second}, 429, "quota-exhausted", "90"},
		{&ca.ExhaustedError{Reservation: quota}, 422, "refused", ""},
		{&ca.ExhaustedError{Reservation: policies.Reservation{Kind: policies.ReserveKey, Limit: 1}}, 422, "refused", ""},
		{&ca.LimitedError{Rate: access.Rate{Requests: 1, Per: time.Second}, RetryAfter: 300 * time.Millisecond}, 429, "too-many-requests", "1"},
	} {
		s.office.err = c.err
		w := s.call(post)
		p := wantProblem(t, w, c.status, c.name)
		if got := w.Header().Get("Retry-After"); got != c.retry {
			t.Errorf("%v: Retry-After %q, want %q", c.err, got, c.retry)
		}
		if c.name != "too-many-requests" {
			wantRule(t, p, "quota")
		}
	}
}

func TestNamespacesOnTheWire(t *testing.T) {
	s := newSurface(t)
	got := decode[NamespaceHistory](t, s.call(ask{path: "/api/v1/namespaces/dev", role: access.Operator}), http.StatusOK)
	if got.Name != "dev" || got.Version != 3 || len(got.History) != 1 || got.Quotas[0].Per != "36h" || got.Quotas[1].Per != "2d" || got.Rates[0].Per != "90s" ||
		got.Rates[1].Per != "1m" || got.IP[0] != "10.0.0.0/8" {
		t.Errorf("got %+v", got)
	}
	put := ask{method: http.MethodPut, path: "/api/v1/namespaces/dev", role: access.Operator}
	w := s.call(put.json(got.NamespaceRequest))
	if w.Code != http.StatusOK || !reflect.DeepEqual(s.office.set[0], s.office.spaces[0].Namespace) || s.office.after[0] != -1 {
		t.Errorf("what was read and sent back is %+v after %v: %s", s.office.set, s.office.after, w.Body)
	}
	put.path += "?after=3"
	if w := s.call(put.json(NamespaceRequest{})); w.Code != http.StatusOK || s.office.after[1] != 3 {
		t.Errorf("%d, after %v", w.Code, s.office.after)
	}
	remove := ask{method: http.MethodDelete, path: "/api/v1/namespaces/dev?after=0", role: access.Operator}
	if w := s.call(remove); w.Code != http.StatusOK || s.office.after[2] != 0 {
		t.Errorf("%d, after %v", w.Code, s.office.after)
	}
	bad := NamespaceRequest{IP: []string{"10.0.0.0"}, Quotas: []Quota{{Certificates: 1, Per: "a day"}}, Rates: []Rate{{Requests: 1}}}
	put.path = "/api/v1/namespaces/dev?after=x"
	p := wantProblem(t, s.call(put.json(bad)), http.StatusBadRequest, "invalid")
	for _, rule := range []string{"request.ip[0]", "request.quotas[0].per", "request.rates[0].per", "request.after"} {
		wantRule(t, p, rule)
	}
	put.path = "/api/v1/namespaces/dev"
	for err, name := range map[error]string{ca.ErrOfFile: "conflict", ca.ErrChanged: "conflict"} {
		s.office.err = err
		wantProblem(t, s.call(put.json(NamespaceRequest{})), http.StatusConflict, name)
	}
}
