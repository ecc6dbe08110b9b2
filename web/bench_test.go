package web

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/chancery-ca/chancery/access"
)

// BenchmarkIssue is what an issuance costs on the wire's side: authentication, reading the body and the request in it, the answer, the log and
// the metrics, without the authority.
func BenchmarkIssue(b *testing.B) {
	s := newSurface(b, func(c *Config) { c.Log = slog.New(slog.NewJSONHandler(io.Discard, nil)) })
	api := s.API()
	_, csr := newCSR(b, "web.dev.example")
	body, err := json.Marshal(IssueRequest{Profile: "tls-server", CSR: csr})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest(http.MethodPost, "/api/v1/certificates", bytes.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+s.tokens[access.Requester])
		r.Header.Set("Content-Type", typeJSON)
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		if w.Code != http.StatusCreated {
			b.Fatal(w.Code, w.Body)
		}
		s.office.orders = s.office.orders[:0]
	}
}

// BenchmarkDecodeStrict is what reading the body of an issuance costs.
func BenchmarkDecodeStrict(b *testing.B) {
	_, csr := newCSR(b, "web.dev.example")
	body, err := json.Marshal(IssueRequest{Profile: "tls-server", CSR: csr, Metadata: map[string]string{"ticket": "OPS-7"}})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if err := decodeStrict(body, new(IssueRequest)); err != nil {
			b.Fatal(err)
		}
	}
}
