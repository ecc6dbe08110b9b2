package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Mode is how a server is stopped.
type Mode string

// The modes.
const (
	Fast      Mode = "fast"      // ends sessions, writes everything out
	Immediate Mode = "immediate" // like a crash: the next start recovers
)

const (
	startTimeout = 60 * time.Second
	stopTimeout  = 60 * time.Second
)

// Start brings the server up, with its logins and its database, and returns when it answers. A server that runs in the directory already,
// left over from a process that was killed, is taken over; one that is not reachable through the socket is stopped first.
func (c Cluster) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := c.own(c.Socket); err != nil {
		return err
	}
	if _, running := c.PID(); running {
		if err := c.awaken(ctx); err == nil {
			return nil
		}
		if err := c.Stop(ctx, Fast); err != nil {
			return err
		}
	}
	if err := c.removeStale(ctx); err != nil {
		return err
	}
	if err := c.write(filepath.Join(c.data(), "chancery.conf"), c.settings()); err != nil {
		return err
	}
	if err := c.launch(ctx); err != nil {
		return fmt.Errorf("starting Postgres in %s: %w", c.Dir, err)
	}
	return c.awaken(ctx)
}

// launch starts the server and waits until it answers. When its predecessor was killed, that one's children hold on for a moment, and
// Postgres refuses to start beside them: that is waited for.
func (c Cluster) launch(ctx context.Context) error {
	const patience = 10 * time.Second
	deadline := time.Now().Add(patience)
	for {
		err := c.run(ctx, "pg_ctl", "start", "--pgdata", c.data(), "--log", c.log(), "--wait", "--silent",
			"--timeout", strconv.Itoa(int(startTimeout.Seconds())))
		if err == nil {
			return nil
		}
		tail := c.logTail()
		if !strings.Contains(tail, "is still in use") || time.Now().After(deadline) {
			return fmt.Errorf("%w; the end of its log: %s", err, tail)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// Stop ends the server. One that does not run is no error.
func (c Cluster) Stop(ctx context.Context, mode Mode) error {
	if _, running := c.PID(); !running {
		return nil
	}
	err := c.run(ctx, "pg_ctl", "stop", "--pgdata", c.data(), "--mode", string(mode), "--wait", "--silent",
		"--timeout", strconv.Itoa(int(stopTimeout.Seconds())))
	if _, running := c.PID(); err != nil && running {
		return fmt.Errorf("stopping Postgres in %s: %w", c.Dir, err)
	}
	return nil
}

// PID is the process of the running server. A number left behind in the directory, by now another program's, is not taken for it.
func (c Cluster) PID() (pid int, running bool) {
	pid, err := c.recordedPID()
	if err != nil {
		return 0, false
	}
	return pid, c.isServer(pid)
}

func (c Cluster) pidFile() string { return filepath.Join(c.data(), "postmaster.pid") }

func (c Cluster) recordedPID() (int, error) {
	content, err := os.ReadFile(c.pidFile())
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(content), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 0 {
		return 0, fmt.Errorf("%s does not begin with a process number", c.pidFile())
	}
	return pid, nil
}

// isServer tells whether a living process is this cluster's server. Where the system does not show command lines, any living process
// with the number counts.
func (c Cluster) isServer(pid int) bool {
	if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) {
		return false
	}
	if _, err := os.Stat("/proc/self/cmdline"); err != nil {
		return true
	}
	command, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil {
		return false
	}
	for _, arg := range strings.Split(string(command), "\x00") {
		if arg == c.data() {
			return true
		}
	}
	return false
}

// removeStale takes away a record whose process number belongs to another program by now, or to a dead process that nobody has waited
// for. Postgres would take it for a living server. All other stale records it sees to by itself.
func (c Cluster) removeStale(ctx context.Context) error {
	pid, err := c.recordedPID()
	if errors.Is(err, fs.ErrNotExist) || err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return nil
	}
	if err := c.awaitOrphans(ctx); err != nil {
		return err
	}
	for _, stale := range []string{c.pidFile(), filepath.Join(c.Socket, ".s.PGSQL.5432.lock")} {
		if err := os.Remove(stale); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing the record of a Postgres that is gone: %w", err)
		}
	}
	return nil
}

// awaken waits for the server to answer and gives it the logins and the database where they are missing.
func (c Cluster) awaken(ctx context.Context) error {
	const patience = 10 * time.Second
	deadline := time.Now().Add(patience)
	for {
		conn, err := pgx.Connect(ctx, c.URL(Superuser, "postgres"))
		if err == nil {
			err = furnish(ctx, conn)
			return errors.Join(err, conn.Close(ctx))
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the Postgres in %s does not answer: %w", c.Dir, err)
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// furnish makes the owner, who may make the service's role, the service's login, and the database.
func furnish(ctx context.Context, conn *pgx.Conn) error {
	const sql = `
		SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1),
		       EXISTS (SELECT FROM pg_roles WHERE rolname = $2),
		       EXISTS (SELECT FROM pg_database WHERE datname = $3)`
	var owner, service, database bool
	if err := conn.QueryRow(ctx, sql, Owner, Service, Database).Scan(&owner, &service, &database); err != nil {
		return fmt.Errorf("looking for the logins: %w", err)
	}
	for _, step := range []struct {
		done bool
		sql  string
	}{
		{owner, "CREATE ROLE " + Owner + " LOGIN CREATEROLE"},
		{service, "CREATE ROLE " + Service + " LOGIN"},
		{database, "CREATE DATABASE " + Database + " OWNER " + Owner},
	} {
		if step.done {
			continue
		}
		if _, err := conn.Exec(ctx, step.sql); err != nil {
			return fmt.Errorf("furnishing the cluster: %w", err)
		}
	}
	return nil
}

func (c Cluster) logTail() string {
	const last = 2000
	content, err := os.ReadFile(c.log())
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(content[max(0, len(content)-last):]))
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
