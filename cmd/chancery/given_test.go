package main

import (
	"strings"
	"testing"
)

// TestAnEmptyValueIsNotAFlagLeftOut has scripts name a variable that is not set. What it would have checked, or narrowed down, must not be
// left unchecked: the command is refused before it does anything.
func TestAnEmptyValueIsNotAFlagLeftOut(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	c.place("note", []byte("a message"))
	c.do("key", "generate", "--algorithm", "hmac-sha256", "--label", "mac")
	c.do("key", "generate", "--algorithm", "ecdsa-p256", "--label", "signs")
	c.do("attest", "--key", "signs", "--out", c.path("evidence.json"))
	c.refused(2, "--verify", "hmac", "--key", "mac", "--in", c.path("note"), "--verify", "")
	c.refused(2, "--verify", "attest", "--key", "signs", "--verify=")
	c.refused(2, "--usage", "sign", "--key", "signs", "--in", c.path("note"), "--usage", "")
	for _, args := range [][]string{
		{"--trusted", "hsm", "attest", "--verify", c.path("evidence.json"), "--trusted", ""},
		{"--keys", "approval", "verify", c.path("note"), "--keys", ""},
		{"--since", "audit", "verify", c.dir, "--since", ""},
		{"--issuer", "revoke", "--all", "--profile", "tls-server", "--issuer", "", "--reason", "superseded", "--yes"},
		{"--san", "revoke", "--all", "--profile", "tls-server", "--san", "", "--reason", "superseded", "--yes"},
		{"--issued-from", "revoke", "--all", "--profile", "tls-server", "--issued-from=", "--reason", "superseded", "--yes"},
	} {
		flag, args := args[0], args[1:]
		if stdout, stderr, code := typed(t, "", args...); code != 2 || stdout != "" || !strings.Contains(stderr, flag+" is given without a value") {
			t.Errorf("%q: exit code %d, %q, %s", args, code, stdout, stderr)
		}
	}
}
