package web

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-ca/chancery/access"
)

var update = flag.Bool("update", false, "write testdata/openapi.json anew")

// TestOpenAPIIsAsAgreed keeps the surface from changing unseen.
func TestOpenAPIIsAsAgreed(t *testing.T) {
	s := newSurface(t)
	w := s.call(ask{path: "/api/v1/openapi.json"})
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != typeOpenAPI {
		t.Fatalf("%d %v", w.Code, w.Header())
	}
	golden := filepath.Join("testdata", "openapi.json")
	if *update {
		if err := os.WriteFile(golden, w.Body.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(w.Body.Bytes(), want) {
		t.Error("the OpenAPI document differs from testdata/openapi.json; if that is meant: go test ./web -run OpenAPI -update")
	}
}

// schemaName is what a component may be called (OpenAPI 3.1, section 4.8.7).
var schemaName = regexp.MustCompile(`^[a-zA-Z0-9._-]+$`)

// TestOpenAPITellsTheTruth compares the document with the routes, the table of permissions and what is really answered.
func TestOpenAPITellsTheTruth(t *testing.T) {
	s := newSurface(t)
	type mediaTypes map[string]struct {
		Schema  map[string]any `json:"schema"`
		Example Problem        `json:"example"`
	}
	type operation struct {
		Security    []map[string][]string `json:"security"`
		Description string                `json:"description"`
		RequestBody *struct {
			Required bool       `json:"required"`
			Content  mediaTypes `json:"content"`
		} `json:"requestBody"`
		Responses map[string]struct {
			Content mediaTypes `json:"content"`
		} `json:"responses"`
	}
	document := decode[struct {
		OpenAPI    string                          `json:"openapi"`
		Info       struct{ Version string }        `json:"info"`
		Paths      map[string]map[string]operation `json:"paths"`
		Components struct {
			Schemas map[string]any `json:"schemas"`
		} `json:"components"`
	}](t, s.call(ask{path: "/api/v1/openapi.json"}), http.StatusOK)
	if document.OpenAPI != "3.1.0" || document.Info.Version != "1.2.3" {
		t.Errorf("OpenAPI %s of version %s", document.OpenAPI, document.Info.Version)
	}
	for name := range document.Components.Schemas {
		if !schemaName.MatchString(name) {
			t.Errorf("a schema has the name %q, which generators of clients refuse", name)
		}
	}
	all := requests(t)
	for route, elsewhere := range map[string]ask{ // of another namespace than the caller's
		"GET /api/v1/audit/events": {path: "/api/v1/audit/events?namespace=other"},
		"POST /api/v1/revocations": ask{path: "/api/v1/revocations"}.json(RevocationRequest{Namespace: "other", All: true, Reason: "superseded"}),
		"POST /api/v1/tokens":      ask{path: "/api/v1/tokens"}.json(TokenRequest{Name: "ci", Namespace: "other", Roles: []string{"requester"}}),
	} {
		all[route+" "] = elsewhere
	}
	for route, a := range all {
		method, path, _ := strings.Cut(strings.TrimSpace(route), " ")
		route = method + " " + path
		op, documented := document.Paths[path][strings.ToLower(method)]
		if !documented {
			t.Errorf("%s is not documented", route)
			continue
		}
		if len(op.Security) == 0 || !strings.Contains(op.Description, string(permissions[route])) {
			t.Errorf("%s: the document does not say who may", route)
		}
		if (op.RequestBody != nil) != (method == http.MethodPost || method == http.MethodPut) {
			t.Errorf("%s: the body is documented wrongly", route)
		}
		a.method = method
		for _, g := range access.Table() {
			a.role = g.Role
			w := s.call(a)
			answers, known := op.Responses[itoa(w.Code)]
			if !known {
				t.Errorf("%s answers %d, which is not documented", route, w.Code)
			}
			if _, known := answers.Content[w.Header().Get("Content-Type")]; !known {
				t.Errorf("%s answers %d with %s, which is not documented", route, w.Code, w.Header().Get("Content-Type"))
			}
		}
		for status, answer := range op.Responses {
			if described, isProblem := answer.Content[problemType]; isProblem && itoa(described.Example.Status) != status {
				t.Errorf("%s: the example of %s is %+v", route, status, described.Example)
			}
		}
		for _, status := range []string{"400", "401", "403", "503"} {
			if _, known := op.Responses[status].Content[problemType]; !known {
				t.Errorf("%s: %s is not documented as a problem", route, status)
			}
		}
	}
	for _, name := range []string{"ErrorModel", "ErrorDetail"} {
		if _, known := document.Components.Schemas[name]; known {
			t.Errorf("the document has huma's own %s", name)
		}
	}
	if n := len(document.Paths); n != 46 {
		t.Errorf("%d paths are documented", n)
	}
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) }

func TestDocsWorkOffline(t *testing.T) {
	s := newSurface(t)
	page := s.call(ask{path: "/api/v1/docs"})
	if page.Code != http.StatusOK || page.Header().Get("Content-Type") != "text/html; charset=utf-8" {
		t.Fatalf("%d %v", page.Code, page.Header())
	}
	policy := page.Header().Get("Content-Security-Policy")
	if strings.Contains(policy, "unsafe") || strings.Contains(policy, "http") || !strings.Contains(policy, "default-src 'none'") {
		t.Errorf("policy %q", policy)
	}
	if strings.Contains(page.Body.String(), "://") || strings.Contains(page.Body.String(), "style=") ||
		strings.Contains(page.Body.String(), "onload") {
		t.Error("the page loads something from elsewhere or holds inline code")
	}
	for name, mediaType := range pageTypes {
		w := s.call(ask{path: "/api/v1/docs/" + name})
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != mediaType || w.Body.Len() == 0 {
			t.Errorf("%s: %d %v", name, w.Code, w.Header())
		}
		if name != "index.html" && !strings.Contains(page.Body.String(), "/api/v1/docs/"+name) {
			t.Errorf("the page does not load %s", name)
		}
	}
}

// TestSlowReadersOfTheDocs: whoever asks for the page, and does not read it, takes no place from what needs no credentials either.
func TestSlowReadersOfTheDocs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		surface := newSurface(t, func(c *Config) { c.InFlight = 1 })
		s := newServing(t, surface.API().ServeHTTP, time.Minute)
		for _, path := range []string{"/api/v1/docs/swagger-ui-bundle.js", "/api/v1/openapi.json"} {
			conn := s.mustDial()
			defer conn.Close()
			s.say(conn, "GET "+path+" HTTP/1.1\r\nHost: ca\r\n\r\n")
			var status int
			if _, err := fmt.Fscanf(conn, "HTTP/1.1 %d", &status); err != nil || status != http.StatusOK {
				t.Errorf("%s is answered %d, %v", path, status, err)
			}
			synctest.Wait()
			revoke := ask{method: http.MethodPost, path: "/api/v1/certificates/1c01/revoke-by-key"}.json(SignedRevocation{})
			if w := surface.call(revoke); w.Code != http.StatusBadRequest {
				t.Errorf("while somebody reads %s slowly, a revocation by key is answered %d", path, w.Code)
			}
		}
		s.end()
		<-s.ended
	})
}

// TestSwaggerIsUnchanged holds the vendored files to the package that the README of docs names.
func TestSwaggerIsUnchanged(t *testing.T) {
	for name, want := range map[string]string{
		"LICENSE":                          "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30",
		"NOTICE":                           "0d20d1adef18aee3f40dd258172155521ce702ac445cb5f7b7d60ed32dad2fb2",
		"swagger-ui-bundle.js":             "e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2",
		"swagger-ui-bundle.js.LICENSE.txt": "37eb6e7e59aed57b2c1acf076574b818ea07b74265717e0bd67b59e0baf9abbb",
		"swagger-ui.css":                   "5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d",
	} {
		body, err := os.ReadFile(filepath.Join("docs", name))
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != want {
			t.Errorf("%s has the SHA-256 %x", name, sum)
		}
	}
}
