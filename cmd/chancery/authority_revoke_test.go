package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/storage"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// forgetful is a store that goes away when a compromised key is to be remembered.
type forgetful struct{ ca.Store }

var errAway = errors.New("away")

func (forgetful) RecordCompromisedKey(context.Context, [32]byte, string, []byte, time.Time, ...audit.Leaf) error {
	return errAway
}

// TestACompromisedAuthorityIsRememberedAtLast has the revocation of an authority end half way: repeating it does the other half.
func TestACompromisedAuthorityIsRememberedAtLast(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	store, err := storage.Open(t.Context(), storage.Config{URL: s.database.URL, MaxConns: 4, Unsafe: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	_, err = s.app.registrar(forgetful{store}).RevokeAuthority(t.Context(), devIssuer, issuance.CACompromise, "")
	if !errors.Is(err, errAway) {
		t.Fatalf("revoked with %v, want that the store is away", err)
	}
	for range 2 {
		if _, err := s.app.registrar(store).RevokeAuthority(t.Context(), devIssuer, issuance.CACompromise, ""); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.database.Column(t, `SELECT issuer FROM compromised_keys`); !slices.Equal(got, []string{devRoot}) {
		t.Errorf("compromised keys of certificates of %q, want that of the authority, under %s", got, devRoot)
	}
}
