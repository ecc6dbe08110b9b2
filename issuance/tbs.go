package issuance

import (
	"fmt"
	"time"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/chancery-ca/chancery/policies"
)

// frame is what a certificate says beyond its template.
type frame struct {
	algorithm      algorithm
	serial         Serial
	issuer         []byte // the issuer's name, DER
	authorityKeyID []byte
}

// marshalTBS encodes a TBSCertificate, version 3 (RFC 5280, section 4.1).
func marshalTBS(f frame, t *policies.Template) ([]byte, error) {
	return marshalMarkedTBS(f, t, marker{})
}

// marshalMarkedTBS is marshalTBS with an extension of RFC 6962 after all others.
func marshalMarkedTBS(f frame, t *policies.Template, m marker) ([]byte, error) {
	subject, err := marshalName(t.Subject)
	if err != nil {
		return nil, fmt.Errorf("encoding the subject: %w", err)
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, 1024))
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(der.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddASN1Int64(2) })
		b.AddASN1(der.INTEGER, func(b *cryptobyte.Builder) { b.AddBytes(f.serial[:]) })
		f.algorithm.add(b)
		b.AddBytes(f.issuer)
		b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
			addTime(b, t.NotBefore)
			addTime(b, t.NotAfter)
		})
		b.AddBytes(subject)
		b.AddBytes(t.SPKI)
		b.AddASN1(der.Tag(3).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
				addExtensions(b, t, f.authorityKeyID)
				m.add(b)
			})
		})
	})
	tbs, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encoding the certificate: %w", err)
	}
	return tbs, nil
}

// addTime writes a time in UTC and whole seconds: as UTCTime through 2049, as GeneralizedTime from 2050 (RFC 5280, section 4.1.2.5).
func addTime(b *cryptobyte.Builder, t time.Time) {
	t = t.UTC()
	switch year := t.Year(); {
	case year < 1950 || year > 9999:
		b.SetError(fmt.Errorf("the year %d cannot be written in a certificate", year))
	case year < 2050:
		b.AddASN1UTCTime(t)
	default:
		b.AddASN1GeneralizedTime(t)
	}
}
