package main

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestHSMStandardStreams: "-" is standard input and output wherever a file can be named, and nothing is left in a file of that name.
func TestHSMStandardStreams(t *testing.T) {
	t.Chdir(t.TempDir())
	c := newCounter(t)
	piped := func(stdin string, args ...string) string {
		t.Helper()
		stdout, stderr, code := typed(t, stdin, slices.Concat([]string{"hsm"}, args, c.flags)...)
		if code != 0 {
			t.Fatalf("%v: %d %s", args, code, stderr)
		}
		return stdout
	}
	c.do("key", "generate", "--algorithm", "ecdsa-p256", "--label", "signer")
	c.do("key", "generate", "--algorithm", "aes-256", "--label", "files")
	c.do("key", "generate", "--algorithm", "aes-256", "--label", "transport", "--for", "wrap")
	c.do("key", "generate", "--algorithm", "ecdsa-p256", "--label", "leaving", "--extractable", "--yes")
	c.do("key", "generate", "--algorithm", "hmac-sha256", "--label", "mac")
	const message = "a message that goes through a pipe"
	in := c.place("message", []byte(message))

	if got := piped(piped(message, "encrypt", "--key", "files", "--in", "-", "--out", "-"), "decrypt", "--in", "-", "--out", "-"); got != message {
		t.Errorf("decrypted %q", got)
	}
	if got := piped(piped(message, "encrypt", "--raw", "--key", "files", "--in", "-", "--out", "-"), "decrypt", "--raw", "--key", "files", "--in", "-", "--out", "-"); got != message {
		t.Errorf("decrypted raw %q", got)
	}
	// What does not prove authentic is not let out, not even the part before the damage.
	sealed := []byte(piped(strings.Repeat(message, 5000), "encrypt", "--key", "files", "--in", "-", "--out", "-"))
	stdout, stderr, code := typed(t, string(sealed[:len(sealed)-1]), slices.Concat([]string{"hsm", "decrypt", "--in", "-", "--out", "-"}, c.flags)...)
	if code != 1 || stdout != "" {
		t.Errorf("of a file cut short %d octets came out: %d %s", len(stdout), code, stderr)
	}
	for _, out := range []string{"", "-"} {
		signature := piped(message, "sign", "--key", "signer", "--in", "-", "--out", out)
		if said := piped(signature, "verify", "--key", "signer", "--in", in, "--signature", "-"); said != "valid\n" {
			t.Errorf("--out %q: %s", out, said)
		}
	}
	if mac, digits := piped(message, "hmac", "--key", "mac", "--out", "-"), piped(message, "hmac", "--key", "mac"); len(mac) != 32 || len(digits) != 65 {
		t.Errorf("an HMAC of %d octets, %q in digits", len(mac), digits)
	}
	if digest := piped(message, "digest", "--out", "-"); len(digest) != 32 {
		t.Errorf("a digest of %d octets", len(digest))
	}
	if random := piped("", "random", "20", "--out", "-"); len(random) != 20 {
		t.Errorf("%d random octets", len(random))
	}
	wrapped := piped("", "wrap", "--key", "leaving", "--under", "transport", "--out", "-", "--public-out", c.path("leaving.pem"), "--yes")
	if public := piped("", "wrap", "--key", "leaving", "--under", "transport", "--out", c.path("wrapped"), "--public-out", "-", "--yes"); !strings.HasPrefix(public, "-----BEGIN PUBLIC KEY-----") {
		t.Errorf("the public key: %q", public)
	}
	c.do("key", "destroy", "--key", "leaving", "--yes")
	piped(wrapped, "unwrap", "--under", "transport", "--in", "-", "--public-key", c.path("leaving.pem"), "--algorithm", "ecdsa-p256", "--label", "back")
	evidence := piped("", "attest", "--key", "signer", "--out", "-")
	if !json.Valid([]byte(evidence)) || evidence == "" {
		t.Errorf("the evidence: %q", evidence)
	}
	if said, stderr, code := typed(t, evidence, "hsm", "attest", "--verify", "-"); code != 0 || !strings.Contains(said, "the signature is valid") {
		t.Errorf("%d: %s%s", code, said, stderr)
	}
	for _, args := range [][]string{
		{"verify", "--key", "signer", "--in", "-", "--signature", "-"},
		{"unwrap", "--under", "transport", "--in", "-", "--public-key", "-", "--algorithm", "ecdsa-p256", "--label", "again"},
		{"attest", "--verify", "-", "--trusted", "-"},
		{"probe", "compare", "-", "-"},
	} {
		flags := c.flags
		if args[0] == "probe" {
			flags = nil
		}
		if _, stderr, code := typed(t, "", slices.Concat([]string{"hsm"}, args, flags)...); code != 2 || !strings.Contains(stderr, "one standard input") {
			t.Errorf("%v: %d %s", args, code, stderr)
		}
	}
	c.refused(2, "one standard output", "wrap", "--key", "back", "--under", "transport", "--out", "-", "--public-out", "-", "--yes")
	if left, err := os.ReadDir("."); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestHSMResultsIntoAPipe: where --out names a pipe, or a device such as /dev/null, that is what gets the result, and it stays.
func TestHSMResultsIntoAPipe(t *testing.T) {
	c := newCounter(t)
	c.do("key", "generate", "--algorithm", "aes-256", "--label", "files")
	c.do("key", "generate", "--algorithm", "aes-256", "--label", "leaving", "--extractable", "--yes")
	c.do("key", "generate", "--algorithm", "aes-256", "--label", "transport", "--for", "wrap")
	c.do("key", "generate", "--algorithm", "ecdsa-p256", "--label", "signer")
	const message = "what is in the file"
	c.do("encrypt", "--key", "files", "--in", c.place("message", []byte(message)), "--out", c.path("sealed"))
	pipe := c.path("pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(pipe, os.O_RDWR, 0) // which waits for nobody
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for _, one := range []struct {
		octets int
		args   []string
	}{
		{len(message), []string{"decrypt", "--in", c.path("sealed")}},
		{28 + len(message), []string{"encrypt", "--raw", "--key", "files", "--in", c.path("message")}},
		{20, []string{"random", "20"}},
		{32, []string{"digest", "--in", c.path("message")}},
		{40, []string{"wrap", "--key", "leaving", "--under", "transport", "--yes"}},
		{1000, []string{"attest", "--key", "signer"}},
	} {
		c.do(append(one.args, "--out", pipe)...)
		if about, err := os.Lstat(pipe); err != nil || about.Mode().Type() != fs.ModeNamedPipe {
			t.Fatalf("%v: the pipe is %v, %v", one.args, about.Mode(), err)
		}
		if err := reader.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 1<<16)
		n, err := reader.Read(got)
		if err != nil || n != one.octets && (one.octets != 1000 || n < 1000) || one.args[0] == "decrypt" && string(got[:n]) != message {
			t.Errorf("%v: %d octets came out, %v", one.args, n, err)
		}
	}
}

// TestOctetsAreNotForTerminals: nothing is done in the token when the result would garble somebody's screen.
func TestOctetsAreNotForTerminals(t *testing.T) {
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	for _, args := range [][]string{
		{"sign", "--key", "k", "--in", "f"},
		{"encrypt", "--key", "k", "--in", "f", "--out", "-"},
		{"decrypt", "--in", "f", "--out", "-"},
		{"wrap", "--key", "k", "--under", "w", "--out", "-"},
		{"hmac", "--key", "k", "--in", "f", "--out", "-"},
		{"digest", "--in", "f", "--out", "-"},
		{"random", "8", "--out", "-"},
	} {
		var complaints bytes.Buffer
		err := run(t.Context(), append([]string{"hsm"}, args...), Env{Stdin: strings.NewReader(""), Stdout: terminal, Stderr: &complaints})
		if exitCode(err) != 2 || !strings.Contains(complaints.String(), "is a terminal") {
			t.Errorf("%v: %v %s", args, err, complaints.String())
		}
	}
}
