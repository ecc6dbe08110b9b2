package ceremony

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/chancery-ca/chancery/issuance"
)

// adopt opens an authority of an earlier ceremony, so that it certifies those of this one.
func (a *act) adopt(planned Issuer) error {
	chain, input, err := a.plan.chainOf(planned)
	if err != nil {
		return err
	}
	if err := a.place.input(input); err != nil {
		return err
	}
	key, certificate, err := a.place.issuer(planned, chain)
	if err != nil {
		return err
	}
	issuer, err := issuance.NewIssuer(certificate, key.signer)
	if err != nil {
		return err
	}
	a.made[planned.Name] = &authority{Authority: Authority{Name: planned.Name, URLs: planned.URLs}, key: key, issuer: issuer, chain: rawOf(chain)}
	return nil
}

// chainOf reads the file of an issuer's certificate: DER, or PEM with those above it, each signed by the next and the last by itself.
func (p Plan) chainOf(planned Issuer) ([]*x509.Certificate, fileLine, error) {
	data, err := os.ReadFile(p.path(planned.Certificate))
	if err != nil {
		return nil, fileLine{}, err
	}
	ders := [][]byte{data}
	if bytes.HasPrefix(data, []byte("-----BEGIN ")) {
		if ders, err = certificatesOf(data); err != nil {
			return nil, fileLine{}, fmt.Errorf("reading %s: %w", planned.Certificate, err)
		}
	}
	chain, err := parseChain(ders)
	if err != nil {
		return nil, fileLine{}, fmt.Errorf("reading %s: %w", planned.Certificate, err)
	}
	return chain, fileLine{Name: planned.Certificate, SHA256: hexDigest(data)}, nil
}

// parseChain reads certificates of which each is signed by the next, and names it as its issuer, and the last itself.
func parseChain(ders [][]byte) ([]*x509.Certificate, error) {
	if len(ders) == 0 || len(ders) > maxChain {
		return nil, fmt.Errorf("there are %d certificates, not 1 to %d", len(ders), maxChain)
	}
	chain := make([]*x509.Certificate, len(ders))
	for i, der := range ders {
		var err error
		if chain[i], err = x509.ParseCertificate(der); err != nil {
			return nil, fmt.Errorf("certificate %d of the chain: %w", i+1, err)
		}
	}
	for i, c := range chain {
		signer := chain[min(i+1, len(chain)-1)]
		if err := c.CheckSignatureFrom(signer); err != nil {
			return nil, fmt.Errorf("certificate %d of the chain is not signed by the next, or the last not by itself: %w", i+1, err)
		}
		if !bytes.Equal(c.RawIssuer, signer.RawSubject) { // one key may have certificates of several names
			return nil, fmt.Errorf("certificate %d of the chain was issued by %q, and what follows is that of %q", i+1, c.Issuer, signer.Subject)
		}
	}
	return chain, nil
}

func rawOf(chain []*x509.Certificate) [][]byte {
	ders := make([][]byte, len(chain))
	for i, c := range chain {
		ders[i] = c.Raw
	}
	return ders
}

// understudy is an issuer's certificate as it is, but for the key, the serial and the signature: what a rehearsal, which cannot use the
// issuer's key, signs under.
func understudy(of *x509.Certificate, key crypto.Signer, random io.Reader) (*x509.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: of.SerialNumber, RawSubject: of.RawSubject, NotBefore: of.NotBefore, NotAfter: of.NotAfter, ExtraExtensions: of.Extensions,
	}
	der, err := x509.CreateCertificate(random, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making a certificate to rehearse with: %w", err)
	}
	return x509.ParseCertificate(der)
}

// issuer opens the key of an issuer in the token, and writes down whose it is.
func (h *hall) issuer(planned Issuer, chain []*x509.Certificate) (openKey, *x509.Certificate, error) {
	if err := h.record.record(entry{Issuer: &issuerLine{Authority: planned.Name, Chain: rawOf(chain)}}); err != nil {
		return openKey{}, nil, err
	}
	key, err := h.key(planned.Name, planned.Key, chain[0].PublicKey)
	return key, chain[0], err
}

// issuer puts an understudy with a throw-away key in the issuer's place.
func (m memory) issuer(planned Issuer, chain []*x509.Certificate) (openKey, *x509.Certificate, error) {
	algorithm := algorithmOf(chain[0].PublicKey)
	if algorithm == "" {
		return openKey{}, nil, errors.New("the issuer's key is of no algorithm that ceremonies use")
	}
	for _, c := range chain {
		m.transcript.line(len(c.Raw))
	}
	planned.Key.Algorithm = algorithm
	key, err := m.key(planned.Name, planned.Key, nil)
	if err != nil {
		return openKey{}, nil, err
	}
	certificate, err := understudy(chain[0], key.signer, m.random)
	return key, certificate, err
}
