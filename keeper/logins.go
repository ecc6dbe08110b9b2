package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/chancery-ca/chancery/hsm"
)

// logins is told of each log-in to a token, and of each attempt: the first, and those after a loss. What it fails to record, fails. It is
// the one observer of a keeper's token: what keys do is written down where it is asked for.
type logins func(serial string, failed error) error

// Observe implements hsm.Observer.
func (l logins) Observe(_ context.Context, o hsm.Operation) error {
	if o.Op != hsm.OpOpen {
		return nil
	}
	return l(o.Token, o.Err)
}

// login is what a worker tells of one, in JSON.
type login struct {
	Serial string `json:"serial"`
	Failed []byte `json:"failed,omitempty"` // an error as the wire has it
}

// report is the log-ins of a worker, which tells its keeper.
func (w *worker) report(serial string, failed error) error {
	l := login{Serial: serial}
	if failed != nil {
		l.Failed = appendError(nil, failed)
	}
	body, err := json.Marshal(l)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.send(appendFrame(nil, frameLogin, 0, body))
}

// told writes down what a worker reported. A failure after which a person is needed is an error, whether or not it could be written down: such a
// token is opened no more, and the worker has nothing more to do.
func (t *token) told(body []byte) error {
	var l login
	if err := json.Unmarshal(body, &l); err != nil {
		return fmt.Errorf("%w: a worker's log-in cannot be read: %w", ErrProtocol, err)
	}
	if len(l.Failed) == 0 {
		return t.loggedIn(l.Serial, nil)
	}
	failed := parseError(l.Failed)
	unwritten := t.loggedIn(l.Serial, failed)
	if hsm.NeedsPerson(failed) {
		return errors.Join(failed, unwritten)
	}
	return unwritten
}

// noteLogin writes down that a token was logged in to, or that an attempt failed: of attempts that fail alike, one after the other, the
// first alone, so that a token that is away does not fill the disk.
func (k *Keeper) noteLogin(t *token, serial string, failed error) error {
	if hsm.NeedsPerson(failed) {
		t.needed(failed) // first of all: neither a full disk nor the end of this process must bring another try
	}
	e := entry{Kind: kindToken, Detail: t.Name, Scope: serial, Result: resultOpened}
	if failed != nil {
		e.Result, e.Why = resultFailed, failed.Error()
	}
	t.mu.Lock()
	again := failed != nil && t.failed == e.Why
	t.inside, t.failed = failed == nil, e.Why
	t.mu.Unlock()
	if again {
		return nil
	}
	return k.journal.add(e)
}

// noteLogout writes down that a token that was logged in to is away. A journal that cannot be written stops every signature by itself: here
// it is only said.
func (k *Keeper) noteLogout(t *token, why error) {
	if why == nil {
		why = errClosed
	}
	e := entry{Kind: kindToken, Detail: t.Name, Result: resultClosed, Why: why.Error()}
	t.mu.Lock()
	inside := t.inside
	t.inside, e.Scope = false, t.info.Serial
	t.mu.Unlock()
	if !inside {
		return
	}
	if err := k.journal.add(e); err != nil {
		t.log.Error("that the token is away could not be written into the journal", "error", err)
	}
}
