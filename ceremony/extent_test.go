package ceremony

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/issuance"
)

const bulkyPlan = `
ceremony: bulky
output: out
issuers:
  - name: bulky
    certificate: bulky.cer
    key: {label: bulky}
    no_crl: true
authorities:
  - name: second
    issuer: bulky
    key: {algorithm: ecdsa-p256, label: second}
    subject: {common_name: "Example Second CA"}
    validity: 1y
    path_len: 0
    crl: {period: 12h, validity: 3d}
`

// TestATranscriptThatIsTooLongIsRehearsed: what could not be verified is refused before anything is made.
func TestATranscriptThatIsTooLongIsRehearsed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for octets, want := range map[int]string{1 << 20: "", MaxTranscript * 3 / 4: "the transcript would have some 64 MiB"} {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Bulky"}, IsCA: true, BasicConstraintsValid: true,
			NotBefore: ceremonyTime.AddDate(-1, 0, 0), NotAfter: ceremonyTime.AddDate(10, 0, 0), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
			ExtraExtensions: []pkix.Extension{{Id: []int{1, 3, 6, 1, 4, 1, 99999, 1}, Value: make([]byte, octets)}},
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "bulky.cer"), der, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		err = Rehearse(t.Context(), plan(t, dir, bulkyPlan), ceremonyTime, rand.Reader)
		if (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("an issuer's certificate of %d octets: %v", len(der), err)
		}
	}
}

// TestNothingIsSignedThatTheTranscriptHasNoRoomFor: a file may have become longer since the rehearsal.
func TestNothingIsSignedThatTheTranscriptHasNoRoomFor(t *testing.T) {
	t.Parallel()
	var disk failing
	record := newTranscript(&disk, clock)
	sign := func(octets int) error {
		return record.intents("a", "a").Record(t.Context(), issuance.Signing{Kind: issuance.List, Number: big.NewInt(1), TBS: make([]byte, octets)})
	}
	before := disk.kept.Len()
	if err := sign(MaxTranscript * 3 / 8); err == nil || !strings.Contains(err.Error(), "divide the plan") || disk.kept.Len() != before {
		t.Errorf("a CRL that is too long: %v", err)
	}
	if err := sign(1000); err != nil {
		t.Errorf("and one that is not: %v", err)
	}
	record.octets = MaxTranscript - 1000
	if err := sign(1000); err == nil {
		t.Error("an intent is recorded for which there is no room")
	}
	// Why it came to no end still stands there.
	if err := record.end(os.ErrInvalid); err != nil || !bytes.Contains(disk.kept.Bytes(), []byte(`"failed"`)) {
		t.Errorf("the end: %v", err)
	}
}
