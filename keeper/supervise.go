package keeper

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/chancery-ca/chancery/hsm"
)

const (
	// aliveEvery is how often a holder says that it lives, and silentFor how long it may say nothing before it is killed. A call that hangs it
	// notices by itself, much earlier; this is for a process that a library has left unable even to do that.
	aliveEvery = time.Second
	silentFor  = 10 * time.Second
	// graceful is how long a holder may take to end after it was told to.
	graceful = 2*closeTime + time.Second

	inheritedListener = 3
	inheritedLine     = 4
)

// A holder is the process in which a keeper holds tokens: libraries, guard and journal are one there, so that a signature costs one way to
// another process and back. What ends it, a crash in a library or a call that hangs, its supervisor sees, and starts another at once. The
// supervisor has the socket, so that clients who come meanwhile wait for the next; it loads no library, and nobody speaks with it.
//
// The two are joined by a socket pair. Its end at either side ends the other.

// told is what the supervisor tells a holder first: a JSON object on a line.
type told struct {
	// AwaitsPerson are the tokens that must not be opened, each with an error as the wire has it: an earlier holder failed to log in.
	AwaitsPerson map[string][]byte `json:"awaits_person,omitempty"`
}

// telling is what a holder tells its supervisor: JSON objects, each on a line. The empty one says that it lives.
type telling struct {
	Ready       bool   `json:"ready,omitempty"`  // it serves from now on
	Failed      string `json:"failed,omitempty"` // what it was told to do cannot be done
	NeedsPerson string `json:"needs_person,omitempty"`
	Why         []byte `json:"why,omitempty"` // of NeedsPerson: an error as the wire has it
}

// Supervise keeps a holder running, which serves l, until the context ends. command makes its command: this program, with the arguments that
// make it call Hold. ready is called when the first one serves. The error is one that another start would not mend.
func Supervise(ctx context.Context, l *Listener, command func() *exec.Cmd, ready func(), log *slog.Logger) error {
	s := &supervisor{listener: l, command: command, ready: sync.OnceFunc(ready), log: log, awaits: map[string][]byte{}}
	pause := restartFirst
	for {
		began := time.Now()
		err := s.one(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errFailed) && !s.served {
			return fmt.Errorf("starting the keeper: %w", err)
		}
		if time.Since(began) > restartCalm {
			pause = restartFirst
		}
		log.ErrorContext(ctx, "the process that holds the tokens has ended; starting another", "error", err, "pause", pause.String())
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, restartMost)
	}
}

type supervisor struct {
	listener *Listener
	command  func() *exec.Cmd
	ready    func()
	log      *slog.Logger
	served   bool
	awaits   map[string][]byte
}

// errFailed means that a holder could not do what it was told.
var errFailed = errors.New("the keeper cannot start")

// one runs one holder from its start to its end, and says why it ended.
func (s *supervisor) one(ctx context.Context) error {
	cmd := s.command()
	ours, err := s.spawn(cmd)
	if err != nil {
		return fmt.Errorf("starting a process to hold the tokens: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = ours.Close() })
	defer stop()
	err = s.listen(ours)
	silent := errors.Is(err, os.ErrDeadlineExceeded)
	_ = ours.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	wait := graceful
	if silent {
		err, wait = fmt.Errorf("it has said nothing for %s, and was killed", silentFor), 0
	}
	select {
	case waited := <-ended:
		return errors.Join(err, waited)
	case <-time.After(wait):
		_ = cmd.Process.Kill()
		return errors.Join(err, <-ended)
	}
}

// spawn starts a holder and tells it what it must know.
func (s *supervisor) spawn(cmd *exec.Cmd) (*net.UnixConn, error) {
	listener, err := s.listener.File()
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	conn, err := startWith(cmd, syscall.SOCK_STREAM, listener)
	if err != nil {
		return nil, err
	}
	// The socket's buffer holds it: nobody need be there to read it.
	if err := json.NewEncoder(conn).Encode(told{AwaitsPerson: s.awaits}); err != nil {
		return nil, errors.Join(err, conn.Close(), cmd.Process.Kill(), cmd.Wait())
	}
	return conn, nil
}

// listen hears what a holder says until it says nothing more.
func (s *supervisor) listen(conn *net.UnixConn) error {
	for lines := json.NewDecoder(conn); ; {
		if err := conn.SetReadDeadline(time.Now().Add(silentFor)); err != nil {
			return err
		}
		var t telling
		switch err := lines.Decode(&t); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case t.Failed != "":
			return fmt.Errorf("%w: %s", errFailed, t.Failed)
		case t.NeedsPerson != "":
			s.awaits[t.NeedsPerson] = t.Why
		case t.Ready:
			s.served = true
			s.ready()
		}
	}
}

// ErrTold is what Hold returns when the supervisor has been told why, and will say it.
var ErrTold = errors.New("the keeper cannot start: its supervisor tells why")

// Hold is the body of a holder: it makes a keeper and serves the socket that its supervisor has, until the supervisor hangs up. When it
// returns an error the process must end, even though a call into a library may still go on.
func Hold(c Config) error {
	listener, up, err := inherited()
	if err != nil {
		return err
	}
	defer up.Close()
	from := bufio.NewReader(up)
	var begin told
	if line, err := from.ReadBytes('\n'); err != nil {
		return fmt.Errorf("waiting for what the supervisor says: %w", err)
	} else if err := json.Unmarshal(line, &begin); err != nil {
		return fmt.Errorf("%w: what the supervisor says cannot be read", ErrProtocol)
	}
	var mu sync.Mutex
	tell := func(t telling) {
		mu.Lock()
		defer mu.Unlock()
		_ = json.NewEncoder(up).Encode(t) // that the supervisor is gone is seen by reading
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, from)
		cancel()
	}()
	go sayAlive(ctx, tell)
	c.AwaitsPerson = map[string]error{}
	for name, why := range maps.All(begin.AwaitsPerson) {
		c.AwaitsPerson[name] = parseError(why)
	}
	c.NeedsPerson = func(token string, why error) { tell(telling{NeedsPerson: token, Why: appendError(nil, why)}) }
	k, err := New(c)
	if errors.Is(err, hsm.ErrUnavailable) {
		return err
	}
	if err != nil {
		tell(telling{Failed: err.Error()})
		return fmt.Errorf("%w: %w", ErrTold, err)
	}
	if c.Worker == nil {
		k.keepProcessors()
	}
	if err := k.Ready(); err != nil {
		c.Log.Warn("not every key can be used yet", "error", err)
	}
	tell(telling{Ready: true})
	if err := k.Serve(ctx, listener); err != nil {
		return errors.Join(err, k.Close())
	}
	return k.Close()
}

// keepProcessors lets each call into a library that is in this process keep what Go's scheduler calls a processor. Otherwise those that are
// too many lose it after 20 microseconds and queue for another at their end, for which threads are put to sleep and woken.
func (k *Keeper) keepProcessors() {
	calls := 1
	for _, t := range k.tokens {
		calls += t.HSM.MaxSessions
	}
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), calls))
}

func sayAlive(ctx context.Context, tell func(telling)) {
	tick := time.NewTicker(aliveEvery)
	defer tick.Stop()
	for {
		tell(telling{})
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// inherited is what a supervisor has given to this process.
func inherited() (*net.UnixListener, *os.File, error) {
	if accepting, err := syscall.GetsockoptInt(inheritedListener, syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN); err != nil || accepting == 0 {
		return nil, nil, errors.Join(errors.New("this command is started by a keeper, which gives it a socket"), err)
	}
	file := os.NewFile(inheritedListener, "socket")
	defer file.Close()
	l, err := net.FileListener(file)
	if err != nil {
		return nil, nil, fmt.Errorf("taking over the socket: %w", err)
	}
	listener, ok := l.(*net.UnixListener)
	if !ok {
		return nil, nil, errors.Join(fmt.Errorf("%w: the socket is not a Unix socket", ErrProtocol), l.Close())
	}
	syscall.CloseOnExec(inheritedLine)
	return listener, os.NewFile(inheritedLine, "supervisor"), nil
}
