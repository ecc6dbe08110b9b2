package web

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// arrivalTime is how long a connection that was let in before the end may take to bring its first request.
const arrivalTime = 2 * time.Second

// ServeUntil serves a listener until the context ends. Then it lets nobody new in, answers whoever was let in before, and waits for the
// answers, no longer than drain.
//
// http.Server.Shutdown alone does not answer a request that it is still reading: the caller sees the connection end and cannot know
// whether a certificate was made for it. So the listener is closed first, and the server only after each connection has brought its first
// request to a handler, or arrivalTime is over; whoever has said nothing by then is not waited for. A connection that has been answered and waits for its client to go on is closed at once
// (RFC 9112, section 9.5: a client repeats there what may be repeated).
func ServeUntil(ctx context.Context, server *http.Server, l net.Listener, drain time.Duration) error {
	arriving := expect(server)
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
	arriving.wait(min(arrivalTime, drain))
	arriving.close()
	if err := server.Shutdown(ending); err != nil {
		_ = server.Close()
		return fmt.Errorf("waiting for the last answers: %w", err)
	}
	return nil
}

// arrivals are the connections that have brought no request to a handler yet.
type arrivals struct {
	conns sync.Map // from net.Conn to arrival
	count sync.WaitGroup
}

// arrival is how it stands with a connection that has brought nothing yet.
type arrival int

const (
	awaited arrival = iota
	givenUp         // it is closed, and what it still brings is not begun
)

// arrivalsKey is where a request's context has its connection.
type arrivalsKey struct{}

// expect has a server, that does not serve yet, tell which connections have brought no request.
func expect(server *http.Server) *arrivals {
	a := &arrivals{}
	connContext, handler := server.ConnContext, server.Handler
	server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		a.count.Add(1)
		a.conns.Store(c, awaited)
		if connContext != nil {
			ctx = connContext(ctx, c)
		}
		return context.WithValue(ctx, arrivalsKey{}, c)
	}
	server.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			a.ended(c)
		}
	}
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !a.arrived(r.Context().Value(arrivalsKey{})) {
			panic(http.ErrAbortHandler) // nobody would have the answer
		}
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

// wait ends when nobody is waited for, or after so long. Nobody may come any more.
func (a *arrivals) wait(most time.Duration) {
	all := make(chan struct{})
	go func() { a.count.Wait(); close(all) }() // it ends with the connections, which the server closes
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-all:
	case <-timer.C:
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
