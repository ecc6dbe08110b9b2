package main

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/reconcile"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// handMade is a history with a key of its own that signs what it is told to.
type handMade struct {
	signer *audit.Signer
	leaves []audit.Leaf
	notes  map[int][]byte // by size
}

// wholeTexts is a key that is given what it signs as a whole.
type wholeTexts struct{ ed25519.PrivateKey }

func (k wholeTexts) SignMessage(_ io.Reader, text []byte, _ crypto.SignerOpts) ([]byte, error) {
	return ed25519.Sign(k.PrivateKey, text), nil
}

// newHandMade makes so many events of a time, and checkpoints of these sizes.
func newHandMade(t *testing.T, at time.Time, n int, checkpoints ...int) *handMade {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	h := &handMade{notes: map[int][]byte{}}
	if h.signer, err = audit.NewSigner("ca.example/log", wholeTexts{key}); err != nil {
		t.Fatal(err)
	}
	tree := &audit.Tree{}
	for i := range n {
		leaf, err := audit.New(audit.Event{ID: newID(), Kind: audit.ServiceStarted, Time: at, Actor: "system", Data: map[string]string{"run": fmt.Sprint(i)}})
		if err != nil {
			t.Fatal(err)
		}
		h.leaves = append(h.leaves, leaf)
		tree.Append(audit.HashOf(leaf.Bytes()))
		for _, size := range checkpoints {
			if size != i+1 {
				continue
			}
			note, err := audit.SignCheckpoint(audit.Checkpoint{Origin: h.signer.Name(), Size: int64(size), Root: tree.Root()}, h.signer)
			if err != nil {
				t.Fatal(err)
			}
			h.notes[size] = note
		}
	}
	return h
}

// export writes it as whoever has it might, and names keys in it.
func (h *handMade) export(t *testing.T, keys ...string) (path string) {
	t.Helper()
	var file bytes.Buffer
	x, err := audit.NewExportWriter(&file, audit.Start{}, keys)
	if err != nil {
		t.Fatal(err)
	}
	for i, leaf := range h.leaves {
		if err := x.Add(audit.Entry{Index: int64(i), Leaf: leaf.Bytes()}); err != nil {
			t.Fatal(err)
		}
		if note := h.notes[i+1]; note != nil {
			if err := x.AddCheckpoint(note); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := x.Close(); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "export"+exportSuffix)
	if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// into puts it into a database in the place of what is there, with the keys that this has on record.
func (h *handMade) into(t *testing.T, db *storagetest.Database, keys ...string) {
	t.Helper()
	db = administered(db)
	db.Column(t, `WITH a AS (DELETE FROM audit_leaves), b AS (DELETE FROM audit_sequence), c AS (DELETE FROM audit_checkpoints)
		DELETE FROM audit_keys RETURNING verifier`)
	var ids []string
	var leaves, hashes [][]byte
	for _, leaf := range h.leaves {
		hash := audit.HashOf(leaf.Bytes())
		ids, leaves, hashes = append(ids, leaf.ID()), append(leaves, leaf.Bytes()), append(hashes, hash[:])
	}
	db.Column(t, `WITH given AS (SELECT * FROM unnest($1::text[]::uuid[], $2::bytea[], $3::bytea[]) WITH ORDINALITY AS g (id, leaf, hash, place)),
		leaf AS (INSERT INTO audit_leaves (id, kind, leaf) SELECT id, $4, leaf FROM given)
		INSERT INTO audit_sequence (index, id, hash) SELECT place - 1, id, hash FROM given RETURNING id::text`,
		ids, leaves, hashes, string(audit.ServiceStarted))
	for _, size := range slices.Sorted(maps.Keys(h.notes)) {
		note := h.notes[size]
		c, err := audit.ReadCheckpoint(note)
		if err != nil {
			t.Fatal(err)
		}
		db.Column(t, `INSERT INTO audit_checkpoints (size, root, note) VALUES ($1, $2, $3) RETURNING note`, c.Size, c.Root[:], string(note))
	}
	for _, key := range keys {
		db.Column(t, `INSERT INTO audit_keys (verifier, event_id) VALUES ($1, $2::text::uuid) RETURNING verifier`, key, newID())
	}
}

// wantUnsigned verifies a history, and wants the one finding that from an index on nobody signs it; below zero: that it is sound.
func wantUnsigned(t *testing.T, what string, from int64, args ...string) {
	t.Helper()
	var out bytes.Buffer
	err := run(t.Context(), append([]string{"audit", "verify", "-o", "json"}, args...), Env{
		Stdout: &out, Stderr: io.Discard, Now: time.Now, Random: rand.Reader,
	})
	var shown shownHistory
	if err := json.Unmarshal(out.Bytes(), &shown); err != nil {
		t.Fatalf("%s: %v: %s", what, err, out.Bytes())
	}
	switch {
	case from < 0:
		if err != nil || !shown.Sound {
			t.Errorf("%s: %v, %+v", what, err, shown.Findings)
		}
	case !errors.Is(err, errSilent) || shown.Sound || len(shown.Findings) != 1 || shown.Findings[0].Kind != audit.Unsigned ||
		shown.FirstBad == nil || *shown.FirstBad != from:
		t.Errorf("%s: %v, %+v", what, err, shown.Findings)
	}
}

// Whoever hands an export over, or administers the database, can take checkpoints out of it, and write what they signed anew. What nobody
// signs is not sound.
func TestWhatNobodySignsIsNotSound(t *testing.T) {
	t.Parallel()
	db := storagetest.New(t)
	url := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(url, []byte(db.OwnerURL), 0o600); err != nil {
		t.Fatal(err)
	}
	old, now := time.Now().Add(-2*time.Hour), time.Now()
	for _, c := range []struct {
		what              string
		at                time.Time
		checkpoints       []int
		named, given      bool  // the key: by the source, with --key
		export, inserted  int64 // what is wrong with it as an export, and as a database, from which index on; -1: nothing
		checkpointOutside bool  // of the whole, kept elsewhere
	}{
		{what: "all is signed", at: old, checkpoints: []int{2, 5}, given: true, export: -1, inserted: -1},
		{what: "all is signed, by a key that the source names", at: old, checkpoints: []int{2, 5}, named: true, export: -1, inserted: -1},
		{what: "no checkpoint is left", at: old, given: true, export: 0, inserted: 0},
		{what: "no checkpoint is left, of young events", at: now, given: true, export: 0, inserted: 0},
		{what: "no checkpoint is left, and the source names the key", at: old, named: true, export: 0, inserted: 0},
		{what: "the last checkpoint is gone", at: old, checkpoints: []int{2}, given: true, export: 2, inserted: 2},
		{what: "the last events wait for theirs", at: now, checkpoints: []int{2}, given: true, export: 2, inserted: -1},
		{what: "the last events are of times to come", at: now.AddDate(50, 0, 0), checkpoints: []int{2}, given: true, export: 2, inserted: 2},
		{what: "the first events wait for theirs", at: now, named: true, export: 0, inserted: -1},
		{what: "the whole is signed elsewhere", at: old, given: true, export: -1, inserted: -1, checkpointOutside: true},
		{what: "a log without a key", at: old, export: -1, inserted: -1},
	} {
		h := newHandMade(t, c.at, 5, append(c.checkpoints, 5)...)
		kept := h.notes[5]
		if len(c.checkpoints) < 2 {
			delete(h.notes, 5)
		}
		var named, args []string
		if c.named {
			named = []string{h.signer.String()}
		}
		if c.given {
			args = append(args, "--key", h.signer.String())
		}
		if c.checkpointOutside {
			outside := filepath.Join(t.TempDir(), "checkpoint")
			if err := os.WriteFile(outside, kept, 0o600); err != nil {
				t.Fatal(err)
			}
			args = append(args, "--checkpoint", outside)
		}
		wantUnsigned(t, "an export: "+c.what, c.export, append(args, h.export(t, named...))...)
		h.into(t, db, named...)
		wantUnsigned(t, "a database: "+c.what, c.inserted, append(args, "--database", url)...)
	}
}

// What auditors read on a terminal quotes what somebody else has written: it can neither clear the screen nor pass for a line of ours.
func TestFindingsDisguiseNothing(t *testing.T) {
	const forged = "\x1b[2J\nsound: 5 events\u009b1A\r\u202e"
	index := int64(3)
	for what, write := range map[string]func(io.Writer){
		"a verification": (&shownHistory{Bad: 1, Findings: []shownFinding{{Kind: audit.Unrecorded, Index: &index, What: forged}}}).write,
		"an account": func(w io.Writer) {
			f := reconcile.Finding{Kind: reconcile.Restored, Subject: forged, Why: forged, Journal: forged, Entry: 1}
			writeReconciled(w, &reconcileReport{
				Counts: reconcile.Counts{Findings: 1}, Findings: []reconcile.Finding{f}, Restored: []reconcile.Finding{f},
				Refused: []refusedOperation{{Why: forged}},
			})
		},
		"a receipt": shownReceipt{
			Event: forged, Index: &index, Kind: forged, Time: &time.Time{}, Actor: forged, Data: map[string]string{forged: forged}, Origin: forged,
		}.print,
	} {
		var out bytes.Buffer
		write(&out)
		if strings.ContainsFunc(out.String(), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) ||
			strings.Contains(out.String(), "\nsound") {
			t.Errorf("%s: %q", what, out.String())
		}
	}
}
