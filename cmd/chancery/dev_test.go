package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/ceremony"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// TestDevKeepsTheAddressOfAnInterruptedFirstRun has the first run end after its ceremony: the next does not take another port than the
// certificates say.
func TestDevKeepsTheAddressOfAnInterruptedFirstRun(t *testing.T) {
	t.Parallel()
	s := newHierarchy(t, storagetest.New(t), false, devIssuerKey)
	const inCertificates = "http://127.0.0.1:9" // where nobody but root may listen
	d := devFile{Distribution: distributionIn(s.dir)}
	if d.Distribution != inCertificates {
		t.Fatalf("the address is %q, want %q", d.Distribution, inCertificates)
	}
	l, err := d.bind(devOptions{listen: "127.0.0.1:0", distribution: "127.0.0.1:0"})
	if err == nil {
		defer l.close()
		if d.Distribution != inCertificates {
			t.Errorf("bound to %s, want %s", d.Distribution, inCertificates)
		}
	}
	if other := distributionIn(t.TempDir()); other != "" {
		t.Errorf("a new home has the address %q", other)
	}
}

// TestDevNamesTheLogThatThereIs: with -v the log was shown, and is in no file.
func TestDevNamesTheLogThatThereIs(t *testing.T) {
	t.Parallel()
	cause := errors.New("no key")
	if got := (devOptions{}).failed(cause, "/home/x").Error(); got != "no key\n(the service's log is in /home/x/service.log)" {
		t.Errorf("without -v: %s", got)
	}
	if got := (devOptions{verbose: true}).failed(cause, "/home/x").Error(); got != "no key" {
		t.Errorf("with -v: %s", got)
	}
}

// TestDevFinishesAnInterruptedFirstRun has the first run end when both authorities are registered: the next gives what is left, the root's
// CRL and the bundle that every client reads.
func TestDevFinishesAnInterruptedFirstRun(t *testing.T) {
	t.Parallel()
	s := newHierarchy(t, storagetest.New(t), false, devIssuerKey)
	ctx := t.Context()
	store := storeOf(t, s.database)
	bundles, err := readBundles(filepath.Join(s.dir, "ceremony"))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range bundles {
		if err := s.app.registrar(store).AddAuthority(ctx, authorityRecord(b)); err != nil {
			t.Fatal(err)
		}
	}
	d := devFile{CABundle: filepath.Join(s.dir, "root.pem")}
	again := func() {
		t.Helper()
		if err := s.app.devHierarchy(ctx, s.dir, d, Config{}, store, nil); err != nil {
			t.Fatal(err)
		}
	}
	again()
	if !bytes.Equal(read(t, d.CABundle), read(t, s.root())) {
		t.Error("the bundle is not the root's certificate")
	}
	if _, err := store.CurrentCRL(ctx, devRoot, ca.FullScope, nil); err != nil {
		t.Errorf("the root's CRL: %v", err)
	}

	// A further authority and a newer CRL of the root are no reason to begin again: the CRL of the first ceremony would be refused.
	plan, err := ceremony.ParsePlan(filepath.Join(s.dir, "second.yaml"), []byte(`ceremony: second
output: second
issuers:
  - name: root-1
    certificate: ceremony/root-1.cer
    key: {label: root-1}
    urls: {crl: "http://127.0.0.1:9/crl/root-1.crl", issuer: "http://127.0.0.1:9/ca/root-1.cer"}
authorities:
  - name: issuing-2
    issuer: root-1
    key: {algorithm: ecdsa-p256, label: issuing-2}
    subject: {common_name: Issuing 2, organization: Chancery Development, country: NL}
    validity: 4y
    path_len: 0
    crl: {period: 24h, validity: 7d}
    urls: {crl: "http://127.0.0.1:9/crl/issuing-2.crl", issuer: "http://127.0.0.1:9/ca/issuing-2.cer"}
crls:
  - issuer: root-1
    certificate: ceremony/root-1.cer
    key: {label: root-1}
    validity: 100d
    previous: ceremony/root-1.crl
`))
	if err != nil {
		t.Fatal(err)
	}
	token := s.token.Open(t)
	if _, err := ceremony.Run(ctx, plan, ceremony.Options{Token: token, Now: time.Now, Random: rand.Reader}); err != nil {
		t.Fatal(err)
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.app.registrar(store).ImportCRL(ctx, devRoot, read(t, filepath.Join(s.dir, "second", devRoot+".crl"))); err != nil {
		t.Fatal(err)
	}
	further, err := ceremony.ReadBundle(filepath.Join(s.dir, "second", "issuing-2.authority.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.app.registrar(store).AddAuthority(ctx, authorityRecord(further)); err != nil {
		t.Fatal(err)
	}
	again()
}
