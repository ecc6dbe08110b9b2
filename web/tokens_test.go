package web

import (
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
)

func TestTokensAreMadeAndShown(t *testing.T) {
	s := newSurface(t)
	made := decode[NewToken](t, s.call(ask{method: http.MethodPost, path: "/api/v1/tokens", role: access.Operator}.json(TokenRequest{
		Name: "ci", Person: "ada", Namespace: "dev", Roles: []string{"requester"}, Profiles: []string{"tls-server"},
		Networks: []string{"10.0.0.0/8"}, ExpiresIn: "30d",
	})), http.StatusCreated)
	want := ca.NewAPIToken{
		Name: "ci", Person: "ada", Namespace: "dev", Roles: []access.Role{access.Requester}, Life: 30 * 24 * time.Hour,
		Scope: access.Scope{Profiles: []string{"tls-server"}, Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
	}
	if made.Secret != "chancery_secret" || made.Status != "retiring" || made.LastUsedFrom != "10.0.0.7" ||
		!reflect.DeepEqual(s.office.made, []ca.NewAPIToken{want}) {
		t.Errorf("made %+v of %+v", made, s.office.made)
	}
	for path, body := range map[string]any{
		"/api/v1/tokens":            TokenRequest{Name: "ci", Namespace: "dev", Roles: []string{"requester"}, Networks: []string{"ten"}},
		"/api/v1/tokens?x":          TokenRequest{Name: "ci", Namespace: "dev", Roles: []string{"requester"}, ExpiresIn: "soon"},
		"/api/v1/tokens/t-1/rotate": TokenRotation{Overlap: "soon"},
	} {
		if w := s.call(ask{method: http.MethodPost, path: path, role: access.Operator}.json(body)); w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d: %s", path, w.Code, w.Body)
		}
	}
	for overlap, want := range map[string]time.Duration{"": -1, "0s": 0, "2h": 2 * time.Hour} {
		rotated := decode[NewToken](t, s.call(ask{
			method: http.MethodPost, path: "/api/v1/tokens/t-1/rotate",
			role: access.Operator,
		}.json(TokenRotation{Overlap: overlap})), http.StatusCreated)
		if last := s.office.rotated[len(s.office.rotated)-1]; rotated.Secret == "" || last.ID != "t-1" || last.Overlap != want {
			t.Errorf("overlap %q: %+v", overlap, last)
		}
	}
	for _, path := range []string{"/api/v1/tokens", "/api/v1/tokens/t-1"} {
		if w := s.call(ask{path: path, role: access.Auditor}); w.Code != http.StatusOK || strings.Contains(w.Body.String(), "chancery_") {
			t.Errorf("%s: %d: %s", path, w.Code, w.Body)
		}
	}
	s.office.err = ca.ErrTokenEnded
	wantProblem(t, s.call(ask{method: http.MethodPost, path: "/api/v1/tokens/t-1/rotate", role: access.Operator}.json(TokenRotation{})),
		http.StatusConflict, "conflict")
	if strings.Contains(s.log.String(), "chancery_secret") {
		t.Error("a token is in the log")
	}
}
