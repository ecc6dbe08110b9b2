package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// as calls the API under a role.
func (r *replica) as(t *testing.T, role access.Role, method, path, body string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, r.api+"/api/v1"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+r.s.tokens[role])
	request.Header.Set("Content-Type", "text/plain")
	response, err := r.s.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// checkpoint is the latest checkpoint, once it covers so many events.
func (r *replica) checkpoint(t *testing.T, size int64, known ...*audit.Verifier) (note string, c audit.Checkpoint, all []audit.Signature) {
	t.Helper()
	eventually(t, 20*time.Second, fmt.Sprintf("there is a checkpoint of %d events", size), func() bool {
		status, text := r.as(t, access.Auditor, http.MethodGet, "/audit/checkpoint", "")
		if status != http.StatusOK {
			return false
		}
		var err error
		if c, all, err = audit.OpenCheckpoint([]byte(text), known...); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		note = text
		return c.Size >= size
	})
	return note, c, all
}

// withWitness has the configuration, in which a log must be, name a witness.
func (s *stack) withWitness() (*audit.Verifier, ed25519.PrivateKey) {
	s.t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	witness, err := audit.NewWitness("witness.example/w1", public)
	if err != nil {
		s.t.Fatal(err)
	}
	s.more = strings.Replace(s.more, "checkpoint_every", fmt.Sprintf("witnesses: [%q], checkpoint_every", witness), 1)
	return witness, private
}

// A witness that the configuration names signs a checkpoint, and is served with it.
func TestWitnesses(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	log := s.withLog(hsm.Ed25519)
	witness, private := s.withWitness()
	r := s.start(one, s.token.Module)
	note, before, _ := r.checkpoint(t, 1, log)
	cosigned, err := audit.Cosign([]byte(note), witness.Name(), private, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if status, said := r.as(t, access.Requester, http.MethodPost, "/audit/checkpoint", string(cosigned)); status != http.StatusNotFound {
		t.Errorf("a requester hands in a cosignature: %d %s", status, said)
	}
	forged := strings.Replace(string(cosigned), "\n"+fmt.Sprint(before.Size)+"\n", "\n"+fmt.Sprint(before.Size+1)+"\n", 1)
	for _, bad := range []string{note, forged, "nothing"} {
		if status, said := r.as(t, access.Auditor, http.MethodPost, "/audit/checkpoint", bad); status != http.StatusBadRequest {
			t.Errorf("%q is kept: %d %s", bad, status, said)
		}
	}
	for range 2 {
		if status, said := r.as(t, access.Auditor, http.MethodPost, "/audit/checkpoint", string(cosigned)); status != http.StatusOK ||
			!strings.Contains(said, witness.Name()) {
			t.Fatalf("%d %s", status, said)
		}
	}
	status, text := r.as(t, access.Auditor, http.MethodGet, "/audit/checkpoint?witnesses=1", "")
	c, all, err := audit.OpenCheckpoint([]byte(text), log, witness)
	if status != http.StatusOK || err != nil || c.Size != before.Size || len(all) != 2 {
		t.Errorf("%d %s: %+v, %v", status, text, c, err)
	}
	if status, _ := r.as(t, access.Auditor, http.MethodGet, "/audit/checkpoint?witnesses=2", ""); status != http.StatusNotFound {
		t.Errorf("a checkpoint with two witnesses: %d", status)
	}
	event := s.database.Column(t, `SELECT id::text FROM audit_sequence WHERE index = 0`)[0]
	status, text = r.as(t, access.Auditor, http.MethodGet, "/audit/receipt/"+event+"?witnesses=1", "")
	receipt, err := audit.ParseReceipt([]byte(text))
	if status != http.StatusOK || err != nil {
		t.Fatalf("%d %s: %v", status, text, err)
	}
	if e, _, signatures, err := receipt.Verify(log, witness); err != nil || e.ID != event || len(signatures) != 2 {
		t.Errorf("%+v, %+v, %v", e, signatures, err)
	}
}

// Whoever rewrites history in the database does not get it signed: the service says so, goes on issuing, and signs again when all is as it
// was.
func TestARewrittenHistoryIsNotSigned(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	log := s.withLog(hsm.ECDSAP256)
	r := s.start(one, s.token.Module)
	_, before, _ := r.checkpoint(t, 3, log)
	r.stop()

	owner, err := pgx.Connect(context.Background(), s.database.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close(context.Background())
	rewrite := func(sql string) {
		t.Helper()
		for _, one := range []string{
			"ALTER TABLE audit_sequence DISABLE TRIGGER facts_stay", sql,
			"ALTER TABLE audit_sequence ENABLE TRIGGER facts_stay",
		} {
			if _, err := owner.Exec(t.Context(), one); err != nil {
				t.Fatalf("%s: %v", one, err)
			}
		}
	}
	const flip = `UPDATE audit_sequence SET hash = set_byte(hash, 0, get_byte(hash, 0) # 1) WHERE index = 2`
	rewrite(flip)
	r = s.start(one, s.token.Module)
	eventually(t, 20*time.Second, "the service says that it does not sign", func() bool {
		return strings.Contains(r.log.String(), "the log is not what its last checkpoint says")
	})
	if a, _ := r.order(t.Context(), t, "tls-server", newRequest(t, "goes.on.dev.example")); a.status != http.StatusCreated {
		t.Errorf("issuance stopped: %d %s", a.status, a.body)
	}
	if sizes := s.database.Column(t, `SELECT max(size)::text FROM audit_checkpoints`); sizes[0] != fmt.Sprint(latestSize(t, s)) ||
		latestSize(t, s) < before.Size {
		t.Errorf("the checkpoints are of %v", sizes)
	}
	signed := latestSize(t, s)
	rewrite(flip)
	r.stop()
	r = s.start(one, s.token.Module)
	if _, after, _ := r.checkpoint(t, signed+1, log); after.Size <= signed {
		t.Errorf("after it was put right, %d events are under a checkpoint", after.Size)
	}
}

// A service that was taken over cannot sign as the log's key does, and what it writes beside the log stays. It holds up no later checkpoint.
func TestForgedCheckpointsHoldUpNoOther(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	log := s.withLog(hsm.ECDSAP256)
	s.more = strings.Replace(s.more, "checkpoint_every: 1s", "checkpoint_every: 1h", 1)
	r := s.start(one, s.token.Module)
	_, before, _ := r.checkpoint(t, 1, log)
	eventually(t, 20*time.Second, "there are events that no checkpoint covers", func() bool {
		r.order(t.Context(), t, "tls-server", newRequest(t, "www.dev.example"))
		return s.database.Column(t, `SELECT max(index)::text FROM audit_sequence`)[0] != fmt.Sprint(before.Size-1)
	})
	r.stop()

	service, err := pgx.Connect(t.Context(), s.database.OwnerURL)
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close(context.Background())
	for _, sql := range []string{
		`SET ROLE chancery_service`,
		`INSERT INTO audit_cosignatures (size, witness, line) SELECT max(size), 'x', 'no signature' FROM audit_checkpoints`,
		`INSERT INTO audit_checkpoints (size, root, note) SELECT max(index) + 1, sha256(''), 'no checkpoint' FROM audit_sequence`,
	} {
		if _, err := service.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	r = s.start(one, s.token.Module)
	eventually(t, 20*time.Second, "a checkpoint is signed", func() bool {
		_, text := r.as(t, access.Auditor, http.MethodGet, "/audit/checkpoint", "")
		c, _, err := audit.OpenCheckpoint([]byte(text), log)
		return err == nil && c.Size > before.Size
	})
	if !strings.Contains(r.log.String(), "a checkpoint on record is not signed by this log's key") {
		t.Errorf("nothing was said of the forged one:\n%s", r.log)
	}
	r.stop()
}

func latestSize(t *testing.T, s *stack) (size int64) {
	t.Helper()
	note := s.database.Column(t, `SELECT note FROM audit_checkpoints ORDER BY size DESC LIMIT 1`)[0]
	c, err := audit.ReadCheckpoint([]byte(note))
	if err != nil {
		t.Fatal(err)
	}
	return c.Size
}

// Without a key of the log events get their places all the same, and the service says that nothing is signed.
func TestALogWithoutAKey(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	r := s.start(one, s.token.Module)
	if a, _ := r.order(t.Context(), t, "tls-server", newRequest(t, "unsigned.dev.example")); a.status != http.StatusCreated {
		t.Fatalf("%d %s", a.status, a.body)
	}
	eventually(t, 10*time.Second, "the events are sequenced", func() bool {
		return s.database.Column(t, `SELECT count(*)::text FROM audit_unsequenced`)[0] == "0"
	})
	if !strings.Contains(r.log.String(), "no key signs the checkpoints") {
		t.Error("the service does not say that nothing is signed")
	}
	if status, said := r.as(t, access.Auditor, http.MethodGet, "/audit/checkpoint", ""); status != http.StatusNotFound {
		t.Errorf("%d %s", status, said)
	}
	if status, said := r.as(t, access.Auditor, http.MethodGet, "/audit/entries?to=2", ""); status != http.StatusOK ||
		!strings.Contains(said, `"index":1`) {
		t.Errorf("%d %s", status, said)
	}
}
