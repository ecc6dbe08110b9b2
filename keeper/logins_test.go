package keeper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
)

// tokenEntries are the entries about tokens, as result and serial number.
func tokenEntries(t *testing.T, journal string) (told []string) {
	t.Helper()
	for _, e := range readEntries(t, journal) {
		if e.Kind == kindToken {
			told = append(told, e.Result+" "+e.Scope)
		}
	}
	return told
}

// TestLoginsAreWrittenDown: whoever has the library, each log-in is an entry, and so is what became of it.
func TestLoginsAreWrittenDown(t *testing.T) {
	for name, worker := range map[string]bool{"worker": true, "in the keeper": false} {
		t.Run(name, func(t *testing.T) {
			a, f := newAuthority(t, 0), hsmtest.NewFaulty(t)
			config, log := a.config(t, f.Config(a.fixture))
			if !worker {
				config.Worker = nil
			}
			r := start(t, config, log)
			key := r.signer(t, a.certificate.PublicKey)
			f.Begin(t, hsmtest.CloseAll) // sessions are lost: a log-in more
			_ = a.issue(key, leaf())
			f.Begin(t, "")
			within(t, recovery, "the token is logged in to again", func() error {
				if err := a.issue(key, leaf()); err != nil {
					return err
				}
				if n := strings.Count(strings.Join(tokenEntries(t, r.journal), "\n"), resultOpened); n < 2 {
					return errors.New("the journal has one log-in")
				}
				return nil
			})
			r.stop()
			entries := readEntries(t, r.journal)
			if last := entries[len(entries)-1]; last.Kind != kindToken || last.Why != errClosed.Error() {
				t.Errorf("the journal ends with %+v", last)
			}
			told := tokenEntries(t, r.journal)
			serial := told[0][strings.IndexByte(told[0], ' ')+1:]
			if serial == "" || told[0] != resultOpened+" "+serial || told[len(told)-1] != resultClosed+" "+serial {
				t.Errorf("the journal tells of the token: %q", told)
			}
		})
	}
}

// TestFailedLoginsAreWrittenDown: a wrong PIN is an entry, which does not hold it.
func TestFailedLoginsAreWrittenDown(t *testing.T) {
	const wrong = "not-the-pin-at-all"
	for name, worker := range map[string]bool{"worker": true, "in the keeper": false} {
		t.Run(name, func(t *testing.T) {
			a := newAuthority(t, 0)
			if err := os.WriteFile(a.fixture.PINFile, []byte(wrong+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			config, log := a.config(t, a.fixture.Config())
			if !worker {
				config.Worker = nil
			}
			r := start(t, config, log)
			r.stop()
			told := tokenEntries(t, r.journal)
			if len(told) != 1 || !strings.HasPrefix(told[0], resultFailed) {
				t.Errorf("the journal tells of the token: %q", told)
			}
			if text, err := os.ReadFile(r.journal); err != nil || strings.Contains(string(text), wrong) {
				t.Errorf("the journal holds the PIN, or cannot be read: %v", err)
			}
			if n := r.keeper.names[0].guard.count; n != 0 {
				t.Errorf("%d signatures are counted", n)
			}
		})
	}
}

// TestLogoutOfAHangIsWrittenDown: a process that ends because its library hangs says of its tokens that they go with it.
func TestLogoutOfAHangIsWrittenDown(t *testing.T) {
	t.Parallel()
	a, f := newAuthority(t, 0), hsmtest.NewFaulty(t)
	s := supervise(t, a, f.Config(a.fixture), t.TempDir())
	outlive(t, a, s.signer(t, a), f, hsmtest.Hang, nil)
	s.stop()
	var results []string
	for _, e := range readEntries(t, s.journal) {
		if e.Kind != kindToken {
			continue
		}
		if results = append(results, e.Result); len(results) == 2 && !strings.Contains(e.Why, "did not come back") {
			t.Errorf("the first holder ended because %s", e.Why)
		}
	}
	if want := []string{resultOpened, resultClosed, resultOpened, resultClosed}; !slices.Equal(results, want) {
		t.Errorf("the journal says of the token that it was %q, want %q", results, want)
	}
}

// TestAWrongPINThatCannotBeWrittenDown is tried once all the same, and the supervisor is told of it.
func TestAWrongPINThatCannotBeWrittenDown(t *testing.T) {
	for name, worker := range map[string]bool{"worker": true, "in the keeper": false} {
		t.Run(name, func(t *testing.T) {
			a, f := wrongPIN(t, "")
			config, log := a.config(t, f.Config(a.fixture))
			if !worker {
				config.Worker = nil
			}
			// A token of another make does not tell, as this one does, that a further try could lock it. So it is tries that are counted.
			tries := 0
			if command := config.Worker; worker {
				config.Worker = func() *exec.Cmd { tries++; return command() }
			}
			var told []error
			config.NeedsPerson = func(_ string, why error) { told = append(told, why) }
			k := &Keeper{config: config, journal: openTestJournal(t, config.Journal)}
			closeJournal(t, k.journal)
			token := k.newToken(config.Tokens[0], nil)
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				token.run(ctx)
			}()
			within(t, patience, "the token stays closed", func() error {
				select {
				case <-ended:
					return nil
				default:
					return errors.New("it is opened again and again")
				}
			})
			stop()
			<-ended
			if failed := f.FailedLogins(t); failed != 1 || len(told) != 1 || !errors.Is(told[0], hsm.ErrWrongPIN) {
				t.Errorf("%d log-ins failed, and the supervisor was told %v\n%s", failed, told, log)
			}
			if worker && tries != 1 {
				t.Errorf("the token was opened %d times", tries)
			}
		})
	}
}

// TestAWrongPINBeforeACrash is tried once, although the library ends the process, or keeps it, before the attempt is over.
func TestAWrongPINBeforeACrash(t *testing.T) {
	for _, fault := range []string{hsmtest.CrashRefused, hsmtest.HangRefused} {
		t.Run("holder "+fault, func(t *testing.T) {
			a, f := wrongPIN(t, fault)
			s := supervise(t, a, f.Config(a.fixture), t.TempDir(), func(h *holding) { h.StartTimeout = time.Second })
			key := s.signer(t, a)
			within(t, patience, "the next holder tells it", func() error {
				if err := a.issue(key, leaf()); !errors.Is(err, hsm.ErrWrongPIN) {
					return fmt.Errorf("it was %w", err)
				}
				return nil
			})
			triedOnce(t, f)
		})
		t.Run("worker "+fault, func(t *testing.T) {
			a, f := wrongPIN(t, fault)
			config, log := a.config(t, f.Config(a.fixture))
			config.Tokens[0].StartTimeout = time.Second
			start(t, config, log)
			within(t, patience, "the token stays closed", func() error {
				if !strings.Contains(log.String(), "the token stays closed") {
					return errors.New("nothing is said of it")
				}
				return nil
			})
			triedOnce(t, f)
		})
	}
	waited := exec.Command("sh", "-c", "kill -SEGV $$").Run()
	if err := ending(hsm.ErrWrongPIN, waited); !hsm.NeedsPerson(err) {
		t.Errorf("a worker that was ended by a signal has not told that a person is needed: %v", err)
	}
}

// wrongPIN is an authority whose token's PIN is not the one that the keeper is given, in a library with a fault.
func wrongPIN(t *testing.T, fault string) (*authority, *hsmtest.Faulty) {
	a, f := newAuthority(t, 0), hsmtest.NewFaulty(t)
	a.spoilPIN(t)
	f.Begin(t, fault)
	t.Cleanup(func() { f.Begin(t, "") }) // what hangs in it ends
	return a, f
}

// spoilPIN has the keeper read a wrong PIN from now on.
func (a *authority) spoilPIN(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(a.fixture.PINFile, []byte("not the pin at all\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func triedOnce(t *testing.T, f *hsmtest.Faulty) {
	t.Helper()
	if failed := f.FailedLogins(t); failed != 1 {
		t.Errorf("%d log-ins failed, want 1", failed)
	}
}

// TestAWrongPINAfterALoss is known to the supervisor although nobody has asked for anything since.
func TestAWrongPINAfterALoss(t *testing.T) {
	a, f := newAuthority(t, 0), hsmtest.NewFaulty(t)
	s := supervise(t, a, f.Config(a.fixture), t.TempDir())
	key := s.signer(t, a)
	if err := a.issue(key, leaf()); err != nil {
		t.Fatal(err)
	}
	a.spoilPIN(t)
	f.Begin(t, hsmtest.CloseAll)
	_ = a.issue(key, leaf())
	within(t, patience, "the log-in that failed is in the journal", func() error {
		if told := tokenEntries(t, s.journal); !slices.ContainsFunc(told, func(e string) bool { return strings.HasPrefix(e, resultFailed) }) {
			return fmt.Errorf("it has %q", told)
		}
		return nil
	})
	if err := syscall.Kill(s.pid(t), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	within(t, patience, "the next holder tells it", func() error {
		if err := a.issue(key, leaf()); !errors.Is(err, hsm.ErrWrongPIN) {
			return fmt.Errorf("it was %w", err)
		}
		return nil
	})
	triedOnce(t, f)
}
