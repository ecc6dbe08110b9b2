package storage

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/chancery-ca/chancery/migrations"
)

// Migrate brings the schema up to this program's version and returns the names of the migrations that it ran. Several processes may
// do so at once: one runs them, the others wait. The login must own the database and be able to make roles, or chancery_service must exist.
func Migrate(ctx context.Context, url string) (applied []string, err error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, errBadURL
	}
	settle(config)
	delete(config.RuntimeParams, "statement_timeout") // an index may take long
	delete(config.RuntimeParams, "idle_in_transaction_session_timeout")
	db := stdlib.OpenDB(*config)
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := db.PingContext(ctx); err != nil {
		return nil, describe("connecting to migrate", err)
	}
	provider, err := newProvider(db)
	if err != nil {
		return nil, err
	}
	results, err := provider.Up(ctx)
	for _, r := range results {
		applied = append(applied, path.Base(r.Source.Path))
	}
	if err != nil {
		return applied, fmt.Errorf("migrating the database: %w", err)
	}
	return applied, nil
}

func newProvider(db *sql.DB) (*goose.Provider, error) {
	const everySecond, forFiveMinutes = 1, 300
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(everySecond, forFiveMinutes))
	if err != nil {
		return nil, fmt.Errorf("preparing to migrate: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, migrations.FS, goose.WithSessionLocker(locker),
		goose.WithLogger(goose.NopLogger()), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return nil, fmt.Errorf("preparing to migrate: %w", err)
	}
	return provider, nil
}

// GrantService lets a login work as the service. The URL must be that of whoever migrated, or of an administrator.
func GrantService(ctx context.Context, url, login string) error {
	return grantRole(ctx, url, ServiceRole, login)
}

// GrantAuditor lets a login work as the auditor. The URL must be that of whoever migrated, or of an administrator.
func GrantAuditor(ctx context.Context, url, login string) error {
	return grantRole(ctx, url, AuditorRole, login)
}

func grantRole(ctx context.Context, url, role, login string) (err error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return errBadURL
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return describe("connecting to grant", err)
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	var member bool
	err = conn.QueryRow(ctx, `SELECT pg_has_role($1, $2, 'MEMBER')`, login, role).Scan(&member)
	if sqlState(err) == undefinedObject {
		return fmt.Errorf("granting the role %s: there is no login %q: have an administrator make it first (CREATE ROLE %s LOGIN PASSWORD '…')",
			role, login, pgx.Identifier{login}.Sanitize())
	}
	if err != nil {
		return describe("granting the role "+role, err)
	}
	if member {
		return nil
	}
	_, err = conn.Exec(ctx, "GRANT "+pgx.Identifier{role}.Sanitize()+" TO "+pgx.Identifier{login}.Sanitize())
	return describe("granting the role "+role, err)
}

// undefinedObject is the SQLSTATE of a role that there is not.
const undefinedObject = "42704"

const schemaVersion = `SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied`

const compatibleFrom = `SELECT compatible_from FROM schema_compatibility`

// checkSchema compares the database's version with the number of the last migration that this program holds. A later schema is accepted
// where it says that programs of this number can still work on it: so old and new ones run side by side while a release is rolled out.
func checkSchema(ctx context.Context, conn *pgx.Conn) error {
	want, err := latestMigration(migrations.FS)
	if err != nil {
		return err
	}
	var have int64
	err = conn.QueryRow(ctx, schemaVersion).Scan(&have)
	var pg *pgconn.PgError
	if errors.As(err, &pg) && (pg.Code == "42P01" || pg.Code == "42501") {
		return fmt.Errorf("%w: the database holds no schema: run `chancery migrate`", ErrSchema)
	}
	if err != nil {
		return describe("reading the version of the schema", err)
	}
	if have < want {
		return fmt.Errorf("%w: it has version %d and this program needs %d: run `chancery migrate` with this program, as the database's owner; "+
			"replicas that are running go on working meanwhile", ErrSchema, have, want)
	}
	if have == want {
		return nil
	}
	var from int64
	if err := conn.QueryRow(ctx, compatibleFrom).Scan(&from); err != nil {
		return describe("reading which programs can work on the schema", err)
	}
	if want < from {
		return fmt.Errorf("%w: it has version %d, for programs that know migration %d; this one knows none later than %d: use a newer chancery",
			ErrSchema, have, from, want)
	}
	return nil
}

func latestMigration(files fs.FS) (latest int64, err error) {
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		return 0, fmt.Errorf("listing the migrations: %w", err)
	}
	for _, name := range names {
		number, err := goose.NumericComponent(name)
		if err != nil {
			return 0, fmt.Errorf("listing the migrations: %w", err)
		}
		latest = max(latest, number)
	}
	return latest, nil
}
