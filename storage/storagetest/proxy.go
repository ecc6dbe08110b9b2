package storagetest

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

// Fault is what a Proxy does to the request that it waits for, and to the connection that brings it.
type Fault int

const (
	LoseRequest Fault = iota // the server never sees it
	LoseReply                // the server does all of it, and nothing of its answer comes back
	LoseAck                  // all of the answer comes back but its last message, which tells that the commit is done
	LoseSync                 // the server runs the statements and answers, but is never asked to commit
)

// Proxy stands between a store and its server, on a Unix socket of its own. It speaks enough of the protocol (PostgreSQL, chapter 55)
// to know where messages end.
type Proxy struct {
	tb       testing.TB
	server   string
	listener net.Listener
	wg       sync.WaitGroup

	mu    sync.Mutex
	meets func(request []byte) bool // whether a request meets the fault; nil: none does
	once  bool
	fault Fault
	met   int
	flows *sync.Cond
	stall bool
}

// NewProxy returns a proxy and the URL of the same database through it. It is gone when the test ends.
func NewProxy(tb testing.TB, databaseURL string) (*Proxy, string) {
	tb.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		tb.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "proxy-") // t.TempDir can be too long for a socket
	if err != nil {
		tb.Fatal(err)
	}
	q := u.Query()
	p := &Proxy{tb: tb, server: filepath.Join(q.Get("host"), ".s.PGSQL.5432")}
	p.flows = sync.NewCond(&p.mu)
	if p.listener, err = net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432")); err != nil {
		tb.Fatal(err)
	}
	p.wg.Go(p.accept)
	tb.Cleanup(func() {
		p.Flow()
		if err := errors.Join(p.listener.Close(), os.RemoveAll(dir)); err != nil {
			tb.Error(err)
		}
		p.wg.Wait()
	})
	q.Set("host", dir)
	u.RawQuery = q.Encode()
	return p, u.String()
}

// Arm has the next request that holds the marker meet a fault.
func (p *Proxy) Arm(f Fault, marker []byte) {
	p.arm(f, true, func(request []byte) bool { return bytes.Contains(request, marker) })
}

// ArmAll has every request of which meets says so meet a fault, until Disarm. meets is called by one goroutine at a time.
func (p *Proxy) ArmAll(f Fault, meets func(request []byte) bool) { p.arm(f, false, meets) }

func (p *Proxy) arm(f Fault, once bool, meets func([]byte) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault, p.once, p.meets, p.met = f, once, meets, 0
}

// Disarm ends the faults.
func (p *Proxy) Disarm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.meets = nil
}

// Met is how many requests have met the fault that was armed last.
func (p *Proxy) Met() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.met
}

// Stall has nothing pass any more, in whatever connection, as a network does that drops every packet; Flow ends it.
func (p *Proxy) Stall() { p.setStall(true) }

// Flow has everything pass again, what was held back first.
func (p *Proxy) Flow() { p.setStall(false) }

func (p *Proxy) setStall(stall bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stall = stall
	p.flows.Broadcast()
}

func (p *Proxy) passing() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.stall {
		p.flows.Wait()
	}
}

func (p *Proxy) meeting(request []byte) (Fault, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.meets == nil || !p.meets(request) {
		return 0, false
	}
	p.met++
	if p.once {
		p.meets = nil
	}
	return p.fault, true
}

func (p *Proxy) accept() {
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
		faults := make(chan Fault, 1)
		p.wg.Go(func() { p.forward(client, server, faults) })
		p.wg.Go(func() { p.backward(client, server, faults) })
	}
}

// forward carries requests until the connection ends. A connection meets one fault, which is its end.
func (p *Proxy) forward(client, server net.Conn, faults chan<- Fault) {
	defer func() { _ = server.(*net.UnixConn).CloseWrite() }()
	buffer := make([]byte, 1<<20)
	met := false
	for {
		n, err := client.Read(buffer)
		if err != nil {
			return
		}
		p.passing()
		request := buffer[:n]
		if met {
			continue
		}
		if f, ok := p.meeting(request); ok {
			met = true
			faults <- f
			switch f {
			case LoseRequest:
				_ = client.Close()
				return
			case LoseSync:
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
func (p *Proxy) backward(client, server net.Conn, faults <-chan Fault) {
	defer func() { _, _ = client.Close(), server.Close() }()
	const readyForQuery, commandComplete, statementsOfABatch = 'Z', 'C', 2
	const none Fault = -1
	met, completed := none, 0
	for {
		message, err := readMessage(server)
		if err != nil {
			return
		}
		p.passing()
		if met == none {
			select {
			case met = <-faults:
			default:
			}
		}
		if met != none && message[0] == readyForQuery {
			return
		}
		if met != LoseReply {
			if _, err := client.Write(message); err != nil {
				return
			}
		}
		if met == LoseSync && message[0] == commandComplete {
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
