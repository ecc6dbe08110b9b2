package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ceremony"
	"github.com/chancery-ca/chancery/issuance"
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
	store := storeOf(t, s.database)
	_, err := s.app.registrar(forgetful{store}).RevokeAuthority(t.Context(), devIssuer, issuance.CACompromise, "")
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

// TestThePlanOfARevocationIsOneWhateverTheName revokes authorities of names that a plan could trip over: the room in which the CRL is made is
// no place to mend a plan.
func TestThePlanOfARevocationIsOneWhateverTheName(t *testing.T) {
	t.Parallel()
	for name, root := range map[string]string{strings.Repeat("a", 56) + "-" + strings.Repeat("b", 7): devRoot, devIssuer: "null"} {
		s := newHierarchy(t, storagetest.New(t), false, devIssuerKey)
		store := storeOf(t, s.database)
		bundles, err := readBundles(filepath.Join(s.dir, "ceremony"))
		if err != nil {
			t.Fatal(err)
		}
		bundles[0].Name, bundles[1].Name, bundles[1].Parent = root, name, root
		for _, b := range bundles {
			if err := s.app.registrar(store).AddAuthority(t.Context(), authorityRecord(b)); err != nil {
				t.Fatal(err)
			}
		}
		revoked, err := s.app.registrar(store).RevokeAuthority(t.Context(), name, issuance.CessationOfOperation, "")
		if err != nil {
			t.Fatal(err)
		}
		var result authorityRevocationJSON
		if err := result.plan(t.Context(), store, revoked, filepath.Join(s.dir, "room"), "180d"); err != nil {
			t.Fatal(err)
		}
		if _, err := ceremony.ReadPlan(result.Plan); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestACompromisedKeyIsNoAuthoritysAgain certifies the key of a revoked authority once more, in a ceremony, where nobody knows of it: it is
// refused where it would begin to issue.
func TestACompromisedKeyIsNoAuthoritysAgain(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	store := storeOf(t, s.database)
	plan, err := ceremony.ParsePlan(filepath.Join(s.dir, "again.yaml"), []byte(fmt.Sprintf(`ceremony: again
output: again
issuers:
  - name: %[1]s
    certificate: ceremony/%[1]s.cer
    key: {label: %[1]s}
    no_crl: true
authorities:
  - name: again
    issuer: %[1]s
    key: {algorithm: ecdsa-p256, label: %[2]s, existing: true}
    subject: {common_name: Again}
    validity: 1y
    path_len: 0
    crl: {period: 1h, validity: 7d}
`, devRoot, devIssuer)))
	if err != nil {
		t.Fatal(err)
	}
	token := s.token.Open(t)
	if _, err := ceremony.Run(t.Context(), plan, ceremony.Options{Token: token, Now: time.Now}); err != nil {
		t.Fatal(err)
	}
	bundle, err := ceremony.ReadBundle(filepath.Join(s.dir, "again", "again.authority.json"))
	if err != nil {
		t.Fatal(err)
	}
	known, err := store.Authorities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.app.registrar(store).RevokeAuthority(t.Context(), devIssuer, issuance.KeyCompromise, ""); err != nil {
		t.Fatal(err)
	}
	var invalid *ca.InvalidError
	if err := s.app.registrar(store).AddAuthority(t.Context(), authorityRecord(bundle)); !errors.As(err, &invalid) ||
		!strings.Contains(err.Error(), "compromised") {
		t.Errorf("a compromised key is an authority's again: %v", err)
	}
	for _, k := range known { // the same again is no error
		if err := s.app.registrar(store).AddAuthority(t.Context(), k); err != nil {
			t.Errorf("%s: %v", k.Name, err)
		}
	}
}
