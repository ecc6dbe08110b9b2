// Package hsmtest gives tests throw-away SoftHSM tokens.
//
// All tokens of a test binary live in one directory, because SoftHSM knows one configuration for each process. Each call of New makes a
// token of its own in it, so that parallel tests share no keys. The directory is removed when the process has ended, however it ended.
package hsmtest

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/chancery-ca/chancery/hsm"
)

// The PINs of every token that New makes. They protect nothing.
const (
	UserPIN = "user-pin-of-a-test"
	SOPIN   = "officer-pin-of-a-test"
)

const prefix = "chancery-hsmtest-" // of the directories' names

// Token is a SoftHSM token with its user PIN set, not open.
type Token struct {
	Module  string // path of SoftHSM's library
	Label   string // unique
	Serial  string
	PINFile string // holds the user PIN; mode 0600
	Conf    string // softhsm2.conf, set as SOFTHSM2_CONF in this process's environment, and so in its children's; empty for another vendor's

	notLocal bool // the token says of no key that it is local
}

// New makes a token. The test fails, with what to install, where SoftHSM is missing.
func New(tb testing.TB) *Token {
	tb.Helper()
	place, err := home()
	if err != nil {
		tb.Fatalf("a place for SoftHSM tokens: %v", err)
	}
	label := "test-" + suffix()
	info, err := hsm.InitToken(tb.Context(), hsm.InitConfig{
		Module:  place.module,
		Label:   label,
		SOPIN:   hsm.PINFromBytes([]byte(SOPIN)),
		UserPIN: hsm.PINFromBytes([]byte(UserPIN)),
	})
	if err != nil {
		tb.Fatalf("a SoftHSM token: %v", err)
	}
	pinFile := filepath.Join(place.dir, label+".pin")
	if err := os.WriteFile(pinFile, []byte(UserPIN+"\n"), 0o600); err != nil {
		tb.Fatalf("a PIN file: %v", err)
	}
	return &Token{Module: place.module, Label: label, Serial: info.Serial, PINFile: pinFile, Conf: place.conf}
}

// Config opens the token by its serial, or by its label where the serial is not known, and PIN file.
func (t *Token) Config() hsm.Config {
	by := hsm.Selector{Serial: t.Serial}
	if t.Serial == "" {
		by.Label = t.Label
	}
	return hsm.Config{Module: t.Module, Token: by, PIN: hsm.PINFromFile(t.PINFile), AcceptNotLocal: t.notLocal}
}

// Open opens the token until the test ends.
func (t *Token) Open(tb testing.TB) *hsm.Token {
	tb.Helper()
	token, err := hsm.Open(tb.Context(), t.Config())
	if err != nil {
		tb.Fatalf("opening the test's token: %v", err)
	}
	tb.Cleanup(func() {
		if err := token.Close(); err != nil {
			tb.Errorf("closing the test's token: %v", err)
		}
	})
	return token
}

func suffix() string {
	octets := make([]byte, 8)
	rand.Read(octets) // never fails
	return hex.EncodeToString(octets)
}

// directory is where this process's tokens are.
type directory struct {
	module, dir, conf string
	alive             *os.File // open for as long as the process lives; see removeAtExit
}

// home makes the directory once for each process, because SOFTHSM2_CONF, which names it, is the process's.
var home = sync.OnceValues(func() (directory, error) {
	module, err := hsm.FindSoftHSM()
	if err != nil {
		return directory{}, err
	}
	// In memory a token is several times faster than on a disk.
	dir, err := os.MkdirTemp("/dev/shm", prefix)
	if err != nil {
		dir, err = os.MkdirTemp("", prefix)
	}
	if err != nil {
		return directory{}, err
	}
	alive, err := removeAtExit(dir)
	if err != nil {
		return directory{}, err
	}
	conf, err := hsm.WriteSoftHSMConf(dir)
	if err != nil {
		return directory{}, err
	}
	// With cgo, Setenv reaches the environment that C code reads.
	if err := os.Setenv(hsm.SoftHSMEnv, conf); err != nil {
		return directory{}, err
	}
	return directory{module, dir, conf, alive}, nil
})

// removeAtExit has a child process remove dir when this process is gone. The child waits for the end of a pipe whose other end, returned,
// only this process holds; so an exit, a panic, a time-out and a kill all come to the same. A process group of its own keeps the child
// from a terminal's interrupt.
func removeAtExit(dir string) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	remover := exec.Command("/bin/sh", "-c", `cat >/dev/null; rm -rf -- "$1"`, "sh", dir)
	remover.Stdin = r
	remover.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := remover.Start(); err != nil {
		return nil, fmt.Errorf("the process that removes %s at the end: %w", dir, err)
	}
	return w, nil
}
