package keeper

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/chancery-ca/chancery/hsm"
)

// ahead is how many calls a worker is given for each session, so that it does not wait for the next when one has ended.
const ahead = 2

// startRequest is what frameStart says in JSON, after the PIN.
type startRequest struct {
	Module              string       `json:"module"`
	Selector            hsm.Selector `json:"selector"`
	Sessions            int          `json:"sessions"`
	RetryAfterFailedPIN bool         `json:"retry_after_failed_pin"`
	Keys                []tokenKey   `json:"keys"`
	// StartTimeout is how long the token may take when it is lost and opened anew. The first time the keeper watches by itself.
	StartTimeout time.Duration `json:"start_timeout"`
}

// startFrame is the one message with a secret: the PIN, as a text, and the rest in JSON. It goes over a socket that only the two processes have. The
// PIN is written once, where the caller can wipe it: encoding/json keeps the memory that it wrote in for whatever comes next.
func startFrame(pin []byte, s startRequest) ([]byte, error) {
	rest, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	if len(pin) > math.MaxUint16 {
		return nil, fmt.Errorf("a PIN of %d octets", len(pin))
	}
	length := binary.BigEndian.AppendUint16(nil, uint16(len(pin)))
	whole := make([]byte, 0, 4+frameHead+len(length)+len(pin)+len(rest))
	return appendFrame(whole, frameStart, 0, length, pin, rest), nil
}

// parseStart reads the body of frameStart. The PIN is part of the body.
func parseStart(body []byte) (pin []byte, s startRequest, err error) {
	r := wireReader{rest: body}
	pin = r.text()
	if err := json.Unmarshal(r.rest, &s); r.short || err != nil {
		return nil, s, fmt.Errorf("%w: reading what to open", ErrProtocol)
	}
	return pin, s, nil
}

// RunWorker is the body of a worker process: it opens the token that the keeper names over the socket, and signs the digests that the
// keeper sends, until the keeper closes its end or is gone. It returns then even when a call into the library hangs; the process must end
// with it.
func RunWorker(ctx context.Context, socket *os.File, log *slog.Logger) error {
	defer socket.Close()
	fd := int(socket.Fd())
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go endWithParent(ctx, os.Getppid(), cancel)
	stop := context.AfterFunc(ctx, func() { _ = syscall.Shutdown(fd, syscall.SHUT_RDWR) })
	defer stop()
	w := &worker{socket: fd, log: log}
	if err := w.start(ctx); err != nil {
		_ = w.send(appendFrame(nil, frameError, 0, appendError(nil, err)))
		return err
	}
	err := w.serve(ctx)
	return errors.Join(err, w.opened.close())
}

// endWithParent ends the context when the process has another parent than it had. That the keeper's end of the socket is closed is seen by a
// place that reads: where all of them hang in the library nobody does, and the next worker would find the token in use.
func endWithParent(ctx context.Context, parent int, end func()) {
	tick := time.NewTicker(aliveEvery)
	defer tick.Stop()
	for os.Getppid() == parent {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	end()
}

type worker struct {
	socket int
	log    *slog.Logger
	mu     sync.Mutex // held while it sends what may have parts, or what may come between them
	opened *opened
	places int
	limit  time.Duration // for opening the token anew
}

// receive waits for one message of the keeper, in this thread: the kernel gives each message to one of those who wait, and wakes no other.
// 0 octets mean that the keeper has closed its end.
func (w *worker) receive(into []byte) (int, error) {
	for {
		n, err := syscall.Read(w.socket, into)
		if !errors.Is(err, syscall.EINTR) {
			return n, err
		}
	}
}

// send sends one message, whole.
func (w *worker) send(message []byte) error {
	for {
		_, err := syscall.Write(w.socket, message)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

func (w *worker) start(ctx context.Context) error {
	beginning := make([]byte, maxPart)
	defer clear(beginning)
	n, err := w.receive(beginning)
	if err != nil {
		return fmt.Errorf("reading what to open: %w", err)
	}
	message, err := gather(beginning[:n], w.receive)
	if err != nil {
		return fmt.Errorf("reading what to open: %w", err)
	}
	defer clear(message)
	first, err := parseFrame(message)
	if err != nil {
		return err
	}
	if first.kind != frameStart {
		return fmt.Errorf("%w: a worker is started first", ErrProtocol)
	}
	given, s, err := parseStart(first.body)
	if err != nil {
		return err
	}
	pin := hsm.PINFromBytes(given)
	var found findings
	w.opened, found, err = open(ctx, hsm.Config{
		Module: s.Module, Token: s.Selector, PIN: pin, MaxSessions: s.Sessions, RetryAfterFailedPIN: s.RetryAfterFailedPIN,
		Observer: logins(w.report),
		Refused:  func(serial string, why error) { _ = w.report(serial, why) }, // what cannot be told now is told by the observer, or never
	}, s.Keys, w.log)
	if err != nil {
		return err
	}
	w.places, w.limit = s.Sessions, cmp.Or(s.StartTimeout, defaultStartTimeout)
	body, err := json.Marshal(found)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return inParts(appendFrame(nil, frameAnswer, 0, body), w.send)
}

// serve signs until the keeper closes its end, or is gone. It does not wait for calls that hang.
//
// Each place is a goroutine that reads a message, signs, and answers, with no other in between: waking one another would cost more than
// many a signature.
func (w *worker) serve(ctx context.Context) error {
	// A place that waits in a call keeps its processor for as long as nobody else needs it, so there is one for each.
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), w.places+1))
	ended := make(chan error, w.places+1)
	go func() { ended <- w.opened.stuck(ctx, w.limit) }()
	for range w.places {
		go func() { ended <- w.place() }()
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return errors.New("the keeper is gone")
	}
}

func (w *worker) place() error {
	message, answer := make([]byte, maxDigest), make([]byte, 0, maxAnswer)
	for {
		n, err := w.receive(message)
		if err != nil {
			return fmt.Errorf("reading from the keeper: %w", err)
		}
		if n == 0 {
			return nil
		}
		f, err := parseFrame(message[:n])
		if err != nil {
			return err
		}
		if f.kind != frameDigest {
			return fmt.Errorf("%w: a frame of type %d", ErrProtocol, f.kind)
		}
		job, err := parseDigest(f.body)
		if err != nil {
			return err
		}
		if signature, err := w.opened.sign(job); err != nil {
			answer = appendFrame(answer[:0], frameError, f.request, appendError(nil, err))
		} else {
			answer = appendFrame(answer[:0], frameAnswer, f.request, signature)
		}
		if err := w.send(answer); err != nil {
			return fmt.Errorf("answering the keeper: %w", err)
		}
	}
}
