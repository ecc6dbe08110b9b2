package storagetest

import (
	"testing"

	"github.com/chancery-ca/chancery/storage/postgres"
)

// Backup keeps the server's database as it is now. Sessions are ended for it, and may come back. restore brings that state back under the
// database's name, once, and returns what was lost by it: the database as it was at that moment, open for reading.
func (s *Server) Backup(tb testing.TB) (restore func(testing.TB) (lost *Database)) {
	tb.Helper()
	const live, kept, lost = postgres.Database, "kept", "lost"
	c := s.cluster.Cluster
	do := func(tb testing.TB, statements ...string) {
		tb.Helper()
		for _, sql := range statements {
			if err := administer(c, sql); err != nil {
				tb.Fatalf("%s: %v", sql, err)
			}
		}
	}
	const alone = `SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '` + live + `'`
	do(tb, "DROP DATABASE IF EXISTS "+lost+" WITH (FORCE)",
		"ALTER DATABASE "+live+" ALLOW_CONNECTIONS false", alone,
		"CREATE DATABASE "+kept+" TEMPLATE "+live+" OWNER "+postgres.Owner,
		"ALTER DATABASE "+live+" ALLOW_CONNECTIONS true")
	return func(tb testing.TB) *Database {
		tb.Helper()
		do(tb, "ALTER DATABASE "+live+" ALLOW_CONNECTIONS false", alone,
			"ALTER DATABASE "+live+" RENAME TO "+lost, "ALTER DATABASE "+lost+" ALLOW_CONNECTIONS true",
			"ALTER DATABASE "+kept+" RENAME TO "+live)
		return &Database{URL: c.URL(postgres.Service, lost), OwnerURL: c.URL(postgres.Owner, lost)}
	}
}
