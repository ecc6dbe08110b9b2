package web

import (
	"crypto/sha256"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
)

func visit(s *surface, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.API().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

func TestPagesAreBesideTheAPI(t *testing.T) {
	s := newSurface(t)
	for path, want := range map[string]string{
		"/console": "a page", "/console/": "a page", "/console/certificates/1c": "a page", "/consoles": "not-found", "/": "not-found",
		"/api/v1/profiles": "unauthenticated",
	} {
		w := visit(s, path)
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s answers %d %s, want %s", path, w.Code, w.Body, want)
		}
		isPage := want == "a page"
		if got := strings.Contains(w.Header().Get("Content-Security-Policy"), "style-src 'self'"); got != isPage {
			t.Errorf("%s has the policy %q", path, w.Header().Get("Content-Security-Policy"))
		}
		if w.Header().Get("X-Content-Type-Options") != "nosniff" || w.Header().Get("Cache-Control") != "no-store" ||
			w.Header().Get("X-Request-Id") == "" {
			t.Errorf("%s lacks a header: %v", path, w.Header())
		}
	}
	if !slices.Contains(s.office.visits, "reader 192.0.2.1") {
		t.Errorf("the visit is not on record: %v", s.office.visits)
	}
	if log := s.log.String(); !strings.Contains(log, "actor=reader") || !strings.Contains(log, "route=/console/*") {
		t.Errorf("the log does not tell who looked at what: %s", log)
	}
	if w := visit(newSurface(t, func(c *Config) { c.Pages = nil }), "/console/"); w.Code != http.StatusNotFound {
		t.Errorf("without pages there is %d", w.Code)
	}
}

func TestPagesAreLimitedAsTheAPIIs(t *testing.T) {
	s := newSurface(t, func(c *Config) { c.RateLimit = RateLimit{PerSecond: 1, Burst: 1} })
	if first, second := visit(s, "/console/").Code, visit(s, "/console/").Code; first != http.StatusOK ||
		second != http.StatusTooManyRequests {
		t.Errorf("answers %d, then %d", first, second)
	}
}

func TestPagesAreForWhoMayComeFromThere(t *testing.T) {
	s := newSurface(t)
	s.office.closed = ca.ErrUnavailable
	if w := visit(s, "/console/"); w.Code != http.StatusServiceUnavailable {
		t.Errorf("a visit that cannot be recorded: %d", w.Code)
	}
	elsewhere := newSurface(t, func(c *Config) {
		c.Pages = &onePage{scope: access.Scope{Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}
	})
	if w := visit(elsewhere, "/console/"); w.Code != http.StatusUnauthorized || len(elsewhere.office.strayed) != 1 {
		t.Errorf("a session from elsewhere: %d, on record: %v", w.Code, elsewhere.office.strayed)
	}
}

func TestALinkToTheConsole(t *testing.T) {
	s := newSurface(t)
	offer := ask{method: http.MethodPost, path: "/api/v1/console/logins", role: access.Revoker}.json(struct{}{})
	got := decode[ConsoleLogin](t, s.call(offer), http.StatusCreated)
	link, err := url.Parse(got.URL)
	if err != nil || !strings.HasPrefix(got.URL, "https://ca.dev.example/console/enter?code=") ||
		!got.ExpiresAt.Equal(noon.Add(2*time.Minute)) {
		t.Fatalf("the link is %+v, %v", got, err)
	}
	code := link.Query().Get("code")
	if len(s.office.logins) != 1 || s.office.logins[0] != sha256.Sum256([]byte(code)) || len(code) < 26 {
		t.Errorf("what is kept of %q is %x", code, s.office.logins)
	}
	if again := decode[ConsoleLogin](t, s.call(offer), http.StatusCreated); again.URL == got.URL {
		t.Error("two links are the same")
	}
	if strings.Contains(s.log.String(), code) {
		t.Error("the log tells the link")
	}
	without := newSurface(t, func(c *Config) { c.Pages = nil })
	wantProblem(t, without.call(offer), http.StatusNotFound, "not-found")
}

// TestPagesAreBehindTheGate: where client certificates are required, a session, or a link to one, is not enough.
func TestPagesAreBehindTheGate(t *testing.T) {
	var gate error
	s := newSurface(t, func(c *Config) { c.Gate = func(*http.Request) error { return gate } })
	if w := visit(s, "/console/"); w.Code != http.StatusOK {
		t.Errorf("who passes is answered %d", w.Code)
	}
	before := len(s.office.visits)
	for err, want := range map[error]int{
		&access.Unauthenticated{Detail: "a client certificate is needed here"}: http.StatusUnauthorized,
		ca.ErrUnavailable: http.StatusServiceUnavailable,
	} {
		gate = err
		for _, path := range []string{"/console", "/console/", "/console/login", "/console/enter?code=x", "/console/console.css"} {
			if w := visit(s, path); w.Code != want || strings.Contains(w.Body.String(), "a page") {
				t.Errorf("%s, for whom the gate stops, is answered %d %s", path, w.Code, w.Body)
			}
		}
	}
	if len(s.office.visits) != before {
		t.Error("who does not pass has visited")
	}
}
