package main

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"github.com/chancery-ca/chancery/client"
)

// What a service gives is not believed: entries that were not asked for end the reading, and a leaf that is gone is missing.
func TestServiceHistory(t *testing.T) {
	t.Parallel()
	entry := func(index int64, leaf string) client.LogEntry { return client.LogEntry{Index: index, Leaf: leaf} }
	for name, c := range map[string]struct {
		pages func(from int64) []client.LogEntry
		want  []int64 // indexes; nil: it fails
	}{
		"page by page":       {func(from int64) []client.LogEntry { return []client.LogEntry{entry(from, "{}")} }, []int64{0, 1, 2}},
		"the same for ever":  {func(int64) []client.LogEntry { return []client.LogEntry{entry(0, "{}")} }, nil},
		"of what comes then": {func(from int64) []client.LogEntry { return []client.LogEntry{entry(from+3, "{}")} }, nil},
		"nothing":            {func(int64) []client.LogEntry { return nil }, []int64{}},
		"a leaf is gone": {func(from int64) []client.LogEntry {
			return []client.LogEntry{entry(from, map[bool]string{false: "{}"}[from == 1])}
		}, []int64{0, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if asked++; asked > 10 {
					w.WriteHeader(http.StatusTeapot) // enough
					return
				}
				from, _ := strconv.ParseInt(r.URL.Query().Get("from"), 10, 64)
				w.Header().Set("Content-Type", "application/json")
				_ = json.NewEncoder(w).Encode(map[string]any{"entries": c.pages(from)})
			}))
			defer server.Close()
			asks, err := client.New(client.Config{BaseURL: server.URL})
			if err != nil {
				t.Fatal(err)
			}
			defer asks.Close()
			h := &serviceHistory{client: asks, size: 3}
			b, err := h.Next(t.Context())
			if asked > 10 {
				t.Fatal("it goes on asking")
			}
			if c.want == nil {
				if err == nil {
					t.Errorf("read %+v", b.Entries)
				}
				return
			}
			if err != nil || len(b.Entries) != len(c.want) {
				t.Fatalf("%+v, %v", b.Entries, err)
			}
			for i, e := range b.Entries {
				if e.Index != c.want[i] || len(e.Leaf) == 0 {
					t.Errorf("entry %d is %+v", i, e)
				}
			}
			if _, err := h.Next(t.Context()); !errors.Is(err, io.EOF) {
				t.Errorf("after the last: %v", err)
			}
		})
	}
}
