package keeper

import (
	"context"
	"crypto"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
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
	// maxGiven bounds the calls that are in a worker: their messages, and the answers, must fit into the buffers of its socket, so that
	// neither side ever waits to send to the other, who waits as well. A message takes less than 1 KiB there, a buffer has some 200 KiB.
	maxGiven = 128
)

// TokenConfig is a token that the keeper holds.
type TokenConfig struct {
	Name string // by which policies name it; unique
	// HSM says which token it is and how to log in to it. Of its MaxSessions, 0 meaning 8, each has a call and the next one waiting in the worker,
	// 128 in all at most.
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
	number uint64                            // among those that the worker was given
	since  time.Time                         // when that was
}

// workerProcess is a worker that can sign.
type workerProcess struct {
	conn  *net.UnixConn
	cmd   *exec.Cmd
	calls map[uint64]*call // guarded by token.mu
	count uint64           // calls that it was given so far
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
	info, err := t.begin(w, pin)
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
	err = t.answers(w)
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
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
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
	return &workerProcess{conn: conn.(*net.UnixConn), cmd: cmd, calls: map[uint64]*call{}}, nil
}

// WorkerSocket is the worker's end of what its keeper gave it.
func WorkerSocket() (*os.File, error) {
	const inherited = 3
	if kind, err := syscall.GetsockoptInt(inherited, syscall.SOL_SOCKET, syscall.SO_TYPE); err != nil || kind != syscall.SOCK_SEQPACKET {
		return nil, errors.Join(errors.New("this command is started by a keeper, which gives it a socket"), err)
	}
	return os.NewFile(inherited, "keeper"), nil
}

// begin tells the worker what to open, and waits until it has.
func (t *token) begin(w *workerProcess, pin []byte) (hsm.TokenInfo, error) {
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
	if len(whole) > maxStart {
		return hsm.TokenInfo{}, fmt.Errorf("what is to be said of %d keys is more than %d octets: give some of them to another keeper", len(t.keys), maxStart)
	}
	if err := w.conn.SetDeadline(time.Now().Add(t.StartTimeout)); err != nil {
		return hsm.TokenInfo{}, err
	}
	if _, err := w.conn.Write(whole); err != nil {
		return hsm.TokenInfo{}, fmt.Errorf("telling the worker what to open: %w", err)
	}
	f, err := w.next(make([]byte, maxStart))
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

// next reads the next message of the worker into a buffer.
func (w *workerProcess) next(buffer []byte) (frame, error) {
	n, err := w.conn.Read(buffer)
	if err != nil {
		return frame{}, err
	}
	if n == 0 {
		return frame{}, errors.New("the worker closed its end")
	}
	return parseFrame(buffer[:n])
}

// answers reads what the worker answers until it ends.
func (t *token) answers(w *workerProcess) error {
	buffer := make([]byte, maxAnswer)
	for {
		f, err := w.next(buffer)
		if err != nil {
			return err
		}
		c, next := t.answered(w, f.request)
		if c == nil {
			return fmt.Errorf("%w: a worker answered what was not asked", ErrProtocol)
		}
		w.send(next)
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
	}
}

// answered takes a call out of the worker, and puts the next that waits, if one does, in its place: it is to be sent.
func (t *token) answered(w *workerProcess, request uint64) (answered, next *call) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if answered = w.calls[request]; answered == nil {
		return nil, nil
	}
	delete(w.calls, request)
	if len(t.waiting) > 0 {
		next = t.waiting[0]
		t.waiting[0] = nil
		t.waiting = t.waiting[1:]
		w.take(next)
	}
	return answered, next
}

// take notes that a call is the worker's. The lock is held.
func (w *workerProcess) take(c *call) {
	w.count++
	c.number, c.since = w.count, time.Now()
	w.calls[c.number] = c
}

// send sends a call that the worker has taken. When that fails the connection is closed, and whoever reads from it ends the worker and fails
// the call.
func (w *workerProcess) send(c *call) {
	if c == nil {
		return
	}
	var head [3]byte
	binary.BigEndian.PutUint16(head[:], uint16(c.key))
	head[2] = wireHashes[c.hash]
	if _, err := w.conn.Write(appendFrame(make([]byte, 0, maxDigest), frameDigest, c.number, head[:], c.digest)); err != nil {
		_ = w.conn.Close()
	}
}

// submit has a digest signed. A token that is away fails it at once.
func (t *token) submit(c *call) {
	t.mu.Lock()
	var err error
	w := t.worker
	taken := false
	switch {
	case w == nil:
		err = fmt.Errorf("%w: token %q: %w", hsm.ErrUnavailable, t.Name, t.why)
	case len(w.calls) < min(ahead*t.HSM.MaxSessions, maxGiven):
		w.take(c)
		taken = true
	case len(t.waiting) < maxQueue:
		t.waiting = append(t.waiting, c)
	default:
		err = fmt.Errorf("%w: token %q: %w", hsm.ErrUnavailable, t.Name, errBusy)
	}
	t.mu.Unlock()
	switch {
	case err != nil:
		c.done(nil, err)
	case taken:
		w.send(c)
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
