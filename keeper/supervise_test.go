package keeper

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
)

// holding is what a test's holder holds: one token with one key.
type holding struct {
	Module      string
	Token       hsm.Selector
	PINFile     string
	Sessions    int
	Key         hsm.KeyRef
	Certificate []byte
	Journal     string
	Restored    bool
	CallTimeout time.Duration
	// StartTimeout of 0 means 20 seconds.
	StartTimeout time.Duration
}

// hold is the holder's side: the keeper that a file describes, with its tokens in this process.
func hold(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var h holding
	if err := json.Unmarshal(text, &h); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path+".pid"); err != nil {
		return err
	}
	certificate, err := x509.ParseCertificate(h.Certificate)
	if err != nil {
		return err
	}
	policy := (&authority{ref: h.Key, certificate: certificate}).policy()
	policy.Restored = h.Restored
	return Hold(Config{
		Tokens: []TokenConfig{{Name: "main", CallTimeout: h.CallTimeout, StartTimeout: cmp.Or(h.StartTimeout, 20*time.Second), HSM: hsm.Config{
			Module: h.Module, Token: h.Token, PIN: hsm.PINFromFile(h.PINFile), MaxSessions: h.Sessions,
		}}},
		Keys: []KeyPolicy{policy}, Journal: h.Journal, Now: time.Now, Random: rand.Reader,
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
}

// supervised is a keeper whose token is in a holder, and a client of it.
type supervised struct {
	client  *Client
	journal string
	log     *syncBuffer
	path    string // of what the holder holds
	stop    func()
}

// pid is the process of the holder, or was until a moment ago.
func (s *supervised) pid(t testing.TB) int {
	t.Helper()
	text, err := os.ReadFile(s.path + ".pid")
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func holderCommand(path string, log io.Writer) func() *exec.Cmd {
	return func() *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), actAsHolder+"="+path)
		if log != nil {
			cmd.Stderr = log
		}
		return cmd
	}
}

// supervise starts a holder of the authority's token, by way of a module, with a journal in dir, and keeps it.
func supervise(t testing.TB, a *authority, token hsm.Config, dir string, changes ...func(*holding)) *supervised {
	t.Helper()
	s := &supervised{journal: filepath.Join(dir, "journal"), log: &syncBuffer{}}
	h := holding{
		Module: token.Module, Token: token.Token, PINFile: a.fixture.PINFile, Sessions: token.MaxSessions, Key: a.ref,
		Certificate: a.certificate.Raw,
		Journal:     s.journal, CallTimeout: time.Second,
	}
	for _, change := range changes {
		change(&h)
	}
	text, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	s.path = filepath.Join(dir, "holding.json")
	if err := os.WriteFile(s.path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "keeper.sock")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended, ready := make(chan error, 1), make(chan struct{})
	go func() {
		ended <- Supervise(ctx, l, holderCommand(s.path, s.log), func() { close(ready) }, slog.New(slog.NewTextHandler(s.log, nil)))
	}()
	s.client = NewClient(socket, 0)
	s.stop = sync.OnceFunc(func() {
		_ = s.client.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("supervising: %v", err)
		}
		_ = l.Close()
	})
	t.Cleanup(func() {
		s.stop()
		if t.Failed() {
			t.Logf("the keeper's log:\n%s", s.log)
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		t.Fatalf("the holder did not start: %v\n%s", err, s.log)
	case <-time.After(20 * time.Second):
		t.Fatalf("the holder is not ready\n%s", s.log)
	}
	return s
}

func (s *supervised) signer(t testing.TB, a *authority) hsm.Signer {
	t.Helper()
	signer, _, err := s.client.Signer(t.Context(), a.certificate.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// TestHolderKilled: another holder takes the place of one that was killed, at once, and goes on where its journal ends.
func TestHolderKilled(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, 0)
	s := supervise(t, a, a.fixture.Config(), t.TempDir())
	l := &load{a: a, key: s.signer(t, a)}
	stop := l.run(t.Context(), 4)
	for range 3 {
		before := l.signed.Load()
		within(t, patience, "certificates are issued", func() error { return atLeast(&l.signed, before+20) })
		if err := syscall.Kill(s.pid(t), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	before := l.signed.Load()
	within(t, recovery, "certificates are issued again", func() error { return atLeast(&l.signed, before+20) })
	stop()
	if wrong := l.wrong.Load(); wrong != nil {
		t.Errorf("something else than being unavailable came of it: %v", *wrong)
	}
	s.stop()
	var signed, opened int64
	for _, e := range readEntries(t, s.journal) {
		switch {
		case e.Result == resultSigned:
			signed++
		case e.Kind == kindJournal && e.Result == resultOpened:
			opened++
		}
	}
	if signed < l.signed.Load() || opened != 4 {
		t.Errorf("%d signatures were received, and the journal has %d, of %d holders", l.signed.Load(), signed, opened)
	}
}

// TestHolderWithoutASupervisor: a holder ends after its supervisor, whatever became of that, even while its library hangs. One that stayed
// would have the socket, the journal and the token, and no other keeper could start.
func TestHolderWithoutASupervisor(t *testing.T) {
	t.Parallel()
	a, f, dir := newAuthority(t, 0), hsmtest.NewFaulty(t), t.TempDir()
	token := f.Config(a.fixture)
	text, err := json.Marshal(holding{
		Module: token.Module, Token: token.Token, PINFile: a.fixture.PINFile, Key: a.ref, Certificate: a.certificate.Raw,
		Journal: filepath.Join(dir, "journal"), CallTimeout: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "holding.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(filepath.Join(dir, "keeper.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var log syncBuffer
	cmd := holderCommand(path, &log)()
	supervisor := &supervisor{listener: l, awaits: map[string][]byte{}}
	line, err := supervisor.spawn(cmd)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	defer func() { _ = cmd.Process.Kill(); <-ended }()
	for lines := json.NewDecoder(line); ; {
		var said telling
		if err := lines.Decode(&said); err != nil || said.Failed != "" {
			t.Fatalf("%v %s\n%s", err, said.Failed, &log)
		}
		if said.Ready {
			break
		}
	}
	client := NewClient(l.Addr().String(), 0)
	defer client.Close()
	key, _, err := client.Signer(t.Context(), a.certificate.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	answered := hang(t, a, f, key)
	_ = line.Close() // as the end of a supervisor does that was killed
	select {
	case <-ended:
	case <-time.After(recovery):
		t.Errorf("the holder is still there\n%s", &log)
	}
	_ = cmd.Process.Kill()
	if err := <-answered; !errors.Is(err, hsm.ErrUnavailable) {
		t.Errorf("the call that hung: %v", err)
	}
}

// TestWorkerWithoutAKeeper: a worker ends after the process that started it, although all its places wait for something else.
func TestWorkerWithoutAKeeper(t *testing.T) {
	t.Parallel()
	var log syncBuffer
	a := newAuthority(t, 0)
	worker := workerCommand(&log)()
	cmd := exec.Command("sh", "-c", `"$0" & echo $!; wait`, worker.Path)
	cmd.Env = worker.Env
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	line, err := startWith(cmd, syscall.SOCK_SEQPACKET)
	if err != nil {
		t.Fatal(err)
	}
	defer line.Close() // this end stays open: it is not what tells the worker
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	conn, err := newLine(line)
	if err != nil {
		t.Fatal(err)
	}
	c := a.fixture.Config()
	c.MaxSessions = 2
	pin, err := c.PIN.Reveal()
	if err != nil {
		t.Fatal(err)
	}
	token := token{
		TokenConfig: TokenConfig{HSM: c, StartTimeout: 20 * time.Second}, loggedIn: func(string, error) error { return nil },
	}
	if _, err := token.begin(&process{conn: conn, cmd: cmd}, pin); err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	within(t, patience, "the worker has ended", func() error {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && strings.HasPrefix(string(text), worker.Path+"\x00") {
			return errors.New("it is still there")
		}
		return nil
	})
	_, _ = io.Copy(io.Discard, out)
	_ = cmd.Wait()
}

// TestStoppedHolderIsReplaced: a holder that says nothing any more is killed.
func TestStoppedHolderIsReplaced(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, 0)
	s := supervise(t, a, a.fixture.Config(), t.TempDir())
	key := s.signer(t, a)
	if err := syscall.Kill(s.pid(t), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	within(t, silentFor+recovery, "another one serves", func() error { return a.issue(key, leaf()) })
}

// TestPersonIsAwaitedAcrossHolders: a wrong PIN is tried once, whatever becomes of the process that tried it.
func TestPersonIsAwaitedAcrossHolders(t *testing.T) {
	a, f := wrongPIN(t, "")
	s := supervise(t, a, f.Config(a.fixture), t.TempDir())
	key := s.signer(t, a)
	told := func() error {
		if err := a.issue(key, leaf()); !errors.Is(err, hsm.ErrUnavailable) || !errors.Is(err, hsm.ErrWrongPIN) {
			return fmt.Errorf("it was %w", err)
		}
		return nil
	}
	within(t, patience, "the wrong PIN is told", told)
	first := s.pid(t)
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	within(t, patience, "the next holder tells it, too", func() error {
		if s.pid(t) == first {
			return errors.New("there is no next one yet")
		}
		return told()
	})
	triedOnce(t, f)
}

// TestSuperviseTellsWhatCannotBe: what another start would not mend ends the supervisor, in the holder's words.
func TestSuperviseTellsWhatCannotBe(t *testing.T) {
	a, dir := newAuthority(t, 0), t.TempDir()
	supervise(t, a, a.fixture.Config(), dir).stop()
	journal, err := os.OpenFile(filepath.Join(dir, "journal"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := journal.WriteString("this was not written by a keeper\n"); err != nil {
		t.Fatal(err)
	}
	if err := journal.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(filepath.Join(t.TempDir(), "keeper.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var log syncBuffer
	err = Supervise(t.Context(), l, holderCommand(filepath.Join(dir, "holding.json"), &log), func() { t.Error("it is ready") },
		slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "the journal") {
		t.Errorf("%v\n%s", err, &log)
	}
}

// TestHolderNeedsASupervisor: nobody starts one by hand.
func TestHolderNeedsASupervisor(t *testing.T) {
	text, err := holderCommand("/nonexistent", nil)().CombinedOutput()
	if err == nil {
		t.Errorf("it ran: %s", text)
	}
}
