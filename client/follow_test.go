package client

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

func auditClient(t *testing.T, answer http.HandlerFunc) *Client {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	c, err := New(Config{BaseURL: server.URL, Attempts: 1, Wait: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// Following goes on while the service is away, and leaves nothing out.
func TestFollow(t *testing.T) {
	var calls atomic.Int64
	c := auditClient(t, func(w http.ResponseWriter, r *http.Request) {
		n := calls.Add(1)
		if n%3 == 2 {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		from, _ := strconv.Atoi(r.URL.Query().Get("from"))
		if n%4 == 0 {
			fmt.Fprint(w, `{"entries":[]}`)
			return
		}
		fmt.Fprintf(w, `{"entries":[{"index":%d,"leaf":"{\"id\":\"e-%[1]d\",\"kind\":\"k\",\"v\":1}"}]}`, from)
	})
	var ids []string
	for e, err := range c.Follow(context.Background(), 7) {
		if err != nil {
			t.Fatal(err)
		}
		if ids = append(ids, e.ID); len(ids) == 5 {
			break
		}
	}
	if want := []string{"e-7", "e-8", "e-9", "e-10", "e-11"}; !slices.Equal(ids, want) {
		t.Errorf("followed %v, want %v", ids, want)
	}
}

func TestFollowEnds(t *testing.T) {
	for name, answer := range map[string]string{
		"a gap":   `{"entries":[{"index":9,"leaf":"{}"}]}`,
		"no leaf": `{"entries":[{"index":7,"leaf":"x"}]}`,
	} {
		c := auditClient(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, answer)
		})
		for _, err := range c.Follow(context.Background(), 7) {
			if err == nil {
				t.Errorf("%s: an event came of it", name)
			}
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := auditClient(t, func(w http.ResponseWriter, _ *http.Request) {
		cancel()
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"entries":[]}`)
	})
	for range c.Follow(ctx, 0) {
		t.Error("something came of an empty log")
	}
}

func TestLogSize(t *testing.T) {
	for text, want := range map[string]int64{"origin\n12\nroot\n\nsig": 12, "origin\n0\n": 0, "": -1, "a\n-1\n": -1, "a\nx\n": -1} {
		c := auditClient(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			fmt.Fprint(w, text)
		})
		got, err := c.LogSize(context.Background())
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
}

// An empty page is not the last one while it has a next.
func TestEventPages(t *testing.T) {
	c := auditClient(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Query().Get("cursor") {
		case "":
			fmt.Fprint(w, `{"events":[],"next":"a"}`)
		case "a":
			fmt.Fprint(w, `{"events":[{"id":"e-1"}],"next":"b"}`)
		default:
			fmt.Fprint(w, `{"events":[{"id":"e-2"}]}`)
		}
	})
	var ids []string
	for e, err := range c.Events(context.Background(), EventFilter{Kind: "k", Since: time.Unix(1, 0)}) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, e.ID)
	}
	if !slices.Equal(ids, []string{"e-1", "e-2"}) {
		t.Errorf("walked through %v", ids)
	}
}
