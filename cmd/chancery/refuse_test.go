package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chancery-ca/chancery/hsm/hsmtest"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// TestServeRefusesAnExtractableKey replaces the issuing authority's key by one of the same label that could leave the token.
func TestServeRefusesAnExtractableKey(t *testing.T) {
	t.Parallel()
	database := storagetest.New(t)
	s := newStack(t, database, false)
	// No statement may change an authority, so the key is replaced in the token: same label and CKA_ID, extractable.
	id := database.Column(t, `SELECT encode(key_id, 'hex') FROM authorities WHERE name = $1`, devIssuer)
	for _, kind := range []string{"privkey", "pubkey"} {
		if out, err := pkcs11Tool(t, s.token, "--delete-object", "--type", kind, "--label", devIssuer); err != nil {
			t.Fatalf("deleting the %s: %v\n%s", kind, err, out)
		}
	}
	out, err := pkcs11Tool(t, s.token, "--keypairgen", "--key-type", "EC:prime256v1", "--label", devIssuer, "--id", id[0], "--extractable")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	path := filepath.Join(s.dir, "refused.yaml")
	if err := os.WriteFile(path, []byte(s.config("refused", s.token.Module)), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "serve", "--config", path)
	cmd.Env = append(os.Environ(), actAsChancery+"=1")
	said, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(said), "CKA_EXTRACTABLE") {
		t.Errorf("serve did not refuse an extractable key: %v\n%s", err, said)
	}
}

func pkcs11Tool(t *testing.T, token *hsmtest.Token, args ...string) (string, error) {
	t.Helper()
	return command(t, "pkcs11-tool", append([]string{"--module", token.Module, "--token-label", token.Label, "--login", "--pin", hsmtest.UserPIN}, args...)...)
}
