package issuance_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/policies"
)

var (
	now     = time.Now().UTC().Truncate(time.Second) // openssl verifies with the clock
	nothing = issuance.RecorderFunc(func(context.Context, issuance.Signing) error { return nil })
)

func serial(t *testing.T) issuance.Serial {
	t.Helper()
	s, err := issuance.NewSerial(now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func decide(t *testing.T, r policies.AuthorityRequest) *policies.Grant {
	t.Helper()
	d := policies.DecideAuthority(r)
	g, err := d.Grant()
	if err != nil {
		t.Fatal(err, d.Violations())
	}
	return g
}

func spki(t *testing.T, public crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func subject(name string) []policies.Attribute {
	return []policies.Attribute{
		{OID: asn1.ObjectIdentifier{2, 5, 4, 6}, Value: "AT"},
		{OID: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: "Müller & Töchter"},
		{OID: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: name},
	}
}

func rootGrant(t *testing.T, public crypto.PublicKey) *policies.Grant {
	t.Helper()
	return decide(t, policies.AuthorityRequest{
		Name: "root", Root: true, Subject: subject("Root"), SPKI: spki(t, public),
		NotBefore: now, NotAfter: now.AddDate(20, 0, 0), PathLen: -1, Now: now,
	})
}

func subordinateGrant(t *testing.T, public crypto.PublicKey, parent *x509.Certificate, name string) *policies.Grant {
	t.Helper()
	return decide(t, policies.AuthorityRequest{
		Name: name, Subject: subject(name), SPKI: spki(t, public), NotBefore: now, NotAfter: now.AddDate(5, 0, 0), PathLen: 0, Now: now,
		Parent:    parent,
		Permitted: &policies.NameConstraints{DNS: []string{"example.com"}},
		CRLURL:    "http://pki.example.com/crl/root.crl", IssuerURLs: []string{"http://pki.example.com/ca/root.cer"},
	})
}

// ceremony makes a root, an authority below it, and the root's CRLs before and after it revokes that authority.
func ceremony(t *testing.T, rootKey crypto.Signer, below crypto.PublicKey) (root, subordinate *x509.Certificate, before, after []byte) {
	t.Helper()
	signed, err := issuance.SelfSign(t.Context(), rootGrant(t, rootKey.Public()), rootKey, serial(t), now, nothing)
	if err != nil {
		t.Fatal(err)
	}
	root = read(t, signed.DER)
	issuer, err := issuance.NewIssuer(root, rootKey)
	if err != nil {
		t.Fatal(err)
	}
	prepared, err := issuer.Prepare(subordinateGrant(t, below, root, "Issuing"), serial(t), now)
	if err != nil {
		t.Fatal(err)
	}
	if signed, err = issuer.Sign(t.Context(), prepared, nothing); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(signed.TBS, prepared.TBS()) || signed.Serial != prepared.Serial() || !prepared.Template().CA {
		t.Error("what was signed is not what was prepared")
	}
	subordinate = read(t, signed.DER)
	list := func(number int64, entries ...issuance.CRLEntry) []byte {
		prepared, err := issuer.PrepareCRL(issuance.CRLContents{
			Number: big.NewInt(number), ThisUpdate: now, NextUpdate: now.AddDate(0, 3, 0), Entries: entries,
			Distribution: "http://pki.example.com/crl/root.crl",
		})
		if err != nil {
			t.Fatal(err)
		}
		list, err := issuer.SignCRL(t.Context(), prepared, nothing)
		if err != nil {
			t.Fatal(err)
		}
		return list.DER
	}
	return root, subordinate, list(1), list(2, issuance.CRLEntry{
		Serial: subordinate.SerialNumber.Bytes(), RevokedAt: now, Reason: issuance.CessationOfOperation, InvalidityDate: now.Add(-time.Hour),
	})
}

func read(t *testing.T, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func softwareKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestOutsideReaders has openssl and certtool read and verify what a ceremony made.
func TestOutsideReaders(t *testing.T) {
	root, subordinate, before, after := ceremony(t, softwareKey(t), softwareKey(t).Public())
	dir := t.TempDir()
	file := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	rootFile, subordinateFile := file("root.pem", "CERTIFICATE", root.Raw), file("sub.pem", "CERTIFICATE", subordinate.Raw)
	sound, revoked := file("before.crl", "X509 CRL", before), file("after.crl", "X509 CRL", after)
	for _, c := range []struct {
		command string
		want    []string
		fails   bool
	}{
		{"openssl x509 -text -noout -nameopt utf8 -in " + rootFile, []string{
			"CA:TRUE", "Certificate Sign, CRL Sign", "O=Müller & Töchter",
		}, false},
		{"openssl x509 -text -noout -in " + subordinateFile, []string{
			"X509v3 Name Constraints: critical", "DNS:example.com", "CA:TRUE, pathlen:0", "URI:http://pki.example.com/crl/root.crl",
			"CA Issuers - URI:http://pki.example.com/ca/root.cer",
		}, false},
		{"openssl verify -x509_strict -check_ss_sig -CAfile " + rootFile + " " + rootFile + " " + subordinateFile, []string{
			"sub.pem: OK", "root.pem: OK",
		}, false},
		{"openssl verify -x509_strict -extended_crl -crl_check -CRLfile " + sound + " -CAfile " + rootFile + " " + subordinateFile, []string{
			"sub.pem: OK",
		}, false},
		{"openssl verify -extended_crl -crl_check -CRLfile " + revoked + " -CAfile " + rootFile + " " + subordinateFile, []string{
			"certificate revoked",
		}, true},
		{"openssl crl -text -noout -CAfile " + rootFile + " -in " + revoked, []string{
			"verify OK", "Cessation Of Operation", "Issuing Distribution Point: critical", "Invalidity Date",
		}, false},
		{"openssl crl -text -noout -CAfile " + rootFile + " -in " + sound, []string{"verify OK", "No Revoked Certificates."}, false},
		{"certtool --certificate-info --infile " + rootFile, []string{"Certificate Authority (CA): TRUE", "Version: 3"}, false},
		{"certtool --certificate-info --infile " + subordinateFile, []string{"Path Length Constraint: 0", "DNSname: example.com"}, false},
		{"certtool --crl-info --infile " + revoked, []string{"Version: 2", "Revoked certificates (1)"}, false},
	} {
		args := strings.Fields(c.command)
		output, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
		if (err != nil) != c.fails {
			t.Errorf("%s: %v\n%s", c.command, err, output)
		}
		for _, want := range c.want {
			if !strings.Contains(string(output), want) {
				t.Errorf("%s does not say %q:\n%s", c.command, want, output)
			}
		}
	}
}

// TestGrants holds the path from a decision to a certificate: what the grant says stands in the certificate, and nobody else's key signs.
func TestGrants(t *testing.T) {
	rootKey, below := softwareKey(t), softwareKey(t)
	root, subordinate, _, _ := ceremony(t, rootKey, below.Public())
	grant := subordinateGrant(t, below.Public(), root, "Issuing")
	template := grant.Template()
	if !bytes.Equal(subordinate.RawIssuer, root.RawSubject) || !bytes.Equal(subordinate.AuthorityKeyId, root.SubjectKeyId) ||
		!bytes.Equal(subordinate.SubjectKeyId, template.SubjectKeyID) || !bytes.Equal(subordinate.RawSubjectPublicKeyInfo, template.SPKI) ||
		!subordinate.NotBefore.Equal(template.NotBefore) || !subordinate.NotAfter.Equal(template.NotAfter) ||
		subordinate.KeyUsage != template.KeyUsage {
		t.Error("the certificate does not say what was granted")
	}
	if _, err := issuance.SelfSign(t.Context(), rootGrant(t, rootKey.Public()), below, serial(t), now, nothing); err == nil {
		t.Error("a root was signed with a key that was not granted")
	}
	issuer, err := issuance.NewIssuer(subordinate, below)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := issuer.Prepare(grant, serial(t), now); err == nil {
		t.Error("an authority was prepared below one whose path ends, with its own key")
	}
}

// TestHSM does a ceremony with keys in a token.
func TestHSM(t *testing.T) {
	token := hsmtest.New(t).Open(t)
	signer := func(label string, algorithm hsm.Algorithm) crypto.Signer {
		ref, public, err := token.Generate(hsm.KeySpec{Algorithm: algorithm, Label: label})
		if err != nil {
			t.Fatal(err)
		}
		key, err := token.Signer(ref, public)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	rootKey := signer("root", hsm.ECDSAP384)
	root, subordinate, _, _ := ceremony(t, rootKey, signer("issuing", hsm.ECDSAP256).Public())
	if err := subordinate.CheckSignatureFrom(root); err != nil {
		t.Error(err)
	}
	issuer, err := issuance.NewIssuer(root, rootKey)
	if err != nil {
		t.Fatal(err)
	}
	prepared, err := issuer.Prepare(subordinateGrant(t, softwareKey(t).Public(), root, "Other"), serial(t), now)
	if err != nil {
		t.Fatal(err)
	}
	if err := token.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := issuer.Sign(t.Context(), prepared, nothing); !errors.Is(err, issuance.ErrPossiblySigned) {
		t.Errorf("signing with a token that was closed: %v", err)
	}
}
