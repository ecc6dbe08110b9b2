package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/chancery-ca/chancery/hsm"
)

const (
	defaultSessions     = 8
	defaultCallTimeout  = 3 * time.Second
	defaultStartTimeout = 10 * time.Second
	// restartFirst and restartMost are the pauses before a token is opened again, doubling from one to the other; one that has been open for
	// restartCalm begins with the first again.
	restartFirst = 50 * time.Millisecond
	restartMost  = time.Second
	restartCalm  = 30 * time.Second
	// watchEvery is how often the calls into a library are looked at. It bounds by how much one can exceed its timeout.
	watchEvery = 50 * time.Millisecond
)

// TokenConfig is a token that the keeper holds.
type TokenConfig struct {
	Name string // by which policies name it; unique
	// HSM says which token it is and how to log in to it. A MaxSessions of 0 means 8.
	HSM hsm.Config
	// Declared is what the token does not tell of itself, for keys that require it.
	Declared hsm.Declaration
	// CallTimeout is how long one call into the library, and the one before it, may take before the process that made it is ended and started
	// again. 0 means 3 seconds.
	CallTimeout time.Duration
	// StartTimeout is the same for opening the token and logging in. 0 means 10 seconds.
	StartTimeout time.Duration
}

// token is a token, whoever has its library open: this process (here.go) or a worker (process.go).
type token struct {
	TokenConfig
	keys []tokenKey
	log  *slog.Logger
	// once opens the token, says so with ready, and returns when it is away again, and why.
	once func(context.Context) error
	// needed is told why the token is not to be opened again before a person has seen to it.
	needed func(error)
	// loggedIn writes into the journal that the token was logged in to, or that an attempt failed, and loggedOut that it went away.
	loggedIn  func(serial string, failed error) error
	loggedOut func(why error)

	mu      sync.Mutex
	open    signing // nil while the token is away
	info    hsm.TokenInfo
	why     error             // why it is away
	inside  bool              // the journal says that it is logged in to
	failed  string            // how the last attempt to log in failed, as the journal says it
	lacks   map[string]string // by a key's name: what was found lacking of what is required, when it was last opened
	settled chan struct{}     // closed when the first attempt to open it has come to an end, good or bad
	first   sync.Once
}

// errClosed is why a token is away that was closed in good order, whoever had it open.
var errClosed = errors.New("the keeper has closed it")

// signing is a token that is open.
type signing interface {
	sign(r digestRequest) ([]byte, error)
	// available tells whether it is lost at the moment.
	available() error
}

// newToken makes a token of the keeper, which is opened by a worker where there is a command for one, else here.
func (k *Keeper) newToken(c TokenConfig, keys []tokenKey) *token {
	if c.HSM.MaxSessions == 0 {
		c.HSM.MaxSessions = defaultSessions
	}
	if c.CallTimeout == 0 {
		c.CallTimeout = defaultCallTimeout
	}
	if c.StartTimeout == 0 {
		c.StartTimeout = defaultStartTimeout
	}
	t := &token{
		TokenConfig: c, keys: keys, log: k.config.Log.With("token", c.Name), why: errors.New("it has not been opened yet"),
		settled: make(chan struct{}),
	}
	t.once = func(ctx context.Context) error { return t.openHere(ctx, k.hang) }
	if command := k.config.Worker; command != nil {
		t.once = func(ctx context.Context) error { return t.openInWorker(ctx, command) }
	}
	t.loggedIn = func(serial string, failed error) error { return k.noteLogin(t, serial, failed) }
	t.loggedOut = func(why error) { k.noteLogout(t, why) }
	var once sync.Once
	t.needed = func(why error) {
		if tell := k.config.NeedsPerson; tell != nil {
			once.Do(func() { tell(c.Name, why) })
		}
	}
	return t
}

// run keeps the token open until the context ends or a person is needed.
func (t *token) run(ctx context.Context) {
	pause := restartFirst
	for ctx.Err() == nil {
		began := time.Now()
		err := t.once(ctx)
		t.away(err)
		t.loggedOut(err)
		if ctx.Err() != nil {
			return
		}
		if hsm.NeedsPerson(err) {
			t.log.ErrorContext(ctx, "the token stays closed: trying again could lock it; see that the PIN is right and restart the keeper", "error",
				err)
			t.needed(err)
			return
		}
		if time.Since(began) > restartCalm {
			pause = restartFirst
		}
		t.log.WarnContext(ctx, "the token is away; opening it again", "error", err, "pause", pause.String())
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, restartMost)
	}
}

// ready says that the token is open.
func (t *token) ready(s signing, found findings) {
	t.mu.Lock()
	t.open, t.info, t.why, t.lacks = s, found.Token, nil, found.Lacks
	t.mu.Unlock()
	for _, wrong := range found.Wrong {
		t.log.Error("a key cannot be used; looking for it again when it is asked for", "error", wrong)
	}
	t.first.Do(func() { close(t.settled) })
}

// away says that it is not, or not any more.
func (t *token) away(why error) {
	if why == nil {
		why = errClosed
	}
	t.mu.Lock()
	t.open, t.why = nil, why
	t.mu.Unlock()
	t.first.Do(func() { close(t.settled) })
}

// sign signs a digest with one of the token's keys, and fails at once while the token is away.
func (t *token) sign(r digestRequest) ([]byte, error) {
	t.mu.Lock()
	s, why := t.open, t.why
	t.mu.Unlock()
	if s == nil {
		return nil, fmt.Errorf("%w: token %q: %w", hsm.ErrUnavailable, t.Name, why)
	}
	return s.sign(r)
}

// state is the token as it was last seen, and whether it can sign now.
func (t *token) state() (hsm.TokenInfo, error) {
	t.mu.Lock()
	s, info, why := t.open, t.info, t.why
	t.mu.Unlock()
	if s != nil {
		why = s.available()
	}
	if why != nil {
		return info, fmt.Errorf("%w: token %q: %w", hsm.ErrUnavailable, t.Name, why)
	}
	return info, nil
}

// lacking is what the key, or the token, was found to lack of what is required of it; empty when nothing.
func (t *token) lacking(key string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lacks[key]
}
