package web

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener of connections that a test makes.
type pipes struct {
	conns chan net.Conn
	done  context.Context
	close context.CancelFunc
}

func newPipes() *pipes {
	ctx, cancel := context.WithCancel(context.Background())
	return &pipes{conns: make(chan net.Conn), done: ctx, close: cancel}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done.Done():
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.close(); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

// dial is a client's side, and whether it was let in.
func (p *pipes) dial() (net.Conn, bool) {
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, true
	case <-p.done.Done():
		return nil, false
	}
}

// serving is a server that is told to end.
type serving struct {
	*pipes
	t     *testing.T
	end   context.CancelFunc
	ended chan error
}

func newServing(t *testing.T, handler http.HandlerFunc, drain time.Duration) *serving {
	ctx, cancel := context.WithCancel(t.Context())
	s := &serving{pipes: newPipes(), t: t, end: cancel, ended: make(chan error, 1)}
	server := NewHTTPServer(handler, slog.New(slog.DiscardHandler))
	go func() { s.ended <- ServeUntil(ctx, server, s.pipes, drain) }()
	return s
}

func (s *serving) mustDial() net.Conn {
	s.t.Helper()
	c, ok := s.dial()
	if !ok {
		s.t.Fatal("was not let in")
	}
	synctest.Wait()
	return c
}

func (s *serving) say(c net.Conn, text string) {
	s.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		s.t.Fatal(err)
	}
	synctest.Wait()
}

// answered reads the answer of a request.
func (s *serving) answered(c net.Conn) {
	s.t.Helper()
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		s.t.Fatal("no answer: ", err)
	}
	defer answer.Body.Close()
	if body, err := io.ReadAll(answer.Body); err != nil || string(body) != "done" {
		s.t.Errorf("answered %q, %v", body, err)
	}
}

// quit tells the server to end, and holds that nobody is let in any more.
func (s *serving) quit() {
	s.t.Helper()
	s.end()
	synctest.Wait()
	if _, ok := s.dial(); ok {
		s.t.Error("somebody was let in after the end")
	}
}

// TestServeUntil: at the end whoever was let in is answered, however far the request has come.
func TestServeUntil(t *testing.T) {
	const head, tail = "GET / HTTP/1.1\r\nHost: ", "ca\r\n\r\n"
	done := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "done") }
	for _, c := range []struct{ name, before, after string }{
		{"nothing said yet", "", head + tail},
		{"half a request", head, tail},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServing(t, done, time.Minute)
				conn := s.mustDial()
				if c.before != "" {
					s.say(conn, c.before)
				}
				s.quit()
				s.say(conn, c.after)
				s.answered(conn)
				if err := <-s.ended; err != nil {
					t.Error(err)
				}
			})
		})
	}
	t.Run("in its handler", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			leave := make(chan struct{})
			s := newServing(t, func(w http.ResponseWriter, r *http.Request) { <-leave; done(w, r) }, time.Minute)
			conn := s.mustDial()
			s.say(conn, head+tail)
			s.quit()
			time.Sleep(arrivalTime + time.Second) // of the test's own clock
			close(leave)
			s.answered(conn)
			if err := <-s.ended; err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("answered and silent", func(t *testing.T) { // is not waited for
		synctest.Test(t, func(t *testing.T) {
			s := newServing(t, done, time.Minute)
			conn := s.mustDial()
			s.say(conn, head+tail)
			s.answered(conn)
			synctest.Wait()
			began := time.Now()
			s.quit()
			if err := <-s.ended; err != nil || time.Since(began) > 0 {
				t.Errorf("it ended after %v, %v", time.Since(began), err)
			}
		})
	})
	for name, text := range map[string]string{"silent": "", "silent after half a request": head} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServing(t, done, time.Minute)
				conn := s.mustDial()
				if text != "" {
					s.say(conn, text)
				}
				began := time.Now()
				s.quit()
				err := <-s.ended
				if took := time.Since(began); err != nil || took < arrivalTime || took > arrivalTime+time.Second {
					t.Errorf("it ended after %v, %v", took, err)
				}
				if _, err := conn.Read(make([]byte, 1)); err == nil {
					t.Error("the connection is open")
				}
			})
		})
	}
	for _, c := range []struct {
		name string
		work time.Duration // that goes on when the caller is cut off
		want error
		took time.Duration
	}{
		{"never answered", 0, ErrCutOff, 5 * time.Second},
		{"at work for nobody", workTime - time.Second, ErrCutOff, 5*time.Second + workTime - time.Second},
		{"at work for too long", workTime + time.Second, errStillWorking, 5*time.Second + workTime},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newServing(t, func(_ http.ResponseWriter, r *http.Request) {
					<-r.Context().Done()
					time.Sleep(c.work) // of the test's own clock
				}, 5*time.Second)
				s.say(s.mustDial(), head+tail)
				began := time.Now()
				s.quit()
				if err := <-s.ended; !errors.Is(err, c.want) || time.Since(began) != c.took {
					t.Errorf("it ended after %v with %v", time.Since(began), err)
				}
				time.Sleep(c.work) // until the handler ends too
			})
		})
	}
	t.Run("a listener that fails", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newServing(t, done, time.Minute)
			_ = s.Close()
			if err := <-s.ended; err == nil {
				t.Error("no error")
			}
			s.end()
		})
	})
}

// TestWhatIsBegunIsWaitedFor: over HTTP/2 a caller who leaves has a handler go on that no connection waits for. The server does, and begins
// nothing afterwards.
func TestWhatIsBegunIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const work = 20 * time.Second
		l, ended, worked := newPipes(), make(chan error, 1), false
		server := NewHTTPServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			time.Sleep(work) // of the test's own clock
			worked = true
		}), slog.New(slog.DiscardHandler))
		both := new(http.Protocols)
		both.SetUnencryptedHTTP2(true)
		server.Protocols = both
		ctx, end := context.WithCancel(t.Context())
		go func() { ended <- ServeUntil(ctx, server, l, time.Minute) }()
		transport := &http.Transport{Protocols: both, DialContext: func(context.Context, string, string) (net.Conn, error) {
			conn, _ := l.dial()
			return conn, nil
		}}
		defer transport.CloseIdleConnections()
		calling, leave := context.WithCancel(t.Context())
		call, err := http.NewRequestWithContext(calling, http.MethodGet, "http://ca/", nil)
		if err != nil {
			t.Fatal(err)
		}
		left := make(chan error, 1)
		go func() {
			_, err := transport.RoundTrip(call) //nolint:bodyclose // there is no answer
			left <- err
		}()
		synctest.Wait()
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		synctest.Wait()
		began := time.Now()
		end()
		if err := <-ended; err != nil || !worked || time.Since(began) != work {
			t.Errorf("it ended after %v, %v", time.Since(began), err)
		}
		defer func() {
			if recover() != http.ErrAbortHandler { //nolint:errorlint // net/http compares the value too
				t.Error("a request was begun after the end")
			}
		}()
		server.Handler.ServeHTTP(nil, call)
	})
}

// TestWhoIsGivenUpIsNotBegun: a request that comes in the moment in which its connection is closed is not worked on, as nobody would have
// the answer; and a connection whose request came just before is not closed.
func TestWhoIsGivenUpIsNotBegun(t *testing.T) {
	begun := 0
	server := NewHTTPServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { begun++ }), slog.New(slog.DiscardHandler))
	a := expect(t.Context(), server)
	serve := func(ctx context.Context) (aborted bool) {
		defer func() { aborted = recover() == http.ErrAbortHandler }() //nolint:errorlint // net/http compares the value too
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "/", nil)
		if err != nil {
			t.Fatal(err)
		}
		server.Handler.ServeHTTP(nil, r)
		return false
	}
	late, lateEnd := net.Pipe()
	early, earlyEnd := net.Pipe()
	defer lateEnd.Close()
	defer earlyEnd.Close()
	lateContext, earlyContext := server.ConnContext(t.Context(), late), server.ConnContext(t.Context(), early)
	if serve(earlyContext) {
		t.Error("who came in time was cut off")
	}
	a.close()
	for range 2 {
		if !serve(lateContext) || begun != 1 {
			t.Errorf("%d were begun, not the one that came in time", begun)
		}
	}
	if serve(earlyContext) {
		t.Error("the second request of who came in time was cut off")
	}
	server.ConnState(late, http.StateClosed)
	server.ConnState(early, http.StateClosed)
	a.count.Wait()
	if err := early.SetDeadline(time.Now()); err != nil {
		t.Error("whose request came in time is closed: ", err)
	}
}
