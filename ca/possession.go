package ca

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"

	"github.com/chancery-ca/chancery/access"
	"github.com/chancery-ca/chancery/issuance"
)

// Possession is a signature by a certificate's key, as JSON Web Signatures make it (RFC 7515). What was signed, and that it is meant for
// this service and made now, the front end has read.
type Possession struct {
	Algorithm string // of RFC 7518, section 3.1, or EdDSA (RFC 8037): ES256, ES384, ES512, RS256, PS256, EdDSA
	Signed    []byte // the JWS signing input
	Signature []byte
}

// RevokeByKey revokes a certificate for whoever has its key. It needs no rights: who can sign with the key has it, and ought not to, or
// does not want it any more. The reason is keyCompromise, and the key is certified never again. Without such a certificate, or with
// another key, it is ErrNotFound: nobody learns by asking which serials there are.
func (c *CA) RevokeByKey(ctx context.Context, issuer string, serial []byte, p Possession, comment string) (Revocation, error) {
	found, err := c.store.Certificates(ctx, issuer, serial, access.AllNamespaces)
	if err != nil {
		return Revocation{}, fmt.Errorf("looking the certificate up: %w", err)
	}
	for _, certificate := range found {
		if !p.by(certificate.DER) {
			continue
		}
		holder := access.Actor{ID: "key:" + hex.EncodeToString(certificate.SPKI[:]), Name: "holder of the key", Namespace: certificate.Namespace}
		o := RevokeOrder{Actor: holder, Issuer: certificate.Issuer, Serial: serial, Reason: issuance.KeyCompromise, Comment: comment}
		return c.revoke(ctx, o, func() (Certificate, error) { return c.again(ctx, certificate) })
	}
	return Revocation{}, ErrNotFound
}

// again reads a certificate that was found before.
func (c *CA) again(ctx context.Context, certificate Certificate) (Certificate, error) {
	found, err := c.store.Certificates(ctx, certificate.Issuer, certificate.Serial[:], certificate.Namespace)
	if err == nil && len(found) != 1 {
		err = ErrNotFound
	}
	if err != nil {
		return Certificate{}, fmt.Errorf("looking the certificate up: %w", err)
	}
	return found[0], nil
}

var errNotByKey = errors.New("the signature is not by the certificate's key")

// by tells whether a certificate's key made the signature.
func (p Possession) by(der []byte) bool {
	certificate, err := x509.ParseCertificate(der) // an orphan has no certificate, and no key that could be looked at
	return err == nil && p.verify(certificate) == nil
}

func (p Possession) verify(certificate *x509.Certificate) error {
	curves := map[string]struct {
		curve     string
		algorithm x509.SignatureAlgorithm
	}{"ES256": {"P-256", x509.ECDSAWithSHA256}, "ES384": {"P-384", x509.ECDSAWithSHA384}, "ES512": {"P-521", x509.ECDSAWithSHA512}}
	if c, elliptic := curves[p.Algorithm]; elliptic {
		key, ok := certificate.PublicKey.(*ecdsa.PublicKey)
		size := 0
		if ok {
			size = (key.Curve.Params().BitSize + 7) / 8
		}
		if !ok || key.Curve.Params().Name != c.curve || len(p.Signature) != 2*size {
			return errNotByKey
		}
		// RFC 7518, section 3.4: R and S, each of the length of the curve's order.
		der, err := asn1.Marshal(struct{ R, S *big.Int }{
			new(big.Int).SetBytes(p.Signature[:size]), new(big.Int).SetBytes(p.Signature[size:]),
		})
		if err != nil {
			return errNotByKey
		}
		return certificate.CheckSignature(c.algorithm, p.Signed, der)
	}
	algorithm, known := map[string]x509.SignatureAlgorithm{
		"RS256": x509.SHA256WithRSA, "PS256": x509.SHA256WithRSAPSS, "EdDSA": x509.PureEd25519,
	}[p.Algorithm]
	if !known {
		return errNotByKey
	}
	return certificate.CheckSignature(algorithm, p.Signed, p.Signature)
}
