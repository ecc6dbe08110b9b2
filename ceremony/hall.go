package ceremony

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
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

// survey refuses, before anything is made, names of new keys that the token has already, keys that must be there and are not, and keys that
// may not sign what the plan has them sign.
func survey(ctx context.Context, t *hsm.Token, p Plan, now time.Time) error {
	for _, k := range p.keys() {
		if k.Existing {
			signer, err := t.Signer(k.ref(), nil)
			if err != nil {
				return err
			}
			if err := expect(k.Key, signer.Public()); err != nil {
				return err
			}
		} else if err := t.Free(ctx, k.ref()); err != nil {
			return fmt.Errorf("%s: %w", k.owner, err)
		}
	}
	for _, a := range p.Authorities {
		if !p.signs(a) {
			continue
		}
		if err := precedes(t, p, a); err != nil {
			return fmt.Errorf("authority %s: %w", a.Name, err)
		}
		if err := allowed(ctx, t, a.Key, a.Key.Algorithm); err != nil {
			return fmt.Errorf("authority %s: %w", a.Name, err)
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
		if err := allowed(ctx, t, i.Key, algorithmOf(chain[0].PublicKey)); err != nil {
			return fmt.Errorf("issuer %s: %w", i.Name, err)
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
		if err := allowed(ctx, t, c.Key, algorithmOf(from.certificate.PublicKey)); err != nil {
			return fmt.Errorf("CRL of %s: %w", c.Issuer, err)
		}
	}
	return ownKeys(t, p)
}

// ownKeys refuses a key that is there and that an authority above has: the rehearsal plays with another in its place, and does not see it.
func ownKeys(t *hsm.Token, p Plan) error {
	lines := map[string][]crypto.PublicKey{} // by authority, its key and those above it
	for _, i := range p.Issuers {
		chain, _, err := p.chainOf(i)
		if err != nil {
			return err
		}
		for _, c := range chain {
			lines[i.Name] = append(lines[i.Name], c.PublicKey)
		}
	}
	for _, a := range p.order() {
		above := lines[a.Issuer]
		if !a.Key.Existing { // what will be made is nobody's yet
			lines[a.Name] = above
			continue
		}
		signer, err := t.Signer(a.Key.ref(), nil)
		if err != nil {
			return err
		}
		own, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
		if !ok || slices.ContainsFunc(above, own.Equal) {
			return fmt.Errorf("authority %s: the key with %s is that of an authority above it: generate a key for this one", a.Name, a.Key.ref())
		}
		lines[a.Name] = append(slices.Clone(above), signer.Public())
	}
	return nil
}

// precedes refuses a CRL that an authority's own is to follow and that its key has not signed, which the rehearsal cannot tell.
func precedes(t *hsm.Token, p Plan, a Authority) error {
	if a.CRL == nil || a.CRL.Previous == "" {
		return nil
	}
	signer, err := t.Signer(a.Key.ref(), nil)
	if err != nil {
		return err
	}
	previous, err := new(renewal).previous(p, a.CRL.Previous)
	if err == nil {
		err = checkSignature(signer.Public(), previous.SignatureAlgorithm, previous.RawTBSRevocationList, previous.Signature)
	}
	if err != nil {
		return fmt.Errorf("the CRL before, %s: %w", a.CRL.Previous, err)
	}
	return nil
}

// allowed asks the usage policy of the token whether a key may sign. A key that is there has its whole name, one that will be made what the
// plan says.
func allowed(ctx context.Context, t *hsm.Token, k Key, algorithm hsm.Algorithm) error {
	ref := k.ref()
	if k.Existing {
		attributes, err := t.Attributes(ref)
		if err != nil {
			return err
		}
		ref = hsm.KeyRef{Label: attributes.Label, ID: attributes.ID}
	}
	return t.MaySign(ctx, ref, algorithm)
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
