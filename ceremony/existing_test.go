package ceremony

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
)

// againPlan certifies the key and the subject of rsaPlan's offline authority once more.
const againPlan = `
ceremony: again
output: again
issuers:
  - {name: root-r, certificate: out/root-r.cer, key: {label: root-r}, no_crl: true}
authorities:
  - name: offline-again
    issuer: root-r
    online: false
    key: {algorithm: ecdsa-p256, label: offline-r, existing: true}
    subject: {common_name: "Example Offline CA"}
    validity: 9y
    path_len: 3
    crl: {validity: 30d, previous: out/revoked.crl}
`

// TestAnExistingKeysCRLForgetsNothing makes an authority anew with its key and its subject: its CRL is that of the older one as well, and
// lists what that one revoked.
func TestAnExistingKeysCRLForgetsNothing(t *testing.T) {
	t.Parallel()
	dir, token := t.TempDir(), hsmtest.New(t).Open(t)
	if _, _, err := token.Generate(hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "issuing-r"}); err != nil {
		t.Fatal(err)
	}
	run(t, token, plan(t, dir, rsaPlan))
	renewed := run(t, token, plan(t, dir, strings.NewReplacer("root-r", "offline-r", "output: later",
		"output: renewed", "90d", "20d", "SERIAL", "0a0b").Replace(renewalPlan)))
	list, err := os.ReadFile(renewed.CRLs[0])
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "out", "revoked.crl"), list, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}

	unsaid := strings.Replace(againPlan, ", previous: out/revoked.crl", "", 1)
	if _, err := ParsePlan("plan.yaml", []byte(unsaid)); err == nil || !strings.Contains(err.Error(), "would be forgotten") {
		t.Errorf("a list that forgets is not refused: %v", err)
	}
	for name, c := range map[string]struct{ old, changed, want string }{
		"another's list":       {"out/revoked.crl", "out/root-r.crl", "and not of"},
		"a list of another":    {"label: offline-r", "label: issuing-r", "revoked.crl: the signature is not the recorded key's"},
		"another subject":      {"Example Offline CA", "Example Another", "and not of"},
		"a list that is not":   {"out/revoked.crl", "out/none.crl", "no such file"},
		"both":                 {"previous: out/revoked.crl", "previous: out/revoked.crl, first: true", "has none before it"},
		"of a key that is new": {", existing: true", "", "whose key is existing can follow another"},
	} {
		path := filepath.Join(dir, "plan.yaml")
		p, err := ParsePlan(path, []byte(strings.Replace(againPlan, c.old, c.changed, 1)))
		if err == nil {
			_, err = Run(t.Context(), p, Options{Token: token, Now: clock, Random: rand.Reader})
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		if _, err := os.Stat(filepath.Join(dir, "again")); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%s: a directory was left: %v", name, err)
		}
	}

	result := run(t, token, plan(t, dir, againPlan))
	next, before := parseList(t, filepath.Join(result.Dir, "offline-again.crl")), parseList(t, renewed.CRLs[0])
	entries := next.RevokedCertificateEntries
	if len(entries) != 1 || entries[0].SerialNumber.Int64() != 0x0a0b || next.Number.Cmp(before.Number) <= 0 {
		t.Errorf("number %s after %s, entries %+v", next.Number, before.Number, entries)
	}
	first := strings.NewReplacer("previous: out/revoked.crl", "first: true", "output: again", "output: first").Replace(againPlan)
	next = parseList(t, filepath.Join(run(t, token, plan(t, dir, first)).Dir, "offline-again.crl"))
	if entries := next.RevokedCertificateEntries; len(entries) != 0 {
		t.Errorf("entries of a first list: %+v", entries)
	}
}

// TestAnExistingKeyIsNotThatOfOneAbove names a key that is there, the root's, for an authority below: that is refused before anything is made,
// although the rehearsal has not the key.
func TestAnExistingKeyIsNotThatOfOneAbove(t *testing.T) {
	t.Parallel()
	dir, token := t.TempDir(), hsmtest.New(t).Open(t)
	if _, _, err := token.Generate(hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "issuing-r"}); err != nil {
		t.Fatal(err)
	}
	run(t, token, plan(t, dir, rsaPlan))
	const below = `
ceremony: below
output: below
issuers:
  - {name: offline-r, certificate: out/offline-r-chain.pem, key: {label: offline-r}, no_crl: true}
authorities:
  - name: below
    issuer: offline-r
    online: false
    key: {algorithm: ecdsa-p256, label: below}
    subject: {common_name: "Example Below"}
    validity: 4y
    path_len: 1
  - name: lowest
    issuer: below
    key: {algorithm: rsa-3072, label: root-r, existing: true}
    subject: {common_name: "Example Lowest"}
    validity: 3y
    path_len: 0
    crl: {period: 12h, validity: 3d}
`
	direct := strings.NewReplacer("path_len: 1", "path_len: 0", "issuer: below", "issuer: offline-r").Replace(below)
	for _, text := range []string{below, direct} {
		p := plan(t, dir, text)
		_, err := Run(t.Context(), p, Options{Token: token, Now: clock, Random: rand.Reader})
		if err == nil || !strings.Contains(err.Error(), "authority lowest: the key with label \"root-r\" is that of an authority above it") {
			t.Errorf("got %v", err)
		}
		if _, err := os.Stat(p.OutputDir()); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("a directory was left: %v", err)
		}
	}
}
