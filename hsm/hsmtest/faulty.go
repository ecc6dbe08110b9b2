package hsmtest

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/hsm"
)

//go:embed faulty/module.c
var faultySource []byte

// Faulty is a PKCS#11 library that stands before SoftHSM and has the faults of vendors' libraries on demand, in whichever process has
// loaded it.
type Faulty struct {
	Module          string // path of the library
	control, logins string
}

// A fault of a Faulty. Every CKR in hexadecimal, such as "0x30" for CKR_DEVICE_ERROR, is one, too.
const (
	Hang       = "hang"        // C_Sign does not come back while the fault lasts
	Slow       = "slow"        // C_Sign takes a quarter of a second
	Late       = "late"        // C_Sign makes the signature and answers CKR_DEVICE_ERROR
	SickRSA    = "sick-rsa"    // C_SignInit answers CKR_FUNCTION_FAILED to RSASSA-PKCS1-v1_5, and to nothing else
	Crash      = "crash"       // C_Sign ends the process
	Wrong      = "wrong"       // C_Sign makes signatures that do not verify
	Unclear    = "unclear"     // C_Verify answers CKR_DEVICE_ERROR, whatever the signature
	CloseAll   = "close"       // all sessions are closed before the next C_SignInit, once
	HangLogin  = "hang-login"  // C_Login does not come back while the fault lasts
	CrashLogin = "crash-login" // C_Login ends the process
	SlowLogin  = "slow-login"  // C_Login takes half a second
	Telling    = "telling"     // C_GetAttributeValue tells a CKA_VALUE that is sensitive
	Wrapping   = "wrapping"    // C_WrapKey wraps keys that are not extractable
	Vanish     = "vanish"      // C_FindObjects finds nothing once the mechanisms were described
	Locked     = "locked"      // the token says that its user PIN is locked (CKF_USER_PIN_LOCKED)
	Hardware   = "hardware"    // no fault: the slot says that it is one of hardware (CKF_HW_SLOT)

	// C_CloseSession ends the process, or does not come back, once C_Login has refused a PIN. The token does not tell that tries are few.
	CrashRefused = "refuse-crash"
	HangRefused  = "refuse-hang"
)

// Mute is the fault of a slot for which C_GetTokenInfo answers CKR_DEVICE_ERROR.
func Mute(slot uint) string { return fmt.Sprintf("mute-%d", slot) }

// Swap is the fault of a library that has numbered its slots anew: from its second initialisation on that finds the fault, the tokens in
// two slots have changed places.
func Swap(one, other uint) string { return fmt.Sprintf("swap:%d:%d", one, other) }

// NewFaulty builds one, without a fault. It needs a C compiler, as cgo does.
func NewFaulty(tb testing.TB) *Faulty {
	tb.Helper()
	place, err := home()
	if err != nil {
		tb.Fatalf("a place for a faulty module: %v", err)
	}
	dir := tb.TempDir()
	f := &Faulty{Module: filepath.Join(dir, "faulty.so"), control: filepath.Join(dir, "control"), logins: filepath.Join(dir, "logins")}
	source := filepath.Join(dir, "module.c")
	if err := os.WriteFile(source, faultySource, 0o600); err != nil {
		tb.Fatal(err)
	}
	compiler := os.Getenv("CC")
	if compiler == "" {
		compiler = "cc"
	}
	define := func(name, value string) string { return fmt.Sprintf("-D%s=%q", name, value) }
	cmd := exec.CommandContext(tb.Context(), compiler, "-shared", "-fPIC", "-O1", "-w", define("REAL", place.module), define("CONTROL", f.control),
		define("LOGINS", f.logins), "-o", f.Module, source, "-ldl", "-lpthread")
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("building a faulty module: %v\n%s", err, out)
	}
	return f
}

// Begin has the library show a fault from now on, or with none ("") be well again.
func (f *Faulty) Begin(tb testing.TB, fault string) {
	tb.Helper()
	// In one step: a library that reads half a word would show no fault.
	if err := os.WriteFile(f.control+".new", []byte(fault), 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Rename(f.control+".new", f.control); err != nil {
		tb.Fatal(err)
	}
}

// FailedLogins counts the log-ins that the token refused.
func (f *Faulty) FailedLogins(tb testing.TB) (failed int) {
	tb.Helper()
	text, err := os.ReadFile(f.logins)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		tb.Fatal(err)
	}
	for _, result := range strings.Fields(string(text)) {
		if result != "0" {
			failed++
		}
	}
	return failed
}

// Directory is where SoftHSM keeps the tokens of this process: renamed, they are away.
func Directory(tb testing.TB) string {
	tb.Helper()
	place, err := home()
	if err != nil {
		tb.Fatal(err)
	}
	return filepath.Join(place.dir, "tokens")
}

// Config is Token.Config by way of the faulty library.
func (f *Faulty) Config(t *Token) hsm.Config {
	c := t.Config()
	c.Module = f.Module
	return c
}
