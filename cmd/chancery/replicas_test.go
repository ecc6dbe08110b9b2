package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// leader is who leads upkeep, as `chancery replicas` tells it; empty while nobody does.
func (s *stack) leader(t testing.TB) (name string, fence int64) {
	t.Helper()
	for _, r := range s.replicas(t) {
		for _, l := range r.Leads {
			if l.Duty == "upkeep" {
				return r.Name, l.Fence
			}
		}
	}
	return "", 0
}

// replicas is what `chancery replicas` says.
func (s *stack) replicas(t testing.TB) []shownReplica {
	t.Helper()
	var result struct {
		Replicas []shownReplica `json:"replicas"`
	}
	said := s.runProgram(t, os.Args[0], "replicas", "--config", s.write("tool", s.token.Module), "-o", "json")
	if err := json.Unmarshal([]byte(said), &result); err != nil {
		t.Fatal(err)
	}
	return result.Replicas
}

// metric reads one number from a replica's metrics: the sum of all lines that begin so.
func (r *replica) metric(t testing.TB, begin string) (sum float64) {
	t.Helper()
	response, err := r.s.client.Get(r.operations + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(response.Body); err != nil {
		t.Fatal(err)
	}
	for _, line := range regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(begin)+`.* (\S+)$`).FindAllStringSubmatch(text.String(), -1) {
		n, err := strconv.ParseFloat(line[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

func (r *replica) leadsSince(t testing.TB) float64 {
	return r.metric(t, fmt.Sprintf(`chancery_leader_since_timestamp_seconds{duty="upkeep",replica=%q}`, r.name))
}

func (r *replica) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := r.process.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// TestLeaderIsReplaced has three replicas whose clocks are almost as far apart as they may be, and takes the leader away in every manner:
// stopped and resumed late, killed, and ended in good order.
func TestLeaderIsReplaced(t *testing.T) {
	s := newStack(t, storagetest.New(t), false)
	all := map[string]*replica{}
	for name, skew := range map[string]string{"right": "0s", "early": "12s", "earlier": "25s"} {
		clock := filepath.Join(t.TempDir(), "clock")
		if err := os.WriteFile(clock, []byte(skew), 0o600); err != nil {
			t.Fatal(err)
		}
		all[name] = s.start(name, s.token.Module, clockIn+"="+clock)
	}
	name, fence := "", int64(0)
	next := func(within time.Duration, why string) *replica {
		t.Helper()
		began, before, old := time.Now(), fence, name
		eventually(t, within, "another replica leads: "+why, func() bool {
			name, fence = s.leader(t)
			return name != "" && fence > before
		})
		t.Logf("%s: after %s, %q leads with fence %d; before it was %q", why, time.Since(began).Round(10*time.Millisecond), name, fence, old)
		if fence != before+1 {
			t.Errorf("%s: fence %d follows %d: somebody led in between", why, fence, before)
		}
		return all[name]
	}
	first := next(20*time.Second, "the first")
	if since := first.leadsSince(t); since < float64(time.Now().Add(-time.Minute).Unix()) || since > float64(time.Now().Add(time.Minute).Unix()) {
		t.Errorf("the leader's metric says that it leads since %f", since)
	}

	first.signal(t, syscall.SIGSTOP)
	second := next(20*time.Second, "stopped")
	first.signal(t, syscall.SIGCONT)
	eventually(t, 10*time.Second, "the one that was resumed late knows that it leads no more", func() bool { return first.leadsSince(t) == 0 })
	if again, f := s.leader(t); again != second.name || f != fence {
		t.Errorf("after the old leader was resumed %q leads with fence %d", again, f)
	}

	second.kill()
	delete(all, second.name)
	third := next(20*time.Second, "killed")
	third.stop()
	delete(all, third.name)
	passed, end := hsmtest.Passing()
	defer end()
	last := next(20*time.Second, "stopped in good order")
	if took := passed(); took > 4*time.Second { // a lease that nobody gave back would last for longer
		t.Errorf("a leader that stops hands over at once, and it took %s", took)
	}
	if last.leadsSince(t) == 0 {
		t.Error("the metric of the last leader says that it does not lead")
	}
	states := map[string]string{}
	for _, r := range s.replicas(t) {
		states[r.Name] = r.State
	}
	want := map[string]string{second.name: "silent", third.name: "stopped", last.name: "alive"}
	for name, state := range want {
		if states[name] != state {
			t.Errorf("%s is %s, want %s", name, states[name], state)
		}
	}
}

// TestOneNameForTwo: a second replica of one name is refused while the first lives; when the first was silent, it is replaced and ends by itself.
func TestOneNameForTwo(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	first := s.start("same", s.token.Module)
	second := exec.Command(os.Args[0], "serve", "--config", filepath.Join(s.dir, "same.yaml"))
	second.Env = append(os.Environ(), actAsChancery+"=1")
	said, err := second.CombinedOutput()
	if second.ProcessState.ExitCode() != 1 || !strings.Contains(string(said), `a replica named \"same\" is running already`) &&
		!strings.Contains(string(said), `a replica named "same" is running already`) {
		t.Fatalf("a second replica of the name: %v\n%s", err, said)
	}
	if _, got, err := first.issue(t.Context(), "one.dev.example", nil); err != nil || got.status != http.StatusCreated {
		t.Errorf("the first replica no longer issues: %d %s, %v", got.status, got.body, err)
	}

	first.signal(t, syscall.SIGSTOP)
	heir := s.start("same", s.token.Module)
	first.signal(t, syscall.SIGCONT)
	select {
	case <-first.ended:
	case <-time.After(30 * time.Second):
		t.Fatalf("the replica whose name was taken lives on:\n%s", first.log)
	}
	if code := first.process.ProcessState.ExitCode(); code != 1 || !strings.Contains(first.log.String(), "has taken this replica's name") {
		t.Errorf("it ended with exit code %d:\n%s", code, first.log)
	}
	if _, got, err := heir.issue(t.Context(), "two.dev.example", nil); err != nil || got.status != http.StatusCreated {
		t.Errorf("its heir does not issue: %d %s, %v", got.status, got.body, err)
	}
	heir.stop()
}

// TestPeersSettleOnce kills a replica between a signature and its record. Of two peers one settles what it left open, once.
func TestPeersSettleOnce(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	armed := filepath.Join(s.dir, "armed")
	peers := []*replica{s.start("alpha", s.token.Module), s.start("beta", s.token.Module)}
	mortal := s.start("mortal", s.token.Module, dieAt+"=after certificate signature", dieWhen+"="+armed)
	if err := os.WriteFile(armed, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, got, err := mortal.issue(t.Context(), "lost.dev.example", nil); err == nil {
		t.Fatalf("the replica that should have died answered %d", got.status)
	}
	<-mortal.ended
	var intents struct {
		Open, Settled []shownIntent
	}
	look := func() {
		t.Helper()
		said := s.runProgram(t, os.Args[0], "issuance", "intents", "--settled", "1h", "--config", s.write("tool", s.token.Module), "-o", "json")
		if err := json.Unmarshal([]byte(said), &intents); err != nil {
			t.Fatal(err)
		}
	}
	look()
	if len(intents.Open) != 1 || intents.Open[0].Replica != "mortal" || len(intents.Settled) != 0 {
		t.Fatalf("after the death: %+v", intents)
	}
	serial := intents.Open[0].Serial
	s.database.Column(t, `UPDATE intents SET lease_until = now() RETURNING issuer`) // the minute passes
	eventually(t, 20*time.Second, "a peer settles the intent", func() bool { look(); return len(intents.Open) == 0 })
	if len(intents.Settled) != 1 || intents.Settled[0].Serial != serial || intents.Settled[0].AuditEvent == "" {
		t.Fatalf("settled: %+v", intents)
	}
	eventually(t, 10*time.Second, "both peers have looked again", func() bool {
		return len(s.database.Column(t, `SELECT id::text FROM audit_leaves WHERE kind = $1`, string(audit.CertificateOrphaned))) == 1
	})
	if n := peers[0].metric(t, "chancery_intents_settled_total") + peers[1].metric(t, "chancery_intents_settled_total"); n != 1 {
		t.Errorf("the peers' metrics count %f settled intents", n)
	}
	if n := s.database.Column(t, `SELECT reason::text FROM revocations WHERE encode(serial, 'hex') = $1`, serial); len(n) != 1 {
		t.Errorf("%d revocations of %s", len(n), serial)
	}
	eventually(t, 10*time.Second, "the serial is on the CRL that both serve", func() bool {
		for _, p := range peers {
			list, err := p.crl(t.Context())
			if err != nil || !strings.Contains(fmt.Sprint(revokedSerials(list)), serial) {
				return false
			}
		}
		return true
	})
}
