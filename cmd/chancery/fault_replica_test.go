package main

import (
	"bytes"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// replicaFaults are those of the machines that replicas run on, of their clocks, and of several at once.
func replicaFaults() []fault {
	return []fault{
		clockJumps("clock jumps forward", "2h"),
		clockJumps("clock jumps back", "-2h"),
		{
			name:   "clock steps back a little",
			inject: func(t *testing.T, h *harness) { h.tell(t, h.clock(two), "-10s") },
			felt:   more(20),
			heal:   func(t *testing.T, h *harness) { h.tell(t, h.clock(two), "0s") },
		},
		replicasRace(),
		publisherFrozen(),
		issuerFrozen(),
		sequencerFrozen("sequencing"),
		sequencerFrozen("checkpoint"),
		terminated(),
	}
}

// clockJumps moves one replica's clock. It stops issuing and says so; the other goes on.
func clockJumps(name, by string) fault {
	return fault{
		name: name, sees: unavailable,
		inject: func(t *testing.T, h *harness) { h.tell(t, h.clock(two), by) },
		felt: func(h *harness, l *load) bool {
			return l.unavailable.Load() > 2 && h.unready(two) && h.ready(h.replica(one))
		},
		heal: func(t *testing.T, h *harness) { h.tell(t, h.clock(two), "0s") },
		after: func(t *testing.T, h *harness) {
			h.judgeTimes(t)
			h.wontStart(t, by)
		},
	}
}

// wontStart holds that a replica does not even start with a clock that is off, and says why.
func (h *harness) wontStart(t *testing.T, off string) {
	t.Helper()
	path := filepath.Join(h.dir, "wrong.yaml")
	try(t, func() error { return os.WriteFile(path, []byte(h.config("wrong", h.token.Module)), 0o600) })
	h.tell(t, h.clock("wrong"), off)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "serve", "--config", path)
	cmd.Env = append(os.Environ(), actAsChancery+"=1", clockIn+"="+h.clock("wrong"))
	said, err := cmd.CombinedOutput()
	if err == nil || !bytes.Contains(said, []byte("see to its time synchronisation")) {
		t.Errorf("a replica whose clock is %s off started: %v\n%s", off, err, said)
	}
}

// replicasRace has three replicas asked at once for one thing, again and again: one certificate for one idempotency key, one revocation of
// one serial, one CRL for each number.
func replicasRace() fault {
	return fault{
		name: "three replicas race", sees: unavailable,
		inject: func(t *testing.T, h *harness) {
			h.launch(t, three)
			for range 5 {
				csr, key := newRequest(t, "raced.dev.example"), newID()
				answers := make(chan asked, 12)
				h.together(4, func(r *replica) { answers <- h.ask(t.Context(), r, csr, key) })
				close(answers)
				serial := ""
				for a := range answers {
					if a.err == nil {
						serial = a.serial
					} else if a.got.status != http.StatusConflict {
						t.Errorf("racing for one key: %v", a.err)
					}
				}
				if serial == "" {
					t.Fatal("nobody got a certificate")
				}
				h.together(4, func(r *replica) {
					if got, err := r.revoke(t.Context(), serial, "superseded"); err != nil || got.status != http.StatusOK {
						t.Errorf("racing to revoke: %d %s, %v", got.status, got.body, err)
					}
				})
				h.none(t, "revoked more than once", `SELECT sequence::text FROM revocations WHERE encode(serial, 'hex') = $1 AND sequence > 1`, serial)
			}
		},
		heal: func(t *testing.T, h *harness) {
			h.leave(three)
			h.replica(three).stop()
			h.drop(three)
		},
	}
}

// together calls n times for each replica that serves, all at once.
func (h *harness) together(n int, do func(r *replica)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for _, r := range h.serving() {
		for range n {
			wg.Go(func() { <-start; do(r) })
		}
	}
	close(start)
	wg.Wait()
}

// publisherFrozen stops the holder of a CRL scope between its intent and its signature, until another has taken over. Going on, it finds
// itself fenced off, and what it signs is never served.
func publisherFrozen() fault {
	var number string
	newest := func(h *harness, table string) string {
		return h.column(`SELECT max(number)::text FROM `+table+` WHERE issuer = $1`, devIssuer)[0]
	}
	return fault{
		name: "publisher frozen and resumed late", sees: unavailable | cut,
		inject: func(t *testing.T, h *harness) {
			h.leave(one)
			h.signal(t, one, syscall.SIGSTOP) // or it might publish first, each time
			h.freeze(t, "after crl intent")
			h.signal(t, one, syscall.SIGCONT)
			h.rejoin(one)
			number = h.column(`SELECT number::text FROM crl_intents WHERE owner_name = $1 ORDER BY fence DESC LIMIT 1`, two)[0]
		},
		felt: func(h *harness, _ *load) bool { return len(newest(h, "crls")) > 0 && newest(h, "crls") > number },
		heal: thaw,
		after: func(t *testing.T, h *harness) {
			h.none(t, "I4: the fenced publisher's CRL was published", `SELECT number::text FROM crls WHERE number = $1::text::numeric`, number)
		},
	}
}

// issuerFrozen stops a replica between a signature and its certificate until the lease of the intent has run out, which is brought forward,
// and another replica has settled it. Going on, it finds the intent lost, and releases nothing.
func issuerFrozen() fault {
	var serials []string
	return fault{
		name: "issuer frozen and resumed late", sees: unavailable | cut,
		inject: func(t *testing.T, h *harness) {
			h.freeze(t, "after certificate signature")
			serials = h.column(`UPDATE intents SET lease_until = now() WHERE owner_name = $1 RETURNING encode(serial, 'hex')`, two)
		},
		felt: func(h *harness, _ *load) bool { return len(h.column(openOf, two)) == 0 },
		heal: thaw,
		after: func(t *testing.T, h *harness) {
			if len(serials) == 0 {
				t.Error("nothing was open when the replica was frozen")
			}
			h.none(t, "I3: a certificate of a settled intent",
				`SELECT encode(serial, 'hex') FROM certificates WHERE encode(serial, 'hex') = ANY ($1)`, serials)
		},
	}
}

// sequencerFrozen stops the leader of the audit log before it writes, until another leads and has written. Issuance goes on meanwhile.
// Going on, the one that was stopped finds its term over, and writes no second history.
func sequencerFrozen(before string) fault {
	leads := func(h *harness, name string) bool {
		return len(h.column(`SELECT duty FROM leases WHERE duty = 'sequencing' AND holder = $1 AND lease_until > clock_timestamp()`, name)) > 0
	}
	size := func(h *harness) string {
		return h.column(`SELECT coalesce(max(size), 0)::text FROM audit_checkpoints`)[0]
	}
	var then string
	var issued int64
	return fault{
		name: "sequencer stopped before " + before + " and resumed late", sees: unavailable | cut,
		inject: func(t *testing.T, h *harness) {
			h.leave(one)
			h.signal(t, one, syscall.SIGSTOP) // until the other leads
			eventually(t, feltWithin, "replica two leads", func() bool { return leads(h, two) })
			h.signal(t, one, syscall.SIGCONT)
			h.rejoin(one)
			h.freeze(t, "before "+before)
			then = size(h)
		},
		felt: func(h *harness, l *load) bool {
			if issued == 0 {
				issued = l.issued.Load()
			}
			return leads(h, one) && size(h) != then && l.issued.Load() > issued+20
		},
		heal: thaw,
		after: func(t *testing.T, h *harness) {
			if !leads(h, one) && !leads(h, two) {
				eventually(t, recoverWithin, "somebody leads", func() bool { return leads(h, one) || leads(h, two) })
			}
		},
	}
}

// freeze has replica two stop itself at a step.
func (h *harness) freeze(t *testing.T, step string) {
	t.Helper()
	h.leave(two)
	h.order(t, two, "stop "+step)
	eventually(t, feltWithin, "the replica is stopped "+step, func() bool {
		if !h.isStopped(two) {
			go h.askBriefly(two)
		}
		return h.isStopped(two)
	})
}

func thaw(t *testing.T, h *harness) {
	h.signal(t, two, syscall.SIGCONT)
	_ = os.Remove(h.orders(two))
	h.rejoin(two)
}

// terminated ends a replica with SIGTERM while it has requests in its hands, that wait for its token. They are answered with certificates;
// nobody new is let in; and then the process ends.
func terminated() fault {
	const inHand, name = 4, "inhand.dev.example"
	return fault{
		name: "terminated under load", sees: refused,
		inject: func(t *testing.T, h *harness) {
			r := h.replica(two)
			h.leave(two)
			h.faulty[two].Begin(t, "hang")
			answers := make(chan asked, inHand)
			for range inHand {
				csr := newRequest(t, name)
				go func() { answers <- h.ask(t.Context(), r, csr, "") }()
			}
			eventually(t, feltWithin, "the requests wait for the token", func() bool { return len(h.column(openFor, two, name)) >= inHand })
			h.signal(t, two, syscall.SIGTERM)
			eventually(t, feltWithin, "nobody new is let in", func() bool {
				conn, err := net.Dial("tcp", strings.TrimPrefix(r.api, "https://"))
				if err == nil {
					_ = conn.Close()
				}
				return err != nil
			})
			h.faulty[two].Begin(t, "")
			for range inHand {
				if a := <-answers; a.err != nil {
					t.Errorf("a request that had begun: %v", a.err)
				}
			}
		},
		felt: func(h *harness, _ *load) bool { return h.hasEnded(two) },
		heal: func(t *testing.T, h *harness) {
			if code := h.replica(two).process.ProcessState.ExitCode(); code != 0 {
				t.Errorf("the exit code is %d\n%s", code, h.replica(two).log)
			}
			h.launch(t, two)
		},
	}
}
