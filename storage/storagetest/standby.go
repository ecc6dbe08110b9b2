package storagetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/chancery-ca/chancery/storage/postgres"
)

// Standby starts a server that follows this one, and lets every commit here wait for it.
func (s *Server) Standby(tb testing.TB) *Server {
	tb.Helper()
	c, err := follow(s.cluster.Cluster)
	if err != nil {
		tb.Fatalf("starting a standby for a test: %v", err)
	}
	tb.Cleanup(func() {
		if err := c.remove(); err != nil {
			tb.Errorf("removing the standby of a test: %v", err)
		}
	})
	for _, sql := range []string{"ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)'", "SELECT pg_reload_conf()"} {
		if err := administer(s.cluster.Cluster, sql); err != nil {
			tb.Fatalf("having commits wait for the standby: %v", err)
		}
	}
	return &Server{
		Database: Database{URL: c.URL(postgres.Service, postgres.Database), OwnerURL: c.URL(postgres.Owner, postgres.Database)},
		cluster:  c, durable: s.durable,
	}
}

// Promote makes a standby the server that is written to.
func (s *Server) Promote(tb testing.TB) {
	tb.Helper()
	for _, sql := range []string{
		"SELECT pg_promote()", "ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()",
	} {
		if err := administer(s.cluster.Cluster, sql); err != nil {
			tb.Fatalf("promoting a standby: %v", err)
		}
	}
}

func follow(primary postgres.Cluster) (c *guarded, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	dir, err := place(Options{Durable: true})
	if err != nil {
		return nil, err
	}
	cluster, err := postgres.New(dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	cluster.Volatile = primary.Volatile
	if c, err = guard(cluster); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.remove())
		}
	}()
	directories := c.Cluster
	directories.Volatile = true // what Init puts into them is replaced by the primary's
	if err := directories.Init(ctx); err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	if err := os.RemoveAll(data); err != nil {
		return nil, err
	}
	copying, err := c.Command(ctx, "pg_basebackup", "--pgdata", data, "--host", primary.Socket, "--username", postgres.Superuser,
		"--no-sync", "--wal-method", "stream", "--checkpoint", "fast", "--write-recovery-conf")
	if err != nil {
		return nil, err
	}
	if out, err := copying.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("copying the primary: %w: %s", err, out)
	}
	return c, c.Start(ctx)
}
