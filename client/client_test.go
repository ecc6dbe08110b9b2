package client

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

const token = "chancery_secret-of-the-test"

// exchange is what one request of a test looked like.
type exchange struct {
	method, uri, body string
	header            http.Header
}

// service answers the requests of a test in turn; the last answer repeats.
type service struct {
	*httptest.Server
	mu      sync.Mutex
	seen    []exchange
	answers []func(http.ResponseWriter)
	waits   []time.Duration
}

func newService(t *testing.T, answers ...func(http.ResponseWriter)) *service {
	t.Helper()
	s := &service{answers: answers}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		defer s.mu.Unlock()
		n := min(len(s.seen), len(s.answers)-1)
		s.seen = append(s.seen, exchange{method: r.Method, uri: r.RequestURI, body: string(body), header: r.Header})
		s.answers[n](w)
	}))
	s.Config.ErrorLog = nil
	t.Cleanup(s.Close)
	return s
}

func (s *service) client(t *testing.T, change ...func(*Config)) *Client {
	t.Helper()
	bundle := filepath.Join(t.TempDir(), "root.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(bundle, block, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := Config{BaseURL: s.URL, Token: token, CAFile: bundle, Wait: func(_ context.Context, d time.Duration) error {
		s.waits = append(s.waits, d)
		return nil
	}}
	for _, c := range change {
		c(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func say(status int, mediaType, body string, header ...string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", mediaType)
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func sayJSON(status int, body string, header ...string) func(http.ResponseWriter) {
	return say(status, "application/json", body, header...)
}

func sayProblem(status int, name string, header ...string) func(http.ResponseWriter) {
	return say(status, "application/problem+json", fmt.Sprintf(`{"type":"urn:chancery:problem:%s","title":"The title","status":%d,
		"detail":"the detail","instance":"urn:chancery:request:7"}`, name, status), header...)
}

// hangUp ends the connection in place of an answer.
func hangUp(http.ResponseWriter) { panic(http.ErrAbortHandler) }

const issued = `{"serial":"1cab","certificate":"C","chain":"CH","issuer":"issuing-1","profile":"tls-server","policy_version":"sha256:0",
	"not_before":"2026-11-20T11:00:00Z","not_after":"2026-12-20T11:00:00Z","audit_event":"e"}`

func TestRequest(t *testing.T) {
	s := newService(t, sayJSON(201, issued, "Idempotency-Replayed", "true"))
	got, err := s.client(t).Request(context.Background(), RequestInput{
		Profile: "tls-server", CSR: "PEM", Validity: "30d",
		Metadata: map[string]string{"a": "b"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.Serial != "1cab" || got.Chain != "CH" || !got.Replayed || got.NotAfter != time.Date(2026, 12, 20, 11, 0, 0, 0, time.UTC) {
		t.Errorf("got %+v", got)
	}
	e := s.seen[0]
	if e.method != "POST" || e.uri != "/api/v1/certificates" || e.header.Get("Authorization") != "Bearer "+token ||
		e.header.Get("Content-Type") != "application/json" || e.header.Get("Accept") != "application/json" ||
		len(e.header.Get("Idempotency-Key")) != 32 {
		t.Errorf("sent %+v", e)
	}
	var body map[string]any
	if err := json.Unmarshal([]byte(e.body), &body); err != nil || !reflect.DeepEqual(body,
		map[string]any{"profile": "tls-server", "csr": "PEM", "validity": "30d", "metadata": map[string]any{"a": "b"}}) {
		t.Errorf("sent %s", e.body)
	}
}

// TestRetriesAreTheSameRequest holds that every attempt has the same key and body, so that the service can tell a repetition.
func TestRetriesAreTheSameRequest(t *testing.T) {
	s := newService(t, hangUp, sayProblem(503, "unavailable", "Retry-After", "7"), sayProblem(409, "idempotency-key-busy", "Retry-After", "1"),
		say(502, "text/html", "<html>"), sayJSON(201, issued))
	if _, err := s.client(t).Request(context.Background(), RequestInput{Profile: "p", CSR: "c"}); err != nil {
		t.Fatal(err)
	}
	if len(s.seen) != 5 {
		t.Fatalf("%d attempts", len(s.seen))
	}
	for _, e := range s.seen {
		if e.header.Get("Idempotency-Key") != s.seen[0].header.Get("Idempotency-Key") || e.body != s.seen[0].body {
			t.Errorf("an attempt differs: %+v", e)
		}
	}
	if s.waits[1] != 7*time.Second || s.waits[2] != time.Second {
		t.Errorf("Retry-After is not believed: %v", s.waits)
	}
	for i, most := range map[int]time.Duration{0: firstPause, 3: 8 * firstPause} {
		if s.waits[i] <= most/2 || s.waits[i] > most {
			t.Errorf("pause %d is %v, want more than half of %v", i, s.waits[i], most)
		}
	}
}

func TestEachRequestHasItsOwnKey(t *testing.T) {
	s := newService(t, sayJSON(201, issued))
	c := s.client(t)
	for _, in := range []RequestInput{{}, {}, {IdempotencyKey: "mine"}} {
		if _, err := c.Request(context.Background(), in); err != nil {
			t.Fatal(err)
		}
	}
	if a, b := s.seen[0].header.Get("Idempotency-Key"), s.seen[1].header.Get("Idempotency-Key"); a == b {
		t.Errorf("two requests have the key %q", a)
	}
	if got := s.seen[2].header.Get("Idempotency-Key"); got != "mine" {
		t.Errorf("key %q", got)
	}
}

func TestAttemptsAreBounded(t *testing.T) {
	s := newService(t, sayProblem(503, "unavailable", "Retry-After", "3600"))
	_, err := s.client(t, func(c *Config) { c.Attempts = 3 }).Profiles(context.Background())
	var p *Problem
	if !errors.As(err, &p) || p.Status != 503 || p.RetryAfter != time.Hour || len(s.seen) != 3 {
		t.Errorf("%d attempts, %v", len(s.seen), err)
	}
	for _, w := range s.waits {
		if w != longestWait {
			t.Errorf("waited %v", w)
		}
	}
}

func TestWhatIsNotRetried(t *testing.T) {
	for name, answer := range map[string]func(http.ResponseWriter){
		"refused": sayProblem(422, "refused"), "denied": sayProblem(403, "denied"), "mismatch": sayProblem(409, "idempotency-key-reused"),
		"internal": sayProblem(500, "internal"), "rubbish": sayJSON(200, `{`), "other type": say(200, "text/html", `{}`),
		"redirect": say(302, "", "", "Location", "/x"),
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, answer)
			if _, err := s.client(t).Profile(context.Background(), "p"); err == nil || len(s.seen) != 1 {
				t.Errorf("%d attempts, %v", len(s.seen), err)
			}
		})
	}
}

func TestTheEndOfTheContextEndsIt(t *testing.T) {
	s := newService(t, sayProblem(503, "unavailable"))
	ctx, cancel := context.WithCancel(context.Background())
	c := s.client(t, func(c *Config) {
		c.Wait = func(ctx context.Context, _ time.Duration) error { cancel(); return ctx.Err() }
	})
	_, err := c.Authorities(ctx)
	var p *Problem
	if !errors.As(err, &p) || len(s.seen) != 1 {
		t.Errorf("%d attempts, %v", len(s.seen), err)
	}
	if _, err := c.Authorities(ctx); !errors.Is(err, context.Canceled) || len(s.seen) != 1 {
		t.Errorf("%d attempts, %v", len(s.seen), err)
	}
	if err := sleep(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("sleep: %v", err)
	}
	if err := sleep(context.Background(), time.Nanosecond); err != nil {
		t.Errorf("sleep: %v", err)
	}
}

func TestAnUntrustedServiceIsNotAskedAgain(t *testing.T) {
	s := newService(t, sayJSON(200, `{}`))
	s.Config.ErrorLog = nil
	_, err := s.client(t, func(c *Config) { c.CAFile = "" }).Profiles(context.Background())
	if err == nil || len(s.waits) != 0 || len(s.seen) != 0 {
		t.Errorf("%d waits, %v", len(s.waits), err)
	}
}

func TestProblemForPeople(t *testing.T) {
	s := newService(t, say(422, "application/problem+json; charset=utf-8", `{"type":"urn:chancery:problem:refused","title":"The policies refuse the request",
		"status":422,"detail":"the request breaks a, b","violations":[{"rule":"a","field":"f","message":"one","hint":"do this"},
		{"rule":"b","field":"g","message":"two","hint":""}]}`))
	_, err := s.client(t).Request(context.Background(), RequestInput{})
	want := "The policies refuse the request\n  a: one\n    hint: do this\n  b: two"
	var p *Problem
	if !errors.As(err, &p) || err.Error() != want || p.Type != TypeRefused || p.Violations[0].Field != "f" {
		t.Errorf("got %v", err)
	}
	for _, c := range []struct {
		p    Problem
		want string
	}{
		{Problem{Title: "T", Detail: "d", Status: 404, Instance: "i"}, "T: d"},
		{Problem{Title: "T", Status: 409}, "T"},
		{Problem{Title: "T", Detail: "d", Status: 500, Instance: "urn:x"}, "T: d (urn:x)"},
	} {
		if got := c.p.Error(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestAProxysAnswerIsAProblem(t *testing.T) {
	for _, answer := range []func(http.ResponseWriter){
		say(404, "text/html", "<h1>no</h1>"), say(404, "application/problem+json", "{"),
		say(404, "application/problem+json", "{}"),
	} {
		s := newService(t, answer)
		_, err := s.client(t).Get(context.Background(), "1c", "")
		var p *Problem
		if !errors.As(err, &p) || p.Status != 404 || p.Error() != "the service answered 404 Not Found" {
			t.Errorf("got %v", err)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	date := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "3": 3 * time.Second, "-1": 0, "x": 0, date.Add(time.Minute).Format(http.TimeFormat): time.Minute,
		date.Add(-time.Minute).Format(http.TimeFormat): 0,
	} {
		if got := retryAfter(http.Header{"Retry-After": {value}, "Date": {date.Format(http.TimeFormat)}}); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}

func TestGet(t *testing.T) {
	s := newService(t, sayJSON(200, `{"serial":"1c","status":"revoked","possibly_signed":true,"revocation":{"reason":"superseded","revoked_at":"2026-01-01T00:00:00Z"}}`))
	got, err := s.client(t).Get(context.Background(), "1c", "issuing-1")
	if err != nil || got.Status != "revoked" || got.Revocation.Reason != "superseded" || !got.PossiblySigned ||
		s.seen[0].uri != "/api/v1/certificates/1c?issuer=issuing-1" {
		t.Errorf("%+v, %v, %+v", got, err, s.seen)
	}
	if len(s.seen[0].header.Get("Content-Type")) > 0 {
		t.Error("a GET has a Content-Type")
	}
	for mediaType, get := range map[string]func(*Client) ([]byte, error){
		"application/pkix-cert":             func(c *Client) ([]byte, error) { return c.GetDER(context.Background(), "a/../b", "") },
		"application/x-pem-file":            func(c *Client) ([]byte, error) { return c.GetPEM(context.Background(), "a/../b", "") },
		"application/pem-certificate-chain": func(c *Client) ([]byte, error) { return c.GetChain(context.Background(), "a/../b", "") },
	} {
		s := newService(t, say(200, mediaType, "\x00\x01"))
		body, err := get(s.client(t))
		if err != nil || !bytes.Equal(body, []byte{0, 1}) || s.seen[0].header.Get("Accept") != mediaType ||
			s.seen[0].uri != "/api/v1/certificates/a%2F..%2Fb" {
			t.Errorf("%s: %q, %v, %+v", mediaType, body, err, s.seen)
		}
	}
}

func TestList(t *testing.T) {
	s := newService(t, sayJSON(200, `{"certificates":[{"serial":"1"},{"serial":"2"}],"next":"n&1"}`), sayJSON(200,
		`{"certificates":[{"serial":"3"}]}`))
	var serials []string
	filter := ListFilter{
		Query: "a b", Status: "valid", ExpiresBefore: time.Date(2026, 1, 1, 1, 0, 0, 0, time.FixedZone("", 3600)),
		PageSize: 2,
	}
	for c, err := range s.client(t).List(context.Background(), filter) {
		if err != nil {
			t.Fatal(err)
		}
		serials = append(serials, c.Serial)
	}
	if strings.Join(serials, " ") != "1 2 3" || s.seen[0].uri != "/api/v1/certificates?expires_before=2026-01-01T00%3A00%3A00Z&limit=2&q=a+b&status=valid" ||
		!strings.Contains(s.seen[1].uri, "cursor=n%261&") {
		t.Errorf("%v %+v", serials, s.seen)
	}
}

func TestListEnds(t *testing.T) {
	for name, c := range map[string]struct {
		answer   func(http.ResponseWriter)
		requests int
	}{
		"error":    {sayProblem(403, "denied"), 1},
		"same":     {sayJSON(200, `{"certificates":[],"next":"n"}`), 2},
		"no pages": {sayJSON(200, `{"certificates":[]}`), 1},
	} {
		s := newService(t, c.answer)
		var last error
		for _, err := range s.client(t).List(context.Background(), ListFilter{}) {
			last = err
		}
		if (last == nil) != (name == "no pages") || len(s.seen) != c.requests {
			t.Errorf("%s: %v after %d requests", name, last, len(s.seen))
		}
	}
	s := newService(t, sayJSON(200, `{"certificates":[{"serial":"1"},{"serial":"2"}],"next":"n"}`))
	for range s.client(t).List(context.Background(), ListFilter{}) {
		break
	}
	if len(s.seen) != 1 {
		t.Errorf("%d pages were fetched for one certificate", len(s.seen))
	}
}

// A request that needs approval is no certificate, and no failure either: its error tells where it waits.
func TestARequestThatWaits(t *testing.T) {
	s := newService(t, sayJSON(202, `{"id":"r-7","status":"waiting","profile":"p"}`))
	got, err := s.client(t).Request(context.Background(), RequestInput{Profile: "p", CSR: "c"})
	var waiting *Waiting
	if got != nil || !errors.As(err, &waiting) || waiting.Request.ID != "r-7" || waiting.Error() != "request r-7 is waiting" || len(s.seen) != 1 {
		t.Errorf("got %+v, %v after %d attempts", got, err, len(s.seen))
	}
	s = newService(t, sayJSON(202, `{"id":"r-7","status":"rejected","why":"no"}`))
	if _, err := s.client(t).Request(context.Background(), RequestInput{}); err == nil || err.Error() != "request r-7 is rejected: no" {
		t.Errorf("got %v", err)
	}
}

func TestRequestsAndApprovals(t *testing.T) {
	ctx := context.Background()
	s := newService(t, sayJSON(200, `{"requests":[{"id":"2"},{"id":"1"}],"next":"1"}`), sayJSON(200, `{"requests":[{"id":"0"}]}`),
		sayJSON(200, `{"id":"0","need":2,"binding":"b"}`), sayJSON(200, `{"id":"0","status":"issued","serial":"1c"}`), sayJSON(200, `{"id":"0","status":"rejected"}`))
	c := s.client(t)
	var ids []string
	for r, err := range c.Requests(ctx, RequestFilter{Status: "waiting", PageSize: 2}) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, r.ID)
	}
	if strings.Join(ids, " ") != "2 1 0" || s.seen[0].uri != "/api/v1/requests?limit=2&status=waiting" || !strings.Contains(s.seen[1].uri, "cursor=1") {
		t.Errorf("%v %+v", ids, s.seen)
	}
	one, err := c.WaitingRequest(ctx, "0")
	if err != nil || one.Need != 2 || one.Binding != "b" || s.seen[2].uri != "/api/v1/requests/0" {
		t.Errorf("%+v, %v", one, err)
	}
	approved, err := c.Approve(ctx, "0", Word{Binding: "b"})
	if err != nil || approved.Serial != "1c" || s.seen[3].uri != "/api/v1/requests/0/approve" || s.seen[3].body != `{"binding":"b"}` {
		t.Errorf("%+v, %v, %+v", approved, err, s.seen[3])
	}
	rejected, err := c.Reject(ctx, "0", Word{Comment: "no"})
	if err != nil || rejected.Status != "rejected" || s.seen[4].uri != "/api/v1/requests/0/reject" || s.seen[4].body != `{"comment":"no"}` {
		t.Errorf("%+v, %v, %+v", rejected, err, s.seen[4])
	}
	for name, answer := range map[string]func(http.ResponseWriter){
		"denied": sayProblem(403, "denied"), "same page": sayJSON(200, `{"requests":[],"next":"n"}`),
	} {
		var last error
		for _, err := range newService(t, answer).client(t).Requests(ctx, RequestFilter{}) {
			last = err
		}
		if last == nil {
			t.Errorf("%s: the list ends as if it were whole", name)
		}
	}
}

func TestNamespaces(t *testing.T) {
	ctx := context.Background()
	s := newService(t, sayJSON(200, `{"namespaces":[{"name":"a","dns":["a.example"]}]}`), sayJSON(200, `{"name":"a","history":[{"version":1}]}`),
		sayJSON(200, `{"name":"a","version":2}`), sayJSON(200, `{"name":"a","removed":true}`))
	c := s.client(t)
	all, err := c.Namespaces(ctx)
	if err != nil || all[0].DNS[0] != "a.example" {
		t.Errorf("%+v, %v", all, err)
	}
	one, err := c.Namespace(ctx, "a")
	if err != nil || one.History[0].Version != 1 {
		t.Errorf("%+v, %v", one, err)
	}
	set, err := c.SetNamespace(ctx, "a", NamespaceSpec{DNS: []string{"a.example"}, Quotas: []Quota{{Certificates: 1, Per: "1h"}}}, 0)
	if err != nil || set.Version != 2 || s.seen[2].method != "PUT" || s.seen[2].uri != "/api/v1/namespaces/a?after=0" ||
		s.seen[2].body != `{"dns":["a.example"],"quotas":[{"certificates":1,"per":"1h"}]}` {
		t.Errorf("%+v, %v, %+v", set, err, s.seen[2])
	}
	removed, err := c.RemoveNamespace(ctx, "a", -1)
	if err != nil || !removed.Removed || s.seen[3].method != "DELETE" || s.seen[3].uri != "/api/v1/namespaces/a" {
		t.Errorf("%+v, %v, %+v", removed, err, s.seen[3])
	}
}

// A quota that fills again tomorrow is not waited for; a rate that does in a moment is.
func TestWhichLimitsAreWaitedFor(t *testing.T) {
	for seconds, attempts := range map[string]int{"86400": 1, "2": DefaultAttempts} {
		s := newService(t, sayProblem(429, "quota-exhausted", "Retry-After", seconds))
		_, err := s.client(t).Request(context.Background(), RequestInput{})
		var p *Problem
		if !errors.As(err, &p) || p.Status != 429 || len(s.seen) != attempts {
			t.Errorf("Retry-After %s: %d attempts, %v", seconds, len(s.seen), err)
		}
	}
}

func TestRevoke(t *testing.T) {
	s := newService(t, sayJSON(200, `{"serial":"1c","reason":"keyCompromise","status":"revoked","revoked_at":"2026-01-01T00:00:00Z"}`))
	got, err := s.client(t).Revoke(context.Background(), RevokeInput{
		Serial: "1c", Issuer: "i", Reason: "keyCompromise", Comment: "lost",
		InvalidityDate: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	})
	if err != nil || got.Status != "revoked" || s.seen[0].uri != "/api/v1/certificates/1c/revoke?issuer=i" ||
		s.seen[0].body != `{"reason":"keyCompromise","comment":"lost","invalidity_date":"2026-01-01T00:00:00Z"}` {
		t.Errorf("%+v, %v, %+v", got, err, s.seen)
	}
}

func TestProfilesEvaluateAndAuthorities(t *testing.T) {
	ctx := context.Background()
	s := newService(t, sayJSON(200, `{"policy_version":"v","profiles":[{"name":"p","validity_max":60}]}`), sayJSON(200, `{"name":"p"}`),
		sayJSON(200, `{"verdict":"refuse","violations":[{"rule":"r"}]}`), sayJSON(200,
			`{"authorities":[{"name":"a","crl":{"number":"5"}}]}`), sayJSON(200, `{"name":"a"}`))
	c := s.client(t)
	list, err := c.Profiles(ctx)
	if err != nil || list.PolicyVersion != "v" || list.Profiles[0].ValidityMax != 60 {
		t.Errorf("%+v, %v", list, err)
	}
	one, err := c.Profile(ctx, "p")
	if err != nil || one.Name != "p" {
		t.Errorf("%+v, %v", one, err)
	}
	decision, err := c.Evaluate(ctx, EvaluateInput{Profile: "p q", CSR: "c"})
	if err != nil || decision.Violations[0].Rule != "r" || s.seen[2].uri != "/api/v1/profiles/p%20q/evaluate" ||
		s.seen[2].body != `{"csr":"c"}` {
		t.Errorf("%+v, %v", decision, err)
	}
	all, err := c.Authorities(ctx)
	if err != nil || all[0].CRL.Number != "5" {
		t.Errorf("%+v, %v", all, err)
	}
	a, err := c.Authority(ctx, "a")
	if err != nil || a.Name != "a" {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestTheTokenIsInNoError(t *testing.T) {
	s := newService(t, hangUp)
	c := s.client(t)
	_, lost := c.Profiles(context.Background())
	s.Close()
	_, away := c.Request(context.Background(), RequestInput{})
	_, bad := New(Config{BaseURL: "https://x", Token: token + "\n"})
	for _, err := range []error{lost, away, bad} {
		if err == nil || strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), token) {
			t.Errorf("got %v", err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]Config{
		"no URL": {}, "no scheme": {BaseURL: "example.com:8443"}, "other scheme": {BaseURL: "ftp://x"}, "user": {BaseURL: "https://a:b@x"},
		"query": {BaseURL: "https://x?y"}, "token in the clear": {BaseURL: "http://pki.example", Token: token},
		"name like a loopback": {BaseURL: "http://127.0.0.1.evil.example", Token: token},
		"no bundle":            {BaseURL: "https://x", CAFile: empty + ".not"}, "empty bundle": {BaseURL: "https://x", CAFile: empty},
	} {
		if c, err := New(cfg); err == nil {
			t.Errorf("%s: made %+v", name, c.base)
		}
	}
	for _, cfg := range []Config{
		{BaseURL: "http://127.0.0.1:1", Token: token},
		{BaseURL: "http://pki.example"},
		{BaseURL: "https://x/sub/", Token: token},
	} {
		if _, err := New(cfg); err != nil {
			t.Error(err)
		}
	}
}

// TestUndone: who called is told what is sure, and nothing more.
func TestUndone(t *testing.T) {
	t.Parallel()
	gone := httptest.NewTLSServer(http.NotFoundHandler())
	gone.Close()
	for name, c := range map[string]struct {
		answers []func(http.ResponseWriter)
		want    bool
	}{
		"refused":                     {[]func(http.ResponseWriter){sayProblem(422, "refused")}, true},
		"turned away to the end":      {[]func(http.ResponseWriter){sayProblem(429, "too-many-requests")}, true},
		"turned away for long":        {[]func(http.ResponseWriter){sayProblem(429, "quota-exhausted", "Retry-After", "3600")}, true},
		"turned away, then refused":   {[]func(http.ResponseWriter){sayProblem(429, "too-many-requests"), sayProblem(403, "denied")}, true},
		"answer lost":                 {[]func(http.ResponseWriter){hangUp}, false},
		"answer lost, then refused":   {[]func(http.ResponseWriter){hangUp, sayProblem(403, "denied")}, false},
		"answer lost, then away":      {[]func(http.ResponseWriter){hangUp, sayProblem(429, "too-many-requests", "Retry-After", "3600")}, false},
		"failed":                      {[]func(http.ResponseWriter){sayProblem(500, "internal")}, false},
		"not available":               {[]func(http.ResponseWriter){sayProblem(503, "unavailable")}, false},
		"another is doing it":         {[]func(http.ResponseWriter){sayProblem(409, "idempotency-key-busy", "Retry-After", "3600")}, false},
		"the body came too slowly":    {[]func(http.ResponseWriter){sayProblem(408, "timeout")}, false},
		"an answer that nobody reads": {[]func(http.ResponseWriter){say(201, "application/json", `{"serial":`)}, false},
	} {
		s := newService(t, c.answers...)
		if _, err := s.client(t).Request(t.Context(), RequestInput{Profile: "p", CSR: "c"}); err == nil || Undone(err) != c.want {
			t.Errorf("%s: %v is undone: %v", name, err, Undone(err))
		}
	}
	s := newService(t, hangUp)
	unreached := func(c *Config) { c.BaseURL = gone.URL }
	if _, err := s.client(t, unreached).Request(t.Context(), RequestInput{Profile: "p", CSR: "c"}); err == nil || !Undone(err) {
		t.Errorf("nobody was reached: %v", err)
	}
	// The connection of the second attempt is refused, and what came of the first is not known.
	if _, err := s.client(t, func(c *Config) {
		c.Wait = func(context.Context, time.Duration) error { s.Listener.Close(); return nil }
	}).Request(t.Context(), RequestInput{Profile: "p", CSR: "c"}); err == nil || Undone(err) {
		t.Errorf("the first attempt's answer was lost: %v", err)
	}
	if Undone(nil) {
		t.Error("what was done is undone")
	}
}

// TestWhatAnEarlierAttemptMayHaveDone: a refusal after an answer that was lost says so; one after attempts that did nothing does not.
func TestWhatAnEarlierAttemptMayHaveDone(t *testing.T) {
	for name, c := range map[string]struct {
		before func(http.ResponseWriter)
		maybe  bool
	}{
		"answer lost":           {hangUp, true},
		"away":                  {sayProblem(503, "unavailable"), true},
		"turned away":           {sayProblem(429, "rate-limited"), false},
		"busy with the same":    {sayProblem(409, "idempotency-key-busy"), true},
		"a proxy's lost answer": {say(502, "text/html", "<html>"), true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, c.before, sayProblem(401, "unauthenticated"))
			_, err := s.client(t).Request(context.Background(), RequestInput{Profile: "p", CSR: "c"})
			var p *Problem
			if !errors.As(err, &p) || p.Status != 401 || p.MayBeDone != c.maybe ||
				strings.Contains(err.Error(), "may have done it") != c.maybe {
				t.Errorf("got %v", err)
			}
		})
	}
	s := newService(t, hangUp, sayProblem(404, "not-found"))
	if _, err := s.client(t).Profile(context.Background(), "p"); err == nil || strings.Contains(err.Error(), "may have done it") {
		t.Errorf("reading does nothing: %v", err)
	}
}

// TestAnOrderToRevokeManyIsGivenOnce: an order whose answer is lost is not given again, for there would be two jobs.
func TestAnOrderToRevokeManyIsGivenOnce(t *testing.T) {
	const answer = `{"outlook":{},"job":{"id":"j"}}`
	for name, c := range map[string]struct {
		answers []func(http.ResponseWriter)
		dry     bool
		want    int
		fails   bool
	}{
		"answer lost":        {[]func(http.ResponseWriter){hangUp, sayJSON(200, answer)}, false, 1, true},
		"away":               {[]func(http.ResponseWriter){sayProblem(503, "unavailable"), sayJSON(200, answer)}, false, 1, true},
		"turned away":        {[]func(http.ResponseWriter){sayProblem(429, "rate-limited"), sayJSON(200, answer)}, false, 2, false},
		"a look is repeated": {[]func(http.ResponseWriter){hangUp, sayJSON(200, answer)}, true, 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, c.answers...)
			_, err := s.client(t).RevokeMany(context.Background(), RevokeManyInput{DryRun: c.dry})
			if (err != nil) != c.fails || len(s.seen) != c.want {
				t.Errorf("%d orders, %v", len(s.seen), err)
			}
		})
	}
}

// TestAChangeOfPoliciesIsAskedForOnce: one whose answer is lost is not asked for again, for there would be two proposals, of which one
// rejection ends one.
func TestAChangeOfPoliciesIsAskedForOnce(t *testing.T) {
	for name, ask := range map[string]func(*Client) error{
		"files": func(c *Client) error {
			_, err := c.ChangePolicies(t.Context(), map[string]string{"a.yaml": "name: a"}, "")
			return err
		},
		"a reload": func(c *Client) error { _, err := c.ReloadPolicies(t.Context(), ""); return err },
	} {
		s := newService(t, hangUp, sayJSON(200, `{"state":"proposed"}`))
		if err := ask(s.client(t)); err == nil || Undone(err) || len(s.seen) != 1 {
			t.Errorf("%s: asked for %d times, %v", name, len(s.seen), err)
		}
	}
}

// TestWhatIsAskedOnceIsAskedWhenTheServiceIsReached: what no service has seen may be sent again.
func TestWhatIsAskedOnceIsAskedWhenTheServiceIsReached(t *testing.T) {
	s := newService(t, sayJSON(200, `{}`))
	var waits int
	c := s.client(t, func(cfg *Config) {
		cfg.Wait = func(context.Context, time.Duration) error { waits++; return nil }
	})
	s.Listener.Close()
	if _, err := c.RevokeMany(context.Background(), RevokeManyInput{}); err == nil || waits != DefaultAttempts-1 {
		t.Errorf("%d pauses, %v", waits, err)
	}
}
