package keeper

import (
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/chancery-ca/chancery/hsm"
)

const (
	// writeTimeout bounds one write: whoever does not read what it asked for is cut off.
	writeTimeout = 10 * time.Second
	// maxUnsent bounds what waits to be written to one side that does not read. Octets.
	maxUnsent = 32 << 20
)

// outbox writes frames to a connection. What is put in while a write goes on is written together by the next one, so that many small frames
// cost few system calls. After a failure the connection is closed and takes nothing more.
type outbox struct {
	conn net.Conn

	mu      sync.Mutex
	unsent  []byte
	spare   []byte
	writing bool
	err     error
}

func newOutbox(conn net.Conn) *outbox { return &outbox{conn: conn} }

// put adds a frame, to be written by the next flush.
func (o *outbox) put(kind byte, request uint64, parts ...[]byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return o.err
	}
	if len(o.unsent) > maxUnsent {
		o.fail(fmt.Errorf("%w: it does not read what is written to it", ErrProtocol))
		return o.err
	}
	o.unsent = appendFrame(o.unsent, kind, request, parts...)
	return nil
}

// flush writes what waits, unless somebody is writing already, who then does.
func (o *outbox) flush() {
	o.mu.Lock()
	if o.writing || o.err != nil || len(o.unsent) == 0 {
		o.mu.Unlock()
		return
	}
	o.writing = true
	o.mu.Unlock()
	o.drain()
}

// flushLater is flush for a caller that must not wait for the other side.
func (o *outbox) flushLater() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.writing || o.err != nil || len(o.unsent) == 0 {
		return
	}
	o.writing = true
	go o.drain()
}

func (o *outbox) drain() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.err == nil && len(o.unsent) > 0 {
		batch := o.unsent
		o.unsent, o.spare = o.spare[:0], nil
		o.mu.Unlock()
		err := o.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		if err == nil {
			_, err = o.conn.Write(batch)
		}
		o.mu.Lock()
		if err != nil {
			o.fail(fmt.Errorf("%w: writing: %w", hsm.ErrUnavailable, err))
		}
		if cap(batch) <= 1<<20 {
			o.spare = batch
		}
	}
	o.writing = false
}

// fail is called with the lock held.
func (o *outbox) fail(err error) {
	if o.err == nil {
		o.err = err
		_ = o.conn.Close() // whoever reads from it notices
	}
}
