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

// document is something that everybody may have and that does not change. It is read, and its validator made, once.
type document struct {
	mediaType, policy string
	body              []byte
	tag               string
}

func newDocument(mediaType, policy string, body []byte) document {
	return document{mediaType, policy, body, strongTag(body)}
}

// ServeHTTP implements http.Handler.
func (d document) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Type", d.mediaType)
	if d.policy != "" {
		header.Set("Content-Security-Policy", d.policy)
	}
	header.Set("Cache-Control", "no-cache")
	header.Set("ETag", d.tag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(d.body))
}

// routeDocs serves the OpenAPI document and its page. Both are the same for everybody and hold no secret, so they need no credentials; and
// they are in memory, so they need no place: whoever reads them slowly keeps nobody out.
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
	files := map[string]document{}
	for name, mediaType := range pageTypes {
		body, err := pages.ReadFile("docs/" + name)
		if err != nil {
			return fmt.Errorf("reading the documentation's page: %w", err)
		}
		files[name] = newDocument(mediaType, pagePolicy, body)
	}
	for path, handler := range map[string]http.Handler{
		"/openapi.json": newDocument(typeOpenAPI, "", indented.Bytes()),
		"/docs":         files["index.html"],
		"/docs/{file}": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			file, known := files[r.PathValue("file")]
			if !known {
				writeProblem(w, r, newProblem(kindNotFound, notFoundDetail))
				return
			}
			file.ServeHTTP(w, r)
		}),
	} {
		if action, listed := permissions["GET "+pattern(path)]; !listed || action != public {
			return unlisted(http.MethodGet, pattern(path))
		}
		s.api.Method(http.MethodGet, pattern(path), handler)
	}
	return nil
}
