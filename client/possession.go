package client

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"time"
)

// RevokeByKey revokes a certificate by its key alone: no token is needed. The reason is keyCompromise. The key signs what is said with
// ES256, ES384, ES512, PS256 or EdDSA, as it can. Issuer is needed only where several authorities have issued the serial.
func (c *Client) RevokeByKey(ctx context.Context, key crypto.Signer, serial, issuer, comment string, now time.Time) (*Revoked, error) {
	r := oneCertificate(serial, "", "revoke-by-key")
	r.method = http.MethodPost
	algorithm, hash, err := signatureOf(key.Public())
	if err != nil {
		return nil, err
	}
	// The service knows itself by https alone, also where the call comes over its socket, or by a proxy that speaks TLS in its place.
	signedURL := "https" + strings.TrimPrefix(c.url(r), c.base.Scheme)
	header, err := json.Marshal(map[string]any{"alg": algorithm, "typ": "chancery-revocation+jws", "url": signedURL, "iat": now.Unix()})
	if err != nil {
		return nil, fmt.Errorf("signing a revocation: %w", err)
	}
	said := map[string]string{"serial": serial}
	for name, value := range map[string]string{"issuer": issuer, "comment": comment} {
		if value != "" {
			said[name] = value
		}
	}
	payload, err := json.Marshal(said)
	if err != nil {
		return nil, fmt.Errorf("signing a revocation: %w", err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	input := encode(header) + "." + encode(payload)
	signature, err := c.sign(key, []byte(input), hash)
	if err != nil {
		return nil, fmt.Errorf("signing a revocation: %w", err)
	}
	r.body = map[string]string{"protected": encode(header), "payload": encode(payload), "signature": encode(signature)}
	revoked := &Revoked{}
	if _, err := c.json(ctx, r, revoked); err != nil {
		return nil, err
	}
	return revoked, nil
}

// signatureOf is the JWS algorithm of a key (RFC 7518, section 3.1; RFC 8037).
func signatureOf(key crypto.PublicKey) (algorithm string, hash crypto.Hash, err error) {
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		switch key.Curve.Params().BitSize {
		case 256:
			return "ES256", crypto.SHA256, nil
		case 384:
			return "ES384", crypto.SHA384, nil
		case 521:
			return "ES512", crypto.SHA512, nil
		}
	case *rsa.PublicKey:
		return "PS256", crypto.SHA256, nil
	case ed25519.PublicKey:
		return "EdDSA", 0, nil
	}
	return "", 0, errors.New("client: a revocation is signed by RSA, P-256, P-384, P-521 or Ed25519")
}

func (c *Client) sign(key crypto.Signer, input []byte, hash crypto.Hash) ([]byte, error) {
	digest := input
	if hash != 0 {
		h := hash.New()
		h.Write(input)
		digest = h.Sum(nil)
	}
	switch public := key.Public().(type) {
	case *rsa.PublicKey:
		return key.Sign(c.random, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash})
	case *ecdsa.PublicKey:
		der, err := key.Sign(c.random, digest, hash)
		if err != nil {
			return nil, err
		}
		var pair struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(der, &pair); err != nil {
			return nil, err
		}
		size := (public.Curve.Params().BitSize + 7) / 8
		return append(pair.R.FillBytes(make([]byte, size)), pair.S.FillBytes(make([]byte, size))...), nil
	}
	return key.Sign(c.random, digest, hash)
}
