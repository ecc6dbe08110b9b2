package access

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
)

// TokenPrefix begins every API token, so that scanners for leaked secrets can find one.
const TokenPrefix = "chancery_"

const tokenSecret = 32 // octets of randomness

// ErrNotAToken is returned for a string that NewToken cannot have made. Checking it costs no look-up.
var ErrNotAToken = errors.New("this is not an API token of Chancery")

// NewToken makes an API token and the digest under which it is kept: the prefix, 32 random octets and a CRC-32 of them in base64url.
// The token is shown once and never stored; SHA-256 without salt suffices for a secret of 256 random bits.
func NewToken(random io.Reader) (token string, digest [32]byte, err error) {
	raw := make([]byte, tokenSecret, tokenSecret+4)
	if _, err := io.ReadFull(random, raw); err != nil {
		return "", digest, fmt.Errorf("making a token: reading randomness: %w", err)
	}
	raw = binary.BigEndian.AppendUint32(raw, crc32.ChecksumIEEE(raw))
	token = TokenPrefix + base64.RawURLEncoding.EncodeToString(raw)
	return token, sha256.Sum256([]byte(token)), nil
}

// TokenDigest is the digest under which a token is kept. It returns ErrNotAToken for anything that NewToken cannot have made.
func TokenDigest(token string) (digest [32]byte, err error) {
	encoded, ok := strings.CutPrefix(token, TokenPrefix)
	if !ok {
		return digest, ErrNotAToken
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(raw) != tokenSecret+4 || crc32.ChecksumIEEE(raw[:tokenSecret]) != binary.BigEndian.Uint32(raw[tokenSecret:]) {
		return digest, ErrNotAToken
	}
	return sha256.Sum256([]byte(token)), nil
}
