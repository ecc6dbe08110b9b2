package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// Kill ends the server at once, as the kernel would when memory runs out, and returns when its children are gone too. One that does not
// run is no error.
func (c Cluster) Kill(ctx context.Context) error {
	pid, running := c.PID()
	if !running {
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("killing Postgres: %w", err)
	}
	return c.awaitOrphans(ctx)
}

// awaitOrphans waits until no process of a server that is gone, or going, is left. They end by themselves when their parent has ended.
func (c Cluster) awaitOrphans(ctx context.Context) error {
	for {
		if _, running := c.PID(); !running && !c.orphaned() {
			return nil
		}
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return fmt.Errorf("waiting for the children of a killed Postgres in %s: %w", c.Dir, err)
		}
	}
}

// orphaned tells whether processes are attached to the shared memory that the server's record names, which is Postgres's own way of
// knowing. Where the system does not list shared memory, none are assumed.
func (c Cluster) orphaned() bool {
	record, err := os.ReadFile(c.pidFile())
	if err != nil {
		return false
	}
	const keyAndID = 6 // the seventh line
	lines := strings.Split(string(record), "\n")
	if len(lines) <= keyAndID {
		return false
	}
	recorded := strings.Fields(lines[keyAndID])
	segments, err := os.ReadFile("/proc/sysvipc/shm")
	if err != nil || len(recorded) != 2 {
		return false
	}
	const id, attached = 1, 6
	for _, line := range strings.Split(string(segments), "\n") {
		if f := strings.Fields(line); len(f) > attached && f[id] == recorded[1] {
			return f[attached] != "0"
		}
	}
	return false
}
