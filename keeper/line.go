package keeper

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// A signature through the keeper is two short messages, and what they cost is what the wake-ups around them cost. So client and keeper speak
// over two pipes, one for each direction, which the keeper makes and hands over with its hello. A Unix socket wakes whoever waits to read from
// it also when something that he wrote has been read, and so twice for each message; a pipe does not. The socket over which the client
// came stays open, and tells that a side has gone.

// line is one end of a pipe, or of a socket, on which short messages go. It differs from a net.Conn in what a message costs: its calls into the
// kernel never wait, so Go's scheduler is not told of them. One that is told takes each for a call that may last, and wakes a watcher that
// looks every 20 microseconds for processors to take away. Whoever has to wait still waits in Go's poller, with the line's deadlines.
type line struct {
	polled
	raw syscall.RawConn
}

// polled is a file or a connection for which Go's poller waits.
type polled interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
	SyscallConn() (syscall.RawConn, error)
}

func newLine(p polled) (line, error) {
	raw, err := p.SyscallConn()
	return line{p, raw}, err
}

// Read reads what has arrived, and waits when nothing has.
func (l line) Read(p []byte) (n int, err error) {
	ended := l.raw.Read(func(fd uintptr) bool {
		n, err = readNow(fd, p)
		return !errors.Is(err, syscall.EAGAIN)
	})
	switch {
	case ended != nil:
		return 0, ended
	case err != nil:
		return 0, err
	case n == 0 && len(p) > 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write writes what there is room for at once, as there is for nearly every message. For the rest it waits, with the line's deadline. It is
// safe for concurrent use where a message is taken whole or not at all (SOCK_SEQPACKET).
func (l line) Write(p []byte) (n int, err error) {
	if n, err = l.offer(p); err != nil || n == len(p) {
		return n, err
	}
	rest, err := l.polled.Write(p[n:])
	return n + rest, err
}

// writeWithin is Write with a limit for the waiting.
func (l line) writeWithin(limit time.Duration, p []byte) error {
	n, err := l.offer(p)
	if err != nil || n == len(p) {
		return err
	}
	if err := l.SetWriteDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	if _, err := l.polled.Write(p[n:]); err != nil {
		return err
	}
	return l.SetWriteDeadline(time.Time{})
}

// maxOffer bounds what is copied into the kernel without the scheduler being told.
const maxOffer = 64 << 10

// offer writes what there is room for at once; 0 octets when there is none.
func (l line) offer(p []byte) (n int, err error) {
	if len(p) > maxOffer {
		return 0, nil
	}
	ended := l.raw.Write(func(fd uintptr) bool {
		n, err = writeNow(fd, p)
		return true
	})
	switch {
	case ended != nil:
		return 0, ended
	case errors.Is(err, syscall.EAGAIN):
		return 0, nil
	case err != nil:
		return 0, err
	}
	return n, nil
}

// quiet tells whether the line is up and nothing has arrived on it: what one expects of one that nobody uses. Of one that is not, nothing can
// be expected any more.
func (l line) quiet() bool {
	var one [1]byte
	var found error
	err := l.raw.Control(func(fd uintptr) { _, found = readNow(fd, one[:]) })
	return err == nil && errors.Is(found, syscall.EAGAIN)
}

// inbox is where a keeper waits for the requests of one connection. One that has the library in its own process waits in the system call, in
// a thread that the kernel wakes without poller and scheduler in between, and signs in it. One that passes requests on to workers has little to
// do, and waits for them anyway: there it is the poller that waits, because threads would queue for processors. What ends the waiting is an
// octet from the keeper itself.
type inbox struct {
	pipe   *os.File
	poller line // of the pipe; unset where a thread waits
	wake   line // the pipe's other end, opened for the keeper alone
	ended  atomic.Bool
}

// Read waits for requests; io.EOF means that end was called.
func (b *inbox) Read(p []byte) (int, error) {
	n, err := b.wait(p)
	if b.ended.Load() {
		return 0, io.EOF
	}
	return n, err
}

func (b *inbox) wait(p []byte) (int, error) {
	if b.poller.polled != nil {
		return b.poller.Read(p)
	}
	for {
		n, err := syscall.Read(int(b.pipe.Fd()), p)
		if !errors.Is(err, syscall.EINTR) {
			return max(n, 0), os.NewSyscallError("read", err)
		}
	}
}

// end lets Read return. Where the pipe is full, nobody waits in it.
func (b *inbox) end() error {
	b.ended.Store(true)
	_, err := b.wake.offer([]byte{0})
	return err
}

func (b *inbox) close() error { return errors.Join(b.pipe.Close(), b.wake.Close()) }

// pipes are what a keeper makes for a connection: its own ends, and the client's two, which read answers and write requests.
type pipes struct {
	in     *inbox
	out    line
	client [2]*os.File
}

// makePipes makes them, for a thread that waits for requests or for the poller.
func makePipes(thread bool) (_ *pipes, err error) {
	var made []*os.File
	defer func() {
		if err != nil {
			for _, f := range made {
				err = errors.Join(err, f.Close())
			}
		}
	}()
	var ends [2][2]int
	for i, blocks := range []bool{thread, false} {
		ends[i], err = pipe()
		if err == nil {
			err = syscall.SetNonblock(ends[i][0], !blocks)
		}
		if err != nil {
			return nil, err
		}
		made = append(made, os.NewFile(uintptr(ends[i][0]), "reading"), os.NewFile(uintptr(ends[i][1]), "writing"))
	}
	requests, asking, answers, answering := made[0], made[1], made[2], made[3]
	wake, err := writeEnd(ends[0][1])
	if err != nil {
		return nil, err
	}
	made = append(made, wake)
	p := &pipes{in: &inbox{pipe: requests}, client: [2]*os.File{answers, asking}}
	if p.in.wake, err = newLine(wake); err != nil {
		return nil, err
	}
	if !thread {
		if p.in.poller, err = newLine(requests); err != nil {
			return nil, err
		}
	}
	if p.out, err = newLine(answering); err != nil {
		return nil, err
	}
	return p, nil
}

// give hands the client's ends over, with the message that is the keeper's hello.
func (p *pipes) give(conn *net.UnixConn, message []byte) (err error) {
	defer func() { err = errors.Join(err, p.client[0].Close(), p.client[1].Close()) }()
	// Not by Fd, which would make them block.
	var numbers []int
	for _, f := range p.client {
		raw, err := f.SyscallConn()
		if err != nil {
			return err
		}
		if err := raw.Control(func(fd uintptr) { numbers = append(numbers, int(fd)) }); err != nil {
			return err
		}
	}
	_, _, err = conn.WriteMsgUnix(message, syscall.UnixRights(numbers...), nil)
	return err
}

func (p *pipes) close() error { return errors.Join(p.in.close(), p.out.Close()) }

// takePipes receives a message of a given length, and with it two pipes: one to read from, one to write to.
func takePipes(conn *net.UnixConn, message []byte) (in, out line, err error) {
	rights := make([]byte, syscall.CmsgSpace(2*4))
	n, had, _, _, err := conn.ReadMsgUnix(message, rights)
	if err != nil {
		return in, out, err
	}
	if n == 0 {
		return in, out, io.EOF
	}
	if _, err := io.ReadFull(conn, message[n:]); err != nil {
		return in, out, err
	}
	var files []*os.File
	messages, err := syscall.ParseSocketControlMessage(rights[:had])
	for _, m := range messages {
		fds, _ := syscall.ParseUnixRights(&m) // other than rights there are none
		for _, fd := range fds {
			err = errors.Join(err, syscall.SetNonblock(fd, true))
			files = append(files, os.NewFile(uintptr(fd), "keeper"))
		}
	}
	if err == nil && len(files) != 2 {
		err = ErrProtocol
	}
	if err == nil {
		in, err = newLine(files[0])
	}
	if err == nil {
		out, err = newLine(files[1])
	}
	if err != nil {
		for _, f := range files {
			err = errors.Join(err, f.Close())
		}
	}
	return in, out, err
}
