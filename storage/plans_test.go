package storage_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/storage"
)

var partitionInPlan = regexp.MustCompile(`\bon (certificates_\d{4}_\d\d)\b`)

// TestPlansTouchFewPartitions asks Postgres what it will read, over three years of months with certificates in each: statements that know a
// serial read the one partition that it can be in, and pages come newest first from an index, whatever the filter. The plans are those of a
// prepared statement that serves any serial, as the service's are.
func TestPlansTouchFewPartitions(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	for n := range 36 {
		at := time.Now().AddDate(0, -n, 0)
		if err := f.EnsurePartitions(ctx, at); err != nil {
			t.Fatal(err)
		}
		f.exec(`INSERT INTO certificates SELECT decode(encode(substr(serial_bound($1), 1, 7), 'hex') || substr(md5(i::text), 1, 26), 'hex'), 'issuing-1', 'final',
			'\x30', sha256(i::text::bytea), 'full', 'tls-server', 'p', 'team-' || i % 5, gen_random_uuid(), 'CN=x', '{x}', 'x', $1, $1::timestamptz + interval '90 days', $1,
			gen_random_uuid() FROM generate_series(1, 300) AS i`, at)
	}
	f.exec("ANALYZE")
	serial := newSerial(t, time.Now().AddDate(0, -7, 0))
	conn := connect(t, f.db.URL)
	for _, sql := range []string{"SET ROLE chancery_service", "SET enable_seqscan = off", "SET plan_cache_mode = force_generic_plan"} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatal(err)
		}
	}
	for name, q := range storage.StatementsBySerial() {
		t.Run(name, func(t *testing.T) {
			// What a plan for any serial leaves out only shows when it runs.
			plan := explain(t, conn, q, q.Arguments(serial[:], "issuing-1"))
			want := "certificates_" + serial.Time().Format("2006_01")
			read := partitionsRead(plan)
			if len(read) != 1 || read[0] != want || strings.Contains(plan, "Seq Scan") {
				t.Errorf("it reads %v, want %s alone\n%s", read, want, plan)
			}
		})
	}
	for name, filter := range map[string]ca.Filter{
		"everything":        {Namespace: "*"},
		"a namespace":       {Namespace: "team-3"},
		"a later page":      {Namespace: "*", Cursor: storage.CursorAfter(serial, "issuing-1")},
		"of a profile":      {Namespace: "team-3", Profile: "tls-server"},
		"of an issuer":      {Namespace: "*", Issuer: "issuing-1"},
		"searched for":      {Namespace: "team-3", Query: "x"},
		"ending before":     {Namespace: "*", ExpiresBefore: time.Now().AddDate(1, 0, 0)},
		"those in force":    {Namespace: "*", Status: "valid", Now: time.Now().AddDate(0, -1, 0)},
		"a namespace's end": {Namespace: "team-3", Cursor: storage.CursorAfter(serial, "issuing-1")},
	} {
		t.Run("list "+name, func(t *testing.T) {
			filter.Limit = 20
			sql, args, err := storage.ListQuery(filter)
			if err != nil {
				t.Fatal(err)
			}
			plan := explain(t, conn, storage.Statement{SQL: sql}, args)
			// The first row of every month that may have one is looked at, to know which comes next, and then no more than the page needs.
			if n := rowsRead(t, plan); n > 200 || strings.Contains(plan, "Seq Scan on certificates") {
				t.Errorf("a page of 20 reads %d rows\n%s", n, plan)
			}
			if filter.Cursor != "" {
				for _, partition := range partitionsRead(plan) {
					if partition > "certificates_"+serial.Time().Format("2006_01") {
						t.Errorf("a page from %s on reads %s", serial, partition)
					}
				}
			}
		})
	}
}

// TestTokensAreLookedUpWithoutPlanning: every call of the API looks a token up, and planning that would take longer than the look itself.
func TestTokensAreLookedUpWithoutPlanning(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	f.exec(`INSERT INTO api_tokens (id, sha256, name, person, namespace, roles, profiles, networks, created_at, created_by)
		SELECT 't' || i, sha256(i::text::bytea), 'n', 'p', 'team', '{requester}', '{}', '{}', now(), 'test' FROM generate_series(1, 5000) AS i`)
	f.exec("ANALYZE api_tokens")
	conn := connect(t, f.db.OwnerURL)
	if _, err := conn.Prepare(ctx, "look", storage.LookUpTokens); err != nil {
		t.Fatal(err)
	}
	var digests [][]byte
	for n := range 12 { // Postgres plans the first five anew whatever they are
		digest := sha256.Sum256([]byte(strconv.Itoa(n + 1)))
		digests = append(digests, digest[:])
		tag, err := conn.Exec(ctx, "look", digests)
		if err != nil || tag.RowsAffected() != int64(len(digests)) {
			t.Fatalf("%d digests: %s, %v", len(digests), tag, err)
		}
	}
	wantPlanKept(t, conn, "look")
	if _, err := conn.Exec(ctx, "SET plan_cache_mode = force_generic_plan"); err != nil {
		t.Fatal(err)
	}
	plan := explain(t, conn, storage.Statement{SQL: storage.LookUpTokens}, []any{digests})
	if strings.Contains(plan, "Seq Scan") {
		t.Errorf("it reads all tokens\n%s", plan)
	}
}

// wantPlanKept fails where a prepared statement, run more often than that, was planned anew more than the five times that Postgres always
// does.
func wantPlanKept(t *testing.T, conn *pgx.Conn, name string) {
	t.Helper()
	var anew, kept int
	if err := conn.QueryRow(context.Background(), "SELECT custom_plans, generic_plans FROM pg_prepared_statements WHERE name = $1", name).
		Scan(&anew, &kept); err != nil {
		t.Fatal(err)
	}
	if anew > 5 || kept == 0 {
		t.Errorf("it was planned anew %d times, and %d times not", anew, kept)
	}
}

// issuances are n intents that nobody has recorded, and the certificates of n others that are open.
func (f *fixture) issuances(n int) (intents []ca.Intent, certificates []ca.NewCertificate) {
	f.t.Helper()
	for range n {
		intents = append(intents, newIntent(f.t, alpha))
		certificates = append(certificates, certificateOf(f.intend()))
	}
	return intents, certificates
}

// TestLotsReadWhatTheyNeed: of the keys that are known as compromised, and of the intents that are open or have been, a lot reads those that
// it is about, however many there are, and whatever Postgres knew of the tables when it made the plan.
func TestLotsReadWhatTheyNeed(t *testing.T) {
	const kept, lot = 20_000, 12
	f := setUp(t)
	ctx := context.Background()
	f.exec(`INSERT INTO compromised_keys (spki_sha256, issuer, serial, at) SELECT sha256(i::text::bytea), 'issuing-1', '\x01', now()
		FROM generate_series(1, $1) AS i`, kept)
	f.exec(`INSERT INTO intents SELECT '\x1c'::bytea || substr(sha256(i::text::bytea), 1, 19), 'issuing-1', 'final', '\x30', 'full', sha256(i::text::bytea), 'web', 'p', 'd', now(),
		gen_random_uuid(), '', '', now(), 'n', 'r', now() FROM generate_series(1, $1) AS i`, kept)
	intents, certificates := f.issuances(lot)
	for _, know := range []string{"nothing", "all"} {
		if know == "all" {
			f.exec("ANALYZE")
		}
		for name, q := range storage.LotStatements(intents, certificates) {
			t.Run(fmt.Sprintf("%s, with %s known of the tables", name, know), func(t *testing.T) {
				conn := connect(t, f.db.URL)
				for _, sql := range []string{
					"SET ROLE chancery_service", "SET enable_seqscan = off", "SET plan_cache_mode = force_generic_plan", "BEGIN",
					"SET LOCAL chancery.held_keys = ''",
				} {
					if _, err := conn.Exec(ctx, sql); err != nil {
						t.Fatal(err)
					}
				}
				plan := explain(t, conn, storage.Statement{SQL: q.SQL}, q.Arguments)
				looked := false
				for line := range strings.SplitSeq(plan, "\n") {
					if !keyedTable.MatchString(line) || strings.Contains(line, "never executed") {
						continue
					}
					looked = true
					if n := rowsOf(t, line); n > 2*lot {
						t.Errorf("a lot of %d reads %d rows: %s\n%s", lot, n, line, plan)
					}
				}
				if !looked {
					t.Errorf("it looks at none of the tables\n%s", plan)
				}
			})
		}
	}
}

// TestLotsAreNotPlannedAnew: planning a lot takes longer than a lot of one takes.
func TestLotsAreNotPlannedAnew(t *testing.T) {
	const most = 12
	f := setUp(t)
	ctx := context.Background()
	intents, certificates := f.issuances(most)
	for name := range storage.LotStatements(intents, certificates) {
		for _, lot := range []int{1, most} {
			t.Run(fmt.Sprintf("%d %s", lot, name), func(t *testing.T) {
				conn := connect(t, f.db.URL)
				if _, err := conn.Exec(ctx, "SET ROLE chancery_service; SET enable_seqscan = off; SET chancery.held_keys = ''"); err != nil {
					t.Fatal(err)
				}
				for range 10 { // Postgres plans the first five anew whatever they are
					q := storage.LotStatements(intents[:lot], certificates[:lot])[name]
					if _, err := conn.Prepare(ctx, "lot", q.SQL); err != nil {
						t.Fatal(err)
					}
					tx, err := conn.Begin(ctx)
					if err != nil {
						t.Fatal(err)
					}
					if _, err := tx.Exec(ctx, "lot", q.Arguments...); err != nil {
						t.Fatal(err)
					}
					if err := tx.Rollback(ctx); err != nil {
						t.Fatal(err)
					}
				}
				wantPlanKept(t, conn, "lot")
			})
		}
	}
}

var keyedTable = regexp.MustCompile(`Scan.* on (compromised_keys|intents)\b`)

func explain(t *testing.T, conn *pgx.Conn, q storage.Statement, args []any) string {
	t.Helper()
	rows, err := conn.Query(context.Background(), "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) "+q.SQL, args...)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(fmt.Errorf("%s: %w", q.SQL, err))
	}
	return strings.Join(lines, "\n")
}

// partitionsRead are the partitions of certificates that a plan really read.
func partitionsRead(plan string) (read []string) {
	for line := range strings.SplitSeq(plan, "\n") {
		found := partitionInPlan.FindStringSubmatch(line)
		if found != nil && !strings.Contains(line, "never executed") && !slices.Contains(read, found[1]) {
			read = append(read, found[1])
		}
	}
	return read
}

var rowsInPlan = regexp.MustCompile(`actual rows=(\d+) loops=(\d+)|Rows Removed by Filter: (\d+)`)

// rowsRead are the rows of certificates that a plan read, those that a filter left out among them.
func rowsRead(t *testing.T, plan string) (total int) {
	t.Helper()
	of := false
	for line := range strings.SplitSeq(plan, "\n") {
		if strings.Contains(line, "->") {
			of = partitionInPlan.MatchString(line)
		}
		if of {
			total += rowsOf(t, line)
		}
	}
	return total
}

// rowsOf are the rows that a line of a plan counts.
func rowsOf(t *testing.T, line string) int {
	t.Helper()
	found := rowsInPlan.FindStringSubmatch(line)
	if found == nil {
		return 0
	}
	n := 1
	for _, text := range found[1:] {
		if text != "" {
			factor, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			n *= factor
		}
	}
	return n
}
