package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/archive"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/keeper"
	"github.com/chancery-ca/chancery/reconcile"
)

// A responder's key signs the request for its certificate. Once the month of that request is archived, the archive accounts for it.
func TestArchivedRequestsAccountForSignatures(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for profile, want := range map[string]uint64{ca.ResponderProfile: 0, "tls-server": 1} {
		var file bytes.Buffer
		w, err := archive.NewWriter(&file, archive.Header{Month: archive.MonthOf(at), SerialsFrom: "10", SerialsUntil: "20"})
		if err != nil {
			t.Fatal(err)
		}
		row, err := json.Marshal(map[string]any{
			"id": "01960000-0000-7000-8000-000000000001", "at": at, "profile": profile, "csr": `\x` + hex.EncodeToString(der), "validity": "P7D",
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Add(archive.KindRequest, row, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Close(); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "archive")
		if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		account := reconcile.Open(t.TempDir(), reconcile.Span{Until: at.AddDate(1, 0, 0)}, []string{"journal"})
		defer account.Close()
		account.Begin(at)
		if err := account.Signature(reconcile.Signature{Digest: reconcile.SignedPart(der), At: at, Entry: 1, Kind: "request"}); err != nil {
			t.Fatal(err)
		}
		over, cancel := context.WithCancel(t.Context())
		cancel()
		if err := addArchive(over, account, path, archive.Made{}); !errors.Is(err, context.Canceled) {
			t.Errorf("who does not wait for an archive: %v", err)
		}
		if err := addArchive(t.Context(), account, path, archive.Made{}); err != nil {
			t.Fatal(err)
		}
		counts, err := account.Settle(t.Context(), reconcile.Oracle{
			Unissued: func(context.Context, [][]byte) ([][]byte, error) { return nil, nil },
		}, func(reconcile.Finding) error { return nil })
		if err != nil || counts.Findings != want {
			t.Errorf("a request of the profile %s: %+v, %v", profile, counts, err)
		}
	}
}

// A head from before the place at which the last run will be gone on from is still looked for.
func TestHeadsAreLookedForInTheWholeJournal(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	prev := strings.Repeat("0", 64)
	var text strings.Builder
	var heads []string
	for i := range 4 {
		line, err := json.Marshal(struct {
			Seq    int    `json:"seq"`
			Time   string `json:"time"`
			Kind   string `json:"kind"`
			Detail string `json:"detail"`
			SHA256 string `json:"sha256"`
			Result string `json:"result"`
			Prev   string `json:"prev"`
		}{i + 1, now.Add(time.Duration(i) * 24 * time.Hour).Format(time.RFC3339Nano), "crl", "1", strings.Repeat("a", 64), "signed", prev})
		if err != nil {
			t.Fatal(err)
		}
		digest := sha256.Sum256(line)
		prev = hex.EncodeToString(digest[:])
		heads = append(heads, prev)
		text.Write(line)
		text.WriteByte('\n')
	}
	path := filepath.Join(t.TempDir(), "journal")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	read := func(state reconcileState, heads ...string) (reconcileState, *journalReading) {
		account := reconcile.Open(t.TempDir(), reconcile.Span{}, []string{path})
		defer account.Close()
		r := &journalReading{
			account: account, state: state, report: &reconcileReport{}, mark: now.AddDate(1, 0, 0), heads: map[string]bool{},
		}
		for _, head := range heads {
			r.heads[head] = false
		}
		if wrong, err := r.journal(t.Context(), 0, path); wrong != nil || err != nil {
			t.Fatalf("%+v, %v", wrong, err)
		}
		return r.next(now), r
	}
	state, _ := read(reconcileState{})
	if mark := state.Journals[path].Mark; mark != (keeper.JournalPlace{Octets: int64(text.Len()), Entries: 4, Head: heads[3]}) {
		t.Fatalf("the next run goes on at %+v", mark)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	account := reconcile.Open(t.TempDir(), reconcile.Span{}, []string{path})
	defer account.Close()
	waits := &journalReading{account: account, report: &reconcileReport{}}
	if _, err := waits.journal(over, 0, path); !errors.Is(err, context.Canceled) {
		t.Errorf("who does not wait for a journal: %v", err)
	}
	again, r := read(state, heads[0], heads[3], "cut off")
	if !r.heads[heads[0]] || !r.heads[heads[3]] || r.heads["cut off"] {
		t.Errorf("seen: %v", r.heads)
	}
	if again.Journals[path].Mark != state.Journals[path].Mark || len(r.report.Journals[0].Results) != 0 {
		t.Errorf("entries were judged again: %+v", r.report.Journals[0])
	}
}
