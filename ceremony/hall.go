package ceremony

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/chancery-ca/chancery/hsm"
	"github.com/chancery-ca/chancery/issuance"
)

// hall is the place of the ceremony itself: the token, the transcript, the output directory, and those who watch.
type hall struct {
	token  *hsm.Token
	record *transcript
	dir    string
	say    func(format string, args ...any)
}

// survey refuses, before anything is made, keys that are in the token and must not be, and keys that must be and are not.
func survey(t *hsm.Token, p Plan, now time.Time) error {
	present, err := t.Keys()
	if err != nil {
		return err
	}
	for _, k := range p.keys() {
		if k.Existing {
			signer, err := t.Signer(k.ref(), nil)
			if err != nil {
				return err
			}
			if err := expect(k.Key, signer.Public()); err != nil {
				return err
			}
			continue
		}
		for _, other := range present {
			if other.Label == k.Label || len(k.id) > 0 && string(other.ID) == string(k.id) {
				return fmt.Errorf("%s: %w: %s", k.owner, hsm.ErrKeyExists, other.KeyRef)
			}
		}
	}
	for _, i := range p.Issuers {
		chain, _, err := p.chainOf(i)
		if err != nil {
			return err
		}
		if _, err := t.Signer(i.Key.ref(), chain[0].PublicKey); err != nil {
			return err
		}
	}
	for _, c := range p.CRLs {
		from, err := p.renewal(c, now)
		if err != nil {
			return err
		}
		if _, err := t.Signer(c.Key.ref(), from.certificate.PublicKey); err != nil {
			return err
		}
	}
	return nil
}

func expect(k Key, public crypto.PublicKey) error {
	if found := algorithmOf(public); k.Algorithm != "" && found != k.Algorithm {
		return fmt.Errorf("the key with %s: %w: it is not of the algorithm %s", k.ref(), hsm.ErrKeyMismatch, k.Algorithm)
	}
	return nil
}

// play opens the transcript, performs the act, and closes the transcript, whatever came of it.
func (h *hall) play(ctx context.Context, a *act) error {
	perform := func() error {
		if err := h.record.record(entry{Begin: &beginning{Ceremony: a.plan.Ceremony, Digest: a.plan.Digest(), Plan: a.plan.text}}); err != nil {
			return err
		}
		if err := h.record.record(entry{Token: tokenEntry(h.token.Info())}); err != nil {
			return err
		}
		return a.perform(ctx)
	}
	reason := perform()
	return errors.Join(reason, h.record.end(reason))
}

func (h *hall) tell(format string, args ...any) { h.say(format, args...) }

func (h *hall) tokenSerial() string { return h.token.Info().Serial }

func (h *hall) key(authority string, k Key, want crypto.PublicKey) (openKey, error) {
	ref := k.ref()
	if !k.Existing {
		var err error
		if ref, want, err = h.token.Generate(hsm.KeySpec{Algorithm: k.Algorithm, Label: k.Label, ID: k.id}); err != nil {
			return openKey{}, err
		}
	}
	signer, err := h.token.Signer(ref, want)
	if err != nil {
		return openKey{}, err
	}
	if err := expect(k, signer.Public()); err != nil {
		return openKey{}, err
	}
	attributes, err := h.token.Attributes(ref)
	if err != nil {
		return openKey{}, err
	}
	if err := attributes.Kept(); err != nil {
		return openKey{}, err
	}
	spki, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		return openKey{}, fmt.Errorf("encoding the public key with %s: %w", ref, err)
	}
	line := keyLine{
		Authority: authority, Label: attributes.Label, ID: hexOf(attributes.ID), Generated: !k.Existing, SPKI: spki, SPKIDigest: hexDigest(spki),
		Attributes: told(attributes), Missing: attributes.Missing,
	}
	if err := h.record.record(entry{Key: &line}); err != nil {
		return openKey{}, err
	}
	h.say("%s: key %q, id %s, public key %s", authority, line.Label, line.ID, line.SPKIDigest)
	return openKey{signer: signer, ref: hsm.KeyRef{Label: attributes.Label, ID: attributes.ID}, spki: spki}, nil
}

func (h *hall) intents(issuer, subject string) issuance.Recorder {
	return h.record.intents(issuer, subject)
}

func (h *hall) input(f fileLine) error { return h.record.record(entry{Input: &f}) }

func (h *hall) signed(subject string, kind issuance.Kind, der []byte) error {
	line := signed{SHA256: hexDigest(der), DER: der}
	if err := h.record.record(entry{Signed: &line}); err != nil {
		return err
	}
	what := "certificate"
	if kind == issuance.List {
		what = "CRL"
	}
	h.say("%s: %s signed, %s", subject, what, line.SHA256)
	return nil
}

func (h *hall) file(name string, data []byte) error {
	if err := writeArtefact(h.dir, name, data); err != nil {
		return err
	}
	return h.record.record(entry{Artefact: &fileLine{Name: name, SHA256: hexDigest(data)}})
}
