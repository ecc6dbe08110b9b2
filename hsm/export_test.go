package hsm

import (
	"context"
	"crypto"
	"errors"

	"github.com/ThalesIgnite/crypto11"
	"github.com/miekg/pkcs11"
)

// GenerateMisled generates an extractable key where a kept one was asked for, as a token does that ignores what it is told.
func (t *Token) GenerateMisled(spec KeySpec) (KeyRef, crypto.PublicKey, error) {
	return t.generate(context.Background(), spec, func(s session, spec KeySpec, k kind) (crypto.PublicKey, error) {
		misled := spec
		misled.Extractable = true
		if _, err := s.made(misled, k); err != nil {
			return nil, err
		}
		return s.readBack(KeyRef{Label: spec.Label, ID: spec.ID}, false, nil, false)
	})
}

// GenerateConservatively generates with the profile of an unknown vendor.
func (t *Token) GenerateConservatively(spec KeySpec) (KeyRef, crypto.PublicKey, error) {
	return t.generate(context.Background(), spec, func(s session, spec KeySpec, k kind) (crypto.PublicKey, error) {
		return s.make(spec, k, profileFor(TokenInfo{Manufacturer: "unheard of"}))
	})
}

// RawSigner is the key as crypto11 gives it, to measure what is put around it.
func (t *Token) RawSigner(ref KeyRef) (crypto.Signer, error) {
	var found pair
	err := t.inSession(context.Background(), &Operation{Op: OpFind}, func(s session) (err error) {
		found, err = s.pair(ref)
		return err
	})
	return found.key, err
}

// LoseSessions ends all sessions of the token behind the package's back, as a network HSM does that was restarted.
func (r *Recovering) LoseSessions() error {
	token, _, err := r.now()
	if err != nil {
		return err
	}
	return token.module.ctx.CloseAllSessions(token.info.Slot)
}

// OpenApart opens a token as behind p11-kit, where crypto11 has to log in by itself, and has that fail: the library is not found any more.
func OpenApart(c Config) error {
	m, err := modules.load(c.Module)
	if err != nil {
		return err
	}
	pin, err := c.PIN.reveal(context.Background())
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	token, settings, _, err := m.prepare(c)
	if err != nil {
		return err
	}
	inner, err := crypto11.Configure(settings)
	if err != nil {
		return err
	}
	apart := m.apart
	defer func() { m.apart = apart }()
	m.apart = true
	t := &Token{module: m, inner: inner, info: token.describe(m)}
	settings.Path += ".gone"
	if err := t.start(settings, pin, false); err != nil {
		return errors.Join(err, t.abandon())
	}
	return nil
}

// DestroyHalf destroys the objects of one class that a key has, as a destruction does that is cut short.
func DestroyHalf(t *Token, class string, ref KeyRef) error {
	return t.eachHalf(class, ref, func(s session, half pkcs11.ObjectHandle) error { return s.ctx.DestroyObject(s.handle, half) })
}

// LabelHalf gives the objects of one class that a key has another label, as a rename does that is cut short.
func LabelHalf(t *Token, class string, ref KeyRef, label string) error {
	return t.eachHalf(class, ref, func(s session, half pkcs11.ObjectHandle) error {
		return s.ctx.SetAttributeValue(s.handle, half, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, label)})
	})
}

func (t *Token) eachHalf(class string, ref KeyRef, do func(session, pkcs11.ObjectHandle) error) error {
	return t.inSession(context.Background(), &Operation{Op: OpFind}, func(s session) error {
		for number, name := range classNames {
			if name != class {
				continue
			}
			found, err := s.findClass(number, ref)
			if err != nil {
				return err
			}
			for _, half := range found {
				if err := do(s, half); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// Occupy takes all sessions that sign, until the function that it returns gives them back.
func Occupy(t *Token) (release func(), err error) {
	for range cap(t.lent.places) {
		if err := t.lent.enter(); err != nil {
			return nil, err
		}
	}
	return func() {
		for range cap(t.lent.places) {
			t.lent.leave()
		}
	}, nil
}
