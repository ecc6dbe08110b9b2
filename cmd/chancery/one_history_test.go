package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// historian is a service whose log a keeper's key signs.
type historian struct {
	*stack
	*testing.T
	log *audit.Verifier
}

// keeps starts a keeper that has the key of the log, and the same token as every other.
func (h *historian) keeps(labels ...string) *keeperProcess {
	h.Helper()
	k := h.startKeeper(h.token.Module)
	k.changeKeys(func(keys string) string {
		for _, label := range labels {
			keys += h.logPolicy(label)
		}
		return keys
	})
	return k
}

// use has the replicas that are started from now on use a keeper.
func (h *historian) use(k *keeperProcess) {
	h.hsm = fmt.Sprintf("{isolation: keeper, socket: %q}", k.path("keeper.sock"))
}

// grows has events written, and waits until a checkpoint of a larger tree is signed.
func (h *historian) grows(r *replica) (size int64) {
	h.Helper()
	before := h.size()
	h.writes(r)
	_, c, _ := r.checkpoint(h.T, before+1, h.log)
	return c.Size
}

func (h *historian) writes(r *replica) {
	h.Helper()
	if a, _ := r.order(h.Context(), h.T, "tls-server", newRequest(h.T, "history.dev.example")); a.status != http.StatusCreated {
		h.Fatalf("%d %s\n%s", a.status, a.body, r.log)
	}
}

// size is the number of events that have their place.
func (h *historian) size() int64 {
	h.Helper()
	size, err := strconv.ParseInt(h.database.Column(h.T, `SELECT count(*)::text FROM audit_sequence`)[0], 10, 64)
	if err != nil {
		h.Fatal(err)
	}
	return size
}

// says waits for a replica to say why no checkpoint is signed.
func (h *historian) says(r *replica, why string) {
	h.Helper()
	eventually(h.T, 20*time.Second, "the service says that "+why, func() bool { return strings.Contains(r.log.String(), why) })
}

// checkpoints are what a keeper's journal tells of: the sizes that were signed last, and in how many cases a proof from another size was
// asked for.
func (h *historian) checkpoints(k *keeperProcess) (last int64, asked int) {
	h.Helper()
	text, err := os.ReadFile(k.path("journal"))
	if err != nil {
		h.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var e struct{ Kind, Detail, Result, Why string }
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			h.Fatal(err)
		}
		switch {
		case e.Kind != "checkpoint":
		case e.Result == "signed":
			if last, err = strconv.ParseInt(e.Detail, 10, 64); err != nil {
				h.Fatal(err)
			}
		case strings.Contains(e.Why, "not shown to extend"):
			asked++
		}
	}
	return last, asked
}

func newHistorian(t *testing.T, algorithm hsm.Algorithm) *historian {
	h := &historian{stack: newStack(t, storagetest.New(t), false), T: t}
	h.log = h.withLog(algorithm)
	return h
}

// The keepers of two hosts take turns, and know nothing of each other: each is shown what its own last checkpoint is extended by, and asks
// at most once a term. A checkpoint that a crash kept from being recorded is extended as well.
func TestKeepersTakeTurns(t *testing.T) {
	t.Parallel()
	h := newHistorian(t, hsm.ECDSAP256)
	a, b := h.keeps(devLogLabel), h.keeps(devLogLabel)
	h.use(a)
	r := h.start("first", "")
	h.grows(r)
	r.stop()
	left, _ := h.checkpoints(a)
	h.use(b)
	r = h.start("second", "")
	h.grows(r)
	r.stop()
	if _, asked := h.checkpoints(b); asked != 0 {
		t.Errorf("a keeper that had signed nothing asked for %d proofs", asked)
	}
	h.use(a)
	r = h.start("first", "")
	for range 3 {
		h.grows(r)
	}
	r.stop()
	if last, asked := h.checkpoints(a); last <= left || asked != 1 {
		t.Errorf("a keeper that had signed %d entries signed %d, and asked for %d proofs", left, last, asked)
	}

	armed := filepath.Join(h.dir, "armed")
	mortal := h.start("first", "", dieAt+"=after checkpoint signature", dieWhen+"="+armed)
	if err := os.WriteFile(armed, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	body, err := issueBody(newRequest(t, "history.dev.example"))
	if err != nil {
		t.Fatal(err)
	}
	// It dies at the next checkpoint, be the request answered by then or not.
	_, _ = mortal.call(t.Context(), http.MethodPost, "/api/v1/certificates", access.Requester, http.Header{"Content-Type": {"application/json"}}, body)
	<-mortal.ended
	lost, _ := h.checkpoints(a)
	if recorded := latestSize(t, h.stack); recorded >= lost {
		t.Fatalf("the checkpoint of %d entries is on record: %d", lost, recorded)
	}
	r = h.start("first", "")
	if size := h.grows(r); size <= lost {
		t.Errorf("after a checkpoint of %d entries that was lost, %d are under one", lost, size)
	}
	if strings.Contains(r.log.String(), "no checkpoint of the log could be signed") {
		t.Errorf("the lost checkpoint was in the way:\n%s", r.log)
	}
	r.stop()
}

// A history that was rewritten together with every checkpoint on record is none that the keeper signs, and neither is a log that was
// restored from an older copy, even when it has grown longer than the lost one: that takes another key.
func TestAKeeperSignsNoSecondHistory(t *testing.T) {
	t.Parallel()
	h := newHistorian(t, hsm.Ed25519)
	first := h.log
	next, config := h.logKey(hsm.Ed25519, devLogLabel+"-2")
	k := h.keeps(devLogLabel, devLogLabel+"-2")
	r := h.start("forked", "")
	h.grows(r)
	r.stop()
	const flip = `UPDATE audit_sequence SET hash = set_byte(hash, 0, get_byte(hash, 0) # 1) WHERE index = 2 RETURNING index::text`
	h.asSuperuser(t, flip)
	h.asSuperuser(t, `DELETE FROM audit_checkpoints RETURNING size::text`)
	r = h.start("forked", "")
	h.writes(r)
	h.says(r, "this is another history")
	h.writes(r) // issuance goes on
	r.stop()
	if n := h.database.Column(t, `SELECT count(*)::text FROM audit_checkpoints`)[0]; n != "0" {
		t.Errorf("%s checkpoints of a rewritten history were signed", n)
	}
	h.asSuperuser(t, flip)
	r = h.start("mended", "")
	copied := h.grows(r)
	h.grows(r)
	whole := h.grows(r)
	r.stop()

	h.asSuperuser(t, fmt.Sprintf(`DELETE FROM audit_checkpoints WHERE size > %d RETURNING size::text`, copied))
	h.asSuperuser(t, fmt.Sprintf(`DELETE FROM audit_sequence WHERE index >= %d RETURNING index::text`, copied))
	r = h.start("restored", "")
	h.says(r, "the tree is smaller than the last one, of "+fmt.Sprint(whole))
	for h.size() <= whole {
		h.writes(r)
	}
	h.says(r, "this is another history")
	r.stop()
	if size := latestSize(t, h.stack); size != copied {
		t.Errorf("%d entries are under a checkpoint, of a log that was cut off at %d", size, copied)
	}
	last, _ := h.checkpoints(k)
	if last != whole {
		t.Errorf("the keeper has signed %d entries, last %d", whole, last)
	}

	h.more, h.log = strings.Replace(config, "checkpoint_every", fmt.Sprintf("earlier_keys: [%q], checkpoint_every", first), 1), next
	r = h.start("rekeyed", "")
	if note, c, _ := r.checkpoint(t, whole+1, next, first); !strings.Contains(note, next.Name()) || c.Size <= whole {
		t.Errorf("%d entries are under a checkpoint of the new key: %s", c.Size, note)
	}
	h.grows(r)
	r.stop()
}
