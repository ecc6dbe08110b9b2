package hsm

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// Certificate is a certificate object (CKO_CERTIFICATE) in a token. The token stores it; nothing here says that it is to be trusted.
type Certificate struct {
	KeyRef
	Certificate *x509.Certificate
	Paired      bool // the token holds the private key of it, under the same CKA_ID
}

// ErrCertificateExists means that the token holds the same certificate already.
var ErrCertificateExists = errors.New("the certificate is in the token already")

// ImportCertificate stores a certificate. Where the token holds its key, it gets that key's CKA_ID, which is how PKCS#11 pairs the two, and
// its label unless another is named; without the key a CKA_ID and a label have to be named.
func (t *Token) ImportCertificate(ctx context.Context, certificate *x509.Certificate, ref KeyRef) (Certificate, error) {
	stored := Certificate{KeyRef: ref, Certificate: certificate}
	o := &Operation{Op: OpImport, Key: ref}
	o.digestOf(certificate.Raw)
	err := t.inSession(ctx, o, func(s session) (err error) {
		known, err := s.certificates(KeyRef{})
		if err != nil {
			return err
		}
		for _, c := range known {
			if bytes.Equal(c.Certificate.Raw, certificate.Raw) {
				return fmt.Errorf("%w: %s", ErrCertificateExists, c.KeyRef)
			}
		}
		if stored.KeyRef, stored.Paired, err = s.pairing(certificate.PublicKey, ref); err != nil {
			return err
		}
		o.Key = stored.KeyRef
		for _, c := range known { // of two with the same names neither could be named again
			if c.Names(stored.KeyRef) && stored.Names(c.KeyRef) {
				return fmt.Errorf("another certificate has %s: give this one another label, or delete that one first", c.KeyRef)
			}
		}
		serial, err := asn1.Marshal(certificate.SerialNumber)
		if err != nil {
			return err
		}
		_, err = s.ctx.CreateObject(s.handle, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_CERTIFICATE),
			pkcs11.NewAttribute(pkcs11.CKA_CERTIFICATE_TYPE, pkcs11.CKC_X_509),
			pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
			pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, false),
			pkcs11.NewAttribute(pkcs11.CKA_LABEL, stored.Label),
			pkcs11.NewAttribute(pkcs11.CKA_ID, stored.ID),
			pkcs11.NewAttribute(pkcs11.CKA_SUBJECT, certificate.RawSubject),
			pkcs11.NewAttribute(pkcs11.CKA_ISSUER, certificate.RawIssuer),
			pkcs11.NewAttribute(pkcs11.CKA_SERIAL_NUMBER, serial),
			pkcs11.NewAttribute(pkcs11.CKA_VALUE, certificate.Raw),
		})
		return err
	})
	if err != nil {
		return Certificate{}, fmt.Errorf("storing the certificate of %q in token %q: %w", certificate.Subject, t.info.Label, err)
	}
	return stored, nil
}

// pairing finds the names that a certificate of this public key is to have.
func (s session) pairing(public crypto.PublicKey, ref KeyRef) (KeyRef, bool, error) {
	keys, err := s.findClass(pkcs11.CKO_PUBLIC_KEY, KeyRef{})
	if err != nil {
		return KeyRef{}, false, err
	}
	for _, object := range keys {
		candidate, err := s.publicKey(object)
		if err != nil {
			continue // a kind that is not understood is not this key's
		}
		if same, ok := candidate.(interface{ Equal(crypto.PublicKey) bool }); !ok || !same.Equal(public) {
			continue
		}
		owner, err := s.ref(object)
		if err != nil {
			return KeyRef{}, false, err
		}
		if len(ref.ID) > 0 && !bytes.Equal(ref.ID, owner.ID) {
			return KeyRef{}, false, fmt.Errorf("%w: the certificate's key has id %x in this token, not %x", ErrKeyMismatch, owner.ID, ref.ID)
		}
		if ref.Label != "" {
			owner.Label = ref.Label
		}
		return owner, true, nil
	}
	if len(ref.ID) == 0 || ref.Label == "" {
		return KeyRef{}, false, errors.New("the token does not hold the certificate's key: name a label and an id for it (--label, --id)")
	}
	taken, err := s.findClass(pkcs11.CKO_PRIVATE_KEY, KeyRef{ID: ref.ID})
	if err != nil {
		return KeyRef{}, false, err
	}
	if len(taken) > 0 {
		return KeyRef{}, false, fmt.Errorf("%w: the id %x is that of a key which is not the certificate's", ErrKeyMismatch, ref.ID)
	}
	return ref, false, nil
}

// Certificates lists the certificates that have the label and the CKA_ID of ref, where they are set: all of them for the zero ref.
func (t *Token) Certificates(ctx context.Context, ref KeyRef) (all []Certificate, err error) {
	err = t.inSession(ctx, &Operation{Op: OpList, Key: ref}, func(s session) error {
		all, err = s.certificates(ref)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing the certificates of token %q: %w", t.info.Label, err)
	}
	return all, nil
}

func (s session) certificates(ref KeyRef) (all []Certificate, err error) {
	found, err := s.findClass(pkcs11.CKO_CERTIFICATE, ref)
	if err != nil {
		return nil, err
	}
	for _, object := range found {
		names, err := s.ref(object)
		if err != nil {
			return nil, err
		}
		told, err := s.read(object, pkcs11.CKA_VALUE)
		if err != nil {
			return nil, err
		}
		certificate, err := x509.ParseCertificate(told[pkcs11.CKA_VALUE])
		if err != nil {
			continue // of another kind than X.509, or another's mistake; it harms nobody
		}
		c := Certificate{KeyRef: names, Certificate: certificate}
		if len(names.ID) > 0 {
			keys, err := s.findClass(pkcs11.CKO_PRIVATE_KEY, KeyRef{ID: names.ID})
			if err != nil {
				return nil, err
			}
			c.Paired = len(keys) > 0
		}
		all = append(all, c)
	}
	return all, nil
}

// ErrCertificateNotFound means that the token holds no certificate of that name.
var ErrCertificateNotFound = errors.New("no such certificate")

// DeleteCertificate removes a certificate, which ref names, from the token. Its key stays. ErrCertificateNotFound means that there is none, or
// that the name has come to be another's.
func (t *Token) DeleteCertificate(ctx context.Context, ref KeyRef, certificate *x509.Certificate) error {
	o := &Operation{Op: OpRemove, Key: ref}
	err := t.inSession(ctx, o, func(s session) error {
		object, err := s.oneOf(pkcs11.CKO_CERTIFICATE, ref)
		if err != nil {
			return err
		}
		if o.Key, err = s.ref(object); err != nil {
			return err
		}
		told, err := s.read(object, pkcs11.CKA_VALUE)
		if err != nil {
			return err
		}
		if !bytes.Equal(told[pkcs11.CKA_VALUE], certificate.Raw) {
			return fmt.Errorf("%w: another one has the name by now", ErrCertificateNotFound)
		}
		return prohibited(s.ctx.DestroyObject(s.handle, object), "the certificate is indestructible (CKA_DESTROYABLE is false)")
	})
	if err != nil {
		return fmt.Errorf("deleting the certificate with %s from token %q: %w", ref, t.info.Label, err)
	}
	return nil
}
