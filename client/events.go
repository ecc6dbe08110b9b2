package client

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"strconv"
	"time"
)

// Event is one event of the audit log.
type Event struct {
	ID        string            `json:"id"`
	Index     *int64            `json:"index,omitempty"` // its place in the log; nil: it has none yet
	Kind      string            `json:"kind"`
	Time      time.Time         `json:"time"`
	Actor     string            `json:"actor"`
	Namespace string            `json:"namespace"`
	Data      map[string]string `json:"data"`
}

// EventFilter selects events. Whatever is given must fit.
type EventFilter struct {
	Kind      string // whole, or the beginning up to and with a dot
	Actor     string // ID
	Namespace string // empty: the caller's own, or all for a caller of all
	Serial    string // of the certificate that it speaks of
	Text      string // that stands somewhere in the event
	Since     time.Time
	Until     time.Time // exclusive
	PageSize  int       // 1 to 500; 0: the service's choice
}

// Events are the events that fit, newest first. Page after page is fetched as they are walked through; it ends with the first error.
func (c *Client) Events(ctx context.Context, f EventFilter) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		values := map[string]string{"kind": f.Kind, "actor": f.Actor, "namespace": f.Namespace, "serial": f.Serial, "text": f.Text}
		for name, at := range map[string]time.Time{"since": f.Since, "until": f.Until} {
			if !at.IsZero() {
				values[name] = at.UTC().Format(time.RFC3339)
			}
		}
		if f.PageSize > 0 {
			values["limit"] = strconv.Itoa(f.PageSize)
		}
		for {
			var page struct {
				Events []Event `json:"events"`
				Next   string  `json:"next"`
			}
			if _, err := c.json(ctx, call{method: http.MethodGet, path: []string{"audit", "events"}, query: given(values)}, &page); err != nil {
				yield(Event{}, err)
				return
			}
			for _, e := range page.Events {
				if !yield(e, nil) {
					return
				}
			}
			switch page.Next {
			case "":
				return
			case values["cursor"]:
				yield(Event{}, errors.New("searching the audit log: the service gave the same page twice"))
				return
			}
			values["cursor"] = page.Next
		}
	}
}
