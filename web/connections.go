package web

import (
	"net"
	"net/netip"
	"sync"
)

// MaxConnections is how many connections a listener has open at once. Each costs a descriptor and some 30 KiB.
const MaxConnections = 10_000

// LimitConnections is a listener that closes a connection at once when there are so many already: whoever opens them by the thousand, and
// says nothing, must not take the program's last descriptor, which it needs for its database and its token. One network has at most half of
// them, so that it does not take everybody else's either.
func LimitConnections(l net.Listener, most int) net.Listener {
	return &limited{Listener: l, places: newPlaces(most, "network")}
}

type limited struct {
	net.Listener
	places *places
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		leave, refused := l.places.enter(networkOf(conn))
		if refused == nil {
			return &placed{Conn: conn, leave: sync.OnceFunc(leave)}, nil
		}
		_ = conn.Close() // nobody is owed an answer
	}
}

// networkOf is the network that a connection comes from; empty for a Unix socket's.
func networkOf(c net.Conn) string {
	at, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return ""
	}
	return neighbourhood(at.Addr()).String()
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
