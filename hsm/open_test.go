package hsm_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
)

func TestOpenDescribesTheToken(t *testing.T) {
	t.Parallel()
	fixture := hsmtest.New(t)
	info := fixture.Open(t).Info()
	if info.Label != fixture.Label || info.Serial != fixture.Serial || !strings.HasPrefix(info.Manufacturer, "SoftHSM") ||
		info.Model == "" || info.Hardware || !filepath.IsAbs(info.Module) {
		t.Errorf("info is %+v", info)
	}
}

func TestOpenSelects(t *testing.T) {
	t.Parallel()
	a, b := hsmtest.New(t), hsmtest.New(t)
	slot := uint(1 << 40)
	tests := []struct {
		name     string
		selector hsm.Selector
		want     error
		says     string
	}{
		{"label", hsm.Selector{Label: a.Label}, nil, ""},
		{"serial", hsm.Selector{Serial: a.Serial}, nil, ""},
		{"label and serial", hsm.Selector{Label: a.Label, Serial: a.Serial}, nil, ""},
		{"label of one, serial of another", hsm.Selector{Label: a.Label, Serial: b.Serial}, hsm.ErrNoToken, a.Serial},
		{"unknown label", hsm.Selector{Label: "nobody"}, hsm.ErrNoToken, b.Label},
		{"unknown slot", hsm.Selector{Slot: &slot}, hsm.ErrNoToken, ""},
		{"part of a label", hsm.Selector{Label: a.Label[:8]}, hsm.ErrNoToken, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := a.Config()
			c.Token = tt.selector
			token, err := hsm.Open(t.Context(), c)
			if err == nil {
				defer token.Close()
			}
			if !errors.Is(err, tt.want) {
				t.Fatalf("error is %v", err)
			}
			if err == nil && token.Info().Serial != a.Serial {
				t.Errorf("opened %+v", token.Info())
			}
			if err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%q does not say %q", err, tt.says)
			}
		})
	}
	c := a.Config()
	c.Token = hsm.Selector{}
	if _, err := hsm.Open(t.Context(), c); err == nil {
		t.Error("a token was opened that nobody named")
	}
}

func TestOpenBySlot(t *testing.T) {
	t.Parallel()
	fixture := hsmtest.Subject(t)
	token := fixture.Open(t)
	slot := token.Info().Slot
	c := fixture.Config()
	c.Token = hsm.Selector{Slot: &slot}
	if _, err := hsm.Open(t.Context(), c); !errors.Is(err, hsm.ErrInUse) {
		t.Errorf("the slot leads to another token, or to none: %v", err)
	}
}

func TestOpenWithoutModule(t *testing.T) {
	t.Parallel()
	broken := filepath.Join(t.TempDir(), "broken.so")
	if err := os.WriteFile(broken, []byte("not a library"), 0o600); err != nil {
		t.Fatal(err)
	}
	for module, says := range map[string]string{
		"":                            "no PKCS#11 module",
		"/nonexistent/libsofthsm2.so": "apt-get install softhsm2",
		broken:                        "no PKCS#11 library",
		t.TempDir():                   "directory",
	} {
		_, err := hsm.Open(t.Context(), hsm.Config{Module: module, Token: hsm.Selector{Label: "x"}, PIN: hsm.PINFromBytes([]byte("1234"))})
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("module %q: %v", module, err)
		}
	}
	_, err := hsm.Open(t.Context(), hsm.Config{Module: "/nonexistent/lib.so"})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error is %v", err)
	}
}

func TestOpenLibraryThatIsNotPKCS11(t *testing.T) {
	t.Parallel()
	libraries, err := filepath.Glob("/lib/*/libm.so.6")
	if err != nil {
		t.Fatal(err)
	}
	for _, library := range libraries {
		_, err := hsm.Open(t.Context(), hsm.Config{Module: library})
		if err == nil || !strings.Contains(err.Error(), "no PKCS#11 library") {
			t.Errorf("%s: %v", library, err)
		}
	}
}

// A second log-in accepts any PIN, so there must not be one.
func TestOpenTwice(t *testing.T) {
	t.Parallel()
	fixture := hsmtest.Subject(t)
	first := fixture.Open(t)
	again := fixture.Config()
	again.PIN = hsm.PINFromBytes([]byte("not the PIN"))
	for range 2 {
		if _, err := hsm.Open(t.Context(), again); !errors.Is(err, hsm.ErrInUse) {
			t.Fatalf("error is %v", err)
		}
	}
	link := filepath.Join(t.TempDir(), "link.so")
	if err := os.Symlink(fixture.Module, link); err != nil {
		t.Fatal(err)
	}
	again.Module = link
	if _, err := hsm.Open(t.Context(), again); !errors.Is(err, hsm.ErrInUse) {
		t.Fatalf("under another name of the library: %v", err)
	}
	if _, err := first.Random(16); err != nil {
		t.Errorf("the first opening suffered: %v", err)
	}
}

func TestReopen(t *testing.T) {
	t.Parallel()
	fixture, neighbour := hsmtest.New(t), hsmtest.New(t)
	other := neighbour.Open(t) // keeps the library initialised
	for range 3 {
		token, err := hsm.Open(t.Context(), fixture.Config())
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := token.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := token.Random(1); !errors.Is(err, hsm.ErrUnavailable) {
			t.Errorf("after Close: %v", err)
		}
	}
	// Closing logged out: a wrong PIN is noticed although the library was never finalised.
	c := fixture.Config()
	c.PIN = hsm.PINFromBytes([]byte("not the PIN"))
	if token, err := hsm.Open(t.Context(), c); !errors.Is(err, hsm.ErrWrongPIN) {
		t.Errorf("token %v, error %v", token, err)
	}
	if _, err := other.Random(1); err != nil {
		t.Errorf("the neighbour suffered: %v", err)
	}
}

func TestOpenCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := hsm.Open(ctx, hsmtest.Subject(t).Config()); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

func TestWrongPINPutsTheTokenAtRisk(t *testing.T) {
	t.Parallel()
	fixture := hsmtest.Subject(t)
	tells := fixture.Tells(t, hsm.TellsFailedLogin)
	wrong := fixture.Config()
	wrong.PIN = hsm.PINFromBytes([]byte("not the PIN"))
	_, err := hsm.Open(t.Context(), wrong)
	if !errors.Is(err, hsm.ErrWrongPIN) || !strings.Contains(err.Error(), "CKR_PIN_INCORRECT") || strings.Contains(err.Error(), "not the PIN") {
		t.Fatalf("error is %v", err)
	}
	// Where the token remembers, a service that restarts does not go on until it locks.
	unasked, err := hsm.Open(t.Context(), fixture.Config())
	if tells != errors.Is(err, hsm.ErrPINAtRisk) || !tells && err != nil {
		t.Fatalf("the token tells of the failure: %v; error is %v", tells, err)
	}
	if err == nil {
		if err := unasked.Close(); err != nil {
			t.Fatal(err)
		}
	}
	right := fixture.Config()
	right.RetryAfterFailedPIN = true
	token, err := hsm.Open(t.Context(), right)
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	fixture.Open(t) // the right PIN has cleared the flag
}

// The library itself counts the log-ins.
func TestWrongPINIsTriedOnce(t *testing.T) {
	t.Parallel()
	spies, err := filepath.Glob("/usr/lib/*/pkcs11-spy.so")
	if err != nil || len(spies) == 0 {
		t.Fatalf("pkcs11-spy.so is missing (apt-get install opensc): %v", err)
	}
	fixture := hsmtest.New(t)
	for _, pin := range []string{hsmtest.UserPIN, "not the PIN"} {
		log := filepath.Join(t.TempDir(), "spy.log")
		out, err := openInChild(t, spies[0], fixture.Serial, pin, "PKCS11SPY="+fixture.Module, "PKCS11SPY_OUTPUT="+log)
		if right := pin == hsmtest.UserPIN; right != (err == nil) {
			t.Fatalf("PIN right: %t, error %v: %s", right, err, out)
		}
		calls, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(calls), "C_Login\n"); n != 1 {
			t.Errorf("%d calls of C_Login:\n%s", n, calls)
		}
	}
}

func TestRandom(t *testing.T) {
	t.Parallel()
	token := hsmtest.Subject(t).Open(t)
	a, err := token.Random(5000)
	if err != nil {
		t.Fatal(err)
	}
	b, err := token.Random(5000)
	if err != nil {
		t.Fatal(err)
	}
	if len(a) != 5000 || string(a) == string(b) || string(a[:1024]) == string(a[1024:2048]) || strings.Count(string(a[4990:]), "\x00") > 5 {
		t.Error("the octets are not random")
	}
	if none, err := token.Random(0); err != nil || len(none) != 0 {
		t.Errorf("no octets: %v, %v", none, err)
	}
}

// Where crypto11 has an instance of the library of its own, it is opened twice, and the second time can fail. Another token of the library
// is none the worse for it, and the same one can be opened again.
func TestAnOpeningThatFailsHalfWay(t *testing.T) {
	other, err := hsm.Open(t.Context(), hsmtest.New(t).Config())
	if err != nil {
		t.Fatal(err)
	}
	config := hsmtest.New(t).Config()
	if err := hsm.OpenApart(config); err == nil {
		t.Fatal("it did not fail")
	}
	if _, err := other.Random(8); err != nil {
		t.Errorf("the other token: %v", err)
	}
	again, err := hsm.Open(t.Context(), config)
	if err != nil {
		t.Fatalf("opening it again: %v", err)
	}
	if err := errors.Join(again.Close(), other.Close()); err != nil {
		t.Error(err)
	}
}

// A library may number its slots anew between two of its initialisations, as it is opened. No token's PIN is tried on another.
func TestSlotsAreNumberedAnewDuringAnOpening(t *testing.T) {
	f, a, b := hsmtest.NewFaulty(t), hsmtest.New(t), hsmtest.New(t)
	if err := hsm.ChangePIN(t.Context(), hsm.SetPINConfig{
		Module: a.Module, Token: hsm.Selector{Serial: a.Serial},
		Old: hsm.PINFromFile(a.PINFile), New: hsm.PINFromBytes([]byte("another-pin-of-a")),
	}); err != nil {
		t.Fatal(err)
	}
	slotOf := func(token *hsmtest.Token) hsm.Slot {
		m, err := hsm.List(t.Context(), hsm.ListConfig{Module: a.Module})
		if err != nil {
			t.Fatal(err)
		}
		at := slices.IndexFunc(m.Slots, func(s hsm.Slot) bool { return s.Token != nil && s.Token.Serial == token.Serial })
		if at < 0 {
			t.Fatal("a token is gone")
		}
		return m.Slots[at]
	}
	f.Begin(t, hsmtest.Swap(slotOf(a).ID, slotOf(b).ID))
	token, err := hsm.Open(t.Context(), f.Config(b))
	if !errors.Is(err, hsm.ErrUnavailable) || hsm.NeedsPerson(err) {
		t.Errorf("opened %t, %v", token != nil, err)
	}
	if flags := slotOf(a).Token.Flags; slices.Contains(flags, "CKF_USER_PIN_COUNT_LOW") {
		t.Errorf("the PIN of one was tried on the other: %v", flags)
	}
	if token, err = hsm.Open(t.Context(), f.Config(b)); err != nil { // they stay where they are
		t.Fatalf("once more: %v", err)
	}
	if err := token.Close(); err != nil {
		t.Error(err)
	}
}
