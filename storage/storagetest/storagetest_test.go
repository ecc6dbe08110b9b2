package storagetest

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func TestDatabasesAreSeparate(t *testing.T) {
	ctx := context.Background()
	one, two := New(t), New(t)
	if one.URL == two.URL {
		t.Fatal("two tests share a database")
	}
	conn, err := pgx.Connect(ctx, one.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "CREATE TABLE mine ()"); err != nil {
		t.Fatal(err)
	}
	other, err := pgx.Connect(ctx, two.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close(ctx)
	if _, err := other.Exec(ctx, "SELECT FROM mine"); err == nil {
		t.Error("a table made in one database is in the other")
	}
}

func TestServerComesBackAfterAKill(t *testing.T) {
	s := NewServer(t, Options{Durable: true})
	store := s.Store(t)
	before := s.PID()
	if before == 0 {
		t.Fatal("the server does not run")
	}
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := store.Ping(context.Background()); err == nil {
		t.Error("the killed server answers")
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	if err := store.Ping(context.Background()); err != nil {
		t.Errorf("after the restart: %v", err)
	}
	if after := s.PID(); after == 0 || after == before {
		t.Errorf("the server's process is %d, and was %d", after, before)
	}
}

const victim = "STORAGETEST_VICTIM"

// TestVictim is run by TestNothingIsLeftBehindByAKilledTest in a process of its own, and killed there.
func TestVictim(t *testing.T) {
	if os.Getenv(victim) == "" {
		return
	}
	New(t)
	pid, _ := shared.cluster.PID()
	fmt.Printf("victim %d %s\n", pid, shared.cluster.Dir)
	select {}
}

func TestNothingIsLeftBehindByAKilledTest(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run", "^TestVictim$", "-test.v")
	cmd.Env = append(os.Environ(), victim+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	var dir string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "victim "); ok {
			number, place, _ := strings.Cut(rest, " ")
			dir = place
			if pid, err = strconv.Atoi(number); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it says that the process was killed
	if pid == 0 || dir == "" {
		t.Fatal("the victim did not start its server")
	}

	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		_, statErr := os.Stat(dir)
		if os.IsNotExist(statErr) && !alive(pid) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the server %d or its directory %s is still there", pid, dir)
		}
	}
}

// alive counts a dead process that nobody has waited for as dead.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) == syscall.ESRCH {
		return false
	}
	command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err != nil || len(command) > 0
}
