package ceremony

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// The names of an authority's files.
const (
	certificateSuffix = ".cer"            // DER
	pemSuffix         = ".pem"            // the same, PEM
	chainSuffix       = "-chain.pem"      // its certificate and those above it, the root included
	crlSuffix         = ".crl"            // DER
	bundleSuffix      = ".authority.json" // see Bundle
	keySuffix         = ".key.pem"        // the public half of a log's key
)

// TranscriptFile is the name of a ceremony's transcript in its output directory.
const TranscriptFile = "transcript.jsonl"

// writeArtefact writes a file whole or not at all. The same file again is fine; another in its place is not overwritten. A crash in
// the middle leaves at most a temporary file, whose name begins with a period.
func writeArtefact(dir, name string, data []byte) error {
	path := filepath.Join(dir, name)
	switch present, err := os.ReadFile(path); {
	case err == nil && bytes.Equal(present, data):
		return syncDir(dir)
	case err == nil:
		return fmt.Errorf("writing %s: %w with other contents", path, fs.ErrExist)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("writing %s: looking for one that is there already: %w", path, err)
	}
	temporary, err := os.CreateTemp(dir, "."+name+"-*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	_, err = temporary.Write(data)
	err = errors.Join(err, temporary.Chmod(0o644), temporary.Sync(), temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", path, err), os.Remove(temporary.Name()))
	}
	return syncDir(dir)
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("making directory %s durable: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("making directory %s durable: %w", dir, err)
	}
	return nil
}

func pemOf(certificates ...[]byte) []byte {
	var b bytes.Buffer
	for _, der := range certificates {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	return b.Bytes()
}

// derOf reads a file's one object, as DER or as PEM of a type.
func derOf(data []byte, pemType string) ([]byte, error) {
	if !bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN ")) {
		return data, nil
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != pemType || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fmt.Errorf("it does not hold exactly one %s", pemType)
	}
	return block.Bytes, nil
}
