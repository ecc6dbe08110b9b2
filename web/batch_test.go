package web

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/policies"
)

// lines makes the body of a batch; what is a string goes into it as it stands.
func (a ask) lines(all ...any) ask {
	var body bytes.Buffer
	for _, one := range all {
		if text, ok := one.(string); ok {
			body.WriteString(text + "\n")
			continue
		}
		_ = json.NewEncoder(&body).Encode(one)
	}
	return a.of(body.Bytes()).with("Content-Type", typeNDJSON)
}

// results reads the answer to a batch, in the order of the lines.
func results(t *testing.T, w *httptest.ResponseRecorder) []BatchResult {
	t.Helper()
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != typeNDJSON {
		t.Fatalf("%d %v\n%s", w.Code, w.Header(), w.Body)
	}
	var all []BatchResult
	for line := range bytes.Lines(w.Body.Bytes()) {
		var r BatchResult
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b BatchResult) int { return a.Line - b.Line })
	return all
}

var batchCall = ask{method: http.MethodPost, path: "/api/v1/certificates:batch", role: access.Requester}

// TestBatch: each line gets what it would have got on its own, whatever stands in the others.
func TestBatch(t *testing.T) {
	s := newSurface(t)
	_, csr := newCSR(t, "a.dev.example")
	good := BatchRequest{ID: "one", Profile: "tls-server", CSR: csr, Validity: "30d", Metadata: map[string]string{"ticket": "X-1"}}
	own := BatchRequest{Profile: "tls-server", CSR: csr, IdempotencyKey: "mine"}
	got := results(t, s.call(batchCall.lines(
		good, "", "{", own, `{"profile":"tls-server","csr":"x","surprise":1}`, BatchRequest{ID: "\x01", Profile: "tls-server", CSR: csr},
		BatchRequest{ID: "unreadable", Profile: "tls-server", CSR: "-----BEGIN"},
	).with("Idempotency-Key", "batch")))
	var seen []string
	for _, r := range got {
		said := fmt.Sprint(r.Line, " ", r.ID, " ", r.Status)
		switch {
		case (r.Status == http.StatusCreated) != (r.Certificate != nil) || (r.Problem != nil) != (r.Certificate == nil):
			t.Errorf("%s: it is neither a certificate nor a problem: %+v", said, r)
		case r.Problem != nil && r.Problem.Status != r.Status:
			t.Errorf("%s: the problem says %d", said, r.Problem.Status)
		case r.Certificate != nil && (r.Certificate.Serial != s.office.outcome.Certificate.Serial.String() || r.Certificate.Chain == ""):
			t.Errorf("%s: %+v", said, r.Certificate)
		}
		seen = append(seen, said)
	}
	if want := []string{"1 one 201", "3  400", "4  201", "5  400", "6  400", "7 unreadable 400"}; !slices.Equal(seen, want) {
		t.Errorf("got %q, want %q", seen, want)
	}
	keys := map[string]ca.Order{}
	for _, o := range s.office.orders {
		keys[o.IdempotencyKey] = o
	}
	if len(keys) != 2 || keys["batch/1"].Validity != 30*day || keys["batch/1"].Metadata["ticket"] != "X-1" || keys["mine"].Profile != "tls-server" {
		t.Errorf("orders %+v", s.office.orders)
	}
}

// TestALineMayBeTooLong: that line alone is refused, as a body of its length would be.
func TestALineMayBeTooLong(t *testing.T) {
	s := newSurface(t)
	_, csr := newCSR(t, "a.dev.example")
	good := BatchRequest{Profile: "tls-server", CSR: csr}
	most := `{"csr":"` + strings.Repeat("x", maxOrder-10) + `"}`
	var said []int
	for _, r := range results(t, s.call(batchCall.lines(good, most, most+" {", good))) {
		said = append(said, r.Status)
		if r.Status == http.StatusRequestEntityTooLarge && !strings.Contains(r.Problem.Detail, "160 KiB") {
			t.Errorf("it says %q", r.Problem.Detail)
		}
	}
	if want := []int{201, 400, 413, 201}; len(most) != maxOrder || !slices.Equal(said, want) {
		t.Errorf("lines of up to %d octets: got %d, want %d", len(most), said, want)
	}
}

func TestBatchAsAWhole(t *testing.T) {
	s := newSurface(t)
	_, csr := newCSR(t, "a.dev.example")
	good := BatchRequest{Profile: "tls-server", CSR: csr}
	wantProblem(t, s.call(batchCall.lines()), http.StatusBadRequest, "malformed")
	wantProblem(t, s.call(batchCall.lines("", "  ")), http.StatusBadRequest, "malformed")
	wantProblem(t, s.call(batchCall.lines(good).with("Idempotency-Key", strings.Repeat("k", 250))), http.StatusBadRequest, "invalid")
	wantProblem(t, s.call(batchCall.with("Content-Type", typeJSON).lines(good)), http.StatusUnsupportedMediaType, "unsupported-media-type")
	wantProblem(t, s.call(batchCall.of(bytes.Repeat([]byte("{}\n"), maxBatch+1)).with("Content-Type", typeNDJSON)), http.StatusRequestEntityTooLarge, "too-large")
	auditor := batchCall
	auditor.role = access.Auditor
	wantProblem(t, s.call(auditor.lines(good, good)), http.StatusForbidden, "denied")
	if len(s.batches.taken) != 0 {
		t.Errorf("%d places are still taken", len(s.batches.taken))
	}
	for range batchesAtOnce {
		s.batches.taken <- struct{}{}
	}
	w := s.call(batchCall.lines(good))
	wantProblem(t, w, http.StatusServiceUnavailable, "unavailable")
	if w.Header().Get("Retry-After") == "" {
		t.Error("nobody says when to come back")
	}
}

// TestBatchesAreCountedBeforeTheyAreRead: each holds its body in memory, so that what nobody works on is not kept. One namespace may have
// half of the places, and what it asks for beyond them takes none away from others.
func TestBatchesAreCountedBeforeTheyAreRead(t *testing.T) {
	s := newSurface(t)
	_, csr := newCSR(t, "a.dev.example")
	one := ask{method: batchCall.method, path: batchCall.path}.lines(BatchRequest{Profile: "tls-server", CSR: csr})
	bearer := func(namespace string) string {
		token, digest, err := access.NewToken(strings.NewReader(strings.Repeat(namespace, 64)))
		if err != nil {
			t.Fatal(err)
		}
		s.ring.actors[digest] = access.Actor{ID: namespace, Namespace: namespace, Roles: []access.Role{access.Requester}}
		return "Bearer " + token
	}
	teams := []string{bearer("a"), bearer("b"), bearer("c"), bearer("*")}
	refused := func(by, why string) {
		t.Helper()
		w := s.call(one.with("Authorization", by))
		wantProblem(t, w, http.StatusServiceUnavailable, "unavailable")
		if w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), why) {
			t.Errorf("%v %s", w.Header(), w.Body)
		}
	}
	var answers sync.WaitGroup
	var sending []*io.PipeWriter
	send := func(by string) {
		begun := make(chan struct{})
		body, w := io.Pipe()
		sending = append(sending, w)
		r := httptest.NewRequest(http.MethodPost, "/api/v1/certificates:batch", body)
		r.Header.Set("Content-Type", typeNDJSON)
		r.Header.Set("Authorization", by)
		answers.Go(func() { s.API().ServeHTTP(httptest.NewRecorder(), r) })
		go func() { _, _ = w.Write([]byte("{}\n")); close(begun) }() // ends when the body is being read
		<-begun
	}
	for range batchesAtOnce / 2 {
		send(teams[0])
	}
	refused(teams[0], "one namespace")
	if w := s.call(one.with("Authorization", teams[1])); w.Code != http.StatusOK {
		t.Errorf("another namespace's batch: %d %s", w.Code, w.Body)
	}
	for range batchesAtOnce / 2 {
		send(teams[1])
	}
	refused(teams[2], "as many of these calls as may be")
	refused(teams[3], "as many of these calls as may be")
	for _, w := range sending {
		_ = w.Close()
	}
	answers.Wait()
	for range batchesAtOnce { // of all namespaces, and so of none
		send(teams[3])
	}
	refused(teams[2], "as many of these calls as may be")
	for _, w := range sending {
		_ = w.Close()
	}
	answers.Wait()
	if w := s.call(one.with("Authorization", teams[2])); w.Code != http.StatusOK || len(s.batches.taken)+len(s.batches.shares.held) != 0 {
		t.Errorf("afterwards: %d, %d places are taken, by %v", w.Code, len(s.batches.taken), s.batches.shares.held)
	}
}

// TestBatchRefusals: what the authority refuses reaches the line with its rules, and says when asking again may help.
func TestBatchRefusals(t *testing.T) {
	s := newSurface(t)
	_, csr := newCSR(t, "a.dev.example")
	s.office.err = &policies.Refusal{Profile: "tls-server", Violations: []policies.Violation{{Rule: "names.namespace", Hint: "ask for others"}}}
	got := results(t, s.call(batchCall.lines(BatchRequest{Profile: "tls-server", CSR: csr})))
	if len(got) != 1 || got[0].Status != http.StatusUnprocessableEntity || got[0].Problem.Violations[0].Rule != "names.namespace" {
		t.Errorf("%+v", got)
	}
	s.office.err = nil
	s.office.outcome.Waiting = &ca.WaitingRequest{Request: ca.Request{ID: "r-7"}}
	got = results(t, s.call(batchCall.lines(BatchRequest{Profile: "tls-server", CSR: csr})))
	if len(got) != 1 || got[0].Status != http.StatusAccepted || got[0].Request == nil || got[0].Request.ID != "r-7" || got[0].Certificate != nil {
		t.Errorf("%+v", got)
	}
	s.office.outcome.Waiting = nil
	s.office.err = ca.ErrUnavailable
	got = results(t, s.call(batchCall.lines(BatchRequest{Profile: "tls-server", CSR: csr})))
	if len(got) != 1 || got[0].Status != http.StatusServiceUnavailable || got[0].RetryAfter == 0 {
		t.Errorf("%+v", got)
	}
	s.office.busy = func() { panic("boom") }
	got = results(t, s.call(batchCall.lines(BatchRequest{Profile: "tls-server", CSR: csr}, BatchRequest{Profile: "tls-server", CSR: csr})))
	if len(got) != 2 || got[1].Status != http.StatusInternalServerError || strings.Contains(got[1].Problem.Detail, "boom") {
		t.Errorf("%+v", got)
	}
}

// TestALineMayBeDenied: a credential that is for some profiles alone gets its certificates under these, wherever in the batch another stands.
func TestALineMayBeDenied(t *testing.T) {
	s := newSurface(t)
	token, digest, err := access.NewToken(zeros{})
	if err != nil {
		t.Fatal(err)
	}
	s.ring.actors[digest] = access.Actor{
		ID: "narrow", Namespace: "dev", Roles: []access.Role{access.Requester}, Scope: access.Scope{Profiles: []string{"tls-client"}},
	}
	_, csr := newCSR(t, "a.dev.example")
	batch := ask{method: batchCall.method, path: batchCall.path}.with("Authorization", "Bearer "+token)
	got := results(t, s.call(batch.lines(BatchRequest{Profile: "tls-server", CSR: csr}, BatchRequest{Profile: "tls-client", CSR: csr})))
	if len(got) != 2 || got[0].Status != http.StatusForbidden || !strings.Contains(got[0].Problem.Detail, "tls-server") ||
		got[1].Status != http.StatusCreated {
		t.Errorf("%+v", got)
	}
}

// TestBatchIsBounded: no more lines than there are workers are worked on at once, and an actor's rate holds for lines as for requests.
func TestBatchIsBounded(t *testing.T) {
	var now, most atomic.Int64
	s := newSurface(t)
	free := make(chan struct{})
	office := &slowOffice{office: s.office, now: &now, most: &most, free: free}
	s.ca = office
	_, csr := newCSR(t, "a.dev.example")
	many := make([]any, 3*batchWorkers)
	for i := range many {
		many[i] = BatchRequest{Profile: "tls-server", CSR: csr}
	}
	go func() {
		for range many {
			free <- struct{}{}
		}
	}()
	if got := results(t, s.call(batchCall.lines(many...))); len(got) != len(many) || got[len(got)-1].Line != len(many) {
		t.Errorf("%d results", len(got))
	}
	if most.Load() > batchWorkers {
		t.Errorf("%d lines were worked on at once", most.Load())
	}

	paced := newSurface(t, func(c *Config) { c.RateLimit, c.Now = RateLimit{PerSecond: 200, Burst: 2}, time.Now })
	began := time.Now()
	if got := results(t, paced.call(batchCall.lines(many[:12]...))); len(got) != 12 {
		t.Errorf("%d results", len(got))
	}
	if took := time.Since(began); took < 50*time.Millisecond { // the request and 12 lines, of which 2 had not to wait
		t.Errorf("it took %s", took)
	}
}

type slowOffice struct {
	*office
	now, most *atomic.Int64
	free      chan struct{}
}

func (o *slowOffice) Issue(ctx context.Context, order ca.Order) (ca.Outcome, error) {
	n := o.now.Add(1)
	defer o.now.Add(-1)
	for {
		most := o.most.Load()
		if n <= most || o.most.CompareAndSwap(most, n) {
			break
		}
	}
	select {
	case <-o.free:
	case <-ctx.Done():
		return ca.Outcome{}, ctx.Err()
	}
	return o.office.Issue(ctx, order)
}

// TestBatchWhoseCallerLeaves: no further line is begun, and the connection tells whoever still reads that the answer is not whole.
func TestBatchWhoseCallerLeaves(t *testing.T) {
	var now, most atomic.Int64
	s := newSurface(t)
	free := make(chan struct{}, 1)
	free <- struct{}{} // the first line alone is answered
	s.ca = &slowOffice{office: s.office, now: &now, most: &most, free: free}
	service := httptest.NewServer(s.API())
	defer service.Close()
	_, csr := newCSR(t, "a.dev.example")
	many := make([]any, 2*batchWorkers)
	for i := range many {
		many[i] = BatchRequest{Profile: "tls-server", CSR: csr}
	}
	ctx, leave := context.WithCancel(t.Context())
	call, err := http.NewRequestWithContext(ctx, http.MethodPost, service.URL+batchCall.path, bytes.NewReader(batchCall.lines(many...).body))
	if err != nil {
		t.Fatal(err)
	}
	call.Header.Set("Content-Type", typeNDJSON)
	call.Header.Set("Authorization", "Bearer "+s.tokens[access.Requester])
	answer, err := service.Client().Do(call)
	if err != nil {
		t.Fatal(err)
	}
	leave()
	if _, err := new(bytes.Buffer).ReadFrom(answer.Body); !errors.Is(err, context.Canceled) {
		t.Errorf("reading on: %v", err)
	}
	_ = answer.Body.Close()
	service.Close() // waits for the handler
	if n := len(s.office.orders); n != 1 {
		t.Errorf("%d orders were carried out", n)
	}
	if len(s.batches.taken) != 0 {
		t.Error("its place is still taken")
	}
}

// long begins a batch of so many lines at a server in its own time, and returns its answer.
func (s *surface) long(t *testing.T, at *serving, lines int) *http.Response {
	t.Helper()
	_, csr := newCSR(t, "a.dev.example")
	many := make([]any, lines)
	for i := range many {
		many[i] = BatchRequest{Profile: "tls-server", CSR: csr}
	}
	call := httptest.NewRequest(http.MethodPost, batchCall.path, bytes.NewReader(batchCall.lines(many...).body))
	call.Header.Set("Content-Type", typeNDJSON)
	call.Header.Set("Authorization", "Bearer "+s.tokens[access.Requester])
	conn := at.mustDial()
	t.Cleanup(func() { _ = conn.Close() })
	if err := call.Write(conn); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReaderSize(conn, 16), call)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// busyOffice takes its time for each certificate, whoever waits for it.
type busyOffice struct {
	*office
	takes        time.Duration
	begun, ended atomic.Int64
}

func (o *busyOffice) Issue(ctx context.Context, order ca.Order) (ca.Outcome, error) {
	o.begun.Add(1)
	defer o.ended.Add(1)
	time.Sleep(o.takes)
	return o.office.Issue(ctx, order)
}

// TestBatchAtTheEnd: when the service ends no further line is begun, those that were begun are answered, and the answer shows that it is
// not whole. So it is when an actor's rate has a line wait.
func TestBatchAtTheEnd(t *testing.T) {
	for name, c := range map[string]struct {
		rate RateLimit
		want int64
	}{
		"at work":             {want: 2 * batchWorkers},                   // as many as are answered when the answer begins, and as many after them
		"waiting for a place": {RateLimit{PerSecond: 0.001, Burst: 4}, 3}, // the request itself is one
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const takes = 10 * time.Second
				surface := newSurface(t, func(conf *Config) { conf.RateLimit, conf.Now = c.rate, time.Now })
				office := &busyOffice{office: surface.office, takes: takes}
				surface.ca = office
				s := newServing(t, surface.API().ServeHTTP, time.Minute)
				answer := surface.long(t, s, 3*batchWorkers)
				synctest.Wait()
				began := time.Now()
				s.quit()
				body, err := io.ReadAll(answer.Body)
				if n := bytes.Count(body, []byte(`"status":201`)); !errors.Is(err, io.ErrUnexpectedEOF) || int64(n) != c.want {
					t.Errorf("%d lines were answered, and then %v", n, err)
				}
				if err := <-s.ended; err != nil || time.Since(began) > takes+time.Second {
					t.Errorf("it ended after %v with %v", time.Since(began), err)
				}
				if begun, ended := office.begun.Load(), office.ended.Load(); begun != c.want || ended != c.want {
					t.Errorf("%d lines were begun, %d ended", begun, ended)
				}
			})
		})
	}
}

// TestABatchIsReadOrEnded: a batch goes on for as long as it is read at a rate of any use, however long its lines take, and no longer.
func TestABatchIsReadOrEnded(t *testing.T) {
	for name, c := range map[string]struct {
		rate  int           // octets a second
		takes time.Duration // a line
		whole bool
	}{
		"lines that take long": {2 * slowestReading, 20 * time.Second, true},
		"slow but of use":      {2 * slowestReading, 0, true},
		"too slow":             {slowestReading / 2, 0, false},
		"much too slow":        {512, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				surface := newSurface(t)
				surface.ca = &busyOffice{office: surface.office, takes: c.takes}
				s := newServing(t, surface.API().ServeHTTP, time.Minute)
				began := time.Now()
				answer := surface.long(t, s, 1200)
				read, part, err := 0, make([]byte, 4<<10), error(nil)
				for err == nil {
					var n int
					n, err = answer.Body.Read(part)
					read += n
					time.Sleep(time.Duration(n) * time.Second / time.Duration(c.rate)) // of the test's own clock
				}
				if whole := errors.Is(err, io.EOF); whole != c.whole {
					t.Errorf("%d octets came in %s, and then %v", read, time.Since(began), err)
				}
				if least := time.Duration(read) * time.Second / slowestReading; !c.whole && time.Since(began) > least+2*writeTimeout {
					t.Errorf("%d octets took %s", read, time.Since(began))
				}
				s.end()
				<-s.ended
			})
		})
	}
}
