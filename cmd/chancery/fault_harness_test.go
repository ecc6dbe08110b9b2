package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// harness is what faults happen to: a Postgres of its own, reached through a proxy, and replicas, each with a faulty PKCS#11 library before
// its token and pkcs11-spy before that.
type harness struct {
	*stack
	*ledger
	server *storagetest.Server
	proxy  *storagetest.Proxy
	disk   string          // where a file system of the server's own is mounted; empty: nowhere
	noDisk string          // why
	log    *audit.Verifier // the key of the audit log
	spy    string
	spied  []string // the spies' logs
	starts int
	checks map[string]audit.Checkpoint // those whose signature was verified, by their text
	faulty map[string]*hsmtest.Faulty
	names  []string // of the replicas that every fault finds running

	mu      sync.Mutex
	running map[string]*replica
	away    map[string]bool // replicas that nobody may count on now
	turn    int
}

const one, two, three = "one", "two", "three"

func newHarness(t *testing.T) *harness {
	h := &harness{
		ledger: newLedger(), spy: spyModule(t), faulty: map[string]*hsmtest.Faulty{}, names: []string{one, two},
		running: map[string]*replica{}, away: map[string]bool{}, checks: map[string]audit.Checkpoint{},
	}
	h.disk, h.noDisk = ownDisk(t)
	h.server = storagetest.NewServer(t, storagetest.Options{Durable: true, In: h.disk})
	proxy, through := storagetest.NewProxy(t, h.server.URL)
	h.proxy = proxy
	h.stack = newStack(t, &storagetest.Database{URL: through, OwnerURL: h.server.OwnerURL}, true)
	h.log = h.withLog(hsm.Ed25519)
	h.client.Timeout = time.Minute // longer than the service itself waits for what it needs
	for _, name := range h.names {
		h.launch(t, name)
	}
	return h
}

// ownDisk mounts a small file system in memory, where that is permitted: one that can be filled up. A shell that waits for the end of a
// pipe takes it away, however the test ends.
func ownDisk(t *testing.T) (dir, why string) {
	dir, err := os.MkdirTemp("/tmp", "chancery-disk-") // a short path, for the socket
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=320m,mode=0711"); err != nil {
		return "", fmt.Sprintf("a file system to fill up cannot be mounted here, which needs root: %v", errors.Join(err, os.Remove(dir)))
	}
	remover := exec.Command("/bin/sh", "-c", `read -r _; umount -l "$1" && rmdir "$1"`, "sh", dir)
	remover.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	leash, err := remover.StdinPipe()
	if err == nil {
		err = remover.Start()
	}
	if err != nil {
		t.Fatal(errors.Join(err, syscall.Unmount(dir, 0)))
	}
	t.Cleanup(func() {
		if err := errors.Join(leash.Close(), remover.Wait()); err != nil {
			t.Errorf("taking %s away: %v", dir, err)
		}
	})
	return dir, ""
}

// launch starts a replica and takes it into service.
func (h *harness) launch(t *testing.T, name string) *replica {
	t.Helper()
	if h.faulty[name] == nil {
		h.faulty[name] = hsmtest.NewFaulty(h.t)
	}
	return h.launchOn(t, name, h.faulty[name].Module)
}

func (h *harness) launchOn(t *testing.T, name, module string, environ ...string) *replica {
	t.Helper()
	h.starts++
	log := filepath.Join(h.dir, fmt.Sprintf("spy-%s-%d.log", name, h.starts))
	h.spied = append(h.spied, log)
	r := h.start(name, h.spy, append(environ, "PKCS11SPY="+module, "PKCS11SPY_OUTPUT="+log,
		dieAt+"=as ordered", dieWhen+"="+h.orders(name), clockIn+"="+h.clock(name))...)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.running[name] = r
	delete(h.away, name)
	return r
}

// leave has a replica stay out of service until it is launched or counted on again.
func (h *harness) leave(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.away[name] = true
}

// rejoin counts on a replica again that was away and not ended.
func (h *harness) rejoin(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.away, name)
}

// drop forgets a replica that has ended for good.
func (h *harness) drop(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.running, name)
}

func (h *harness) replica(name string) *replica {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.running[name]
}

// serving are the replicas that can be counted on now.
func (h *harness) serving() (all []*replica) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, r := range h.running {
		if !h.away[name] {
			all = append(all, r)
		}
	}
	return all
}

func (h *harness) isServing(r *replica) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.running[r.name] == r && !h.away[r.name]
}

// pick is the replica that a load balancer would choose.
func (h *harness) pick() *replica {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.turn++
	for i := range h.names {
		if name := h.names[(h.turn+i)%len(h.names)]; !h.away[name] {
			return h.running[name]
		}
	}
	return nil
}

func (h *harness) orders(name string) string { return filepath.Join(h.dir, name+".orders") }
func (h *harness) clock(name string) string  { return filepath.Join(h.dir, name+".clock") }

// order has a replica kill or stop itself at a step; see deadly.
func (h *harness) order(t *testing.T, name, what string) { h.tell(t, h.orders(name), what) }

// tell writes a file in one step.
func (h *harness) tell(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o600), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

// admin runs statements as the server's administrator.
func (h *harness) admin(t *testing.T, statements ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), feltWithin)
	defer cancel()
	conn, err := pgx.Connect(ctx, h.server.AdminURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

func (h *harness) column(query string, args ...any) []string {
	return h.database.Column(h.t, query, args...)
}

// The open intents of a replica: all; those for a name; those that are being waited for now, for longer than is usual.
const (
	openOf  = `SELECT encode(serial, 'hex') FROM intents WHERE owner_name = $1`
	openFor = openOf + ` AND position(convert_to($2, 'UTF8') IN tbs) > 0`
	stuckOf = openOf + ` AND created_at BETWEEN now() - interval '10 seconds' AND now() - interval '1 second'`
)

// askBriefly has a replica issue and revoke, and does not wait long for it.
func (h *harness) askBriefly(name string) {
	ctx, cancel := context.WithTimeout(h.t.Context(), 2*time.Second)
	defer cancel()
	r := h.replica(name)
	if a := h.ask(ctx, r, newRequest(h.t, "brief.dev.example"), ""); a.err == nil {
		_, _ = r.revoke(ctx, a.serial, "superseded") // what comes of it, the invariants tell
	}
}

// ready asks a replica whether it says that it can serve.
func (h *harness) ready(r *replica) bool {
	status, _, err := h.get(r.operations + "/readyz")
	return err == nil && status == http.StatusOK
}

// unready tells whether all of some replicas say that they cannot serve.
func (h *harness) unready(names ...string) bool {
	for _, name := range names {
		if h.ready(h.replica(name)) {
			return false
		}
	}
	return true
}

// get fetches as those do who verify: without much patience.
func (h *harness) get(url string) (status int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(h.t.Context(), 4*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	response, err := h.client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(response.Body)
	return response.StatusCode, body, err
}

// recovered waits until every replica says that it is ready, and issues.
func (h *harness) recovered(t *testing.T) {
	t.Helper()
	passed, end := hsmtest.Passing()
	defer end()
	for _, r := range h.serving() {
		eventually(t, recoverWithin, "replica "+r.name+" issues again", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), feltWithin)
			defer cancel()
			return h.ask(ctx, r, newRequest(t, "recovered.dev.example"), "").err == nil && h.ready(r)
		})
	}
	if took := passed(); took > recoverWithin {
		t.Errorf("all replicas issue again after %s, not within %s", took, recoverWithin)
	}
}

// hasEnded tells whether a replica's process is gone.
func (h *harness) hasEnded(name string) bool {
	select {
	case <-h.replica(name).ended:
		return true
	default:
		return false
	}
}

// isStopped tells whether a replica's process is stopped by SIGSTOP.
func (h *harness) isStopped(name string) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", h.replica(name).process.Process.Pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(status), ") ")
	return strings.HasPrefix(rest, "T")
}

func (h *harness) signal(t *testing.T, name string, s syscall.Signal) {
	t.Helper()
	if err := h.replica(name).process.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// startAnew stops and starts every replica: then nothing is left open.
func (h *harness) startAnew(t *testing.T) {
	for _, name := range h.names {
		h.leave(name)
		h.replica(name).stop()
	}
	for _, name := range h.names {
		h.launch(t, name)
	}
	for _, serial := range h.column(`SELECT encode(serial, 'hex') FROM intents WHERE owner_name = ANY ($1)`, h.names) {
		t.Errorf("the intent of %s is open, and its replica has been started anew", serial)
	}
	h.recovered(t)
	h.invariants(t)
}
