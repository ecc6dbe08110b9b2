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
	"runtime"
	"sync"
	"time"

	"github.com/chancery-ca/chancery/hsm"
)

const (
	// defaultTimeout is how long a client waits for one answer: longer than a keeper needs to notice that a call hangs.
	defaultTimeout = 10 * time.Second
	dialTimeout    = 2 * time.Second
)

// Client reaches a keeper over its socket, on one connection for all callers, which is made when it is needed and made again when it was
// lost. It is safe for concurrent use. What was on its way when the keeper went away fails with an error that wraps hsm.ErrUnavailable.
type Client struct {
	path    string
	timeout time.Duration

	mu     sync.Mutex
	link   *link
	closed bool
	ended  sync.WaitGroup
}

// NewClient makes a client of the keeper whose socket is at path. A timeout of 0, for one answer, means 10 seconds. Nothing is connected yet.
func NewClient(path string, timeout time.Duration) *Client {
	if timeout == 0 {
		timeout = defaultTimeout
	}
	return &Client{path: path, timeout: timeout}
}

// Key is a key that a keeper holds.
type Key struct {
	Name   string
	Public crypto.PublicKey
	Tokens []string // serial numbers of the tokens that were seen to hold it
}

// Close ends the connection. Calls in progress fail.
func (c *Client) Close() error {
	c.mu.Lock()
	l := c.link
	c.link, c.closed = nil, true
	c.mu.Unlock()
	if l != nil {
		_ = l.conn.Close()
	}
	c.ended.Wait()
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

// SignMessage sends the message to the keeper, which hashes and signs it if the key's policy allows.
func (s *signer) SignMessage(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	hash, plain := opts.(crypto.Hash)
	code, known := wireHashes[hash]
	if !plain || !known {
		return nil, fmt.Errorf("%w: key %q signs with SHA-256, SHA-384 or SHA-512, and with no further options", ErrRefused, s.name)
	}
	if len(message) > maxMessage {
		return nil, fmt.Errorf("%w: key %q signs at most %d octets", ErrRefused, s.name, maxMessage)
	}
	signature, err := s.client.ask(context.Background(), frameSign, s.id[:], []byte{code}, message)
	if err != nil {
		return nil, fmt.Errorf("signing with the keeper's key %q: %w", s.name, err)
	}
	return signature, nil
}

// link is one connection.
type link struct {
	conn *net.UnixConn
	out  *outbox

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan reply
	err     error // why it has ended
}

type reply struct {
	body []byte
	err  error
}

// ask sends a request and waits for its answer.
func (c *Client) ask(ctx context.Context, kind byte, parts ...[]byte) ([]byte, error) {
	l, err := c.connected()
	if err != nil {
		return nil, fmt.Errorf("%w: reaching the keeper at %s: %w", hsm.ErrUnavailable, c.path, err)
	}
	id, answer, err := l.expect()
	if err != nil {
		return nil, err
	}
	if err := l.out.put(kind, id, parts...); err != nil {
		l.give(id)
		return nil, fmt.Errorf("%w: sending to the keeper: %w", hsm.ErrUnavailable, err)
	}
	runtime.Gosched() // others that have something to send put it in, and one write takes it all
	l.out.flush()
	timer := time.NewTimer(c.timeout)
	defer timer.Stop()
	select {
	case r := <-answer:
		return r.body, r.err
	case <-ctx.Done():
		l.give(id)
		return nil, fmt.Errorf("%w: waiting for the keeper: %w", hsm.ErrUnavailable, ctx.Err())
	case <-timer.C:
		l.give(id)
		return nil, fmt.Errorf("%w: the keeper did not answer within %s", hsm.ErrUnavailable, c.timeout)
	}
}

// connected is the connection, made if there is none.
func (c *Client) connected() (*link, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, net.ErrClosed
	}
	if c.link != nil && c.link.living() {
		return c.link, nil
	}
	conn, err := dial(c.path)
	if err != nil {
		return nil, err
	}
	l := &link{conn: conn, out: newOutbox(conn), waiting: map[uint64]chan reply{}}
	frames := newFrameReader(conn, maxFrame)
	if err := l.greet(frames); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	c.link = l
	c.ended.Go(func() { l.read(frames) })
	return l, nil
}

func (l *link) greet(frames *frameReader) error {
	if err := l.conn.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return err
	}
	if err := l.out.put(frameHello, 0, []byte(hello)); err != nil {
		return err
	}
	l.out.flush()
	f, err := frames.next()
	if err != nil {
		return fmt.Errorf("it did not say hello (is this process's user among its peers?): %w", err)
	}
	if f.kind != frameHello || string(f.body) != hello {
		return fmt.Errorf("%w: it does not speak %q", ErrProtocol, hello)
	}
	return l.conn.SetDeadline(time.Time{})
}

func (l *link) living() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err == nil
}

func (l *link) expect() (uint64, chan reply, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return 0, nil, l.err
	}
	l.next++
	answer := make(chan reply, 1)
	l.waiting[l.next] = answer
	return l.next, answer, nil
}

// give takes back what is waited for.
func (l *link) give(id uint64) chan reply {
	l.mu.Lock()
	defer l.mu.Unlock()
	answer := l.waiting[id]
	delete(l.waiting, id)
	return answer
}

// read hands answers to those who wait, until the connection ends.
func (l *link) read(frames *frameReader) {
	for {
		f, err := frames.next()
		if err != nil {
			l.end(err)
			return
		}
		answer := l.give(f.request)
		if answer == nil {
			continue // whoever asked has stopped waiting
		}
		switch f.kind {
		case frameAnswer:
			answer <- reply{body: bytes.Clone(f.body)}
		case frameError:
			answer <- reply{err: parseError(f.body)}
		default:
			answer <- reply{err: fmt.Errorf("%w: %w: a frame of type %d", hsm.ErrUnavailable, ErrProtocol, f.kind)}
			l.end(ErrProtocol)
			return
		}
	}
}

func (l *link) end(why error) {
	_ = l.conn.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = fmt.Errorf("%w: the connection to the keeper was lost: %w", hsm.ErrUnavailable, why)
	for id, answer := range l.waiting {
		answer <- reply{err: l.err}
		delete(l.waiting, id)
	}
}
