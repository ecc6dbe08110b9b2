package keeper

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

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
