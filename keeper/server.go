package keeper

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/time/rate"
)

const (
	helloTimeout = 5 * time.Second
	// writeTimeout bounds one write: whoever does not read what it asked for is cut off, before the end of the keeper is over.
	writeTimeout = closeTime
	// frameTimeout bounds how long a request that has begun may take to come, the waiting for room included: no client waits longer for its
	// answer.
	frameTimeout = 10 * time.Second
	// maxSmallBeside is the longest request that may be with a worker without having room: many are there at once.
	maxSmallBeside = 4 << 10
)

// Config is what a keeper needs.
type Config struct {
	Tokens  []TokenConfig
	Keys    []KeyPolicy
	Journal string // path of the journal; the directory is the keeper's own
	// Peers are the users whose processes may connect, beside the keeper's own.
	Peers []uint32
	// Worker makes the command of a worker process, one for each start: this program, with the arguments that make it call RunWorker with
	// WorkerSocket. What it writes to standard error is the caller's to read. Each token is then opened by a worker of its own, and one whose
	// library hangs or crashes takes no other along. Nil: the libraries are loaded into this process, which costs less and must be one that
	// Supervise has started.
	Worker func() *exec.Cmd
	// NeedsPerson is told, when it is not nil, why a token is not opened again. AwaitsPerson names tokens that are not opened at all, and why,
	// because an earlier process was told so: one more try with a wrong PIN could lock them.
	NeedsPerson  func(token string, why error)
	AwaitsPerson map[string]error
	Now          func() time.Time
	Random       io.Reader
	Log          *slog.Logger
}

// Keeper holds tokens, keys and the journal.
type Keeper struct {
	config  Config
	journal *journal
	tokens  []*token
	keys    map[keyID]*held
	names   []*held // in the order of the configuration
	stop    context.CancelFunc
	running sync.WaitGroup
	// hung ends, with the reason as its cause, when a call into a library in this process does not come back.
	hung context.Context
	hang context.CancelCauseFunc

	frameTimeout time.Duration // another one in tests
	complaints   *rate.Limiter
	unsaid       atomic.Uint64 // warnings about clients since the last that the log has

	mu      sync.Mutex
	clients map[*client]bool
	users   map[uint32]*user
}

// New opens the journal, starts a worker for each token, and waits until each has either opened its token or failed once: what is wrong
// with a token is logged, and tried again. Close must be called.
func New(c Config) (*Keeper, error) {
	k, err := newKeeper(c)
	if err != nil {
		return nil, fmt.Errorf("making a keeper: %w", err)
	}
	return k, nil
}

func newKeeper(c Config) (*Keeper, error) {
	k := &Keeper{
		config: c, keys: map[keyID]*held{}, frameTimeout: frameTimeout, complaints: rate.NewLimiter(1, complaintsAtOnce),
		clients: map[*client]bool{}, users: map[uint32]*user{},
	}
	k.hung, k.hang = context.WithCancelCause(context.Background())
	byToken := map[string][]tokenKey{}
	var keys []*key
	for _, p := range c.Keys {
		ready, err := p.ready()
		if err != nil {
			return nil, err
		}
		if k.keys[ready.id] != nil || slices.ContainsFunc(k.names, func(h *held) bool { return h.key.Name == p.Name }) {
			return nil, fmt.Errorf("the key %q, or its name, has another policy already", p.Name)
		}
		keys = append(keys, ready)
		h := &held{key: ready, tell: rate.Sometimes{Interval: hurryInterval}}
		k.keys[ready.id], k.names = h, append(k.names, h)
		for _, name := range p.Tokens {
			h.places = append(h.places, &place{index: len(byToken[name])})
			byToken[name] = append(byToken[name], tokenKey{
				Name: p.Name, Label: p.Ref.Label, ID: p.Ref.ID, SPKI: ready.spki, Restored: p.Restored, Require: p.Require,
			})
		}
	}
	if len(k.names) == 0 {
		return nil, errors.New("there are no keys")
	}
	if err := pinResponders(keys); err != nil {
		return nil, err
	}
	if err := k.makeTokens(byToken); err != nil {
		return nil, err
	}
	var err error
	if k.journal, err = openJournal(c.Journal, c.Now); err != nil {
		return nil, err
	}
	if err := k.journal.adopt(k.names, c.Log); err != nil {
		return nil, errors.Join(err, k.journal.close())
	}
	memories := k.journal.memories()
	for _, h := range k.names {
		if h.guard, err = newGuard(h.key, memories[h.key.inHex]); err != nil {
			return nil, errors.Join(err, k.journal.close())
		}
	}
	if err := k.begin(); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

// makeTokens joins tokens and the keys in them.
func (k *Keeper) makeTokens(byToken map[string][]tokenKey) error {
	for _, t := range k.config.Tokens {
		if slices.ContainsFunc(k.tokens, func(other *token) bool { return other.Name == t.Name }) {
			return fmt.Errorf("there are two tokens with the name %q", t.Name)
		}
		if len(byToken[t.Name]) == 0 {
			return fmt.Errorf("no key is in the token %q", t.Name)
		}
		for i := range byToken[t.Name] {
			byToken[t.Name][i].Declared = t.Declared
		}
		k.tokens = append(k.tokens, k.newToken(t, byToken[t.Name]))
	}
	for _, h := range k.names {
		for i, name := range h.key.Tokens {
			at := slices.IndexFunc(k.tokens, func(t *token) bool { return t.Name == name })
			if at < 0 {
				return fmt.Errorf("the key %q is said to be in the token %q, of which nothing is said", h.key.Name, name)
			}
			h.places[i].token = k.tokens[at]
		}
	}
	return nil
}

// begin opens the tokens. It fails when the opening of one in this process hangs.
func (k *Keeper) begin() error {
	ctx, stop := context.WithCancel(context.Background())
	k.stop = stop
	if k.config.Worker != nil {
		k.hidePINs()
	}
	for _, t := range k.tokens {
		if why := k.config.AwaitsPerson[t.Name]; why != nil {
			t.away(why)
			continue
		}
		k.running.Go(func() { t.run(ctx) })
	}
	for _, t := range k.tokens {
		select {
		case <-t.settled:
		case <-k.hung.Done():
			return context.Cause(k.hung)
		}
	}
	for _, h := range k.names {
		if len(h.places) > 1 {
			k.running.Go(func() { k.checkHealth(ctx, h) })
		}
	}
	return nil
}

// hidePINs reads all PINs, so that variables of the environment that hold them are gone before any worker inherits the rest: also that of a token
// which is not opened. What is wrong with one is told when its token is.
func (k *Keeper) hidePINs() {
	for _, t := range k.tokens {
		pin, _ := t.HSM.PIN.Reveal()
		clear(pin)
	}
}

// Ready tells whether each key can be used in one token at least.
func (k *Keeper) Ready() error {
	var wrong []error
	for _, h := range k.names {
		if err := h.away(); err != nil {
			wrong = append(wrong, fmt.Errorf("key %q: %w", h.key.Name, err))
		}
	}
	return errors.Join(wrong...)
}

// Close ends all connections, closes the tokens and writes the journal to its end. It does not wait for a library that hangs: of the tokens
// that are in this process the journal then says that they end with it.
func (k *Keeper) Close() error {
	k.mu.Lock()
	for c := range k.clients {
		_ = c.conn.Close()
	}
	k.mu.Unlock()
	if k.hung.Err() != nil {
		for _, t := range k.tokens {
			k.noteLogout(t, context.Cause(k.hung))
		}
	}
	k.stop()
	if k.hung.Err() == nil {
		k.running.Wait()
	}
	return errors.Join(k.noteUnwritten(), k.journal.close())
}

// Listener is a keeper's socket, with the lock by which no other keeper takes its place.
type Listener struct {
	*net.UnixListener
	lock *os.File
}

// Close gives up the socket, and then its place.
func (l *Listener) Close() error { return errors.Join(l.UnixListener.Close(), l.lock.Close()) }

// Listen makes the socket at path, for its owner and group. A socket that a dead keeper has left is replaced, that of a living one is not.
// A keeper that is about to end is waited for.
//
// Whoever makes or replaces the socket holds a lock on a file beside it, PATH.lock, from before it looks until it has ended: of two that
// are started at one moment, neither removes what the other has just made. The kernel takes the lock from a process that was killed. The file
// stays: were it removed, one keeper could lock the file that is gone while another locks the next.
func Listen(path string) (*Listener, error) {
	l, err := afterAnother(func() (*Listener, error) { return listen(path) })
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", path, err)
	}
	return l, nil
}

func listen(path string) (_ *Listener, err error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	lock, err := takePlace(path + ".lock")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Close())
		}
	}()
	// Without a lock there may still be a holder whose supervisor was killed a moment ago.
	if conn, err := dial(path); err == nil {
		_ = conn.Close()
		return nil, errServes
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == os.ModeSocket {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: address(dir, path), Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // by its address, which may be that of an open directory; the next keeper removes it
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &Listener{l, lock}, nil
}

// takePlace locks a file for as long as it is open here. No process that is started inherits it.
func takePlace(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = errServes
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// errAnother means that there is another keeper in the same place.
var errAnother = errors.New("another keeper")

// errServes means that it has the socket.
var errServes = fmt.Errorf("%w serves this socket: stop that one first, or give this one a socket and a journal of its own", errAnother)

// afterAnother tries what fails as long as there is another keeper. One whose supervisor has died is gone a moment later.
func afterAnother[T any](try func() (T, error)) (T, error) {
	for began := time.Now(); ; time.Sleep(watchEvery) {
		made, err := try()
		if !errors.Is(err, errAnother) || time.Since(began) > graceful {
			return made, err
		}
	}
}

// maxAddress is how long a path can be that is a socket's address (unix(7)).
const maxAddress = 100

func address(dir *os.File, path string) string {
	if len(path) <= maxAddress {
		return path
	}
	return reach(dir, filepath.Base(path))
}

func dial(path string) (*net.UnixConn, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return net.DialUnix("unix", nil, &net.UnixAddr{Name: address(dir, path), Net: "unix"})
}

// listener is where clients come from: a Listener, or what a holder inherits of it.
type listener interface {
	AcceptUnix() (*net.UnixConn, error)
	Close() error
}

// Serve answers clients until the context ends. It returns an error when a call into a library in this process does not come back: only the
// end of the process ends such a call, so that is what the caller must bring about.
func (k *Keeper) Serve(ctx context.Context, l listener) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	defer context.AfterFunc(k.hung, end)()
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	var clients sync.WaitGroup
	for {
		conn, err := l.AcceptUnix()
		if k.hung.Err() != nil {
			return context.Cause(k.hung)
		}
		if ctx.Err() != nil {
			return k.part(&clients)
		}
		if errors.Is(err, net.ErrClosed) {
			end()
			return errors.Join(fmt.Errorf("waiting for clients: %w", err), k.part(&clients))
		}
		if err != nil { // out of file descriptors, say
			k.complain(ctx, "accepting a client failed", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		c, err := k.admitClient(conn)
		if err != nil {
			k.complain(ctx, "a client was turned away", "error", err)
			_ = conn.Close()
			continue
		}
		clients.Go(func() {
			unhook := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer unhook()
			defer k.forget(c)
			if err := c.serve(); err != nil && ctx.Err() == nil {
				k.complain(ctx, "a client's connection was ended", "uid", c.user.uid, "error", err)
			}
		})
	}
}

// part waits for the calls of clients that are still made, unless one hangs.
func (k *Keeper) part(clients *sync.WaitGroup) error {
	parted := make(chan struct{})
	go func() {
		clients.Wait()
		close(parted)
	}()
	select {
	case <-parted:
		return nil
	case <-k.hung.Done():
		return context.Cause(k.hung)
	}
}

// admitClient lets in a process of a user that may ask.
func (k *Keeper) admitClient(conn *net.UnixConn) (*client, error) {
	uid, err := peerUID(conn)
	if err != nil {
		return nil, err
	}
	if err := k.mayConnect(uid); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	u := k.userOf(uid)
	if u.clients >= maxClients {
		return nil, fmt.Errorf("user %d has %d connections already", uid, maxClients)
	}
	u.clients++
	c := &client{keeper: k, conn: conn, user: u, small: keptBuffer}
	if k.config.Worker != nil {
		c.small = maxSmallBeside
	}
	c.connected, c.end = context.WithCancel(context.Background())
	k.clients[c] = true
	return c, nil
}

func (k *Keeper) mayConnect(uid uint32) error {
	if int(uid) != os.Geteuid() && !slices.Contains(k.config.Peers, uid) {
		return fmt.Errorf("it runs as user %d, who is not among the peers", uid)
	}
	return nil
}

func (k *Keeper) forget(c *client) {
	_ = c.conn.Close()
	c.end()
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.clients, c)
	c.user.clients--
}

// client is one connection of a client, on which several requests may be at a time.
type client struct {
	keeper *Keeper
	conn   *net.UnixConn // over which it came; it closes it to hang up
	user   *user
	pipes  *pipes
	small  int // octets of the longest request that needs no room
	// connected ends when the client has hung up.
	connected context.Context
	end       context.CancelFunc

	mu     sync.Mutex
	unsent []byte // kept for the next answers
	why    error  // it is cut off
}

// reply is what a request came to.
type reply struct {
	request uint64
	body    []byte
	failure error  // for the client
	entry   *entry // of the journal, which is on the disk before the reply leaves; nil: none
}

// serve answers requests until the client hangs up.
func (c *client) serve() (err error) {
	if err := c.greet(); err != nil {
		return err
	}
	var watching sync.WaitGroup
	watching.Go(func() {
		// Nothing comes over the socket any more but its end.
		_, _ = c.conn.Read(make([]byte, 1))
		if err := c.pipes.in.end(); err != nil {
			c.keeper.config.Log.Error("the end of a client could not be passed on", "error", err)
		}
		c.end()
	})
	defer func() {
		_ = c.conn.Close()
		watching.Wait()
		err = errors.Join(err, c.pipes.close())
	}()
	frames := newFrameReader(c.pipes.in, maxFrame)
	if c.keeper.config.Worker != nil {
		return c.serveBeside(frames)
	}
	return c.serveInTurn(frames)
}

const (
	// maxTogether and together bound what is signed before any of it is written down and answered.
	maxTogether = 32
	together    = 2 * time.Millisecond
	// maxBeside is how many requests of a connection are with workers at once.
	maxBeside = 64
)

// serveInTurn signs in the thread that reads: nobody else has to be woken. What has arrived meanwhile is signed next, and the journal and the
// client get it all together, unless the token takes its time.
func (c *client) serveInTurn(frames *frameReader) error {
	var replies []reply
	var began time.Time
	for {
		f, err := c.next(frames)
		if len(replies) == 0 {
			began = time.Now()
		}
		var r reply
		if err == nil {
			r, err = c.reply(f)
			c.done(f)
		}
		if err != nil { // what was signed before is written down all the same
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return errors.Join(err, c.release(replies))
		}
		if replies = append(replies, r); frames.whole() && len(replies) < maxTogether && time.Since(began) < together {
			continue
		}
		if err := c.release(replies); err != nil {
			return err
		}
		clear(replies)
		replies = replies[:0]
	}
}

// serveBeside has requests wait for workers beside each other, so that those for one token do not wait for another.
func (c *client) serveBeside(frames *frameReader) error {
	var calls sync.WaitGroup
	room := make(chan struct{}, maxBeside)
	for {
		f, err := c.next(frames)
		if err != nil {
			calls.Wait()
			c.mu.Lock()
			defer c.mu.Unlock()
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return errors.Join(err, c.why)
		}
		frames.keep()
		room <- struct{}{}
		calls.Go(func() {
			defer func() { <-room }()
			r, err := c.reply(f)
			c.done(f)
			if err == nil {
				err = c.release([]reply{r})
			}
			if err != nil {
				c.mu.Lock()
				defer c.mu.Unlock()
				c.why = err
				_ = c.conn.Close() // which ends the reading
			}
		})
	}
}

// next is the next request; io.EOF means that the client has hung up, or was made to. What it takes is given back by done.
func (c *client) next(frames *frameReader) (frame, error) {
	f, length, err := frames.head()
	switch {
	case err != nil:
	case length > c.small || length > frames.from.Buffered():
		f.body, err = c.rest(frames, length)
	default:
		f.body, err = frames.body(length)
	}
	if c.pipes.in.ended.Load() && !errors.Is(err, os.ErrDeadlineExceeded) {
		if err == nil {
			c.done(f)
		}
		return frame{}, io.EOF
	}
	return f, err
}

// rest reads the body of a request that is long, or has not come whole. A long one waits until there is room for it. Who does not send what he
// has begun is cut off: others of his wait for that room.
func (c *client) rest(frames *frameReader, length int) (body []byte, err error) {
	ctx, cancel := context.WithTimeout(c.connected, c.keeper.frameTimeout)
	defer cancel()
	if length > c.small {
		if c.user.room.Acquire(ctx, int64(length)) != nil {
			return nil, c.late(length)
		}
		defer func() {
			if err != nil {
				c.user.room.Release(int64(length))
			}
		}()
	}
	inTime := context.AfterFunc(ctx, func() { _ = c.pipes.in.end() }) // which ends the reading
	if body, err = frames.body(length); !inTime() {
		return nil, c.late(length)
	}
	return body, err
}

func (c *client) late(length int) error {
	if c.connected.Err() != nil {
		return io.EOF
	}
	return fmt.Errorf("a request of %d octets was not there within %s: %w", length, c.keeper.frameTimeout, os.ErrDeadlineExceeded)
}

// done gives back the room that a request took.
func (c *client) done(f frame) {
	if len(f.body) > c.small {
		c.user.room.Release(int64(len(f.body)))
	}
}

// reply does what a request asks for. An error ends the connection.
func (c *client) reply(f frame) (r reply, err error) {
	r.request = f.request
	switch f.kind {
	case frameSign, frameCheckpoint:
		return c.sign(r, f)
	case frameKeys:
		r.body = appendKeys(nil, c.keeper.list())
	case frameStanding:
		r.body, r.failure, err = c.standing(f.body)
	default:
		err = fmt.Errorf("%w: a frame of type %d", ErrProtocol, f.kind)
	}
	return r, err
}

// release lets replies go, when the journal has what they are to have there.
func (c *client) release(replies []reply) error {
	if len(replies) == 0 {
		return nil
	}
	var entries []entry
	for _, r := range replies {
		if r.entry != nil {
			entries = append(entries, *r.entry)
		}
	}
	var unwritten error
	if len(entries) > 0 {
		unwritten = c.keeper.journal.add(entries...)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unsent = c.unsent[:0]
	for _, r := range replies {
		if r.entry != nil && r.failure == nil {
			r.failure = unwritten
		}
		kind, body := frameAnswer, r.body
		if r.failure != nil {
			kind, body = frameError, appendError(nil, r.failure)
		}
		c.unsent = appendFrame(c.unsent, kind, r.request, body)
	}
	err := c.pipes.out.writeWithin(writeTimeout, c.unsent)
	if cap(c.unsent) > keptBuffer {
		c.unsent = nil
	}
	if !errors.Is(err, syscall.EPIPE) {
		return err
	}
	return nil // it has hung up, which is seen next
}

func (c *client) greet() error {
	if err := c.conn.SetDeadline(time.Now().Add(helloTimeout)); err != nil {
		return err
	}
	f, err := newFrameReader(c.conn, maxHello).next()
	if err != nil {
		return fmt.Errorf("waiting for its hello: %w", err)
	}
	if f.kind != frameHello || string(f.body) != hello {
		return fmt.Errorf("%w: it does not speak %q", ErrProtocol, hello)
	}
	if c.pipes, err = makePipes(c.keeper.config.Worker == nil); err != nil {
		return fmt.Errorf("making pipes: %w", err)
	}
	if err := c.pipes.give(c.conn, appendFrame(nil, frameHello, uint64(c.keeper.useful()), []byte(hello))); err != nil {
		return errors.Join(err, c.pipes.close())
	}
	return c.conn.SetDeadline(time.Time{})
}

// list is what a client is told of the keys.
func (k *Keeper) list() (keys []heldKey) {
	for _, h := range k.names {
		one := heldKey{name: h.key.Name, spki: h.key.spki}
		for _, p := range h.places {
			if info, _ := p.token.state(); info.Serial != "" {
				one.tokens = append(one.tokens, info.Serial)
			}
		}
		keys = append(keys, one)
	}
	return keys
}

// useful is how many connections a client has use for. A token that computes elsewhere is kept busy by as many as it has sessions. Where the
// library computes on the processors of this machine, as many as there are processors are, and as many again that wait for the disk
// meanwhile: with fewer, more requests are found together.
func (k *Keeper) useful() int {
	few := 2 * runtime.NumCPU()
	if k.config.Worker != nil {
		return few
	}
	sessions := 0
	for _, t := range k.tokens {
		if info, _ := t.state(); !info.Profile().Software {
			sessions += t.HSM.MaxSessions
		}
	}
	return max(sessions, few)
}

// sign has the guard read the bytes and a token sign them; the reply may leave when the journal has its entry.
func (c *client) sign(r reply, f frame) (reply, error) {
	request, err := parseSigning(f)
	if err != nil {
		return r, err
	}
	now := c.keeper.config.Now()
	digest := sha256.Sum256(request.message)
	e := entry{UID: &c.user.uid, Kind: kindUnknown, SHA256: hex.EncodeToString(digest[:]), Result: resultRefused}
	h := c.keeper.keys[request.key]
	if h == nil {
		r.failure, err = c.refuse(e, fmt.Errorf("%w: with the identifier %x", ErrUnknownKey, request.key), now)
		return r, err
	}
	e.Key, e.SPKI = h.key.Name, h.key.inHex
	if away := h.away(); away != nil {
		// Nothing is counted of what no token is asked for: who tries again and again meanwhile must not use up the key's total. What is refused
		// is refused all the same.
		if _, err := h.key.read(request.message, now); err == nil {
			r.failure = away
			return r, nil
		}
	}
	read, refused := h.guard.admit(request, digest, now)
	if unavailable(refused) { // by the key's rate: it passes, and whoever means harm must not be lost among those in a hurry
		c.keeper.noteHurry(h)
		r.failure = refused
		return r, nil
	}
	e.Kind, e.Detail, e.Scope = read.kind, read.detail, read.scope()
	if refused != nil {
		r.failure, err = c.refuse(e, fmt.Errorf("%w: key %q: %w", ErrRefused, h.key.Name, refused), now)
		return r, err
	}
	r.body, r.failure = h.sign(request.hash, digested(request.hash, request.message, digest[:]))
	e.Result = resultSigned
	if r.failure != nil {
		e.Result, e.Why = resultFailed, r.failure.Error()
	}
	r.entry = &e
	return r, nil
}

// digested is what a token is given of a message: its digest; the message itself where there is no hash, which the guard has bounded.
func digested(hash crypto.Hash, message, ofSHA256 []byte) []byte {
	switch hash {
	case 0:
		return message
	case crypto.SHA256:
		return ofSHA256
	}
	h := hash.New()
	h.Write(message)
	return h.Sum(nil)
}
