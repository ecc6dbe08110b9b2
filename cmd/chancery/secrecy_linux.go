package main

import (
	"fmt"
	"syscall"
)

// keepOutOfCores has the kernel write no core of this process, and lets nobody of the same user read its memory (prctl(2),
// PR_SET_DUMPABLE): it holds PINs and keys of TLS for moments, and the log-in to the token always. A process that is started by this one
// asks for itself.
func keepOutOfCores() error {
	const setDumpable = 4 // PR_SET_DUMPABLE
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("forbidding cores: %w", err)
	}
	if _, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, setDumpable, 0, 0); errno != 0 {
		return fmt.Errorf("closing the memory to others: %w", errno)
	}
	return nil
}
