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
// are prepared but not signed: only their own key could. A plan whose transcript would be too long to be read is refused as well.
func Rehearse(ctx context.Context, p Plan, now time.Time, random io.Reader) error {
	transcript, err := rehearse(ctx, p, now, random)
	if err != nil {
		return err
	}
	return transcript.readable()
}

func rehearse(ctx context.Context, p Plan, now time.Time, random io.Reader) (extent, error) {
	if !p.Valid() {
		return 0, errNoPlan
	}
	if err := p.fits(now); err != nil {
		return 0, err
	}
	authorities := p
	authorities.CRLs = nil
	m := memory{random, new(extent)}
	m.transcript.line(len(p.text)) // the beginning,
	m.transcript.line(0)           // the token
	m.transcript.line(0)           // and the end
	if err := newAct(authorities, now, random, m).perform(ctx); err != nil {
		return 0, err
	}
	for _, planned := range p.CRLs {
		if err := m.rehearseCRL(p, planned, now); err != nil {
			return 0, fmt.Errorf("CRL of %s: %w", planned.Issuer, err)
		}
	}
	return *m.transcript, nil
}

func (m memory) rehearseCRL(p Plan, planned CRL, now time.Time) error {
	from, err := p.renewal(planned, now)
	if err != nil {
		return err
	}
	for _, f := range from.inputs {
		_ = m.input(f)
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
	prepared, err := issuer.PrepareCRL(from.contents)
	if err != nil {
		return err
	}
	m.transcript.line(len(from.certificate.RawSubjectPublicKeyInfo)) // its key
	m.transcript.signature(len(prepared.TBS()))
	m.transcript.line(0) // its file
	return nil
}

var errNoPlan = errors.New("there is no plan: read one with ReadPlan or ParsePlan")

// mute is a key that cannot sign.
type mute struct{ public crypto.PublicKey }

func (m mute) Public() crypto.PublicKey { return m.public }

func (mute) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("a rehearsal does not sign with the keys of existing authorities")
}

// memory is the place of a rehearsal: keys that are forgotten, and nothing kept but how much there would be to keep.
type memory struct {
	random     io.Reader
	transcript *extent
}

func (m memory) key(_ string, k Key, _ crypto.PublicKey) (openKey, error) {
	signer, err := throwAway(k.Algorithm, m.random)
	if err != nil {
		return openKey{}, fmt.Errorf("making a throw-away key: %w", err)
	}
	spki, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		return openKey{}, fmt.Errorf("encoding a throw-away key: %w", err)
	}
	m.transcript.line(len(spki))
	return openKey{signer: signer, ref: k.ref(), spki: spki, standIn: k.Existing}, nil
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

func (m memory) intents(string, string) issuance.Recorder {
	return issuance.RecorderFunc(func(ctx context.Context, s issuance.Signing) error {
		m.transcript.signature(len(s.TBS))
		return ctx.Err()
	})
}

func (m memory) input(fileLine) error {
	m.transcript.line(0)
	return nil
}

func (memory) signed(string, issuance.Kind, []byte) error { return nil }

func (m memory) file(string, []byte) error {
	m.transcript.line(0)
	return nil
}

func (memory) tell(string, ...any) {}
func (memory) tokenSerial() string { return "rehearsal" }
