package blocklist

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

const (
	maxLine = 4096
	maxPEM  = 256 << 20
)

// Read reads keys from a file to make a list from: a list; PEM blocks of public keys, certificates or certification requests; or text
// with one SHA-256 in hexadecimal at the beginning of each line. In text, what follows a digest after white space, empty lines, and lines
// that begin with "#" are passed over; between PEM blocks stands nothing. The errors name the line or block.
func Read(path string) ([]Key, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading keys: %w", err)
	}
	defer file.Close()
	keys, err := readSource(bufio.NewReaderSize(file, bufferSize), func() ([]Key, error) { return readList(path) })
	if err != nil {
		return nil, fmt.Errorf("reading keys from %s: %w", path, err)
	}
	return keys, nil
}

func readSource(r *bufio.Reader, list func() ([]Key, error)) ([]Key, error) {
	begin, err := r.Peek(len(magic))
	switch {
	case err != nil && err != io.EOF:
		return nil, err
	case string(begin) == magic:
		return list()
	case bytes.HasPrefix(begin, []byte("-----BEGIN ")):
		text, err := io.ReadAll(io.LimitReader(r, maxPEM+1))
		if err == nil && len(text) > maxPEM {
			err = fmt.Errorf("more than %d MiB of PEM: give it in parts", maxPEM>>20)
		}
		if err != nil {
			return nil, err
		}
		return readPEM(text)
	}
	return readText(r)
}

// readList are the keys of a list.
func readList(path string) ([]Key, error) {
	list, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer list.Close()
	keys := make([]Key, list.Len())
	all := bufio.NewReaderSize(io.NewSectionReader(list.source, keysAt, list.Len()*keySize), bufferSize)
	for i := range keys {
		if _, err := io.ReadFull(all, keys[i][:]); err != nil {
			return nil, fmt.Errorf("reading the list of keys %q: %w", list.title, err)
		}
	}
	return keys, nil
}

func readText(r io.Reader) (keys []Key, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	n := 1
	for ; lines.Scan(); n++ {
		digest, _, _ := strings.Cut(strings.TrimSpace(strings.ReplaceAll(lines.Text(), "\t", " ")), " ")
		if digest == "" || digest[0] == '#' {
			continue
		}
		key, err := ParseKey(digest)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		keys = append(keys, key)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("line %d: %w", n, err)
	}
	return keys, nil
}

// ParseKey reads the SHA-256 of a SubjectPublicKeyInfo in hexadecimal, of either case, with or without colons.
func ParseKey(s string) (Key, error) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, ":", ""))
	if err != nil || len(b) != keySize {
		return Key{}, fmt.Errorf("%.80q is not a SHA-256 in hexadecimal", s)
	}
	return Key(b), nil
}

// readPEM reads one block after the other, with nothing but white space around them. A decoder of PEM passes over what it cannot decode,
// and a list that leaves out a key would vouch for it.
func readPEM(text []byte) (keys []Key, err error) {
	whole := text
	for n := 1; ; n++ {
		text = bytes.TrimLeft(text, " \t\r\n")
		if len(text) == 0 {
			return keys, nil
		}
		block, rest := pem.Decode(text)
		taken := text[:len(text)-len(rest)]
		var spki []byte
		switch begin := []byte("-----BEGIN "); {
		case block == nil, !bytes.HasPrefix(taken, begin), bytes.Count(taken, begin) != 1, len(block.Headers) > 0:
			err = errors.New("not PEM, or damaged")
		default:
			spki, err = keyOf(block)
		}
		if err != nil {
			return nil, fmt.Errorf("block %d, line %d: %w", n, 1+bytes.Count(whole[:len(whole)-len(text)], []byte("\n")), err)
		}
		keys = append(keys, sha256.Sum256(spki))
		text = rest
	}
}

// keyOf is the SubjectPublicKeyInfo in a block.
func keyOf(block *pem.Block) ([]byte, error) {
	switch block.Type {
	case "PUBLIC KEY":
		if _, err := x509.ParsePKIXPublicKey(block.Bytes); err != nil {
			return nil, err
		}
		return block.Bytes, nil
	case "CERTIFICATE":
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return c.RawSubjectPublicKeyInfo, nil
	case "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST":
		r, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil {
			return nil, err
		}
		return r.RawSubjectPublicKeyInfo, nil
	}
	return nil, fmt.Errorf("%.40q holds no public key that is read; make one with `openssl pkey -pubout`", block.Type)
}
