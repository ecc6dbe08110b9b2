package storage_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// fault is what the proxy does to the message that it waits for, and to the connection that brings it.
type fault int

const (
	loseRequest fault = iota // the server never sees it
	loseReply                // the server does all of it, and nothing of its answer comes back
	loseAck                  // all of the answer comes back but its last message, which tells that the commit is done
	loseSync                 // the server runs the statements and answers, but is never asked to commit
)

// proxy stands between a store and its server, on a Unix socket of its own. It speaks enough of the protocol (PostgreSQL, chapter 55)
// to know where messages end.
type proxy struct {
	t        *testing.T
	server   string
	listener net.Listener
	wg       sync.WaitGroup

	mu     sync.Mutex
	marker []byte // in the request that meets the fault; nil: none
	fault  fault
	met    bool
}

// newProxy returns a proxy and the URL of the same database through it.
func newProxy(t *testing.T, databaseURL string) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "proxy-") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	p := &proxy{t: t, server: filepath.Join(q.Get("host"), ".s.PGSQL.5432")}
	if p.listener, err = net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432")); err != nil {
		t.Fatal(err)
	}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		if err := errors.Join(p.listener.Close(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
		p.wg.Wait()
	})
	q.Set("host", dir)
	u.RawQuery = q.Encode()
	return p, u.String()
}

// arm has the next request that holds the marker meet a fault.
func (p *proxy) arm(f fault, marker []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault, p.marker, p.met = f, marker, false
}

func (p *proxy) hasMet() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.met
}

func (p *proxy) meets(request []byte) (fault, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.marker == nil || !bytes.Contains(request, p.marker) {
		return 0, false
	}
	p.marker, p.met = nil, true
	return p.fault, true
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		server, err := net.Dial("unix", p.server)
		if err != nil {
			_ = client.Close()
			continue
		}
		faults := make(chan fault, 1)
		p.wg.Go(func() { p.forward(client, server, faults) })
		p.wg.Go(func() { p.backward(client, server, faults) })
	}
}

// forward carries requests until the connection ends.
func (p *proxy) forward(client, server net.Conn, faults chan<- fault) {
	defer func() { _ = server.(*net.UnixConn).CloseWrite() }()
	buffer := make([]byte, 1<<20)
	for {
		n, err := client.Read(buffer)
		if err != nil {
			return
		}
		request := buffer[:n]
		if f, ok := p.meets(request); ok {
			faults <- f
			switch f {
			case loseRequest:
				_ = client.Close()
				return
			case loseSync:
				request = append(bytes.TrimSuffix(request, []byte("S\x00\x00\x00\x04")), "H\x00\x00\x00\x04"...) // Flush instead
			}
		}
		if _, err := server.Write(request); err != nil {
			return
		}
	}
}

// backward carries answers, message by message, until the connection ends. Once the fault's request is on its way it carries only what
// the fault lets pass: the first message after that belongs to its answer, for a client sends nothing before it has the last one.
func (p *proxy) backward(client, server net.Conn, faults <-chan fault) {
	defer func() { _, _ = client.Close(), server.Close() }()
	const readyForQuery, commandComplete, statementsOfABatch = 'Z', 'C', 2
	const none fault = -1
	met, completed := none, 0
	for {
		message, err := readMessage(server)
		if err != nil {
			return
		}
		if met == none {
			select {
			case met = <-faults:
			default:
			}
		}
		if met != none && message[0] == readyForQuery {
			return
		}
		if met != loseReply {
			if _, err := client.Write(message); err != nil {
				return
			}
		}
		if met == loseSync && message[0] == commandComplete {
			if completed++; completed == statementsOfABatch {
				return
			}
		}
	}
}

// readMessage reads one message of the server's: a letter, its length, its content.
func readMessage(r io.Reader) ([]byte, error) {
	var header [5]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err
	}
	message := make([]byte, 1+binary.BigEndian.Uint32(header[1:]))
	copy(message, header[:])
	_, err := io.ReadFull(r, message[len(header):])
	return message, err
}
