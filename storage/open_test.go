package storage_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver that goose is given
	"github.com/pressly/goose/v3"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/migrations"
	"github.com/chancery-ca/chancery/storage"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// wantRefused opens and expects an error that errors.Is want and whose text holds the advice.
func wantRefused(t *testing.T, c storage.Config, want error, advice string) {
	t.Helper()
	s, err := storage.Open(context.Background(), c)
	if err == nil {
		s.Close()
	}
	if !errors.Is(err, want) || !strings.Contains(err.Error(), advice) {
		t.Errorf("Open = %v\nwant %v, with %q", err, want, advice)
	}
}

func TestOpenRefusesAnUnsafeServer(t *testing.T) {
	s, err := storage.Open(context.Background(), storage.Config{URL: storagetest.New(t).URL})
	if err == nil {
		s.Close()
	}
	var unsafe *storage.UnsafeError
	if !errors.As(err, &unsafe) || unsafe.Setting != "fsync" || unsafe.Value != "off" {
		t.Errorf("Open = %v, want an *UnsafeError about fsync", err)
	}
}

func TestOpenRefusesASchemaThatDoesNotFit(t *testing.T) {
	f := setUp(t)
	c := storage.Config{URL: f.db.URL, Unsafe: true}
	f.exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)`)
	f.exec(`UPDATE schema_compatibility SET compatible_from = 99998`)
	wantRefused(t, c, storage.ErrSchema, "newer chancery")
	f.exec(`DELETE FROM goose_db_version WHERE version_id IN (99999, (SELECT max(version_id) FROM goose_db_version WHERE version_id < 99999))`)
	wantRefused(t, c, storage.ErrSchema, "chancery migrate")
	f.exec(`DROP TABLE goose_db_version`)
	wantRefused(t, c, storage.ErrSchema, "chancery migrate")
}

// A later schema is worked on where it says that programs like this one can, and migrating it does nothing.
func TestOpenAcceptsACompatibleLaterSchema(t *testing.T) {
	f := setUp(t)
	f.exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)`)
	if applied, err := storage.Migrate(context.Background(), f.db.OwnerURL); err != nil || len(applied) != 0 {
		t.Errorf("migrating a later schema: %v, %v", applied, err)
	}
	later := f.db.Store(t)
	if err := later.Ping(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestOpenRefusesARoleThatDoesNotFit(t *testing.T) {
	f := setUp(t)
	wantRefused(t, storage.Config{URL: f.db.URL, Unsafe: true, Role: "no such role"}, storage.ErrSchema, "chancery migrate")
	wantRefused(t, storage.Config{URL: f.db.URL, Unsafe: true, Role: "chancery"}, storage.ErrPrivileges, `GRANT "chancery" TO "chancery_app"`)
	wantRefused(t, storage.Config{URL: f.db.OwnerURL, Unsafe: true, Role: "chancery"}, storage.ErrPrivileges, "could change facts in authorities")

	f.exec(`GRANT UPDATE (leaf) ON audit_leaves TO chancery_service`)
	wantRefused(t, storage.Config{URL: f.db.URL, Unsafe: true}, storage.ErrPrivileges, "could change facts in audit_leaves")
	f.exec(`REVOKE UPDATE (leaf) ON audit_leaves FROM chancery_service`)
	f.exec(`REVOKE INSERT ON revocations FROM chancery_service`)
	wantRefused(t, storage.Config{URL: f.db.URL, Unsafe: true}, storage.ErrPrivileges, "cannot read or add to revocations")
}

// A login that could change facts once it says RESET ROLE is refused, though the role that it works as could not.
func TestOpenRefusesALoginThatDoesNotFit(t *testing.T) {
	server := storagetest.NewServer(t, storagetest.Options{})
	ctx := context.Background()
	admin := connect(t, server.AdminURL())
	owner := connect(t, server.OwnerURL)
	do := func(conn *pgx.Conn, sql string) {
		t.Helper()
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	wantRefused(t, storage.Config{URL: server.OwnerURL, Unsafe: true}, storage.ErrPrivileges, `the login "chancery" could change facts`)
	for _, c := range []struct {
		who        *pgx.Conn
		grant, why string
		revoke     string
	}{
		{admin, "ALTER ROLE chancery_app SUPERUSER", "is a superuser", "ALTER ROLE chancery_app NOSUPERUSER"},
		{admin, "ALTER ROLE chancery_app CREATEROLE", "can make roles", "ALTER ROLE chancery_app NOCREATEROLE"},
		{admin, "GRANT chancery TO chancery_app", "can become chancery, which owns the database", "REVOKE chancery FROM chancery_app"},
		{admin, "GRANT pg_write_all_data TO chancery_app", "may change them", "REVOKE pg_write_all_data FROM chancery_app"},
		{owner, "GRANT DELETE ON crls TO chancery_app", "may change them", "REVOKE DELETE ON crls FROM chancery_app"},
		{owner, "GRANT UPDATE (leaf) ON audit_leaves TO chancery_app", "may change them", "REVOKE UPDATE (leaf) ON audit_leaves FROM chancery_app"},
	} {
		do(c.who, c.grant)
		wantRefused(t, storage.Config{URL: server.URL, Unsafe: true}, storage.ErrPrivileges, `the login "chancery_app" could change facts: it `+c.why)
		do(c.who, c.revoke)
	}
	// What it inherits nothing of it can become, in any number of steps.
	do(admin, "ALTER ROLE chancery_app NOINHERIT")
	for _, sql := range []string{
		"CREATE ROLE a_superuser SUPERUSER", "CREATE ROLE a_maker CREATEROLE", "CREATE ROLE a_writer", "CREATE ROLE a_step NOINHERIT",
		"GRANT chancery, a_superuser, a_maker, a_writer, pg_write_all_data, pg_execute_server_program, pg_write_server_files TO a_step",
	} {
		do(admin, sql)
	}
	do(owner, "GRANT DELETE ON revocations TO a_writer")
	for _, role := range []struct{ name, why string }{
		{"a_superuser", "is a superuser"},
		{"a_maker", "can make roles"},
		{"a_writer", "may change them"},
		{"chancery", "owns the database"},
		{"pg_write_all_data", "may change them"},
		{"pg_execute_server_program", "can write to the files of the server"},
		{"pg_write_server_files", "can write to the files of the server"},
	} {
		do(admin, "GRANT "+role.name+" TO chancery_app")
		wantRefused(t, storage.Config{URL: server.URL, Unsafe: true}, storage.ErrPrivileges,
			`the login "chancery_app" could change facts: it can become `+role.name+", which "+role.why)
		do(admin, "REVOKE "+role.name+" FROM chancery_app")
	}
	do(admin, "GRANT a_step TO chancery_app")
	wantRefused(t, storage.Config{URL: server.URL, Unsafe: true}, storage.ErrPrivileges, "it can become a_maker, which can make roles")
	do(admin, "REVOKE a_step FROM chancery_app")
	do(admin, "ALTER ROLE chancery_app INHERIT")
	do(admin, "ALTER DATABASE "+pgx.Identifier{owner.Config().Database}.Sanitize()+" OWNER TO postgres")
	do(admin, "GRANT chancery TO chancery_app")
	wantRefused(t, storage.Config{URL: server.URL, Unsafe: true}, storage.ErrPrivileges, "owns the tables")
	do(admin, "REVOKE chancery FROM chancery_app")
	server.Store(t) // it opens
}

func TestErrorsNeverShowThePassword(t *testing.T) {
	const secret = "s3cr3t-p4ss"
	ctx := context.Background()
	for _, u := range []string{
		"postgres://ada:" + secret + "@127.0.0.1:1/chancery?connect_timeout=1",
		"postgres://ada:" + secret + "@127.0.0.1:port/chancery",
		"postgres://ada:" + secret + "%zz@127.0.0.1/chancery",
		"postgres://ada:" + secret + " @127.0.0.1:1/chancery?sslmode=strange",
		"host=127.0.0.1 port=1 user=ada password=" + secret + " sslmode=disable connect_timeout=1",
		"host=127.0.0.1 password='" + secret,
		secret,
	} {
		_, openErr := storage.Open(ctx, storage.Config{URL: u})
		_, migrateErr := storage.Migrate(ctx, u)
		grantErr := storage.GrantService(ctx, u, "x")
		for _, err := range []error{openErr, migrateErr, grantErr} {
			if err == nil {
				t.Errorf("%q was accepted", u)
			}
			for ; err != nil; err = errors.Unwrap(err) {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("an error shows the password: %v", err)
				}
			}
		}
	}
}

func TestAnAbsentDatabaseIsUnavailable(t *testing.T) {
	gone := url.URL{Scheme: "postgres", User: url.User("x"), Path: "/x", RawQuery: url.Values{"host": {t.TempDir()}}.Encode()}
	wantRefused(t, storage.Config{URL: gone.String()}, ca.ErrUnavailable, "")
	if _, err := storage.Migrate(context.Background(), gone.String()); !errors.Is(err, ca.ErrUnavailable) {
		t.Errorf("Migrate = %v, want ErrUnavailable", err)
	}
}

func TestMigratingAtOnceAndAgain(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	f.exec(`DROP SCHEMA public CASCADE`)
	f.exec(`CREATE SCHEMA public`)
	const processes = 3
	applied := make([][]string, processes)
	var wg sync.WaitGroup
	for n := range processes {
		wg.Go(func() {
			var err error
			if applied[n], err = storage.Migrate(ctx, f.db.OwnerURL); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	total := 0
	for _, a := range applied {
		total += len(a)
		if len(a) > 0 && (len(a) < 3 || a[0] != "00001_schema.sql") {
			t.Errorf("one process applied %v", a)
		}
	}
	if again, err := storage.Migrate(ctx, f.db.OwnerURL); err != nil || len(again) != 0 {
		t.Errorf("again: %v, %v", again, err)
	}
	f.wantCounts("goose_db_version WHERE version_id > 0", total)
	f.db.Store(t) // it opens
	if err := storage.GrantService(ctx, f.db.OwnerURL, "chancery_app"); err != nil {
		t.Errorf("granting again: %v", err)
	}
}

// What a database of an earlier version holds comes through the migrations, and a running service of that version goes on beside them.
func TestMigratingFromEveryEarlierVersion(t *testing.T) {
	latest := len(migrationNames(t))
	for version := 3; version < latest; version++ { // the schema was first whole, grants included, at 3
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			f := setUp(t)
			ctx := context.Background()
			f.exec(`DROP SCHEMA public CASCADE`)
			f.exec(`CREATE SCHEMA public`)
			migrateTo(t, f.db.OwnerURL, int64(version))
			wantRefused(t, storage.Config{URL: f.db.URL, Unsafe: true}, storage.ErrSchema, "run `chancery migrate`")
			f.exec(`INSERT INTO idempotency_keys (actor, key, body, issuer, serial) VALUES ('a', 'k', sha256('b'), 'issuing-1', '\x1c')`)
			applied, err := storage.Migrate(ctx, f.db.OwnerURL)
			if err != nil || len(applied) != latest-version {
				t.Fatalf("from version %d: %v, %v", version, applied, err)
			}
			f.wantCounts("idempotency_keys", 1)
			upgraded := &fixture{Store: f.db.Store(t), t: t, db: f.db, owner: f.owner}
			upgraded.issue()
		})
	}
}

func migrationNames(t *testing.T) []string {
	t.Helper()
	names, err := fs.Glob(migrations.FS, "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func migrateTo(t *testing.T, url string, version int64) {
	t.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, migrations.FS, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.UpTo(t.Context(), version); err != nil {
		t.Fatal(err)
	}
}
