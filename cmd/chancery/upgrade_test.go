package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/migrations"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// TestRollingUpgrade builds the program as it was before the newest migration, from the repository's own history, and has it serve. While it
// issues, the database is migrated and replicas of this program join it; then certificates of each are revoked through the other.
func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	before, commit := previousProgram(t)
	s := newHierarchy(t, storagetest.NewEmpty(t), false, devIssuerKey)
	owner := filepath.Join(s.dir, "owner-url")
	if err := os.WriteFile(owner, []byte(s.database.OwnerURL), 0o600); err != nil {
		t.Fatal(err)
	}
	migrate := []string{"migrate", "--database-url-file", owner, "--service-login", "chancery_app"}
	s.runProgram(t, before, migrate...)
	s.registerWith(before)
	oldSchema := s.schema(t)
	if refused, err := program(os.Args[0], "serve", "--config", s.write("early", s.token.Module)).CombinedOutput(); err == nil ||
		!strings.Contains(string(refused), "run `chancery migrate`") {
		t.Fatalf("this program serves on a schema that is too old: %v\n%s", err, refused)
	}

	old := s.startProgram(before, "old", s.token.Module)
	load := startUpgradeLoad(t)
	load.on(old)
	load.reaches(t, 20)
	s.runProgram(t, os.Args[0], migrate...)
	t.Logf("the program of %.12s worked on schema %s, which became %s under it", commit, oldSchema, s.schema(t))
	load.reaches(t, 20)
	fresh := s.start("new", s.token.Module)
	load.on(fresh)
	load.reaches(t, 40)
	eventually(t, time.Minute, "the new replica has issued", func() bool { return load.one(fresh) != "" })

	byOld, byNew := load.one(old), load.one(fresh)
	for serial, by := range map[string]*replica{byOld: fresh, byNew: old} {
		answer, err := by.call(t.Context(), http.MethodPost, "/api/v1/certificates/"+serial+"/revoke", access.Revoker,
			http.Header{"Content-Type": {"application/json"}}, []byte(`{"reason":"superseded"}`))
		if err != nil || answer.status != http.StatusOK {
			t.Errorf("revoking a certificate of the other program by %s: %d %s, %v", by.name, answer.status, answer.body, err)
		}
	}
	for _, r := range []*replica{old, fresh} {
		eventually(t, 15*time.Second, "both revocations are on the CRL of the "+r.name+" replica", func() bool {
			list, err := r.crl(t.Context())
			return err == nil && revokedSerials(list)[byOld] && revokedSerials(list)[byNew]
		})
	}
	load.stop()
	old.stop()
	s.restartOld(t, before)
	fresh.stop()
	load.check(t, s)
}

// restartOld starts the older program again on the new schema: it works there if it knows how to ask which programs can.
func (s *stack) restartOld(t *testing.T, before string) {
	source, err := os.ReadFile(filepath.Join(filepath.Dir(before), "storage", "migrate.go"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(source, []byte("schema_compatibility")) {
		t.Log("the older program knows of no later schema: while it runs it works on, and it is not started again")
		return
	}
	again := s.startProgram(before, "old", s.token.Module)
	if _, got, err := again.issue(t.Context(), "again.dev.example", nil); err != nil || got.status != http.StatusCreated {
		t.Errorf("the older program, started on the new schema: %d %s, %v", got.status, got.body, err)
	}
	again.stop()
}

// previousProgram builds the program of the commit before the newest migration.
func previousProgram(t *testing.T) (path, commit string) {
	t.Helper()
	top := strings.TrimSpace(git(t, "rev-parse", "--show-toplevel"))
	now, err := migrations.FS.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, added := range strings.Fields(git(t, "-C", top, "log", "--first-parent", "-m", "--diff-filter=A", "--format=%H", "--max-count=5", "--", "migrations/*.sql")) {
		parent := strings.Fields(git(t, "rev-list", "--max-count=1", "--parents", added))
		if len(parent) < 2 { // the first commit, or where a shallow clone ends
			break
		}
		commit = parent[1]
		names := strings.Fields(git(t, "-C", top, "ls-tree", "--name-only", commit, "migrations/"))
		if len(names) > len(now) { // with the Go file, which is no migration
			continue
		}
		dir := t.TempDir()
		archive := exec.Command("sh", "-c", `git -C "$1" archive "$2" | tar -x -C "$3"`, "sh", top, commit, dir)
		if out, err := archive.CombinedOutput(); err != nil {
			t.Fatalf("taking %s out of the history: %v\n%s", commit, err, out)
		}
		path = filepath.Join(dir, "chancery-before")
		build := exec.Command("go", append(asCompiled(), "-o", path, "./cmd/chancery")...)
		build.Dir = dir
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("building the program of %s: %v\n%s", commit, err, out)
		}
		return path, commit
	}
	t.Skip("NOT TESTED: this clone has no history from before the newest migration (git fetch --unshallow), so there is no older program to run beside this one")
	return "", ""
}

// asCompiled is how the tests were compiled: of the modules that both programs need, the older one then finds what was compiled already. On a
// machine where nothing is, that is three quarters of the work.
func asCompiled() []string {
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		return []string{"build", "-race"}
	}
	return []string{"build"}
}

// git asks the repository. A source tree without one has no history.
func git(t *testing.T, args ...string) string {
	t.Helper()
	var complaint bytes.Buffer
	cmd := exec.Command("git", args...)
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("NOT TESTED: there is no history here to build an older program from: git %s: %v %s", strings.Join(args, " "), err, complaint.String())
	}
	return string(out)
}

// program is a command line of a program; this test binary acts as the present one.
func program(path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.Env = environFor(path)
	return cmd
}

// runProgram runs a command of a program to its end, and returns what it printed.
func (s *stack) runProgram(t testing.TB, path string, args ...string) string {
	t.Helper()
	cmd := program(path, args...)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", path, strings.Join(args, " "), err, complaint.String())
	}
	return string(out)
}

// registerWith is register by the commands of another program.
func (s *stack) registerWith(path string) {
	s.t.Helper()
	config, bundle := s.write("setup", s.token.Module), func(name string) string {
		return filepath.Join(s.dir, "ceremony", name)
	}
	s.runProgram(s.t, path, "authority", "add", "--config", config, bundle(devRoot+".authority.json"), bundle(devIssuer+".authority.json"))
	s.runProgram(s.t, path, "crl", "import", "--config", config, "--authority", devRoot, bundle(devRoot+".crl"))
	for role, namespace := range map[access.Role]string{access.Requester: "dev", access.Revoker: "dev"} {
		s.tokens[role] = strings.TrimSpace(s.runProgram(s.t, path, "token", "create", "--config", config, "--name", string(role),
			"--role", string(role), "--namespace", namespace))
	}
}

func (s *stack) schema(t testing.TB) string {
	return s.database.Column(t, `SELECT max(version_id)::text FROM goose_db_version WHERE is_applied`)[0]
}

// upgradeLoad issues through replicas until it is stopped, and keeps what it received.
type upgradeLoad struct {
	ctx     context.Context
	end     context.CancelFunc
	clients sync.WaitGroup

	mu   sync.Mutex
	held map[string][]string // by replica
	all  int
	odd  []string
}

func startUpgradeLoad(t *testing.T) *upgradeLoad {
	ctx, end := context.WithCancel(t.Context())
	l := &upgradeLoad{ctx: ctx, end: end, held: map[string][]string{}}
	t.Cleanup(l.stop)
	return l
}

func (l *upgradeLoad) stop() { l.end(); l.clients.Wait() }

// on has two clients issue through a replica.
func (l *upgradeLoad) on(r *replica) {
	for n := range 2 {
		l.clients.Go(func() {
			for i := 0; l.ctx.Err() == nil; i++ {
				// Not the load's own context: an answer that nobody waits for would be a certificate that nobody counts.
				issued, got, err := r.issue(context.WithoutCancel(l.ctx), fmt.Sprintf("load-%d-%d.dev.example", n, i), nil)
				l.mu.Lock()
				if err == nil && got.status == http.StatusCreated {
					l.held[r.name] = append(l.held[r.name], issued.Serial)
					l.all++
				} else {
					l.odd = append(l.odd, fmt.Sprintf("%s: %d %s %v", r.name, got.status, got.body, err))
				}
				stop := len(l.odd) > 5
				l.mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
}

// reaches waits for so many further certificates.
func (l *upgradeLoad) reaches(t *testing.T, more int) {
	t.Helper()
	count := func() (int, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.odd) > 0 {
			return 0, errors.New(strings.Join(l.odd, "\n"))
		}
		return l.all, nil
	}
	from, _ := count()
	eventually(t, 60*time.Second, fmt.Sprintf("%d more certificates", more), func() bool {
		n, err := count()
		if err != nil {
			t.Fatal(err)
		}
		return n >= from+more
	})
}

// one is a certificate that came through a replica; empty while none has.
func (l *upgradeLoad) one(r *replica) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.held[r.name]) == 0 {
		return ""
	}
	return l.held[r.name][0]
}

// check holds what the clients hold against the database.
func (l *upgradeLoad) check(t *testing.T, s *stack) {
	t.Helper()
	if len(l.odd) > 0 {
		t.Errorf("during the upgrade: %s", strings.Join(l.odd, "\n"))
	}
	stored := map[string]int{}
	for _, serial := range s.database.Column(t, `SELECT encode(serial, 'hex') FROM certificates`) {
		stored[serial]++
	}
	for name, serials := range l.held {
		t.Logf("%d certificates came through the %s replica", len(serials), name)
		for _, serial := range serials {
			if stored[serial] != 1 {
				t.Errorf("a client holds %s, and the database has %d of it", serial, stored[serial])
			}
		}
	}
	for what, query := range map[string]string{
		"intents are open":                                 `SELECT serial::text FROM intents`,
		"orphans were left":                                `SELECT serial::text FROM orphans`,
		"certificates have no entry in the audit log":      `SELECT serial::text FROM certificates WHERE NOT EXISTS (SELECT FROM audit_leaves WHERE id = event_id)`,
		"certificates have no request that they came from": `SELECT serial::text FROM certificates WHERE request_id IS NOT NULL AND NOT EXISTS (SELECT FROM requests WHERE id = request_id)`,
	} {
		if found := s.database.Column(t, query); len(found) > 0 {
			t.Errorf("%d %s: %v", len(found), what, found)
		}
	}
}
