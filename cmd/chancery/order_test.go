package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/audit"
	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// TestAnOrderForAnAuthorityIsForAllOfIt has others approve an authority, and takes it in only as they saw it: its certificate is signed, and
// where its CRL is, who answers for it and which key it has stand in a file that whoever is at the keyboard can change.
func TestAnOrderForAnAuthorityIsForAllOfIt(t *testing.T) {
	t.Parallel()
	s := newHierarchy(t, storagetest.New(t), false, devIssuerKey)
	ctx := t.Context()
	store := storeOf(t, s.database)
	bundles, err := readBundles(filepath.Join(s.dir, "ceremony"))
	if err != nil {
		t.Fatal(err)
	}
	record := authorityRecord(bundles[1])
	cfg := Config{Orders: OrdersConfig{AddAuthority: OrderConfig{Approvals: 1}}}
	if err := s.app.addUnderOrder(ctx, cfg, store, []ca.AuthorityRecord{record}, ""); !errors.Is(err, errSilent) {
		t.Fatalf("placing the order: %v", err)
	}
	orders, err := store.Orders(ctx, "", 1)
	if err != nil || len(orders) != 1 {
		t.Fatalf("%d orders, %v", len(orders), err)
	}
	order := orders[0].ID
	for _, person := range []string{"ada", "ben"} {
		leaf, err := audit.New(audit.Event{
			ID: newID(), Kind: audit.OrderApproved, Time: time.Now(), Actor: person, Data: map[string]string{"order": order},
		})
		if err != nil {
			t.Fatal(err)
		}
		vote := ca.OrderVote{Person: person, Approves: true, Actor: "token of " + person, At: time.Now(), EventID: leaf.ID()}
		if err := store.VoteOnOrder(ctx, order, vote, leaf); err != nil {
			t.Fatal(err)
		}
	}
	for what, change := range map[string]func(*ca.AuthorityRecord){
		"another address of the CRL":         func(r *ca.AuthorityRecord) { r.CRLURL = "http://elsewhere.example/issuing.crl" },
		"no address of the CRL":              func(r *ca.AuthorityRecord) { r.CRLURL = "" },
		"another address of the certificate": func(r *ca.AuthorityRecord) { r.IssuerURL = "http://elsewhere.example/issuing.cer" },
		"another responder":                  func(r *ca.AuthorityRecord) { r.OCSPURL = "http://elsewhere.example/ocsp" },
		"another key":                        func(r *ca.AuthorityRecord) { r.Key.Label = "other" },
		"a key in another token":             func(r *ca.AuthorityRecord) { r.Key.Token = "other" },
		"offline":                            func(r *ca.AuthorityRecord) { r.Online = false },
		"CRLs that last longer":              func(r *ca.AuthorityRecord) { r.CRL.Validity *= 2 },
		"CRLs that are made less often":      func(r *ca.AuthorityRecord) { r.CRL.Period *= 2 },
		"another parent":                     func(r *ca.AuthorityRecord) { r.Parent = "other" },
		"another chain":                      func(r *ca.AuthorityRecord) { r.Chain = r.Chain[:1] },
	} {
		changed := record
		change(&changed)
		if err := s.app.addUnderOrder(ctx, cfg, store, []ca.AuthorityRecord{changed}, order); !errors.Is(err, ca.ErrOrderNotReady) {
			t.Fatalf("%s: %v, want that the order is about something else", what, err)
		}
	}
	if err := s.app.addUnderOrder(ctx, cfg, store, []ca.AuthorityRecord{record}, order); err != nil {
		t.Error(err)
	}
}

// TestAnAuthorityIsUnderWhoCertifiedIt registers authorities under another than their issuer. The name of the parent stands in the bundle
// alone, and it is that one's CRL on which an authority is revoked: on another's nobody would look for it.
func TestAnAuthorityIsUnderWhoCertifiedIt(t *testing.T) {
	t.Parallel()
	s, elsewhere := newHierarchy(t, storagetest.New(t), false, devIssuerKey), newHierarchy(t, storagetest.New(t), false, devIssuerKey)
	ctx := t.Context()
	store := storeOf(t, s.database)
	bundles, err := readBundles(filepath.Join(s.dir, "ceremony"))
	if err != nil {
		t.Fatal(err)
	}
	others, err := readBundles(filepath.Join(elsewhere.dir, "ceremony"))
	if err != nil {
		t.Fatal(err)
	}
	root, issuing, other := authorityRecord(bundles[0]), authorityRecord(bundles[1]), authorityRecord(others[0])
	other.Name = "other-root"
	add := func(r ca.AuthorityRecord) error { return s.app.registrar(store).AddAuthority(ctx, r) }
	if err := add(other); err != nil {
		t.Fatal(err)
	}
	var invalid *ca.InvalidError
	misplaced := issuing
	misplaced.Parent = other.Name
	if err := add(misplaced); !errors.As(err, &invalid) || invalid.Field != "parent" {
		t.Errorf("an authority was registered under one that has not certified it: %v", err)
	}
	if err := add(issuing); err != nil { // the parent may come later
		t.Fatal(err)
	}
	misplaced = authorityRecord(others[0])
	misplaced.Certificate, misplaced.Chain = others[1].Certificate, others[1].Chain
	if err := add(misplaced); !errors.As(err, &invalid) || invalid.Field != "name" {
		t.Errorf("another was registered as the parent of an authority: %v", err)
	}
	for range 2 {
		if err := errors.Join(add(root), add(issuing)); err != nil {
			t.Error(err)
		}
	}
	// What is on record stays: that it would be otherwise now must not be said.
	for what, change := range map[string]func(*ca.AuthorityRecord){
		"another address": func(r *ca.AuthorityRecord) { r.CRLURL = "http://elsewhere.example/issuing.crl" },
		"another key":     func(r *ca.AuthorityRecord) { r.Key.Token = "other" },
		"offline":         func(r *ca.AuthorityRecord) { r.Online = false },
		"other CRLs":      func(r *ca.AuthorityRecord) { r.CRL.Validity *= 2 },
	} {
		changed := issuing
		change(&changed)
		if err := add(changed); !errors.Is(err, ca.ErrExists) {
			t.Errorf("%s: %v, want that there is one already", what, err)
		}
	}
	// Nor is there another of its name and its key, and once it is revoked none of its certificate.
	twin := issuing
	twin.Name = "twin"
	if err := add(twin); !errors.As(err, &invalid) || invalid.Field != "certificate" {
		t.Errorf("a twin was registered: %v", err)
	}
	if _, err := s.app.registrar(store).RevokeAuthority(ctx, issuing.Name, issuance.Superseded, ""); err != nil {
		t.Fatal(err)
	}
	if err := add(twin); !errors.As(err, &invalid) || invalid.Field != "chain" {
		t.Errorf("a revoked authority was registered: %v", err)
	}
	if err := add(issuing); err != nil {
		t.Errorf("the same again, although it is revoked: %v", err)
	}
}

// TestNobodyIsAskedToApproveWhatIsRefused has an authority that could not be registered refused before an order is placed, or used up.
func TestNobodyIsAskedToApproveWhatIsRefused(t *testing.T) {
	t.Parallel()
	s, elsewhere := newStack(t, storagetest.New(t), false), newHierarchy(t, storagetest.New(t), false, devIssuerKey)
	s.more = "orders: {add_authority: {approvals: 1}}\n"
	config := s.write("orders", s.token.Module)
	from, err := os.ReadFile(filepath.Join(elsewhere.dir, "ceremony", devIssuer+".authority.json"))
	if err != nil {
		t.Fatal(err)
	}
	// Its parent has the name of the root that is on record here, and is another.
	renamed := filepath.Join(elsewhere.dir, "ceremony", "other.authority.json")
	if err := os.WriteFile(renamed, bytes.ReplaceAll(from, []byte(`"`+devIssuer), []byte(`"other`)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, suffix := range []string{".cer", "-chain.pem"} {
		dir := filepath.Join(elsewhere.dir, "ceremony")
		if err := os.Link(filepath.Join(dir, devIssuer+suffix), filepath.Join(dir, "other"+suffix)); err != nil {
			t.Fatal(err)
		}
	}
	stdout, stderr, code := typed(t, "", "authority", "add", "--config", config, renamed)
	if code != 1 || stdout != "" || !strings.Contains(stderr, "was not certified by "+devRoot) {
		t.Errorf("exit code %d, %q, %s", code, stdout, stderr)
	}
	if placed := s.database.Column(t, `SELECT id::text FROM orders`); len(placed) != 0 {
		t.Errorf("orders were placed: %q", placed)
	}
}
