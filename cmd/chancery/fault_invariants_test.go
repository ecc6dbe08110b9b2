package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// invariants holds the sources of truth against each other: the database, the audit leaves, what pkcs11-spy saw signed, and every
// certificate that a client received. It is called when the clients rest and all replicas serve. I1 to I8 are those of docs/faults.md.
func (h *harness) invariants(t *testing.T) {
	t.Helper()
	h.currentCRLs(t)
	h.logged(t)
	h.ledger.mu.Lock()
	defer h.ledger.mu.Unlock()

	// The replicas go on publishing and settling. So the logs are read before the database, which is read in one snapshot.
	signed := map[string]string{} // the log, by digest
	for _, log := range h.spied {
		for digest := range signedDigests(t, log) {
			signed[digest] = filepath.Base(log)
		}
	}
	rows := map[string][]string{}
	for _, row := range h.database.Column(t, snapshot) {
		table, value, _ := strings.Cut(row, " ")
		rows[table] = append(rows[table], value)
	}

	// I1: what was signed was intended before.
	intended, serials := h.intended(t, rows["leaf"])
	for digest, log := range signed {
		if !intended[digest] && !h.forgiven[digest] {
			t.Errorf("I1: %s: the token signed %s, of which no intent is on record", log, digest)
		}
	}
	if len(signed) < len(h.held) {
		t.Errorf("pkcs11-spy saw %d signatures, fewer than the %d certificates that clients hold: it is no oracle", len(signed), len(h.held))
	}

	// I2, I3: each serial is a certificate, an orphan, or still being worked on, and one alone of these; what a client holds is on record.
	stored, orphans, open := set(rows["certificate"]), set(rows["orphan"]), set(rows["intent"])
	for serial := range serials {
		if n := count(stored[serial], orphans[serial], open[serial]); n != 1 {
			t.Errorf("I2: serial %s was intended, and %d of certificate, orphan and open intent account for it", serial, n)
		}
	}
	if n := len(stored) + len(orphans) + len(open); n != len(serials) {
		t.Errorf("I2: %d serials were intended, and %d are on record", len(serials), n)
	}
	ders := set(rows["der"])
	for serial, der := range h.held {
		if !stored[serial] || !ders[digestOf(der)] {
			t.Errorf("I3: a client holds %s, and the database does not have it so", serial)
		}
	}
	for key, answers := range h.keys {
		if len(answers) > 1 {
			t.Errorf("I2: idempotency key %s led to %d certificates", key, len(answers))
		}
	}
	h.none(t, "I2: this intent's lease has long run out, and nobody has settled it",
		`SELECT encode(serial, 'hex') FROM intents WHERE lease_until < now() - interval '15 seconds'`)

	// I4, I5: numbers rise with each claim; what was acknowledged is on record, and so, by currentCRLs, on every CRL.
	h.none(t, "I4: the number of this CRL is not above that of an earlier claim", `SELECT number::text FROM (
		SELECT number, lag(number) OVER (PARTITION BY issuer, scope ORDER BY fence) AS before FROM crl_intents) AS claims WHERE number <= before`)
	h.none(t, "I1: this CRL has no intent", `SELECT number::text FROM crls AS c WHERE issuer = $1 AND NOT EXISTS
		(SELECT FROM crl_intents AS i WHERE i.issuer = c.issuer AND i.scope = c.scope AND i.number = c.number)`, devIssuer)
	h.none(t, "I2: this orphan is not revoked", `SELECT encode(o.serial, 'hex') FROM orphans AS o WHERE NOT EXISTS
		(SELECT FROM revocations AS r WHERE r.issuer = o.issuer AND r.serial = o.serial)`)
	revocations := set(rows["revocation"])
	for serial := range h.ledger.revoked {
		if !revocations[serial] {
			t.Errorf("I5: the revocation of %s was acknowledged and is not on record", serial)
		}
	}

	// I6: each change has its leaf.
	for table, kind := range map[string]string{
		"certificates": "certificate.issued", "orphans": "certificate.orphaned", "revocations": "", "crls": "",
	} {
		h.none(t, "I6: the audit log lacks this event of "+table, `SELECT event_id::text FROM `+table+` AS x WHERE NOT EXISTS
			(SELECT FROM audit_leaves AS l WHERE l.id = x.event_id AND (l.kind = $1 OR $1 = ''))`, kind)
	}
	documented(t, h.database)
}

// documented complains of events that say what docs/audit.md does not tell of.
func documented(t *testing.T, database *storagetest.Database) {
	t.Helper()
	if database.Column(t, `SELECT coalesce(to_regclass('audit_leaves')::text, '')`)[0] == "" {
		return // nothing was ever set up in it
	}
	kinds := map[string]audit.KindInfo{}
	for _, k := range audit.Kinds() {
		kinds[string(k.Kind)] = k
	}
	for _, row := range database.Column(t,
		`SELECT DISTINCT kind || ' ' || jsonb_object_keys(convert_from(leaf, 'UTF8')::jsonb -> 'data') FROM audit_leaves`) {
		kind, field, _ := strings.Cut(row, " ")
		if !kinds[kind].Tells(field) {
			t.Errorf("an event of kind %s has the field %q, of which docs/audit.md does not tell", kind, field)
		}
	}
}

// logged holds the audit log against the leaves: their indexes have no gaps, the tree is theirs, every checkpoint is signed and of a
// beginning of it, and no leaf waits for long. Checkpoints and indexes only grow, so what is read later covers what was read before.
func (h *harness) logged(t *testing.T) {
	t.Helper()
	notes := h.column(`SELECT note FROM audit_checkpoints ORDER BY size`)
	var tree audit.Tree
	for i, row := range h.column(`SELECT s.index::text || ' ' || encode(s.hash, 'hex') || ' ' || coalesce(encode(sha256('\x00'::bytea || a.leaf), 'hex'), 'gone')
		FROM audit_sequence AS s LEFT JOIN audit_leaves AS a ON a.id = s.id ORDER BY s.index`) {
		fields := strings.Fields(row)
		hash, err := hex.DecodeString(fields[2])
		if err != nil || fields[0] != fmt.Sprint(i) || fields[1] != fields[2] {
			t.Fatalf("I8: place %d of the log holds %s", i, row)
		}
		tree.Append(audit.Hash(hash))
		for len(notes) > 0 {
			c, err := h.opened(notes[0])
			if err != nil {
				t.Fatalf("I8: %v", err)
			}
			if c.Size > tree.Size() {
				break
			}
			if c.Size < tree.Size() || c.Root != tree.Root() {
				t.Fatalf("I8: a checkpoint of size %d is of another history", c.Size)
			}
			notes = notes[1:]
		}
	}
	if len(notes) > 0 {
		t.Errorf("I8: %d checkpoints are larger than the log", len(notes))
	}
	h.none(t, "I8: this lot of leaves has had no place in the log for long",
		`SELECT lot::text FROM audit_unsequenced WHERE written_at < now() - interval '15 seconds'`)
}

// opened is a checkpoint that the log's key has signed. Its signature is verified the first time: with the race detector that takes
// milliseconds, and the same octets are looked at after every fault.
func (h *harness) opened(note string) (audit.Checkpoint, error) {
	c, known := h.checks[note]
	if known {
		return c, nil
	}
	c, _, err := audit.OpenCheckpoint([]byte(note), h.log)
	if err == nil {
		h.checks[note] = c
	}
	return c, err
}

// currentCRLs waits until every replica serves a CRL with all revocations that are on record, those of orphans among them, within the time
// promised, and has openssl verify it.
func (h *harness) currentCRLs(t *testing.T) {
	t.Helper()
	want := h.column(`SELECT DISTINCT encode(serial, 'hex') FROM revocations WHERE not_after > now()`)
	for _, r := range h.serving() {
		var der []byte
		eventually(t, recoverWithin, "every revocation is on the CRL of replica "+r.name, func() bool {
			status, body, err := h.get(r.distribution + "/crl/" + devIssuer + ".crl")
			if err != nil || status != http.StatusOK {
				return false
			}
			der = body
			listed := entriesOf(t, der)
			for _, serial := range want {
				if !listed[serial] {
					return false
				}
			}
			return true
		})
		verify := exec.CommandContext(t.Context(), "openssl", "crl", "-inform", "DER", "-noout", "-CAfile",
			filepath.Join(h.dir, "ceremony", devIssuer+".pem"))
		verify.Stdin = bytes.NewReader(der)
		if said, err := verify.CombinedOutput(); err != nil || !bytes.Contains(said, []byte("verify OK")) {
			t.Errorf("I4: openssl does not verify the CRL of replica %s: %v\n%s", r.name, err, said)
		}
	}
}

const snapshot = `
	SELECT 'leaf ' || convert_from(leaf, 'UTF8') FROM audit_leaves WHERE kind IN ('certificate.intended', 'crl.intended')
	UNION ALL SELECT 'certificate ' || encode(serial, 'hex') FROM certificates
	UNION ALL SELECT 'der ' || encode(sha256(der), 'hex') FROM certificates
	UNION ALL SELECT 'orphan ' || encode(serial, 'hex') FROM orphans
	UNION ALL SELECT 'intent ' || encode(serial, 'hex') FROM intents
	UNION ALL SELECT 'revocation ' || encode(serial, 'hex') FROM revocations`

const leavesOfKind = `SELECT convert_from(leaf, 'UTF8') FROM audit_leaves WHERE kind = ANY ($1)`

// intended reads from audit leaves which bytes, by digest, and which serials, each once, were to be signed.
func (h *harness) intended(t *testing.T, leaves []string) (digests, serials map[string]bool) {
	t.Helper()
	digests, serials = map[string]bool{}, map[string]bool{}
	for _, text := range leaves {
		e, err := audit.Parse([]byte(text))
		if err != nil {
			t.Fatalf("I6: an audit leaf cannot be read: %v\n%s", err, text)
		}
		digests[e.Data["tbs_sha256"]] = true
		if e.Kind == audit.CertificateIntended {
			if serials[e.Data["serial"]] {
				t.Errorf("I2: serial %s was intended twice", e.Data["serial"])
			}
			serials[e.Data["serial"]] = true
		}
	}
	return digests, serials
}

func set(values []string) map[string]bool {
	found := map[string]bool{}
	for _, value := range values {
		found[value] = true
	}
	return found
}

// none complains of everything that a query finds.
func (h *harness) none(t *testing.T, complaint, query string, args ...any) {
	t.Helper()
	for _, found := range h.database.Column(t, query, args...) {
		t.Errorf("%s: %s", complaint, found)
	}
}

// judgeTimes complains of certificates whose serial, which holds the time that it was made at, is of another time than the database's.
func (h *harness) judgeTimes(t *testing.T) {
	t.Helper()
	h.none(t, "this serial was made by a clock that is wrong", `SELECT encode(serial, 'hex') FROM certificates AS c
		JOIN audit_leaves AS l ON l.id = c.event_id
		WHERE abs(extract(epoch FROM l.written_at) - ('x' || encode(substring(c.serial FROM 2 FOR 6), 'hex'))::bit(48)::bigint / 1000) > 60`)
	h.none(t, "this revocation is dated by a clock that is wrong", `SELECT encode(serial, 'hex') FROM revocations AS r
		JOIN audit_leaves AS l ON l.id = r.event_id WHERE abs(extract(epoch FROM l.written_at - r.at)) > 60`)
}

func count(all ...bool) (n int) {
	for _, one := range all {
		if one {
			n++
		}
	}
	return n
}

func digestOf(der []byte) string { return fmt.Sprintf("%x", sha256.Sum256(der)) }

func entriesOf(t *testing.T, der []byte) map[string]bool {
	t.Helper()
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatalf("I4: the CRL that is served: %v", err)
	}
	return revokedSerials(list)
}

// revokedSerials are the serials on a CRL.
func revokedSerials(list *x509.RevocationList) map[string]bool {
	on := map[string]bool{}
	for _, e := range list.RevokedCertificateEntries {
		on[fmt.Sprintf("%040x", e.SerialNumber)] = true
	}
	return on
}
