// Package storagetest gives tests a real Postgres: a throw-away cluster for each test binary, and in it a database of its own for each
// test. Nothing has to be set up or torn down, and nothing stays behind, however the test binary ends.
package storagetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/storage"
	"github.com/chancery-ca/chancery/storage/postgres"
)

const patience = 60 * time.Second

// Database is a migrated database that no other test uses.
type Database struct {
	URL      string // the service's login
	OwnerURL string // the owner's login, which can do anything to the tables
}

// shared is the cluster of the test binary. Starting it takes about a second, so all tests share it.
var shared = struct {
	once    sync.Once
	cluster *guarded
	err     error
	next    atomic.Int64
}{}

// New makes a database for the test, and removes it when the test ends. Its server does not write safely: open it with
// storage.Config.Unsafe, or with Store.
func New(tb testing.TB) *Database {
	tb.Helper()
	return create(tb, postgres.Database)
}

// NewEmpty is New without tables: what an operator has before the first migration.
func NewEmpty(tb testing.TB) *Database {
	tb.Helper()
	return create(tb, "template0")
}

func create(tb testing.TB, template string) *Database {
	tb.Helper()
	shared.once.Do(func() { shared.cluster, shared.err = start(Options{}) })
	if shared.err != nil {
		tb.Fatalf("starting Postgres for tests: %v", shared.err)
	}
	c := shared.cluster.Cluster
	name := fmt.Sprintf("test_%d", shared.next.Add(1))
	// Copied as files, and not page by page through the log, which takes a third of the time where nothing is synced.
	if err := administer(c, fmt.Sprintf("CREATE DATABASE %s TEMPLATE %s OWNER %s STRATEGY file_copy", name, template, postgres.Owner)); err != nil {
		tb.Fatalf("making a database for a test: %v", err)
	}
	tb.Cleanup(func() {
		if err := administer(c, fmt.Sprintf("DROP DATABASE %s WITH (FORCE)", name)); err != nil {
			tb.Errorf("dropping the database of a test: %v", err)
		}
	})
	return &Database{URL: c.URL(postgres.Service, name), OwnerURL: c.URL(postgres.Owner, name)}
}

// Store opens the database as the service does. It is closed when the test ends.
func (d *Database) Store(tb testing.TB) *storage.Store {
	tb.Helper()
	return open(tb, storage.Config{URL: d.URL, Unsafe: true})
}

func open(tb testing.TB, c storage.Config) *storage.Store {
	tb.Helper()
	s, err := storage.Open(context.Background(), c)
	if err != nil {
		tb.Fatalf("opening the database of a test: %v", err)
	}
	tb.Cleanup(s.Close)
	return s
}

// Options choose a private server.
type Options struct {
	Durable bool   // write safely, as in production: slower
	In      string // the directory that the server's own is made in; empty: one for temporary files, in memory unless Durable
}

// Server is a Postgres of a test's own, which it may stop and kill. Its Database is migrated.
type Server struct {
	Database
	cluster *guarded
	durable bool
}

// AdminURL is the login of the server's administrator, who may change its settings and end sessions.
func (s *Server) AdminURL() string { return s.cluster.URL(postgres.Superuser, "postgres") }

// NewServer starts a server for one test. It is gone when the test ends.
func NewServer(tb testing.TB, o Options) *Server {
	tb.Helper()
	c, err := start(o)
	if err != nil {
		tb.Fatalf("starting Postgres for a test: %v", err)
	}
	tb.Cleanup(func() {
		if err := c.remove(); err != nil {
			tb.Errorf("removing the Postgres of a test: %v", err)
		}
	})
	return &Server{
		Database: Database{URL: c.URL(postgres.Service, postgres.Database), OwnerURL: c.URL(postgres.Owner, postgres.Database)},
		cluster:  c, durable: o.Durable,
	}
}

// Store opens the server's database as the service does, without Unsafe where the server is durable.
func (s *Server) Store(tb testing.TB) *storage.Store {
	tb.Helper()
	return open(tb, storage.Config{URL: s.URL, Unsafe: !s.durable})
}

// PID is the server's process; 0 when it does not run.
func (s *Server) PID() int {
	pid, running := s.cluster.PID()
	if !running {
		return 0
	}
	return pid
}

// SocketDir is the directory of the server's Unix socket, for proxies.
func (s *Server) SocketDir() string { return s.cluster.Socket }

// Stop stops the server and waits until it is gone.
func (s *Server) Stop(mode postgres.Mode) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return s.cluster.Stop(ctx, mode)
}

// Kill kills the server as the kernel would, and waits until it is gone.
func (s *Server) Kill() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return s.cluster.Kill(ctx)
}

// Start brings a stopped or killed server back.
func (s *Server) Start() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return s.cluster.Start(ctx)
}

// start makes a cluster under a watchdog, starts it, and migrates its database.
func start(o Options) (c *guarded, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	dir, err := place(o)
	if err != nil {
		return nil, err
	}
	cluster, err := postgres.New(dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	cluster.Volatile = !o.Durable
	if c, err = guard(cluster); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	started := c
	defer func() {
		if err != nil {
			err = errors.Join(err, started.remove())
		}
	}()
	if err := c.Init(ctx); err != nil {
		return nil, err
	}
	if err := c.Start(ctx); err != nil {
		return nil, err
	}
	owner := c.URL(postgres.Owner, postgres.Database)
	if _, err := storage.Migrate(ctx, owner); err != nil {
		return nil, err
	}
	return c, storage.GrantService(ctx, owner, postgres.Service)
}

// place makes a directory that the server's user can reach, with a path short enough for a socket.
func place(o Options) (string, error) {
	const longest = 60
	if o.In != "" {
		return os.MkdirTemp(o.In, "chancery-test-")
	}
	account, err := postgres.Account()
	if err != nil {
		return "", err
	}
	suits := func(parent string) bool {
		return len(parent) <= longest && postgres.Reachable(filepath.Join(parent, "x"), account) == nil
	}
	parent := os.TempDir()
	switch {
	case !o.Durable && roomy(memory) && suits(memory):
		parent = memory
	case !suits(parent):
		parent = "/tmp"
	}
	return os.MkdirTemp(parent, "chancery-test-")
}

// memory is where Linux has a file system in memory. The thousands of small files of databases that come and go cost a disk's file system
// as much processor time as Postgres itself takes for a test.
const memory = "/dev/shm"

// roomy tells whether a file system has room for the databases of some test binaries. In containers memory often has 64 MiB.
func roomy(path string) bool {
	const enough = 4 << 30
	var fs syscall.Statfs_t
	return syscall.Statfs(path, &fs) == nil && fs.Bavail*uint64(fs.Bsize) >= enough
}

func administer(c postgres.Cluster, sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.URL(postgres.Superuser, "postgres"))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql)
	return errors.Join(err, conn.Close(ctx))
}
