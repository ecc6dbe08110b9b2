package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chancery-ca/chancery/ca"
	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/hsm/hsmtest"
	"github.com/chancery-ca/chancery/issuance"
	"github.com/chancery-ca/chancery/storage/storagetest"
)

// counter is a directory where commands are typed, on a token.
type counter struct {
	t     *testing.T
	dir   string
	token *hsmtest.Token
	flags []string // that select the token
}

func newCounter(t *testing.T) *counter {
	t.Helper()
	c := &counter{t: t, dir: t.TempDir(), token: hsmtest.New(t)}
	c.flags = []string{"--module", c.token.Module, "--token-serial", c.token.Serial, "--pin-file", c.token.PINFile, "--journal", c.path("journal.jsonl")}
	return c
}

func (c *counter) path(name string) string { return filepath.Join(c.dir, name) }

func (c *counter) place(name string, data []byte) string {
	c.t.Helper()
	if err := os.WriteFile(c.path(name), data, 0o600); err != nil {
		c.t.Fatal(err)
	}
	return c.path(name)
}

func (c *counter) bytes(name string) []byte {
	c.t.Helper()
	data, err := os.ReadFile(c.path(name))
	if err != nil {
		c.t.Fatal(err)
	}
	return data
}

// typed runs a command line and returns what it said and its exit code.
func typed(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, complaints bytes.Buffer
	err := run(t.Context(), args, Env{
		Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &complaints, Environ: environ(), Now: time.Now, Random: rand.Reader,
	})
	return out.String(), complaints.String(), exitCode(err)
}

// do runs a command of `chancery hsm` on the token, which must succeed.
func (c *counter) do(args ...string) string {
	c.t.Helper()
	stdout, stderr, code := typed(c.t, "", slices.Concat([]string{"hsm"}, args, c.flags)...)
	if code != 0 {
		c.t.Fatalf("%v: exit code %d\n%s", args, code, stderr)
	}
	return stdout
}

// refused runs one that must fail with the exit code and the words.
func (c *counter) refused(code int, says string, args ...string) {
	c.t.Helper()
	stdout, stderr, got := typed(c.t, "", slices.Concat([]string{"hsm"}, args, c.flags)...)
	if got != code || !strings.Contains(stderr, says) {
		c.t.Errorf("%v: exit code %d, want %d with %q\n%s%s", args, got, code, says, stdout, stderr)
	}
}

func decode[T any](t *testing.T, text string) (into T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &into); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return into
}

// openssl runs in the directory and must succeed.
func (c *counter) openssl(args ...string) {
	c.t.Helper()
	for i, a := range args {
		if _, err := os.Stat(c.path(a)); err == nil && a != "" {
			args[i] = c.path(a)
		}
	}
	if out, err := command(c.t, "openssl", args...); err != nil {
		c.t.Errorf("openssl %v: %v\n%s", args, err, out)
	}
}

func TestHSMKeysAndSignatures(t *testing.T) {
	c := newCounter(t)
	message := c.place("message", bytes.Repeat([]byte("m"), 100_000))
	for algorithm, verify := range map[string][]string{
		"ecdsa-p256": {"dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "message"},
		"ecdsa-p521": {"dgst", "-sha512", "-verify", "public.pem", "-signature", "signature", "message"},
		"rsa-2048":   {"dgst", "-sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest", "-verify", "public.pem", "-signature", "signature", "message"},
		"ed25519":    {"pkeyutl", "-verify", "-pubin", "-inkey", "public.pem", "-rawin", "-in", "message", "-sigfile", "signature"},
	} {
		c.do("key", "generate", "--algorithm", algorithm, "--label", algorithm)
		c.do("sign", "--key", algorithm, "--in", message, "--out", c.path("signature"))
		c.place("public.pem", []byte(c.do("key", "show", "--key", algorithm, "--public", "pem")))
		if shown := decode[map[string]string](t, c.do("key", "show", "--key", algorithm, "--public", "pem", "-o", "json")); shown["public_key"] !=
			string(c.bytes("public.pem")) {
			t.Errorf("%s: %v", algorithm, shown)
		}
		c.openssl(verify...)
		if out := c.do("verify", "--key", algorithm, "--in", message, "--signature", c.path("signature")); out != "valid\n" {
			t.Errorf("%s: %q", algorithm, out)
		}
		changed := c.bytes("signature")
		changed[len(changed)-1] ^= 1
		c.place("changed", changed)
		stdout, _, code := typed(t, "", slices.Concat([]string{"hsm", "verify", "-o", "json", "--key", algorithm, "--in", message, "--signature", c.path("changed")}, c.flags)...)
		if code != 1 || decode[map[string]bool](t, stdout)["valid"] {
			t.Errorf("%s: a changed signature: %d, %s", algorithm, code, stdout)
		}
	}
	digest := sha256.Sum256(c.bytes("message"))
	c.do("sign", "--key", "rsa-2048", "--scheme", "rsa-pkcs1", "--digest", hex.EncodeToString(digest[:]), "--out", c.path("signature"))
	c.place("public.pem", []byte(c.do("key", "show", "--key", "rsa-2048", "--public", "pem")))
	c.openssl("dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "message")

	jwk := decode[map[string]string](t, c.do("key", "show", "--key", "ed25519", "--public", "jwk"))
	if jwk["kty"] != "OKP" || jwk["crv"] != "Ed25519" || jwk["x"] == "" || jwk["d"] != "" {
		t.Errorf("%v", jwk)
	}
	keys := decode[[]objectJSON](t, c.do("key", "list", "-o", "json"))
	if len(keys) != 8 || keys[0].Attributes["CKA_TOKEN"] != "true" {
		t.Errorf("%+v", keys)
	}
	shown := c.do("key", "show", "--key", "ecdsa-p256")
	for _, want := range []string{"CKO_PRIVATE_KEY", "CKA_NEVER_EXTRACTABLE    true", "CKA_ALLOWED_MECHANISMS   CKM_ECDSA", "BEGIN PUBLIC KEY"} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is not shown:\n%s", want, shown)
		}
	}
	c.refused(1, "taken", "key", "generate", "--algorithm", "ecdsa-p256", "--label", "ecdsa-p256")
	c.refused(2, `the algorithm "rsa-512" is unknown; take one of`, "key", "generate", "--algorithm", "rsa-512", "--label", "small")
	c.refused(2, "take sign, encrypt or wrap", "key", "generate", "--algorithm", "rsa-2048", "--label", "small", "--for", "everything")
	c.refused(2, "take rsa-pss, rsa-pkcs1, ecdsa or eddsa", "sign", "--key", "rsa-2048", "--scheme", "pss", "--in", message)
	c.refused(1, "not for", "key", "generate", "--algorithm", "ecdsa-p256", "--label", "x", "--for", "encrypt")
	c.refused(2, "which key?", "sign", "--in", message)
	c.refused(2, "what is signed?", "sign", "--key", "rsa-2048")
	c.refused(1, "no such key", "sign", "--key", "nobody", "--in", message)
	// Destroying asks, and says what it could not ask.
	c.refused(1, "could not be checked", "key", "destroy", "--key", "ecdsa-p256")
	c.do("key", "destroy", "--key", "ecdsa-p256", "--yes")
	c.refused(1, "no such key", "key", "destroy", "--key", "ecdsa-p256", "--yes")
	c.refused(1, "`chancery hsm key list` shows the keys", "key", "show", "--key", "ecdsa-p256")
	c.refused(1, "CKA_MODIFIABLE", "key", "label", "--key", "ed25519", "--label", "other", "--yes")
	c.do("key", "generate", "--algorithm", "aes-256", "--label", "before", "--modifiable")
	c.do("key", "label", "--key", "before", "--label", "after", "--yes")
	c.do("key", "show", "--key", "after")

	// Everything is in the journal, and nothing of the data.
	journal := string(c.bytes("journal.jsonl"))
	for _, want := range []string{`"op":"generate"`, `"op":"sign"`, `"op":"destroy"`, `"mechanism":"CKM_ECDSA"`, `"input_digest":"` + hex.EncodeToString(digest[:]), `"actor":"local:`, `"result":"ok"`} {
		if !strings.Contains(journal, want) {
			t.Errorf("the journal lacks %s", want)
		}
	}
	for _, line := range strings.Split(strings.TrimSpace(journal), "\n") {
		decode[journalEntry](t, line)
	}
	if strings.Contains(journal, hsmtest.UserPIN) {
		t.Error("the journal holds the PIN")
	}
}

func TestHSMEncryption(t *testing.T) {
	c := newCounter(t)
	plain := make([]byte, 300_000)
	rand.Read(plain)
	c.place("plain", plain)
	c.do("key", "generate", "--algorithm", "aes-256", "--label", "files")
	c.do("key", "generate", "--algorithm", "aes-128", "--label", "other")
	c.do("key", "generate", "--algorithm", "rsa-2048", "--label", "mail", "--for", "encrypt")
	for _, key := range []string{"files", "mail"} {
		c.do("encrypt", "--key", key, "--oaep-hash", "sha1", "--in", c.path("plain"), "--out", c.path("sealed"))
		c.do("decrypt", "--in", c.path("sealed"), "--out", c.path("opened-"+key))
		if !bytes.Equal(c.bytes("opened-"+key), plain) {
			t.Errorf("%s: something else came back", key)
		}
	}
	sealed := c.bytes("sealed")
	c.place("short", sealed[:len(sealed)-70_000])
	c.refused(1, "damaged", "decrypt", "--in", c.path("short"), "--out", c.path("nothing"))
	c.refused(1, "encrypted for the key with id", "decrypt", "--key", "other", "--in", c.path("sealed"), "--out", c.path("nothing"))
	c.refused(1, "no encrypted file", "decrypt", "--in", c.path("plain"), "--out", c.path("nothing"))
	if left, err := filepath.Glob(c.path("*nothing*")); err != nil || len(left) != 0 {
		t.Errorf("failures left %v", left)
	}
	if left, err := filepath.Glob(c.path(".nothing*")); err != nil || len(left) != 0 {
		t.Errorf("failures left %v", left)
	}
	c.place("note", []byte("a note"))
	c.do("encrypt", "--raw", "--context", "for you", "--key", "files", "--in", c.path("note"), "--out", c.path("raw"))
	c.do("decrypt", "--raw", "--context", "for you", "--key", "files", "--in", c.path("raw"), "--out", c.path("note2"))
	if string(c.bytes("note2")) != "a note" {
		t.Errorf("%q", c.bytes("note2"))
	}
	c.refused(1, "another key, context or mode", "decrypt", "--raw", "--context", "for me", "--key", "files", "--in", c.path("raw"), "--out", c.path("nothing"))
	c.refused(1, "sha1", "encrypt", "--raw", "--key", "mail", "--in", c.path("note"), "--out", c.path("nothing"))

	c.do("key", "generate", "--algorithm", "hmac-sha256", "--label", "mac")
	mac := strings.TrimSpace(c.do("hmac", "--key", "mac", "--in", c.path("note")))
	if out := c.do("hmac", "--key", "mac", "--in", c.path("note"), "--verify", mac); out != "valid\n" {
		t.Errorf("%q", out)
	}
	c.refused(1, "", "hmac", "--key", "mac", "--in", c.path("plain"), "--verify", mac)
	c.do("key", "generate", "--algorithm", "hmac-sha512", "--label", "long")
	if mac := strings.TrimSpace(c.do("hmac", "--key", "long", "--in", c.path("note"))); len(mac) != 128 {
		t.Errorf("with a key for SHA-512: %s", mac)
	}
	c.refused(2, "--hash", "hmac", "--key", "long", "--hash", "rot13", "--in", c.path("note"))
	want := sha256.Sum256([]byte("a note"))
	if got := strings.TrimSpace(c.do("digest", "--in", c.path("note"))); got != hex.EncodeToString(want[:]) {
		t.Errorf("%s", got)
	}
	if a, b := c.do("random", "16"), c.do("random", "16"); a == b || len(a) != 33 {
		t.Errorf("%s %s", a, b)
	}
	c.refused(2, "between 1 and", "random", "0")
}

// A key goes from one token to another; see docs/hsm.md.
func TestHSMWrapForAnotherToken(t *testing.T) {
	here, there := newCounter(t), newCounter(t)
	there.do("key", "generate", "--algorithm", "rsa-2048", "--label", "transport", "--for", "wrap")
	here.place("transport.pem", []byte(there.do("key", "show", "--key", "transport", "--public", "pem")))
	here.refused(1, "not confirmed", "key", "generate", "--algorithm", "ecdsa-p256", "--label", "travels", "--extractable")
	here.do("key", "generate", "--algorithm", "ecdsa-p256", "--label", "travels", "--extractable", "--yes")
	here.do("key", "generate", "--algorithm", "ecdsa-p256", "--label", "stays")
	// Nobody is asked whether a key shall leave that cannot.
	here.refused(1, "made to stay", "wrap", "--key", "stays", "--recipient", here.path("transport.pem"), "--oaep-hash", "sha1", "--out", here.path("w"))
	here.refused(1, "made to stay", "wrap", "--key", "stays", "--recipient", here.path("transport.pem"), "--oaep-hash", "sha1", "--out", here.path("w"), "--yes")
	here.refused(1, "not confirmed", "wrap", "--key", "travels", "--recipient", here.path("transport.pem"), "--oaep-hash", "sha1", "--out", here.path("w"))
	here.refused(2, "under which key?", "wrap", "--key", "travels", "--out", here.path("w"))
	here.do("wrap", "--key", "travels", "--recipient", here.path("transport.pem"), "--oaep-hash", "sha1", "--out", here.path("travels.wrapped"),
		"--public-out", here.path("travels.pem"), "--yes")
	// A secret key has no public half: what cannot be delivered does not leave.
	here.do("key", "generate", "--algorithm", "aes-256", "--label", "secret", "--extractable", "--yes")
	before := bytes.Count(here.bytes("journal.jsonl"), []byte(`"op":"wrap","result":"ok"`))
	here.refused(1, "no such key", "wrap", "--key", "secret", "--recipient", here.path("transport.pem"), "--oaep-hash", "sha1", "--out", here.path("w"),
		"--public-out", here.path("p"), "--yes")
	if after := bytes.Count(here.bytes("journal.jsonl"), []byte(`"op":"wrap","result":"ok"`)); before != 1 || after != before {
		t.Errorf("a key was wrapped for nobody: %d records before, %d after", before, after)
	}
	for _, format := range []string{"text", "json"} { // where the public key goes, nothing else does
		public := here.do("wrap", "--key", "travels", "--recipient", here.path("transport.pem"), "--oaep-hash", "sha1",
			"--out", here.path("again.wrapped"), "--public-out", "-", "--yes", "-o", format)
		if public != string(here.bytes("travels.pem")) {
			t.Errorf("-o %s: %q", format, public)
		}
	}
	unwrap := []string{
		"unwrap", "--under", "transport", "--oaep-hash", "sha1", "--algorithm", "ecdsa-p256", "--label", "travels",
		"--public-key", here.path("travels.pem"), "--in",
	}
	damaged := here.bytes("travels.wrapped")
	damaged[300] ^= 1
	here.place("damaged", damaged)
	there.refused(1, "damaged", append(unwrap, here.path("damaged"))...)
	there.refused(1, "no such key", "key", "show", "--key", "travels", "--public", "pem")
	there.do(append(unwrap, here.path("travels.wrapped"))...)
	there.place("message", []byte("m"))
	there.do("sign", "--key", "travels", "--in", there.path("message"), "--out", there.path("signature"))
	here.do("verify", "--key", "travels", "--in", there.path("message"), "--signature", there.path("signature"))

	// That a policy would permit it to leave again does not have it leave: that has to be said.
	policy := there.place("usage.yaml", []byte("others: permit\nkeys:\n  - {key: {label: again}, operations: [sign, verify, export]}\n"+
		"  - {key: {label: further}, operations: [sign, verify, export]}\n"))
	for label, more := range map[string][]string{"again": nil, "further": {"--extractable"}} {
		again := slices.Concat(unwrap, []string{here.path("travels.wrapped"), "--label", label, "--usage", policy}, more)
		there.do(again...)
		for _, o := range decode[keyJSON](t, there.do("key", "show", "--key", label, "-o", "json")).Objects {
			if leaves := o.Attributes["CKA_EXTRACTABLE"]; o.Class == "CKO_PRIVATE_KEY" && leaves != strconv.FormatBool(more != nil) {
				t.Errorf("%s: CKA_EXTRACTABLE is %s", label, leaves)
			}
		}
	}
}

func TestHSMCertificatesAndAttestation(t *testing.T) {
	c := newCounter(t)
	c.do("key", "generate", "--algorithm", "ecdsa-p256", "--label", "tls")
	c.place("public.pem", []byte(c.do("key", "show", "--key", "tls", "--public", "pem")))
	c.openssl("genrsa", "-out", c.path("ca.key"), "2048")
	c.openssl("req", "-x509", "-new", "-key", c.path("ca.key"), "-subj", "/CN=ca", "-out", c.path("ca.pem"))
	c.openssl("x509", "-new", "-subj", "/CN=www.example", "-force_pubkey", c.path("public.pem"), "-CA", c.path("ca.pem"), "-CAkey", c.path("ca.key"), "-set_serial", "7", "-out", c.path("tls.pem"))
	if out := c.do("certificate", "import", "--in", c.path("tls.pem")); !strings.Contains(out, "paired with its key") {
		t.Error(out)
	}
	c.refused(1, "in the token already", "certificate", "import", "--in", c.path("tls.pem"))
	c.refused(1, "name a label and an id", "certificate", "import", "--in", c.path("ca.pem"))
	c.refused(1, "no certificate in PEM or DER", "certificate", "import", "--in", c.path("public.pem"))
	c.do("certificate", "import", "--in", c.path("ca.pem"), "--label", "ca", "--id", "ca01")
	all := decode[[]tokenCertificateJSON](t, c.do("certificate", "list", "-o", "json"))
	if len(all) != 2 {
		t.Errorf("%+v", all)
	}
	if c.do("certificate", "fetch", "--key", "tls") != string(c.bytes("tls.pem")) {
		t.Error("another certificate was fetched")
	}
	c.refused(1, "not confirmed", "certificate", "delete", "--key", "tls")
	c.do("certificate", "delete", "--key", "tls", "--yes")
	c.refused(1, "no certificate with", "certificate", "fetch", "--key", "tls")
	c.refused(1, "no certificate with", "certificate", "delete", "--key", "tls")

	c.do("attest", "--key", "tls", "--out", c.path("evidence.json"))
	out, stderr, code := typed(t, "", "hsm", "attest", "--verify", c.path("evidence.json"), "--trusted", c.path("public.pem"))
	if code != 0 || !strings.Contains(out, "which is the trusted one") || !strings.Contains(out, "CKM_EC_KEY_PAIR_GEN") || !strings.Contains(out, "confined") {
		t.Errorf("%d: %s%s", code, out, stderr)
	}
	// Who signed is told by the key. The names that stand beside the signature are anybody's to change, which is said.
	c.do("key", "generate", "--algorithm", "ecdsa-p256", "--label", "auditor")
	c.do("attest", "--key", "tls", "--signer", "auditor", "--out", c.path("by-auditor.json"))
	for name, who := range map[string]string{"evidence.json": "the attested key itself", "by-auditor.json": "another than the attested one"} {
		renamed := bytes.ReplaceAll(bytes.ReplaceAll(c.bytes(name), []byte(`"tls"`), []byte(`"trusted"`)), []byte(`"auditor"`), []byte(`"trusted"`))
		out, stderr, code := typed(t, "", "hsm", "attest", "--verify", c.place("renamed.json", renamed))
		if bytes.Equal(renamed, c.bytes(name)) || code != 0 || !strings.Contains(out, who) ||
			!strings.Contains(out, "the label and the id beside the signature are not signed") {
			t.Errorf("%s: %d: %s%s", name, code, out, stderr)
		}
		out, _, _ = typed(t, "", "hsm", "attest", "--verify", c.path("renamed.json"), "-o", "json")
		told := decode[struct {
			Itself   *bool    `json:"signer_is_attested_key"`
			Unsigned []string `json:"unsigned"`
		}](t, out)
		if told.Itself == nil || *told.Itself != (name == "evidence.json") || !slices.Equal(told.Unsigned, []string{"signature.label", "signature.id"}) {
			t.Errorf("%s: %+v", name, told)
		}
	}
	c.openssl("pkey", "-in", c.path("ca.key"), "-pubout", "-out", c.path("other.pem"))
	if _, stderr, code := typed(t, "", "hsm", "attest", "--verify", c.path("evidence.json"), "--trusted", c.path("other.pem")); code != 1 || !strings.Contains(stderr, "another key signed it") {
		t.Errorf("%d: %s", code, stderr)
	}
	c.place("changed.json", bytes.Replace(c.bytes("evidence.json"), []byte(`"evidence": "e`), []byte(`"evidence": "f`), 1))
	if _, stderr, code := typed(t, "", "hsm", "attest", "--verify", c.path("changed.json")); code != 1 || !strings.Contains(stderr, "not valid") {
		t.Errorf("%d: %s", code, stderr)
	}
}

func TestHSMTokensAndPINs(t *testing.T) {
	c := newCounter(t)
	listed := decode[[]struct {
		Slots []struct {
			Token *struct {
				Serial string   `json:"serial"`
				Flags  []string `json:"flags"`
			} `json:"token"`
		} `json:"slots"`
	}](t, func() string {
		out, _, _ := typed(t, "", "hsm", "list", "-o", "json", "--module", c.token.Module, "--mechanisms")
		return out
	}())
	found := false
	for _, slot := range listed[0].Slots {
		found = found || slot.Token != nil && slot.Token.Serial == c.token.Serial && slices.Contains(slot.Token.Flags, "CKF_TOKEN_INITIALIZED")
	}
	if !found {
		t.Errorf("the token is not listed: %+v", listed)
	}
	if out, _, code := typed(t, "", "hsm", "list", "--module", c.token.Module); code != 0 || !strings.Contains(out, "not initialised yet; `chancery hsm init`") {
		t.Errorf("a free slot: %d %s", code, out)
	}
	so, user := c.place("so", []byte("officer of this test\n")), c.place("user", []byte("user of this test\n"))
	weak := c.place("weak", []byte("12345678\n"))
	label := "cli-" + filepath.Base(c.dir)
	init := []string{"hsm", "init", "--module", c.token.Module, "--label", label, "--journal", c.path("journal.jsonl"), "-o", "json", "--so-pin-file", so, "--pin-file"}
	if _, stderr, code := typed(t, "", append(init, weak)...); code != 1 || !strings.Contains(stderr, "row") || strings.Contains(stderr, "12345678") {
		t.Errorf("a weak PIN: %d %s", code, stderr)
	}
	if _, stderr, code := typed(t, "", append(init, so)...); code != 1 || !strings.Contains(stderr, "are the same") {
		t.Errorf("one PIN for both: %d %s", code, stderr)
	}
	out, stderr, code := typed(t, "", append(init, user)...)
	if code != 0 {
		t.Fatalf("%d: %s", code, stderr)
	}
	serial := decode[map[string]string](t, out)["serial"]
	if _, stderr, code := typed(t, "", append(init, user)...); code != 1 || !strings.Contains(stderr, "initialised already") {
		t.Errorf("a second time: %d %s", code, stderr)
	}
	next, third := c.place("next", []byte("the next one, please\n")), c.place("third", []byte("and a third one\n"))
	token := []string{"--module", c.token.Module, "--token-serial", serial, "--journal", c.path("journal.jsonl")}
	for _, step := range []struct {
		code int
		says string
		args []string
	}{
		{0, "", []string{"pin", "change", "--pin-file", user, "--new-pin-file", next}},
		{0, "", []string{"key", "list", "--pin-file", next}},
		{1, "the PIN is wrong", []string{"pin", "change", "--pin-file", user, "--new-pin-file", third}},
		{1, "--retry-after-failed-pin", []string{"key", "list", "--pin-file", next}},
		{0, "", []string{"key", "list", "--pin-file", next, "--retry-after-failed-pin"}},
		{0, "", []string{"key", "list", "--pin-file", next}},
		{1, "the PIN is wrong", []string{"key", "list", "--pin-file", user}},
		{1, "an earlier log-in failed", []string{"key", "list", "--pin-file", user}},
		{1, "who has one must not have the other", []string{"pin", "unlock", "--so-pin-file", so, "--new-pin-file", so}},
		{0, "", []string{"pin", "unlock", "--so-pin-file", so, "--new-pin-file", third}},
		{0, "", []string{"key", "list", "--pin-file", third}},
		{1, "tried first", []string{"pin", "change", "--pin-file", third, "--new-pin-file", c.place("word", []byte("password1\n"))}},
		{0, "", []string{"pin", "change", "--so", "--so-pin-file", so, "--new-pin-file", next}},
		{1, "the PIN is wrong", []string{"pin", "unlock", "--so-pin-file", so, "--new-pin-file", user}},
		{2, "no terminal", []string{"key", "list"}},
		{1, "no such token", []string{"key", "list", "--pin-file", third, "--token-label", "nobody"}},
	} {
		_, stderr, code := typed(t, "", slices.Concat([]string{"hsm"}, step.args, token)...)
		if code != step.code || !strings.Contains(stderr, step.says) {
			t.Errorf("%v: %d %s", step.args, code, stderr)
		}
	}
}

// A PIN on the command line is refused with what to do instead, and is not said again.
func TestHSMRefusesPINsInArguments(t *testing.T) {
	for _, args := range [][]string{
		{"hsm", "key", "list", "--pin", "secret99"},
		{"hsm", "key", "list", "--pin=secret99"},
		{"hsm", "init", "--so-pin", "secret99"},
		{"hsm", "pin", "change", "--new-pin=secret99"},
		{"hsm", "sign", "-psecret99"},
		{"hsm", "sign", "-p", "secret99"},
		{"ceremony", "run", "--pin", "secret99", "plan.yaml"},
	} {
		stdout, stderr, code := typed(t, "", args...)
		if code != 2 || !strings.Contains(stderr, "--pin-file") || strings.Contains(stdout+stderr, "secret99") {
			t.Errorf("%v: %d %s", args, code, stderr)
		}
	}
}

func TestHSMBadInput(t *testing.T) {
	c := newCounter(t)
	text, config := c.place("text.so", []byte("no library\n")), c.place("chancery.yaml", []byte(soundConfig))
	list := []string{"hsm", "key", "list", "--token-label", "x", "--pin-file", c.token.PINFile, "--journal", c.path("j"), "--module"}
	for _, step := range []struct {
		code int
		says string
		args []string
	}{
		{1, "is not there", append(list, "/nowhere/lib.so")},
		{1, "is no PKCS#11 library", append(list, text)},
		{1, "is a directory", append(list, c.dir)},
		{2, "which token?", []string{"hsm", "key", "list"}},
		{2, "--config names the token", []string{"hsm", "key", "list", "--config", config, "--token-label", "x"}},
		{1, "name another file by --journal", append(slices.Clone(list), c.token.Module, "--journal", "/nowhere/journal")},
		{2, "needs a verb", []string{"hsm", "key"}},
		{2, "hexadecimal", append(slices.Clone(list), c.token.Module)[:0:0]},
	} {
		if len(step.args) == 0 {
			step.args = []string{"hsm", "key", "show", "--key-id", "xyz", "--token-label", "x"}
		}
		if _, stderr, code := typed(t, "", step.args...); code != step.code || !strings.Contains(stderr, step.says) {
			t.Errorf("%v: %d %s, want %q", step.args, code, stderr, step.says)
		}
	}
	// A token whose PIN is locked is not asked, and two tokens of one label are told apart by their serials.
	locked := hsmtest.NewFaulty(t)
	locked.Begin(t, hsmtest.Locked)
	if _, stderr, code := typed(t, "", append(slices.Clone(list), locked.Module, "--token-label", c.token.Label)...); code != 1 || !strings.Contains(stderr, "hsm pin unlock") {
		t.Errorf("a locked PIN: %d %s", code, stderr)
	}
	if tried := locked.FailedLogins(t); tried != 0 {
		t.Errorf("%d log-ins were tried with a locked PIN", tried)
	}
	for range 2 {
		if out, err := command(t, "softhsm2-util", "--init-token", "--free", "--label", "one-of-two", "--so-pin", hsmtest.SOPIN, "--pin", hsmtest.UserPIN); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	_, stderr, code := typed(t, "", append(slices.Clone(list), c.token.Module, "--token-label", "one-of-two")...)
	serials := regexp.MustCompile(`serial ([0-9a-f]{16})`).FindAllString(stderr, -1)
	if code != 1 || !strings.Contains(stderr, "name one by its serial") || len(serials) != 2 {
		t.Errorf("an ambiguous label: %d %s", code, stderr)
	}
	// Two keys of one label, as other programs make them.
	for _, id := range []string{"01", "02"} {
		if out, err := pkcs11Tool(t, c.token, "--keypairgen", "--key-type", "EC:prime256v1", "--label", "twin", "--id", id); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	c.refused(1, "name one by --key and --key-id", "key", "destroy", "--key", "twin", "--yes")
	c.refused(1, "more than one matches", "sign", "--key", "twin", "--in", text)
	c.do("key", "destroy", "--key", "twin", "--key-id", "01", "--yes")
	c.do("sign", "--key", "twin", "--in", text, "--out", c.path("s"))
}

func TestHSMUsagePolicy(t *testing.T) {
	c := newCounter(t)
	policy := c.place("usage.yaml", []byte(`others: refuse
keys:
  - {key: {label: twice}, operations: [sign, verify], uses: 2}
  - {key: {label: past}, operations: [sign], until: 2020-01-01}
`))
	message := c.place("message", []byte("m"))
	c.flags = append(c.flags, "--usage", policy)
	for _, label := range []string{"twice", "past"} {
		c.do("key", "generate", "--algorithm", "ecdsa-p256", "--label", label)
	}
	c.refused(1, "not named in it", "key", "generate", "--algorithm", "ecdsa-p256", "--label", "other")
	c.refused(1, "until 2020-01-01", "sign", "--key", "past", "--in", message)
	for range 2 {
		c.do("sign", "--key", "twice", "--in", message, "--out", c.path("s"))
	}
	c.refused(1, "as many times as it may", "sign", "--key", "twice", "--in", message)
	c.do("verify", "--key", "twice", "--in", message, "--signature", c.path("s"))
	c.refused(1, "the key is for sign", "key", "destroy", "--key", "twice", "--yes")
	if journal := string(c.bytes("journal.jsonl")); !strings.Contains(journal, `"result":"refused"`) {
		t.Error("refusals are not in the journal")
	}
}

// What a destruction that was cut short has left is shown, and destroyed by the same command.
func TestHSMDestroysWhatIsLeft(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	id := decode[keyJSON](t, c.do("key", "generate", "--algorithm", "ecdsa-p256", "--label", "torn", "-o", "json")).ID
	c.do("key", "generate", "--algorithm", "ecdsa-p256", "--label", "whole")
	c.do("key", "generate", "--algorithm", "aes-256", "--label", "secret")
	if out, err := command(t, "pkcs11-tool", "--module", c.token.Module, "--token-label", c.token.Label, "--login", "--pin", hsmtest.UserPIN,
		"--delete-object", "--type", "privkey", "--id", id); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, o := range decode[[]objectJSON](t, c.do("key", "list", "-o", "json")) {
		if o.Half != (o.Label == "torn") {
			t.Errorf("%+v", o)
		}
	}
	if list := c.do("key", "list"); strings.Count(list, "(half)") != 1 || !strings.Contains(list, "CKO_PUBLIC_KEY (half)") {
		t.Error(list)
	}
	c.refused(1, "--yes to destroy it", "key", "destroy", "--key", "torn")
	if said := c.do("key", "destroy", "--key", "torn", "--yes"); !strings.Contains(said, "the public half") {
		t.Error(said)
	}
	c.refused(1, "no such key", "key", "destroy", "--key", "torn", "--yes")
	c.do("key", "destroy", "--key", "whole", "--yes")
	if left := decode[[]objectJSON](t, c.do("key", "list", "-o", "json")); len(left) != 1 || left[0].Label != "secret" {
		t.Errorf("left are %+v", left)
	}
}

// With a configuration, operations are in the database's audit log, and a key that an authority uses is not destroyed.
func TestHSMWithConfiguration(t *testing.T) {
	database := storagetest.New(t)
	s := newStack(t, database, false)
	path := filepath.Join(s.dir, "commands.yaml")
	if err := os.WriteFile(path, []byte(s.config("commands", s.token.Module)), 0o600); err != nil {
		t.Fatal(err)
	}
	do := func(code int, says, stdin string, args ...string) {
		t.Helper()
		if _, stderr, got := typed(t, stdin, slices.Concat([]string{"hsm"}, args, []string{"--config", path})...); got != code || !strings.Contains(stderr, says) {
			t.Errorf("%v: %d %s", args, got, stderr)
		}
	}
	do(1, "the authority "+devIssuer, "", "key", "destroy", "--key", devIssuer, "--yes")
	do(1, "the authority "+devRoot, "", "key", "label", "--key", devRoot, "--label", "x", "--yes")
	do(0, "", "", "key", "generate", "--algorithm", "aes-256", "--label", "spare")
	do(1, "not confirmed", "no\n", "key", "destroy", "--key", "spare")
	do(0, "", "yes\n", "key", "destroy", "--key", "spare")
	ops := strings.Join(database.Column(t, `SELECT convert_from(leaf, 'UTF8') FROM audit_leaves WHERE kind = 'hsm.operation'`), "\n")
	for _, want := range []string{`"op":"generate"`, `"op":"destroy"`, `"key_label":"spare"`, `"actor":"local:`} {
		if !strings.Contains(ops, want) {
			t.Errorf("the audit log lacks %s:\n%s", want, ops)
		}
	}
}

// An authority that is added while somebody is asked whether its key shall be destroyed keeps its key.
func TestHSMDestroyLooksOnceMore(t *testing.T) {
	t.Parallel()
	s := newHierarchy(t, storagetest.New(t), false, devIssuerKey)
	answer, answers := io.Pipe()
	asked, question := io.Pipe()
	said := make(chan string, 1)
	go func() {
		err := run(t.Context(), []string{"hsm", "key", "destroy", "--key", devIssuer, "--config", s.write("commands", s.token.Module)}, Env{
			Stdin: answer, Stdout: io.Discard, Stderr: question, Environ: environ(), Now: time.Now, Random: rand.Reader,
		})
		question.CloseWithError(io.EOF)
		said <- fmt.Sprint(exitCode(err))
	}()
	stderr := bufio.NewReader(asked)
	if text, err := stderr.ReadString(']'); err != nil || !strings.Contains(text, "knows a use of the key") {
		t.Fatalf("%q, %v", text, err)
	}
	s.register()
	if _, err := io.WriteString(answers, "yes\n"); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(stderr)
	if code := <-said; err != nil || code != "1" || !strings.Contains(string(rest), "the authority "+devIssuer) {
		t.Errorf("exit code %s, %v\n%s", code, err, rest)
	}
	if _, err := s.token.Open(t).PublicKey(hsm.KeyRef{Label: devIssuer}); err != nil {
		t.Errorf("the authority's key: %v", err)
	}
}

// An authority that has nothing left to sign needs no key. One that has not begun does, and a root whatever the database knows of it.
func TestAnAuthorityThatIsOverNeedsNoKey(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	store := storeOf(t, s.database)
	authorities, err := store.Authorities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w := &worksite{store: store}
	check := func(when, name string, now time.Time, want string) {
		t.Helper()
		i := slices.IndexFunc(authorities, func(a ca.AuthorityRecord) bool { return a.Name == name })
		over, why, err := w.over(t.Context(), authorities[i], authorities, now)
		if err != nil || over != (want != "") || !strings.Contains(why, want) {
			t.Errorf("%s %s: %t, %q, %v; want %q", name, when, over, why, err, want)
		}
	}
	now := time.Now()
	check("before it has issued", devIssuer, now, "")
	s.seed(3)
	check("with valid certificates", devIssuer, now, "")
	check("after its last certificate", devIssuer, now.Add(48*time.Hour), "no certificate is valid")
	check("without any of its own", devRoot, now.Add(48*time.Hour), "")
	child := authorities[slices.IndexFunc(authorities, func(a ca.AuthorityRecord) bool { return a.Name == devIssuer })]
	child.Name, child.Parent = "beneath", devIssuer
	authorities = append(authorities, child)
	check("while an authority beneath it lasts", devIssuer, now.Add(48*time.Hour), "")
	authorities = authorities[:len(authorities)-1]
	check("at its end", devIssuer, now.AddDate(60, 0, 0), "which ended on 20")
	check("at its end", devRoot, now.AddDate(60, 0, 0), "which ended on 20")
	if _, err := s.app.registrar(store).RevokeAuthority(t.Context(), devIssuer, issuance.Superseded, ""); err != nil {
		t.Fatal(err)
	}
	check("once it is revoked", devIssuer, now, "which is revoked since 20")
}

// What is revoked stays on every CRL until its end (DESIGN, promise 5): until then the key is needed, whatever the clock of this machine says.
func TestHSMDestroysNoKeyWhoseCRLsAreNeeded(t *testing.T) {
	t.Parallel()
	s := newStack(t, storagetest.New(t), false)
	r := s.start("replica-1", s.token.Module)
	r.newSubject(t, "www.dev.example")
	for _, serial := range s.database.Column(t, `SELECT encode(serial, 'hex') FROM certificates`) {
		r.mustRevoke(t.Context(), t, serial, "superseded")
	}
	r.stop()
	s.authorities = "successor"
	var said bytes.Buffer
	err := run(t.Context(), []string{"hsm", "key", "destroy", "--key", devIssuer, "--yes", "--config", s.write("commands", s.token.Module)}, Env{
		Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: &said, Environ: environ(), Random: rand.Reader,
		Now: func() time.Time { return time.Now().AddDate(10, 0, 0) }, // the authority would have ended
	})
	if exitCode(err) != 1 || !strings.Contains(said.String(), "the authority "+devIssuer+", whose CRLs show a revoked certificate until 20") {
		t.Errorf("%v\n%s", err, said.String())
	}
	if _, err := s.token.Open(t).PublicKey(hsm.KeyRef{Label: devIssuer}); err != nil {
		t.Errorf("the authority's key: %v", err)
	}
}

// A private key whose public half is gone may be anybody's: with a configuration it is not destroyed.
func TestHSMDestroysNoKeyThatCannotBeTold(t *testing.T) {
	t.Parallel()
	s := newHierarchy(t, storagetest.New(t), false, devIssuerKey)
	config := s.write("commands", s.token.Module)
	withConfig := []string{"--config", config}
	without := []string{
		"--module", s.token.Module, "--token-serial", s.token.Serial, "--pin-file", s.token.PINFile,
		"--journal", filepath.Join(s.dir, "journal.jsonl"),
	}
	do := func(code int, says string, flags []string, args ...string) {
		t.Helper()
		if _, stderr, got := typed(t, "", slices.Concat([]string{"hsm", "key"}, args, flags)...); got != code || !strings.Contains(stderr, says) {
			t.Errorf("%v: %d %s", args, got, stderr)
		}
	}
	for _, half := range []string{"pubkey", "privkey"} {
		do(0, "", withConfig, "generate", "--algorithm", "ecdsa-p256", "--label", half, "--id", "0a0b", "--modifiable")
		if out, err := command(t, "pkcs11-tool", "--module", s.token.Module, "--token-label", s.token.Label, "--login", "--pin", hsmtest.UserPIN,
			"--delete-object", "--type", half, "--id", "0a0b"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if half == "privkey" { // the public half that is left is nobody's key
			do(0, "", withConfig, "destroy", "--key", half, "--yes")
			continue
		}
		do(1, "its public half is not in the token", withConfig, "destroy", "--key", half, "--yes")
		do(1, "its public half is not in the token", withConfig, "label", "--key", half, "--label", "other", "--yes")
		do(0, "", without, "destroy", "--key", half, "--yes")
	}
	do(0, "", withConfig, "generate", "--algorithm", "aes-256", "--label", "secret")
	do(0, "", withConfig, "destroy", "--key", "secret", "--yes")
}

// A ceremony does not begin on a token that is not what the configuration requires of those whose keys it uses.
func TestCeremonyRefusesWhatDoesNotComply(t *testing.T) {
	c := newCounter(t)
	config := func(of, required string) string {
		return c.place("chancery.yaml", []byte(fmt.Sprintf("database: {url: \"postgres://nowhere/x\"}\nhsm: {module: %q, token: {serial: %q}, pin: {file: %q}}\nauthorities: [%s]\ncompliance: [{%s, %s}]\n",
			c.token.Module, c.token.Serial, c.token.PINFile, devIssuer, of, required)))
	}
	ceremony := func(plan, of, required, out string) (string, int) {
		_, stderr, code := typed(t, "", "ceremony", "run", plan, "--yes", "--config", config(of, required), "--output-dir", c.path(out))
		return stderr, code
	}
	plan, issuer := c.place("plan.yaml", []byte(devPlan("http://127.0.0.1:9"))), "authority: "+devIssuer
	if said, code := ceremony(plan, issuer, "hardware: true", "refused"); code != 1 || !strings.Contains(said, "CKF_HW_SLOT") {
		t.Errorf("%d: %s", code, said)
	}
	if keys := decode[[]objectJSON](t, c.do("key", "list", "-o", "json")); len(keys) != 0 {
		t.Errorf("it made %+v", keys)
	}
	if said, code := ceremony(plan, issuer, "local: true, never_extractable: true", "made"); code != 0 {
		t.Errorf("%d: %s", code, said)
	}

	// Later ceremonies use keys that are there, of which several have the same label.
	var root string
	for _, o := range decode[[]objectJSON](t, c.do("key", "list", "-o", "json")) {
		if o.Label == devRoot {
			root = o.ID
		}
	}
	for _, id := range []string{"01", "02"} {
		if out, err := pkcs11Tool(t, c.token, "--keypairgen", "--key-type", "EC:prime256v1", "--label", "twin", "--id", id); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	const another = `authorities: [{name: another, %s, key: {algorithm: ecdsa-p256, %s}, subject: {common_name: Another}, validity: 1y, path_len: 0, crl: {%s},
    urls: {crl: "http://127.0.0.1:9/a.crl", issuer: "http://127.0.0.1:9/a.cer"}}]
`
	rootKey := fmt.Sprintf("certificate: made/%s.cer, key: {label: %[1]s, id: %q}", devRoot, root)
	rootURLs := fmt.Sprintf("urls: {crl: \"http://127.0.0.1:9/crl/%s.crl\", issuer: \"http://127.0.0.1:9/ca/%[1]s.cer\"}", devRoot)
	for what, p := range map[string]struct{ of, text string }{
		"an issuer": {
			"authority: " + devRoot,
			fmt.Sprintf("issuers: [{name: %s, %s, %s}]\n", devRoot, rootKey, rootURLs) + fmt.Sprintf(another, "issuer: "+devRoot, "label: another", "period: 1h, validity: 7d"),
		},
		"a CRL":           {"authority: " + devRoot, fmt.Sprintf("crls: [{issuer: %s, %s, validity: 90d, previous: made/%[1]s.crl}]\n", devRoot, rootKey)},
		"a twin":          {"authority: another", fmt.Sprintf(another, "online: false", `label: twin, id: "02", existing: true`, "validity: 7d, first: true")},
		"the key of logs": {`key: "*"`, "logs: [{name: log, origin: ca.example/log, key: {algorithm: ed25519, label: log}}]\n"},
	} {
		out := strings.ReplaceAll(what, " ", "-")
		plan := c.place("later.yaml", []byte("ceremony: later\ndescription: Later\noutput: later\n"+p.text))
		if said, code := ceremony(plan, p.of, "hardware: true", out); code != 1 || !strings.Contains(said, "CKF_HW_SLOT") {
			t.Errorf("%s: %d: %s", what, code, said)
		}
		if said, code := ceremony(plan, p.of, "local: true, never_extractable: true", out); code != 0 {
			t.Errorf("%s, which complies: %d: %s", what, code, said)
		}
	}
}

// Authorities in several tokens are served by one process; a token that nobody needs is left alone; what is required is enforced.
func TestServeOpensSeveralTokens(t *testing.T) {
	t.Parallel()
	database := storagetest.New(t)
	s := newStack(t, database, false)
	idle := hsmtest.New(t)
	config := func(extra string) string {
		single := s.config("several", s.token.Module)
		before, after, _ := strings.Cut(single, "hsm: ")
		token, rest, _ := strings.Cut(after, "\n")
		return before + fmt.Sprintf("tokens:\n  - {name: main, fips_140: {level: 2, certificate: \"1234\"}, %s\n  - {name: idle, module: %q, token: {label: %q}, pin: {file: /nowhere}}\n",
			strings.TrimPrefix(token, "{"), idle.Module, idle.Label) + rest + extra
	}
	serve := func(extra string) (string, bool) {
		path := filepath.Join(s.dir, "several.yaml")
		if err := os.WriteFile(path, []byte(config(extra)), 0o600); err != nil {
			t.Fatal(err)
		}
		return s.serves(path)
	}
	if said, ok := serve("compliance: [{authority: \"*\", local: true, never_extractable: true, fips_140_level: 2}]\n"); !ok {
		t.Errorf("it does not serve:\n%s", said)
	}
	for extra, says := range map[string]string{
		"compliance: [{authority: issuing-1, hardware: true}]\n":      "CKF_HW_SLOT",
		"compliance: [{authority: \"*\", fips_140_level: 3}]\n":       "level 2 is declared",
		"compliance: [{authority: issuing-1}]\n":                      "nothing is required",
		"compliance: [{key: k, authority: issuing-1, local: true}]\n": "exactly one of authority and key",
	} {
		if said, ok := serve(extra); ok || !strings.Contains(said, says) {
			t.Errorf("%s: serves %v, %s", extra, ok, said)
		}
	}
}
