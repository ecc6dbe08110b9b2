package main

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ceremony"
	"github.com/chancery-ca/chancery/storage"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// TestAnImportedCRLForgetsNothing has two ceremonies follow the same CRL, as when two authorities are revoked on one day: whichever is
// imported second would take back what the first revokes.
func TestAnImportedCRLForgetsNothing(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	ctx := t.Context()
	store, err := storage.Open(ctx, storage.Config{URL: s.database.URL, MaxConns: 4, Unsafe: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	token := s.token.Open(t)
	defer token.Close()
	list := func(name, previous, serial, reason string) []byte {
		t.Helper()
		plan, err := ceremony.ParsePlan(filepath.Join(s.dir, name+".yaml"), fmt.Appendf(nil, `ceremony: %[1]s
output: %[1]s
crls:
  - issuer: root-1
    certificate: ceremony/root-1.cer
    key: {label: root-1}
    validity: 100d
    previous: %[2]s/root-1.crl
    revoked:
      - {serial: %[3]s, reason: %[4]s, at: %[5]q}
`, name, previous, serial, reason, time.Now().UTC().Format(time.RFC3339)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ceremony.Run(ctx, plan, ceremony.Options{Token: token, Now: time.Now, Random: rand.Reader}); err != nil {
			t.Fatal(err)
		}
		return read(t, filepath.Join(s.dir, name, "root-1.crl"))
	}
	take := func(der []byte, want string) {
		t.Helper()
		_, err := s.app.registrar(store).ImportCRL(ctx, devRoot, der)
		if got := fmt.Sprint(err); !strings.Contains(got, want) {
			t.Errorf("imported with %s, want %q", got, want)
		}
	}
	const nothing = "<nil>"
	first := list("first", "ceremony", "1c0a", "superseded")
	beside := list("beside", "ceremony", "1c0b", "superseded")
	take(first, nothing)
	take(first, nothing)
	take(beside, "leaves out serial 1c0a")
	take(list("after", "first", "1c0b", "superseded"), nothing)
}
