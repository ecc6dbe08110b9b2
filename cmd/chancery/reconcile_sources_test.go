package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/archive"
	"github.com/chancery-ca/chancery/ca"
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
		if err := addArchive(account, path, archive.Made{}); err != nil {
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
