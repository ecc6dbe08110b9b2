package hsm_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
)

func write(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPINSources(t *testing.T) {
	token := hsmtest.Subject(t)
	t.Setenv("TEST_PIN", hsmtest.UserPIN)
	fromEnv := hsm.PINFromEnv("TEST_PIN")
	tests := []struct {
		name string
		pin  hsm.PIN
		want string // part of the error; empty means that the token opens
	}{
		{"file", hsm.PINFromFile(write(t, hsmtest.UserPIN+"\n", 0o600)), ""},
		{"file without newline", hsm.PINFromFile(write(t, hsmtest.UserPIN, 0o400)), ""},
		{"file with CRLF, readable by its group", hsm.PINFromFile(write(t, hsmtest.UserPIN+"\r\n", 0o640)), ""},
		{"environment", fromEnv, ""},
		{"environment, again", fromEnv, ""},
		{"prompt", hsm.PINFromPrompt(func() ([]byte, error) { return []byte(hsmtest.UserPIN), nil }), ""},
		{"bytes", hsm.PINFromBytes([]byte(hsmtest.UserPIN)), ""},
		{"none", hsm.PIN{}, "no PIN is configured"},
		{"no file", hsm.PINFromFile("/nonexistent/pin"), "no such file"},
		{"a directory", hsm.PINFromFile(t.TempDir()), "PIN file"},
		{"empty file", hsm.PINFromFile(write(t, "", 0o600)), "is empty"},
		{"newline only", hsm.PINFromFile(write(t, "\n", 0o600)), "is empty"},
		{"two lines", hsm.PINFromFile(write(t, hsmtest.UserPIN+"\nmore\n", 0o600)), "line break"},
		{"huge file", hsm.PINFromFile(write(t, strings.Repeat("1", 5000), 0o600)), "longer than"},
		{"readable by everybody", hsm.PINFromFile(write(t, hsmtest.UserPIN, 0o604)), "chmod 600"},
		{"writable by the group", hsm.PINFromFile(write(t, hsmtest.UserPIN, 0o620)), "chmod 600"},
		{"unset variable", hsm.PINFromEnv("TEST_PIN_UNSET"), "TEST_PIN_UNSET"},
		{"empty prompt", hsm.PINFromPrompt(func() ([]byte, error) { return nil, nil }), "the PIN is empty"},
		{"failing prompt", hsm.PINFromPrompt(func() ([]byte, error) { return nil, errors.New("no terminal") }), "no terminal"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := token.Config()
			c.PIN = tt.pin
			opened, err := hsm.Open(t.Context(), c)
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if err := opened.Close(); err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil {
				opened.Close()
				t.Fatal("the token opened")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q does not say %q", err, tt.want)
			}
			if strings.Contains(err.Error(), hsmtest.UserPIN) {
				t.Errorf("error %q tells the PIN", err)
			}
		})
	}
	if _, there := os.LookupEnv("TEST_PIN"); there {
		t.Error("the PIN is still in the environment")
	}
}

func TestPINIsWipedAfterPrompt(t *testing.T) {
	token := hsmtest.New(t)
	typed := []byte(hsmtest.UserPIN)
	c := token.Config()
	c.PIN = hsm.PINFromPrompt(func() ([]byte, error) { return typed, nil })
	opened, err := hsm.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	if !bytes.Equal(typed, make([]byte, len(typed))) {
		t.Error("the PIN is left in memory")
	}
}

func TestPINNeverPrints(t *testing.T) {
	const secret = "73141592"
	t.Setenv("PRINTED_PIN", secret)
	for _, pin := range []hsm.PIN{hsm.PINFromBytes([]byte(secret)), hsm.PINFromEnv("PRINTED_PIN")} {
		config := hsm.Config{Module: "m", PIN: pin}
		var logged bytes.Buffer
		slog.New(slog.NewJSONHandler(&logged, nil)).Info("open", "pin", pin, "config", config)
		slog.New(slog.NewTextHandler(&logged, nil)).Info("open", "pin", pin, "config", config)
		marshalled, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		outputs := []string{logged.String(), string(marshalled), fmt.Sprint(config)}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			outputs = append(outputs, fmt.Sprintf(verb, pin), fmt.Sprintf(verb, config), fmt.Sprintf(verb, &config))
		}
		for _, out := range outputs {
			if strings.Contains(out, secret) || strings.Contains(out, fmt.Sprintf("%x", secret)) {
				t.Errorf("%q tells the PIN", out)
			}
		}
	}
}

// A command that tells a PIN, and what it has started, end when nobody waits for the PIN any more.
func TestPINCommandEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "said")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	c := hsmtest.New(t).Config()
	c.PIN = hsm.PINFromCommand([]string{"sh", "-c", `exec 3>"$1"; echo started >&3; sh -c "sleep 10; echo child >&3"; echo parent >&3`, "sh", path})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	opened := make(chan error, 1)
	go func() {
		_, err := hsm.Open(ctx, c)
		opened <- err
	}()
	said, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	if _, err := fmt.Fscanln(said, new(string)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-opened; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	rest, err := io.ReadAll(said)
	if err != nil {
		t.Fatal(err)
	}
	want := ""
	if tty, err := os.Open("/dev/tty"); err == nil { // at a terminal, the command must be able to ask there, and only it itself is killed
		tty.Close()
		want = "child\n"
	}
	if string(rest) != want {
		t.Errorf("after that was said: %q", rest)
	}
}

// A PIN that was changed is changed, also where that cannot be recorded: whoever keeps the old one must be told.
func TestAPINIsChangedUnrecorded(t *testing.T) {
	t.Parallel()
	fixture := hsmtest.New(t)
	changed := hsm.PINFromBytes([]byte("a-new-pin-of-it"))
	err := hsm.ChangePIN(t.Context(), hsm.SetPINConfig{
		Module: fixture.Module, Token: hsm.Selector{Serial: fixture.Serial}, Observer: forgetful{hsm.OpPIN},
		Old: hsm.PINFromFile(fixture.PINFile), New: changed,
	})
	if err == nil || !strings.Contains(err.Error(), "recording that the operation pin was carried out: the journal is full") {
		t.Errorf("%v", err)
	}
	c := fixture.Config()
	c.PIN = changed
	token, err := hsm.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Close(); err != nil {
		t.Error(err)
	}
}
