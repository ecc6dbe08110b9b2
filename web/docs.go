package web

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// pages are the documentation page and what it loads. Nothing of it comes from anywhere else: it works without a network.
//
//go:embed docs/index.html docs/init.js docs/chancery.css docs/swagger-ui-bundle.js docs/swagger-ui.css
var pages embed.FS

var pageTypes = map[string]string{
	"index.html":           "text/html; charset=utf-8",
	"init.js":              "text/javascript; charset=utf-8",
	"chancery.css":         "text/css; charset=utf-8",
	"swagger-ui-bundle.js": "text/javascript; charset=utf-8",
	"swagger-ui.css":       "text/css; charset=utf-8",
}

const pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// routeDocs serves the OpenAPI document and its page. Both are the same for everybody and hold no secret, so they need no credentials.
func (s *Server) routeDocs(api huma.API) error {
	// huma describes its own form of error, which no answer ever has.
	delete(api.OpenAPI().Components.Schemas.Map(), "ErrorModel")
	delete(api.OpenAPI().Components.Schemas.Map(), "ErrorDetail")
	compact, err := json.Marshal(api.OpenAPI())
	if err != nil {
		return fmt.Errorf("writing the OpenAPI document: %w", err)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, compact, "", "  "); err != nil {
		return fmt.Errorf("writing the OpenAPI document: %w", err)
	}
	indented.WriteByte('\n')
	s.spec = indented.Bytes()
	for path, handler := range map[string]http.HandlerFunc{
		"/openapi.json": s.serveSpec,
		"/docs":         func(w http.ResponseWriter, r *http.Request) { servePage(w, r, "index.html") },
		"/docs/{file}":  func(w http.ResponseWriter, r *http.Request) { servePage(w, r, r.PathValue("file")) },
	} {
		if action, listed := permissions["GET "+pattern(path)]; !listed || action != public {
			return unlisted(http.MethodGet, pattern(path))
		}
		s.api.With(inPlace(func(r *http.Request) (func(), *Problem) { return s.calls.enter(r, true) })).Get(pattern(path), handler)
	}
	return nil
}

func (s *Server) serveSpec(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", typeOpenAPI)
	w.Header().Set("Cache-Control", "no-cache")
	serveBytes(w, r, s.spec, time.Time{})
}

func servePage(w http.ResponseWriter, r *http.Request, name string) {
	mediaType, known := pageTypes[name]
	if !known {
		writeProblem(w, r, newProblem(kindNotFound, notFoundDetail))
		return
	}
	page, err := pages.ReadFile("docs/" + name)
	if err != nil {
		writeProblem(w, r, newProblem(kindInternal, "the page is missing from the program"))
		return
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Security-Policy", pagePolicy)
	w.Header().Set("Cache-Control", "no-cache")
	serveBytes(w, r, page, time.Time{})
}
