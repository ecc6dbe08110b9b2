package storagetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"github.com/chancery-ca/chancery/storage/postgres"
)

// guarded is a cluster with a watchdog: a shell that reads from a pipe which only the test binary can write to. The pipe ends with the
// test binary, in whatever way that ends; then the shell stops the server and removes the cluster. It runs as the server's user, in a
// session of its own, so that neither an interrupt nor a signal to the test's process group reaches it.
type guarded struct {
	postgres.Cluster
	leash    *os.File // kept here, for a collected file would be closed
	watchdog *exec.Cmd
}

// script waits for the end of its input. The server's programs are in $1, its data in $2, all there is of the cluster in $3.
const script = `read -r _
"$1/pg_ctl" stop -D "$2" -m immediate -w -t 20
rm -rf "$3"`

func guard(c postgres.Cluster) (*guarded, error) {
	end, leash, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = end.Close() }()
	cmd, err := c.Command(context.Background(), "pg_ctl")
	if err != nil {
		return nil, errors.Join(err, leash.Close())
	}
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", script, "sh", c.Bin, c.Dir + "/data", c.Dir}
	cmd.Stdin = end // and its output goes nowhere, so that nobody waits for it
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("starting the watchdog: %w", err), leash.Close())
	}
	return &guarded{Cluster: c, leash: leash, watchdog: cmd}, nil
}

// remove lets the watchdog do its work, and waits for it.
func (g *guarded) remove() error {
	err := errors.Join(g.leash.Close(), g.watchdog.Wait())
	if err != nil {
		return fmt.Errorf("ending the watchdog: %w", err)
	}
	return nil
}
