package issuance

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/chancery-ca/chancery/policies"
)

// SelfSign makes the certificate of a root: subject and issuer are the same, and the granted key, which must be key, signs it. It is
// for ceremonies alone. Recording, signing and errors are as in Issuer.Sign.
//
// A linter tells a root by verifying its signature with its own key, so a placeholder does not do. What is linted before the key is
// asked is a copy that differs in nothing but the public key, which is a throw-away of the same kind and signs the copy. The real
// certificate is linted before it is released.
func SelfSign(ctx context.Context, g *policies.Grant, key crypto.Signer, s Serial, now time.Time, r Recorder) (*Certificate, error) {
	if !g.Valid() {
		return nil, errors.New("self-signing a certificate: the grant was not made by a decision")
	}
	if key == nil {
		return nil, errors.New("self-signing a certificate: the key is missing")
	}
	linter, err := newLinter(g.Lint())
	if err != nil {
		return nil, fmt.Errorf("self-signing a certificate: %w", err)
	}
	certificate, err := selfSign(ctx, g.Template(), linter, key, s, now, r)
	if err != nil {
		return nil, fmt.Errorf("self-signing certificate %s: %w", s, err)
	}
	return certificate, nil
}

func selfSign(
	ctx context.Context, t policies.Template, l *linter, key crypto.Signer, s Serial, now time.Time, r Recorder,
) (*Certificate, error) {
	if err := checkContent(&t, s, now); err != nil {
		return nil, err
	}
	if !t.CA {
		return nil, errors.New("only an authority's certificate may be self-signed")
	}
	signing, err := newSigningKey(key)
	if err != nil {
		return nil, err
	}
	signing.id = t.SubjectKeyID
	if err := checkOwnKey(&t, signing.public); err != nil {
		return nil, err
	}
	tbs, err := marshalSelfSigned(signing.algorithm, s, &t)
	if err != nil {
		return nil, err
	}
	if err := lintCopy(&t, tbs, signing, s, l); err != nil {
		return nil, err
	}
	certificate, err := signing.certificate(ctx, Signing{Kind: Final, Serial: s, TBS: tbs}, sha256.Sum256(tbs), r)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(l.check(certificate.DER), checkIssuerKey(certificate.DER)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPossiblySigned, err)
	}
	return certificate, nil
}

// checkOwnKey refuses a key that is not the granted one.
func checkOwnKey(t *policies.Template, public crypto.PublicKey) error {
	granted, err := x509.ParsePKIXPublicKey(t.SPKI)
	if err != nil {
		return fmt.Errorf("reading the granted key: %w", err)
	}
	if !samePublicKey(public, granted) {
		return errors.New("the key is not the granted one")
	}
	return nil
}

// marshalSelfSigned encodes a certificate whose issuer is its subject.
func marshalSelfSigned(a algorithm, s Serial, t *policies.Template) ([]byte, error) {
	name, err := marshalName(t.Subject)
	if err != nil {
		return nil, fmt.Errorf("encoding the subject: %w", err)
	}
	return marshalTBS(frame{algorithm: a, serial: s, issuer: name, authorityKeyID: t.SubjectKeyID}, t)
}

// lintCopy lints a copy of tbs that a throw-away key has signed for itself.
func lintCopy(t *policies.Template, tbs []byte, k signingKey, s Serial, l *linter) error {
	throwaway, err := sameKind(k.public)
	if err != nil {
		return fmt.Errorf("making a throw-away key to lint with: %w", err)
	}
	changed := *t
	if changed.SPKI, err = x509.MarshalPKIXPublicKey(throwaway.Public()); err != nil {
		return fmt.Errorf("encoding the throw-away key: %w", err)
	}
	changed.PublicKey = throwaway.Public()
	draft, err := marshalSelfSigned(k.algorithm, s, &changed)
	if err != nil {
		return err
	}
	if !bytes.Equal(bytes.Replace(draft, changed.SPKI, t.SPKI, 1), tbs) {
		return errors.New("the copy to be linted differs from the certificate in more than its key")
	}
	signature, err := crypto.SignMessage(throwaway, rand.Reader, draft, k.algorithm.hash)
	if err != nil {
		return fmt.Errorf("signing with the throw-away key: %w", err)
	}
	whole, err := k.algorithm.assemble(draft, signature)
	if err != nil {
		return err
	}
	return l.check(whole)
}

// sameKind makes a key pair in memory, of the type and length of another key.
func sameKind(public crypto.PublicKey) (crypto.Signer, error) {
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.GenerateKey(key.Curve, rand.Reader)
	case *rsa.PublicKey:
		return rsa.GenerateKey(rand.Reader, key.N.BitLen())
	}
	return nil, fmt.Errorf("no key of type %T can be made", public)
}
