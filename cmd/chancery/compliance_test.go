package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ceremony"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
	"github.com/chancery-ca/chancery/storage"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// TestComplianceThroughAKeeper: a service whose keys a keeper has starts only if the keeper holds them to what the service requires.
func TestComplianceThroughAKeeper(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	k := s.startKeeper(s.token.Module)
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	keeperConfig, keys := read(k.path("keeper.yaml")), read(k.path("keys.yaml"))
	write(k.path("keeper.yaml"), strings.Replace(keeperConfig, "call_timeout", `fips_140: {level: 2, certificate: "1234"}, call_timeout`, 1))
	path := filepath.Join(s.dir, "client.yaml")
	for _, c := range []struct{ require, compliance, says string }{
		{"{}", "local: true, never_extractable: true", ""},
		{"{fips_140_level: 2}", "local: true, fips_140_level: 2", ""},
		{"{}", "fips_140_level: 2", "write the rest under `require`"},
		{"{fips_140_level: 3}", "fips_140_level: 3", "level 2 is declared"},
		{"{hardware: true}", "hardware: true", "CKF_HW_SLOT"},
	} {
		k.kill()
		write(k.path("keys.yaml"), keys+"    require: "+c.require+"\n")
		k.start()
		write(path, s.config("client", "")+"compliance: [{authority: \"*\", "+c.compliance+"}]\n")
		if said, ok := s.serves(path); ok != (c.says == "") || !strings.Contains(said, c.says) {
			t.Errorf("the keeper requires %s, the service %s: serves %v:\n%s", c.require, c.compliance, ok, said)
		}
	}
	k.kill()
	write(k.path("keys.yaml"), keys+"    require: {fips_140_level: 5}\n")
	if _, err := loadKeyFile(k.path("keys.yaml")); err == nil || !strings.Contains(err.Error(), "not a level") {
		t.Errorf("a level that does not exist: %v", err)
	}
}

// TestChildHoldsSeveralTokens: a child has each token that an authority needs, each with its own PIN and what is declared of it.
func TestChildHoldsSeveralTokens(t *testing.T) {
	t.Parallel()
	database := storagetest.New(t)
	s := newStack(t, database, false)
	second, idle := hsmtest.New(t), hsmtest.New(t)
	s.secondHierarchy(second)
	dir := t.TempDir()
	s.hsm = fmt.Sprintf("{isolation: child, socket: %q}", filepath.Join(dir, "keeper.sock"))
	token := func(name string, token *hsmtest.Token, more string) string {
		return fmt.Sprintf("  - {name: %s, module: %q, token: {serial: %q}, pin: {file: %q}, sessions: 2, timeouts: {open: 20s}%s}\n", name, token.Module, token.Serial, token.PINFile, more)
	}
	config := func(compliance string) string {
		path := filepath.Join(s.dir, "several.yaml")
		text := strings.Replace(s.config("several", ""), "authorities: [", "authorities: [issuing-2, ", 1) + "tokens:\n" +
			token("first", s.token, "") + token("second", second, ", fips_140: {level: 2, certificate: \"1234\"}") + token("idle", idle, "") +
			"compliance: [" + compliance + "]\n"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if said, ok := s.serves(config("{authority: issuing-2, fips_140_level: 2}, {authority: \"*\", local: true}")); !ok {
		t.Fatalf("it does not serve:\n%s", said)
	}
	journal, err := os.ReadFile(filepath.Join(dir, "journal"))
	if err != nil || !strings.Contains(string(journal), `"key":"issuing-1"`) || !strings.Contains(string(journal), `"key":"issuing-2"`) {
		t.Errorf("not both keys signed: %v\n%s", err, journal)
	}
	kept, err := loadKeeperConfig(filepath.Join(dir, "keeper.yaml"))
	if err != nil || len(kept.Tokens) != 2 || kept.Tokens[0].Sessions != 2 || time.Duration(kept.Tokens[0].StartTimeout) != 20*time.Second {
		t.Errorf("the child's configuration: %+v, %v", kept, err)
	}
	if said, ok := s.serves(config("{authority: \"*\", fips_140_level: 2}")); ok || !strings.Contains(said, "no level with the number of its certificate is declared") {
		t.Errorf("a token of which nothing is declared: serves %v:\n%s", ok, said)
	}
}

// secondHierarchy makes a root and an issuing authority in another token, and has the database know them. In its plan, words may be replaced.
func (s *stack) secondHierarchy(fixture *hsmtest.Token, replaced ...string) {
	s.t.Helper()
	ctx := s.t.Context()
	text := strings.NewReplacer(append(replaced, devIssuer, "issuing-2", devRoot, "root-2", "Chancery Development", "Chancery Second")...).Replace(devPlan("http://127.0.0.1:9"))
	plan, err := ceremony.ParsePlan("second.yaml", []byte(text))
	if err != nil {
		s.t.Fatal(err)
	}
	plan.Output = filepath.Join(s.dir, "second")
	token := fixture.Open(s.t)
	if _, err := ceremony.Run(ctx, plan, ceremony.Options{Token: token, Now: time.Now, Random: rand.Reader, Out: io.Discard, Confirm: func(string) error { return nil }}); err != nil {
		s.t.Fatal(err)
	}
	if err := token.Close(); err != nil {
		s.t.Fatal(err)
	}
	store, err := storage.Open(ctx, storage.Config{URL: s.database.URL, MaxConns: 4, Unsafe: s.unsafe, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		s.t.Fatal(err)
	}
	defer store.Close()
	for _, name := range []string{"root-2", "issuing-2"} {
		bundle, err := ceremony.ReadBundle(filepath.Join(plan.Output, name+".authority.json"))
		if err != nil {
			s.t.Fatal(err)
		}
		if err := s.app.registrar(store).AddAuthority(ctx, authorityRecord(bundle)); err != nil {
			s.t.Fatal(err)
		}
	}
}
