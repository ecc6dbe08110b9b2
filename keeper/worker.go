package keeper

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/chancery-ca/chancery/hsm"
)

const (
	// closeTime is how long a worker that is to end waits for its token to be closed. A library that hangs does not keep it.
	closeTime = 2 * time.Second
	// ahead is how many calls a worker is given for each session, so that it does not wait for the next when one has ended.
	ahead = 2
)

// startRequest is the body of frameStart, in JSON: the one message with a secret. It goes over a socket that only the two processes have.
type startRequest struct {
	Module              string       `json:"module"`
	Selector            hsm.Selector `json:"selector"`
	PIN                 []byte       `json:"pin"`
	Sessions            int          `json:"sessions"`
	RetryAfterFailedPIN bool         `json:"retry_after_failed_pin"`
	Keys                []workerKey  `json:"keys"`
}

// workerKey is a key that a worker finds in its token.
type workerKey struct {
	Name     string `json:"name"`
	Label    string `json:"label"`
	ID       []byte `json:"id"`
	SPKI     []byte `json:"spki"` // the pinned public key
	Restored bool   `json:"restored"`
	// Require is what the key and its token must be, and Declared what the operator says of the token.
	Require  hsm.Requirement `json:"require"`
	Declared hsm.Declaration `json:"declared"`
}

// started is the answer to it.
type started struct {
	Token hsm.TokenInfo `json:"token"`
	Wrong []string      `json:"wrong"` // what is wrong with keys that were not found or not taken
	// Lacks says, by the names of keys, what keys or the token lack of what is required of them.
	Lacks map[string]string `json:"lacks,omitempty"`
}

// RunWorker is the body of a worker process: it opens the token that the keeper names over the socket, and signs the digests that the keeper
// sends, until the keeper closes its end. It returns then even when a call into the library hangs; the process must end with it.
func RunWorker(ctx context.Context, socket *os.File, log *slog.Logger) error {
	defer socket.Close()
	fd := int(socket.Fd())
	stop := context.AfterFunc(ctx, func() { _ = syscall.Shutdown(fd, syscall.SHUT_RDWR) })
	defer stop()
	w := &worker{socket: fd, log: log}
	if err := w.start(ctx); err != nil {
		_ = w.send(appendFrame(nil, frameError, 0, appendError(nil, err)))
		return err
	}
	err := w.serve()
	closed := make(chan error, 1)
	go func() { closed <- w.token.Close() }()
	select {
	case failed := <-closed:
		return errors.Join(err, failed)
	case <-time.After(closeTime):
		return errors.Join(err, errors.New("closing the token: the library does not answer"))
	}
}

type worker struct {
	socket int
	log    *slog.Logger
	token  *hsm.Recovering
	keys   []*workersKey
	places int
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

// workersKey is a key as the worker has it.
type workersKey struct {
	workerKey
	mu     sync.Mutex
	signer hsm.Signer
	err    error
	at     time.Time
}

func (w *worker) start(ctx context.Context) error {
	message := make([]byte, maxStart)
	defer clear(message)
	n, err := w.receive(message)
	if err != nil {
		return fmt.Errorf("reading what to open: %w", err)
	}
	first, err := parseFrame(message[:n])
	if err != nil {
		return err
	}
	var s startRequest
	if first.kind != frameStart {
		return fmt.Errorf("%w: a worker is started first", ErrProtocol)
	}
	if err := json.Unmarshal(first.body, &s); err != nil {
		return fmt.Errorf("%w: reading what to open", ErrProtocol) // the words of err could hold the PIN
	}
	pin := hsm.PINFromBytes(s.PIN)
	clear(s.PIN)
	w.token, err = hsm.OpenRecovering(ctx, hsm.Config{
		Module: s.Module, Token: s.Selector, PIN: pin, MaxSessions: s.Sessions, RetryAfterFailedPIN: s.RetryAfterFailedPIN,
	}, w.log)
	if err != nil {
		return err
	}
	w.places = s.Sessions
	answer := started{Token: w.token.Info(), Lacks: map[string]string{}}
	for _, k := range s.Keys {
		one := &workersKey{workerKey: k}
		if _, err := one.find(w.token); err != nil {
			answer.Wrong = append(answer.Wrong, fmt.Sprintf("key %q: %v", k.Name, err))
			if errors.Is(err, hsm.ErrNotCompliant) {
				answer.Lacks[k.Name] = err.Error()
			}
		}
		w.keys = append(w.keys, one)
	}
	body, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	return w.send(appendFrame(nil, frameAnswer, 0, body))
}

// find finds the key in the token; one that was not there is looked for again, at most once a second.
func (k *workersKey) find(token *hsm.Recovering) (hsm.Signer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.signer != nil {
		return k.signer, nil
	}
	if k.err != nil && time.Since(k.at) < time.Second {
		return nil, k.err
	}
	k.at = time.Now()
	public, err := x509.ParsePKIXPublicKey(k.SPKI)
	if err == nil {
		k.signer, err = k.open(token, public)
	}
	if k.err = err; err != nil && !unavailable(err) {
		k.err = fmt.Errorf("%w: %w", hsm.ErrUnavailable, err)
	}
	return k.signer, k.err
}

// serve signs until the keeper closes its end. It does not wait for calls that hang.
//
// Each place is a goroutine that reads a message, signs, and answers, with no other in between: waking one another would cost more than
// many a signature.
func (w *worker) serve() error {
	// A place that waits in a call keeps its processor for as long as nobody else needs it, so there is one for each.
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), w.places+1))
	ended := make(chan error, w.places)
	for range w.places {
		go func() { ended <- w.place() }()
	}
	return <-ended
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
		if err != nil || job.key >= len(w.keys) {
			return fmt.Errorf("%w: a request for key %d: %w", ErrProtocol, job.key, err)
		}
		if signature, err := w.sign(job); err != nil {
			answer = appendFrame(answer[:0], frameError, f.request, appendError(nil, err))
		} else {
			answer = appendFrame(answer[:0], frameAnswer, f.request, signature)
		}
		if err := w.send(answer); err != nil {
			return fmt.Errorf("answering the keeper: %w", err)
		}
	}
}

func (w *worker) sign(job digestRequest) ([]byte, error) {
	signer, err := w.keys[job.key].find(w.token)
	if err != nil {
		return nil, err
	}
	return signer.Sign(nil, job.digest, job.hash)
}

// healthMessage is what a key signs to show that it can: nothing that anybody takes for a certificate, and different each time.
func healthMessage(random []byte) [sha256.Size]byte {
	return sha256.Sum256(append([]byte("chancery keeper: this key answers\n"), random...))
}
