package keeper

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
)

// isolations are the ways in which a service uses a key. All pass the same tests.
var isolations = map[string]func(*testing.T, *authority, hsm.Config) hsm.Signer{
	"none": func(t *testing.T, a *authority, c hsm.Config) hsm.Signer {
		token, err := hsm.OpenRecovering(t.Context(), c, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := token.Close(); err != nil {
				t.Error(err)
			}
		})
		signer, err := token.Signer(a.ref, a.certificate.PublicKey, hsm.Terms{})
		if err != nil {
			t.Fatal(err)
		}
		return signer
	},
	"holder": func(t *testing.T, a *authority, c hsm.Config) hsm.Signer {
		return supervise(t, a, c, t.TempDir()).signer(t, a)
	},
	"worker": func(t *testing.T, a *authority, c hsm.Config) hsm.Signer {
		config, log := a.config(t, c)
		return start(t, config, log).signer(t, a.certificate.PublicKey)
	},
}

// inEach runs a test in each kind of isolation, with a token and a library of its own that can be made faulty.
func inEach(t *testing.T, test func(t *testing.T, a *authority, key hsm.Signer, f *hsmtest.Faulty)) {
	for name, open := range isolations {
		t.Run(name, func(t *testing.T) {
			a, f := newAuthority(t, 0), hsmtest.NewFaulty(t)
			test(t, a, open(t, a, f.Config(a.fixture)), f)
		})
	}
}

const (
	recovery = 5 * time.Second  // how long issuance may need to resume after a fault has ended: docs/keeper.md promises it
	patience = 30 * time.Second // how long what is no promise may take, on a machine that is busy
)

// load issues certificates until it is stopped. None may be wrong, and each failure must be one that passes by itself.
type load struct {
	a        *authority
	key      hsm.Signer
	signed   atomic.Int64
	failed   atomic.Int64
	wrong    atomic.Pointer[error]
	tolerate func(error) bool
}

func (l *load) run(ctx context.Context, callers int) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	for range callers {
		group.Go(func() {
			for ctx.Err() == nil {
				switch err := l.a.issue(l.key, leaf()); {
				case err == nil:
					l.signed.Add(1)
				case errors.Is(err, hsm.ErrUnavailable), l.tolerate != nil && l.tolerate(err):
					l.failed.Add(1)
				default:
					l.wrong.Store(&err)
				}
			}
		})
	}
	return func() { cancel(); group.Wait() }
}

func TestFaults(t *testing.T) {
	for _, fault := range []string{
		hsmtest.CloseAll,
		"0x30" /* CKR_DEVICE_ERROR */, "0x32" /* CKR_DEVICE_REMOVED */, "0xe0" /* CKR_TOKEN_NOT_PRESENT */, "0xb3", /* CKR_SESSION_HANDLE_INVALID */
		"0x101" /* CKR_USER_NOT_LOGGED_IN */, "0x82", /* CKR_OBJECT_HANDLE_INVALID */
	} {
		t.Run(fault, func(t *testing.T) {
			inEach(t, func(t *testing.T, a *authority, key hsm.Signer, f *hsmtest.Faulty) { outlive(t, a, key, f, fault, nil) })
		})
	}
}

// TestHangAndCrash are faults that a process does not survive that has the library in it.
func TestHangAndCrash(t *testing.T) {
	t.Parallel() // what has the library in this process cannot be: SoftHSM is one for the process
	for _, fault := range []string{hsmtest.Hang, hsmtest.Crash} {
		for _, isolation := range []string{"holder", "worker"} {
			t.Run(fault+" in a "+isolation, func(t *testing.T) {
				t.Parallel()
				a, f := newAuthority(t, 0), hsmtest.NewFaulty(t)
				outlive(t, a, isolations[isolation](t, a, f.Config(a.fixture)), f, fault, nil)
			})
		}
	}
}

// hang has a library hang, and somebody wait for it, who is answered some time.
func hang(t *testing.T, a *authority, f *hsmtest.Faulty, key hsm.Signer) (answered chan error) {
	t.Helper()
	f.Begin(t, hsmtest.Hang)
	answered = make(chan error, 1)
	go func() { answered <- a.issue(key, leaf()) }()
	select {
	case err := <-answered:
		t.Fatalf("the library did not hang: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	return answered
}

// TestHangInProcess: nothing can end the call, but what comes after it works again.
func TestHangInProcess(t *testing.T) {
	a, f := newAuthority(t, 0), hsmtest.NewFaulty(t)
	key := isolations["none"](t, a, f.Config(a.fixture))
	answered := hang(t, a, f, key)
	f.Begin(t, "")
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

func TestWrongSignatures(t *testing.T) {
	inEach(t, func(t *testing.T, a *authority, key hsm.Signer, f *hsmtest.Faulty) {
		// Whoever asked verifies, as issuance does: x509 refuses to return a certificate whose signature is wrong.
		outlive(t, a, key, f, hsmtest.Wrong, func(err error) bool { return strings.Contains(err.Error(), "x509: signature") })
	})
}

// outlive has a fault begin and end under load.
func outlive(t *testing.T, a *authority, key hsm.Signer, f *hsmtest.Faulty, fault string, tolerate func(error) bool) {
	l := &load{a: a, key: key, tolerate: tolerate}
	stop := l.run(t.Context(), 4)
	within(t, patience, "certificates are issued", func() error { return atLeast(&l.signed, 10) })
	f.Begin(t, fault)
	within(t, patience, "the fault is felt", func() error { return atLeast(&l.failed, 1) })
	f.Begin(t, "")
	ended := time.Now()
	before := l.signed.Load()
	within(t, recovery, "certificates are issued again", func() error { return atLeast(&l.signed, before+20) })
	t.Logf("issued again %s after the fault ended; %d failed", time.Since(ended).Round(time.Millisecond), l.failed.Load())
	stop()
	if wrong := l.wrong.Load(); wrong != nil {
		t.Errorf("something else than being unavailable came of it: %v", *wrong)
	}
	if failed := f.FailedLogins(t); failed != 0 {
		t.Errorf("%d log-ins failed", failed)
	}
}

func atLeast(n *atomic.Int64, want int64) error {
	if got := n.Load(); got < want {
		return fmt.Errorf("%d of %d", got, want)
	}
	return nil
}

// TestTokenAwayAndBack renames the directory that the tokens are in. It is the process's, so nothing runs beside it.
func TestTokenAwayAndBack(t *testing.T) {
	inEach(t, func(t *testing.T, a *authority, key hsm.Signer, f *hsmtest.Faulty) {
		l := &load{a: a, key: key}
		stop := l.run(t.Context(), 4)
		within(t, patience, "certificates are issued", func() error { return atLeast(&l.signed, 10) })
		dir := hsmtest.Directory(t)
		if err := os.Rename(dir, dir+".away"); err != nil {
			t.Fatal(err)
		}
		within(t, patience, "the loss is felt", func() error { return atLeast(&l.failed, 1) })
		if err := os.Rename(dir+".away", dir); err != nil {
			t.Fatal(err)
		}
		before := l.signed.Load()
		within(t, recovery, "certificates are issued again", func() error { return atLeast(&l.signed, before+20) })
		stop()
		if wrong := l.wrong.Load(); wrong != nil {
			t.Errorf("something else than being unavailable came of it: %v", *wrong)
		}
		if failed := f.FailedLogins(t); failed != 0 {
			t.Errorf("%d log-ins failed", failed)
		}
	})
}

// TestHangWhileOpeningAnew: a library that hangs when a lost token is opened anew takes its process along, as one that hangs at any other time
// does. The directory that the tokens are in is the process's, so nothing runs beside it.
func TestHangWhileOpeningAnew(t *testing.T) {
	const startTimeout = 4 * time.Second // in which a process starts on a machine that is busy
	for name, open := range map[string]func(t *testing.T, a *authority, c hsm.Config) (key hsm.Signer, replaced func() error){
		"holder": func(t *testing.T, a *authority, c hsm.Config) (hsm.Signer, func() error) {
			s := supervise(t, a, c, t.TempDir(), func(h *holding) { h.StartTimeout = startTimeout })
			first := s.pid(t)
			return s.signer(t, a), func() error {
				if s.pid(t) == first {
					return errors.New("it is still the same process")
				}
				return nil
			}
		},
		"worker": func(t *testing.T, a *authority, c hsm.Config) (hsm.Signer, func() error) {
			config, log := a.config(t, c)
			config.Tokens[0].StartTimeout = startTimeout
			r := start(t, config, log)
			return r.signer(t, a.certificate.PublicKey), func() error {
				if !strings.Contains(log.String(), "the token is away; opening it again") {
					return errors.New("it is still the same process")
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, f := newAuthority(t, 0), hsmtest.NewFaulty(t)
			key, replaced := open(t, a, f.Config(a.fixture))
			issue := func() error { return a.issue(key, leaf()) }
			if err := issue(); err != nil {
				t.Fatal(err)
			}
			dir := hsmtest.Directory(t)
			if err := os.Rename(dir, dir+".away"); err != nil {
				t.Fatal(err)
			}
			within(t, patience, "the loss is felt", func() error {
				if issue() == nil {
					return errors.New("it signs")
				}
				return nil
			})
			f.Begin(t, hsmtest.HangLogin)
			if err := os.Rename(dir+".away", dir); err != nil {
				t.Fatal(err)
			}
			within(t, startTimeout+2*recovery, "another process has taken its place", replaced)
			f.Begin(t, "")
			within(t, startTimeout+recovery, "it signs again", issue)
		})
	}
}

// TestWrongPINStopsAllTries changes the PIN that the token is opened with to a wrong one, and then ends its sessions: at most one log-in may
// fail, however often somebody asks.
func TestWrongPINStopsAllTries(t *testing.T) {
	inEach(t, func(t *testing.T, a *authority, key hsm.Signer, f *hsmtest.Faulty) {
		if err := a.issue(key, leaf()); err != nil {
			t.Fatal(err)
		}
		a.spoilPIN(t)
		f.Begin(t, hsmtest.CloseAll)
		if worker, ok := key.(*signer); ok {
			// A worker, or a holder, has the PIN that it was started with. So it is killed, as a crash would.
			f.Begin(t, hsmtest.Crash)
			_ = a.issue(worker, leaf())
			f.Begin(t, "")
		}
		within(t, patience, "the wrong PIN is told", func() error {
			if err := a.issue(key, leaf()); !errors.Is(err, hsm.ErrUnavailable) || !errors.Is(err, hsm.ErrWrongPIN) {
				return fmt.Errorf("it was %w", err)
			}
			return nil
		})
		// Whoever asks again and again brings about no second try.
		for range 200 {
			if err := a.issue(key, leaf()); !errors.Is(err, hsm.ErrWrongPIN) {
				t.Fatalf("it was %v", err)
			}
		}
		triedOnce(t, f)
	})
}

// A caller who gives up, at whatever moment, costs nobody else an answer.
func TestGivingUpCostsNobodyElse(t *testing.T) {
	a := newAuthority(t, 0)
	config, log := a.config(t, a.fixture.Config())
	r := start(t, config, log)
	began := time.Now()
	for range 100 {
		if _, err := r.client.Keys(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	turn := time.Since(began) / 100
	for i := range 3000 { // around the moment at which the answer comes
		ctx, cancel := context.WithTimeout(t.Context(), turn/2+turn*time.Duration(i%100)/100)
		_, _ = r.client.Keys(ctx) // whether it has given up does not matter
		if _, err := r.client.Keys(t.Context()); err != nil {
			t.Errorf("after %d callers who gave up: %v", i+1, err)
		}
		cancel()
	}
}

func TestKeeperRefusesDigests(t *testing.T) {
	a := newAuthority(t, 0)
	config, log := a.config(t, a.fixture.Config())
	key := start(t, config, log).signer(t, a.certificate.PublicKey)
	digest := sha256.Sum256([]byte("anything"))
	if _, err := key.Sign(nil, digest[:], crypto.SHA256); !errors.Is(err, ErrRefused) {
		t.Errorf("a digest was answered with %v", err)
	}
}

// TestCompromisedClient plays a web process that an attacker has taken over: it speaks the protocol as it likes.
func TestCompromisedClient(t *testing.T) {
	a := newAuthority(t, 1) // an authority that could have others below it, if its policy let it
	config, log := a.config(t, a.fixture.Config())
	r := start(t, config, log)
	id := sha256.Sum256(a.certificate.RawSubjectPublicKeyInfo)
	digest := sha256.Sum256([]byte("anything"))
	attempts := map[string][]byte{
		"an authority": a.tbs(t, leaf(func(c *x509.Certificate) {
			c.IsCA, c.BasicConstraintsValid, c.MaxPathLenZero, c.KeyUsage = true, true, true, x509.KeyUsageCertSign
		})),
		"keyCertSign without CA:TRUE": a.tbs(t, leaf(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign })),
		"an OCSP responder":           a.tbs(t, leaf(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning} })),
		"ten years":                   a.tbs(t, leaf(func(c *x509.Certificate) { c.NotAfter = c.NotBefore.AddDate(10, 0, 0) })),
		"a foreign blob":              []byte("I owe you a million"),
		"a digest":                    digest[:],
		"a certification request":     {0x30, 0x03, 0x02, 0x01, 0x00},
		"nothing":                     {},
	}
	for what, message := range attempts {
		signature, err := r.client.ask(frameSign, id[:], []byte{1}, message)
		if err == nil {
			t.Errorf("%s: the keeper signed %x", what, signature)
		}
		if what != "nothing" && !errors.Is(err, ErrRefused) {
			t.Errorf("%s: it was not refused, but %v", what, err)
		}
	}
	good := a.tbs(t, leaf())
	if _, err := r.client.ask(frameSign, id[:], []byte{1}, good); err != nil {
		t.Errorf("what the policy allows was refused: %v", err)
	}
	// Types of frames that are not for a client close the connection and sign nothing.
	for _, kind := range []byte{frameStart, frameDigest, frameAnswer, 0, 255} {
		if _, err := r.client.ask(kind, []byte{0, 0, 1}, digest[:]); err == nil {
			t.Errorf("a frame of type %d was answered", kind)
		}
	}
	r.stop()
	entries := readEntries(t, r.journal)
	bySHA := map[string]string{}
	for _, e := range entries {
		bySHA[e.SHA256] = e.Result
	}
	for what, message := range attempts {
		if what != "nothing" && bySHA[fmt.Sprintf("%x", sha256.Sum256(message))] != resultRefused {
			t.Errorf("%s: the journal does not say that it was refused", what)
		}
	}
	if bySHA[fmt.Sprintf("%x", sha256.Sum256(good))] != resultSigned {
		t.Error("the journal does not say what was signed")
	}
}

// TestNothingIsSignedThatCannotBeWrittenDown takes the journal's file away from under it.
func TestNothingIsSignedThatCannotBeWrittenDown(t *testing.T) {
	a := newAuthority(t, 0)
	config, log := a.config(t, a.fixture.Config())
	r := start(t, config, log)
	key := r.signer(t, a.certificate.PublicKey)
	if err := a.issue(key, leaf()); err != nil {
		t.Fatal(err)
	}
	j := r.keeper.journal
	j.mu.Lock()
	err := j.file.Close()
	j.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.issue(key, leaf()); !errors.Is(err, hsm.ErrUnavailable) || !strings.Contains(err.Error(), "journal") {
		t.Errorf("without a journal: %v", err)
	}
	_ = r.client.Close()
	j.mu.Lock()
	j.file, _ = os.OpenFile(os.DevNull, os.O_WRONLY, 0) // so that it can be closed
	j.mu.Unlock()
}

// TestManyKeys: a worker is told of as many keys as a file of policies names, and tells of as many that are not there.
func TestManyKeys(t *testing.T) {
	a := newAuthority(t, 0)
	config, log := a.config(t, a.fixture.Config())
	for i := range 600 {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("the log of tenant %d", i)
		config.Keys = append(config.Keys, KeyPolicy{
			Name: name, Ref: hsm.KeyRef{Label: name}, Tokens: []string{"main"}, PublicKey: key.Public(),
			Require: hsm.Requirement{NeverExtractable: true}, Checkpoints: &CheckpointPolicy{Origin: "logs.example/" + name},
		})
	}
	r := start(t, config, log)
	if err := r.keeper.Ready(); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), "a key cannot be used"); n != 600 {
		t.Errorf("of 600 keys that are not there, %d are told", n)
	}
	if err := a.issue(r.signer(t, a.certificate.PublicKey), leaf()); err != nil {
		t.Error(err)
	}
}

func TestPeersAreChecked(t *testing.T) {
	a := newAuthority(t, 0)
	config, log := a.config(t, a.fixture.Config())
	r := start(t, config, log)
	for _, c := range []struct {
		uid     uint32
		allowed bool
	}{{uint32(os.Geteuid()), true}, {4711, false}, {4712, true}} {
		r.keeper.config.Peers = []uint32{4712}
		if err := r.keeper.mayConnect(c.uid); (err == nil) != c.allowed {
			t.Errorf("user %d: %v", c.uid, err)
		}
	}
}

func TestListenReplacesADeadSocketAlone(t *testing.T) {
	// Longer than a socket's address can be.
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "keeper.sock")
	first, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "another keeper") {
		t.Errorf("two keepers listen on one socket: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("the socket has mode %v, %v", info.Mode(), err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+"2", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path + "2"); err == nil {
		t.Error("a file was replaced by a socket")
	}
}

// TestKeepersStartedAtOnce: of several that find the socket of a dead one, one makes its own, and the others leave it alone. No other test
// runs beside it: a process that one starts has, until it has become another program, what is open here, and so the last round's lock.
func TestKeepersStartedAtOnce(t *testing.T) {
	const rounds, keepers = 200, 4
	path := filepath.Join(t.TempDir(), "keeper.sock")
	for round := range rounds {
		var group sync.WaitGroup
		begin, made := make(chan struct{}), make(chan *Listener, keepers)
		for range keepers {
			group.Go(func() {
				<-begin
				switch l, err := listen(path); {
				case err == nil:
					made <- l
				case !errors.Is(err, errAnother) || !strings.Contains(err.Error(), "another keeper serves this socket"):
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		close(begin)
		group.Wait()
		close(made)
		if n := len(made); n != 1 {
			t.Errorf("round %d: %d keepers have made the socket", round, n)
		}
		conn, err := dial(path)
		if err != nil {
			t.Errorf("round %d: nobody answers at the socket: %v", round, err)
		} else {
			_ = conn.Close()
		}
		for l := range made {
			if err := l.Close(); err != nil { // the socket stays, as after a crash
				t.Fatal(err)
			}
		}
		if t.Failed() {
			return
		}
	}
}

// TestListenAfterAKilledKeeper: the lock of a keeper that was killed keeps nobody out, and nor does the socket that it has left.
func TestListenAfterAKilledKeeper(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keeper.sock")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), actAsListener+"="+path)
	said, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := sync.OnceFunc(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	defer kill()
	if _, err := io.ReadFull(said, make([]byte, len(listening))); err != nil {
		t.Fatal(err)
	}
	if l, err := listen(path); !errors.Is(err, errAnother) {
		if err == nil {
			_ = l.Close()
		}
		t.Errorf("beside a living keeper: %v", err)
	}
	kill()
	if _, err := os.Lstat(path); err != nil {
		t.Fatalf("the socket is not left: %v", err)
	}
	l, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// TestKeeperRestart: a client outlives its keeper, and what the guard remembers outlives it, too.
func TestKeeperRestart(t *testing.T) {
	a := newAuthority(t, 0)
	config, log := a.config(t, a.fixture.Config())
	config.Keys[0].Total = 3
	first := start(t, config, log)
	key := first.signer(t, a.certificate.PublicKey)
	for range 2 {
		if err := a.issue(key, leaf()); err != nil {
			t.Fatal(err)
		}
	}
	first.stop()
	second := start(t, config, log)
	key = second.signer(t, a.certificate.PublicKey)
	if err := a.issue(key, leaf()); err != nil {
		t.Fatal(err)
	}
	if err := a.issue(key, leaf()); !errors.Is(err, ErrRefused) {
		t.Errorf("the fourth of three signatures: %v", err)
	}
}

func readEntries(t *testing.T, path string) (entries []entry) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := VerifyJournal(file, ""); err != nil {
		t.Errorf("the journal: %v", err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	for lines := newLineReader(file); ; {
		line, _, err := lines.next()
		if err != nil {
			return entries
		}
		entries = append(entries, parseEntry(t, line))
	}
}
