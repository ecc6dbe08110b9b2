package hsm_test

import (
	"crypto"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
)

// recovering opens a token with one key, for as long as the test runs.
func recovering(t *testing.T, fixture *hsmtest.Token) (*hsm.Recovering, hsm.Signer) {
	t.Helper()
	token, err := hsm.Open(t.Context(), fixture.Config())
	if err != nil {
		t.Fatal(err)
	}
	ref, public := generate(t, token, hsm.ECDSAP256, "ca")
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := hsm.OpenRecovering(t.Context(), fixture.Config(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	signer, err := r.Signer(ref, public, hsm.Terms{})
	if err != nil {
		t.Fatal(err)
	}
	return r, signer
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
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	for _, signer := range []hsm.Signer{one, two} {
		if _, err := signer.SignMessage(nil, []byte("x"), crypto.SHA256); !errors.Is(err, hsm.ErrUnavailable) {
			t.Errorf("without its token: %v", err)
		}
	}
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
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
	present, err := os.ReadDir(hsmtest.Directory(t))
	if err != nil {
		t.Fatal(err)
	}
	_, away := recovering(t, hsmtest.New(t))
	all, err := os.ReadDir(hsmtest.Directory(t))
	if err != nil {
		t.Fatal(err)
	}
	dir, aside := "", hsmtest.Directory(t)+".one"
	for _, one := range all {
		if !slices.ContainsFunc(present, func(other os.DirEntry) bool { return other.Name() == one.Name() }) {
			dir = filepath.Join(hsmtest.Directory(t), one.Name())
		}
	}
	if err := os.Rename(dir, aside); err != nil {
		t.Fatal(err)
	}
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
	if err := os.Rename(aside, dir); err != nil {
		t.Fatal(err)
	}
	signsWithin(t, 20*time.Second, away)
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
