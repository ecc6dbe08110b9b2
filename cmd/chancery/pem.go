package main

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"os"
)

// readCertificates reads the certificates of a PEM file; there is at least one.
func readCertificates(path string) ([][]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading certificates: %w", err)
	}
	all, _ := certificatesIn(text)
	if len(all) == 0 {
		return nil, fmt.Errorf("reading certificates: %s holds none in PEM", path)
	}
	return all, nil
}

// certificatesIn are the certificates of a text in PEM, among whatever else it may hold. It is whole where no block of it is damaged, which a
// decoder of PEM passes over.
func certificatesIn(text []byte) (all [][]byte, whole bool) {
	blocks := 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		blocks++
		if block.Type == "CERTIFICATE" {
			all = append(all, block.Bytes)
		}
	}
	return all, blocks == bytes.Count(text, []byte("-----BEGIN "))
}

// pemOf are certificates in PEM.
func pemOf(certificates [][]byte) string {
	var text []byte
	for _, der := range certificates {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return string(text)
}
