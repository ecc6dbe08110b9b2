package ceremony

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/hsm/hsmtest"
	"github.com/chancery-ca/chancery/strictyaml"
)

// TestASignatureIsNotAName has one key under two names, as a root has that was made anew with the key of the one before. What either signs
// verifies with both: a chain is one, and a CRL an authority's, by the names in them as well (RFC 5280, sections 4.1.2.4 and 5.1.2.3).
func TestASignatureIsNotAName(t *testing.T) {
	t.Parallel()
	key := func() crypto.Signer {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	certify := func(name string, public crypto.PublicKey, issuer *x509.Certificate, by crypto.Signer) *x509.Certificate {
		t.Helper()
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: ceremonyTime.AddDate(-1, 0, 0),
			NotAfter: ceremonyTime.AddDate(5, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}
		if issuer == nil {
			issuer = template
		}
		der, err := x509.CreateCertificate(rand.Reader, template, issuer, public, by)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	rootKey, subKey := key(), key()
	old, young := certify("Old Root", rootKey.Public(), nil, rootKey), certify("Young Root", rootKey.Public(), nil, rootKey)
	sub := certify("Issuing", subKey.Public(), old, rootKey)

	if _, err := parseChain(rawOf([]*x509.Certificate{sub, old})); err != nil {
		t.Error(err)
	}
	if _, err := parseChain(rawOf([]*x509.Certificate{sub, young})); err == nil {
		t.Error("a chain was read whose root has another name than issued what is below it")
	}

	list := func(by *x509.Certificate, key crypto.Signer) []byte {
		t.Helper()
		der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
			Number: big.NewInt(7), ThisUpdate: ceremonyTime.Add(-time.Hour), NextUpdate: ceremonyTime.Add(time.Hour),
		}, by, key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	dir := t.TempDir()
	p := Plan{dir: dir}
	for name, data := range map[string][]byte{"old.cer": old.Raw, "old.crl": list(old, rootKey), "young.crl": list(young, rootKey)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	next := CRL{Issuer: "old", Certificate: "old.cer", Validity: strictyaml.Duration(time.Hour), Previous: "old.crl"}
	if _, err := p.renewal(next, ceremonyTime); err != nil {
		t.Error(err)
	}
	next.Previous = "young.crl"
	if _, err := p.renewal(next, ceremonyTime); err == nil || !strings.Contains(err.Error(), "Young Root") {
		t.Errorf("the list of another authority is followed, and what its own revokes is forgotten: %v", err)
	}

	bundle := Bundle{Certificate: old.Raw, Chain: [][]byte{old.Raw}, List: list(old, rootKey)}
	if err := bundle.agree(hexDigest(old.Raw)); err != nil {
		t.Error(err)
	}
	bundle.List = list(young, rootKey)
	if err := bundle.agree(hexDigest(old.Raw)); err == nil {
		t.Error("a bundle holds the CRL of another authority")
	}
}

// TestWhatThosePresentAreTold has a plan, put in the place of the one that was reviewed, show the digest of that one to those present: it does
// not. What the machine's clock makes of the plan they see before they are asked.
func TestWhatThosePresentAreTold(t *testing.T) {
	t.Parallel()
	const reviewed = "plan sha256:0123456789abcdef"
	text := strings.Replace(hierarchyPlan, "description: Root and first issuing authority", `description: "Root\n`+reviewed+`\e[8m"`, 1)
	var out bytes.Buffer
	stop := errors.New("not this one")
	told := ""
	_, err := Run(t.Context(), plan(t, t.TempDir(), text), Options{
		Token: hsmtest.New(t).Open(t), Now: clock, Random: rand.Reader, Out: &out, Confirm: func(string) error { told = out.String(); return stop },
	})
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
	for _, want := range []string{"clock 2026-11-24T10:30:15Z\n", "root-1: from 2026-11-24T10:30:15Z to 2046-11-19T10:30:14Z\n"} {
		if !strings.Contains(told, want) {
			t.Errorf("those present are not told %q before they are asked: %q", want, told)
		}
	}
	if strings.Contains(out.String(), "\n"+reviewed) || strings.Contains(out.String(), "\x1b") {
		t.Errorf("those present are told %q", out.String())
	}
}

// TestWhatCannotBeListedAgainIsNotListedAsAnother follows a CRL of other software with a serial number that ours cannot hold.
func TestWhatCannotBeListedAgainIsNotListedAsAnother(t *testing.T) {
	t.Parallel()
	for serial, sound := range map[int64]bool{5: true, -5: false, 0: false} {
		kept, err := keptEntry(x509.RevocationListEntry{SerialNumber: big.NewInt(serial), RevocationTime: ceremonyTime})
		if (err == nil) != sound {
			t.Errorf("serial %d was taken over as %x, %v", serial, kept.Serial, err)
		}
	}
}
