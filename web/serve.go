package web

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// arrivalTime is how long a connection that was let in before the end may take to bring its first request.
const arrivalTime = 2 * time.Second

// workTime is how long what has been begun is waited for when nobody waits for its answer any more: an issuance may take 30 s from its
// intent on.
const workTime = 30 * time.Second

// ErrCutOff is what ServeUntil returns when somebody had not taken his answer, or had none, when the time for the last answers was over.
// Nothing is worked on any more all the same.
var ErrCutOff = errors.New("whoever had no whole answer when the time for the last answers was over was cut off")

var errStillWorking = errors.New("waiting for the last answers: a request is still being worked on")

// ServeUntil serves a listener until the context ends. Then it lets nobody new in, answers whoever was let in before, and waits for the
// answers, no longer than drain; whoever has not got his by then is cut off, and what is done for him comes to its end. So what handlers
// work with may be closed afterwards.
//
// http.Server.Shutdown alone does not answer a request that it is still reading: the caller sees the connection end and cannot know
// whether a certificate was made for it. So the listener is closed first, and the server only after each connection has brought its first
// request to a handler, or arrivalTime is over; whoever has said nothing by then is not waited for. A connection that has been answered and
// waits for its client to go on is closed at once (RFC 9112, section 9.5: a client repeats there what may be repeated).
//
// Nor does it wait for handlers: over HTTP/2 one goes on when its caller has left. They are waited for last.
func ServeUntil(ctx context.Context, server *http.Server, l net.Listener, drain time.Duration) error {
	arriving := expect(ctx, server)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	_ = l.Close() // what it says, Serve says
	<-failed
	inTime(min(arrivalTime, drain), arriving.count.Wait) // nobody may come any more
	arriving.close()
	cutOff := server.Shutdown(ending) != nil
	if cutOff {
		_ = server.Close()
	}
	if !inTime(workTime, arriving.finish) {
		return errStillWorking
	}
	if cutOff {
		return ErrCutOff
	}
	return nil
}

// endingKey is where a request's context has the context that ends when the server shall.
type endingKey struct{}

// endingOf is the context that ends when the server of a request shall, for what takes so long that it would not end by itself.
func endingOf(ctx context.Context) context.Context {
	if ending, ok := ctx.Value(endingKey{}).(context.Context); ok {
		return ending
	}
	return context.Background()
}

// arrivals are the connections that have brought no request to a handler yet, and the handlers at work.
type arrivals struct {
	conns   sync.Map // from net.Conn to arrival
	count   sync.WaitGroup
	working sync.WaitGroup

	mu   sync.Mutex
	over bool // no handler begins any more
}

// arrival is how it stands with a connection that has brought nothing yet.
type arrival int

const (
	awaited arrival = iota
	givenUp         // it is closed, and what it still brings is not begun
)

// arrivalsKey is where a request's context has its connection.
type arrivalsKey struct{}

// expect has a server, that does not serve yet, tell which connections have brought no request, and its handlers when it shall end.
func expect(ending context.Context, server *http.Server) *arrivals {
	a := &arrivals{}
	connContext, handler := server.ConnContext, server.Handler
	server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		a.count.Add(1)
		a.conns.Store(c, awaited)
		if connContext != nil {
			ctx = connContext(ctx, c)
		}
		return context.WithValue(context.WithValue(ctx, arrivalsKey{}, c), endingKey{}, ending)
	}
	server.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			a.ended(c)
		}
	}
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !a.arrived(r.Context().Value(arrivalsKey{})) || !a.begin() {
			panic(http.ErrAbortHandler) // nobody would have the answer
		}
		defer a.working.Done()
		handler.ServeHTTP(w, r)
	})
	return a
}

// arrived notes that a connection has brought a request. It is false when the connection was given up before.
func (a *arrivals) arrived(conn any) bool {
	if a.conns.CompareAndDelete(conn, awaited) {
		a.count.Done()
		return true
	}
	_, kept := a.conns.Load(conn)
	return !kept
}

// ended notes that a connection is closed.
func (a *arrivals) ended(conn any) {
	if _, waited := a.conns.LoadAndDelete(conn); waited {
		a.count.Done()
	}
}

// begin counts a handler, unless it is over.
func (a *arrivals) begin() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.over {
		a.working.Add(1)
	}
	return !a.over
}

// finish has no handler begin any more, and waits for those at work.
func (a *arrivals) finish() {
	a.mu.Lock()
	a.over = true
	a.mu.Unlock()
	a.working.Wait()
}

// inTime tells whether a wait ends within so long. One that does not is left to itself.
func inTime(most time.Duration, wait func()) bool {
	ended := make(chan struct{})
	go func() { wait(); close(ended) }()
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-ended:
		return true
	case <-timer.C:
		return false
	}
}

// close ends the connections that have brought nothing.
func (a *arrivals) close() {
	a.conns.Range(func(conn, _ any) bool {
		if a.conns.CompareAndSwap(conn, awaited, givenUp) { // whose request has come meanwhile is answered
			_ = conn.(net.Conn).Close()
		}
		return true
	})
}
