package access

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
)

func TestTokenDigestIsOfTheWholeToken(t *testing.T) {
	token, digest, err := NewToken(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(token, TokenPrefix) {
		t.Errorf("token %q lacks the prefix that scanners look for", token)
	}
	got, err := TokenDigest(token)
	if err != nil || got != digest || got != sha256.Sum256([]byte(token)) {
		t.Errorf("TokenDigest = %x, %v; want %x", got, err, digest)
	}
}

func TestTokenDigestRefusesWhatWasNeverMade(t *testing.T) {
	token, _, err := NewToken(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	flipped := []byte(token)
	if flipped[20] == 'A' {
		flipped[20] = 'B'
	} else {
		flipped[20] = 'A'
	}
	for _, bad := range []string{"", "x", TokenPrefix, token + "A", token[:len(token)-1], token[1:], string(flipped), strings.ToUpper(TokenPrefix) + token[len(TokenPrefix):]} {
		if _, err := TokenDigest(bad); !errors.Is(err, ErrNotAToken) {
			t.Errorf("TokenDigest(%q) = %v, want ErrNotAToken", bad, err)
		}
	}
}
