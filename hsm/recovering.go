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
	// A token that was opened anew rests for restFactor times as long as that took: it is not closed for a neighbour that stays away, nor
	// again for a key that fails by itself. So what is well is in use for nine tenths of the time, whatever is not. The least rest stays below
	// the five seconds, too; the most is for openings that took so long for a reason of their own.
	restFactor = 9
	restLeast  = 2 * time.Second
	restMost   = 30 * time.Second
	// A key that fails by itself is left alone, too, doubling from keyRestFirst to keyRestMost, which stays below the five seconds with the
	// token's least rest. Another key that signed no longer than keyRestMost ago shows that the token is well.
	keyRestFirst = 100 * time.Millisecond
	keyRestMost  = 2 * time.Second
	// keySuspect is for how long after an opening a key that fails again is held to be what is wrong, while other keys sign. It may have been
	// mended meanwhile, and need to be found again.
	keySuspect = 30 * time.Second
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
	generation uint64    // counts the openings
	why        error     // what is wrong while the token is away
	opened     time.Time // when it was opened last
	signed     time.Time // when a key signed last, since then; zero: none has
	rests      time.Time // until when it is closed neither for a neighbour nor for a key that fails by itself
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
	r.put(token, time.Time{})
	return r, nil
}

// put makes an open token the current one.
func (r *Recovering) put(t *Token, rests time.Time) {
	t.module.mu.Lock()
	t.owner = r
	t.module.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.token, r.info, r.why = t, t.info, nil
	r.opened, r.signed, r.rests = time.Now(), time.Time{}, rests
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
	var spared error
	for attempt := 1; ; attempt++ {
		select {
		case <-r.ended.Done():
			return
		case <-time.After(pause):
		}
		tried := time.Now()
		if attempt == 1 {
			tried = began // closing it was a part of the same
		}
		var again *Token
		var err error
		r.during(func() { again, err = Open(r.ended, r.config) })
		if err == nil {
			r.put(again, time.Now().Add(min(max(restFactor*time.Since(tried), restLeast), restMost)))
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
		if attempt == 1 || !mayNeedFinalising(err) {
			continue
		}
		told := spared != nil
		r.during(func() { spared = token.module.closeAll(err) })
		if spared != nil && !told {
			r.log.Warn("the other tokens of its library stay open, so that it is not initialised anew; where the lost token needs that, restart",
				"token", token.info.Label, "error", spared)
		}
	}
}

// mayNeedFinalising tells whether a failure to open a token is the library's: what is wrong with a PIN's source or with an observer, no
// library mends.
func mayNeedFinalising(err error) bool {
	return errors.Is(err, ErrNoToken) || errors.Is(err, ErrInUse) || isLoss(err)
}

// NeedsPerson tells whether a failure to open a token is one that trying again can only make worse.
func NeedsPerson(err error) bool {
	return errors.Is(err, ErrWrongPIN) || errors.Is(err, ErrPINLocked) || errors.Is(err, ErrPINAtRisk)
}

// closeAll has every recovering token of the library closed and opened anew: some libraries see a returned token only after they have
// been finalised, which happens when none is open. While one of them rests it does nothing; where one could not be opened again, it does
// nothing and says why.
func (m *module) closeAll(why error) error {
	owners, err := m.owners()
	if err != nil {
		return err
	}
	all := newGathering(len(owners))
	for _, r := range owners {
		if _, generation, err := r.now(); err == nil {
			r.lost(generation, fmt.Errorf("another token of its library needs the library initialised anew: %w", why), all)
		} else {
			all.arrive()
		}
	}
	return nil
}

// owners are those of all open tokens: none unless each has one and may be closed now. It fails where one would not be found again, for a
// slot that does not answer.
func (m *module) owners() ([]*Recovering, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var owners []*Recovering
	for _, t := range m.open {
		if t.owner == nil || t.owner.resting() {
			return nil, nil
		}
		owners = append(owners, t.owner)
	}
	if len(owners) == 0 {
		return nil, nil
	}
	tokens, err := m.present()
	if err != nil {
		return owners, nil // none of them is seen to be well
	}
	for _, p := range tokens {
		for _, t := range m.open {
			if t.info.Slot == p.slot && p.stranded(t.info) {
				return nil, fmt.Errorf("%s could not be opened again: %w", p, p.behind)
			}
		}
	}
	return owners, nil
}

func (r *Recovering) resting() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Now().Before(r.rests)
}

// keyFailed begins recovery where a key failed as it does when the token is lost. One that failed so before, has not signed since, and
// fails again soon after the token was opened is held to be what is wrong itself, while the token rests or another key signs: then the key
// rests, and the token stays open.
func (r *Recovering) keyFailed(s *recoveringSigner, generation uint64, why error) {
	if !r.blames(s, generation, why) {
		r.lost(generation, why, nil)
	}
}

// blames tells whether a failure is held to be the key's own, and then has it rest.
func (r *Recovering) blames(s *recoveringSigner, generation uint64, why error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	switch {
	case r.token == nil || r.generation != generation:
		return false // what failed is closed already
	case s.pause == 0:
		s.pause = keyRestFirst
		return false
	case now.Sub(r.opened) >= keySuspect:
		return false
	case !now.Before(r.rests) && now.Sub(r.signed) >= keyRestMost:
		return false
	}
	if !now.Before(s.rests) { // of calls at once, one alone makes the next rest longer
		r.log.Warn("a key fails although its token was opened anew for it; it rests", "token", r.info.Label, "key", s.ref.String(),
			"for", s.pause.String(), "error", why)
		s.rests, s.why, s.pause = now.Add(s.pause), why, min(2*s.pause, keyRestMost)
	}
	return true
}

// keySigned ends what blames began.
func (r *Recovering) keySigned(s *recoveringSigner, generation uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.generation == generation {
		r.signed, s.pause, s.rests = time.Now(), 0, time.Time{}
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

	// The lock of from guards what follows; see Recovering.blames.
	pause time.Duration // how long it rests the next time; 0: it has signed since its last failure, if any
	rests time.Time     // until when its calls fail at once
	why   error         // for which it rests
}

// resting is why the key is not to be used now.
func (s *recoveringSigner) resting() error {
	s.from.mu.Lock()
	defer s.from.mu.Unlock()
	if !time.Now().Before(s.rests) {
		return nil
	}
	return fmt.Errorf("%w: the key fails although its token was opened anew for it, and rests for a moment: %w", ErrUnavailable, s.why)
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
	if err := s.resting(); err != nil {
		return nil, fmt.Errorf("signing with the key %s: %w", s.ref, err)
	}
	key, err := s.resolve()
	if err != nil {
		return nil, fmt.Errorf("signing with the key %s: %w", s.ref, err)
	}
	signature, err := call(key.signer)
	if err == nil {
		s.from.keySigned(s, key.generation)
	} else if isLoss(err) {
		s.from.keyFailed(s, key.generation, err)
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
		if isLoss(err) {
			s.from.keyFailed(s, generation, err)
		}
		// Whatever is wrong with it, it is not the caller's fault, and it may be mended.
		if !errors.Is(err, ErrUnavailable) {
			err = fmt.Errorf("%w: finding the key again: %w", ErrUnavailable, err)
		}
	}
	now := &resolved{generation: generation, signer: found, err: err, at: time.Now()}
	s.current.Store(now)
	return now, err
}
