package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParseVersion(t *testing.T) {
	for s, want := range map[string]int{
		"postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)": 15,
		"postgres (PostgreSQL) 18beta1":                        18,
		"postgres (PostgreSQL) 9.6.24":                         9,
		"postgres (Another) 15":                                0,
		"":                                                     0,
	} {
		if got, err := parseVersion(s); got != want || (err == nil) != (want != 0) {
			t.Errorf("parseVersion(%q) = %d, %v", s, got, err)
		}
	}
}

func TestTheSocketsPathIsShort(t *testing.T) {
	for _, dir := range []string{"/srv/ca", "/srv/" + strings.Repeat("long/", 40)} {
		socket := socketFor(dir)
		if len(socket) > maxSocket {
			t.Errorf("%s is too long", socket)
		}
		if inside := strings.HasPrefix(socket, dir); inside != (len(dir) < 80) {
			t.Errorf("the socket of %s is in %s", dir, socket)
		}
	}
	if socketFor("/srv/"+strings.Repeat("a/", 99)) == socketFor("/srv/"+strings.Repeat("b/", 99)) {
		t.Error("two clusters share a socket directory")
	}
}

func TestReachable(t *testing.T) {
	account, err := Account()
	if err != nil {
		t.Fatal(err)
	}
	open, err := os.MkdirTemp("/tmp", "reach-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(open) })
	for mode, want := range map[os.FileMode]bool{0o711: true, 0o755: true, 0o700: account == ""} {
		if err := os.Chmod(open, mode); err != nil {
			t.Fatal(err)
		}
		if err := Reachable(filepath.Join(open, "not", "there", "yet"), account); (err == nil) != want {
			t.Errorf("through a directory of mode %o: %v", mode, err)
		}
	}
}

// newCluster describes a cluster in a directory whose name needs quoting; it is gone when the test ends.
func newCluster(t *testing.T) Cluster {
	t.Helper()
	parent, err := os.MkdirTemp("/tmp", "pg 'test ")
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(filepath.Join(parent, "a home", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	c.Volatile = true
	t.Cleanup(func() {
		if err := errors.Join(c.Stop(context.Background(), Immediate), os.RemoveAll(parent)); err != nil {
			t.Error(err)
		}
	})
	return c
}

func query(t *testing.T, url, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	rows, err := conn.Query(context.Background(), sql)
	if err != nil {
		t.Fatal(err)
	}
	values, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return strings.Join(values, " ")
}

// One life of a cluster: made, started, taken over, killed, found beside a stale record, stopped. Data stays through all of it.
func TestTheLifeOfACluster(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	c := newCluster(t)
	c.Volatile = false // it is killed, and what it has acknowledged must outlive that
	if _, running := c.PID(); running {
		t.Fatal("a cluster that was never made runs")
	}
	if err := c.Stop(ctx, Fast); err != nil {
		t.Errorf("stopping what does not run: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(c.data()+".new", "base"), 0o700); err != nil { // a crash in the middle of Init
		t.Fatal(err)
	}
	start := func() int {
		t.Helper()
		if err := c.Init(ctx); err != nil {
			t.Fatal(err)
		}
		if err := c.Start(ctx); err != nil {
			t.Fatal(err)
		}
		pid, running := c.PID()
		if !running {
			t.Fatal("the started cluster does not run")
		}
		return pid
	}
	first := start()
	owner := c.URL(Owner, Database)
	query(t, owner, "CREATE TABLE kept AS SELECT 'kept' AS x")
	if tcp := query(t, owner, "SELECT current_setting('listen_addresses') || '.'"); tcp != "." {
		t.Errorf("it listens on %s", tcp)
	}
	if user := query(t, c.URL(Service, Database), "SELECT current_user::text"); user != Service {
		t.Errorf("the service is %s", user)
	}
	for _, dir := range []string{c.Dir, c.Socket} {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, info.Mode(), err)
		}
	}

	if again := start(); again != first {
		t.Errorf("a running server was not taken over: %d became %d", first, again)
	}
	if err := c.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	if _, running := c.PID(); running {
		t.Fatal("the killed server runs")
	}
	if second := start(); second == first {
		t.Error("the killed server was taken over")
	}
	if err := c.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	// After a reboot the recorded number may be another program's: this one's.
	record, err := os.ReadFile(c.pidFile())
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(record), "\n")
	if err := c.write(c.pidFile(), fmt.Sprintf("%d\n%s", os.Getpid(), rest)); err != nil {
		t.Fatal(err)
	}
	if _, running := c.PID(); running {
		t.Fatal("another program was taken for the server")
	}
	start()
	if x := query(t, c.URL(Owner, Database), "SELECT x FROM kept"); x != "kept" {
		t.Errorf("the table holds %q", x)
	}
	if err := c.Stop(ctx, Fast); err != nil {
		t.Fatal(err)
	}
	if _, running := c.PID(); running {
		t.Error("the stopped server runs")
	}
}

func TestAPathThatPgCtlCannotPassOnIsRefused(t *testing.T) {
	for _, name := range []string{`a"b`, "a$b", "a`b", `a\b`, "a\nb"} {
		c := newCluster(t)
		c.Dir = filepath.Join(filepath.Dir(c.Dir), name)
		if err := c.Init(t.Context()); err == nil || !strings.Contains(err.Error(), "choose another directory") {
			t.Errorf("%q: %v", name, err)
		}
	}
}
