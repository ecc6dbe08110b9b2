package ceremony

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
)

// furtherPlan makes an authority under each level of rsaPlan's hierarchy but the last, and a CRL of the root in the same ceremony.
const furtherPlan = `
ceremony: further
output: further
issuers:
  - name: root-r
    certificate: out/root-r.cer
    key: {label: root-r}
    urls: {crl: "http://pki.example.com/crl/root-r.crl", issuer: "http://pki.example.com/ca/root-r.cer"}
  - name: offline-r
    certificate: out/offline-r-chain.pem
    key: {label: offline-r}
    no_crl: true
authorities:
  - name: second
    issuer: root-r
    key: {algorithm: ecdsa-p256, label: second}
    subject: {common_name: "Example Second CA"}
    validity: 4y
    path_len: 1
    crl: {period: 12h, validity: 3d}
  - name: third
    issuer: second
    key: {algorithm: ecdsa-p384, label: third}
    subject: {common_name: "Example Third CA"}
    validity: 2y
    path_len: 0
    crl: {period: 12h, validity: 3d}
  - name: fourth
    issuer: offline-r
    key: {algorithm: ecdsa-p256, label: fourth}
    subject: {common_name: "Example Fourth CA"}
    validity: 2y
    path_len: 0
    crl: {period: 12h, validity: 3d}
crls:
  - issuer: root-r
    certificate: out/root-r.pem
    key: {label: root-r}
    validity: 90d
    previous: out/root-r.crl
`

// TestIssuersOfEarlierCeremonies makes authorities under a root and under an offline authority of an earlier ceremony.
func TestIssuersOfEarlierCeremonies(t *testing.T) {
	t.Parallel()
	dir, token := t.TempDir(), hsmtest.New(t).Open(t)
	if _, _, err := token.Generate(hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "issuing-r"}); err != nil {
		t.Fatal(err)
	}
	earlier := run(t, token, plan(t, dir, rsaPlan))

	withoutCRLs, _, _ := strings.Cut(furtherPlan, "crls:")
	refuse := func(name, want, text string, change ...string) {
		t.Helper()
		text = strings.NewReplacer(change...).Replace(text)
		before, err := token.Keys()
		if err != nil {
			t.Fatal(err)
		}
		_, err = Run(t.Context(), plan(t, dir, text), Options{Token: token, Now: clock, Random: rand.Reader})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
		if after, err := token.Keys(); err != nil || len(after) != len(before) {
			t.Errorf("%s: keys were left: %v, %v", name, after, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "further")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: a directory was left: %v", name, err)
		}
	}
	refuse("no certificate there", "no such file", furtherPlan, "out/root-r.cer", "out/none.cer")
	refuse("not a certificate", "out/root-r.crl", furtherPlan, "out/root-r.cer", "out/root-r.crl")
	refuse("the chain ends before its root", "is not signed by the next", furtherPlan, "out/offline-r-chain.pem", "out/offline-r.pem")
	refuse("another's key", hsm.ErrKeyMismatch.Error(), withoutCRLs, "out/root-r.cer", "out/offline-r-chain.pem", "out/offline-r-chain.pem", "out/root-r.cer")
	refuse("two certificates of an issuer", "is not the certificate of the issuer", furtherPlan, "out/root-r.pem", "out/offline-r.pem",
		"    previous: out/root-r.crl", "    first: true")
	refuse("outlives its issuer", "refused by policy", furtherPlan, "validity: 4y", "validity: 21y")
	refuse("too long a path", "refused by policy", furtherPlan, `"Example Fourth CA"}
    validity: 2y
    path_len: 0`, `"Example Fourth CA"}
    validity: 2y
    path_len: 3`)
	refuse("the name of one above its issuer", "the subject is that of an authority above the parent", furtherPlan, `"Example Fourth CA"`,
		`"EXAMPLE RSA Root"`)
	refuse("a key that is not there", hsm.ErrKeyNotFound.Error(), furtherPlan, "key: {label: offline-r}", "key: {label: offline-9}")

	result := run(t, token, plan(t, dir, furtherPlan))
	in := func(name string) string { return filepath.Join(result.Dir, name) }
	if want := []string{in("second.authority.json"), in("third.authority.json"), in("fourth.authority.json")}; !slices.Equal(result.Bundles, want) {
		t.Errorf("bundles %v", result.Bundles)
	}
	for name, length := range map[string]int{"second": 2, "third": 3, "fourth": 3} {
		bundle, err := ReadBundle(in(name + ".authority.json"))
		if err != nil {
			t.Fatal(err)
		}
		if len(bundle.Chain) != length {
			t.Errorf("%s has a chain of %d certificates, want %d", name, len(bundle.Chain), length)
		}
		tool(t, "openssl", "verify", "-attime", fmt.Sprint(ceremonyTime.Unix()), "-x509_strict", "-CAfile", filepath.Join(earlier.Dir, "root-r.pem"),
			"-untrusted", in(name+"-chain.pem"), in(name+".pem"))
	}
	second, err := ReadBundle(in("second.authority.json"))
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(second.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	if second.Parent != "root-r" || !slices.Equal(certificate.CRLDistributionPoints, []string{"http://pki.example.com/crl/root-r.crl"}) ||
		!slices.Equal(certificate.IssuingCertificateURL, []string{"http://pki.example.com/ca/root-r.cer"}) {
		t.Errorf("parent %q, CRL at %v, issuer at %v", second.Parent, certificate.CRLDistributionPoints, certificate.IssuingCertificateURL)
	}
	if next := parseList(t, result.CRLs[0]); next.Number.Cmp(parseList(t, filepath.Join(earlier.Dir, "root-r.crl")).Number) <= 0 {
		t.Error("the root's CRL did not rise")
	}
	s := summary(t, result.Transcript)
	if len(s.Issuers) != 2 || s.Issuers[0].Authority != "root-r" || len(s.Keys) != 5 || s.Keys[0].Generated || len(s.Signed) != 4 {
		t.Errorf("summary %+v", s)
	}
	for _, name := range []string{"root-r.cer", "offline-r.cer"} {
		if _, err := os.Stat(in(name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s was written again: %v", name, err)
		}
	}
}

// TestIssuersAreVerified changes what a transcript says of an issuer, with every hash made to fit.
func TestIssuersAreVerified(t *testing.T) {
	t.Parallel()
	dir, token := t.TempDir(), hsmtest.New(t).Open(t)
	if _, _, err := token.Generate(hsm.KeySpec{Algorithm: hsm.ECDSAP256, Label: "issuing-r"}); err != nil {
		t.Fatal(err)
	}
	run(t, token, plan(t, dir, rsaPlan))
	result := run(t, token, plan(t, dir, furtherPlan))
	text, err := os.ReadFile(result.Transcript)
	if err != nil {
		t.Fatal(err)
	}
	entries := func() (all []entry) {
		for line := range bytes.Lines(text) {
			e, _, err := decode(line)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, e)
		}
		return all
	}
	other, err := os.ReadFile(filepath.Join(dir, "out", "issuing-r.pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(other)
	first := slices.IndexFunc(entries(), func(e entry) bool { return e.Issuer != nil })
	for name, c := range map[string]struct {
		change func([]entry) []entry
		want   string
	}{
		"nothing":      {func(all []entry) []entry { return all }, ""},
		"no issuer":    {func(all []entry) []entry { return slices.Delete(all, first, first+1) }, "not signed before"},
		"issuer twice": {func(all []entry) []entry { return slices.Insert(all, first, all[first]) }, "second issuer"},
		"broken chain": {func(all []entry) []entry { all[first].Issuer.Chain = [][]byte{block.Bytes}; return all }, "not signed by the next"},
		"another issuer": {func(all []entry) []entry {
			for i, e := range all {
				if e.Issuer != nil && i > first {
					all[first].Issuer.Chain = e.Issuer.Chain
				}
			}
			return all
		}, "not that of its certificate"},
		"certified again": {func(all []entry) []entry {
			for _, e := range all {
				if e.Intent != nil && e.Intent.Subject == "second" {
					e.Intent.Subject = "root-r"
				}
			}
			return all
		}, "has its certificate"},
	} {
		previous := genesis
		var forged bytes.Buffer
		for i, e := range c.change(entries()) {
			e.Number, e.Previous = i+1, previous
			line, hash, err := e.encode()
			if err != nil {
				t.Fatal(err)
			}
			previous = hash
			forged.Write(line)
		}
		if _, err := VerifyTranscript(&forged); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}
