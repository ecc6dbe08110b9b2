// Package delivery brings the audit log to receivers outside: to syslog, a file, webhooks, an OpenTelemetry collector, and people's mail.
//
// Every receiver has a cursor, the index of the entry that it gets next. Entries go out in the order of the log, and the cursor moves once
// the receiver has them: nothing is left out, and after a crash some may come twice, with the same index and event. A receiver that is away
// holds nobody else up, nor what the service does: it gets all that it missed when it is back.
//
// A notification is an entry of the log that some people want to know about: the log, written in the transaction of each change, is its
// outbox. The package knows neither the database nor who leads.
package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"time"

	"github.com/chancery-ca/chancery/audit"
)

// Entry is an entry of the log.
type Entry struct {
	Index int64
	Leaf  []byte // its canonical octets, which are what the tree is over
	Event audit.Event
}

// opening is what every line begins with.
const opening = `{"index":`

// line is an entry as one JSON object. The leaf stands in it as it is: its hash in the tree can be computed from what arrives.
func (e Entry) line() []byte {
	return fmt.Appendf(nil, opening+`%d,"event":%s}`, e.Index, e.Leaf)
}

// Log is where entries come from.
type Log interface {
	// Entries are the entries from an index on, at most so many, in order and without a gap. None: the log ends there.
	Entries(ctx context.Context, from int64, most int) ([]Entry, error)
	// Size is how many entries the log has.
	Size(ctx context.Context) (int64, error)
}

// Cursor is how far a receiver has come. Its errors end the delivery when they wrap one that Over tells.
type Cursor interface {
	// Next is the index of the entry that the receiver gets next. A receiver that is new begins at start.
	Next(ctx context.Context, start int64) (int64, error)
	// Move makes the next index durable.
	Move(ctx context.Context, next int64) error
	// Over tells an error that says that another delivers to this receiver now.
	Over(err error) bool
}

// Sender sends entries to one receiver. Send returns nil once the receiver has all of them, or a *notAllError when it is several people and
// some of them cannot be reached; otherwise it is called again with the same entries first. It is called by one goroutine.
type Sender interface {
	Send(ctx context.Context, entries []Entry) error
	Close() error
}

// Observer counts deliveries. It may be called by many at once.
type Observer interface {
	Delivered(receiver string, entries int)
	DeliveryFailed(receiver string)
	DeliveryGivenUp(receiver string)
	// DeliveryLag tells how many entries the receiver still lacks, and how old the oldest of them is.
	DeliveryLag(receiver string, entries int64, age time.Duration)
	// DeliveredElsewhere says that this process delivers no more to the receiver.
	DeliveredElsewhere(receiver string)
}

// Delivery is one receiver and the way to it.
type Delivery struct {
	Name   string
	Open   func() Sender
	Kinds  []string // patterns such as "request.*" of what it gets; none: everything
	Each   bool     // one entry at a time
	FromUp bool     // a new receiver gets what happens from now on, not what happened before
	// GiveUp is how long one entry is tried before it is left out; 0: for ever. The audit log itself is never left out.
	GiveUp time.Duration

	Log     Log
	Cursor  Cursor
	Now     func() time.Time
	Logger  *slog.Logger
	Observe Observer
}

const (
	batchSize   = 500
	poll        = 500 * time.Millisecond
	sendTime    = 30 * time.Second
	firstPause  = time.Second
	longestWait = 5 * time.Minute
	alarmAfter  = 5 * time.Minute
)

// Wanted tells whether the receiver gets an event.
func (d *Delivery) Wanted(kind audit.Kind) bool {
	for _, pattern := range d.Kinds {
		if matched, err := path.Match(pattern, string(kind)); err == nil && matched {
			return true
		}
	}
	return len(d.Kinds) == 0
}

// Run delivers until the context ends, or another does: then with the cursor's error.
func (d *Delivery) Run(ctx context.Context) error {
	sender := d.Open()
	defer func() {
		if err := sender.Close(); err != nil {
			d.Logger.WarnContext(ctx, "closing the way to a receiver of the audit log failed", "receiver", d.Name, "error", err)
		}
		d.Observe.DeliveredElsewhere(d.Name)
	}()
	next, pauses := int64(-1), backoff{}
	for ctx.Err() == nil {
		more, err := d.step(ctx, sender, &next, &pauses)
		wait := poll
		switch {
		case err != nil && d.Cursor.Over(err):
			return err
		case err != nil && ctx.Err() == nil:
			wait = pauses.failed(err)
			d.Observe.DeliveryFailed(d.Name)
			if pauses.failures == 1 {
				d.Logger.WarnContext(ctx, "a receiver of the audit log does not take it; trying again", "receiver", d.Name, "next", next, "error", err)
			}
		case err == nil:
			if pauses.failures > 0 {
				d.Logger.InfoContext(ctx, "a receiver of the audit log takes it again", "receiver", d.Name, "failures", pauses.failures)
			}
			pauses = backoff{}
			if more {
				continue
			}
		}
		sleep(ctx, wait)
	}
	return nil
}

// step delivers what there is, up to a batch. more tells that there may be more.
func (d *Delivery) step(ctx context.Context, sender Sender, next *int64, pauses *backoff) (more bool, err error) {
	if *next < 0 {
		if *next, err = d.begin(ctx, pauses); err != nil {
			return false, err
		}
	}
	entries, err := d.Log.Entries(ctx, *next, batchSize)
	if err != nil {
		return false, fmt.Errorf("reading the log: %w", err)
	}
	if err := d.tellLag(ctx, *next, entries, pauses); err != nil || len(entries) == 0 {
		return false, err
	}
	for _, part := range d.parts(entries) {
		if err := d.deliver(ctx, sender, part, pauses); err != nil {
			return false, err
		}
		after := part.until + 1
		if err := d.Cursor.Move(ctx, after); err != nil {
			return false, err
		}
		*next = after
	}
	return len(entries) == batchSize, nil
}

// begin is where the cursor stands; -1 with an error.
func (d *Delivery) begin(ctx context.Context, pauses *backoff) (int64, error) {
	size, err := d.Log.Size(ctx)
	if err != nil {
		return -1, fmt.Errorf("reading the size of the log: %w", err)
	}
	start := int64(0)
	if d.FromUp {
		start = size
	}
	next, err := d.Cursor.Next(ctx, start)
	if err != nil {
		return -1, err
	}
	if next > size {
		if size, err = d.Log.Size(ctx); err != nil { // another may have delivered what came meanwhile
			return -1, fmt.Errorf("reading the size of the log: %w", err)
		}
	}
	if next > size {
		return -1, d.tellAhead(ctx, next, size, pauses)
	}
	return next, nil
}

// tellAhead raises the alarm of a receiver whose cursor is beyond the end of the log, where nothing would come to it and nothing be missed. What
// it has got is not known: it counts as lacking everything.
func (d *Delivery) tellAhead(ctx context.Context, next, size int64, pauses *backoff) error {
	first, err := d.Log.Entries(ctx, 0, 1)
	if err != nil {
		return fmt.Errorf("reading the log: %w", err)
	}
	age := time.Duration(0)
	if len(first) > 0 {
		age = d.Now().Sub(first[0].Event.Time)
	}
	d.Observe.DeliveryLag(d.Name, size, age)
	if !pauses.alarmed {
		pauses.alarmed = true
		d.Logger.ErrorContext(ctx, "the cursor of a receiver of the audit log is beyond its end; nothing is delivered", "receiver", d.Name, "next", next,
			"size", size)
	}
	return fmt.Errorf("the cursor is at %d, and the log has %d entries", next, size)
}

// part is what is sent at once. With it all entries up to an index are done with.
type part struct {
	send  []Entry
	until int64
}

func (d *Delivery) parts(entries []Entry) (all []part) {
	var now part
	for _, e := range entries {
		now.until = e.Index
		if d.Wanted(e.Event.Kind) {
			now.send = append(now.send, e)
			if d.Each {
				all, now = append(all, now), part{}
			}
		}
	}
	if last := entries[len(entries)-1].Index; len(all) == 0 || all[len(all)-1].until < last {
		all = append(all, part{now.send, last})
	}
	return all
}

func (d *Delivery) deliver(ctx context.Context, sender Sender, p part, pauses *backoff) error {
	if len(p.send) == 0 {
		return nil
	}
	sending, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	err := sender.Send(sending, p.send)
	var notAll *notAllError
	if errors.As(err, &notAll) { // sent again, it would come twice to the others, and not to these
		d.Observe.DeliveryFailed(d.Name)
		d.Logger.WarnContext(ctx, "a notification did not reach everybody", "receiver", d.Name, "event", p.send[0].Event.ID, "error", err)
		err = nil
	}
	if err == nil {
		d.Observe.Delivered(d.Name, len(p.send))
		pauses.since = time.Time{}
		return nil
	}
	if pauses.since.IsZero() {
		pauses.since = d.Now()
	}
	if d.GiveUp == 0 || d.Now().Sub(pauses.since) < d.GiveUp || ctx.Err() != nil {
		return err
	}
	d.Observe.DeliveryGivenUp(d.Name)
	d.Logger.ErrorContext(ctx, "a notification could not be delivered and is left out", "receiver", d.Name, "event", p.send[0].Event.ID,
		"kind", p.send[0].Event.Kind, "error", err)
	pauses.since = time.Time{}
	return nil
}

// tellLag tells how far behind the receiver is, and raises an alarm once for each time that it falls far behind.
func (d *Delivery) tellLag(ctx context.Context, next int64, entries []Entry, pauses *backoff) error {
	if len(entries) == 0 {
		d.Observe.DeliveryLag(d.Name, 0, 0)
		return nil
	}
	size, err := d.Log.Size(ctx)
	if err != nil {
		return fmt.Errorf("reading the size of the log: %w", err)
	}
	age := d.Now().Sub(entries[0].Event.Time)
	d.Observe.DeliveryLag(d.Name, size-next, age)
	if age > alarmAfter && pauses.failures > 0 && !pauses.alarmed {
		pauses.alarmed = true
		d.Logger.ErrorContext(ctx, "a receiver of the audit log is far behind", "receiver", d.Name, "entries", size-next, "age",
			age.Round(time.Second),
			"error", pauses.last)
	}
	return nil
}

// backoff is the pauses after failures: a second, and twice as long each time, up to five minutes; or what the receiver asks for, within
// that.
type backoff struct {
	failures int
	since    time.Time // the entry of now was tried first; zero: it has not failed
	last     error
	alarmed  bool
}

func (b *backoff) failed(err error) time.Duration {
	b.failures, b.last = b.failures+1, err
	wait := firstPause << min(b.failures-1, 16)
	var later *laterError
	if errors.As(err, &later) && later.after > 0 {
		wait = later.after
	}
	return min(wait, longestWait)
}

// notAllError says who of several will never get what the others have got.
type notAllError struct{ error }

func (e *notAllError) Unwrap() error { return e.error }

// laterError is a receiver's wish to be left alone for a while.
type laterError struct {
	error
	after time.Duration
}

func (e *laterError) Unwrap() error { return e.error }

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
