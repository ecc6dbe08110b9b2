package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// collected is a receiver of webhooks that refuses every third message, and keeps what it took.
type collected struct {
	mu     sync.Mutex
	calls  int
	events map[int64]string // raw, by index
	order  []int64          // indexes as they came first
	wrong  []string
}

func (c *collected) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls++; c.calls%3 == 0 {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	var message struct {
		Data struct {
			Entries []struct {
				Index int64           `json:"index"`
				Event json.RawMessage `json:"event"`
			} `json:"entries"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &message); err != nil {
		c.wrong = append(c.wrong, err.Error())
	}
	for _, e := range message.Data.Entries {
		switch before, again := c.events[e.Index]; {
		case !again:
			c.events[e.Index] = string(e.Event)
			c.order = append(c.order, e.Index)
		case before != string(e.Event):
			c.wrong = append(c.wrong, fmt.Sprintf("entry %d came as two", e.Index))
		}
	}
}

func (c *collected) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.order)
}

// TestDeliveryLosesNothing kills the service in the middle of delivering, again and again: the file and the webhook get every entry of the
// log in order; the file once, the webhook perhaps twice, but then the same.
func TestDeliveryLosesNothing(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	hook := &collected{events: map[int64]string{}}
	server := httptest.NewServer(hook)
	defer server.Close()
	secret, file := filepath.Join(s.dir, "secret"), filepath.Join(s.dir, "audit.jsonl")
	if err := os.WriteFile(secret, []byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.more = fmt.Sprintf("delivery: {receivers: [{name: copy, file: {path: %q}}, {name: hook, webhook: {url: %q, secret_file: %q}}, "+
		"{name: away, otlp: {url: \"http://127.0.0.1:9/v1/logs\"}}]}\n", file, server.URL, secret)
	const rounds, each = 3, 8
	var r *replica
	for round := range rounds {
		r = s.start("one", s.token.Module)
		for i := range each {
			if _, got, err := r.issue(t.Context(), fmt.Sprintf("n%d-%d.dev.example", round, i), nil); err != nil ||
				got.status != http.StatusCreated {
				t.Fatalf("%d %s, %v", got.status, got.body, err)
			}
		}
		if round < rounds-1 {
			r.kill() // the last entries have no index yet, are half delivered, or their cursor has not moved
		}
	}
	var leaves int64
	var err error
	eventually(t, 60*time.Second, "the log has all of it, and both receivers have", func() bool {
		numbers := s.database.Column(t, `SELECT count(*)::text FROM audit_leaves UNION ALL
			SELECT next_index::text FROM delivery_cursors WHERE receiver <> 'away'`)
		leaves, err = strconv.ParseInt(numbers[0], 10, 64)
		return err == nil && len(numbers) == 3 && numbers[1] == numbers[0] && numbers[2] == numbers[0] && int64(hook.size()) == leaves
	})
	r.stop()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	in, n := bufio.NewScanner(bytes.NewReader(data)), int64(0)
	in.Buffer(nil, 64<<10)
	for ; in.Scan(); n++ {
		event, ours := strings.CutPrefix(in.Text(), fmt.Sprintf(`{"index":%d,"event":`, n))
		if !ours {
			t.Fatalf("line %d is %s", n, in.Text())
		}
		if n < leaves && event != hook.events[n]+"}" {
			t.Errorf("entry %d differs between the receivers", n)
		}
	}
	if n < leaves || len(hook.wrong) > 0 {
		t.Errorf("the file has %d lines of %d; %q", n, leaves, hook.wrong)
	}
	for i, index := range hook.order {
		if int64(i) != index {
			t.Fatalf("entry %d came at place %d", index, i)
		}
	}
	if len(hook.order) < rounds*each*4 {
		t.Errorf("%d entries are too few for %d certificates", len(hook.order), rounds*each)
	}
}

// What a service that was taken over has logged, and is no event, holds up nothing that comes after it.
func TestAnUnreadableLeafHoldsUpNoDelivery(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	file := filepath.Join(s.dir, "audit.jsonl")
	s.more = fmt.Sprintf("delivery: {receivers: [{name: copy, file: {path: %q}}]}\n", file)
	r := s.start("one", s.token.Module)
	service, err := pgx.Connect(t.Context(), s.database.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close(context.Background())
	leaf := []byte("no event\n\xff")
	if _, err := service.Exec(t.Context(), `SET ROLE chancery_service`); err != nil {
		t.Fatal(err)
	}
	const add = `INSERT INTO audit_leaves (id, kind, leaf) VALUES ($1::text::uuid, 'x', $2)`
	if _, err := service.Exec(t.Context(), add, newID(), leaf); err != nil {
		t.Fatal(err)
	}
	issued, answer, err := r.issue(t.Context(), "after.dev.example", nil)
	if err != nil || answer.status != http.StatusCreated {
		t.Fatalf("%d %s, %v", answer.status, answer.body, err)
	}
	var text []byte
	eventually(t, 20*time.Second, "the file has what came after it", func() bool {
		text, err = os.ReadFile(file)
		return err == nil && bytes.Contains(text, fmt.Appendf(nil, `"id":%q,"kind":"certificate.issued"`, issued.AuditEvent))
	})
	r.stop()
	hash := audit.HashOf(leaf)
	want := regexp.MustCompile(fmt.Sprintf(`(?m)^{"index":\d+,"event":{"data":{"hash":"%x","octets":"10"},"kind":"unreadable"}}$`, hash[:]))
	if !want.Match(text) {
		t.Errorf("nothing is told of it:\n%s", text)
	}
}
