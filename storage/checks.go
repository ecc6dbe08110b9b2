package storage

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/chancery-ca/chancery/storage/postgres"
)

// Errors of Open.
var (
	// ErrSchema is returned for a database whose schema is not the one that this program was built with.
	ErrSchema = errors.New("the database's schema does not fit this program")
	// ErrPrivileges is returned for a role that has too few rights to work, or so many that it could change facts, and for a login that could.
	ErrPrivileges = errors.New("the database role does not fit")
)

// UnsafeError refuses a server that could lose what it has acknowledged.
type UnsafeError struct {
	Setting, Value, Hint string
}

func (e *UnsafeError) Error() string {
	return fmt.Sprintf("the database is not safe to use: %s is %s: %s", e.Setting, e.Value, e.Hint)
}

// durability is what a server says of what it keeps.
type durability struct {
	version                                     int
	fsync, fullPageWrites, commit, standbyNames string
}

const durabilitySettings = `
	SELECT current_setting('server_version_num')::integer / 10000, current_setting('fsync'), current_setting('full_page_writes'),
	       current_setting('synchronous_commit'), current_setting('synchronous_standby_names')`

// takeRole makes a new connection work as a role, and reads in the same round trip how durable its server is: many connections are made
// at once when that has come back, and everybody waits for them.
func takeRole(ctx context.Context, conn *pgx.Conn, role string) (durability, error) {
	login := conn.Config().User
	results, err := conn.PgConn().Exec(ctx, "SET ROLE "+pgx.Identifier{role}.Sanitize()+";"+durabilitySettings).ReadAll()
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg) && pg.Code == "42501":
		return durability{}, fmt.Errorf("%w: the login %q is no member of %q: have an administrator run GRANT %s TO %s",
			ErrPrivileges, login, role, pgx.Identifier{role}.Sanitize(), pgx.Identifier{login}.Sanitize())
	case errors.As(err, &pg) && pg.Code == "22023":
		return durability{}, fmt.Errorf("%w: the role %q does not exist: run `chancery migrate`", ErrSchema, role)
	case err != nil:
		return durability{}, err
	case len(results) != 2 || len(results[1].Rows) != 1:
		return durability{}, errors.New("reading the settings of the database: no answer")
	}
	row := results[1].Rows[0]
	version, err := strconv.Atoi(string(row[0]))
	if err != nil {
		return durability{}, fmt.Errorf("reading the version of the database: %w", err)
	}
	return durability{version, string(row[1]), string(row[2]), string(row[3]), string(row[4])}, nil
}

// check refuses a server that could lose what it has acknowledged. At least so many standbys must have that. It is asked of every new
// connection: after a failover it may be another server's.
func (d durability) check(atLeast int) error {
	if err := judgeDurability(d.version, d.fsync, d.fullPageWrites, d.commit, d.standbyNames); err != nil {
		return err
	}
	return judgeReplication(atLeast, d.commit, d.standbyNames)
}

// quorum finds how many standbys a commit waits for: "ANY 2 (a, b, c)", "FIRST 1 (a, b)", "2 (a, b)".
var quorum = regexp.MustCompile(`(?i)^\s*(?:any\s+|first\s+)?(\d+)\s*\(`)

// judgeReplication refuses a server whose failover could lose what it has acknowledged, where the configuration asks for standbys that have
// it. How many there are just now does not count: with too few, commits wait, and nothing is acknowledged.
func judgeReplication(atLeast int, commit, standbys string) error {
	if atLeast == 0 {
		return nil
	}
	if commit != "on" && commit != "remote_apply" {
		return &UnsafeError{"synchronous_commit", commit, "a failover could lose acknowledged certificates; set it to on, or to remote_apply"}
	}
	waits := 0
	if form := quorum.FindStringSubmatch(standbys); form != nil {
		waits, _ = strconv.Atoi(form[1]) // of a number that is too large: the largest
	} else if strings.TrimSpace(standbys) != "" { // a bare list of names waits for the first
		waits = 1
	}
	if waits < atLeast {
		return &UnsafeError{
			"synchronous_standby_names", strconv.Quote(standbys),
			fmt.Sprintf("a failover could lose acknowledged certificates, for "+
				"a commit waits for %d of the %d standbys that the configuration asks for (database.synchronous_standbys); set it, for example, to "+
				"ANY %d (*)",
				waits, atLeast, atLeast),
		}
	}
	return nil
}

func judgeDurability(version int, fsync, fullPageWrites, commit, standbys string) error {
	switch {
	case version < postgres.OldestVersion:
		return &UnsafeError{"server_version", fmt.Sprint(version), fmt.Sprintf("Postgres %d or later is needed", postgres.OldestVersion)}
	case fsync != "on":
		return &UnsafeError{"fsync", fsync, "a crash would lose acknowledged certificates; set it to on"}
	case fullPageWrites != "on":
		return &UnsafeError{"full_page_writes", fullPageWrites, "a crash could tear pages; set it to on"}
	case commit == "off":
		return &UnsafeError{"synchronous_commit", commit, "a crash would lose acknowledged certificates; set it to on"}
	case commit == "local" && standbys != "":
		return &UnsafeError{"synchronous_commit", commit, "a failover to a standby would lose acknowledged certificates; set it to on"}
	}
	return nil
}

// factTables are those of which the service must be able to add rows and do no more.
var factTables = []string{
	"authorities", "requests", "certificates", "orphans", "imported_certificates", "revocations", "compromised_keys",
	"crl_intents", "crls", "crl_deltas", "audit_leaves", "namespaces", "approvals", "policy_sets", "policy_proposals", "policy_votes",
	"policy_activations",
	"revocation_lots", "revocation_votes", "audit_checkpoints", "audit_cosignatures", "audit_keys", "audit_private",
	"approver_keys", "approver_key_ends", "approval_evidence", "orders", "order_votes", "order_uses",
}

// guardedTables are facts, and working tables, that only functions of the database write to, or the owner.
var guardedTables = []string{
	"archives", "archived_keys", "archive_settings", "audit_sequence", "audit_subtrees", "audit_unsequenced", "audit_backlog",
}

const inventingPrivileges = `
	SELECT t FROM unnest($1::text[]) AS t WHERE has_table_privilege(t, 'INSERT, UPDATE, DELETE, TRUNCATE')
		OR has_any_column_privilege(t, 'INSERT, UPDATE')`

const excessivePrivileges = `
	SELECT t FROM unnest($1::text[]) AS t
	WHERE has_table_privilege(t, 'UPDATE, DELETE, TRUNCATE') OR has_any_column_privilege(t, 'UPDATE')`

const missingPrivileges = `
	SELECT t FROM unnest($1::text[]) AS t
	WHERE NOT (has_table_privilege(t, 'SELECT') AND has_table_privilege(t, 'INSERT'))`

// loginsPower says how a connection's login could change facts although the role that it works as cannot: RESET ROLE is everybody's to say,
// and so is SET ROLE, to whatever the login is a member of by any number of steps, though it inherits nothing. Each of these roles is asked about.
const loginsPower = `
	SELECT session_user, coalesce((
		SELECT CASE r.rolname WHEN session_user THEN '' ELSE format('can become %I, which ', r.rolname) END || p.power
		FROM pg_roles AS r CROSS JOIN LATERAL (SELECT CASE
			WHEN r.rolsuper THEN 'is a superuser'
			WHEN EXISTS (SELECT FROM pg_database AS d WHERE d.datname = current_database() AND d.datdba = r.oid) THEN 'owns the database'
			WHEN EXISTS (SELECT FROM pg_class AS c WHERE c.oid = ANY ($1::text[]::regclass[]) AND c.relowner = r.oid) THEN 'owns the tables'
			WHEN EXISTS (SELECT FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
				WHERE c.oid = ANY ($1::text[]::regclass[]) AND n.nspowner = r.oid) THEN 'owns their schema'
			WHEN r.rolcreaterole THEN 'can make roles, and itself a member of others'
			WHEN r.rolname IN ('pg_execute_server_program', 'pg_write_server_files') THEN 'can write to the files of the server'
			WHEN EXISTS (SELECT FROM unnest($1::text[]) AS t WHERE has_table_privilege(r.oid, t, 'UPDATE, DELETE, TRUNCATE')
				OR has_any_column_privilege(r.oid, t, 'UPDATE')) THEN 'may change them'
			END) AS p (power)
		WHERE pg_has_role(session_user, r.oid, 'MEMBER') AND p.power IS NOT NULL
		ORDER BY p.power = 'may change them', r.rolname <> session_user, r.rolname LIMIT 1 -- what one owns, one may change as well
	), '')`

// tablesWhere are those of some tables of which a statement about privileges is true.
func tablesWhere(ctx context.Context, conn *pgx.Conn, privileges string, tables []string) ([]string, error) {
	rows, err := conn.Query(ctx, privileges, tables)
	if err == nil {
		tables, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	if err != nil {
		return nil, describe("checking the privileges of the role", err)
	}
	return tables, nil
}

// checkReader refuses a role that could change what it is to read.
func checkReader(ctx context.Context, conn *pgx.Conn) error {
	tables, err := tablesWhere(ctx, conn, inventingPrivileges, slices.Concat(factTables, guardedTables))
	if err == nil && len(tables) > 0 {
		err = fmt.Errorf("%w: who reads as %s could change facts in %s", ErrPrivileges, AuditorRole, strings.Join(tables, ", "))
	}
	return err
}

// checkLogin refuses a login that could change facts, whatever the role that it works as may do: a process that was taken over works as what
// its login can be.
func checkLogin(ctx context.Context, conn *pgx.Conn) error {
	var login, power string
	if err := conn.QueryRow(ctx, loginsPower, slices.Concat(factTables, guardedTables)).Scan(&login, &power); err != nil {
		return describe("checking the login", err)
	}
	if power == "" {
		return nil
	}
	return fmt.Errorf("%w: the login %q could change facts: it %s; give the service a login of its own, which `chancery migrate --service-login` "+
		"makes a member of %s", ErrPrivileges, login, power, ServiceRole)
}

func checkPrivileges(ctx context.Context, conn *pgx.Conn) error {
	for _, c := range []struct {
		sql, complaint string
		tables         []string
	}{
		{excessivePrivileges, "it could change facts in", factTables},
		{missingPrivileges, "it cannot read or add to", factTables},
		{inventingPrivileges, "it could invent facts in", guardedTables},
	} {
		tables, err := tablesWhere(ctx, conn, c.sql, c.tables)
		if err != nil {
			return err
		}
		if len(tables) > 0 {
			return fmt.Errorf("%w: %s %s; let the service work as %s, as the migrations make it", ErrPrivileges, c.complaint,
				strings.Join(tables, ", "), ServiceRole)
		}
	}
	return nil
}
