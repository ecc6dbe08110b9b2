package hsm

import (
	"context"
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"
)

const (
	// reopenFirst and reopenMost are the pauses between attempts to open a lost token, doubling from one to the other. The longest stays well
	// below the five seconds within which a token that is back must be in use.
	reopenFirst = 50 * time.Millisecond
	reopenMost  = time.Second
	// siblingRest is how long a token that was closed for its neighbour's sake waits at most until all of its library are closed, so that the
	// library is finalised.
	siblingRest = 300 * time.Millisecond
	// siblingsFirst and siblingsMost are the pauses between closing the neighbours of a token that stays away, doubling from one to the other:
	// a token that is well must not suffer for one that is not. The longest stays below the five seconds, too.
	siblingsFirst = 500 * time.Millisecond
	siblingsMost  = 2 * time.Second
	// maxWaiting bounds the calls that are in a token at once, waiting ones included. One that comes when there are so many fails at once.
	maxWaiting = 256
)

// Recovering is a token that is opened anew when it was lost: sessions ended by a restarted network HSM, a device taken out and put back,
// a token directory that was away. What is signed in the meantime fails at once with ErrUnavailable.
//
// Recovery is the whole way: calls in progress come to their end, the token is closed, with the last token of its library the library is
// finalised, the token is opened and logged in to, and each key is found again by its CKA_ID and held against the public key that was
// pinned. A PIN that turns out to be wrong, locked or at risk ends all attempts; nothing but a restart by a person begins anew. A call into
// the library that never returns cannot be ended from inside the process, and keeps the token from being closed.
type Recovering struct {
	config Config
	log    *slog.Logger
	ended  context.Context // when Close was called
	end    context.CancelFunc
	work   sync.WaitGroup
	places chan struct{} // one for each call in progress

	mu         sync.Mutex
	token      *Token // nil while it is away
	info       TokenInfo
	generation uint64 // counts the openings
	why        error  // what is wrong while the token is away
	// busy is since when the lost token is being closed, or opened anew; zero: it is not at this moment.
	busy time.Time
}

// gathering is where tokens of one library, closed for a neighbour's sake, wait until all of them are closed.
type gathering struct {
	left atomic.Int64 // that are not closed yet
	all  chan struct{}
}

func newGathering(tokens int) *gathering {
	g := &gathering{all: make(chan struct{})}
	g.left.Store(int64(tokens))
	return g
}

// arrive says that one is closed.
func (g *gathering) arrive() {
	if g != nil && g.left.Add(-1) == 0 {
		close(g.all)
	}
}

// wait waits for the others, but not for one whose library does not let it be closed.
func (g *gathering) wait(ended context.Context) {
	if g == nil {
		return
	}
	select {
	case <-g.all:
	case <-time.After(siblingRest):
	case <-ended.Done():
	}
}

// OpenRecovering opens a token as Open does. The first opening must succeed: a mistake in the configuration is not waited for.
func OpenRecovering(ctx context.Context, c Config, log *slog.Logger) (*Recovering, error) {
	token, err := Open(ctx, c)
	if err != nil {
		return nil, err
	}
	ended, end := context.WithCancel(context.Background())
	r := &Recovering{config: c, log: log, ended: ended, end: end, places: make(chan struct{}, maxWaiting)}
	r.put(token)
	return r, nil
}

// put makes an open token the current one.
func (r *Recovering) put(t *Token) {
	t.module.mu.Lock()
	t.owner = r
	t.module.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.token, r.info, r.why = t, t.info, nil
	r.generation++
}

// Info describes the token as it was when it was last opened.
func (r *Recovering) Info() TokenInfo {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.info
}

// Available tells whether the token is open; if not, why, with an error that wraps ErrUnavailable.
func (r *Recovering) Available() error {
	_, _, err := r.now()
	return err
}

// Busy tells for how long closing the lost token, or one attempt to open it anew, has been going on; 0 when neither is. One that goes on for
// ever only the end of the process ends.
func (r *Recovering) Busy() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy.IsZero() {
		return 0
	}
	return time.Since(r.busy)
}

// during carries out a call that may not come back.
func (r *Recovering) during(call func()) {
	r.setBusy(time.Now())
	call()
	r.setBusy(time.Time{})
}

func (r *Recovering) setBusy(since time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.busy = since
}

func (r *Recovering) now() (*Token, uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.token == nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrUnavailable, r.why)
	}
	return r.token, r.generation, nil
}

var errClosedHere = errors.New("it has been closed")

// Close ends recovery and closes the token. Closing twice does nothing.
func (r *Recovering) Close() error {
	r.mu.Lock()
	r.end() // with the lock held: from here on no recovery begins
	r.mu.Unlock()
	r.work.Wait()
	r.mu.Lock()
	token := r.token
	r.token, r.why = nil, errClosedHere
	r.mu.Unlock()
	if token == nil {
		return nil
	}
	return token.Close()
}

// Signer is Token.Signer for a key that is found again after each loss, each time on the same terms. A nil want pins the public key that is
// found now.
func (r *Recovering) Signer(ref KeyRef, want crypto.PublicKey, terms Terms) (Signer, error) {
	token, generation, err := r.now()
	if err != nil {
		return nil, err
	}
	s := &recoveringSigner{from: r, ref: ref, public: want, terms: terms}
	found, err := s.find(token)
	if err != nil {
		r.noticed(generation, err)
		return nil, fmt.Errorf("signer with %s in token %q: %w", ref, token.info.Label, err)
	}
	// From now on the CKA_ID alone names it: labels are for people. A key without one is found by its label.
	s.ref, s.public = found.ref, found.Public()
	if len(s.ref.ID) > 0 {
		s.ref.Label = ""
	}
	_, s.rsa = s.public.(*rsa.PublicKey)
	s.current.Store(&resolved{generation: generation, signer: found})
	return s, nil
}

// Attributes is Token.Attributes.
func (r *Recovering) Attributes(ref KeyRef) (Attributes, error) {
	token, generation, err := r.now()
	if err != nil {
		return Attributes{}, err
	}
	a, err := token.Attributes(ref)
	r.noticed(generation, err)
	return a, err
}

// noticed begins recovery where a failure means that the token of an opening is lost.
func (r *Recovering) noticed(generation uint64, err error) {
	if err != nil && isLoss(err) {
		r.lost(generation, err, nil)
	}
}

// isLoss tells whether a failure of a call means that the token must be opened anew. Waiting too long for a session does not: it means
// that there is much to do.
func isLoss(err error) bool {
	if is(err, pkcs11.CKR_OPERATION_ACTIVE) {
		return true // the session is stuck in the middle of something, and the pool would hand it out again
	}
	var code pkcs11.Error
	return errors.Is(err, ErrUnavailable) && errors.As(err, &code)
}

// lost begins recovery, unless the opening that failed is no longer the current one. Where it is for a neighbour's sake, others are met.
func (r *Recovering) lost(generation uint64, why error, others *gathering) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.token == nil || r.generation != generation || r.ended.Err() != nil {
		others.arrive()
		return
	}
	token := r.token
	r.token, r.why = nil, why
	r.log.Warn("the token is lost; opening it anew", "token", token.info.Label, "serial", token.info.Serial, "error", why)
	r.work.Go(func() { r.recover(token, others) })
}

// recover closes what is left of the token and opens it until that succeeds, a person is needed, or Close is called.
func (r *Recovering) recover(token *Token, others *gathering) {
	began := time.Now()
	r.during(func() {
		if err := token.Close(); err != nil {
			r.log.Warn("closing the lost token", "token", token.info.Label, "error", err)
		}
	})
	others.arrive()
	others.wait(r.ended)
	var pause time.Duration
	disturbed, undisturbed := began, siblingsFirst // when the neighbours were closed last, and for how long they are left alone
	for attempt := 1; ; attempt++ {
		select {
		case <-r.ended.Done():
			return
		case <-time.After(pause):
		}
		var again *Token
		var err error
		r.during(func() { again, err = Open(r.ended, r.config) })
		if err == nil {
			r.put(again)
			r.log.Info("the token is open again", "token", token.info.Label, "serial", token.info.Serial, "attempts", attempt,
				"after", time.Since(began).Round(time.Millisecond).String())
			return
		}
		r.mu.Lock()
		r.why = err
		r.mu.Unlock()
		if NeedsPerson(err) {
			r.log.Error("the token stays closed: trying again could lock it; see that the PIN is right and restart", "token", token.info.Label, "error", err)
			return
		}
		r.log.Warn("opening the lost token failed; trying again", "token", token.info.Label, "attempt", attempt, "error", err)
		pause = min(max(2*pause, reopenFirst), reopenMost)
		if attempt == 2 || attempt > 2 && time.Since(disturbed) >= undisturbed {
			token.module.closeAll(err)
			disturbed, undisturbed = time.Now(), min(2*undisturbed, siblingsMost)
		}
	}
}

// NeedsPerson tells whether a failure to open a token is one that trying again can only make worse.
func NeedsPerson(err error) bool {
	return errors.Is(err, ErrWrongPIN) || errors.Is(err, ErrPINLocked) || errors.Is(err, ErrPINAtRisk)
}

// closeAll has every recovering token of the library closed and opened anew: some libraries see a returned token only after they have
// been finalised, which happens when none is open.
func (m *module) closeAll(why error) {
	m.mu.Lock()
	var owners []*Recovering
	for _, t := range m.open {
		if t.owner != nil {
			owners = append(owners, t.owner)
		}
	}
	m.mu.Unlock()
	all := newGathering(len(owners))
	for _, r := range owners {
		if _, generation, err := r.now(); err == nil {
			r.lost(generation, fmt.Errorf("another token of its library needs the library initialised anew: %w", why), all)
		} else {
			all.arrive()
		}
	}
}

// recoveringSigner is a key that outlives the loss of its token.
type recoveringSigner struct {
	from   *Recovering
	ref    KeyRef
	public crypto.PublicKey
	terms  Terms
	rsa    bool

	current atomic.Pointer[resolved]
	mu      sync.Mutex // held while the key is looked for
}

// resolved is a key as it was found after one of the openings, or why it was not.
type resolved struct {
	generation uint64
	signer     *signer
	err        error
	at         time.Time
}

// againAfter is how long a key that was not found is not looked for again.
const againAfter = time.Second

func (s *recoveringSigner) Public() crypto.PublicKey { return s.public }

// Sign signs a digest that opts.HashFunc() made.
func (s *recoveringSigner) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.do(func(inner *signer) ([]byte, error) { return inner.Sign(nil, digest, opts) })
}

// SignMessage hashes the message with opts.HashFunc() and signs the digest.
func (s *recoveringSigner) SignMessage(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.do(func(inner *signer) ([]byte, error) { return inner.SignMessage(nil, message, opts) })
}

func (s *recoveringSigner) do(call func(*signer) ([]byte, error)) ([]byte, error) {
	select {
	case s.from.places <- struct{}{}:
	default:
		return nil, fmt.Errorf("signing with the key %s: %w: %d calls are waiting already", s.ref, ErrUnavailable, maxWaiting)
	}
	defer func() { <-s.from.places }()
	key, err := s.resolve()
	if err != nil {
		return nil, fmt.Errorf("signing with the key %s: %w", s.ref, err)
	}
	signature, err := call(key.signer)
	if err != nil && isLoss(err) {
		s.from.lost(key.generation, err, nil)
		if !errors.Is(err, ErrUnavailable) {
			err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	return signature, err
}

// find looks for the key in an opening of the token, and holds both to the terms.
func (s *recoveringSigner) find(token *Token) (*signer, error) {
	return token.signer(s.ref, s.public, func(a Attributes) error { return s.terms.check(token.info, a) })
}

// resolve is the key in the token as it is open now.
func (s *recoveringSigner) resolve() (*resolved, error) {
	token, generation, err := s.from.now()
	if err != nil {
		return nil, err
	}
	known := s.current.Load()
	if known.generation == generation && known.err == nil {
		return known, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	known = s.current.Load()
	if known.generation == generation && (known.err == nil || time.Since(known.at) < againAfter) {
		return known, known.err
	}
	found, err := s.find(token)
	if err != nil {
		s.from.noticed(generation, err)
		// Whatever is wrong with it, it is not the caller's fault, and it may be mended.
		if !errors.Is(err, ErrUnavailable) {
			err = fmt.Errorf("%w: finding the key again: %w", ErrUnavailable, err)
		}
	}
	now := &resolved{generation: generation, signer: found, err: err, at: time.Now()}
	s.current.Store(now)
	return now, err
}
