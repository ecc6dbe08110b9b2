package issuance

import (
	"bytes"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// The extensions of RFC 6962, sections 3.1 and 3.3.
var (
	oidPoison  = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 3}
	oidSCTList = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}
)

// ErrFinalised is returned when a second final certificate is prepared for one precertificate.
var ErrFinalised = errors.New("issuance: one precertificate leads to one final certificate")

// precertificate is what makes something prepared a precertificate: what its final certificate is made from.
type precertificate struct {
	frame     frame
	linter    *linter
	finalised atomic.Bool
}

// marker is the extension that tells a precertificate, or holds the timestamps of a final certificate. It stands last. The zero value
// writes none.
type marker struct {
	poison bool
	scts   []byte // a SignedCertificateTimestampList (RFC 6962, section 3.3)
}

func (m marker) add(b *cryptobyte.Builder) {
	switch {
	case m.poison:
		addExtension(b, oidPoison, true, func(b *cryptobyte.Builder) { b.AddASN1NULL() })
	case m.scts != nil:
		addExtension(b, oidSCTList, false, func(b *cryptobyte.Builder) { b.AddASN1OctetString(m.scts) })
	}
}

// PrepareFinal encodes and lints the certificate of a precertificate that Sign has made: the same but for the timestamps in place of
// the poison, which is checked octet by octet. scts is a SignedCertificateTimestampList (RFC 6962, section 3.3) whose signatures the
// caller has verified. It is done once for each precertificate; a second time, whatever became of the first, is ErrFinalised.
func (i *Issuer) PrepareFinal(p *Prepared, signed *Certificate, scts []byte) (*Prepared, error) {
	if p == nil || p.issuer != i || p.precertificate == nil {
		return nil, errors.New("preparing a final certificate: no precertificate was prepared by this issuer")
	}
	if signed == nil || signed.Kind != Precertificate || signed.Serial != p.serial || !bytes.Equal(signed.TBS, p.tbs) {
		return nil, fmt.Errorf("preparing the final certificate %s: the precertificate is not the one that was signed", p.serial)
	}
	if p.precertificate.finalised.Swap(true) {
		return nil, ErrFinalised
	}
	prepared, err := i.prepareFinal(p, scts)
	if err != nil {
		return nil, fmt.Errorf("preparing the final certificate %s: %w", p.serial, err)
	}
	return prepared, nil
}

func (i *Issuer) prepareFinal(p *Prepared, scts []byte) (*Prepared, error) {
	if err := checkSCTList(scts); err != nil {
		return nil, err
	}
	tbs, err := marshalMarkedTBS(p.precertificate.frame, &p.template, marker{scts: scts})
	if err != nil {
		return nil, err
	}
	if err := checkCorrespondence(p.tbs, tbs); err != nil {
		return nil, err
	}
	draft, err := i.key.draft(tbs)
	if err != nil {
		return nil, err
	}
	if err := p.precertificate.linter.check(draft); err != nil {
		return nil, err
	}
	return &Prepared{issuer: i, serial: p.serial, template: p.template, kind: Final, tbs: tbs, digest: sha256.Sum256(tbs)}, nil
}

// checkSCTList reads the frame of a list: what is in it is the business of who made it.
func checkSCTList(list []byte) error {
	s := cryptobyte.String(list)
	var inner, sct cryptobyte.String
	if !s.ReadUint16LengthPrefixed(&inner) || !s.Empty() || inner.Empty() {
		return errors.New("the list of timestamps cannot be read, or is empty")
	}
	for !inner.Empty() {
		if !inner.ReadUint16LengthPrefixed(&sct) || sct.Empty() {
			return errors.New("the list of timestamps holds one that cannot be read")
		}
	}
	return nil
}

// checkCorrespondence compares a precertificate's to-be-signed bytes, its poison left out, with those of a certificate, its timestamps
// left out (RFC 6962, section 3.2). They must be the same octets. It reads the encodings anew and shares nothing with what wrote them.
func checkCorrespondence(precertificate, final []byte) error {
	before, err := withoutExtension(precertificate, oidPoison)
	if err != nil {
		return fmt.Errorf("reading the precertificate: %w", err)
	}
	after, err := withoutExtension(final, oidSCTList)
	if err != nil {
		return fmt.Errorf("reading the certificate: %w", err)
	}
	if !bytes.Equal(before, after) {
		return errors.New("the certificate does not correspond to its precertificate")
	}
	return nil
}

var errTBS = errors.New("the to-be-signed bytes cannot be read")

// withoutExtension is a TBSCertificate without one extension, which must stand in it exactly once.
func withoutExtension(tbs []byte, oid asn1.ObjectIdentifier) ([]byte, error) {
	outer := cryptobyte.String(tbs)
	var fields cryptobyte.String
	if !outer.ReadASN1(&fields, der.SEQUENCE) || !outer.Empty() {
		return nil, errTBS
	}
	tag := der.Tag(3).ContextSpecific().Constructed()
	var before []byte
	for !fields.Empty() && !fields.PeekASN1Tag(tag) {
		var field cryptobyte.String
		var any der.Tag
		if !fields.ReadAnyASN1Element(&field, &any) {
			return nil, errTBS
		}
		before = append(before, field...)
	}
	var wrapped, list cryptobyte.String
	if !fields.ReadASN1(&wrapped, tag) || !fields.Empty() || !wrapped.ReadASN1(&list, der.SEQUENCE) || !wrapped.Empty() {
		return nil, errTBS
	}
	var kept []byte
	left := 0
	for !list.Empty() {
		var element cryptobyte.String
		if !list.ReadASN1Element(&element, der.SEQUENCE) {
			return nil, errTBS
		}
		inner, whole := cryptobyte.String(nil), element
		var id asn1.ObjectIdentifier
		if !whole.ReadASN1(&inner, der.SEQUENCE) || !inner.ReadASN1ObjectIdentifier(&id) {
			return nil, errTBS
		}
		if id.Equal(oid) {
			left++
			continue
		}
		kept = append(kept, element...)
	}
	if left != 1 {
		return nil, fmt.Errorf("the extension %s stands there %d times, not once", oid, left)
	}
	var b cryptobyte.Builder
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(before)
		b.AddASN1(tag, func(b *cryptobyte.Builder) {
			b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(kept) })
		})
	})
	return b.Bytes()
}
