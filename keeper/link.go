package keeper

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// link is a client's connection. Several calls may be on it at once; who waits for an answer reads those of the others as well, so that for a
// lone call nobody else has to be woken.
type link struct {
	conn   *net.UnixConn // over which it was made; the keeper sees by it when this side is gone
	in     line
	out    line
	useful int // how many connections the keeper says that it has use for
	busy   int // calls; the client's

	turn   chan struct{} // who has it reads
	frames *frameReader

	sending sync.Mutex
	unsent  []byte // kept for the next

	mu    sync.Mutex
	calls []*asked // that wait for their answers, the oldest first
	count uint64   // of calls so far
	why   error    // the connection is lost
}

// asked is a call on its way.
type asked struct {
	request uint64
	until   time.Time
	answer  chan answered
}

// answered is what became of a call: what was asked for, or the failure that the keeper told; err means that the connection is lost.
type answered struct {
	body         []byte
	failure, err error
}

// errUnsent means that the connection was lost before the request was sent: it may be sent over another.
var errUnsent = errors.New("the keeper has hung up")

// ask returns the answer or the failure that the keeper told; err means that the connection is of no more use.
func (l *link) ask(kind byte, parts [][]byte, until time.Time) (body []byte, failure, err error) {
	call := &asked{until: until, answer: make(chan answered, 1)}
	if err := l.send(call, kind, parts); err != nil {
		return nil, nil, err
	}
	select {
	case a := <-call.answer:
		return a.body, a.failure, a.err
	case <-l.turn:
	}
	defer func() { l.turn <- struct{}{} }()
	for {
		select {
		case a := <-call.answer:
			// What has arrived already is handed out, too, rather than have others woken to read it one by one.
			for a.err == nil && l.frames.whole() {
				l.read()
			}
			return a.body, a.failure, a.err
		default:
			l.read()
		}
	}
}

func (l *link) send(call *asked, kind byte, parts [][]byte) error {
	l.sending.Lock()
	defer l.sending.Unlock()
	if err := l.await(call); err != nil {
		return err
	}
	l.unsent = appendFrame(l.unsent[:0], kind, call.request, parts...)
	err := l.out.writeWithin(time.Until(call.until), l.unsent)
	if cap(l.unsent) > keptBuffer {
		l.unsent = nil
	}
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.fail(err)
	}
	return nil
}

// await puts a call among those that wait, before it is sent.
func (l *link) await(call *asked) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.why == nil && len(l.calls) == 0 && !l.in.quiet() { // with no calls, nobody reads
		l.fail(errUnsent)
	}
	if l.why != nil {
		return errUnsent
	}
	l.count++
	call.request = l.count
	l.calls = append(l.calls, call)
	return nil
}

// read waits for an answer and hands it to whom it is for. An error is the answer of all. The caller has the turn.
func (l *link) read() {
	f, err := l.next()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.fail(err)
		return
	}
	at := slices.IndexFunc(l.calls, func(c *asked) bool { return c.request == f.request })
	if at < 0 {
		l.fail(fmt.Errorf("%w: an answer to request %d, which nobody waits for", ErrProtocol, f.request))
		return
	}
	call := l.calls[at]
	switch f.kind {
	case frameAnswer:
		call.answer <- answered{body: bytes.Clone(f.body)}
	case frameError:
		call.answer <- answered{failure: parseError(f.body)}
	default:
		l.fail(fmt.Errorf("%w: a frame of type %d", ErrProtocol, f.kind))
		return
	}
	l.calls = slices.Delete(l.calls, at, at+1)
}

// next waits until the oldest call is overdue.
func (l *link) next() (frame, error) {
	if !l.frames.whole() {
		l.mu.Lock()
		why, until := l.why, time.Time{}
		if len(l.calls) > 0 {
			until = l.calls[0].until
		}
		l.mu.Unlock()
		if why != nil {
			return frame{}, why
		}
		if err := l.in.SetReadDeadline(until); err != nil {
			return frame{}, err
		}
	}
	return l.frames.next()
}

// fail ends the connection and all calls on it. The lock is held.
func (l *link) fail(err error) {
	if l.why == nil {
		l.why = err
	}
	for _, call := range l.calls {
		call.answer <- answered{err: l.why}
	}
	l.calls = nil
	l.close()
}

func (l *link) lost() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.why != nil
}

func (l *link) greet() error {
	if err := l.conn.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return err
	}
	said := appendFrame(nil, frameHello, 0, []byte(hello))
	if _, err := l.conn.Write(said); err != nil {
		return err
	}
	message := make([]byte, len(said))
	in, out, err := takePipes(l.conn, message)
	if err == nil {
		if f, wrong := parseFrame(message); wrong != nil || f.kind != frameHello || string(f.body) != hello {
			err = errors.Join(ErrProtocol, in.Close(), out.Close())
		}
	}
	switch {
	case errors.Is(err, ErrProtocol):
		return fmt.Errorf("%w: it does not speak %q", ErrProtocol, hello)
	case err != nil:
		return fmt.Errorf("it did not say hello (is this process's user among its peers?): %w", err)
	}
	l.in, l.out = in, out
	l.useful = int(min(max(binary.BigEndian.Uint64(message[5:]), 1), maxCalls))
	return nil
}

// close ends the connection, and the calls that are on it.
func (l *link) close() {
	_, _, _ = l.conn.Close(), l.in.Close(), l.out.Close() // nothing is lost with it but what fails anyway
}
