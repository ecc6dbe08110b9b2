package main

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/revocation"
	"github.com/chancery-ca/chancery/storage"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// TestTheCheckLooksForWhatWasLost records revocations of certificates that are on no record. That of the online authority comes onto its
// shard's delta. The root is offline, and its CRL does not have the other: nobody but the check tells.
func TestTheCheckLooksForWhatWasLost(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	s.offerOCSP()
	lists := ca.CRLLists{Shards: 2}
	s.more += fmt.Sprintf("crls: {authorities: [{name: %s, shards: %d, delta_period: 1m}]}\n", devIssuer, lists.Shards)
	r := s.start("checked", s.token.Module)
	store, err := storage.Open(t.Context(), storage.Config{URL: s.database.URL, MaxConns: 2, Unsafe: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	before := s.agreement(r)
	lose := func(issuer string, lists ca.CRLLists) string {
		t.Helper()
		serial, err := issuance.NewSerial(time.Now(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		lost := ca.LostCertificate{Issuer: issuer, Serial: serial, Scope: lists.ScopeOf(serial), Reason: issuance.Superseded}
		if _, err := s.app.registrar(store).RevokeLost(t.Context(), lost); err != nil {
			t.Fatal(err)
		}
		return serial.String()
	}
	lose(devIssuer, lists)
	missing := lose(devRoot, ca.CRLLists{})
	var report revocation.Report
	eventually(t, 20*time.Second, "the delta shows one, and the other is missing", func() bool {
		report = s.agreement(r)
		return len(report.Differences) == 1
	})
	if d := report.Differences[0]; d.Kind != revocation.CRLMissing || d.Issuer != devRoot || d.Serial != missing {
		t.Errorf("the root's CRL lacks %s: %+v", missing, d)
	}
	if report.Certificates != before.Certificates+2 || report.Revoked != before.Revoked+2 || report.OCSPAnswers != before.OCSPAnswers+1 {
		t.Errorf("before: %+v; with two that are lost: %+v", before, report)
	}
}
