package keeper

import (
	"context"
	"crypto"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/chancery-ca/chancery/hsm"
)

const (
	defaultSessions     = 8
	defaultCallTimeout  = 3 * time.Second
	defaultStartTimeout = 10 * time.Second
	// restartFirst and restartMost are the pauses before a worker is started again, doubling from one to the other; one that has lived for
	// restartCalm begins with the first again.
	restartFirst = 50 * time.Millisecond
	restartMost  = time.Second
	restartCalm  = 30 * time.Second
	// watchEvery is how often the calls in a worker are looked at. It bounds by how much one can exceed its timeout.
	watchEvery = 50 * time.Millisecond
	// maxQueue bounds the calls that wait for a place in one token.
	maxQueue = 1024
)

// TokenConfig is a token that the keeper holds.
type TokenConfig struct {
	Name string // by which policies name it; unique
	// HSM says which token it is and how to log in to it. Of its MaxSessions, 0 meaning 8, each has a call and the next one waiting in the worker.
	HSM hsm.Config
	// Declared is what the token does not tell of itself, for keys that require it.
	Declared hsm.Declaration
	// CallTimeout is how long one call into the library, and the one before it, may take before their worker is killed and started again.
	// 0 means 3 seconds.
	CallTimeout time.Duration
	// StartTimeout is the same for opening the token and logging in. 0 means 10 seconds.
	StartTimeout time.Duration
}

// token is the supervision of one token's worker.
type token struct {
	TokenConfig
	keys    []workerKey
	command func() *exec.Cmd
	log     *slog.Logger

	mu      sync.Mutex
	worker  *workerProcess // nil while there is none that can sign
	info    hsm.TokenInfo
	why     error             // why there is none
	stopped error             // a person is needed
	lacks   map[string]string // by a key's name: what the last worker found lacking of what is required
	waiting []*call
	settled chan struct{} // closed when the first start has come to an end, good or bad
	first   sync.Once
}

// call is one digest on its way through a worker.
type call struct {
	key    int
	hash   crypto.Hash
	digest []byte
	done   func(signature []byte, err error) // called once; must not block; the signature is the callee's to keep
	since  time.Time                         // when it was given to the worker
}

// workerProcess is a worker that can sign.
type workerProcess struct {
	conn  *net.UnixConn
	out   *outbox
	cmd   *exec.Cmd
	calls map[uint64]*call // guarded by token.mu
	next  uint64
}

func newToken(c TokenConfig, keys []workerKey, command func() *exec.Cmd, log *slog.Logger) *token {
	if c.HSM.MaxSessions == 0 {
		c.HSM.MaxSessions = defaultSessions
	}
	if c.CallTimeout == 0 {
		c.CallTimeout = defaultCallTimeout
	}
	if c.StartTimeout == 0 {
		c.StartTimeout = defaultStartTimeout
	}
	return &token{
		TokenConfig: c, keys: keys, command: command, log: log.With("token", c.Name), why: errors.New("its worker has not started yet"),
		settled: make(chan struct{}),
	}
}

// run keeps a worker running until the context ends or a person is needed.
func (t *token) run(ctx context.Context) {
	pause := restartFirst
	for ctx.Err() == nil {
		began := time.Now()
		err := t.oneWorker(ctx)
		t.away(err)
		if ctx.Err() != nil {
			return
		}
		if hsm.NeedsPerson(err) {
			t.log.ErrorContext(ctx, "the token stays closed: trying again could lock it; see that the PIN is right and restart the keeper", "error", err)
			t.mu.Lock()
			t.stopped = err
			t.mu.Unlock()
			return
		}
		if time.Since(began) > restartCalm {
			pause = restartFirst
		}
		t.log.WarnContext(ctx, "the worker has ended; starting another", "error", err, "pause", pause.String())
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, restartMost)
	}
}

// away fails everything that was in the worker or waited for it.
func (t *token) away(why error) {
	t.mu.Lock()
	var failed []*call
	if w := t.worker; w != nil {
		for _, c := range w.calls {
			failed = append(failed, c)
		}
		w.calls = nil
	}
	failed = append(failed, t.waiting...)
	t.worker, t.waiting, t.why = nil, nil, why
	t.mu.Unlock()
	t.first.Do(func() { close(t.settled) })
	for _, c := range failed {
		c.done(nil, fmt.Errorf("%w: %w", hsm.ErrUnavailable, why))
	}
}

// oneWorker runs one worker from its start to its end, and says why it ended.
func (t *token) oneWorker(ctx context.Context) (err error) {
	// The PIN comes first: a variable of the environment that holds it is gone before the worker inherits the rest.
	pin, err := t.HSM.PIN.Reveal()
	if err != nil {
		return err
	}
	defer clear(pin)
	w, err := t.spawn()
	if err != nil {
		return err
	}
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
			err = t.ending(err, waited)
		case <-time.After(closeTime + time.Second): // it was given the time to close its token
			kill()
			err = t.ending(err, <-ended)
		}
	}()
	frames := newFrameReader(w.conn, maxFrame)
	info, err := t.begin(w, frames, pin)
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			kill()
			return fmt.Errorf("%w after %s", errSlow, t.StartTimeout)
		}
		return err
	}
	t.mu.Lock()
	t.worker, t.info, t.why = w, info, nil
	t.mu.Unlock()
	t.first.Do(func() { close(t.settled) })
	t.log.InfoContext(ctx, "the token is open", "label", info.Label, "serial", info.Serial, "worker", w.cmd.Process.Pid)
	watching, unwatch := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { t.watch(watching, w, unwatch, kill) })
	err = t.answers(w, frames)
	unwatch(nil)
	watch.Wait()
	if why := context.Cause(watching); errors.Is(why, errHung) {
		err = why
	}
	return err
}

// ending joins why the conversation with a worker ended with how the process did.
func (t *token) ending(err, waited error) error {
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
func (t *token) spawn() (*workerProcess, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("a socket for the worker: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "worker"), os.NewFile(uintptr(pair[1]), "keeper")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("a socket for the worker: %w", err)
	}
	cmd := t.command()
	cmd.ExtraFiles = []*os.File{theirs}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("starting the worker: %w", err), conn.Close())
	}
	return &workerProcess{conn: conn.(*net.UnixConn), out: newOutbox(conn), cmd: cmd, calls: map[uint64]*call{}}, nil
}

// WorkerConn is the worker's end of what its keeper gave it.
func WorkerConn() (net.Conn, error) {
	file := os.NewFile(3, "keeper")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("this command is started by a keeper, which gives it a socket: %w", err)
	}
	return conn, nil
}

// begin tells the worker what to open, and waits until it has.
func (t *token) begin(w *workerProcess, frames *frameReader, pin []byte) (hsm.TokenInfo, error) {
	body, err := json.Marshal(startRequest{
		Module: t.HSM.Module, Selector: t.HSM.Token, PIN: pin, Sessions: t.HSM.MaxSessions,
		RetryAfterFailedPIN: t.HSM.RetryAfterFailedPIN, Keys: t.keys,
	})
	defer clear(body)
	if err != nil {
		return hsm.TokenInfo{}, err
	}
	whole := appendFrame(nil, frameStart, 0, body)
	defer clear(whole)
	if err := w.conn.SetDeadline(time.Now().Add(t.StartTimeout)); err != nil {
		return hsm.TokenInfo{}, err
	}
	if _, err := w.conn.Write(whole); err != nil {
		return hsm.TokenInfo{}, fmt.Errorf("telling the worker what to open: %w", err)
	}
	f, err := frames.next()
	switch {
	case err != nil:
		return hsm.TokenInfo{}, fmt.Errorf("waiting for the worker to open the token: %w", err)
	case f.kind == frameError:
		return hsm.TokenInfo{}, parseError(f.body)
	case f.kind != frameAnswer:
		return hsm.TokenInfo{}, fmt.Errorf("%w: a worker answered with a frame of type %d", ErrProtocol, f.kind)
	}
	var s started
	if err := json.Unmarshal(f.body, &s); err != nil {
		return hsm.TokenInfo{}, fmt.Errorf("%w: what a worker opened cannot be read: %w", ErrProtocol, err)
	}
	for _, wrong := range s.Wrong {
		t.log.Error("a key cannot be used; looking for it again when it is asked for", "error", wrong)
	}
	t.mu.Lock()
	t.lacks = s.Lacks
	t.mu.Unlock()
	return s.Token, w.conn.SetDeadline(time.Time{})
}

// Why the keeper itself kills a worker.
var (
	errHung = errors.New("a call into the library did not come back: the worker was killed")
	errSlow = errors.New("opening the token took too long: the worker was killed")
)

// watch kills the worker when a call in it takes too long.
func (t *token) watch(ctx context.Context, w *workerProcess, unwatch context.CancelCauseFunc, kill func()) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if t.oldest(w, now) > t.CallTimeout {
				unwatch(errHung)
				kill()
				return
			}
		}
	}
}

func (t *token) oldest(w *workerProcess, now time.Time) (longest time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range w.calls {
		longest = max(longest, now.Sub(c.since))
	}
	return longest
}

// answers reads what the worker answers until it ends.
func (t *token) answers(w *workerProcess, frames *frameReader) error {
	for {
		f, err := frames.next()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("the worker closed its end")
			}
			return err
		}
		c := t.answered(w, f.request)
		if c == nil {
			return fmt.Errorf("%w: a worker answered what was not asked", ErrProtocol)
		}
		switch f.kind {
		case frameAnswer:
			c.done(append([]byte(nil), f.body...), nil)
		case frameError:
			failure := parseError(f.body)
			c.done(nil, failure)
			if hsm.NeedsPerson(failure) {
				return failure
			}
		default:
			return fmt.Errorf("%w: a worker answered with a frame of type %d", ErrProtocol, f.kind)
		}
		w.out.flush()
	}
}

// answered takes a call out of the worker, and puts the next that waits in its place.
func (t *token) answered(w *workerProcess, request uint64) *call {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := w.calls[request]
	if c == nil {
		return nil
	}
	delete(w.calls, request)
	if len(t.waiting) > 0 {
		next := t.waiting[0]
		t.waiting[0] = nil
		t.waiting = t.waiting[1:]
		t.give(w, next)
	}
	return c
}

// give puts a call into the worker. The lock is held.
func (t *token) give(w *workerProcess, c *call) {
	w.next++
	c.since = time.Now()
	w.calls[w.next] = c
	// When this fails the connection is closed, and whoever reads from it ends the worker and fails the call.
	var head [3]byte
	binary.BigEndian.PutUint16(head[:], uint16(c.key))
	head[2] = wireHashes[c.hash]
	_ = w.out.put(frameDigest, w.next, head[:], c.digest)
}

// submit has a digest signed. The caller flushes when it has submitted what it has. A token that is away fails it at once.
func (t *token) submit(c *call) {
	t.mu.Lock()
	var err error
	switch w := t.worker; {
	case w == nil:
		err = fmt.Errorf("%w: token %q: %w", hsm.ErrUnavailable, t.Name, t.why)
	case len(w.calls) < ahead*t.HSM.MaxSessions:
		t.give(w, c)
	case len(t.waiting) < maxQueue:
		t.waiting = append(t.waiting, c)
	default:
		err = fmt.Errorf("%w: token %q: %w", hsm.ErrUnavailable, t.Name, errBusy)
	}
	t.mu.Unlock()
	if err != nil {
		c.done(nil, err)
	}
}

func (t *token) flush() {
	t.mu.Lock()
	w := t.worker
	t.mu.Unlock()
	if w != nil {
		w.out.flush()
	}
}

// state is the token as it was last seen, and whether it can sign now.
func (t *token) state() (hsm.TokenInfo, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.worker == nil {
		return t.info, fmt.Errorf("%w: token %q: %w", hsm.ErrUnavailable, t.Name, t.why)
	}
	return t.info, nil
}
