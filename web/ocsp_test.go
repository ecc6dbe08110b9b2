package web

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/chancery-ca/chancery/ca"
)

func newOCSPSurface(t testing.TB) *surface {
	s := newSurface(t)
	s.office.answer = &ca.OCSPResponse{DER: []byte("an answer"), Digest: [32]byte{1}, ThisUpdate: noon, NextUpdate: noon.Add(48 * time.Hour), Shared: true}
	return s
}

func (s *surface) ocsp(method, target, mediaType string, body []byte) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, bytes.NewReader(body))
	if mediaType != "" {
		r.Header.Set("Content-Type", mediaType)
	}
	w := httptest.NewRecorder()
	s.Distribution().ServeHTTP(w, r)
	return w
}

func TestOCSPHeaders(t *testing.T) {
	s := newOCSPSurface(t)
	path := "/ocsp/issuing-1/" + base64.StdEncoding.EncodeToString([]byte("a question"))
	w := s.ocsp("GET", path, "", nil)
	for name, want := range map[string]string{
		"Content-Type": "application/ocsp-response", "Content-Length": "9", "ETag": `"01000000000000000000000000000000"`,
		"Last-Modified": noon.Format(http.TimeFormat), "Expires": noon.Add(48 * time.Hour).Format(http.TimeFormat),
		"Cache-Control": "max-age=30, public, no-transform, must-revalidate",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if w.Code != 200 || w.Body.String() != "an answer" || string(s.office.asks[0]) != "a question" {
		t.Errorf("%d %q to %q", w.Code, w.Body, s.office.asks)
	}
	head := s.ocsp("HEAD", path, "", nil)
	if head.Code != 200 || head.Body.Len() != 0 || head.Header().Get("Content-Length") != "9" || head.Header().Get("ETag") != w.Header().Get("ETag") {
		t.Errorf("HEAD: %d %v", head.Code, head.Header())
	}
	asked := func(header, value string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", path, nil)
		r.Header.Set(header, value)
		again := httptest.NewRecorder()
		s.Distribution().ServeHTTP(again, r)
		return again
	}
	if again := asked("If-None-Match", `"x", W/`+w.Header().Get("ETag")); again.Code != http.StatusNotModified || again.Body.Len() != 0 ||
		again.Header().Get("ETag") == "" {
		t.Errorf("the answer that it has: %d %v", again.Code, again.Header())
	}
	// The answer that revokes a certificate can be of the second of the one before.
	s.office.answer = &ca.OCSPResponse{DER: []byte("revoked"), ThisUpdate: noon, NextUpdate: noon.Add(48 * time.Hour), Shared: true, Digest: [32]byte{2}}
	for header, value := range map[string]string{"If-None-Match": w.Header().Get("ETag"), "If-Modified-Since": w.Header().Get("Last-Modified")} {
		if again := asked(header, value); again.Code != http.StatusOK || again.Body.String() != "revoked" {
			t.Errorf("%s, and another answer of the same second: %d %q", header, again.Code, again.Body)
		}
	}
	s.office.answer = &ca.OCSPResponse{DER: []byte("for one"), ThisUpdate: noon, NextUpdate: noon.Add(time.Hour)}
	if w := s.ocsp("GET", path, "", nil); w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("ETag") != "" {
		t.Errorf("an answer for one alone: %v", w.Header())
	}
	s.office.answer = &ca.OCSPResponse{DER: []byte("ending"), ThisUpdate: noon.Add(-time.Hour), NextUpdate: noon.Add(5 * time.Second), Shared: true}
	if w := s.ocsp("GET", path, "", nil); !strings.HasPrefix(w.Header().Get("Cache-Control"), "max-age=5,") {
		t.Errorf("an answer that ends: %v", w.Header())
	}
}

func TestOCSPByPost(t *testing.T) {
	s := newOCSPSurface(t)
	for _, c := range []struct {
		method, target, mediaType string
		status                    int
	}{
		{"POST", "/ocsp/issuing-1", "application/ocsp-request", 200},
		{"POST", "/ocsp/issuing-1/", "application/ocsp-request; x=y", 200},
		{"POST", "/ocsp/issuing-1", "", 415},
		{"POST", "/ocsp/issuing-1", "text/plain", 415},
		{"POST", "/ocsp/issuing-1/x", "application/ocsp-request", 404},
		{"POST", "/ocsp/other", "application/ocsp-request", 404},
		{"GET", "/ocsp/", "", 404},
		{"DELETE", "/ocsp/issuing-1", "", 405},
	} {
		w := s.ocsp(c.method, c.target, c.mediaType, []byte("a question"))
		if w.Code != c.status {
			t.Errorf("%s %s %q: %d %s", c.method, c.target, c.mediaType, w.Code, w.Body)
		}
		if c.status != 200 && w.Header().Get("X-Request-Id") == "" {
			t.Errorf("%s %s: %v", c.method, c.target, w.Header())
		}
	}
	// What is too long is not read to its end: what is read is longer than any request.
	s.ocsp("POST", "/ocsp/issuing-1", "application/ocsp-request", make([]byte, 1<<20))
	if read := s.office.asks[len(s.office.asks)-1]; len(read) != maxOCSPRequest {
		t.Errorf("%d octets were read", len(read))
	}
}

// TestOCSPProblemsAreCounted under a route of their own, which no path makes another; and a line for each would fill the log.
func TestOCSPProblemsAreCounted(t *testing.T) {
	s := newOCSPSurface(t)
	for _, path := range []string{"/ocsp/issuing-1", "/ocsp/other", "/ocsp/a/b"} {
		s.ocsp("POST", path, "text/plain", nil)
	}
	s.ocsp("POST", "/ocsp/other", "application/ocsp-request", nil)
	s.office.err = ca.ErrUnavailable
	s.ocsp("GET", "/ocsp/issuing-1/AAAA", "", nil)
	log, text := s.log.String(), s.do(s.Operations(), ask{path: "/metrics"}).Body.String()
	for _, want := range []string{
		`chancery_http_requests_total{method="POST",route="/ocsp/{name}",status="415"} 3`,
		`chancery_http_requests_total{method="POST",route="/ocsp/{name}",status="404"} 1`,
		`chancery_http_requests_total{method="GET",route="/ocsp/{name}",status="503"} 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s", want)
		}
	}
	if strings.Contains(text, "unmatched") || strings.Contains(log, "msg=request ") || strings.Count(log, "could not be served") != 1 ||
		strings.Contains(log, `request="" `) {
		t.Errorf("the log is\n%s", log)
	}
}

// However a client encodes the base64 of a request for a URL, as long as it does so once, what it asked comes through.
func TestOCSPPathsAreReadAsWritten(t *testing.T) {
	s := newOCSPSurface(t)
	rapid.Check(t, func(t *rapid.T) {
		request := rapid.SliceOfN(rapid.Byte(), 1, 200).Draw(t, "request")
		var path strings.Builder
		for _, c := range []byte(base64.StdEncoding.EncodeToString(request)) {
			if rapid.Bool().Draw(t, "encoded") {
				path.WriteString("%" + strings.ToUpper(string("0123456789abcdef"[c>>4])+string("0123456789abcdef"[c&15])))
			} else {
				path.WriteByte(c)
			}
		}
		if w := s.ocsp("GET", "/ocsp/issuing-1/"+path.String(), "", nil); w.Code != 200 {
			t.Fatalf("%s: %d", path.String(), w.Code)
		}
		if got := s.office.asks[len(s.office.asks)-1]; !bytes.Equal(got, request) {
			t.Fatalf("%x was read as %x", request, got)
		}
	})
}

// FuzzOCSPPath holds that whatever stands in a path, it is answered, and read as base64 of what it decodes to, or as nothing.
func FuzzOCSPPath(f *testing.F) {
	s := newOCSPSurface(f)
	for _, path := range []string{"MEI=", "MEI%3D", "MEI%253D", "ME//+/", "../x", "%00", "MEI", "M EI=", "MEI=\n", "?a=b", "//", "%2F%2f"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		target, err := url.Parse("/ocsp/issuing-1/" + path)
		if err != nil {
			return
		}
		r := &http.Request{Method: "GET", URL: target, Header: http.Header{}, Body: http.NoBody}
		w := httptest.NewRecorder()
		s.Distribution().ServeHTTP(w, r)
		if w.Code != 200 {
			if strings.HasPrefix(target.Path, "/ocsp/issuing-1/") {
				t.Fatalf("%q: %d", path, w.Code)
			}
			return
		}
		read := s.office.asks[len(s.office.asks)-1]
		if encoded := strings.TrimPrefix(target.Path, "/ocsp/issuing-1/"); len(read) > 0 && base64.StdEncoding.EncodeToString(read) != encoded {
			t.Fatalf("%q was read as %x", path, read)
		}
		s.office.asks = nil
	})
}
