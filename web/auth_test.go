package web

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
)

// requests is one well-formed request for each route that needs credentials.
func requests(t *testing.T) map[string]ask {
	_, csr := newCSR(t, "a.dev.example")
	return map[string]ask{
		"POST /api/v1/certificates": ask{path: "/api/v1/certificates"}.json(IssueRequest{Profile: "tls-server", CSR: csr}),
		"POST /api/v1/certificates:batch": ask{path: "/api/v1/certificates:batch"}.lines(BatchRequest{
			Profile: "tls-server",
			CSR:     csr,
		}),
		"GET /api/v1/whoami":                        {path: "/api/v1/whoami"},
		"GET /api/v1/certificates":                  {path: "/api/v1/certificates"},
		"GET /api/v1/certificates/{serial}":         {path: "/api/v1/certificates/1c"},
		"POST /api/v1/certificates/{serial}/revoke": ask{path: "/api/v1/certificates/1c/revoke"}.json(RevokeRequest{Reason: "superseded"}),
		"POST /api/v1/revocations": ask{path: "/api/v1/revocations"}.json(RevocationRequest{
			Serials: []string{"1c"},
			Reason:  "superseded",
		}),
		"GET /api/v1/revocations":                      {path: "/api/v1/revocations"},
		"GET /api/v1/revocations/{job}":                {path: "/api/v1/revocations/j-1"},
		"POST /api/v1/revocations/{job}/approve":       ask{path: "/api/v1/revocations/j-1/approve"}.json(RevocationWord{}),
		"POST /api/v1/revocations/{job}/reject":        ask{path: "/api/v1/revocations/j-1/reject"}.json(RevocationWord{}),
		"POST /api/v1/revocations/{job}/cancel":        ask{path: "/api/v1/revocations/j-1/cancel"}.json(struct{}{}),
		"GET /api/v1/requests":                         {path: "/api/v1/requests"},
		"GET /api/v1/requests/{id}":                    {path: "/api/v1/requests/r-7"},
		"POST /api/v1/requests/{id}/approve":           ask{path: "/api/v1/requests/r-7/approve"}.json(Word{Comment: "seen"}),
		"POST /api/v1/requests/{id}/reject":            ask{path: "/api/v1/requests/r-7/reject"}.json(Word{}),
		"GET /api/v1/namespaces":                       {path: "/api/v1/namespaces"},
		"GET /api/v1/namespaces/{name}":                {path: "/api/v1/namespaces/dev"},
		"PUT /api/v1/namespaces/{name}":                ask{path: "/api/v1/namespaces/dev"}.json(NamespaceRequest{DNS: []string{"dev.example"}}),
		"DELETE /api/v1/namespaces/{name}":             {path: "/api/v1/namespaces/dev"},
		"GET /api/v1/profiles":                         {path: "/api/v1/profiles"},
		"GET /api/v1/profiles/{name}":                  {path: "/api/v1/profiles/tls-server"},
		"POST /api/v1/profiles/{name}/evaluate":        ask{path: "/api/v1/profiles/tls-server/evaluate"}.json(EvaluateRequest{CSR: csr}),
		"GET /api/v1/authorities":                      {path: "/api/v1/authorities"},
		"GET /api/v1/authorities/{name}":               {path: "/api/v1/authorities/root"},
		"POST /api/v1/authorities/{name}/crl":          ask{path: "/api/v1/authorities/issuing-1/crl"}.json(CRLRequest{}),
		"POST /api/v1/console/logins":                  ask{path: "/api/v1/console/logins"}.json(struct{}{}),
		"GET /api/v1/policies":                         {path: "/api/v1/policies"},
		"GET /api/v1/policies/{digest}":                {path: "/api/v1/policies/ruling"},
		"POST /api/v1/policies":                        ask{path: "/api/v1/policies"}.json(ChangePoliciesRequest{Files: map[string]string{"plain.yaml": plainProfile}}),
		"POST /api/v1/policies/reload":                 ask{path: "/api/v1/policies/reload"}.json(CommentRequest{}),
		"GET /api/v1/orders":                           {path: "/api/v1/orders"},
		"GET /api/v1/orders/{id}":                      {path: "/api/v1/orders/o-1"},
		"POST /api/v1/orders/{id}/approve":             ask{path: "/api/v1/orders/o-1/approve"}.json(OrderWord{}),
		"POST /api/v1/orders/{id}/reject":              ask{path: "/api/v1/orders/o-1/reject"}.json(OrderWord{}),
		"POST /api/v1/policies/proposals/{id}/approve": ask{path: "/api/v1/policies/proposals/p-1/approve"}.json(CommentRequest{}),
		"GET /api/v1/tokens":                           {path: "/api/v1/tokens"},
		"GET /api/v1/tokens/{id}":                      {path: "/api/v1/tokens/t-1"},
		"POST /api/v1/tokens": ask{path: "/api/v1/tokens"}.json(TokenRequest{
			Name: "ci", Namespace: "dev",
			Roles: []string{"requester"},
		}),
		"POST /api/v1/tokens/{id}/rotate":             ask{path: "/api/v1/tokens/t-1/rotate"}.json(TokenRotation{}),
		"POST /api/v1/tokens/{id}/revoke":             ask{path: "/api/v1/tokens/t-1/revoke"}.json(struct{}{}),
		"POST /api/v1/policies/proposals/{id}/reject": ask{path: "/api/v1/policies/proposals/p-1/reject"}.json(CommentRequest{}),
		"GET /api/v1/audit/checkpoint":                {path: "/api/v1/audit/checkpoint?witnesses=2"},
		"POST /api/v1/audit/checkpoint":               ask{path: "/api/v1/audit/checkpoint"}.text("cosigned"),
		"GET /api/v1/audit/keys":                      {path: "/api/v1/audit/keys"},
		"GET /api/v1/audit/events":                    {path: "/api/v1/audit/events?kind=access.denied"},
		"GET /api/v1/audit/entries":                   {path: "/api/v1/audit/entries?from=7"},
		"GET /api/v1/audit/proof":                     {path: "/api/v1/audit/proof?index=3"},
		"GET /api/v1/audit/receipt/{event}":           {path: "/api/v1/audit/receipt/01a20af2-5b26-7d22-bed4-c7eda86fc4ae"},
		"GET /api/v1/audit/log/checkpoint":            {path: "/api/v1/audit/log/checkpoint"},
		"GET /api/v1/audit/log/tile/{path}":           {path: "/api/v1/audit/log/tile/0/x001/234.p/5"},
	}
}

func TestEveryRouteIsInTheTable(t *testing.T) {
	var routes []string
	err := chi.Walk(newSurface(t).api, func(method, path string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		routes = append(routes, method+" "+path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		if _, listed := permissions[r]; !listed {
			t.Errorf("%s is served and stands in no row of the table", r)
		}
	}
	for r := range permissions {
		if !slices.Contains(routes, r) {
			t.Errorf("%s stands in the table and is not served", r)
		}
	}
}

// TestWhatCanBeGotCanBeAskedAbout: HEAD answers as GET does (RFC 9110, section 9.3.2), to the same callers.
func TestWhatCanBeGotCanBeAskedAbout(t *testing.T) {
	s := newSurface(t)
	compare := func(h http.Handler, a ask) {
		t.Helper()
		got := s.do(h, a)
		a.method = http.MethodHead
		if head := s.do(h, a); head.Code != got.Code || head.Header().Get("Content-Type") != got.Header().Get("Content-Type") {
			t.Errorf("%s: GET is answered %d, and HEAD %d", a.path, got.Code, head.Code)
		}
	}
	for route, a := range requests(t) {
		if method, _, _ := strings.Cut(route, " "); method != http.MethodGet {
			continue
		}
		compare(s.API(), a)
		a.role = access.Auditor
		compare(s.API(), a)
	}
	for _, path := range []string{"/api/v1/openapi.json", "/api/v1/docs", "/api/v1/login", "/api/v1/nothing"} {
		compare(s.API(), ask{path: path})
	}
	for _, path := range []string{"/livez", "/readyz", "/metrics", "/version", "/nothing"} {
		compare(s.Operations(), ask{path: path})
	}
	for _, path := range []string{"/health", "/version", "/crl/issuing-1.crl", "/roots.pem", "/nothing"} {
		compare(s.Distribution(), ask{path: path})
	}
	if w := s.call(ask{method: http.MethodHead, path: "/api/v1/certificates/1c/revoke", role: access.Revoker}); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("what cannot be got is answered %d", w.Code)
	}
}

func TestEveryRouteNeedsCredentials(t *testing.T) {
	var calls uint32
	s := newSurface(t, func(c *Config) {
		c.ClientAddr = func(*http.Request) netip.Addr { // each call is another's: nobody fails too often
			calls++
			return netip.AddrFrom4([4]byte{10, byte(calls >> 16), byte(calls >> 8), byte(calls)})
		}
	})
	unknown, _, err := access.NewToken(strings.NewReader(strings.Repeat("x", 64)))
	if err != nil {
		t.Fatal(err)
	}
	whole := requests(t)
	for route, action := range permissions {
		if strings.HasSuffix(route, "/revoke-by-key") {
			continue // its credentials are in its body: possession_test.go
		}
		if action == public {
			if got := s.call(ask{path: strings.Replace(route, "{file}", "init.js", 1)[4:]}); got.Code != http.StatusOK {
				t.Errorf("%s is public and answers %d", route, got.Code)
			}
			continue
		}
		a, known := whole[route]
		if !known {
			t.Errorf("no request of this test is for %s", route)
			continue
		}
		a.method, _, _ = strings.Cut(route, " ")
		wantProblem(t, s.call(a), http.StatusUnauthorized, "unauthenticated")
		for _, credentials := range []string{
			"", "Bearer", "Bearer ", "Bearer x", "Basic " + s.tokens[access.Requester],
			s.tokens[access.Requester], "Bearer " + unknown,
		} {
			w := s.call(a.with("Authorization", credentials))
			wantProblem(t, w, http.StatusUnauthorized, "unauthenticated")
			if !strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Bearer ") {
				t.Errorf("%s: no challenge for %q", route, credentials)
			}
		}
	}
	if len(s.office.orders)+len(s.office.revokes)+len(s.office.filters) > 0 {
		t.Error("the authority was asked without credentials")
	}
}

func TestTwoAuthorizationHeadersAreNone(t *testing.T) {
	s := newSurface(t)
	r := httptest.NewRequest(http.MethodGet, "/api/v1/profiles", nil)
	r.Header["Authorization"] = []string{"Bearer " + s.tokens[access.Auditor], "Bearer " + s.tokens[access.Auditor]}
	w := httptest.NewRecorder()
	s.API().ServeHTTP(w, r)
	wantProblem(t, w, http.StatusUnauthorized, "unauthenticated")
}

// TestRolesAreHeld calls every route with every role: the table of access and nothing else says who gets in.
func TestRolesAreHeld(t *testing.T) {
	s := newSurface(t)
	for digest, actor := range s.ring.actors { // so that nothing is hidden from anybody, and roles alone decide
		actor.Namespace = access.AllNamespaces
		s.ring.actors[digest] = actor
	}
	for route, a := range requests(t) {
		a.method, _, _ = strings.Cut(route, " ")
		for _, grant := range access.Table() {
			a.role = grant.Role
			w := s.call(a)
			allowed := slices.Contains(grant.Actions, permissions[route])
			if allowed && w.Code >= 300 {
				t.Errorf("%s by %s: %d: %s", route, grant.Role, w.Code, w.Body)
			}
			if !allowed {
				wantProblem(t, w, http.StatusForbidden, "denied")
			}
		}
	}
}

func TestTokensAwayIsNotAnonymous(t *testing.T) {
	s := newSurface(t)
	s.ring.err = errors.Join(ca.ErrUnavailable, errors.New("connection refused to 10.1.2.3"))
	w := s.call(ask{path: "/api/v1/profiles", role: access.Auditor})
	wantProblem(t, w, http.StatusServiceUnavailable, "unavailable")
	if w.Header().Get("Retry-After") == "" || strings.Contains(w.Body.String(), "10.1.2.3") {
		t.Errorf("Retry-After is missing, or too much is told: %s", w.Body)
	}
}

// TestAnothersIsAsNothing holds that what lies in another namespace cannot be told from what does not exist.
func TestAnothersIsAsNothing(t *testing.T) {
	s := newSurface(t, func(c *Config) { c.NewID = func() string { return "same" } })
	a := ask{path: "/api/v1/certificates/1c", role: access.Auditor}
	s.office.err = &access.Denied{Actor: "x", Action: access.ReadCertificate, Resource: access.Resource{
		Namespace: "ops",
		Kind:      "certificate", ID: "1c",
	}, Hidden: true}
	hidden := s.call(a)
	s.office.err = ca.ErrNotFound
	missing := s.call(a)
	wantProblem(t, hidden, http.StatusNotFound, "not-found")
	if hidden.Body.String() != missing.Body.String() {
		t.Errorf("they differ:\n%s%s", hidden.Body, missing.Body)
	}
}

func TestUnlistedRouteIsRefused(t *testing.T) {
	s := newSurface(t)
	api := s.newOpenAPI(chi.NewRouter())
	err := route(s.Server, api, call{method: http.MethodGet, path: "/secret", success: 200}, s.profiles)
	if !errors.Is(err, errUnlisted) {
		t.Errorf("got %v, want errUnlisted", err)
	}
}
