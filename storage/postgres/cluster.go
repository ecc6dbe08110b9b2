package postgres

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// The logins and the database of a private cluster. Everyone who can enter the socket's directory is trusted, and only the server's
// own user and root can.
const (
	Superuser = "postgres"     // makes databases
	Owner     = "chancery"     // owns the database and migrates it
	Service   = "chancery_app" // what the service logs in as
	Database  = "chancery"
)

// maxSocket is the longest directory for a socket: the kernel holds 107 octets of the socket's whole path.
const maxSocket = 107 - len("/.s.PGSQL.5432")

// Cluster is a private Postgres server and where it lives. New fills it in.
type Cluster struct {
	Bin      string // directory of the server programs
	Dir      string // absolute; holds data/, log, and what the cluster needs besides
	Socket   string // directory of the Unix socket
	User     string // whom the server runs as; empty: the present user
	Volatile bool   // nothing need survive a crash: for tests alone
}

// New describes the cluster of a directory, with the programs and the account of this machine. Nothing is made or started.
func New(dir string) (Cluster, error) {
	bin, err := Find()
	if err != nil {
		return Cluster{}, err
	}
	account, err := Account()
	if err != nil {
		return Cluster{}, err
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return Cluster{}, err
	}
	return Cluster{Bin: bin, Dir: dir, Socket: socketFor(dir), User: account}, nil
}

// socketFor keeps the socket inside the cluster's directory where the path is short enough.
func socketFor(dir string) string {
	if inside := filepath.Join(dir, "socket"); len(inside) <= maxSocket {
		return inside
	}
	sum := sha256.Sum256([]byte(dir))
	return "/tmp/chancery-" + hex.EncodeToString(sum[:8])
}

func (c Cluster) data() string { return filepath.Join(c.Dir, "data") }
func (c Cluster) log() string  { return filepath.Join(c.Dir, "log") }

// URL is the address of a database of the cluster for a login. It holds no secret.
func (c Cluster) URL(login, database string) string {
	u := url.URL{Scheme: "postgres", User: url.User(login), Path: "/" + database}
	// Unlike in a form, a plus is a plus in a Postgres URL.
	u.RawQuery = strings.ReplaceAll(url.Values{"host": {c.Socket}, "port": {"5432"}}.Encode(), "+", "%20")
	return u.String()
}

// Init makes the cluster on disk, unless it is there already. A crash in the middle leaves nothing that a second Init stumbles over.
func (c Cluster) Init(ctx context.Context) error {
	if len(c.Socket) > maxSocket {
		return fmt.Errorf("the path of the socket directory %s is longer than %d octets", c.Socket, maxSocket)
	}
	// pg_ctl hands its paths to a shell between double quotes, as they are.
	if i := strings.IndexAny(c.Dir, "\"$`\\\n"); i >= 0 {
		return fmt.Errorf("the path %q has a %q, which pg_ctl cannot pass on; choose another directory", c.Dir, c.Dir[i])
	}
	if err := c.own(c.Dir); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(c.data(), "PG_VERSION")); err == nil {
		return nil
	}
	unfinished := c.data() + ".new"
	if err := os.RemoveAll(unfinished); err != nil {
		return fmt.Errorf("removing an unfinished cluster: %w", err)
	}
	args := []string{
		"--pgdata", unfinished, "--username", Superuser, "--auth-local", "trust", "--auth-host", "reject",
		"--encoding", "UTF8", "--locale", "C", "--no-instructions", "--data-checksums",
	}
	if c.Volatile {
		args = append(args, "--no-sync")
	}
	if err := c.run(ctx, "initdb", args...); err != nil {
		return fmt.Errorf("making a Postgres cluster in %s: %w", c.Dir, err)
	}
	if err := appendTo(filepath.Join(unfinished, "postgresql.conf"), "include 'chancery.conf'\n"); err != nil {
		return err
	}
	if err := os.Rename(unfinished, c.data()); err != nil {
		return fmt.Errorf("making a Postgres cluster: %w", err)
	}
	return nil
}

// settings are written anew at each start: the directory may have moved.
func (c Cluster) settings() string {
	var b strings.Builder
	set := func(name, value string) { fmt.Fprintf(&b, "%s = '%s'\n", name, strings.ReplaceAll(value, "'", "''")) }
	set("listen_addresses", "")
	set("port", "5432")
	set("unix_socket_directories", `"`+c.Socket+`"`)
	set("unix_socket_permissions", "0700")
	set("max_connections", "200")
	set("log_timezone", "UTC")
	set("timezone", "UTC")
	if c.Volatile {
		set("fsync", "off")
		set("full_page_writes", "off")
		set("synchronous_commit", "off")
	}
	return b.String()
}

// own makes a directory that the server's user alone may enter. Directories missing on the way may be passed through by all.
func (c Cluster) own(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o711); err != nil {
		return fmt.Errorf("making a directory for Postgres: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("making a directory for Postgres: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("making a directory for Postgres: %w", err)
	}
	id := &syscall.Credential{Uid: uint32(os.Geteuid()), Gid: uint32(os.Getegid())}
	if c.User != "" {
		if id, err = credential(c.User); err != nil {
			return err
		}
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || !ok || owner.Uid != id.Uid && owner.Uid != uint32(os.Geteuid()) {
		return fmt.Errorf("%s is not a directory of the user that Postgres runs as", dir)
	}
	if err := os.Lchown(dir, int(id.Uid), int(id.Gid)); err != nil {
		return fmt.Errorf("giving a directory to Postgres: %w", err)
	}
	return os.Chmod(dir, 0o700)
}

// write puts a file of the server's own into place.
func (c Cluster) write(path, content string) error {
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		return fmt.Errorf("writing the settings of Postgres: %w", err)
	}
	if c.User == "" {
		return nil
	}
	id, err := credential(c.User)
	if err != nil {
		return err
	}
	return os.Lchown(path, int(id.Uid), int(id.Gid))
}

// Command is one of the server programs, to be run as the server's user, with an environment that no PG variable reaches.
func (c Cluster) Command(ctx context.Context, program string, args ...string) (*exec.Cmd, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.Bin, program), args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}
	if c.User != "" {
		id, err := credential(c.User)
		if err != nil {
			return nil, err
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: id, AmbientCaps: c.passage()}
	}
	return cmd, nil
}

// passage is what the server needs besides its account: nothing, or, where a directory on the way to its own is closed to the account (a
// home directory of root, or one of mktemp), the right to pass through. It is given only by root, only to a private cluster.
func (c Cluster) passage() []uintptr {
	const capDACOverride = 1 // capabilities(7): CAP_DAC_OVERRIDE; CAP_DAC_READ_SEARCH would do, and containers seldom have it
	if Reachable(c.Dir, c.User) == nil && Reachable(c.Socket, c.User) == nil {
		return nil
	}
	return []uintptr{capDACOverride}
}

func (c Cluster) run(ctx context.Context, program string, args ...string) error {
	cmd, err := c.Command(ctx, program, args...)
	if err != nil {
		return err
	}
	// A file, not a pipe: the server inherits it and would keep a pipe open.
	out, err := os.CreateTemp("", "chancery-postgres-")
	if err != nil {
		return err
	}
	defer func() { _ = errors.Join(out.Close(), os.Remove(out.Name())) }()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(out.Name())
		return fmt.Errorf("%s: %w: %s", program, err, bytes.TrimSpace(said))
	}
	return nil
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, fs.FileMode(0))
	if err != nil {
		return fmt.Errorf("configuring Postgres: %w", err)
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("configuring Postgres: %w", err)
	}
	return nil
}
