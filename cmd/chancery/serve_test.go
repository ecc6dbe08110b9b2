package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/chancery-ca/chancery/web"
)

// onePipe is a listener that has one connection.
type onePipe struct {
	conns chan net.Conn
	done  context.Context
	close context.CancelFunc
}

func (p onePipe) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done.Done():
		return nil, net.ErrClosed
	}
}

func (p onePipe) Close() error { p.close(); return nil }
func (onePipe) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// TestStoppingBesideASlowReader: whoever asks for something long and does not read it is cut off, which the log tells and the exit code
// does not.
func TestStoppingBesideASlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := &service{log: slog.New(slog.NewTextHandler(&log, nil))}
		server := web.NewHTTPServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(make([]byte, 1<<20))
		}), s.log)
		client, served := net.Pipe()
		defer client.Close()
		l := onePipe{conns: make(chan net.Conn, 1)}
		l.done, l.close = context.WithCancel(t.Context())
		l.conns <- served
		ctx, end := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.serveUntil(ctx, "distribution", server, l) }()
		if _, err := io.WriteString(client, "GET / HTTP/1.1\r\nHost: ca\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		end()
		if err := <-ended; err != nil || !strings.Contains(log.String(), "listener=distribution") {
			t.Errorf("it ended with %v; the log tells\n%s", err, &log)
		}
	})
}
