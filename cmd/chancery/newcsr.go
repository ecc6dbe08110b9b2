package main

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
)

// newCSR makes a request for names (DNS names and IP addresses), in PEM. The first DNS name becomes the common name too,
// where it is short enough (RFC 5280, appendix A.1: 64 characters).
func newCSR(random io.Reader, key crypto.Signer, names []string) (string, error) {
	template := &x509.CertificateRequest{}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if strings.Contains(name, "@") {
			template.EmailAddresses = append(template.EmailAddresses, name)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	if len(template.DNSNames) > 0 && len(template.DNSNames[0]) <= 64 {
		template.Subject = pkix.Name{CommonName: template.DNSNames[0]}
	}
	der, err := x509.CreateCertificateRequest(random, template, key)
	if err != nil {
		return "", fmt.Errorf("making the request: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}

// parseChain reads certificates in PEM, in order.
func parseChain(text string) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for rest := []byte(text); ; {
		block, after := pem.Decode(rest)
		if block == nil {
			break
		}
		certificate, err := parseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		chain, rest = append(chain, certificate), after
	}
	if len(chain) < 2 {
		return nil, errors.New("the chain holds no issuer")
	}
	return chain, nil
}
