package web

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/policies"
)

// serve starts the API behind a real listener, with timeouts that a test can wait for.
func (s *surface) serve(t *testing.T, readTimeout time.Duration) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(s.API())
	server.Config = NewHTTPServer(s.API(), slog.New(slog.DiscardHandler))
	server.Config.ReadTimeout = readTimeout
	server.Start()
	t.Cleanup(server.Close)
	return server
}

// endless is a body of so many octets whose length is not announced.
type endless struct{ left int }

func (e *endless) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), e.left)
	for i := range n {
		p[i] = ' '
	}
	e.left -= n
	return n, nil
}

func TestLargeBodies(t *testing.T) {
	s := newSurface(t)
	server := s.serve(t, 10*time.Second)
	post := func(body io.Reader) *http.Response {
		t.Helper()
		r, err := http.NewRequest(http.MethodPost, server.URL+"/api/v1/certificates", body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", typeJSON)
		r.Header.Set("Authorization", "Bearer "+s.tokens[access.Requester])
		answer, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { answer.Body.Close() })
		return answer
	}
	for name, body := range map[string]io.Reader{
		"announced":    bytes.NewReader(make([]byte, 5<<20)),
		"chunked":      &endless{left: 5 << 20},
		"one too many": bytes.NewReader(make([]byte, maxOrder+1)),
	} {
		if answer := post(body); answer.StatusCode != http.StatusRequestEntityTooLarge || answer.Header.Get("Content-Type") != problemType {
			t.Errorf("%s: %d %s", name, answer.StatusCode, answer.Header.Get("Content-Type"))
		}
	}
	just := `{"csr":"` + strings.Repeat("x", maxOrder-10) + `"}`
	if answer := post(strings.NewReader(just)); len(just) != maxOrder || answer.StatusCode != http.StatusBadRequest {
		t.Errorf("a body of %d octets: %d", len(just), answer.StatusCode)
	}
}

func TestSlowBody(t *testing.T) {
	s := newSurface(t)
	server := s.serve(t, 200*time.Millisecond)
	connection, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	fmt.Fprintf(connection, "POST /api/v1/certificates HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
		s.tokens[access.Requester])
	answer, err := http.ReadResponse(bufio.NewReader(connection), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusRequestTimeout || answer.Header.Get("Content-Type") != problemType || !answer.Close {
		t.Errorf("%d %v, connection closes: %v", answer.StatusCode, answer.Header, answer.Close)
	}
}

// slowly asks a server and says that a body will come, which does not. It returns the first status of the answer: 100 when somebody waits
// for the body.
func slowly(t *testing.T, server *httptest.Server, request, mediaType string) int {
	t.Helper()
	connection, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	fmt.Fprintf(connection, "%s HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n", request, mediaType)
	var status int
	if _, err := fmt.Fscanf(connection, "HTTP/1.1 %d", &status); err != nil {
		t.Fatal(err)
	}
	return status
}

// TestSlowBodiesOfStrangers: whoever needs no credentials, and never sends what is waited for, takes no place from who has some, nor from
// who is on the machine itself.
func TestSlowBodiesOfStrangers(t *testing.T) {
	t.Parallel()
	const places = 16
	s := newSurface(t, func(c *Config) { c.InFlight = places })
	s.office.answer = &ca.OCSPResponse{DER: []byte("an answer"), ThisUpdate: noon, NextUpdate: noon.Add(time.Hour)}
	serve := func(h http.Handler) *httptest.Server {
		server := httptest.NewServer(h)
		t.Cleanup(server.Close)
		return server
	}
	api := serve(s.API())
	_, inPEM := newCSR(t, "a.dev.example")
	issue := ask{method: http.MethodPost, path: "/api/v1/certificates", role: access.Requester}.
		json(IssueRequest{Profile: "tls-server", CSR: inPEM})
	revoke := ask{method: http.MethodPost, path: "/api/v1/certificates/1c01/revoke", role: access.Revoker}.json(RevokeRequest{Reason: "superseded"})
	for name, c := range map[string]struct {
		server             *httptest.Server
		request, mediaType string
		most               int // that may be waited for
		served             func() bool
	}{
		"revocation by key": {
			api, "POST /api/v1/certificates/1c01/revoke-by-key", typeJSON, places / publicPart / 2, func() bool {
				local := s.do(s.Local(), ask{method: http.MethodPost, path: "/api/v1/certificates/1c01/revoke-by-key"}.json(SignedRevocation{}))
				return s.call(issue).Code == http.StatusCreated && s.call(revoke).Code == http.StatusOK &&
					s.do(s.Local(), revoke).Code == http.StatusOK && local.Code == http.StatusBadRequest
			},
		},
		"a link to the console": {
			api, "POST /console/enter", "application/x-www-form-urlencoded", places / publicPart / 2, func() bool {
				return visit(s, "/console/").Code == http.StatusOK && s.do(s.Local(), ask{path: "/console/enter"}).Code == http.StatusOK
			},
		},
		"OCSP": {
			serve(s.Distribution()), "POST /ocsp/issuing-1", typeOCSPRequest, places + 1, func() bool {
				return s.ocsp("POST", "/ocsp/issuing-1", typeOCSPRequest, []byte("a question")).Code == http.StatusOK
			},
		},
	} {
		waited := 0
		for range places + 1 {
			switch status := slowly(t, c.server, c.request, c.mediaType); status {
			case http.StatusContinue:
				waited++
			case http.StatusServiceUnavailable:
			default:
				t.Errorf("%s: a slow body is answered %d", name, status)
			}
		}
		if waited != c.most {
			t.Errorf("%s: %d bodies are waited for, want %d", name, waited, c.most)
		}
		if !c.served() {
			t.Errorf("%s: others are turned away", name)
		}
	}
}

// TestBodiesThatNobodyReads: an answer does not wait for a body that is of no use.
func TestBodiesThatNobodyReads(t *testing.T) {
	t.Parallel()
	s := newSurface(t)
	s.office.answer = &ca.OCSPResponse{DER: make([]byte, 4<<10), ThisUpdate: noon, NextUpdate: noon.Add(time.Hour)}
	for path, h := range map[string]http.Handler{
		"/api/v1/openapi.json": s.API(), "/ocsp/issuing-1/AAAA": s.Distribution(),
	} {
		answered := make(chan struct{})
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(w, r)
			close(answered)
		}))
		defer server.Close()
		connection, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close()
		fmt.Fprintf(connection, "GET %s HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", path)
		select {
		case <-answered:
		case <-time.After(5 * time.Second):
			t.Errorf("%s: the place is kept until the body comes", path)
			connection.Close()
			<-answered
		}
	}
}

func TestTimeoutsAreSet(t *testing.T) {
	h := NewHTTPServer(http.NotFoundHandler(), slog.New(slog.DiscardHandler))
	if h.ReadHeaderTimeout == 0 || h.ReadTimeout == 0 || h.WriteTimeout == 0 || h.IdleTimeout == 0 || h.MaxHeaderBytes == 0 ||
		h.ErrorLog == nil {
		t.Errorf("a limit is missing: %+v", h)
	}
}

func TestPanicsTellNothing(t *testing.T) {
	s := newSurface(t)
	s.office.busy = func() { panic("the secret state") }
	w := s.call(ask{path: "/api/v1/authorities", role: access.Operator})
	wantProblem(t, w, http.StatusInternalServerError, "internal")
	if strings.Contains(w.Body.String(), "secret") || !strings.Contains(s.log.String(), "the secret state") {
		t.Errorf("answer %s\nlog %s", w.Body, s.log)
	}
}

func TestTooManyAtOnce(t *testing.T) {
	s := newSurface(t, func(c *Config) { c.InFlight = 1 })
	var begun atomic.Bool
	within, leave := make(chan struct{}), make(chan struct{})
	s.office.busy = func() {
		if begun.CompareAndSwap(false, true) {
			close(within)
			<-leave
		}
	}
	first := make(chan int)
	go func() { first <- s.call(ask{path: "/api/v1/profiles", role: access.Auditor}).Code }()
	<-within
	w := s.call(ask{path: "/api/v1/profiles", role: access.Auditor})
	wantProblem(t, w, http.StatusServiceUnavailable, "unavailable")
	if w.Header().Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	if w := s.do(s.Local(), ask{path: "/api/v1/profiles", role: access.Operator}); w.Code != http.StatusOK {
		t.Errorf("who is on the machine itself is crowded out: %d", w.Code)
	}
	close(leave)
	if status := <-first; status != http.StatusOK {
		t.Errorf("the first got %d", status)
	}
	if w := s.call(ask{path: "/api/v1/profiles", role: access.Auditor}); w.Code != http.StatusOK {
		t.Errorf("the place was not given back: %d", w.Code)
	}
}

// TestWhoReadsNothingKeepsNobodyOut: as many connections as there are places, and more, that take no list which they asked for.
func TestWhoReadsNothingKeepsNobodyOut(t *testing.T) {
	t.Parallel()
	const places = 4
	s := newSurface(t, func(c *Config) { c.InFlight = places })
	s.office.crl.DER = make([]byte, 16<<20) // more than the kernel takes for who does not read
	s.office.answer = &ca.OCSPResponse{DER: make([]byte, 16<<20), ThisUpdate: noon, NextUpdate: noon.Add(time.Hour)}
	server := httptest.NewServer(s.Distribution())
	t.Cleanup(server.Close)
	for _, path := range []string{"/crl/issuing-1.crl", "/ocsp/issuing-1/AAAA"} {
		for range 2 * places {
			c := dialled(t, server.Listener.Addr().String())
			fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
			var status int
			if _, err := fmt.Fscanf(c, "HTTP/1.1 %d", &status); err != nil || status != http.StatusOK {
				t.Errorf("%s is answered %d, %v", path, status, err)
			}
		}
	}
}

// TestOneNetworkLeavesRoom: whoever has as much looked up at once as can be gets half of the places; and whether the service lives is told
// all the same.
func TestOneNetworkLeavesRoom(t *testing.T) {
	const places = 4
	var from netip.Addr
	s := newSurface(t, func(c *Config) {
		c.InFlight, c.ClientAddr = places, func(*http.Request) netip.Addr { return from }
	})
	arrived, free := make(chan struct{}), make(chan struct{})
	s.office.busy = func() {
		select {
		case arrived <- struct{}{}:
			<-free
		case <-free:
		}
	}
	var calls sync.WaitGroup
	leave := sync.OnceFunc(func() { close(free) })
	defer leave()
	fetch := func() {
		answered := make(chan int, 1)
		calls.Go(func() { answered <- s.fetch("/crl/issuing-1.crl").Code })
		select {
		case <-arrived:
		case status := <-answered:
			t.Fatalf("who has a place is answered %d", status)
		}
	}
	for _, network := range []string{"192.0.2.7", "192.0.2.8"} {
		from = netip.MustParseAddr(network)
		for range places / 2 {
			fetch()
		}
		w := s.fetch("/crl/issuing-1.crl")
		wantProblem(t, w, http.StatusServiceUnavailable, "unavailable")
		if w.Header().Get("Retry-After") == "" {
			t.Error("nobody says when to come back")
		}
	}
	for path, want := range map[string]int{
		"/health": http.StatusOK, "/version": http.StatusOK, "/nothing": http.StatusNotFound, "/roots.pem": http.StatusServiceUnavailable,
	} {
		if w := s.fetch(path); w.Code != want {
			t.Errorf("with all places taken %s is answered %d, want %d", path, w.Code, want)
		}
	}
	leave()
	calls.Wait()
	if n := len(s.lookups.taken) + len(s.lookups.shares.held); n != 0 {
		t.Errorf("%d places are still taken", n)
	}
}

func TestRateIsOfTheActor(t *testing.T) {
	now := noon
	s := newSurface(t, func(c *Config) {
		c.RateLimit = RateLimit{PerSecond: 0.5, Burst: 2}
		c.Now = func() time.Time { return now }
	})
	a := ask{path: "/api/v1/profiles", role: access.Auditor}
	for range 2 {
		decode[ProfileList](t, s.call(a), http.StatusOK)
	}
	w := s.call(a)
	wantProblem(t, w, http.StatusTooManyRequests, "too-many-requests")
	if w.Header().Get("Retry-After") != "2" {
		t.Errorf("Retry-After %q", w.Header().Get("Retry-After"))
	}
	other := a
	other.role = access.Operator
	decode[ProfileList](t, s.call(other), http.StatusOK)
	now = now.Add(2 * time.Second)
	decode[ProfileList](t, s.call(a), http.StatusOK)
	wantProblem(t, s.call(a), http.StatusTooManyRequests, "too-many-requests")
}

func TestRatesForgetThoseAtRest(t *testing.T) {
	now := noon
	r := newRates(RateLimit{PerSecond: 1, Burst: 1}, func() time.Time { return now })
	r.prune = 10
	for i := range 10 {
		r.wait(fmt.Sprint(i))
	}
	now = now.Add(time.Minute)
	r.wait("newcomer")
	if len(r.byID) != 1 {
		t.Errorf("%d actors are remembered", len(r.byID))
	}
}

func TestLogHoldsNoSecrets(t *testing.T) {
	s := newSurface(t)
	_, inPEM := newCSR(t, "a.dev.example")
	a := ask{method: http.MethodPost, path: "/api/v1/certificates", role: access.Requester}.json(IssueRequest{
		Profile: "tls-server",
		CSR:     inPEM,
	}).
		with("X-Request-Id", "mine").with("Idempotency-Key", "my-key")
	w := s.call(a)
	log := s.log.String()
	if w.Header().Get("X-Request-Id") == "mine" || strings.Contains(log, "mine") {
		t.Error("an identifier from outside is taken")
	}
	for _, want := range []string{
		"request=" + w.Header().Get("X-Request-Id"), "method=POST", "route=/api/v1/certificates",
		"status=201", "actor=actor-requester",
	} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %s: %s", want, log)
		}
	}
	for _, secret := range []string{s.tokens[access.Requester], access.TokenPrefix, "CERTIFICATE REQUEST", "my-key"} {
		if strings.Contains(log, secret) {
			t.Errorf("the log holds %s", secret)
		}
	}
	s.log.Reset()
	s.call(ask{path: "/api/v1/nothing?token=" + s.tokens[access.Auditor]})
	if strings.Contains(s.log.String(), access.TokenPrefix) || !strings.Contains(s.log.String(), "route=unmatched") {
		t.Errorf("log %s", s.log)
	}
}

func TestReadiness(t *testing.T) {
	s := newSurface(t)
	for path, want := range map[string]string{
		"/livez": `{"status":"ok"}`, "/readyz": `{"status":"ready"}`,
		"/version": `{"version":"1.2.3"}`,
	} {
		if w := s.do(s.Operations(), ask{path: path}); w.Code != http.StatusOK || strings.TrimSpace(w.Body.String()) != want {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	s.office.err = errors.New("the store: away")
	if p := wantProblem(t, s.do(s.Operations(), ask{path: "/readyz"}), http.StatusServiceUnavailable,
		"unavailable"); p.Detail != "the store: away" {
		t.Errorf("got %+v", p)
	}
	if w := s.do(s.Operations(), ask{path: "/livez"}); w.Code != http.StatusOK {
		t.Errorf("the process is alive and says %d", w.Code)
	}
}

func TestMetrics(t *testing.T) {
	s := newSurface(t)
	s.metrics.Issued("issuing-1", "tls-server", time.Second)
	s.metrics.Refused("tls-server")
	s.metrics.Refused("made-up")
	s.metrics.Limited("plain", "rate")
	ruling := s.office.policies
	others, err := policies.LoadFiles([]policies.File{{Name: "plain.yaml", Content: []byte(plainProfile)}})
	if err != nil {
		t.Fatal(err)
	}
	s.office.policies = others // which came to rule while the service runs
	s.metrics.Limited("plain", "rate")
	s.office.policies = ruling
	s.metrics.Failed("issue")
	s.metrics.Revoked("issuing-1", "superseded")
	s.metrics.LookedUpCAA(0, time.Second)
	s.metrics.LookedUpCAA(2, time.Second)
	s.metrics.ClientCRLRefused("corp", "unverified")
	s.metrics.Orphaned("issuing-1")
	s.metrics.Published("issuing-1", "full", time.Second)
	s.metrics.Serves("issuing-1", "full", ca.CRLRecord{ThisUpdate: noon.Add(-time.Hour), NextUpdate: noon, Entries: 3, DER: make([]byte, 500)})
	s.call(ask{path: "/api/v1/profiles/tls-server", role: access.Auditor})
	s.call(ask{method: "BREW", path: "/api/v1/x"})
	text := s.do(s.Operations(), ask{path: "/metrics"}).Body.String()
	for _, want := range []string{
		`chancery_certificates_issued_total{authority="issuing-1",profile="tls-server"} 1`,
		`chancery_issuance_duration_seconds_count{authority="issuing-1",profile="tls-server"} 1`,
		`chancery_requests_refused_total{profile="tls-server"} 1`, `chancery_requests_refused_total{profile="unknown"} 1`,
		`chancery_requests_limited_total{by="rate",profile="unknown"} 1`, `chancery_requests_limited_total{by="rate",profile="plain"} 1`,
		`chancery_operation_failures_total{step="issue"} 1`, `chancery_certificates_revoked_total{authority="issuing-1",reason="superseded"} 1`,
		`chancery_intents_settled_total{authority="issuing-1"} 1`, `chancery_crl_entries{authority="issuing-1",scope="full"} 3`,
		`chancery_crl_next_update_timestamp_seconds{authority="issuing-1",scope="full"} ` + fmt.Sprintf("%.9g", float64(noon.Unix())),
		`chancery_crl_this_update_timestamp_seconds{authority="issuing-1",scope="full"} ` + fmt.Sprintf("%.9g", float64(noon.Unix()-3600)),
		`chancery_crl_size_bytes{authority="issuing-1",scope="full"} 500`,
		`chancery_client_crls_refused_total{reason="unverified",trust="corp"} 1`,
		`chancery_caa_lookup_duration_seconds_count{outcome="answered"} 1`, `chancery_caa_lookup_duration_seconds_count{outcome="failed"} 1`,
		`chancery_crl_publication_duration_seconds_count{authority="issuing-1",scope="full"} 1`,
		`chancery_http_requests_total{method="GET",route="/api/v1/profiles/{name}",status="200"} 1`,
		`chancery_http_requests_total{method="other",route="unmatched",status="405"} 1`,
		`chancery_http_request_duration_seconds_count{route="/api/v1/profiles/{name}"} 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s", want)
		}
	}
}

func TestNewRefusesHalfAConfiguration(t *testing.T) {
	if _, err := New(Config{}); err == nil {
		t.Error("an empty configuration is accepted")
	}
}
