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

// A log that has nothing new is asked again after a pause: events get their places within a second.
const (
	followPause = time.Second
	followPage  = 1000
)

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
	page, err := c.LogEntries(ctx, from, from+followPage)
	if err != nil {
		return nil, err
	}
	all := make([]Event, len(page))
	for i, entry := range page {
		if err := json.Unmarshal([]byte(entry.Leaf), &all[i]); err != nil {
			return nil, fmt.Errorf("reading the event of index %d: %w", entry.Index, err)
		}
		all[i].Index = &entry.Index
	}
	return all, nil
}

// LogSize is the size of the newest signed checkpoint of the audit log; 0 when there is none. Its signature is not verified.
func (c *Client) LogSize(ctx context.Context) (int64, error) {
	note, err := c.Checkpoint(ctx, 0)
	var problem *Problem
	if errors.As(err, &problem) && problem.Status == http.StatusNotFound {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	lines := strings.SplitN(string(note), "\n", 3)
	if len(lines) < 3 {
		return 0, errors.New("reading a checkpoint: it has no size")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 {
		return 0, errors.New("reading a checkpoint: it has no size")
	}
	return size, nil
}
