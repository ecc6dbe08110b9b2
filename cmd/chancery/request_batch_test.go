package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// lineOf is what this test reads of a line of a batch.
type lineOf struct {
	CSR string `json:"csr"`
	Key string `json:"idempotency_key"`
}

// batchService answers the lines of batches as the service does, one certificate for each idempotency key; it refuses most, to be quick.
type batchService struct {
	mu     sync.Mutex
	keys   []string
	before func(w http.ResponseWriter, first lineOf) (answered bool) // is called once a batch has been read
}

func (s *batchService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var lines []lineOf
	for in := bufio.NewScanner(r.Body); in.Scan(); {
		var l lineOf
		if err := json.Unmarshal(in.Bytes(), &l); err != nil {
			panic(err)
		}
		lines = append(lines, l)
	}
	s.mu.Lock()
	for _, l := range lines {
		if !slices.Contains(s.keys, l.Key) {
			s.keys = append(s.keys, l.Key)
		}
	}
	s.mu.Unlock()
	if s.before != nil && s.before(w, lines[0]) {
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	for i, l := range lines {
		if strings.HasSuffix(l.CSR, "refuse") {
			fmt.Fprintf(w, `{"line":%d,"status":422,"problem":{"title":"no","status":422}}`+"\n", i+1)
			continue
		}
		fmt.Fprintf(w, `{"line":%d,"status":201,"certificate":{"serial":"01","chain":%q}}`+"\n", i+1, l.Key)
	}
}

// TestABatchByForceIsGoneOnWith: when one call fails, what the others are issued is taken all the same, and the next run asks under the
// same keys: a certificate that was issued and whose answer was lost is not issued again. Once all is known, a further run is for new ones.
func TestABatchByForceIsGoneOnWith(t *testing.T) {
	dir := t.TempDir()
	const many, good = batchPart + 1, 3 // the last request is a call of its own
	for i := range many {
		text := "refuse"
		if i >= many-good {
			text = "issue"
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%04d.csr", i)), fmt.Appendf(nil, "request %d: %s", i, text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	service := &batchService{}
	server := httptest.NewServer(service)
	defer server.Close()
	batch := func() string {
		var out bytes.Buffer
		err := run(t.Context(), []string{"request", "--batch", dir, "--force", "--api", server.URL}, Env{
			Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: &out,
			Environ: []string{"HOME=" + t.TempDir()}, Now: time.Now, Random: rand.Reader,
		})
		return fmt.Sprintf("%s%v", out.String(), err)
	}
	written := func() (n int) {
		found, err := filepath.Glob(filepath.Join(dir, "*.pem"))
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	arrived := make(chan struct{})
	failed := make(chan struct{})
	service.before = func(w http.ResponseWriter, first lineOf) bool {
		if first.CSR != fmt.Sprintf("request %d: issue", many-1) {
			close(arrived)
			<-failed
			return false
		}
		<-arrived
		w.Header().Set("Content-Type", "text/plain") // an answer that is none, so that the call fails and is not repeated
		_, _ = io.WriteString(w, "gone")
		_ = http.NewResponseController(w).Flush()
		close(failed)
		return true
	}
	if said := batch(); !strings.Contains(said, "run it again with --force") || written() != good-1 {
		t.Errorf("%d certificates: %s", written(), said)
	}
	service.before = nil
	if said := batch(); !strings.Contains(said, "going on with it") || written() != good || len(service.keys) != many {
		t.Errorf("%d certificates under %d keys: %s", written(), len(service.keys), said)
	}
	if said := batch(); strings.Contains(said, "going on with it") || len(service.keys) != 2*many {
		t.Errorf("a run after one that came to its end: %d keys: %s", len(service.keys), said)
	}
}
