package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
	"github.com/chancery-ca/chancery/hsm/probe"
)

// probed runs `chancery hsm probe` in this process.
func probed(ctx context.Context, token *hsmtest.Token, args ...string) (stdout, stderr string, err error) {
	var out, messages bytes.Buffer
	args = append([]string{"hsm", "probe"}, args...)
	if token != nil {
		args = append(args, "--module", token.Module, "--token-label", token.Label, "--pin-file", token.PINFile, "--speed", "10ms",
			"--sessions", "1", "--journal", filepath.Join(filepath.Dir(token.PINFile), token.Label+".jsonl"))
	}
	err = run(ctx, args, Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &messages, Now: time.Now, Random: rand.Reader})
	return out.String(), messages.String(), err
}

func TestProbeReport(t *testing.T) {
	token := hsmtest.New(t)
	open := token.Open(t)
	if _, _, err := open.Generate(hsm.KeySpec{Algorithm: hsm.ECDSAP384, Label: "signs reports"}); err != nil {
		t.Fatal(err)
	}
	if err := open.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "probe.json")
	if out, messages, err := probed(t.Context(), token, "-o", "json", "--out", file, "--sign-key", "signs reports"); err != nil || out != "" || messages != "" {
		t.Fatalf("%v\n%s%s", err, out, messages)
	}
	verify := []string{"dgst", "-sha256", "-verify", file + ".pub", "-signature", file + ".sig", file}
	if out, err := command(t, "openssl", verify...); err != nil {
		t.Errorf("openssl: %v\n%s", err, out)
	}
	written, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var report probe.Report
	if err := json.Unmarshal(written, &report); err != nil || !report.Verdict.Runs || len(report.Checks) < 40 || len(report.Left) > 0 {
		t.Errorf("the report is %s, %v", written, err)
	}
	if bytes.Contains(written, []byte(hsmtest.UserPIN)) {
		t.Error("the report tells the PIN")
	}
	if err := os.WriteFile(file, bytes.Replace(written, []byte(`"runs": true`), []byte(`"runs": TRUE`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := command(t, "openssl", verify...); err == nil {
		t.Errorf("openssl accepts a changed report: %s", out)
	}
	if err := os.WriteFile(file, written, 0o600); err != nil {
		t.Fatal(err)
	}
	table, _, err := probed(t.Context(), nil, "compare", file, file)
	if err != nil || !strings.Contains(table, "| CKM_AES_GCM | yes | yes |") {
		t.Errorf("%v\n%s", err, table)
	}
	out, err := pkcs11Tool(t, token, "--list-objects", "--type", "privkey")
	if err != nil || !strings.Contains(out, "signs reports") || strings.Contains(out, "chancery-probe") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestProbeMisused(t *testing.T) {
	token := hsmtest.New(t)
	for _, args := range [][]string{
		{"--format", "html"},
		{"--sign-key", "ca"},
		{"--sign-key", "ca", "-o", "json"},
		{"--sign-key", "ca", "--out", "x"},
		{"--sessions", "0", "--token-label", token.Label},
		{"--speed", "1h", "--token-label", token.Label},
		{},
		{"compare"},
	} {
		if out, _, err := probed(t.Context(), nil, args...); exitCode(err) != 2 || out != "" {
			t.Errorf("%q: %v, %s", args, err, out)
		}
	}
}

// An interrupted probe says what it saw, removes what it made, and fails.
func TestProbeInterrupted(t *testing.T) {
	token := hsmtest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	messages := writerFunc(func(p []byte) {
		if strings.Contains(string(p), "trying: generate rsa-2048") {
			cancel()
		}
	})
	var out bytes.Buffer
	err := run(ctx, []string{
		"hsm", "probe", "--format", "markdown", "--module", token.Module, "--token-label", token.Label, "--pin-file", token.PINFile,
		"--journal", filepath.Join(t.TempDir(), "journal"),
	},
		Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: messages, Now: time.Now, Random: rand.Reader})
	if !errors.Is(err, context.Canceled) || exitCode(err) != 1 || !strings.Contains(out.String(), "| generate ec-p256 | works |") ||
		!strings.Contains(out.String(), "interrupted") {
		t.Errorf("%v\n%s", err, out.String())
	}
	if keys, err := token.Open(t).Keys(); err != nil || len(keys) > 0 {
		t.Errorf("the token holds %v, %v", keys, err)
	}
}

type writerFunc func([]byte)

func (w writerFunc) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}
