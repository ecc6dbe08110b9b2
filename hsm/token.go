package hsm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/ThalesIgnite/crypto11"
	"github.com/miekg/pkcs11"
)

const (
	defaultSessions = 8
	// housekeeping counts the sessions besides those that sign: crypto11 keeps one open, and so does Token.
	housekeeping = 2
	// sessionWait is how long an operation waits for a free session, where Config.SessionWait does not say.
	sessionWait = 5 * time.Second
	// maxRandom bounds one C_GenerateRandom, since tokens have limits of their own. Octets.
	maxRandom = 1024
)

// Token is an open token, logged in as its user. It is safe for concurrent use.
type Token struct {
	module *module
	info   TokenInfo
	inner  *crypto11.Context
	random io.Reader
	owner  *Recovering // who closes and opens it anew when it is lost; nil where nobody does

	// use is held for reading during each call to the token, and for writing by Close, which so waits for them.
	use    sync.RWMutex
	closed bool

	// A PKCS#11 session serves one call at a time. This one is for what crypto11 cannot do; it also carries the log-in. Its lock is held,
	// too, while keys are made or looked for in any way, in this session or in crypto11's: SoftHSM fails (CKR_GENERAL_ERROR) when objects
	// are searched while one is being made. Signatures do not need it.
	mu      sync.Mutex
	session pkcs11.SessionHandle

	close sync.Once

	notLocal bool // Config.AcceptNotLocal
	actor    string
	observer Observer
	usage    UsagePolicy
	now      func() time.Time
	refused  func(serial string, why error)
	pool     pool // sessions for what crypto11 does not do
	lent     room // crypto11's sessions, for what it does
}

// Open finds the token, checks that a log-in puts nothing at risk, and logs in, once. A PIN that is wrong is not tried again.
// Tokens of one library may be open side by side; the same token twice in a process is refused with ErrInUse, because the library would
// accept any PIN the second time. Calls into the library cannot be cancelled: ctx is looked at between them.
func Open(ctx context.Context, c Config) (*Token, error) {
	var t *Token
	o := &Operation{Op: OpOpen, Actor: actorOf(ctx, c.Actor), Token: c.Token.Serial, TokenLabel: c.Token.Label}
	err := watch(ctx, c.Observer, o, c.Now, func() (err error) {
		if t, err = open(ctx, c); err == nil {
			o.Token, o.TokenLabel, o.Session = t.info.Serial, t.info.Label, uint(t.session)
		}
		return err
	})
	if err != nil && t != nil {
		err = errors.Join(err, t.Close()) // an opening that could not be recorded
	}
	if err != nil {
		return nil, fmt.Errorf("opening the token with %s: %w", c.Token, err)
	}
	return t, nil
}

func open(ctx context.Context, c Config) (*Token, error) {
	m, err := modules.load(c.Module)
	if err != nil {
		return nil, err
	}
	// A prompt takes as long as a person takes: no lock is held meanwhile.
	pin, err := c.PIN.reveal(ctx)
	if err != nil {
		return nil, err
	}
	defer clear(pin)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	token, settings, own, err := m.prepare(c)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	inner, err := crypto11.Configure(settings)
	if err != nil && len(token.behind) > 0 {
		return nil, fmt.Errorf("configuring PKCS#11 module %s: %w: %w", m.path, token.behind, classified(err))
	}
	if err != nil {
		return nil, fmt.Errorf("configuring PKCS#11 module %s: %w", m.path, classified(err))
	}
	t := &Token{
		module: m, inner: inner, info: token.describe(m), notLocal: c.AcceptNotLocal, actor: c.Actor, observer: c.Observer, usage: c.Usage,
		now: c.Now, refused: c.Refused,
	}
	wait := cmp.Or(c.SessionWait, sessionWait)
	t.pool.room, t.lent = newRoom(own, wait), newRoom(settings.MaxSessions-1, wait) // one is crypto11's own
	if err := m.join(); err != nil {
		return nil, errors.Join(err, inner.Close())
	}
	if err := t.start(settings, pin, c.RetryAfterFailedPIN); err != nil {
		return nil, errors.Join(err, t.abandon())
	}
	m.open = append(m.open, t)
	return t, nil
}

// abandon releases what an opening that came to nothing has taken. A log-in that stayed would be in the way of the next.
func (t *Token) abandon() error {
	if t.session != pkcs11.CK_INVALID_HANDLE {
		_ = t.module.ctx.Logout(t.session) // why the opening failed is what matters
		_ = t.module.ctx.CloseSession(t.session)
	}
	var err error
	if t.inner != nil {
		err = t.inner.Close()
	}
	return errors.Join(err, t.module.leave())
}

// start logs in.
func (t *Token) start(settings *crypto11.Config, pin []byte, retry bool) error {
	if err := t.confirm(retry); err != nil {
		return err
	}
	if err := t.login(pin); err != nil {
		return err
	}
	if t.module.apart {
		// The log-in that has just succeeded does not count for crypto11's instance: that one needs its own, and so the PIN.
		if err := t.inner.Close(); err != nil {
			return err
		}
		t.inner = nil // closing it twice would take the library away from the tokens that are open
		settings.LoginNotSupported, settings.Pin = false, string(pin)
		inner, err := crypto11.Configure(settings)
		if err != nil {
			return fmt.Errorf("configuring PKCS#11 module %s: %w", t.module.path, classified(err))
		}
		t.inner = inner
	}
	var err error
	t.random, err = t.inner.NewRandomReader()
	return err
}

// prepare selects the token and decides how crypto11 is to find it, and how many sessions the token's own pool has. Nothing is logged in.
func (m *module) prepare(c Config) (token present, settings *crypto11.Config, own int, err error) {
	err = m.initialised(func() error {
		tokens, err := m.present()
		if err != nil {
			return err
		}
		if token, err = selected(tokens, c.Token); err != nil {
			return err
		}
		for _, t := range m.open {
			if t.info.Slot == token.slot || token.SerialNumber != "" && t.info.Serial == token.SerialNumber {
				return fmt.Errorf("%s: %w", token, ErrInUse)
			}
		}
		if err := loginAllowed(token, c.RetryAfterFailedPIN); err != nil {
			return fmt.Errorf("%s: %w", token, err)
		}
		var sessions int
		if sessions, own, err = sessionsFor(c.MaxSessions, token.MaxRwSessionCount); err != nil {
			return fmt.Errorf("%s: %w", token, err)
		}
		settings = &crypto11.Config{
			Path:        m.path,
			MaxSessions: sessions + 1,
			// Token logs in by itself: crypto11 would ignore "already logged in", and would keep the PIN.
			LoginNotSupported: true,
		}
		if token.unique(tokens) {
			settings.TokenSerial = token.told
		} else {
			slot := int(token.slot)
			settings.SlotNumber = &slot
		}
		return nil
	})
	return token, settings, own, err
}

// sessionsFor is how many sessions crypto11 may sign in at once, and how many the pool may have for all else, given what is asked for and
// what the token can have open. Both keep theirs, so all of them together must be within the token's limit: of one more the token says
// CKR_SESSION_COUNT, which is what a token says that is lost.
func sessionsFor(asked int, limit uint) (signing, own int, err error) {
	if asked < 0 {
		return 0, 0, fmt.Errorf("MaxSessions is %d", asked)
	}
	if asked == 0 {
		asked = defaultSessions
	}
	if limit == pkcs11.CK_EFFECTIVELY_INFINITE || limit == pkcs11.CK_UNAVAILABLE_INFORMATION || limit > uint(2*asked+housekeeping) {
		return asked, asked, nil
	}
	room := int(limit) - housekeeping
	if room < 2 {
		return 0, 0, fmt.Errorf("the token permits %d sessions at once; at least %d are needed", limit, housekeeping+2)
	}
	signing = min(asked, room-1)
	return signing, min(asked, room-signing), nil
}

// confirm looks whether the slot still has the token that was selected: a library that is initialised anew, as it was since, may number its
// slots anew, and a PIN is tried on the token alone that it is for.
func (t *Token) confirm(retry bool) error {
	tokens, err := t.module.present()
	if err != nil {
		return err
	}
	at := slices.IndexFunc(tokens, func(p present) bool {
		return p.slot == t.info.Slot && p.Label == t.info.Label && p.SerialNumber == t.info.Serial
	})
	if at < 0 {
		return fmt.Errorf("%w: slot %d has no longer the token %q that it had a moment ago; try again", ErrUnavailable, t.info.Slot, t.info.Label)
	}
	return loginAllowed(tokens[at], retry)
}

// login opens the housekeeping session and logs in through it. On failure nothing stays open.
func (t *Token) login(pin []byte) error {
	session, err := t.module.ctx.OpenSession(t.info.Slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return fmt.Errorf("opening a session: %w", classified(err))
	}
	if err := t.module.ctx.Login(session, pkcs11.CKU_USER, string(pin)); err != nil {
		err = fmt.Errorf("logging in: %w", loginError(err))
		if t.refused != nil && NeedsPerson(err) {
			t.refused(t.info.Serial, err)
		}
		_ = t.module.ctx.CloseSession(session) // the log-in's failure is what matters
		return err
	}
	t.session = session
	return nil
}

func (p present) describe(m *module) TokenInfo {
	return TokenInfo{
		Module: m.path, Slot: p.slot, Hardware: p.hardware, Library: p.library,
		Label: p.Label, Serial: p.SerialNumber, Manufacturer: p.ManufacturerID, Model: p.Model,
	}
}

// Info describes the token.
func (t *Token) Info() TokenInfo { return t.info }

// Close waits for the calls in progress, logs out and releases the token; the library is finalised with its last token. Closing twice
// does nothing. Signers of a closed token fail with ErrUnavailable. A call that never returns keeps Close waiting.
func (t *Token) Close() error {
	var err error
	t.close.Do(func() {
		t.use.Lock()
		t.closed = true
		t.use.Unlock()

		o := &Operation{Op: OpClose, Actor: t.actor, Token: t.info.Serial, TokenLabel: t.info.Label, Session: uint(t.session)}
		err = watch(context.Background(), t.observer, o, t.now, t.release)
	})
	return err
}

func (t *Token) release() error {
	m := t.module
	m.mu.Lock()
	defer m.mu.Unlock()
	t.pool.closeAll(m.ctx)
	// A token that has gone away cannot answer these two; that must not keep it from being released.
	_ = m.ctx.Logout(t.session)
	_ = m.ctx.CloseSession(t.session)
	err := t.inner.Close()
	for i, other := range m.open {
		if other == t {
			m.open = append(m.open[:i], m.open[i+1:]...)
			break
		}
	}
	return errors.Join(err, m.leave())
}

// Random returns n octets of the token's random number generator.
func (t *Token) Random(n int) ([]byte, error) {
	octets := make([]byte, n)
	_, err := t.Read(octets)
	return octets, err
}

// Read fills p from the token's random number generator. It fills p whole or fails.
func (t *Token) Read(p []byte) (int, error) {
	done := 0
	err := t.using(context.Background(), &Operation{Op: OpRandom, Mechanism: "C_GenerateRandom"}, func() error {
		if err := t.lent.enter(); err != nil {
			return err
		}
		defer t.lent.leave()
		for done < len(p) {
			n, err := t.random.Read(p[done:min(len(p), done+maxRandom)])
			if err != nil {
				return err
			}
			if n == 0 {
				return io.ErrNoProgress
			}
			done += n
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("reading random octets from token %q: %w", t.info.Label, err)
	}
	return done, nil
}
