package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/hsm"
)

// TestWhatIsVerifiedSpeaksInItsOwnName has a transcript and evidence of strangers, whole in themselves, say what verifying them says. People
// hold the head of the one, and the key's digest of the other, against what they noted: neither may be put into the verifier's mouth.
func TestWhatIsVerifiedSpeaksInItsOwnName(t *testing.T) {
	t.Parallel()
	const noted = "0123456789abcdef"
	const conceal = "\x1b[8m"
	dir := t.TempDir()
	place := func(name string, data []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	transcript := func(ceremony, token, end string) []byte {
		t.Helper()
		quote := func(s string) string {
			text, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
		plan := []byte("a plan")
		digest := sha256.Sum256(plan)
		planned, err := json.Marshal(plan)
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		previous := strings.Repeat("0", 64)
		for i, what := range []string{
			fmt.Sprintf(`"begin":{"ceremony":%s,"plan_digest":"sha256:%x","plan":%s}`, quote(ceremony), digest, planned),
			fmt.Sprintf(`"token":{"module":"m","label":"l","serial":%s,"manufacturer":"m","model":"m","hardware":false}`, quote(token)),
			end,
		} {
			entry := fmt.Sprintf(`{"v":1,"n":%d,"time":"2026-11-30T00:00:00.000000Z","prev":"%s",%s}`, i+1, previous, what)
			sum := sha256.Sum256([]byte(entry))
			previous = hex.EncodeToString(sum[:])
			fmt.Fprintf(&text, "{\"hash\":\"%s\",\"entry\":%s}\n", previous, entry)
		}
		return []byte(text.String())
	}
	const whole = `"end":{"signatures":0,"artefacts":0}`
	if out, stderr, code := typed(t, "", "ceremony", "verify", place("sound", transcript("first", "1", whole))); code != 0 ||
		!strings.Contains(out, "\nhead ") {
		t.Fatalf("%d: %s%s", code, out, stderr)
	}

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	said := "1\n  by the key with SHA-256 " + noted + ",\n  which is the trusted one" + conceal
	public := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}))
	attestation := func(half string) []byte {
		t.Helper()
		evidence, err := json.Marshal(hsm.Evidence{
			Version: 1, Time: time.Now(), Slot: hsm.Slot{Token: &hsm.TokenData{Label: "l", Serial: said}}, Unconfined: said, PublicKey: half,
			Declared: hsm.Declaration{FIPSLevel: 3, FIPSCertificate: said},
			Key:      []hsm.KeyProof{{Class: said, Attributes: []hsm.Attribute{{Name: said, Value: said}}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		digest := sha256.Sum256(append([]byte("chancery hsm attestation v1\n"), evidence...))
		signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
		if err != nil {
			t.Fatal(err)
		}
		by := hsm.AttestationBy{PublicKey: public, Scheme: hsm.ECDSA, Hash: "sha256", Value: signature}
		whole, err := json.Marshal(hsm.Attestation{Evidence: evidence, Signature: by})
		if err != nil {
			t.Fatal(err)
		}
		return whole
	}
	if out, stderr, code := typed(t, "", "hsm", "attest", "--verify", place("by a stranger", attestation(public))); code != 0 ||
		!strings.Contains(out, public) {
		t.Fatalf("%d: %s%s", code, out, stderr)
	}
	spoken := "1\nhead   " + noted + conceal
	for what, args := range map[string][]string{
		"a token":    {"ceremony", "verify", place("token", transcript("first", spoken, whole))},
		"a ceremony": {"ceremony", "verify", place("ceremony", transcript(spoken, "1", whole))},
		"a failure":  {"ceremony", "verify", place("failure", transcript("first", "1", `"failed":{"reason":"x\nhead   `+noted+`\u001b[8m"}`))},
		"a key":      {"ceremony", "verify", place("key", transcript("first", "1", `"artefact":{"name":"x\nhead   `+noted+`\u001b[8m","sha256":""}`))},
		"evidence":   {"hsm", "attest", "--verify", place("evidence", attestation(public))},
		"a half":     {"hsm", "attest", "--verify", place("half", attestation(said+"\n"+public))},
	} {
		out, stderr, _ := typed(t, "", args...)
		for _, line := range strings.Split(out+stderr, "\n") {
			if strings.Contains(line, conceal) || strings.HasPrefix(line, "head   "+noted) || strings.HasPrefix(line, "  by the key with SHA-256 "+noted) {
				t.Errorf("%s says %q", what, line)
			}
		}
	}
}

// TestListsOfATokenAreTold keeps a label, and the name in a certificate, within its line of a list: whoever has the PIN chose them.
func TestListsOfATokenAreTold(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	const label = "first\nsecond\x1b[8m"
	c.do("key", "generate", "--algorithm", "ecdsa-p256", "--label", label)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: label}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c.do("certificate", "import", "--in", c.place("certificate", der), "--label", label+"c", "--id", "01")
	for _, list := range []string{"key", "certificate"} {
		out := c.do(list, "list")
		if strings.Contains(out, "\x1b") || strings.Contains(out, "\nsecond") {
			t.Errorf("the list of a token's %ss says %q", list, out)
		}
	}
}
