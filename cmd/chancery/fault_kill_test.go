package main

import (
	"path/filepath"
	"slices"
	"testing"
)

// spyModule is OpenSC's pkcs11-spy, which logs every call of the module behind it: an oracle for what was signed that is not our own rows.
func spyModule(t testing.TB) string {
	t.Helper()
	for _, pattern := range []string{"/usr/lib/*/pkcs11-spy.so", "/usr/lib/*/pkcs11/pkcs11-spy.so", "/usr/lib64/pkcs11/pkcs11-spy.so", "/usr/lib/pkcs11-spy.so"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0]
		}
	}
	t.Fatal("pkcs11-spy.so is missing; install opensc")
	return ""
}

// kills are SIGKILL at each step of an issuance and of a publication. The other replica goes on; started again, the dead one settles what it
// had open before it serves.
func kills() (all []fault) {
	for _, step := range slices.Concat(issueSteps, publishSteps) {
		all = append(all, killed(step))
	}
	return all
}

// leavesAlone holds that what a dead replica had open stays open while others issue, for its lease runs.
func (h *harness) leavesAlone(t *testing.T, dead string) {
	t.Helper()
	open := h.column(openOf+` AND lease_until > now() + interval '30 seconds'`, dead)
	if a := h.ask(t.Context(), h.replica(one), newRequest(t, "living.dev.example"), ""); a.err != nil {
		t.Errorf("the living replica: %v", a.err)
	}
	h.none(t, "an intent was settled by another while its dead owner's lease runs", `SELECT encode(serial, 'hex') FROM orphans
		WHERE encode(serial, 'hex') = ANY ($1)`, open) // but what was on its way to Postgres may have become a certificate
}

// killed is a kill of replica two at a step.
func killed(step string) fault {
	var csr, key string // of its last request
	return fault{
		name: "killed " + step,
		// Whoever repeats a request under its key, and waits when the dead replica's intent is settled, is told to come again.
		sees: cut | refused | unavailable,
		inject: func(t *testing.T, h *harness) {
			h.leave(two)
			h.order(t, two, "kill "+step)
		},
		felt: func(h *harness, _ *load) bool {
			if h.hasEnded(two) {
				return true
			}
			r := h.replica(two)
			csr, key = newRequest(h.t, "mortal.dev.example"), newID()
			if a := h.ask(h.t.Context(), r, csr, key); a.err == nil {
				_, _ = r.revoke(h.t.Context(), a.serial, "superseded") // it may die of this
			}
			return false
		},
		heal: func(t *testing.T, h *harness) {
			h.order(t, two, "")
			h.leavesAlone(t, two)
			died := h.column(`SELECT clock_timestamp()::text`)[0]
			h.launch(t, two)
			h.none(t, "the intent of a run before is open after the restart", openOf+` AND created_at < $2::text::timestamptz`, two, died)
		},
		after: func(t *testing.T, h *harness) {
			// Only where its certificate had become durable is the request answered with it.
			durable := len(h.column(`SELECT k.key FROM idempotency_keys AS k JOIN certificates AS c ON c.serial = k.serial WHERE k.key = $1`, key)) > 0
			a := h.ask(t.Context(), h.replica(two), csr, key)
			if replayed := a.got.header.Get("Idempotency-Replayed") == "true"; a.err != nil || replayed != durable {
				t.Errorf("repeating the replica's last request was answered %d %v, %v; its certificate was durable: %v", a.got.status, replayed, a.err, durable)
			}
		},
	}
}
