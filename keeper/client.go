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
	"sync"
	"time"

	"github.com/chancery-ca/chancery/hsm"
)

const (
	// defaultTimeout is how long a client waits for one answer: longer than a keeper needs to notice that a call hangs.
	defaultTimeout = 10 * time.Second
	dialTimeout    = 2 * time.Second
)

// Client reaches a keeper over its socket. A call has a connection to itself until it is answered; connections are made when there are not
// enough, kept for the next call, and made again when they were lost. It is safe for concurrent use. What was on its way when the keeper
// went away fails with an error that wraps hsm.ErrUnavailable.
type Client struct {
	path    string
	timeout time.Duration
	room    chan struct{} // one for each call in progress

	mu     sync.Mutex
	idle   []*link
	busy   map[*link]bool
	closed bool
}

// maxLines is how many calls of one client are with the keeper at once. More wait here, where waiting costs least.
const maxLines = 32

// NewClient makes a client of the keeper whose socket is at path. A timeout of 0, for one answer, means 10 seconds. Nothing is connected
// yet.
func NewClient(path string, timeout time.Duration) *Client {
	if timeout == 0 {
		timeout = defaultTimeout
	}
	return &Client{path: path, timeout: timeout, room: make(chan struct{}, maxLines), busy: map[*link]bool{}}
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
	idle := c.idle
	c.idle, c.closed = nil, true
	for l := range c.busy {
		l.close()
	}
	c.mu.Unlock()
	for _, l := range idle {
		l.close()
	}
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
	body, err := c.ask(ctx, frameKeys)
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
	for _, k := range keys {
		if other, err := x509.MarshalPKIXPublicKey(k.Public); err == nil && bytes.Equal(other, spki) {
			return &signer{client: c, id: sha256.Sum256(spki), name: k.Name, public: public}, k, nil
		}
	}
	return nil, Key{}, fmt.Errorf("%w: add it to the keeper's policy", ErrUnknownKey)
}

// signer is a key behind a keeper.
type signer struct {
	client *Client
	id     keyID
	name   string
	public crypto.PublicKey
}

func (s *signer) Public() crypto.PublicKey { return s.public }

// Sign refuses.
func (s *signer) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, fmt.Errorf("%w: key %q signs no digests: it must see what it signs (SignMessage)", ErrRefused, s.name)
}

// SignMessage sends the message to the keeper, which hashes and signs it if the key's policy allows. The options are a hash or, for a
// checkpoint that extends another, a Consistency. An error that wraps *UnprovenError tells what is to be extended.
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
	signature, err := s.client.ask(context.Background(), kind, shown, s.id[:], []byte{code}, message)
	if err != nil {
		return nil, fmt.Errorf("signing with the keeper's key %q: %w", s.name, err)
	}
	return signature, nil
}

// link is one connection, on which one call at a time goes on.
type link struct {
	conn   *net.UnixConn // over which it was made; the keeper sees by it when this side is gone
	in     line
	out    line
	frames *frameReader
	count  uint64 // of calls
	unsent []byte // kept for the next
}

// ask sends a request and waits for its answer.
func (c *Client) ask(ctx context.Context, kind byte, parts ...[]byte) ([]byte, error) {
	if err := c.enter(ctx); err != nil {
		return nil, err
	}
	defer func() { <-c.room }()
	l, err := c.take()
	if err != nil {
		return nil, fmt.Errorf("%w: reaching the keeper at %s: %w", hsm.ErrUnavailable, c.path, err)
	}
	stop := context.AfterFunc(ctx, l.close)
	body, failure, err := l.ask(kind, parts, time.Now().Add(c.timeout))
	// Where the context ended at the same moment as the answer came, the link is being closed, and the next call must not get it.
	c.give(l, stop() && err == nil)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fmt.Errorf("%w: the keeper did not answer within %s", hsm.ErrUnavailable, c.timeout)
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("%w: waiting for the keeper: %w", hsm.ErrUnavailable, ctx.Err())
	case err != nil:
		return nil, fmt.Errorf("%w: the connection to the keeper was lost: %w", hsm.ErrUnavailable, err)
	}
	return body, failure
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
		return fmt.Errorf("%w: of %d calls before this one none was answered within %s", hsm.ErrUnavailable, maxLines, c.timeout)
	}
}

// ask returns the answer or the failure that the keeper told; err means that the connection is of no more use.
func (l *link) ask(kind byte, parts [][]byte, until time.Time) (body []byte, failure, err error) {
	if err := l.in.SetReadDeadline(until); err != nil {
		return nil, nil, err
	}
	l.count++
	l.unsent = appendFrame(l.unsent[:0], kind, l.count, parts...)
	err = l.out.writeWithin(time.Until(until), l.unsent)
	if cap(l.unsent) > keptBuffer {
		l.unsent = nil
	}
	if err != nil {
		return nil, nil, err
	}
	f, err := l.frames.next()
	switch {
	case err != nil:
		return nil, nil, err
	case f.request != l.count:
		return nil, nil, fmt.Errorf("%w: an answer to request %d came to request %d", ErrProtocol, f.request, l.count)
	case f.kind == frameAnswer:
		return bytes.Clone(f.body), nil, nil
	case f.kind == frameError:
		return nil, parseError(f.body), nil
	}
	return nil, nil, fmt.Errorf("%w: a frame of type %d", ErrProtocol, f.kind)
}

// take is a connection for one call. Those on which the keeper has hung up are sorted out.
func (c *Client) take() (*link, error) {
	for {
		l, err := c.takeIdle()
		if err != nil {
			return nil, err
		}
		if l == nil {
			break
		}
		if l.in.quiet() {
			return l, nil
		}
		c.give(l, false)
	}
	l, err := c.connect()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		l.close()
		return nil, net.ErrClosed
	}
	c.busy[l] = true
	return l, nil
}

// takeIdle is the connection that was used last, which the processor's caches know best; nil when there is none.
func (c *Client) takeIdle() (*link, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, net.ErrClosed
	}
	last := len(c.idle) - 1
	if last < 0 {
		return nil, nil
	}
	l := c.idle[last]
	c.idle = c.idle[:last]
	c.busy[l] = true
	return l, nil
}

// give takes a connection back.
func (c *Client) give(l *link, sound bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.busy, l)
	if sound && !c.closed {
		c.idle = append(c.idle, l)
		return
	}
	l.close()
}

func (c *Client) connect() (*link, error) {
	conn, err := dial(c.path)
	if err != nil {
		return nil, err
	}
	l := &link{conn: conn}
	if err := l.greet(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	l.frames = newFrameReader(l.in, maxFrame)
	return l, nil
}

func (l *link) greet() error {
	if err := l.conn.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return err
	}
	said := appendFrame(nil, frameHello, 0, []byte(hello))
	if _, err := l.conn.Write(said); err != nil {
		return err
	}
	heard := make([]byte, len(said)) // the same
	in, out, err := takePipes(l.conn, heard)
	if err == nil && !bytes.Equal(heard, said) {
		err = errors.Join(ErrProtocol, in.Close(), out.Close())
	}
	switch {
	case errors.Is(err, ErrProtocol):
		return fmt.Errorf("%w: it does not speak %q", ErrProtocol, hello)
	case err != nil:
		return fmt.Errorf("it did not say hello (is this process's user among its peers?): %w", err)
	}
	l.in, l.out = in, out
	return nil
}

// close ends the connection, and a call that is on it.
func (l *link) close() {
	_, _, _ = l.conn.Close(), l.in.Close(), l.out.Close() // nothing is lost with it but what fails anyway
}
