package ceremony

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/issuance"
)

// Rehearse plays a plan in memory, with throw-away keys in place of the token's, and returns what would be refused: by the policies,
// by the linter, or because files that the plan names do not fit. It writes nothing and needs no token. CRLs of existing authorities
// are prepared but not signed: only their own key could.
func Rehearse(ctx context.Context, p Plan, now time.Time, random io.Reader) error {
	if !p.Valid() {
		return errNoPlan
	}
	if err := p.fits(now); err != nil {
		return err
	}
	authorities := p
	authorities.CRLs = nil
	if err := newAct(authorities, now, random, memory{random}).perform(ctx); err != nil {
		return err
	}
	for _, planned := range p.CRLs {
		if err := rehearseCRL(p, planned, now); err != nil {
			return fmt.Errorf("CRL of %s: %w", planned.Issuer, err)
		}
	}
	return nil
}

func rehearseCRL(p Plan, planned CRL, now time.Time) error {
	from, err := p.renewal(planned, now)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(p.Issuers, func(i Issuer) bool { return i.Name == planned.Issuer }); i >= 0 {
		chain, _, err := p.chainOf(p.Issuers[i])
		if err != nil {
			return err
		}
		if !chain[0].Equal(from.certificate) {
			return fmt.Errorf("%s is not the certificate of the issuer %s, %s", planned.Certificate, planned.Issuer, p.Issuers[i].Certificate)
		}
	}
	issuer, err := issuance.NewIssuer(from.certificate, mute{from.certificate.PublicKey})
	if err != nil {
		return err
	}
	_, err = issuer.PrepareCRL(from.contents)
	return err
}

var errNoPlan = errors.New("there is no plan: read one with ReadPlan or ParsePlan")

// mute is a key that cannot sign.
type mute struct{ public crypto.PublicKey }

func (m mute) Public() crypto.PublicKey { return m.public }

func (mute) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("a rehearsal does not sign with the keys of existing authorities")
}

// memory is the place of a rehearsal: keys that are forgotten, and nothing kept.
type memory struct{ random io.Reader }

func (m memory) key(_ string, k Key, _ crypto.PublicKey) (openKey, error) {
	signer, err := throwAway(k.Algorithm, m.random)
	if err != nil {
		return openKey{}, fmt.Errorf("making a throw-away key: %w", err)
	}
	spki, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		return openKey{}, fmt.Errorf("encoding a throw-away key: %w", err)
	}
	return openKey{signer: signer, ref: k.ref(), spki: spki}, nil
}

func throwAway(a hsm.Algorithm, random io.Reader) (crypto.Signer, error) {
	switch a {
	case hsm.ECDSAP256:
		return ecdsa.GenerateKey(elliptic.P256(), random)
	case hsm.ECDSAP384:
		return ecdsa.GenerateKey(elliptic.P384(), random)
	case hsm.Ed25519:
		_, key, err := ed25519.GenerateKey(random)
		return key, err
	case hsm.RSA2048:
		return rsa.GenerateKey(random, 2048)
	case hsm.RSA3072:
		return rsa.GenerateKey(random, 3072)
	case hsm.RSA4096:
		return rsa.GenerateKey(random, 4096)
	}
	return nil, fmt.Errorf("the algorithm %q is unknown", a)
}

func (memory) intents(string, string) issuance.Recorder {
	return issuance.RecorderFunc(func(ctx context.Context, _ issuance.Signing) error { return ctx.Err() })
}

func (memory) input(fileLine) error                       { return nil }
func (memory) signed(string, issuance.Kind, []byte) error { return nil }
func (memory) file(string, []byte) error                  { return nil }
func (memory) tell(string, ...any)                        {}
func (memory) tokenSerial() string                        { return "rehearsal" }
