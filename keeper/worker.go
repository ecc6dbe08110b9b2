package keeper

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chancery-ca/chancery/hsm"
)

// closeTime is how long a worker that is to end waits for its token to be closed. A library that hangs does not keep it.
const closeTime = 2 * time.Second

const (
	// ahead is how many calls a worker is given for each session, so that it does not wait for the next when one has ended.
	ahead = 2
	// together is how many answers of a worker share a write while more are about to come, and latest how long the first of them waits for
	// the others: far less than a token needs that is worth waiting for.
	together = 4
	latest   = 200 * time.Microsecond
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

// RunWorker is the body of a worker process: it opens the token that the keeper names over conn, and signs the digests that the keeper
// sends, until conn ends. It returns then even when a call into the library hangs; the process must end with it.
func RunWorker(ctx context.Context, conn net.Conn, log *slog.Logger) error {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	w := &worker{frames: newFrameReader(conn, maxFrame), out: newOutbox(conn), log: log}
	err := w.start(ctx)
	if err != nil {
		_ = w.out.put(frameError, 0, appendError(nil, err))
		w.out.flush()
		return err
	}
	err = w.serve()
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
	frames *frameReader
	out    *outbox
	log    *slog.Logger
	token  *hsm.Recovering
	keys   []*workersKey
	places int

	unanswered atomic.Int32 // calls that were taken and not yet answered
	unsent     atomic.Int32 // answers that may not have been written yet
	late       *time.Timer  // writes them when nobody else does
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
	first, err := w.frames.next()
	if err != nil {
		return fmt.Errorf("reading what to open: %w", err)
	}
	var s startRequest
	if first.kind != frameStart {
		return fmt.Errorf("%w: a worker is started first", ErrProtocol)
	}
	if err := json.Unmarshal(first.body, &s); err != nil {
		return fmt.Errorf("%w: reading what to open", ErrProtocol) // the words of err could hold the PIN
	}
	clear(first.body)
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
	if err := w.out.put(frameAnswer, 0, body); err != nil {
		return err
	}
	w.out.flush()
	return nil
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

// digestJob is one digest to sign.
type digestJob struct {
	request uint64
	digestRequest
	octets [64]byte // the digest, out of the reader's buffer
}

// serve signs until the keeper closes the connection. It does not wait for calls that hang.
func (w *worker) serve() error {
	jobs := make(chan digestJob, ahead*w.places)
	defer close(jobs)
	w.late = time.AfterFunc(time.Hour, w.out.flush)
	defer w.late.Stop()
	for range w.places {
		go func() {
			for job := range jobs {
				w.sign(job)
				w.answered()
			}
		}()
	}
	for {
		f, err := w.frames.next()
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading from the keeper: %w", err)
		}
		if f.kind != frameDigest {
			return fmt.Errorf("%w: a frame of type %d", ErrProtocol, f.kind)
		}
		request, err := parseDigest(f.body)
		if err != nil || request.key >= len(w.keys) {
			return fmt.Errorf("%w: a request for key %d: %w", ErrProtocol, request.key, err)
		}
		job := digestJob{request: f.request, digestRequest: request}
		job.digest = job.octets[:copy(job.octets[:], request.digest)]
		w.unanswered.Add(1)
		jobs <- job
	}
}

func (w *worker) sign(job digestJob) {
	signature, err := w.signature(job)
	if err != nil {
		_ = w.out.put(frameError, job.request, appendError(nil, err))
	} else {
		_ = w.out.put(frameAnswer, job.request, signature)
	}
}

// answered writes answers: together while others are about to come, at once when none is.
func (w *worker) answered() {
	left, unsent := w.unanswered.Add(-1), w.unsent.Add(1)
	switch {
	case left == 0 || unsent >= together:
		w.unsent.Store(0)
		w.out.flush()
	case unsent == 1:
		w.late.Reset(latest)
	}
}

func (w *worker) signature(job digestJob) ([]byte, error) {
	signer, err := w.keys[job.key].find(w.token)
	if err != nil {
		return nil, err
	}
	return signer.Sign(nil, job.octets[:len(job.digest)], job.hash)
}

// healthMessage is what a key signs to show that it can: nothing that anybody takes for a certificate, and different each time.
func healthMessage(random []byte) [sha256.Size]byte {
	return sha256.Sum256(append([]byte("chancery keeper: this key answers\n"), random...))
}
