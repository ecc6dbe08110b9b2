package ceremony

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
	"github.com/chancery-ca/chancery/strictyaml"
)

const logPlan = `
ceremony: log
description: The key of the audit log
output: out
logs:
  - name: audit-log
    origin: ca.example.com/audit-log
    key: {algorithm: ed25519, label: audit-log}
`

func TestTheKeyOfALog(t *testing.T) {
	t.Parallel()
	dir, token := t.TempDir(), hsmtest.New(t).Open(t)
	result := run(t, token, plan(t, dir, logPlan))
	text, err := os.ReadFile(filepath.Join(result.Dir, "audit-log.key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if _, edwards := public.(ed25519.PublicKey); err != nil || !edwards {
		t.Fatalf("the public key is %v, %v", public, err)
	}
	if _, err := token.Signer(hsm.KeyRef{Label: "audit-log"}, public); err != nil {
		t.Error(err)
	}
	if s := summary(t, result.Transcript); len(s.Keys) != 1 || !s.Keys[0].Generated || len(s.Signed) != 0 || len(s.Artefacts) != 1 {
		t.Errorf("the transcript tells %+v", s)
	}
	again := plan(t, dir, strings.Replace(logPlan, "output: out", "output: again", 1))
	if _, err := Run(t.Context(), again, Options{Token: token, Now: clock}); !errors.Is(err, hsm.ErrKeyExists) {
		t.Errorf("the key is there already: %v", err)
	}
}

func TestLogsThatAreNone(t *testing.T) {
	for field, text := range map[string]string{
		"logs[0].origin":        strings.Replace(logPlan, "ca.example.com/audit-log", "two words", 1),
		"logs[0].key.algorithm": strings.Replace(logPlan, "ed25519", "rsa-2048", 1),
		"logs[0].name":          strings.Replace(logPlan, "name: audit-log", "name: Audit", 1),
		"logs[1].key.label":     logPlan + "  - {name: other, origin: other, key: {algorithm: ecdsa-p256, label: audit-log}}\n",
		"logs[1].origin":        logPlan + "  - {name: other, origin: ca.example.com/audit-log, key: {algorithm: ecdsa-p256, label: other}}\n",
	} {
		_, err := ParsePlan("plan.yaml", []byte(text))
		var wrong *strictyaml.Error
		if !errors.As(err, &wrong) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}
