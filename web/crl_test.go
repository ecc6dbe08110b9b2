package web

import (
	"net/http"
	"testing"

	"github.com/chancery-ca/chancery/access"
)

// TestCRLsAreAskedForStrictly: what a page of any site can have a browser send makes no CRL, nor does what could be read in two ways.
func TestCRLsAreAskedForStrictly(t *testing.T) {
	t.Parallel()
	s := newSurface(t)
	post := ask{method: http.MethodPost, path: "/api/v1/authorities/issuing-1/crl", role: access.Revoker}
	decode[CRLList](t, s.call(post.json(CRLRequest{})), http.StatusOK)
	for _, a := range []ask{post, post.of([]byte("{}")), post.with("Content-Type", "text/plain").of([]byte("{}"))} {
		wantProblem(t, s.call(a), http.StatusUnsupportedMediaType, "unsupported-media-type")
	}
	for _, body := range []string{``, `[]`, `{"scope": "7", "scope": "8"}`, `{"Scope": "7"}`, `{"scope": null}`} {
		wantProblem(t, s.call(post.with("Content-Type", typeJSON).of([]byte(body))), http.StatusBadRequest, "malformed")
	}
}
