package web

import (
	"net"
	"sync"
)

// MaxConnections is how many connections a listener has open at once. Each costs a descriptor and some 30 KiB.
const MaxConnections = 10_000

// LimitConnections is a listener that closes a connection at once when there are so many already: whoever opens them by the thousand, and
// says nothing, must not take the program's last descriptor, which it needs for its database and its token.
func LimitConnections(l net.Listener, most int) net.Listener {
	return &limited{Listener: l, places: make(chan struct{}, most)}
}

type limited struct {
	net.Listener
	places chan struct{}
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.places <- struct{}{}:
			return &placed{Conn: conn, leave: sync.OnceFunc(func() { <-l.places })}, nil
		default:
			_ = conn.Close() // nobody is owed an answer
		}
	}
}

// placed gives its place back when it is closed.
type placed struct {
	net.Conn
	leave func()
}

// NetConn is the connection itself, for whoever asks who is at its other end.
func (c *placed) NetConn() net.Conn { return c.Conn }

// Close implements net.Conn.
func (c *placed) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
