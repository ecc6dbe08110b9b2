package keeper

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/chancery-ca/chancery/hsm"
)

const (
	// defaultTimeout is how long a client waits for one answer: longer than a keeper needs to notice that a call hangs.
	defaultTimeout = 10 * time.Second
	dialTimeout    = 2 * time.Second
)

// Client reaches a keeper over its socket. Calls share connections: what one sends does not wait for the answer to another, so under load the
// keeper finds the next request where it ends one, and nobody has to be woken for it. Connections are made when there are not enough, kept,
// and made again when they were lost. It is safe for concurrent use. What was on its way when the keeper went away fails with an error that
// wraps hsm.ErrUnavailable.
type Client struct {
	path    string
	timeout time.Duration
	room    chan struct{} // one for each call in progress

	mu     sync.Mutex
	links  []*link // those that calls share, the first made first
	making int     // connections that are being made, to be shared
	useful int     // how many the keeper has use for
	lone   map[*link]bool
	closed bool
}

// maxCalls is how many calls of one client are with the keeper at once. More wait here, where waiting costs least.
const maxCalls = 64

// NewClient makes a client of the keeper whose socket is at path. A timeout of 0, for one answer, means 10 seconds. Nothing is connected
// yet.
func NewClient(path string, timeout time.Duration) *Client {
	if timeout == 0 {
		timeout = defaultTimeout
	}
	return &Client{path: path, timeout: timeout, room: make(chan struct{}, maxCalls), useful: 1, lone: map[*link]bool{}}
}

// Key is a key that a keeper holds.
type Key struct {
	Name   string
	Public crypto.PublicKey
	Tokens []string // serial numbers of the tokens that were seen to hold it
}

// Close ends the connections. Calls in progress fail.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	for _, l := range c.links {
		l.close()
	}
	for l := range c.lone {
		l.close()
	}
	c.links = nil
	c.mu.Unlock()
	for range cap(c.room) { // until each call has come to its end
		c.room <- struct{}{}
	}
	for range cap(c.room) {
		<-c.room
	}
	return nil
}

// Keys lists what the keeper holds.
func (c *Client) Keys(ctx context.Context) ([]Key, error) {
	body, err := c.askAlone(ctx, frameKeys)
	if err != nil {
		return nil, fmt.Errorf("asking the keeper for its keys: %w", err)
	}
	held, err := parseKeys(body)
	if err != nil {
		return nil, fmt.Errorf("asking the keeper for its keys: %w", err)
	}
	var keys []Key
	for _, h := range held {
		public, err := x509.ParsePKIXPublicKey(h.spki)
		if err != nil {
			return nil, fmt.Errorf("the keeper's key %q: %w", h.name, err)
		}
		keys = append(keys, Key{Name: h.name, Public: public, Tokens: h.tokens})
	}
	return keys, nil
}

// Signer is the key with the given public key, and what the keeper says of it. ErrUnknownKey means that the keeper holds no such key. The
// signer sends the bytes to be signed, which the keeper reads and may refuse (ErrRefused); a mere digest it cannot read, so Sign refuses.
func (c *Client) Signer(ctx context.Context, public crypto.PublicKey) (hsm.Signer, Key, error) {
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, Key{}, fmt.Errorf("naming the key to the keeper: %w", err)
	}
	keys, err := c.Keys(ctx)
	if err != nil {
		return nil, Key{}, err
	}
	at := slices.IndexFunc(keys, func(k Key) bool {
		other, err := x509.MarshalPKIXPublicKey(k.Public)
		return err == nil && bytes.Equal(other, spki)
	})
	if at < 0 {
		return nil, Key{}, fmt.Errorf("%w: add it to the keeper's policy", ErrUnknownKey)
	}
	k := keys[at]
	s := &signer{client: c, id: sha256.Sum256(spki), name: k.Name, public: public}
	held, err := c.standing(ctx, s.id)
	if err != nil {
		return nil, Key{}, fmt.Errorf("asking the keeper for the rate of its key %q: %w", k.Name, err)
	}
	if held.PerSecond > 0 {
		s.pace = rate.NewLimiter(rate.Limit(held.PerSecond), max(int(held.PerSecond), 2))
	}
	return s, k, nil
}

// signer is a key behind a keeper.
type signer struct {
	client *Client
	id     keyID
	name   string
	public crypto.PublicKey
	pace   *rate.Limiter // with less of a burst than the keeper; nil where the key has no rate
}

// Reserve takes room for a number of signatures, 2 at most, in what the key may sign in this second. Whoever asks for it before he writes
// down what he is about to have signed writes nothing down that the keeper then does not sign. An error wraps hsm.ErrUnavailable. What
// others ask of the keeper is not known here: it may be out of room all the same.
func (s *signer) Reserve(signatures int, now time.Time) error {
	if s.pace == nil || s.pace.AllowN(now, signatures) {
		return nil
	}
	return fmt.Errorf("%w: the key %q signs at most %g times a second", hsm.ErrUnavailable, s.name, float64(s.pace.Limit()))
}

func (s *signer) Public() crypto.PublicKey { return s.public }

// Sign refuses.
func (s *signer) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, fmt.Errorf("%w: key %q signs no digests: it must see what it signs (SignMessage)", ErrRefused, s.name)
}

// SignMessage sends the message to the keeper, which hashes and signs it if the key's policy allows. The options are a hash or, for a
// checkpoint that extends another, a Consistency. An error that wraps *UnprovenError tells what is to be extended, one
// that wraps *PassedNumberError above which number a CRL is to lie.
func (s *signer) SignMessage(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	hash, plain := opts.(crypto.Hash)
	kind, shown := frameSign, []byte(nil)
	if x, extends := opts.(Consistency); !plain && extends {
		var err error
		if shown, err = appendConsistency(nil, x); err != nil {
			return nil, fmt.Errorf("%w: key %q: %w", ErrRefused, s.name, err)
		}
		hash, plain, kind = x.HashFunc(), true, frameCheckpoint
	}
	code, known := wireHashes[hash]
	if !plain || !known {
		return nil, fmt.Errorf("%w: key %q signs with SHA-256, SHA-384 or SHA-512, or with no hash (Ed25519), and with no further options",
			ErrRefused, s.name)
	}
	if len(message) > maxMessage {
		return nil, fmt.Errorf("%w: key %q signs at most %d octets", ErrRefused, s.name, maxMessage)
	}
	ask := s.client.ask
	if len(message) > maxShared {
		ask = func(kind byte, parts ...[]byte) ([]byte, error) {
			return s.client.askAlone(context.Background(), kind, parts...)
		}
	}
	signature, err := ask(kind, shown, s.id[:], []byte{code}, message)
	if err != nil {
		return nil, fmt.Errorf("signing with the keeper's key %q: %w", s.name, err)
	}
	return signature, nil
}

// maxShared is the longest message that is sent where others wait behind it. A longer one, as of a CRL, has a connection to itself.
const maxShared = 32 << 10

// ask sends a request over a connection that others use as well, and waits for its answer.
func (c *Client) ask(kind byte, parts ...[]byte) ([]byte, error) {
	if err := c.enter(context.Background()); err != nil {
		return nil, err
	}
	defer func() { <-c.room }()
	until := time.Now().Add(c.timeout)
	for {
		l, made, err := c.take()
		if err != nil {
			return nil, c.unreached(err)
		}
		body, failure, err := l.ask(kind, parts, until)
		c.give(l)
		if errors.Is(err, errUnsent) && !made { // the keeper has hung up since the last call
			continue
		}
		if err != nil {
			return nil, c.lost(err)
		}
		return body, failure
	}
}

// askAlone does so over a connection of its own, which ends with the context.
func (c *Client) askAlone(ctx context.Context, kind byte, parts ...[]byte) ([]byte, error) {
	if err := c.enter(ctx); err != nil {
		return nil, err
	}
	defer func() { <-c.room }()
	l, err := c.connect()
	if err != nil {
		return nil, c.unreached(err)
	}
	defer l.close()
	if !c.register(l) {
		return nil, c.unreached(net.ErrClosed)
	}
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.lone, l)
	}()
	defer context.AfterFunc(ctx, l.close)()
	body, failure, err := l.ask(kind, parts, time.Now().Add(c.timeout))
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("%w: waiting for the keeper: %w", hsm.ErrUnavailable, ctx.Err())
	case err != nil:
		return nil, c.lost(err)
	}
	return body, failure
}

func (c *Client) unreached(err error) error {
	return fmt.Errorf("%w: reaching the keeper at %s: %w", hsm.ErrUnavailable, c.path, err)
}

func (c *Client) lost(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w: the keeper did not answer within %s", hsm.ErrUnavailable, c.timeout)
	}
	return fmt.Errorf("%w: the connection to the keeper was lost: %w", hsm.ErrUnavailable, err)
}

// enter waits for room.
func (c *Client) enter(ctx context.Context) error {
	select {
	case c.room <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(c.timeout)
	defer timer.Stop()
	select {
	case c.room <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: waiting for the keeper: %w", hsm.ErrUnavailable, ctx.Err())
	case <-timer.C:
		return fmt.Errorf("%w: of %d calls before this one none was answered within %s", hsm.ErrUnavailable, maxCalls, c.timeout)
	}
}

// take is a connection for one call: one without calls, one that it makes where the keeper has use for more, else the one with the fewest.
func (c *Client) take() (_ *link, made bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, false, net.ErrClosed
	}
	var least *link
	for _, l := range c.links {
		if least == nil || l.busy < least.busy { // the first of those, which the processor's caches know best
			least = l
		}
	}
	if least != nil && (least.busy == 0 || len(c.links)+c.making >= c.useful) {
		least.busy++
		return least, false, nil
	}
	c.making++
	c.mu.Unlock()
	l, err := c.connect()
	c.mu.Lock()
	c.making--
	if err != nil {
		return nil, false, err
	}
	if c.closed {
		l.close()
		return nil, false, net.ErrClosed
	}
	c.links, c.useful, l.busy = append(c.links, l), l.useful, 1
	return l, true, nil
}

// give ends a call's use of a connection. One that is lost, or one too many, is kept no longer.
func (c *Client) give(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l.busy--
	if l.lost() || l.busy == 0 && len(c.links) > c.useful {
		l.close()
		c.links = slices.DeleteFunc(c.links, func(other *link) bool { return other == l })
	}
}

// register makes known a connection that one call has to itself; false means that the client is closed.
func (c *Client) register(l *link) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.lone[l] = true
	return true
}

func (c *Client) connect() (*link, error) {
	conn, err := dial(c.path)
	if err != nil {
		return nil, err
	}
	l := &link{conn: conn, turn: make(chan struct{}, 1)}
	if err := l.greet(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	l.frames = newFrameReader(l.in, maxFrame)
	l.turn <- struct{}{}
	return l, nil
}
