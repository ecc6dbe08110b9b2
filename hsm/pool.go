package hsm

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/miekg/pkcs11"
)

// pool holds sessions for the operations that crypto11 does not offer, or offers with a panic. They are opened when they are first
// needed, at most as many as sign at once, and kept for the next.
type pool struct {
	room room // one place for each session

	mu   sync.Mutex
	idle []pkcs11.SessionHandle
}

// room has a place for each of a number of sessions, and a limit for waiting until one is free. crypto11's own sessions have one, too:
// crypto11 takes a limit for each wait, but makes a timer for each call, whether it waits or not.
type room struct {
	places chan struct{} // holds one for each session in use
	wait   time.Duration
}

func newRoom(sessions int, wait time.Duration) room { return room{make(chan struct{}, sessions), wait} }

// enter takes a place, which leave gives back.
func (r room) enter() error {
	select {
	case r.places <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(r.wait)
	defer timer.Stop()
	select {
	case r.places <- struct{}{}:
		return nil
	case <-timer.C:
		return fmt.Errorf("%w: all %d sessions are in use; try again, or configure more sessions", ErrUnavailable, cap(r.places))
	}
}

func (r room) leave() { <-r.places }

// inOwnSession runs work with a session that nobody else has. A session in which anything failed is closed: an operation may still be
// active in it, and what is wrong may be the session. The caller is in the work of using.
func (t *Token) inOwnSession(o *Operation, work func(session) error) (err error) {
	if err := t.pool.room.enter(); err != nil {
		return err
	}
	defer t.pool.room.leave()
	ctx := t.module.ctx
	handle, ok := t.pool.take()
	if !ok {
		if handle, err = ctx.OpenSession(t.info.Slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION); err != nil {
			return fmt.Errorf("opening a session: %w", err)
		}
	}
	o.Session = uint(handle)
	defer func() {
		if err != nil {
			_ = ctx.CloseSession(handle) // what went wrong is told already
			return
		}
		t.pool.put(handle)
	}()
	return work(session{t, ctx, handle})
}

func (p *pool) take() (pkcs11.SessionHandle, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) == 0 {
		return 0, false
	}
	last := len(p.idle) - 1
	handle := p.idle[last]
	p.idle = p.idle[:last]
	return handle, true
}

func (p *pool) put(handle pkcs11.SessionHandle) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, handle)
}

// closeAll closes the sessions of a token that nobody uses any more. One that is gone already needs no closing.
func (p *pool) closeAll(ctx *pkcs11.Ctx) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, handle := range p.idle {
		_ = ctx.CloseSession(handle)
	}
	p.idle = nil
}

// withKey carries out an operation with one key: it is found in the housekeeping session among the given classes, the mechanism is chosen
// for it, the usage policy is asked, and work is done in a session of its own.
func (t *Token) withKey(ctx context.Context, o *Operation, classes []uint, ref KeyRef,
	mechanism func(key) (*pkcs11.Mechanism, error), work func(session, key, []*pkcs11.Mechanism) error,
) error {
	return t.using(ctx, o, func() error {
		var found key
		err := t.locked(o, func(s session) (err error) {
			found, err = s.oneAmong(classes, ref)
			return err
		})
		if err != nil {
			return err
		}
		o.Key = found.ref
		m, err := mechanism(found)
		if err != nil {
			return err
		}
		o.Mechanism = mechanismName(m.Mechanism)
		if err := t.permit(ctx, o); err != nil {
			return err
		}
		return t.inOwnSession(o, func(s session) error { return work(s, found, []*pkcs11.Mechanism{m}) })
	})
}

// oneAmong returns the one key of the given classes that ref names.
func (s session) oneAmong(classes []uint, ref KeyRef) (key, error) {
	var found []key
	for _, class := range classes {
		object, there, err := s.lookUp(class, ref)
		if err != nil {
			return key{}, err
		}
		if !there {
			continue
		}
		k, err := s.key(object)
		if err != nil {
			return key{}, err
		}
		found = append(found, k)
	}
	switch len(found) {
	case 0:
		return key{}, s.absent(ref, classes...)
	case 1:
		return found[0], nil
	}
	return key{}, fmt.Errorf("%w: a key pair and a secret key have %s; name one by label and CKA_ID", ErrAmbiguous, ref)
}

// errMechanism says what to do where the token does not offer what was asked for.
func errMechanism(err error, remedy string) error {
	if is(err, pkcs11.CKR_MECHANISM_INVALID, pkcs11.CKR_MECHANISM_PARAM_INVALID, pkcs11.CKR_ARGUMENTS_BAD, pkcs11.CKR_FUNCTION_NOT_SUPPORTED) {
		return fmt.Errorf("%w: %s: %w", ErrNotSupported, remedy, err)
	}
	if is(err, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, pkcs11.CKR_KEY_TYPE_INCONSISTENT) {
		return fmt.Errorf("the key is not for this (`chancery hsm key show` tells its CKA_ attributes): %w", err)
	}
	if is(err, pkcs11.CKR_KEY_SIZE_RANGE) {
		return fmt.Errorf("the key is too short or too long for this: %s: %w", remedy, err)
	}
	return err
}

// ErrNotSupported means that the token does not offer the mechanism, with these parameters or for this key.
var ErrNotSupported = errors.New("the token does not support this")
