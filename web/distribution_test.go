package web

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"

	"github.com/chancery-ca/chancery/ca"
)

func (s *surface) fetch(path string, header ...string) *httptest.ResponseRecorder {
	a := ask{path: path}
	for i := 0; i+1 < len(header); i += 2 {
		a = a.with(header[i], header[i+1])
	}
	return s.do(s.Distribution(), a)
}

func TestDistribution(t *testing.T) {
	s := newSurface(t)
	issuing, root := s.office.records[0], s.office.records[1]
	rootPEM, issuingPEM := encodePEM(root.Certificate), encodePEM(issuing.Certificate)
	for path, want := range map[string]struct{ mediaType, body, cache string }{
		"/ca/issuing-1.cer":       {typeDER, string(issuing.Certificate), "public, max-age=3600"},
		"/ca/root.cer":            {typeDER, string(root.Certificate), "public, max-age=3600"},
		"/ca/issuing-1.pem":       {typePEM, issuingPEM, "public, max-age=3600"},
		"/ca/issuing-1/chain.pem": {typeChain, issuingPEM + rootPEM, "public, max-age=3600"},
		"/ca/roots.pem":           {typePEM, rootPEM, "public, max-age=3600"},
		"/roots.pem":              {typePEM, rootPEM, "public, max-age=3600"},
		"/intermediates.pem":      {typePEM, issuingPEM, "public, max-age=3600"},
		"/crl/issuing-1.crl":      {typeCRL, string(s.office.crl.DER), "public, max-age=30"},
	} {
		w := s.fetch(path)
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != want.mediaType || w.Body.String() != want.body ||
			w.Header().Get("Cache-Control") != want.cache || w.Header().Get("Last-Modified") == "" ||
			w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d %v", path, w.Code, w.Header())
		}
		etag := w.Header().Get("ETag")
		if again := s.fetch(path, "If-None-Match", `"other", `+etag); again.Code != http.StatusNotModified || again.Body.Len() != 0 ||
			again.Header().Get("ETag") != etag {
			t.Errorf("%s: If-None-Match: %d", path, again.Code)
		}
		if again := s.fetch(path, "If-None-Match", `"other"`); again.Code != http.StatusOK {
			t.Errorf("%s: another ETag: %d", path, again.Code)
		}
		if again := s.fetch(path, "If-Modified-Since", w.Header().Get("Last-Modified")); again.Code != http.StatusNotModified {
			t.Errorf("%s: If-Modified-Since: %d", path, again.Code)
		}
		head := s.do(s.Distribution(), ask{method: http.MethodHead, path: path})
		if head.Code != http.StatusOK || head.Body.Len() != 0 || head.Header().Get("ETag") != etag ||
			head.Header().Get("Content-Length") != w.Header().Get("Content-Length") {
			t.Errorf("%s: HEAD: %d %v", path, head.Code, head.Header())
		}
		if part := s.fetch(path, "Range", "bytes=0-9"); part.Code != http.StatusPartialContent || part.Body.String() != want.body[:10] {
			t.Errorf("%s: Range: %d", path, part.Code)
		}
	}
}

// TestTwoCRLsOfOneSecond: whoever asks by the time gets the second one.
func TestTwoCRLsOfOneSecond(t *testing.T) {
	s := newSurface(t)
	s.office.crl.ThisUpdate = noon.Add(-time.Second)
	first := s.fetch("/crl/issuing-1.crl")
	if at := first.Header().Get("Last-Modified"); first.Code != http.StatusOK || at != "" {
		t.Fatalf("%d, of %q", first.Code, at)
	}
	s.office.crl.Number, s.office.crl.DER = big.NewInt(6), []byte("with the revocation")
	for _, since := range []time.Time{noon.Add(-time.Second), noon} { // its thisUpdate, and when it was fetched
		again := s.fetch("/crl/issuing-1.crl", "If-Modified-Since", since.Format(http.TimeFormat))
		if again.Code != http.StatusOK || again.Body.String() != "with the revocation" {
			t.Errorf("since %s: %d", since, again.Code)
		}
	}
	s.office.crl.ThisUpdate = noon.Add(-crlSettles)
	settled := s.fetch("/crl/issuing-1.crl")
	if at := settled.Header().Get("Last-Modified"); at != noon.UTC().Format(http.TimeFormat) {
		t.Errorf("when nothing else can come, it is of %q", at)
	}
	for since, want := range map[time.Time]int{noon: http.StatusNotModified, noon.Add(-time.Second): http.StatusOK} {
		if again := s.fetch("/crl/issuing-1.crl", "If-Modified-Since", since.UTC().Format(http.TimeFormat)); again.Code != want {
			t.Errorf("since %s: %d, want %d", since, again.Code, want)
		}
	}
}

func TestChainAsCMS(t *testing.T) {
	s := newSurface(t)
	w := s.fetch("/ca/issuing-1/chain.p7c")
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != typeCMS {
		t.Fatalf("%d %v", w.Code, w.Header())
	}
	message, err := pkcs7.Parse(w.Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if len(message.Certificates) != 2 || !bytes.Equal(message.Certificates[0].Raw, s.office.records[0].Certificate) ||
		len(message.Signers) != 0 {
		t.Errorf("%d certificates, %d signers", len(message.Certificates), len(message.Signers))
	}
}

func TestChainVerifies(t *testing.T) {
	s := newSurface(t)
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	if !roots.AppendCertsFromPEM(s.fetch("/ca/roots.pem").Body.Bytes()) ||
		!intermediates.AppendCertsFromPEM(s.fetch("/ca/issuing-1/chain.pem").Body.Bytes()) {
		t.Fatal("no certificates")
	}
	block, _ := pem.Decode(s.fetch("/ca/issuing-1.pem").Body.Bytes())
	issuing, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := issuing.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates, CurrentTime: noon}); err != nil {
		t.Error(err)
	}
}

func TestCRLIsNotKeptPastItsEnd(t *testing.T) {
	s := newSurface(t)
	for left, want := range map[time.Duration]string{
		time.Hour: "public, max-age=30", 10*time.Second + 700*time.Millisecond: "public, max-age=10", 500 * time.Millisecond: "no-cache",
		0: "no-cache", -time.Hour: "no-cache",
	} {
		s.office.crl.NextUpdate = noon.Add(left)
		if w := s.fetch("/crl/issuing-1.crl"); w.Header().Get("Cache-Control") != want {
			t.Errorf("%v left: %q, want %q", left, w.Header().Get("Cache-Control"), want)
		}
	}
}

func TestShardsAndDeltas(t *testing.T) {
	s := newSurface(t)
	if w := s.fetch("/crl/issuing-1/7.crl"); w.Code != http.StatusOK || w.Body.String() != string(s.office.crl.DER) {
		t.Errorf("a shard: %d", w.Code)
	}
	wantProblem(t, s.fetch("/crl/issuing-1/delta.crl"), http.StatusNotFound, "not-found")
	s.office.delta = s.office.crl
	for scope, path := range map[string]string{ca.FullScope: "/crl/issuing-1/delta.crl", "7": "/crl/issuing-1/7/delta.crl"} {
		s.office.delta.Scope = scope
		s.office.delta.DER = []byte("the delta of " + scope)
		w := s.fetch(path)
		if w.Code != http.StatusOK || w.Body.String() != string(s.office.delta.DER) || w.Header().Get("Content-Type") != typeCRL {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

// BenchmarkServeCRL serves a list of fifty thousand entries beside the standard library's static handler, on the same connection.
func BenchmarkServeCRL(b *testing.B) {
	s := newSurface(b)
	s.office.crl.DER = bytes.Repeat([]byte{0x30}, 2_500_000)
	static := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "a.crl", noon, bytes.NewReader(s.office.crl.DER))
	})
	for _, one := range []struct {
		name    string
		handler http.Handler
	}{{"chancery", s.Distribution()}, {"static", static}} {
		b.Run(one.name, func(b *testing.B) {
			server := httptest.NewServer(one.handler)
			defer server.Close()
			b.SetBytes(int64(len(s.office.crl.DER)))
			for b.Loop() {
				response, err := server.Client().Get(server.URL + "/crl/issuing-1.crl")
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, response.Body); err != nil || n != int64(len(s.office.crl.DER)) {
					b.Fatal(n, err)
				}
				if err := response.Body.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestDistributionHasNothingElse(t *testing.T) {
	s := newSurface(t)
	for _, path := range []string{
		"/", "/ca/none.cer", "/ca/.cer", "/ca/issuing-1", "/ca/issuing-1.der", "/ca/issuing-1/", "/ca/issuing-1/chain.p7b",
		"/crl/none.crl", "/crl/root.crl", "/crl/issuing-1/8.crl", "/crl/issuing-1/full.crl", "/crl/issuing-1/07.crl", "/crl/issuing-1/1000.crl",
		"/crl/issuing-1/-1.crl", "/crl/issuing-1/%2e%2e/7.crl", "/crl/issuing-1/7/7.crl", "/crl/issuing-1/full/delta.crl",
		"/crl/issuing-1", "/ca/a%2Fb.cer", "/ca/%2e%2e.cer", "/ca/a%00.cer", "/ca/a..cer", "/api/v1/certificates", "/metrics", "/readyz",
	} {
		wantProblem(t, s.fetch(path), http.StatusNotFound, "not-found")
	}
	w := s.do(s.Distribution(), ask{method: http.MethodPost, path: "/ca/roots.pem"})
	wantProblem(t, w, http.StatusMethodNotAllowed, "method-not-allowed")
	if w.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("Allow %q", w.Header().Get("Allow"))
	}
	for path, want := range map[string]string{"/health": "{\"status\":\"ok\"}\n", "/version": "{\"version\":\"1.2.3\"}\n"} {
		if w := s.fetch(path); w.Code != http.StatusOK || w.Body.String() != want {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	s.office.err = errors.Join(ca.ErrUnavailable, errors.New("inside"))
	for _, path := range []string{"/ca/issuing-1.cer", "/ca/roots.pem", "/crl/issuing-1.crl"} {
		w := s.fetch(path)
		wantProblem(t, w, http.StatusServiceUnavailable, "unavailable")
		if w.Header().Get("ETag") != "" || w.Header().Get("Cache-Control") != "" || w.Header().Get("Retry-After") == "" {
			t.Errorf("%s: %v", path, w.Header())
		}
	}
}
