package keeper

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/hsm"
)

// peer is the keeper's side of a client's connections, played octet by octet: what no keeper does, or not when one wants it to.
type peer struct {
	t      *testing.T
	client *Client
	came   chan *conversation
}

type conversation struct {
	conn   *net.UnixConn
	pipes  *pipes
	frames *frameReader
}

// newPeer says that it has use for so many connections.
func newPeer(t *testing.T, useful uint64, timeout time.Duration) *peer {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, client: NewClient(path, timeout), came: make(chan *conversation, 100)}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		defer close(p.came)
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			c := &conversation{conn: conn}
			if _, err := newFrameReader(conn, maxFrame).next(); err != nil {
				t.Errorf("the client's hello: %v", err)
			}
			if c.pipes, err = makePipes(false); err != nil {
				t.Error(err)
				return
			}
			if err := c.pipes.give(conn, appendFrame(nil, frameHello, useful, []byte(hello))); err != nil {
				t.Error(err)
			}
			c.frames = newFrameReader(c.pipes.in, maxFrame)
			p.came <- c
		}
	})
	t.Cleanup(func() {
		if err := p.client.Close(); err != nil {
			t.Error(err)
		}
		_ = l.Close()
		accepting.Wait()
		for c := range p.came {
			c.hangUp()
		}
	})
	return p
}

func (p *peer) accept() *conversation {
	p.t.Helper()
	select {
	case c := <-p.came:
		p.t.Cleanup(c.hangUp)
		return c
	case <-time.After(patience):
		p.t.Fatal("no connection was made")
		return nil
	}
}

func (c *conversation) hangUp() { _, _, _ = c.conn.Close(), c.pipes.in.close(), c.pipes.out.Close() }

// requests are the next n, their bodies kept.
func (c *conversation) requests(t *testing.T, n int) (all []frame) {
	t.Helper()
	for range n {
		f, err := c.frames.next()
		if err != nil {
			t.Fatal(err)
		}
		f.body = bytes.Clone(f.body)
		all = append(all, f)
	}
	return all
}

func (c *conversation) answer(t *testing.T, f frame, body []byte) {
	t.Helper()
	if _, err := c.pipes.out.Write(appendFrame(nil, frameAnswer, f.request, body)); err != nil {
		t.Fatal(err)
	}
}

// ask makes n calls at once, each of which asks for something else, and tells what became of each.
func (p *peer) ask(n int) (outcomes func() []error) {
	errs := make([]error, n)
	var calls sync.WaitGroup
	for i := range n {
		calls.Go(func() {
			want := fmt.Appendf(nil, "what call %d asks for", i)
			got, err := p.client.ask(frameSign, want)
			if err == nil && !bytes.Equal(got, want) {
				err = fmt.Errorf("call %d was answered with %q", i, got)
			}
			errs[i] = err
		})
	}
	return func() []error { calls.Wait(); return errs }
}

// first makes a lone call, after which the client knows how many connections there is use for.
func (p *peer) first() *conversation {
	p.t.Helper()
	outcome := p.ask(1)
	c := p.accept()
	f := c.requests(p.t, 1)[0]
	c.answer(p.t, f, f.body)
	if err := outcome()[0]; err != nil {
		p.t.Fatal(err)
	}
	return c
}

// TestAnswersInAnyOrder come to those who asked.
func TestAnswersInAnyOrder(t *testing.T) {
	p := newPeer(t, 1, patience)
	c := p.first()
	for range 20 {
		outcomes := p.ask(10)
		asked := c.requests(t, 10)
		slices.Reverse(asked)
		for _, f := range asked[:4] { // each by itself, and then all the rest in one
			c.answer(t, f, f.body)
		}
		var rest []byte
		for _, f := range asked[4:] {
			rest = appendFrame(rest, frameAnswer, f.request, f.body)
		}
		if _, err := c.pipes.out.Write(rest); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(outcomes()...); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLostConnections fail every call that is on them, and none that comes later.
func TestLostConnections(t *testing.T) {
	for what, lose := range map[string]func(*testing.T, *conversation, []frame){
		"the keeper hangs up": func(_ *testing.T, c *conversation, _ []frame) { c.hangUp() },
		"an answer to nobody": func(t *testing.T, c *conversation, asked []frame) {
			c.answer(t, frame{request: asked[0].request + 1000}, nil)
		},
		"an answer twice": func(t *testing.T, c *conversation, asked []frame) {
			c.answer(t, asked[0], asked[0].body)
			c.answer(t, asked[0], asked[0].body)
		},
		"no answer": func(t *testing.T, c *conversation, _ []frame) {
			if _, err := c.pipes.out.Write(appendFrame(nil, frameKeys, 1)); err != nil {
				t.Fatal(err)
			}
		},
		"a frame without an end": func(t *testing.T, c *conversation, _ []frame) {
			if _, err := c.pipes.out.Write(append(binary.BigEndian.AppendUint32(nil, 1<<31), make([]byte, frameHead)...)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			p := newPeer(t, 1, patience)
			c := p.first()
			outcomes := p.ask(8)
			lose(t, c, c.requests(t, 8))
			failed := 0
			for _, err := range outcomes() {
				if err != nil {
					failed++
				}
				if err != nil && !errors.Is(err, hsm.ErrUnavailable) {
					t.Errorf("a call failed with %v", err)
				}
			}
			if failed < 7 {
				t.Errorf("%d of 8 calls failed", failed)
			}
			p.first() // over a connection that is new
		})
	}
}

// TestHungUpBetweenCalls costs no call.
func TestHungUpBetweenCalls(t *testing.T) {
	p := newPeer(t, 1, patience)
	p.first().hangUp()
	p.first()
}

// TestUnansweredCalls are not waited for, however many there are and whoever reads for the others.
func TestUnansweredCalls(t *testing.T) {
	p := newPeer(t, 1, 300*time.Millisecond)
	c := p.first()
	outcomes := p.ask(8)
	c.requests(t, 8)
	for _, err := range outcomes() {
		if !errors.Is(err, hsm.ErrUnavailable) || !strings.Contains(err.Error(), "did not answer within 300ms") {
			t.Errorf("a call failed with %v", err)
		}
	}
}

// TestLongMessages, as of CRLs, hold up none that is short.
func TestLongMessages(t *testing.T) {
	p := newPeer(t, 1, patience)
	shared := p.first()
	s := &signer{client: p.client}
	signed := make(chan error, 1)
	go func() {
		_, err := s.SignMessage(nil, make([]byte, 1<<20), crypto.SHA256)
		signed <- err
	}()
	own := p.accept() // it has not read the message, which is more than fits
	outcomes := p.ask(4)
	for _, f := range shared.requests(t, 4) {
		shared.answer(t, f, f.body)
	}
	if err := errors.Join(outcomes()...); err != nil {
		t.Error(err)
	}
	own.answer(t, own.requests(t, 1)[0], []byte("a signature"))
	if err := <-signed; err != nil {
		t.Error(err)
	}
}

// startEither starts a keeper that signs in a worker, or by itself.
func startEither(t *testing.T, a *authority, worker bool) *running {
	t.Helper()
	config, log := a.config(t, a.fixture.Config())
	if !worker {
		config.Worker = nil
	}
	return start(t, config, log)
}

// TestConnectionsAreShared: more calls than the keeper has use for connections make no more of them.
func TestConnectionsAreShared(t *testing.T) {
	a := newAuthority(t, 0)
	for _, worker := range []bool{false, true} {
		r := startEither(t, a, worker)
		key := r.signer(t, a.certificate.PublicKey)
		if err := a.issue(key, leaf()); err != nil {
			t.Fatal(err)
		}
		useful := r.keeper.useful()
		const callers, each = 2 * maxCalls, 4
		var calls sync.WaitGroup
		for range callers {
			calls.Go(func() {
				for range each {
					if err := a.issue(key, leaf()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		calls.Wait()
		r.client.mu.Lock()
		made := len(r.client.links)
		r.client.mu.Unlock()
		if made == 0 || made > useful {
			t.Errorf("%d connections are kept, and the keeper has use for %d", made, useful)
		}
		r.stop()
		signed := 0
		for _, e := range readEntries(t, r.journal) {
			if e.Result == resultSigned && e.Kind == kindCertificate {
				signed++
			}
		}
		if signed != callers*each+1 {
			t.Errorf("worker %t: the journal tells of %d certificates, and %d were signed", worker, signed, callers*each+1)
		}
	}
}

// TestManyRequestsInOneWrite are answered one by one: what is wrong with one costs no other, and what was signed is in the journal even where a
// later request ends the connection.
func TestManyRequestsInOneWrite(t *testing.T) {
	a := newAuthority(t, 0)
	id := sha256.Sum256(a.certificate.RawSubjectPublicKeyInfo)
	for _, worker := range []bool{false, true} {
		r := startEither(t, a, worker)
		l, err := r.client.connect()
		if err != nil {
			t.Fatal(err)
		}
		const good = 9
		var octets []byte
		for i := range good {
			octets = appendFrame(octets, frameSign, uint64(i), id[:], []byte{1}, a.tbs(t, leaf()))
		}
		octets = appendFrame(octets, frameSign, good, id[:], []byte{1}, []byte("a foreign blob"))
		octets = appendFrame(octets, frameStart, good+1)
		if _, err := l.out.Write(octets); err != nil {
			t.Fatal(err)
		}
		answers := map[uint64]byte{}
		for {
			f, err := l.frames.next()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Error(err)
				}
				break
			}
			answers[f.request] = f.kind
		}
		l.close()
		r.stop()
		var signed, refused int
		for _, e := range readEntries(t, r.journal) {
			switch {
			case e.Kind == kindCertificate && e.Result == resultSigned:
				signed++
			case e.Kind == kindUnknown && e.Result == resultRefused:
				refused++
			}
		}
		// In workers, the last request can end the connection before the first has been signed; what was signed is written down all the same.
		for request := range answers {
			if (answers[request] == frameAnswer) != (request < good) {
				t.Errorf("worker %t: request %d was answered with a frame of type %x", worker, request, answers[request])
			}
		}
		if !worker && len(answers) != good+1 {
			t.Errorf("%d requests were answered", len(answers))
		}
		if signed != good || refused != 1 {
			t.Errorf("worker %t: the journal tells of %d signatures and %d refusals", worker, signed, refused)
		}
	}
}

// TestWhole: a frame of which a part has arrived is not whole.
func TestWhole(t *testing.T) {
	one := appendFrame(nil, frameKeys, 7, []byte("body"))
	short := newFrameReader(bytes.NewReader(make([]byte, 4+frameHead-1)), maxFrame) // says that nothing follows, and is not even a head
	if _, err := short.from.Peek(4); err != nil || short.whole() {
		t.Errorf("what is no head has arrived whole: %v", err)
	}
	for n := range len(one) {
		r := newFrameReader(io.MultiReader(bytes.NewReader(one), bytes.NewReader(one[:n])), maxFrame)
		if r.whole() {
			t.Fatal("nothing was read, and a frame has arrived")
		}
		if _, err := r.from.Peek(len(one)); err != nil || !r.whole() {
			t.Fatalf("a frame has arrived: %v", err)
		}
		if _, err := r.next(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.from.Peek(n); err != nil || r.whole() {
			t.Fatalf("%d octets of a frame of %d have arrived: %v", n, len(one), err)
		}
	}
}
