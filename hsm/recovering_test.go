package hsm_test

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
)

// recovering opens a token with one key, for as long as the test runs.
func recovering(t *testing.T, fixture *hsmtest.Token) (*hsm.Recovering, hsm.Signer) {
	t.Helper()
	r, signers := recoveringWith(t, fixture.Config(), hsm.ECDSAP256)
	return r, signers[0]
}

// recoveringWith opens a token with some keys, for as long as the test runs.
func recoveringWith(t *testing.T, c hsm.Config, algorithms ...hsm.Algorithm) (*hsm.Recovering, []hsm.Signer) {
	t.Helper()
	plain := c
	plain.Observer = nil
	token, err := hsm.Open(t.Context(), plain)
	if err != nil {
		t.Fatal(err)
	}
	var refs []hsm.KeyRef
	for i, algorithm := range algorithms {
		ref, _ := generate(t, token, algorithm, []string{"ca", "second", "third"}[i])
		refs = append(refs, ref)
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := hsm.OpenRecovering(t.Context(), c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	var signers []hsm.Signer
	for _, ref := range refs {
		signer, err := r.Signer(ref, nil, hsm.Terms{})
		if err != nil {
			t.Fatal(err)
		}
		signers = append(signers, signer)
	}
	return r, signers
}

// openings counts how often a token was opened, and how often that failed. It fails itself while it is told to.
type openings struct{ opened, failed, refusing atomic.Int64 }

func (o *openings) Observe(_ context.Context, op hsm.Operation) error {
	if op.Op != hsm.OpOpen {
		return nil
	}
	if o.refusing.Load() > 0 {
		o.failed.Add(1)
		return errors.New("the journal is full")
	}
	if op.Err != nil {
		o.failed.Add(1)
		return nil
	}
	o.opened.Add(1)
	return nil
}

// observed is a configuration with openings that it counts.
func observed(c hsm.Config) (hsm.Config, *openings) {
	o := &openings{}
	c.Observer = o
	return c, o
}

// until waits for something that is to become true within twenty seconds.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(20 * time.Second); !is(); {
		select {
		case <-deadline:
			t.Fatalf("not within 20 seconds: %s", what)
		case <-tick.C:
		}
	}
}

// during repeats something for a while.
func during(d time.Duration, repeat func()) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); time.Since(began) < d; <-tick.C {
		repeat()
	}
}

// lose ends the sessions of a token, which the next call notices.
func lose(t *testing.T, r *hsm.Recovering) {
	t.Helper()
	if err := r.LoseSessions(); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// inDirectory makes a token, and tells in which directory it is.
func inDirectory(t *testing.T) (made *hsmtest.Token, dir string) {
	t.Helper()
	names := func() []os.DirEntry {
		all, err := os.ReadDir(hsmtest.Directory(t))
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	before := names()
	made = hsmtest.New(t)
	for _, one := range names() {
		if !slices.ContainsFunc(before, func(other os.DirEntry) bool { return other.Name() == one.Name() }) {
			dir = filepath.Join(hsmtest.Directory(t), one.Name())
		}
	}
	return made, dir
}

// signed tells whether a key signs, which must not fail but by not being available.
func signed(t *testing.T, signer hsm.Signer) bool {
	t.Helper()
	_, err := signer.SignMessage(nil, []byte("x"), crypto.SHA256)
	if err != nil && !errors.Is(err, hsm.ErrUnavailable) {
		t.Errorf("told as %v", err)
	}
	return err == nil
}

// signsWithin asks until the key signs.
func signsWithin(t *testing.T, limit time.Duration, signer hsm.Signer) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	message := []byte("to be signed")
	for deadline := time.After(limit); ; {
		signature, err := signer.SignMessage(nil, message, crypto.SHA256)
		if err == nil {
			if err := verify(signer.Public(), message, signature, crypto.SHA256); err != nil {
				t.Error(err)
			}
			return
		}
		if !errors.Is(err, hsm.ErrUnavailable) {
			t.Fatalf("a loss was told as %v", err)
		}
		select {
		case <-deadline:
			t.Fatalf("not within %s: %v", limit, err)
		case <-tick.C:
		}
	}
}

// TestRecoveryOfAllTokensOfALibrary: SoftHSM sees tokens that are back only when it is initialised anew, for which each of them must be
// closed. It is not run beside other tests, whose tokens are in the same directory.
func TestRecoveryOfAllTokensOfALibrary(t *testing.T) {
	first, one := recovering(t, hsmtest.New(t))
	second, two := recovering(t, hsmtest.New(t))
	dir := hsmtest.Directory(t)
	rename(t, dir, dir+".away")
	for _, signer := range []hsm.Signer{one, two} {
		if _, err := signer.SignMessage(nil, []byte("x"), crypto.SHA256); !errors.Is(err, hsm.ErrUnavailable) {
			t.Errorf("without its token: %v", err)
		}
	}
	rename(t, dir+".away", dir)
	signsWithin(t, 20*time.Second, one)
	signsWithin(t, 20*time.Second, two)
	for _, r := range []*hsm.Recovering{first, second} {
		if err := r.Available(); err != nil {
			t.Error(err)
		}
	}
}

// TestATokenThatStaysAway: its neighbour in the library, which is well, hardly suffers, and it is in use soon after it is back. It is not
// run beside other tests, whose tokens are of the same library.
func TestATokenThatStaysAway(t *testing.T) {
	_, well := recovering(t, hsmtest.New(t))
	fixture, dir := inDirectory(t)
	_, away := recovering(t, fixture)
	aside := hsmtest.Directory(t) + ".one"
	rename(t, dir, aside)
	if _, err := away.SignMessage(nil, []byte("x"), crypto.SHA256); !errors.Is(err, hsm.ErrUnavailable) {
		t.Fatalf("without its token: %v", err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	tried, failed := 0, 0
	for began := time.Now(); time.Since(began) < 4*time.Second; <-tick.C {
		tried++
		if _, err := well.SignMessage(nil, []byte("x"), crypto.SHA256); err != nil {
			failed++
		}
	}
	if failed > tried/5 {
		t.Errorf("of %d signatures of the token that is well, %d failed", tried, failed)
	}
	rename(t, aside, dir)
	signsWithin(t, 20*time.Second, away)
}

// TestNeighbourWithSlowLogins: a token that is well rests for a multiple of what opening it anew takes, however long its neighbour stays
// away. It is not run beside other tests, whose tokens are of the same library.
func TestNeighbourWithSlowLogins(t *testing.T) {
	f := hsmtest.NewFaulty(t)
	config, count := observed(f.Config(hsmtest.New(t)))
	fixture, dir := inDirectory(t)
	_, well := recoveringWith(t, config, hsm.ECDSAP256)
	_, away := recoveringWith(t, f.Config(fixture), hsm.ECDSAP256)
	aside := hsmtest.Directory(t) + ".one"
	rename(t, dir, aside)
	defer rename(t, aside, dir)
	f.Begin(t, hsmtest.SlowLogin)
	if signed(t, away[0]) {
		t.Fatal("signed without its token")
	}
	tried, failed := 0, 0
	during(7*time.Second, func() {
		tried++
		if !signed(t, well[0]) {
			failed++
		}
	})
	f.Begin(t, "")
	// Once at first, and once after nine half seconds.
	if anew := count.opened.Load() - 1; anew > 2 {
		t.Errorf("the token that is well was opened anew %d times in 7 seconds; of %d signatures, %d failed", anew, tried, failed)
	}
}

// TestNeighbourIsNotClosedInVain: what is wrong with a token's PIN or with who observes it, no library mends.
func TestNeighbourIsNotClosedInVain(t *testing.T) {
	for name, wrong := range map[string]func(t *testing.T, fixture *hsmtest.Token, o *openings) (mend func()){
		"the PIN file is away": func(t *testing.T, fixture *hsmtest.Token, _ *openings) func() {
			rename(t, fixture.PINFile, fixture.PINFile+".away")
			return func() { rename(t, fixture.PINFile+".away", fixture.PINFile) }
		},
		"the observer fails": func(_ *testing.T, _ *hsmtest.Token, o *openings) func() {
			o.refusing.Store(1)
			return func() { o.refusing.Store(0) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			config, neighbours := observed(hsmtest.New(t).Config())
			_, well := recoveringWith(t, config, hsm.ECDSAP256)
			fixture := hsmtest.New(t)
			config, own := observed(fixture.Config())
			lost, signers := recoveringWith(t, config, hsm.ECDSAP256)
			mend := wrong(t, fixture, own)
			lose(t, lost)
			if signed(t, signers[0]) {
				t.Fatal("signed without a session")
			}
			until(t, "five attempts", func() bool { return own.failed.Load() >= 5 })
			if !signed(t, well[0]) || neighbours.opened.Load() != 1 {
				t.Errorf("the token that is well was opened %d times", neighbours.opened.Load())
			}
			mend()
			signsWithin(t, 20*time.Second, signers[0])
		})
	}
}

// TestSlotThatDoesNotAnswer: crypto11 finds no token that is listed after one, so whoever is open stays open.
func TestSlotThatDoesNotAnswer(t *testing.T) {
	f := hsmtest.NewFaulty(t)
	fixtures := map[string]*hsmtest.Token{}
	for range 3 {
		fixture := hsmtest.New(t)
		fixtures[fixture.Serial] = fixture
	}
	listed, err := hsm.List(t.Context(), hsm.ListConfig{Module: f.Module})
	if err != nil {
		t.Fatal(err)
	}
	var inOrder []*hsmtest.Token
	var slot uint
	for _, s := range listed.Slots {
		if s.Token == nil || fixtures[s.Token.Serial] == nil {
			continue
		}
		if len(inOrder) == 0 {
			slot = s.ID
		}
		inOrder = append(inOrder, fixtures[s.Token.Serial])
	}
	config, own := observed(f.Config(inOrder[0]))
	lost, signers := recoveringWith(t, config, hsm.ECDSAP256)
	config, neighbours := observed(f.Config(inOrder[1]))
	_, well := recoveringWith(t, config, hsm.ECDSAP256)
	f.Begin(t, hsmtest.Mute(slot))
	lose(t, lost)
	if signed(t, signers[0]) {
		t.Fatal("signed without a session")
	}
	until(t, "five attempts", func() bool { return own.failed.Load() >= 5 })
	if !signed(t, well[0]) || neighbours.opened.Load() != 1 {
		t.Errorf("the token that is well was opened %d times", neighbours.opened.Load())
	}
	_, err = hsm.Open(t.Context(), f.Config(inOrder[2]))
	if !errors.Is(err, hsm.ErrUnavailable) || !strings.Contains(err.Error(), fmt.Sprintf("slot %d does not answer", slot)) {
		t.Errorf("opening a token that is listed after it: %v", err)
	}
	f.Begin(t, "")
	signsWithin(t, 20*time.Second, signers[0])
}

// TestKeysThatFailByThemselves: the token is opened anew once for each, and then left alone for the sake of the key that signs.
func TestKeysThatFailByThemselves(t *testing.T) {
	f := hsmtest.NewFaulty(t)
	config, count := observed(f.Config(hsmtest.New(t)))
	_, signers := recoveringWith(t, config, hsm.ECDSAP256, hsm.RSA2048, hsm.RSA2048)
	well, sick := signers[0], signers[1:]
	f.Begin(t, hsmtest.SickRSA)
	during(3*time.Second, func() {
		if signed(t, well) && (signed(t, sick[0]) || signed(t, sick[1])) {
			t.Error("a sick key signed")
		}
	})
	if n := count.opened.Load(); n > 3 {
		t.Errorf("with two keys that fail by themselves, the token was opened %d times", n)
	}
	f.Begin(t, "")
	signsWithin(t, 5*time.Second, sick[0])
	signsWithin(t, 5*time.Second, sick[1])
	if n := count.opened.Load(); n > 3 {
		t.Errorf("for keys that are well again, the token was opened anew, %d times in all", n)
	}
}

// TestKeyThatFailsAlone: nobody shows that the token is well, so it is opened anew again, but not for each call.
func TestKeyThatFailsAlone(t *testing.T) {
	f := hsmtest.NewFaulty(t)
	config, count := observed(f.Config(hsmtest.New(t)))
	r, signers := recoveringWith(t, config, hsm.ECDSAP256)
	f.Begin(t, "0x5")
	until(t, "a second recovery", func() bool { return !signed(t, signers[0]) && count.opened.Load() == 3 })
	during(time.Second, func() { signed(t, signers[0]) })
	if n := count.opened.Load(); n > 3 {
		t.Errorf("a second later the token has been opened %d times", n)
	}
	f.Begin(t, "")
	signsWithin(t, 5*time.Second, signers[0])
	// A loss after it has signed is one like any other.
	before := count.opened.Load()
	lose(t, r)
	if signed(t, signers[0]) {
		t.Error("signed without a session")
	}
	until(t, "a recovery", func() bool { return count.opened.Load() > before && r.Available() == nil })
	// And one before it has signed again may be the key's, but not for long.
	lose(t, r)
	signsWithin(t, 10*time.Second, signers[0])
}

// TestLossBeforeTheFirstKey: what is lost between the log-in and the first look for a key comes back, too.
func TestLossBeforeTheFirstKey(t *testing.T) {
	r, before := recovering(t, hsmtest.New(t))
	for what, look := range map[string]func() error{
		"a key": func() error {
			_, err := r.Signer(hsm.KeyRef{Label: "ca"}, before.Public(), hsm.Terms{})
			return err
		},
		"its attributes": func() error {
			_, err := r.Attributes(hsm.KeyRef{Label: "ca"})
			return err
		},
	} {
		if err := r.LoseSessions(); err != nil {
			t.Fatal(err)
		}
		if err := look(); !errors.Is(err, hsm.ErrUnavailable) {
			t.Fatalf("looking for %s without a session: %v", what, err)
		}
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for deadline := time.After(20 * time.Second); ; {
			err := look()
			if err == nil {
				break
			}
			select {
			case <-deadline:
				t.Fatalf("looking for %s, 20 seconds after the loss: %v", what, err)
			case <-tick.C:
			}
		}
	}
}

// TestTermsHoldAfterALoss: what comes back as less than was required signs no more.
func TestTermsHoldAfterALoss(t *testing.T) {
	fixture, f := hsmtest.New(t), hsmtest.NewFaulty(t)
	token, err := hsm.Open(t.Context(), fixture.Config())
	if err != nil {
		t.Fatal(err)
	}
	ref, public := generate(t, token, hsm.ECDSAP256, "ca")
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := hsm.OpenRecovering(t.Context(), f.Config(fixture), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	required := hsm.Terms{Require: hsm.Requirement{Hardware: true, Local: true, FIPSLevel: 3}}
	if _, err := r.Signer(ref, public, required); !errors.Is(err, hsm.ErrNotCompliant) {
		t.Errorf("a slot that is none of hardware: %v", err)
	}
	f.Begin(t, hsmtest.Hardware)
	lose := func() {
		t.Helper()
		if err := r.LoseSessions(); err != nil {
			t.Fatal(err)
		}
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for deadline := time.After(20 * time.Second); ; {
			_, err := r.Signer(ref, public, hsm.Terms{})
			if err == nil {
				return
			}
			select {
			case <-deadline:
				t.Fatalf("20 seconds after the loss: %v", err)
			case <-tick.C:
			}
		}
	}
	lose()
	if _, err := r.Signer(ref, public, required); !errors.Is(err, hsm.ErrNotCompliant) {
		t.Errorf("no level is declared: %v", err)
	}
	required.Declared = hsm.Declaration{FIPSLevel: 3, FIPSCertificate: "4703"}
	signer, err := r.Signer(ref, public, required)
	if err != nil {
		t.Fatal(err)
	}
	signsWithin(t, 20*time.Second, signer)
	f.Begin(t, "")
	lose()
	_, err = signer.SignMessage(nil, []byte("x"), crypto.SHA256)
	if !errors.Is(err, hsm.ErrUnavailable) || !errors.Is(err, hsm.ErrNotCompliant) {
		t.Errorf("a slot that is no longer one of hardware: %v", err)
	}
	f.Begin(t, hsmtest.Hardware)
	lose()
	signsWithin(t, 20*time.Second, signer)
}

func TestRecoveringIsClosed(t *testing.T) {
	r, signer := recovering(t, hsmtest.New(t))
	signsWithin(t, 20*time.Second, signer)
	for range 2 {
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := signer.SignMessage(nil, []byte("x"), crypto.SHA256); !errors.Is(err, hsm.ErrUnavailable) {
		t.Errorf("a closed token signs: %v", err)
	}
	if _, err := signer.SignMessage(nil, []byte("x"), nil); err == nil {
		t.Error("no hash was named")
	}
}
