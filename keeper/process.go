package keeper

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/chancery-ca/chancery/hsm"
)

// maxGiven bounds the calls that are in a worker: their messages, and the answers, must fit into the buffers of its socket, so that neither
// side ever waits to send to the other, who waits as well. A message takes less than 1 KiB there, a buffer has some 200 KiB.
const maxGiven = 128

// process is a worker that has a token open.
type process struct {
	conn  line
	cmd   *exec.Cmd
	room  chan struct{} // one for each call that it has
	ended chan struct{} // closed when it has ended, after why was set
	why   error

	mu    sync.Mutex
	calls map[uint64]*call
	count uint64 // calls that it was given so far
}

// call is a digest on its way through a worker.
type call struct {
	since  time.Time
	answer chan workerAnswer
}

type workerAnswer struct {
	signature []byte
	err       error
}

// openInWorker runs one worker from its start to its end, and says why it ended.
func (t *token) openInWorker(ctx context.Context, command func() *exec.Cmd) (err error) {
	pin, err := t.HSM.PIN.Reveal()
	if err != nil {
		return err
	}
	defer clear(pin)
	w, err := spawn(command())
	if err != nil {
		return err
	}
	w.room = make(chan struct{}, min(ahead*t.HSM.MaxSessions, maxGiven))
	// The process is gone before anything else is done: two must never have the token at once.
	kill := func() { _ = w.cmd.Process.Kill() }
	stop := context.AfterFunc(ctx, func() { _ = w.conn.Close() })
	defer func() {
		stop()
		_ = w.conn.Close()
		ended := make(chan error, 1)
		go func() { ended <- w.cmd.Wait() }()
		select {
		case waited := <-ended:
			err = ending(err, waited)
		case <-time.After(closeTime + time.Second): // it was given the time to close its token
			kill()
			err = ending(err, <-ended)
		}
		if ctx.Err() != nil && errors.Is(err, net.ErrClosed) {
			err = errClosed
		}
		t.away(err) // before its calls fail: who then tries again finds that it is away
		w.why = fmt.Errorf("%w: %w", hsm.ErrUnavailable, err)
		close(w.ended)
	}()
	found, err := t.begin(w, pin)
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			kill()
			return fmt.Errorf("%w after %s", errSlow, t.StartTimeout)
		}
		return err
	}
	t.ready(w, found)
	t.log.InfoContext(ctx, "the token is open", "label", found.Token.Label, "serial", found.Token.Serial, "process", w.cmd.Process.Pid)
	watching, unwatch := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { w.watch(watching, t.CallTimeout, unwatch, kill) })
	err = w.answers(t.told)
	unwatch(nil)
	watch.Wait()
	if why := context.Cause(watching); errors.Is(why, errHung) && !hsm.NeedsPerson(err) {
		err = why
	}
	return err
}

// ending joins why the conversation with a worker ended with how the process did.
func ending(err, waited error) error {
	if hsm.NeedsPerson(err) { // however it ended: the PIN is not tried again
		return err
	}
	var exit *exec.ExitError
	if errors.As(waited, &exit) {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() && !errors.Is(err, errHung) && !errors.Is(err, errSlow) {
			return fmt.Errorf("the worker was ended by the signal %q: the library may have crashed", status.Signal())
		}
	}
	if err == nil {
		err = errors.New("the worker ended")
	}
	return err
}

// spawn starts a worker with one end of a socket pair as its file descriptor 3.
func spawn(cmd *exec.Cmd) (*process, error) {
	ours, err := startWith(cmd, syscall.SOCK_SEQPACKET)
	if err != nil {
		return nil, fmt.Errorf("starting the worker: %w", err)
	}
	conn, err := newLine(ours)
	if err != nil {
		return nil, errors.Join(err, ours.Close(), cmd.Process.Kill(), cmd.Wait())
	}
	return &process{conn: conn, cmd: cmd, calls: map[uint64]*call{}, ended: make(chan struct{})}, nil
}

// startWith starts a command that inherits the given files and, after them, one end of a new pair of sockets. The other end is returned.
func startWith(cmd *exec.Cmd, kind int, inherits ...*os.File) (*net.UnixConn, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, kind|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("a pair of sockets: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("a pair of sockets: %w", err)
	}
	cmd.ExtraFiles = append(inherits, theirs)
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn.(*net.UnixConn), nil
}

// begin tells the worker what to open, and waits until it has.
func (t *token) begin(w *process, pin []byte) (findings, error) {
	whole, err := startFrame(pin, startRequest{
		Module: t.HSM.Module, Selector: t.HSM.Token, Sessions: t.HSM.MaxSessions,
		RetryAfterFailedPIN: t.HSM.RetryAfterFailedPIN, Keys: t.keys, StartTimeout: t.StartTimeout,
	})
	if err != nil {
		return findings{}, err
	}
	defer clear(whole)
	if len(whole) > maxStart {
		return findings{}, fmt.Errorf("what is to be said of %d keys is more than %d octets: give some of them to another keeper", len(t.keys),
			maxStart)
	}
	if err := w.conn.SetDeadline(time.Now().Add(t.StartTimeout)); err != nil {
		return findings{}, err
	}
	if err := inParts(whole, func(part []byte) error { _, err := w.conn.Write(part); return err }); err != nil {
		return findings{}, fmt.Errorf("telling the worker what to open: %w", err)
	}
	buffer := make([]byte, maxPart)
	f, err := w.whole(buffer)
	for err == nil && f.kind == frameLogin {
		if err = t.told(f.body); err == nil {
			f, err = w.whole(buffer)
		}
	}
	switch {
	case err != nil:
		return findings{}, fmt.Errorf("waiting for the worker to open the token: %w", err)
	case f.kind == frameError:
		return findings{}, parseError(f.body)
	case f.kind != frameAnswer:
		return findings{}, fmt.Errorf("%w: a worker answered with a frame of type %d", ErrProtocol, f.kind)
	}
	var found findings
	if err := json.Unmarshal(f.body, &found); err != nil {
		return findings{}, fmt.Errorf("%w: what a worker opened cannot be read: %w", ErrProtocol, err)
	}
	return found, w.conn.SetDeadline(time.Time{})
}

// Why the keeper itself kills a worker.
var (
	errHung = errors.New("a call into the library did not come back: the worker was killed")
	errSlow = errors.New("opening the token took too long: the worker was killed")
)

// watch kills the worker when a call in it takes too long.
func (w *process) watch(ctx context.Context, limit time.Duration, unwatch context.CancelCauseFunc, kill func()) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if w.oldest(now) > limit {
				unwatch(errHung)
				kill()
				return
			}
		}
	}
}

func (w *process) oldest(now time.Time) (longest time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.calls {
		longest = max(longest, now.Sub(c.since))
	}
	return longest
}

// next reads the next message of the worker into a buffer.
func (w *process) next(buffer []byte) (frame, error) {
	n, err := w.conn.Read(buffer)
	if err != nil {
		return frame{}, err
	}
	if n == 0 {
		return frame{}, errors.New("the worker closed its end")
	}
	return parseFrame(buffer[:n])
}

// whole is next for a frame that may come in parts.
func (w *process) whole(buffer []byte) (frame, error) {
	n, err := w.conn.Read(buffer)
	if err != nil {
		return frame{}, err
	}
	message, err := gather(buffer[:n], w.conn.Read)
	if err != nil {
		return frame{}, err
	}
	return parseFrame(message)
}

// answers reads what the worker answers until it ends. told is given what it tells of log-ins.
func (w *process) answers(told func([]byte) error) error {
	buffer := make([]byte, maxAnswer)
	for {
		f, err := w.next(buffer)
		if err != nil {
			return err
		}
		if f.kind == frameLogin {
			if err := told(f.body); err != nil {
				return err
			}
			continue
		}
		w.mu.Lock()
		c := w.calls[f.request]
		delete(w.calls, f.request)
		w.mu.Unlock()
		if c == nil {
			return fmt.Errorf("%w: a worker answered what was not asked", ErrProtocol)
		}
		switch f.kind {
		case frameAnswer:
			c.answer <- workerAnswer{signature: append([]byte(nil), f.body...)}
		case frameError:
			failure := parseError(f.body)
			c.answer <- workerAnswer{err: failure}
			if hsm.NeedsPerson(failure) {
				return failure
			}
		default:
			return fmt.Errorf("%w: a worker answered with a frame of type %d", ErrProtocol, f.kind)
		}
	}
}

// sign has the worker sign a digest, and fails when the worker ends meanwhile.
func (w *process) sign(r digestRequest) ([]byte, error) {
	select {
	case w.room <- struct{}{}:
	case <-w.ended:
		return nil, w.why
	}
	defer func() { <-w.room }()
	c := &call{since: time.Now(), answer: make(chan workerAnswer, 1)}
	w.mu.Lock()
	w.count++
	number := w.count
	w.calls[number] = c
	w.mu.Unlock()
	var head [3]byte
	binary.BigEndian.PutUint16(head[:], uint16(r.key))
	head[2] = wireHashes[r.hash]
	if _, err := w.conn.Write(appendFrame(make([]byte, 0, maxDigest), frameDigest, number, head[:], r.digest)); err != nil {
		_ = w.conn.Close() // whoever reads from it ends the worker, and with it this call
	}
	select {
	case a := <-c.answer:
		return a.signature, a.err
	case <-w.ended:
		return nil, w.why
	}
}

func (w *process) available() error { return nil }

// WorkerSocket is the worker's end of what its keeper gave it.
func WorkerSocket() (*os.File, error) {
	const inherited = 3
	if kind, err := syscall.GetsockoptInt(inherited, syscall.SOL_SOCKET, syscall.SO_TYPE); err != nil || kind != syscall.SOCK_SEQPACKET {
		return nil, errors.Join(errors.New("this command is started by a keeper, which gives it a socket"), err)
	}
	return os.NewFile(inherited, "keeper"), nil
}
