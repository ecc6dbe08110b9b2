package storage_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/reconcile"
	"github.com/chancery-ca/chancery/storage"
)

// working are the tables in which the service may change or remove rows, whole or in part, because they hold what is going on now. Every
// other table holds facts. Who makes a table that the service may change names it here, and says in its migration why it is no fact.
var working = []string{
	"intents", "idempotency_keys", "crl_pending", "crl_scopes", "api_tokens", "waiting_requests", "reservations", "revocation_jobs",
	"replicas", "leases", "console_logins", "console_sessions", "delivery_cursors",
}

// as is a connection that works as a role, by the service's login, which may only be what it is a member of.
func (f *fixture) as(role string) *pgx.Conn {
	f.t.Helper()
	conn := connect(f.t, f.db.URL)
	if _, err := conn.Exec(context.Background(), "SET ROLE "+role); err != nil {
		f.t.Fatal(err)
	}
	return conn
}

func (f *fixture) column(sql string, args ...any) []string { return f.db.Column(f.t, sql, args...) }

// TestTheServiceChangesWhatIsNoFact asks the catalogue, so that a table which a later migration makes is asked about as well, and so is
// each partition by itself.
func TestTheServiceChangesWhatIsNoFact(t *testing.T) {
	f := setUp(t)
	f.issue()
	tables := f.column(`SELECT c.relname FROM pg_class AS c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') ORDER BY 1`)
	if len(tables) < 30 {
		t.Fatalf("the tables are %q", tables)
	}
	changeable := f.column(`
		SELECT c.relname FROM pg_class AS c
		WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
			AND (has_table_privilege('chancery_service', c.oid, 'UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
				OR has_any_column_privilege('chancery_service', c.oid, 'UPDATE, REFERENCES'))
		ORDER BY 1`)
	for _, table := range changeable {
		if !slices.Contains(working, table) {
			t.Errorf("the service may change rows of %s, which is not among the working tables", table)
		}
	}
	for _, table := range working {
		if !slices.Contains(changeable, table) {
			t.Errorf("%s counts as a working table, and the service may not change its rows", table)
		}
	}
	// Facts have the triggers that stop the owner's slips. The service's own list of facts, which it checks at its start, is part of them.
	guarded := f.column(`
		SELECT c.relname FROM pg_class AS c JOIN pg_trigger AS g ON g.tgrelid = c.oid JOIN pg_proc AS p ON p.oid = g.tgfoid
		WHERE c.relnamespace = 'public'::regnamespace AND p.proname LIKE 'refuse\_%' AND g.tgenabled <> 'D'
		GROUP BY c.relname HAVING bool_or(g.tgtype & 8 <> 0) AND bool_or(g.tgtype & 16 <> 0)
			AND (bool_or(g.tgtype & 32 <> 0) OR bool_or(c.relispartition))`)
	// The migrations' own, the sequencer's queue, and what the owner may erase or set.
	unguarded := []string{"goose_db_version", "schema_compatibility", "audit_unsequenced", "audit_backlog", "audit_private", "archive_settings"}
	for _, table := range tables {
		if !slices.Contains(guarded, table) && !slices.Contains(working, table) && !slices.Contains(unguarded, table) {
			t.Errorf("%s has no triggers against changes, and is not among the working tables", table)
		}
	}
}

// TestTheServiceHasNoWayRound tries, as the service, what could come before a change of facts.
func TestTheServiceHasNoWayRound(t *testing.T) {
	f, ctx := setUp(t), context.Background()
	c := f.issue()
	partition := "certificates_" + c.Serial.Time().Format("2006_01")
	owner := f.column(`SELECT tableowner FROM pg_tables WHERE tablename = 'certificates'`)[0]
	var forbidden []string
	for _, table := range []string{"certificates", "audit_leaves", partition, "crls"} {
		forbidden = append(forbidden,
			"ALTER TABLE "+table+" OWNER TO chancery_app",
			"ALTER TABLE "+table+" DISABLE TRIGGER facts_stay",
			"ALTER TABLE "+table+" DISABLE TRIGGER ALL",
			"ALTER TABLE "+table+" ADD COLUMN more text",
			"ALTER TABLE "+table+" RENAME TO other",
			"ALTER TABLE "+table+" ENABLE ROW LEVEL SECURITY",
			"DROP TRIGGER facts_stay ON "+table,
			"CREATE TRIGGER mine BEFORE INSERT ON "+table+" FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
			"CREATE RULE mine AS ON INSERT TO "+table+" DO INSTEAD NOTHING",
			"DROP TABLE "+table,
			"TRUNCATE "+table,
			"DELETE FROM ONLY "+table,
			"DO $$ BEGIN LOCK TABLE "+table+" IN ACCESS EXCLUSIVE MODE; END $$",
		)
	}
	forbidden = append(forbidden,
		"SET ROLE "+owner, "SET ROLE postgres", "SET ROLE pg_write_all_data", "SET SESSION AUTHORIZATION "+owner,
		"SET session_replication_role = replica", "ALTER SYSTEM SET fsync = off", "ALTER ROLE chancery_app SUPERUSER",
		"GRANT "+owner+" TO chancery_app", "GRANT pg_read_server_files TO chancery_app",
		"CREATE FUNCTION public.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
		"CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'",
		"ALTER FUNCTION refuse_change() OWNER TO chancery_app", "DROP FUNCTION refuse_change() CASCADE",
		"ALTER FUNCTION archive_month(date, timestamptz, bigint, bytea, bigint, bytea, text, bigint, bytea, text, uuid) RESET search_path",
		"CREATE EXTENSION pageinspect", "CREATE TABLE public.mine ()", "CREATE SCHEMA mine", "DROP SCHEMA public CASCADE",
		"COPY certificates TO PROGRAM 'cat'", "COPY certificates FROM PROGRAM 'cat'", "COPY certificates FROM '/etc/passwd'",
		"SELECT pg_read_file('/etc/passwd')", "SELECT lo_import('/etc/passwd')",
		"CREATE PUBLICATION mine FOR "+
			"ALL TABLES", "ALTER DATABASE "+pgx.Identifier{f.column(`SELECT current_database()`)[0]}.Sanitize()+" SET fsync = off",
	)
	for _, role := range []string{"chancery_service", "chancery_app"} {
		for _, sql := range forbidden {
			conn := f.as(role)
			if _, err := conn.Exec(ctx, sql); !slices.Contains([]string{insufficientPrivilege, "42809", "0LP01"}, sqlState(err)) {
				t.Errorf("%s may %s: %v", role, sql, err)
			}
			_ = conn.Close(ctx)
		}
	}
	// Whoever may not grant is only warned.
	for _, sql := range []string{"GRANT UPDATE ON certificates TO chancery_app", "GRANT ALL ON audit_leaves TO PUBLIC"} {
		if _, err := f.as("chancery_service").Exec(ctx, sql); err != nil && sqlState(err) != insufficientPrivilege {
			t.Error(err)
		}
	}
	if got := f.column(`SELECT t FROM unnest('{certificates,audit_leaves}'::text[]) AS t WHERE has_table_privilege('chancery_app', t, 'UPDATE, DELETE')`); len(got) > 0 {
		t.Errorf("the service granted itself %q", got)
	}
	if n := f.column(`SELECT count(*)::text FROM certificates`)[0]; n != "1" {
		t.Errorf("there are %s certificates", n)
	}
}

// TestFunctionsOfTheOwnerArePinned: what runs with the owner's rights looks for names in a place that no caller chooses, and is called by
// nobody who was not named.
func TestFunctionsOfTheOwnerArePinned(t *testing.T) {
	f := setUp(t)
	const ours = `p.pronamespace = 'public'::regnamespace`
	if loose := f.column(`
		SELECT p.oid::regprocedure::text FROM pg_proc AS p WHERE ` + ours + ` AND p.prosecdef
			AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false)`); len(loose) > 0 {
		t.Errorf("these run as the owner with their caller's search_path: %q", loose)
	}
	if open := f.column(`
		SELECT p.oid::regprocedure::text FROM pg_proc AS p WHERE ` + ours + ` AND p.prosecdef AND has_function_privilege('public', p.oid, 'EXECUTE')`); len(open) > 0 {
		t.Errorf("everybody may call these, which run as the owner: %q", open)
	}
	if n := f.column(`SELECT count(*)::text FROM pg_proc AS p WHERE ` + ours + ` AND p.prosecdef`)[0]; n == "0" {
		t.Error("there are none: the test asks wrongly")
	}
	// Whatever runs with its caller's rights is pinned as well: nobody puts a table of another schema before ours.
	if loose := f.column(`
		SELECT p.oid::regprocedure::text FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang
		WHERE ` + ours + ` AND l.lanname = 'plpgsql' AND NOT EXISTS (SELECT FROM unnest(p.proconfig) AS s WHERE s LIKE 'search_path=pg_catalog%')`); len(loose) > 0 {
		t.Errorf("these look for names where their caller says: %q", loose)
	}
}

// TestTheAuditorReadsAndNoMore: every fact can be read, nothing can be written, and what lets somebody in cannot even be read.
func TestTheAuditorReadsAndNoMore(t *testing.T) {
	f, ctx := setUp(t), context.Background()
	c := f.issue()
	f.addAuthority("issuing-1")
	auditor := f.as("chancery_auditor")
	for _, table := range facts {
		if _, err := auditor.Exec(ctx, "SELECT FROM "+table); err != nil {
			t.Errorf("the auditor cannot read %s: %v", table, err)
		}
	}
	for _, table := range []string{"api_tokens", "idempotency_keys"} {
		if _, err := auditor.Exec(ctx, "SELECT FROM "+table); sqlState(err) != insufficientPrivilege {
			t.Errorf("the auditor reads %s: %v", table, err)
		}
	}
	if writable := f.column(`
		SELECT c.relname FROM pg_class AS c
		WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')
			AND (has_table_privilege('chancery_auditor', c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
				OR has_any_column_privilege('chancery_auditor', c.oid, 'INSERT, UPDATE, REFERENCES'))`); len(writable) > 0 {
		t.Errorf("the auditor may write %q", writable)
	}
	if callable := f.column(`
		SELECT p.oid::regprocedure::text FROM pg_proc AS p
		WHERE p.pronamespace = 'public'::regnamespace AND p.prosecdef AND has_function_privilege('chancery_auditor', p.oid, 'EXECUTE')`); len(callable) > 0 {
		t.Errorf("the auditor may call, as the owner, %q", callable)
	}

	store, err := storage.Open(ctx, storage.Config{URL: f.db.URL, Role: storage.AuditorRole, Unsafe: true})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	found := 0
	if err := store.SigningRecords(ctx, time.Time{}, func(reconcile.Record) error { found++; return nil }); err != nil || found == 0 {
		t.Errorf("%d records, %v", found, err)
	}
	if never, err := store.Unissued(ctx, [][]byte{c.Serial[:], {1}}); err != nil || len(never) != 1 || never[0][0] != 1 {
		t.Errorf("never issued: %x, %v", never, err)
	}
	if err := store.RecordEvents(ctx, leaf(t, audit.ServiceStarted)); err == nil || !strings.Contains(fmt.Sprint(err), "read-only") &&
		sqlState(err) != insufficientPrivilege && sqlState(err) != "25006" {
		t.Errorf("the auditor records an event: %v", err)
	}
	// An owner's login, which could change facts, is none to read with.
	if _, err := storage.Open(ctx, storage.Config{URL: f.db.OwnerURL, Role: "chancery", Unsafe: true}); err == nil {
		t.Error("the owner's role was taken")
	}
}
