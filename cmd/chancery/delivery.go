package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/delivery"
	"github.com/chancery-ca/chancery/storage"
)

// deliver brings the audit log to the configured receivers until the context ends. Each receiver is a duty of its own, which one of the
// replicas that have it configured does: a file on one machine is written by the replica that knows it.
func (s *service) deliver(ctx context.Context) {
	var all sync.WaitGroup
	for _, d := range s.deliveries {
		all.Go(func() {
			s.ca.Lead(ctx, ca.Duty("delivery/"+d.Name), func(ctx context.Context, t ca.Term) error {
				d := d
				d.Log, d.Cursor = auditLog{s.store}, deliveryCursor{s.store, t, d.Name}
				d.Now, d.Logger, d.Observe = s.env.Now, s.log, s.metrics
				return d.Run(ctx)
			})
		})
	}
	all.Wait()
}

// auditLog is the log as delivery reads it.
type auditLog struct{ store *storage.Store }

func (l auditLog) Entries(ctx context.Context, from int64, most int) (entries []delivery.Entry, err error) {
	var at time.Time
	for e, err := range l.store.AuditEntries(ctx, from, from+int64(most)) {
		if err != nil {
			return nil, err
		}
		if e.Index != from+int64(len(entries)) || e.Leaf == nil {
			return nil, fmt.Errorf("entry %d of the audit log is missing", from+int64(len(entries)))
		}
		event, err := audit.Parse(e.Leaf)
		if err != nil {
			entries = append(entries, unreadEntry(e, at))
			continue
		}
		at = event.Time
		entries = append(entries, delivery.Entry{Index: e.Index, Leaf: e.Leaf, Event: event})
	}
	return entries, nil
}

// unreadEntry tells of a leaf that is no event what there is to be told: a service that was taken over may have written it, and it must not
// keep receivers from what comes after it. It counts as of the time of the event before it.
func unreadEntry(e ca.AuditEntry, at time.Time) delivery.Entry {
	event := audit.Unread("", e.Leaf)
	event.ID = event.Data["hash"]
	leaf := fmt.Appendf(nil, `{"data":{"hash":%q,"octets":%q},"kind":%q}`, event.ID, event.Data["octets"], event.Kind)
	if !at.IsZero() {
		event.Time = at
	}
	return delivery.Entry{Index: e.Index, Leaf: leaf, Event: event}
}

func (l auditLog) Size(ctx context.Context) (int64, error) {
	state, err := l.store.LogState(ctx)
	return state.Size, err
}

// deliveryCursor is a receiver's cursor during a term.
type deliveryCursor struct {
	store    *storage.Store
	term     ca.Term
	receiver string
}

func (c deliveryCursor) Next(ctx context.Context, start int64) (int64, error) {
	return c.store.NextDelivery(ctx, c.term, c.receiver, start)
}

func (c deliveryCursor) Move(ctx context.Context, next int64) error {
	return c.store.MoveDelivery(ctx, c.term, c.receiver, next)
}

func (c deliveryCursor) Over(err error) bool { return errors.Is(err, ca.ErrFenced) }
