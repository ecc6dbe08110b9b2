package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/chancery-ca/chancery/hsm/hsmtest"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// TestNothingIsLeftInCores: the service, the keeper and who holds its token leave no cores, nor does a command that is told a PIN, and their
// memory is theirs.
func TestNothingIsLeftInCores(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	k := s.startKeeper(s.token.Module)
	r := s.start("secret", "")
	holder, err := k.holder()
	if err != nil {
		t.Fatal(err)
	}
	pin := filepath.Join(s.dir, "pin")
	if err := syscall.Mkfifo(pin, 0o600); err != nil {
		t.Fatal(err)
	}
	other := hsmtest.New(t)
	command := exec.Command(os.Args[0], "hsm", "random", "8", "--module", other.Module, "--token-serial", other.Serial, "--pin-file", pin,
		"--journal", filepath.Join(s.dir, "journal.jsonl"))
	command.Env = append(os.Environ(), actAsChancery+"=1")
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	told, err := os.OpenFile(pin, os.O_WRONLY, 0) // which is when the command asks for it
	if err != nil {
		t.Fatal(err)
	}
	for name, pid := range map[string]int{
		"service": r.process.Process.Pid, "keeper": k.process.Process.Pid, "holder": holder, "command": command.Process.Pid,
	} {
		limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(limits)) {
			if rest, core := strings.CutPrefix(line, "Max core file size"); core && !slices.Equal(strings.Fields(rest)[:2], []string{"0", "0"}) {
				t.Errorf("the %s may leave cores: %s", name, line)
			}
		}
	}
	r.stop()
	if _, err := told.WriteString(hsmtest.UserPIN); err != nil {
		t.Error(err)
	}
	if err := errors.Join(told.Close(), command.Wait()); err != nil {
		t.Errorf("the command: %v", err)
	}

	// What the kernel says of dumpability only the process itself can ask.
	cmd := exec.Command(os.Args[0], "-test.run", "^TestDumpable$")
	cmd.Env = append(os.Environ(), "CHANCERY_TEST_DUMPABLE=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestDumpable is run in a process of its own by TestNothingIsLeftInCores: what it changes stays changed.
func TestDumpable(t *testing.T) {
	const getDumpable = 3 // PR_GET_DUMPABLE
	dumpable := func() uintptr {
		got, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, getDumpable, 0, 0)
		if errno != 0 {
			t.Fatal(errno)
		}
		return got
	}
	if os.Getenv("CHANCERY_TEST_DUMPABLE") == "" {
		return
	}
	if before := dumpable(); before != 1 {
		t.Fatalf("it was %d before", before)
	}
	if err := keepOutOfCores(); err != nil {
		t.Fatal(err)
	}
	if after := dumpable(); after != 0 {
		t.Errorf("it is %d", after)
	}
}
