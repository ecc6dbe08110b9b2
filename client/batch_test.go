package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// sayLines answers a batch with lines; an answer that is to be cut off ends without its end.
func sayLines(cutOff bool, lines ...string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		for _, line := range lines {
			fmt.Fprintln(w, line)
		}
		if cutOff {
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	}
}

const (
	good     = `{"line":%d,"status":201,"certificate":{"serial":"%s"}}`
	refusedL = `{"line":%d,"status":422,"problem":{"type":"urn:chancery:problem:refused","title":"no","status":422}}`
	busyL    = `{"line":%d,"status":503,"retry_after":3,"problem":{"type":"urn:chancery:problem:unavailable","title":"away","status":503}}`
)

func batchOf(n int) (all []RequestInput) {
	for i := range n {
		all = append(all, RequestInput{Profile: "tls-server", CSR: fmt.Sprintf("csr-%d", i)})
	}
	return all
}

// keysOf are the CSRs and idempotency keys of a batch that was sent.
func keysOf(t *testing.T, e exchange) (csrs, keys []string) {
	t.Helper()
	for line := range strings.Lines(e.body) {
		var r struct {
			CSR string `json:"csr"`
			Key string `json:"idempotency_key"`
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		csrs, keys = append(csrs, r.CSR), append(keys, r.Key)
	}
	return csrs, keys
}

// TestBatchAsksAgainForWhatIsOpen: after a cut, and for what the service could not do, only what is open is sent again, under the same keys.
func TestBatchAsksAgainForWhatIsOpen(t *testing.T) {
	s := newService(t,
		sayLines(true, fmt.Sprintf(good, 2, "b"), fmt.Sprintf(refusedL, 3)),
		sayLines(false, fmt.Sprintf(busyL, 2), fmt.Sprintf(good, 1, "a")),
		sayLines(false, `{"line":1,"status":201,"replayed":true,"certificate":{"serial":"d"}}`),
	)
	told := map[int]string{}
	err := s.client(t).Batch(t.Context(), batchOf(4), func(r BatchResult) error {
		if _, twice := told[r.Index]; twice {
			t.Errorf("request %d is told of twice", r.Index)
		}
		var problem *Problem
		switch {
		case errors.As(r.Err, &problem):
			told[r.Index] = fmt.Sprint(problem.Status)
		case r.Issued != nil:
			told[r.Index] = fmt.Sprint(r.Issued.Serial, r.Issued.Replayed)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := "map[0:afalse 1:bfalse 2:422 3:dtrue]"; fmt.Sprint(told) != want {
		t.Errorf("got %v, want %s", told, want)
	}
	var sent []string
	first, keys := keysOf(t, s.seen[0])
	for _, e := range s.seen {
		csrs, again := keysOf(t, e)
		sent = append(sent, strings.Join(csrs, " "))
		for i, csr := range csrs {
			if at := slices.Index(first, csr); keys[at] != again[i] || again[i] == "" {
				t.Errorf("%s was sent with the key %q, then with %q", csr, keys[at], again[i])
			}
		}
		if e.method != http.MethodPost || e.uri != "/api/v1/certificates:batch" || e.header.Get("Authorization") != "Bearer "+token {
			t.Errorf("%s %s %v", e.method, e.uri, e.header)
		}
	}
	if want := []string{"csr-0 csr-1 csr-2 csr-3", "csr-0 csr-3", "csr-3"}; !slices.Equal(sent, want) {
		t.Errorf("sent %q, want %q", sent, want)
	}
}

func TestBatchEnds(t *testing.T) {
	mine := errors.New("the disk is full")
	for name, c := range map[string]struct {
		answers []func(http.ResponseWriter)
		told    func(BatchResult) error
		want    func(error) bool
		sent    int
	}{
		"when the caller says so": {
			[]func(http.ResponseWriter){sayLines(false, fmt.Sprintf(good, 1, "a"))},
			func(BatchResult) error { return mine },
			func(err error) bool { return errors.Is(err, mine) }, 1,
		},
		"when all is refused": {[]func(http.ResponseWriter){sayProblem(http.StatusForbidden, "denied")}, nil, func(err error) bool {
			var p *Problem
			return errors.As(err, &p) && p.Status == http.StatusForbidden
		}, 1},
		"when it stays away": {[]func(http.ResponseWriter){hangUp}, nil, func(err error) bool {
			var p *transportError
			return errors.As(err, &p)
		}, DefaultAttempts},
		"when nothing is answered": {[]func(http.ResponseWriter){sayLines(false)}, nil, func(err error) bool { return err != nil }, DefaultAttempts},
		"when a line is told of twice": {
			[]func(http.ResponseWriter){sayLines(false, fmt.Sprintf(good, 1, "a"), fmt.Sprintf(good, 1, "a"))},
			nil,
			func(err error) bool { return strings.Contains(err.Error(), "answered already") }, 1,
		},
		"when a line was not asked for": {
			[]func(http.ResponseWriter){sayLines(false, fmt.Sprintf(good, 7, "a"))},
			nil,
			func(err error) bool { return strings.Contains(err.Error(), "line 7") }, 1,
		},
		"when a line says nothing": {
			[]func(http.ResponseWriter){sayLines(false, `{"line":1,"status":201}`)},
			nil,
			func(err error) bool { return strings.Contains(err.Error(), "neither") }, 1,
		},
		"when it is another type": {
			[]func(http.ResponseWriter){sayJSON(http.StatusOK, `{}`)},
			nil,
			func(err error) bool { return strings.Contains(err.Error(), "application/json") }, 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, c.answers...)
			told := c.told
			if told == nil {
				told = func(BatchResult) error { return nil }
			}
			err := s.client(t).Batch(t.Context(), batchOf(2), told)
			if err == nil || !c.want(err) || len(s.seen) != c.sent {
				t.Errorf("%v, after %d calls", err, len(s.seen))
			}
		})
	}
	if err := newService(t, sayLines(false)).client(t).Batch(t.Context(), batchOf(MaxBatch+1), nil); err == nil {
		t.Error("it is too large")
	}
}

func TestBatchTellsWhatWaits(t *testing.T) {
	s := newService(t, sayLines(false, `{"line":1,"status":202,"request":{"id":"r-7","status":"waiting"}}`))
	var got error
	if err := s.client(t).Batch(t.Context(), batchOf(1), func(r BatchResult) error { got = r.Err; return nil }); err != nil {
		t.Fatal(err)
	}
	var w *Waiting
	if !errors.As(got, &w) || w.Request.ID != "r-7" {
		t.Errorf("got %v", got)
	}
}

// TestBatchGivesUpInTheEnd: what the service can never do is told of as it said it.
func TestBatchGivesUpInTheEnd(t *testing.T) {
	s := newService(t, sayLines(false, fmt.Sprintf(busyL, 1)))
	var got error
	if err := s.client(t).Batch(t.Context(), batchOf(1), func(r BatchResult) error { got = r.Err; return nil }); err != nil {
		t.Fatal(err)
	}
	var p *Problem
	if !errors.As(got, &p) || p.Status != http.StatusServiceUnavailable || p.RetryAfter == 0 || len(s.seen) != DefaultAttempts {
		t.Errorf("%v after %d calls", got, len(s.seen))
	}
}

// TestATornLineIsAnAnswerThatWasLost: a line that the end of the connection tore is asked for again, and is not taken for nonsense.
func TestATornLineIsAnAnswerThatWasLost(t *testing.T) {
	for name, cutOff := range map[string]bool{"cut off": true, "without its line end": false} {
		t.Run(name, func(t *testing.T) {
			torn := func(w http.ResponseWriter) {
				w.Header().Set("Content-Type", "application/x-ndjson")
				fmt.Fprintf(w, good+"\n"+`{"line":2,"status":201,"certif`, 1, "a")
				if cutOff {
					_ = http.NewResponseController(w).Flush()
					panic(http.ErrAbortHandler)
				}
			}
			s := newService(t, torn, sayLines(false, fmt.Sprintf(good, 1, "b")))
			var serials []string
			err := s.client(t).Batch(t.Context(), batchOf(2), func(r BatchResult) error {
				serials = append(serials, r.Issued.Serial)
				return nil
			})
			if err != nil || !slices.Equal(serials, []string{"a", "b"}) {
				t.Errorf("got %q, %v", serials, err)
			}
		})
	}
}

// TestABatchKeepsToTheRate: it comes back when the service says, and as often as it gets something.
func TestABatchKeepsToTheRate(t *testing.T) {
	const slow = `{"line":%d,"status":429,"retry_after":%d,"problem":{"title":"slower","status":429}}`
	requests := 3 * DefaultAttempts
	var answers []func(http.ResponseWriter)
	for open := requests; open > 0; open-- {
		lines := []string{fmt.Sprintf(good, 1, "a")}
		for line := 2; line <= open; line++ {
			lines = append(lines, fmt.Sprintf(slow, line, line))
		}
		answers = append(answers, sayLines(false, lines...))
	}
	s := newService(t, answers...)
	issued := 0
	err := s.client(t).Batch(t.Context(), batchOf(requests), func(r BatchResult) error {
		if r.Err == nil {
			issued++
		}
		return nil
	})
	if err != nil || issued != requests {
		t.Errorf("%d of %d are issued, %v", issued, requests, err)
	}
	for _, wait := range s.waits {
		if wait != 2*time.Second {
			t.Errorf("waited %v, want what the service said of the line that it takes first", wait)
		}
	}
}

// TestABatchTellsWhatMayBeDone: a refusal of a line whose first answer was lost says so.
func TestABatchTellsWhatMayBeDone(t *testing.T) {
	s := newService(t, sayLines(true, fmt.Sprintf(refusedL, 1)), sayLines(false, fmt.Sprintf(refusedL, 1)))
	var maybe []bool
	err := s.client(t).Batch(t.Context(), batchOf(2), func(r BatchResult) error {
		var p *Problem
		maybe = append(maybe, errors.As(r.Err, &p) && p.MayBeDone)
		return nil
	})
	if err != nil || !slices.Equal(maybe, []bool{false, true}) {
		t.Errorf("got %v, %v", maybe, err)
	}
}
