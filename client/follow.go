package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// followPause is how often a log that has nothing new is asked. Events get their places within a second.
const followPause = time.Second

// Follow are the events of the log from an index on, in the order of their places, each once, and then those that come. It ends with the
// context, or with an error that waiting does not mend: a service that is away, or busy, is asked again until it is back.
func (c *Client) Follow(ctx context.Context, from int64) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for next := from; ; {
			entries, err := c.entries(ctx, next)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil && !retryable(ctx, err):
				yield(Event{}, err)
				return
			}
			for _, e := range entries {
				if *e.Index != next {
					yield(Event{}, fmt.Errorf("following the audit log: after the event of index %d comes that of index %d", next-1, *e.Index))
					return
				}
				next++
				if !yield(e, nil) {
					return
				}
			}
			if len(entries) == 0 && c.wait(ctx, followPause) != nil {
				return
			}
		}
	}
}

// entries are the next events of the log.
func (c *Client) entries(ctx context.Context, from int64) ([]Event, error) {
	var page struct {
		Entries []struct {
			Index int64  `json:"index"`
			Leaf  string `json:"leaf"`
		} `json:"entries"`
	}
	query := given(map[string]string{"from": strconv.FormatInt(from, 10)})
	if _, err := c.json(ctx, call{method: http.MethodGet, path: []string{"audit", "entries"}, query: query}, &page); err != nil {
		return nil, err
	}
	all := make([]Event, len(page.Entries))
	for i, entry := range page.Entries {
		if err := json.Unmarshal([]byte(entry.Leaf), &all[i]); err != nil {
			return nil, fmt.Errorf("reading the event of index %d: %w", entry.Index, err)
		}
		all[i].Index = &entry.Index
	}
	return all, nil
}

// LogSize is the size of the newest signed checkpoint of the audit log; 0 when there is none. Its signature is not verified.
func (c *Client) LogSize(ctx context.Context) (int64, error) {
	answer, err := c.do(ctx, call{method: http.MethodGet, path: []string{"audit", "checkpoint"}, accept: "text/plain"})
	var problem *Problem
	if errors.As(err, &problem) && problem.Status == http.StatusNotFound {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	lines := strings.SplitN(string(answer.body), "\n", 3)
	if len(lines) < 3 {
		return 0, errors.New("reading a checkpoint: it has no size")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 {
		return 0, errors.New("reading a checkpoint: it has no size")
	}
	return size, nil
}
