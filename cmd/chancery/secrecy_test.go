package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/chancery-ca/chancery/storage/storagetest"
)

// TestNothingIsLeftInCores: the service, the keeper and who holds its token leave no cores, and their memory is theirs.
func TestNothingIsLeftInCores(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	k := s.startKeeper(s.token.Module)
	r := s.start("secret", "")
	holder, err := k.holder()
	if err != nil {
		t.Fatal(err)
	}
	for name, pid := range map[string]int{"service": r.process.Process.Pid, "keeper": k.process.Process.Pid, "holder": holder} {
		limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(limits)) {
			if rest, core := strings.CutPrefix(line, "Max core file size"); core && strings.Fields(rest)[0] != "0" {
				t.Errorf("the %s may leave cores: %s", name, line)
			}
		}
	}
	r.stop()

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
