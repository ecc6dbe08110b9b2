package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/storage/postgres"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// databaseFaults are those of Postgres and of the way to it.
func databaseFaults() []fault {
	// told says that clients were turned away, and that both replicas say that they cannot serve.
	told := func(h *harness, l *load) bool { return l.unavailable.Load() > 2 && h.unready(one, two) }
	start := func(t *testing.T, h *harness) { try(t, h.server.Start) }
	return []fault{
		{
			name: "Postgres killed", sees: unavailable, felt: told, heal: start,
			inject: func(t *testing.T, h *harness) { try(t, h.server.Kill) },
		},
		{
			name: "Postgres shut down immediately", sees: unavailable, felt: told, heal: start,
			inject: func(t *testing.T, h *harness) { try(t, func() error { return h.server.Stop(postgres.Immediate) }) },
		},
		diskFull(),
		{
			name: "Postgres read-only", sees: unavailable, felt: told,
			inject: func(t *testing.T, h *harness) {
				h.admin(t, `ALTER SYSTEM SET default_transaction_read_only = on`, `SELECT pg_reload_conf()`)
			},
			heal: func(t *testing.T, h *harness) {
				h.admin(t, `ALTER SYSTEM RESET default_transaction_read_only`, `SELECT pg_reload_conf()`)
			},
		},
		locksHeld(),
		statementsCancelled(),
		cutAt("acknowledgement of a commit lost", storagetest.LoseAck),
		cutAt("answer to a transaction lost", storagetest.LoseReply),
		cutAt("transaction lost on its way", storagetest.LoseRequest),
		{
			name: "network to Postgres silent", sees: unavailable,
			felt:   func(h *harness, _ *load) bool { return h.unready(one, two) },
			inject: func(_ *testing.T, h *harness) { h.proxy.Stall() },
			heal:   func(_ *testing.T, h *harness) { h.proxy.Flow() },
		},
		backupRestored(),
	}
}

// diskFull fills the file system that the server's data are on. Postgres may give up; then it is started again, as a supervisor would.
func diskFull() fault {
	filler := func(h *harness) string { return filepath.Join(h.disk, "filler") }
	return fault{
		name: "disk full", sees: unavailable,
		cannot: func(h *harness) string { return h.noDisk },
		felt:   standstill(time.Second),
		inject: func(t *testing.T, h *harness) {
			file, err := os.Create(filler(h))
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			zeros := make([]byte, 1<<20)
			for size := len(zeros); size > 512; {
				if _, err := file.Write(zeros[:size]); errors.Is(err, syscall.ENOSPC) {
					size /= 2
				} else if err != nil {
					t.Fatal(err)
				}
			}
		},
		heal: func(t *testing.T, h *harness) {
			try(t, func() error { return os.Remove(filler(h)) })
			if h.server.PID() == 0 {
				try(t, h.server.Start)
			}
		},
	}
}

// standstill waits until no certificate has been issued for some time. Who waits for a certificate that is signed and cannot be recorded is
// answered when it can, or after half a minute.
func standstill(long time.Duration) func(*harness, *load) bool {
	var from *load
	var issued int64
	var since time.Time
	return func(_ *harness, l *load) bool {
		if now := l.issued.Load(); from != l || now != issued {
			from, issued, since = l, now, time.Now()
		}
		return time.Since(since) > long
	}
}

// locksHeld has a session of somebody else hold what every issuance and every publication needs. That is waited for.
func locksHeld() fault {
	var conn *pgx.Conn
	var began time.Time
	return fault{
		name: "locks held",
		inject: func(t *testing.T, h *harness) {
			ctx := context.Background()
			try(t, func() (err error) { conn, err = pgx.Connect(ctx, h.database.OwnerURL); return err })
			for _, sql := range []string{`BEGIN`, `LOCK TABLE intents, crl_scopes IN ACCESS EXCLUSIVE MODE`} {
				try(t, func() error { _, err := conn.Exec(ctx, sql); return err })
			}
			began = time.Now()
		},
		felt: func(h *harness, _ *load) bool {
			return time.Since(began) > time.Second && len(h.column(`SELECT pid::text FROM pg_locks WHERE NOT granted`)) > 1
		},
		heal: func(t *testing.T, _ *harness) { try(t, func() error { return conn.Close(context.Background()) }) },
	}
}

// statementsCancelled ends what the service's sessions are at, as statement_timeout does, and with the same SQLSTATE.
func statementsCancelled() fault {
	const cancelAll = `SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'chancery' AND state = 'active'`
	return fault{
		name: "statements cancelled", sees: unavailable,
		inject: func(*testing.T, *harness) {},
		felt: func(h *harness, l *load) bool {
			for range 20 {
				h.admin(l.t, cancelAll)
			}
			return l.unavailable.Load() > 2
		},
		heal: func(*testing.T, *harness) {},
	}
}

// cutAt cuts connections in the middle of every fifth transaction that writes much, and of every fifth explicit commit.
func cutAt(name string, what storagetest.Fault) fault {
	return fault{
		name: name, sees: unavailable,
		inject: func(_ *testing.T, h *harness) {
			n := 0
			h.proxy.ArmAll(what, func(request []byte) bool {
				if len(request) < 1500 && !bytes.Contains(request, []byte("commit\x00")) {
					return false
				}
				n++
				return n%5 == 0
			})
		},
		felt: func(h *harness, l *load) bool { return h.proxy.Met() > 8 && l.issued.Load() > 20 },
		heal: func(_ *testing.T, h *harness) { h.proxy.Disarm() },
	}
}

// backupRestored brings back an older state of the database under replicas that go on. What came after the backup is lost, and only that;
// CRL numbers do not go back all the same.
func backupRestored() fault {
	var restore func(testing.TB) *storagetest.Database
	var lost *storagetest.Database
	issuedMore := more(20)
	return fault{
		name: "old backup restored", sees: unavailable | unknown,
		inject: func(t *testing.T, h *harness) { restore = h.server.Backup(t) },
		felt:   func(h *harness, l *load) bool { return issuedMore(h, l) && l.revoked.Load() > 2 },
		heal:   func(t *testing.T, h *harness) { lost = restore(t) },
		after:  func(t *testing.T, h *harness) { h.forget(t, lost) },
	}
}

// forget takes out of the ledger what a database had that is lost, and the present one has not.
func (h *harness) forget(t *testing.T, lost *storagetest.Database) {
	t.Helper()
	signed, _ := h.intended(t, lost.Column(t, leavesOfKind, []string{"certificate.intended", "crl.intended"}))
	kept := map[string]bool{}
	for _, table := range []string{"certificates", "revocations"} {
		for _, serial := range h.column(`SELECT '` + table + ` ' || encode(serial, 'hex') FROM ` + table) {
			kept[serial] = true
		}
	}
	h.ledger.mu.Lock()
	defer h.ledger.mu.Unlock()
	for digest := range signed {
		h.forgiven[digest] = true
	}
	for _, serial := range lost.Column(t, `SELECT encode(serial, 'hex') FROM certificates`) {
		if kept["certificates "+serial] {
			continue
		}
		delete(h.held, serial)
		for _, answers := range h.keys {
			delete(answers, serial)
		}
	}
	for _, serial := range lost.Column(t, `SELECT encode(serial, 'hex') FROM revocations`) {
		if !kept["revocations "+serial] {
			delete(h.revoked, serial)
		}
	}
}

func try(t *testing.T, do func() error) {
	t.Helper()
	if err := do(); err != nil {
		t.Fatal(err)
	}
}
