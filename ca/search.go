package ca

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
)

// EventStore finds events by what stands in them.
type EventStore interface {
	// SearchEvents gives the events that fit, newest first. It looks at a bounded number of events and then gives back what it has found so
	// far, which may be nothing, with the cursor to go on from.
	SearchEvents(ctx context.Context, f EventFilter) (EventPage, error)
	// Event finds an event by its ID, as a search gives it. ErrNotFound when there is none.
	Event(ctx context.Context, id string) (LoggedEvent, error)
}

// EventFilter selects events. Whatever is given must fit.
type EventFilter struct {
	Kind      string // whole, or the beginning up to and with a dot, such as "certificate."
	Actor     string // ID
	Namespace string // access.AllNamespaces: any, and the events of none
	Serial    []byte // of the certificate that it speaks of
	Text      string // that stands somewhere in the event, in any case
	Since     time.Time
	Until     time.Time // exclusive; zero: now
	Cursor    string
	Limit     int
}

// LoggedEvent is an event with its place in the log.
type LoggedEvent struct {
	audit.Event
	Index int64 // -1: it has none yet
}

// EventPage is what was found in one go. Next is empty when everything has been looked at.
type EventPage struct {
	Events []LoggedEvent
	Next   string
}

// maxEventText bounds what is searched for, in octets.
const maxEventText = 200

// SearchEvents finds events, in the actor's namespace, or in all for an actor of all. That somebody searched is an event as well, once for
// a search: its kinds of filters, never what was searched for in texts.
func (c *CA) SearchEvents(ctx context.Context, actor access.Actor, f EventFilter) (EventPage, error) {
	if f.Namespace == "" {
		f.Namespace = actor.Namespace
	}
	on := access.Resource{Namespace: f.Namespace, Kind: "event"}
	if err := c.authorize(ctx, actor, access.ReadAudit, on); err != nil {
		return EventPage{}, err
	}
	if len(f.Text) > maxEventText {
		return EventPage{}, &InvalidError{
			Field: "text", Message: "the text is too long",
			Hint: fmt.Sprintf("search for up to %d octets", maxEventText),
		}
	}
	if f.Cursor == "" {
		if err := c.recordSearch(ctx, actor, f); err != nil {
			return EventPage{}, err
		}
	}
	page, err := c.store.SearchEvents(ctx, f)
	if err != nil {
		return EventPage{}, fmt.Errorf("searching the audit log: %w", err)
	}
	return page, nil
}

// Event is one event by its ID. One of another namespace is to the actor as one that is not there.
func (c *CA) Event(ctx context.Context, actor access.Actor, id string) (LoggedEvent, error) {
	e, err := c.store.Event(ctx, id)
	if err != nil {
		return LoggedEvent{}, err
	}
	owner := cmp.Or(e.Namespace, access.AllNamespaces)
	if err := c.authorize(ctx, actor, access.ReadAudit, access.Resource{Namespace: owner, Kind: "event", ID: id}); err != nil {
		return LoggedEvent{}, err
	}
	return e, nil
}

func (c *CA) recordSearch(ctx context.Context, actor access.Actor, f EventFilter) error {
	data := map[string]string{"namespace": f.Namespace}
	by := []string{}
	for name, given := range map[string]bool{
		"kind": f.Kind != "", "actor": f.Actor != "", "serial": len(f.Serial) > 0, "text": f.Text != "", "since": !f.Since.IsZero(),
		"until": !f.Until.IsZero(),
	} {
		if given {
			by = append(by, name)
		}
	}
	slices.Sort(by)
	data["by"] = strings.Join(by, " ")
	if f.Kind != "" {
		data["kind"] = f.Kind
	}
	if len(f.Serial) > 0 {
		data["serial"] = hex.EncodeToString(f.Serial)
	}
	leaf, err := c.leaf(audit.LogSearched, actor.ID, actor.Namespace, c.now(), data)
	if err != nil {
		return err
	}
	if err := c.store.RecordEvents(ctx, leaf); err != nil {
		return fmt.Errorf("recording the search: %w", err)
	}
	return nil
}
