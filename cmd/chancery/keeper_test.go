package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
	"github.com/chancery-ca/chancery/keeper"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// keeperProcess is a `chancery keeper` in a process of its own.
type keeperProcess struct {
	s       *stack
	dir     string
	module  string
	process *exec.Cmd
	ended   chan struct{}
	log     *logBuffer
}

// startKeeper starts a keeper that holds the stack's token by way of a module, and has the stack's replicas use it.
func (s *stack) startKeeper(module string) *keeperProcess {
	s.t.Helper()
	k := &keeperProcess{s: s, dir: s.t.TempDir(), module: module}
	for path, text := range map[string]string{
		k.path("keeper.yaml"): fmt.Sprintf(`socket: keeper.sock
journal: journal
keys: keys.yaml
tokens: [{name: main, module: %q, token: {label: %q}, pin: {file: %q}, call_timeout: 1s}]
`, module, s.token.Label, s.token.PINFile),
		k.path("keys.yaml"): fmt.Sprintf(`keys:
  - name: %[1]s
    label: %[1]s
    tokens: [main]
    certificate: %[2]q
    certificates: {max_validity: 400d}
    crls: {max_validity: 10d}
`, devIssuer, filepath.Join(s.dir, "ceremony", devIssuer+".pem")),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
	s.hsm = fmt.Sprintf("{isolation: keeper, socket: %q}", k.path("keeper.sock"))
	k.start()
	s.t.Cleanup(k.kill)
	return k
}

func (k *keeperProcess) path(name string) string { return filepath.Join(k.dir, name) }

func (k *keeperProcess) start() {
	k.s.t.Helper()
	k.log = newLog("keeping")
	k.process = exec.Command(os.Args[0], "keeper", "--config", k.path("keeper.yaml"))
	k.process.Env = append(os.Environ(), actAsChancery+"=1")
	k.process.Stderr = k.log
	k.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := k.process.Start(); err != nil {
		k.s.t.Fatal(err)
	}
	ended := make(chan struct{})
	k.ended = ended
	go func(process *exec.Cmd) { _ = process.Wait(); close(ended) }(k.process)
	select {
	case <-k.log.serving:
	case <-ended:
		k.s.t.Fatalf("the keeper does not serve\n%s", k.log)
	case <-time.After(30 * time.Second):
		k.s.t.Fatalf("the keeper does not serve yet\n%s", k.log)
	}
}

func (k *keeperProcess) kill() {
	_ = k.process.Process.Signal(syscall.SIGKILL)
	<-k.ended
}

// holder is the process that has the keeper's token open, as the log says it last.
func (k *keeperProcess) holder() (pid int, err error) {
	for line := range strings.SplitSeq(k.log.String(), "\n") {
		var entry struct {
			Msg     string
			Process int
		}
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "the token is open" {
			pid = entry.Process
		}
	}
	if pid == 0 {
		err = errors.New("the log names no process")
	}
	return pid, err
}

// TestIsolation plays the main job, and a fault of each part, in every kind of isolation.
func TestIsolation(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{isolationNone, isolationChild, isolationKeeper} {
		t.Run(kind, func(t *testing.T) {
			s := newStack(t, storagetest.New(t), false)
			faulty := hsmtest.NewFaulty(t)
			var journal string
			switch kind {
			case isolationChild:
				dir := t.TempDir()
				journal = filepath.Join(dir, "journal")
				s.hsm = fmt.Sprintf("{isolation: child, socket: %q, module: %q, token: {label: %q}, pin: {file: %q}}",
					filepath.Join(dir, "keeper.sock"), faulty.Module, s.token.Label, s.token.PINFile)
			case isolationKeeper:
				journal = s.startKeeper(faulty.Module).path("journal")
			}
			r := s.start("isolated", faulty.Module)
			revokeOne(t, r)
			for _, fault := range []string{"0x30", hsmtest.CloseAll, hsmtest.Wrong, hsmtest.Crash} {
				if fault == hsmtest.Crash && kind == isolationNone {
					continue // would take the service with it: that is what isolation is for
				}
				faulty.Begin(t, fault)
				outage(t, r, fault)
				faulty.Begin(t, "")
				resumed(t, r, fault)
			}
			revokeOne(t, r)
			r.stop()
			if failed := faulty.FailedLogins(t); failed != 0 {
				t.Errorf("%d log-ins failed", failed)
			}
			if journal != "" {
				checkJournal(t, s, journal)
			} else if !slices.ContainsFunc(s.events(t, audit.HSMOperation), func(e audit.Event) bool {
				return e.Data["op"] == "sign" && e.Data["result"] == "CKR_DEVICE_ERROR"
			}) {
				t.Error("the audit log does not tell of a signature that the token did not make")
			}
		})
	}
}

// TestKeeperKilled kills the process that holds a keeper's token, and the keeper itself, under a service that goes on.
func TestKeeperKilled(t *testing.T) {
	s := newStack(t, storagetest.New(t), false)
	k := s.startKeeper(s.token.Module)
	r := s.start("client", "")
	revokeOne(t, r)
	pid, err := k.holder()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	resumed(t, r, "the holder was killed")
	k.kill()
	outage(t, r, "the keeper is gone")
	k.start()
	resumed(t, r, "the keeper is back")
	r.stop()
	checkJournal(t, s, k.path("journal"))
}

// TestServiceLoadsNoLibrary: with a keeper, the service has the library neither in its memory nor in its configuration.
func TestServiceLoadsNoLibrary(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	s.startKeeper(s.token.Module)
	r := s.start("client", "")
	maps, err := os.ReadFile("/proc/" + strconv.Itoa(r.process.Process.Pid) + "/maps")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(maps), filepath.Base(s.token.Module)) {
		t.Error("the service has loaded the PKCS#11 library")
	}
	r.stop()
}

func revokeOne(t *testing.T, r *replica) {
	t.Helper()
	issued, got, err := r.issue(t.Context(), "isolated.dev.example", nil)
	if err != nil || got.status != http.StatusCreated {
		t.Fatalf("issuing: %d %s, %v\n%s", got.status, got.body, err, r.log)
	}
	answer, err := r.call(t.Context(), http.MethodPost, "/api/v1/certificates/"+issued.Serial+"/revoke", access.Revoker,
		http.Header{"Content-Type": {"application/json"}}, []byte(`{"reason":"superseded"}`))
	if err != nil || answer.status != http.StatusOK {
		t.Fatalf("revoking: %d %s, %v", answer.status, answer.body, err)
	}
	eventually(t, 20*time.Second, "the revocation is on the CRL", func() bool {
		list, err := r.crl(t.Context())
		if err != nil {
			return false
		}
		for _, e := range list.RevokedCertificateEntries {
			if fmt.Sprintf("%040x", e.SerialNumber) == issued.Serial {
				return true
			}
		}
		return false
	})
}

// TestCRLsGoOnAboveWhatWasSignedUnseen: whoever took the service's place for a while had a CRL signed whose number is as far ahead as there
// can be one. The service, which has it not on record, revokes as ever, and its CRLs rise above that one.
func TestCRLsGoOnAboveWhatWasSignedUnseen(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	k := s.startKeeper(s.token.Module)
	r := s.start("surpassed", "")
	revokeOne(t, r)
	known, err := r.crl(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	authority, err := certificateFile(filepath.Join(s.dir, "ceremony", devIssuer+".pem"))
	if err != nil {
		t.Fatal(err)
	}
	client := keeper.NewClient(k.path("keeper.sock"), 0)
	t.Cleanup(func() { _ = client.Close() })
	key, _, err := client.Signer(t.Context(), authority.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	ahead := big.NewInt(time.Now().Add(47 * time.Hour).UnixMilli())
	if _, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: ahead, ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
	}, authority, key); err != nil {
		t.Fatal(err)
	}
	revokeOne(t, r)
	switch list, err := r.crl(t.Context()); {
	case err != nil:
		t.Fatal(err)
	case list.Number.Cmp(ahead) <= 0 || list.Number.Cmp(known.Number) <= 0:
		t.Errorf("after %s, and %s on record, the CRL has the number %s", ahead, known.Number, list.Number)
	}
	if !strings.Contains(r.log.String(), "higher number than any on record") {
		t.Errorf("the log does not tell of it:\n%s", r.log)
	}
	revokeOne(t, r)
	r.stop()
}

// outage asks until an answer is that the service is not available, with a time to come again; no other failure may be told.
func outage(t *testing.T, r *replica, what string) {
	t.Helper()
	eventually(t, 10*time.Second, what+" is felt", func() bool {
		_, got, err := r.issue(t.Context(), "outage.dev.example", nil)
		if err != nil || got.status != http.StatusCreated && got.status != http.StatusServiceUnavailable {
			t.Fatalf("%s: answered %d %s, %v", what, got.status, got.body, err)
		}
		if got.status == http.StatusServiceUnavailable && got.header.Get("Retry-After") == "" {
			t.Errorf("%s: 503 without Retry-After", what)
		}
		return what == hsmtest.CloseAll || got.status == http.StatusServiceUnavailable
	})
}

func resumed(t *testing.T, r *replica, what string) {
	t.Helper()
	began := time.Now()
	eventually(t, 5*time.Second, "issuance has resumed after "+what, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, got, err := r.issue(ctx, "resumed.dev.example", nil)
		return err == nil && got.status == http.StatusCreated
	})
	t.Logf("issuance resumed %s after %s", time.Since(began).Round(time.Millisecond), what)
}

// checkJournal holds a keeper's journal against the service's audit log: the chain is whole, and all that was signed was intended.
func checkJournal(t *testing.T, s *stack, path string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "keeper", "verify-journal", "-o", "json", path)
	cmd.Env = append(os.Environ(), actAsChancery+"=1")
	out, err := cmd.CombinedOutput()
	var report struct{ Results map[string]int }
	if err != nil || json.Unmarshal(out, &report) != nil || report.Results["signed"] == 0 {
		t.Fatalf("verifying the journal: %v\n%s", err, out)
	}
	intended := map[string]bool{}
	for _, text := range s.database.Column(t, `SELECT convert_from(leaf, 'UTF8') FROM audit_leaves WHERE kind IN ('certificate.intended', 'crl.intended')`) {
		e, err := audit.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		intended[e.Data["tbs_sha256"]] = true
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	signed := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		var e struct{ SHA256, Result, Why string }
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if e.Result == "refused" {
			t.Errorf("the guard refused what the service asked for in good faith: %s", line)
		}
		if e.Result == "signed" {
			signed[e.SHA256] = true
			if !intended[e.SHA256] {
				t.Errorf("signed without an intent on record: %s", line)
			}
		}
	}
	used := s.database.Column(t, `SELECT convert_from(leaf, 'UTF8') FROM audit_leaves WHERE kind = '`+string(audit.KeySigned)+`'`)
	if len(used) == 0 {
		t.Error("the service says of no signature")
	}
	for _, text := range used {
		e, err := audit.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if digest := e.Data["tbs_sha256"]; !signed[digest] {
			t.Errorf("the service says that %s was signed, and the journal does not", digest)
		}
	}
}
