package web

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
)

// dialled is a connection whose reads end in time.
func dialled(t *testing.T, address string) net.Conn {
	t.Helper()
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestSlowHeaders: who says a header octet by octet is cut off, whatever it sends meanwhile (slowloris).
func TestSlowHeaders(t *testing.T) {
	s := newSurface(t)
	server := httptest.NewUnstartedServer(s.API())
	server.Config = NewHTTPServer(s.API(), slog.New(slog.DiscardHandler))
	server.Config.ReadHeaderTimeout = 300 * time.Millisecond
	server.Start()
	t.Cleanup(server.Close)
	c := dialled(t, server.Listener.Addr().String())
	fmt.Fprint(c, "GET /api/v1/profiles HTTP/1.1\r\nHost: x\r\n")
	ended := make(chan error, 1)
	go func() { _, err := io.Copy(io.Discard, c); ended <- err }()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case err := <-ended:
			if errors.Is(err, syscall.ETIMEDOUT) || err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("it was not cut off: %v", err)
			}
			return
		case <-tick.C:
			_, _ = fmt.Fprintf(c, "X-%d: y\r\n", n)
		}
	}
}

// TestHugeHeaders: one that is larger than any of ours is refused before it is read.
func TestHugeHeaders(t *testing.T) {
	s := newSurface(t)
	server := s.serve(t, 10*time.Second)
	for size, want := range map[int]int{maxHeaderBytes / 2: http.StatusOK, 2 * maxHeaderBytes: http.StatusRequestHeaderFieldsTooLarge} {
		c := dialled(t, server.Listener.Addr().String())
		go func() {
			_, _ = fmt.Fprintf(c, "GET /api/v1/profiles HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nX-Large: %s\r\n\r\n",
				s.tokens[access.Auditor], strings.Repeat("x", size))
		}()
		answer, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _ = answer.Body.Close(); answer.StatusCode != want {
			t.Errorf("a header of %d octets is answered with %d, want %d", size, answer.StatusCode, want)
		}
	}
}

// TestTooManyConnections: what is over the limit is closed, what is under it is served, and a place that is left is free again.
func TestTooManyConnections(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "sock"))
	if err != nil {
		t.Fatal(err)
	}
	limited := LimitConnections(l, 2)
	t.Cleanup(func() { _ = limited.Close() })
	accepted := make(chan net.Conn, 16)
	go func() {
		defer close(accepted)
		for {
			c, err := limited.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	dialled(t, l.Addr().String())
	first := <-accepted
	dialled(t, l.Addr().String())
	second := <-accepted
	if inner, ok := second.(interface{ NetConn() net.Conn }); !ok || inner.NetConn().RemoteAddr() != second.RemoteAddr() {
		t.Errorf("a counted connection does not tell which one it is: %T", second)
	}
	third := dialled(t, l.Addr().String())
	if _, err := third.Read(make([]byte, 1)); err == nil || errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("the third of two was kept: %v", err)
	}
	for range 2 { // closing twice gives back one place
		_ = first.Close()
	}
	dialled(t, l.Addr().String())
	fourth := <-accepted
	last := dialled(t, l.Addr().String())
	if _, err := last.Read(make([]byte, 1)); err == nil {
		t.Error("closing twice gave back two places")
	}
	_, _ = second.Close(), fourth.Close()
}

// guests are connections that come from where they say.
type guests chan *guest

type guest struct {
	net.Conn
	from   net.Addr
	closed bool
}

func (g guests) Accept() (net.Conn, error) {
	if c, ok := <-g; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (g guests) Close() error   { close(g); return nil }
func (g guests) Addr() net.Addr { return &net.TCPAddr{} }

func (g *guest) RemoteAddr() net.Addr { return g.from }
func (g *guest) Close() error         { g.closed = true; return nil }

// TestOneNetworkLeavesConnections: whoever opens as many connections as can be had gets half of them.
func TestOneNetworkLeavesConnections(t *testing.T) {
	const most = 6
	come := make(guests, 2*most)
	for _, from := range []string{"192.0.2.7:1", "192.0.2.7:2", "192.0.2.7:3", "192.0.2.7:4", "192.0.2.8:1", "[2001:db8::1]:1", "[2001:db8::2]:1"} {
		come <- &guest{from: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from))}
	}
	_ = come.Close()
	var let []string
	for limited := LimitConnections(come, most); ; {
		c, err := limited.Accept()
		if err != nil {
			break
		}
		let = append(let, c.RemoteAddr().String())
	}
	if want := "192.0.2.7:1 192.0.2.7:2 192.0.2.7:3 192.0.2.8:1 [2001:db8::1]:1 [2001:db8::2]:1"; strings.Join(let, " ") != want {
		t.Errorf("let in were %s, want %s", let, want)
	}
}

// TestOldTLSIsRefused: TLS 1.3 alone.
func TestOldTLSIsRefused(t *testing.T) {
	c := TLSConfig(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("none") })
	if c.MinVersion != tls.VersionTLS13 || !c.SessionTicketsDisabled {
		t.Errorf("%+v", c)
	}
}

// TestPathsThatAreNoText: what no database can be asked for is not there, under every path that names something.
func TestPathsThatAreNoText(t *testing.T) {
	s := newSurface(t)
	named := regexp.MustCompile(`\{[a-z]+\}`)
	asked := 0
	for _, p := range Permissions() {
		if !named.MatchString(p.Path) {
			continue
		}
		for _, id := range []string{"%00", "1c00%00", "%ff", "r-7%0a", "%7f", "%2f%00"} {
			asked++
			a := ask{method: p.Method, path: named.ReplaceAllString(p.Path, id)}
			for _, role := range access.Holders(p.Action) {
				a.role = role
			}
			if p.Method != http.MethodGet {
				a = a.json(struct{}{})
			}
			if w := s.call(a); w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), "not-found") {
				t.Errorf("%s %s: %d %s", a.method, a.path, w.Code, w.Body)
			}
		}
	}
	if asked < 60 {
		t.Errorf("only %d were asked for", asked)
	}
}
