package main

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/storage/storagetest"
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

// TestKillAtEachStep kills a replica at each step of an issuance and of a publication, while a second replica lives on. It then starts the
// dead one again, and holds what pkcs11-spy saw signed, what the client received and what the database says against each other.
func TestKillAtEachStep(t *testing.T) {
	s := newStack(t, storagetest.New(t), false)
	k := &killing{stack: s, spy: spyModule(t), held: map[string]bool{}}
	living := k.startSpied("living", "never")
	k.watch(living)

	for _, step := range issueSteps {
		t.Run(step, func(t *testing.T) { k.inAnIssuance(t, step, living) })
	}
	for _, step := range publishSteps {
		t.Run(step, func(t *testing.T) { k.inAPublication(t, step, living) })
	}
	k.check(t)
	living.stop()
}

type killing struct {
	*stack
	spy    string
	logs   []string
	starts int
	held   map[string]bool // serials of certificates that a client received
	number *big.Int        // the highest CRL number seen
}

func (k *killing) startSpied(name, step string) *replica {
	k.starts++
	log := filepath.Join(k.dir, fmt.Sprintf("spy-%d.log", k.starts))
	k.logs = append(k.logs, log)
	return k.start(name, k.spy, "PKCS11SPY="+k.token.Module, "PKCS11SPY_OUTPUT="+log, dieAt+"="+step, dieWhen+"="+k.armed())
}

func (k *killing) armed() string { return filepath.Join(k.dir, "armed") }

// arm makes the mortal replica mortal; disarm ends it.
func (k *killing) arm(t *testing.T) (disarm func()) {
	if err := os.WriteFile(k.armed(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return func() { _ = os.Remove(k.armed()) }
}

// watch notes the CRL number, which must never go back.
func (k *killing) watch(r *replica) {
	k.t.Helper()
	list, err := r.crl(k.t.Context())
	if err != nil {
		k.t.Fatalf("reading the CRL of %s: %v\n%s", r.name, err, r.log)
	}
	if k.number != nil && list.Number.Cmp(k.number) < 0 {
		k.t.Errorf("the CRL number went back from %s to %s", k.number, list.Number)
	}
	k.number = list.Number
}

func (k *killing) inAnIssuance(t *testing.T, step string, living *replica) {
	mortal := k.startSpied("mortal", step)
	disarm := k.arm(t)
	defer disarm()
	key := strings.ReplaceAll(step, " ", "-")
	request := newRequest(t, key+".dev.example")
	_, got, err := mortal.issueCSR(t.Context(), request, http.Header{"Idempotency-Key": {key}})
	if err == nil {
		t.Fatalf("the replica that should have died answered %d %s", got.status, got.body)
	}
	<-mortal.ended
	disarm()

	// The other replica works on, and leaves the dead one's intent alone while its lease runs.
	open := k.openIntents(t)
	issued, got, err := living.issue(t.Context(), "living.dev.example", nil)
	if err != nil || got.status != http.StatusCreated {
		t.Fatalf("the living replica answered %d %s, %v", got.status, got.body, err)
	}
	k.held[issued.Serial] = true
	if again := k.openIntents(t); again != open {
		t.Errorf("%d open intents became %d although the owner's lease runs", open, again)
	}

	back := k.startSpied("mortal", "never")
	if left := k.openIntents(t); left != 0 {
		t.Errorf("%d intents are open after the restart", left)
	}
	issued, got, err = back.issueCSR(t.Context(), request, http.Header{"Idempotency-Key": {key}})
	if err != nil || got.status != http.StatusCreated {
		t.Fatalf("after the restart: %d %s, %v", got.status, got.body, err)
	}
	// Only where the certificate had become durable is the repeated request answered with it.
	if replayed := got.header.Get("Idempotency-Replayed") == "true"; replayed != (step == "after certificate") {
		t.Errorf("the repeated request was answered with an earlier certificate: %v", replayed)
	}
	k.held[issued.Serial] = true
	eventually(t, 5*time.Second, "an orphan is on the CRL", func() bool { return k.orphansListed(t, back) })
	k.watch(back)
	back.stop()
}

func (k *killing) inAPublication(t *testing.T, step string, living *replica) {
	mortal := k.startSpied("mortal", step)
	issued, got, err := living.issue(t.Context(), "revoked.dev.example", nil)
	if err != nil || got.status != http.StatusCreated {
		t.Fatalf("issuing: %d %s, %v", got.status, got.body, err)
	}
	k.held[issued.Serial] = true
	disarm := k.arm(t)
	defer disarm()
	// The mortal replica is asked, and publishes at once or soon. Whether it or the living one is first is a race that both may win, so
	// revocations go on until it has died.
	revoked := []string{}
	eventually(t, 30*time.Second, "the replica dies in a publication", func() bool {
		select {
		case <-mortal.ended:
			return true
		default:
		}
		one, got, err := living.issue(t.Context(), "revoked.dev.example", nil)
		if err != nil || got.status != http.StatusCreated {
			t.Fatalf("issuing: %d %s, %v", got.status, got.body, err)
		}
		k.held[one.Serial] = true
		answer, err := mortal.call(t.Context(), http.MethodPost, "/api/v1/certificates/"+one.Serial+"/revoke", access.Revoker,
			http.Header{"Content-Type": {"application/json"}}, []byte(`{"reason":"superseded"}`))
		if err == nil && answer.status == http.StatusOK {
			revoked = append(revoked, one.Serial)
		}
		return false
	})
	disarm()
	eventually(t, 5*time.Second, "every acknowledged revocation is on the CRL of the living replica", func() bool { return k.listed(t, living, revoked) })
	k.watch(living)
	back := k.startSpied("mortal", "never")
	k.watch(back)
	back.stop()
}

func (k *killing) listed(t *testing.T, r *replica, serials []string) bool {
	list, err := r.crl(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	on := revokedSerials(list)
	for _, serial := range serials {
		if !on[serial] {
			return false
		}
	}
	return true
}

// revokedSerials are the serials on a CRL.
func revokedSerials(list *x509.RevocationList) map[string]bool {
	on := map[string]bool{}
	for _, e := range list.RevokedCertificateEntries {
		on[hex.EncodeToString(e.SerialNumber.FillBytes(make([]byte, 20)))] = true
	}
	return on
}

func (k *killing) orphansListed(t *testing.T, r *replica) bool {
	return k.listed(t, r, k.column(t, `SELECT encode(serial, 'hex') FROM orphans`))
}

func (k *killing) openIntents(t *testing.T) int {
	return len(k.column(t, `SELECT encode(serial, 'hex') FROM intents`))
}

func (k *killing) column(t *testing.T, query string) []string { return k.database.Column(t, query) }

// check holds the sources of truth against each other.
func (k *killing) check(t *testing.T) {
	intended := map[string]bool{}
	serials := map[string]bool{}
	for _, text := range k.column(t, `SELECT convert_from(leaf, 'UTF8') FROM audit_leaves WHERE kind IN ('certificate.intended', 'crl.intended')`) {
		e, err := audit.Parse([]byte(text))
		if err != nil {
			t.Fatalf("an audit leaf cannot be read: %v\n%s", err, text)
		}
		intended[e.Data["tbs_sha256"]] = true
		if e.Kind == audit.CertificateIntended {
			if serials[e.Data["serial"]] {
				t.Errorf("serial %s was intended twice", e.Data["serial"])
			}
			serials[e.Data["serial"]] = true
		}
	}
	signed := 0
	for _, log := range k.logs {
		for digest := range signedDigests(t, log) {
			signed++
			if !intended[digest] {
				t.Errorf("%s: the token signed %s, of which no intent is on record", filepath.Base(log), digest)
			}
		}
	}
	if want := len(k.held); signed < want {
		t.Errorf("pkcs11-spy saw %d signatures, fewer than the %d certificates that a client holds: it is no oracle", signed, want)
	}

	stored := map[string]bool{}
	for _, serial := range k.column(t, `SELECT encode(serial, 'hex') FROM certificates`) {
		stored[serial] = true
	}
	for serial := range k.held {
		if !stored[serial] {
			t.Errorf("a client holds %s, and the database does not know it", serial)
		}
	}
	orphans := k.column(t, `SELECT encode(serial, 'hex') FROM orphans`)
	for _, serial := range orphans {
		if stored[serial] {
			t.Errorf("%s is both a certificate and an orphan", serial)
		}
	}
	if accounted := len(stored) + len(orphans); accounted != len(serials) {
		t.Errorf("%d serials were intended, and %d are accounted for", len(serials), accounted)
	}
	if len(orphans) < 4 { // killed after the intent, around the signature, before the certificate
		t.Errorf("only %d orphans: the kills did not hit", len(orphans))
	}
	twice := k.column(t, `SELECT number::text FROM crls GROUP BY issuer, scope, number HAVING count(*) > 1`)
	if len(twice) > 0 {
		t.Errorf("CRL numbers used twice: %v", twice)
	}
	for _, event := range k.column(t, `SELECT event_id::text FROM certificates WHERE NOT EXISTS (SELECT FROM audit_leaves WHERE id = event_id)`) {
		t.Errorf("event %s of a certificate is not in the audit log", event)
	}
	summary, _ := json.Marshal(map[string]int{"signatures": signed, "intents": len(serials), "certificates": len(stored), "orphans": len(orphans)})
	t.Logf("%s", summary)
}
