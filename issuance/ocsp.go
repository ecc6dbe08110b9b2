package issuance

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha1" // as a name of keys and of issuers (RFC 6960, sections 4.1.1 and 4.2.1), not for signatures
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"
)

// OCSPStatus is what an answer says of a certificate (RFC 6960, section 2.2).
type OCSPStatus int

// The statuses. The numbers are the tags of CertStatus.
const (
	OCSPGood    OCSPStatus = 0
	OCSPRevoked OCSPStatus = 1
	OCSPUnknown OCSPStatus = 2 // the authority has not issued it
)

// String is the status as RFC 6960 and its tools write it.
func (s OCSPStatus) String() string { return [...]string{"good", "revoked", "unknown"}[s] }

// OCSPAnswer is what is said of one certificate. Times are cut to whole seconds.
type OCSPAnswer struct {
	ID         CertID
	Status     OCSPStatus
	RevokedAt  time.Time // one later than ThisUpdate, from a clock ahead, is written as ThisUpdate
	Reason     Reason    // of a revoked one; Unspecified is left out
	ThisUpdate time.Time // when the status was known to be so
	NextUpdate time.Time // when newer information will be there
	// ArchiveCutoff, when not zero, says that the status is kept for certificates that expired since then (RFC 6960, section 4.4.4).
	ArchiveCutoff time.Time
}

// Responder answers for an authority: with the authority's own key, or with one that the authority has certified for that
// (RFC 6960, section 4.2.2.2). It is safe for concurrent use.
type Responder struct {
	certificate *x509.Certificate // of a key of its own; nil: the authority's key answers
	key         signingKey
	issuers     [4][]byte // how a CertID of the authority's certificates begins, in each form that is answered
	id          []byte    // DER of the ResponderID: by key, which does not change when a certificate is renewed
	trailer     []byte    // DER of what follows the signature: the responder's certificate
	notAfter    time.Time
	signed      atomic.Uint64 // responses with a nonce
	answered    atomic.Uint64 // signatures, late ones included
}

// Responder answers with the authority's own key.
func (i *Issuer) Responder() (*Responder, error) {
	return newResponder(i.certificate, nil, i.key)
}

// NewResponder joins an authority's certificate with that of a responder and its key. It refuses a certificate that the authority has not
// signed, that is not for OCSPSigning, that clients would ask about in turn (id-pkix-ocsp-nocheck), or that is another key's.
func NewResponder(authority, certificate *x509.Certificate, key crypto.Signer) (*Responder, error) {
	if authority == nil || certificate == nil || key == nil {
		return nil, errors.New("opening an OCSP responder: a certificate or the key is missing")
	}
	signing, err := newSigningKey(key)
	if err == nil {
		signing.id = certificate.SubjectKeyId
		err = checkResponder(authority, certificate, signing.public)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the OCSP responder %q: %w", certificate.Subject, err)
	}
	return newResponder(authority, certificate, signing)
}

func checkResponder(authority, certificate *x509.Certificate, public crypto.PublicKey) error {
	if err := certificate.CheckSignatureFrom(authority); err != nil {
		return fmt.Errorf("the authority has not signed the certificate: %w", err)
	}
	if !samePublicKey(public, certificate.PublicKey) {
		return errors.New("the key is not that of the certificate")
	}
	signsAnswers, unchecked := false, false
	for _, usage := range certificate.ExtKeyUsage {
		signsAnswers = signsAnswers || usage == x509.ExtKeyUsageOCSPSigning
	}
	for _, e := range certificate.Extensions {
		unchecked = unchecked || e.Id.Equal(oidOCSPNoCheck)
	}
	switch {
	case !signsAnswers || len(certificate.ExtKeyUsage) != 1:
		return errors.New("the certificate is not for OCSPSigning alone")
	case !unchecked:
		return errors.New("the certificate lacks id-pkix-ocsp-nocheck")
	case certificate.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return errors.New("the certificate's keyUsage lacks digitalSignature")
	}
	return nil
}

func newResponder(authority, certificate *x509.Certificate, key signingKey) (*Responder, error) {
	r := &Responder{certificate: certificate, key: key, notAfter: authority.NotAfter}
	bits, err := subjectKeyBits(authority)
	if err != nil {
		return nil, err
	}
	if r.issuers, err = issuerForms(authority.RawSubject, bits); err != nil {
		return nil, err
	}
	if certificate != nil {
		if bits, err = subjectKeyBits(certificate); err != nil {
			return nil, err
		}
		if certificate.NotAfter.Before(r.notAfter) {
			r.notAfter = certificate.NotAfter
		}
		var b cryptobyte.Builder
		b.AddASN1(der.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(certificate.Raw) })
		})
		if r.trailer, err = b.Bytes(); err != nil {
			return nil, fmt.Errorf("encoding the responder's certificate: %w", err)
		}
	}
	hash := sha1.Sum(bits)
	var b cryptobyte.Builder
	b.AddASN1(der.Tag(2).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddASN1OctetString(hash[:]) })
	if r.id, err = b.Bytes(); err != nil {
		return nil, fmt.Errorf("encoding the responder's identifier: %w", err)
	}
	return r, nil
}

// subjectKeyBits is the value of the BIT STRING subjectPublicKey, of which OCSP makes its hashes.
func subjectKeyBits(c *x509.Certificate) ([]byte, error) {
	s, inner := cryptobyte.String(c.RawSubjectPublicKeyInfo), cryptobyte.String(nil)
	var bits []byte
	if !s.ReadASN1(&inner, der.SEQUENCE) || !inner.SkipASN1(der.SEQUENCE) || !inner.ReadASN1BitStringAsBytes(&bits) {
		return nil, fmt.Errorf("the public key of %q cannot be read", c.Subject)
	}
	return bits, nil
}

var (
	oidSHA1      = asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}
	oidSHA256    = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidOCSPBasic = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1}

	oidArchiveCutoff = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 6}
)

// issuerForms are the beginnings of a CertID: with SHA-1 and with SHA-256, each with NULL parameters and without. Clients write both, and
// find in the answer what they wrote.
func issuerForms(subject, keyBits []byte) (forms [4][]byte, err error) {
	name1, key1, name256, key256 := sha1.Sum(subject), sha1.Sum(keyBits), sha256.Sum256(subject), sha256.Sum256(keyBits)
	for n, f := range []struct {
		oid       asn1.ObjectIdentifier
		null      bool
		name, key []byte
	}{
		{oidSHA1, true, name1[:], key1[:]},
		{oidSHA1, false, name1[:], key1[:]},
		{oidSHA256, true, name256[:], key256[:]},
		{oidSHA256, false, name256[:], key256[:]},
	} {
		var b cryptobyte.Builder
		algorithm{oid: f.oid, null: f.null}.add(&b)
		b.AddASN1OctetString(f.name)
		b.AddASN1OctetString(f.key)
		if forms[n], err = b.Bytes(); err != nil {
			return forms, fmt.Errorf("encoding the issuer of a CertID: %w", err)
		}
	}
	return forms, nil
}

// Form tells whether a CertID is of a certificate of the authority's, and in which form it is written: answers to different forms differ.
func (r *Responder) Form(id CertID) (form int, ours bool) {
	for n, issuer := range r.issuers {
		if bytes.Equal(id.issuer, issuer) {
			return n, true
		}
	}
	return 0, false
}

// CertID names a certificate of the authority, as a request with the first form does.
func (r *Responder) CertID(serial []byte) CertID { return CertID{Serial: serial, issuer: r.issuers[0]} }

// Certificate is the certificate of a responder with a key of its own; nil where the authority's key answers. It must not be changed.
func (r *Responder) Certificate() *x509.Certificate { return r.certificate }

// Answered is how many signatures the key has made for this responder, those included that came too late for whoever asked. While it grows,
// the key is at work, however long one has to wait for it.
func (r *Responder) Answered() uint64 { return r.answered.Load() }

// Reserve takes room for a signature, where the key is one that is limited in how often it signs, and returns an error where there is none
// at the moment. Asked before Sign, it keeps a key that is asked too often from being taken for one that fails.
func (r *Responder) Reserve(now time.Time) error { return r.key.reserve(1, now) }

// NotAfter is when nobody believes the responder's answers any more: the end of its certificate, or of the authority's.
func (r *Responder) NotAfter() time.Time { return r.notAfter }

// OCSPResponse is a response that was signed.
type OCSPResponse struct {
	DER       []byte
	Signature Signature
}

// verifyEach is of how many ECDSA signatures over responses with a nonce one is verified.
const verifyEach = 16

// Sign encodes a response with these answers, and the nonce where it is not nil, has the key sign it, and verifies the signature, if others
// than one client will see it. A response with a nonce is for the client that made the nonce, and verified there: verifying it here
// costs as much as signing it, and saves that client one more question, in the rare case. So of those of ECDSA some are
// verified, to notice a key that has become faulty. Those of RSA all are: that costs a tenth, and a faulty one can give the key away.
//
// No intent is made durable before: an answer commits the authority to nothing beyond itself, and a keeper writes each to its journal.
// ErrPossiblySigned says here that it was the key that failed: what cannot be built never comes to it.
func (r *Responder) Sign(ctx context.Context, answers []OCSPAnswer, nonce []byte, producedAt time.Time) (*OCSPResponse, error) {
	tbs, err := r.marshalResponseData(answers, nonce, producedAt)
	if err != nil {
		return nil, fmt.Errorf("building an OCSP response: %w", err)
	}
	began := time.Now()
	value, err := wait(ctx, func() ([]byte, error) {
		value, err := r.key.signMessage(tbs)
		if err == nil {
			r.answered.Add(1)
		}
		return value, err
	})
	took := time.Since(began)
	if err == nil && r.verifies(nonce) {
		err = r.key.verify(tbs, value)
	}
	if err != nil {
		return nil, fmt.Errorf("signing an OCSP response: %w: %w", ErrPossiblySigned, err)
	}
	response, err := r.assemble(tbs, value)
	if err != nil {
		return nil, fmt.Errorf("building an OCSP response: %w", err)
	}
	digest := sha256.Sum256(tbs)
	return &OCSPResponse{DER: response, Signature: Signature{KeyID: r.key.id, Algorithm: r.key.algorithm.name, Digest: digest[:], Duration: took}}, nil
}

func (r *Responder) verifies(nonce []byte) bool {
	if _, isRSA := r.key.public.(*rsa.PublicKey); isRSA || nonce == nil {
		return true
	}
	return r.signed.Add(1)%verifyEach == 1
}

// marshalResponseData encodes a ResponseData (RFC 6960, section 4.2.1). Its version is v1, the default, which DER leaves out.
func (r *Responder) marshalResponseData(answers []OCSPAnswer, nonce []byte, producedAt time.Time) ([]byte, error) {
	if len(answers) == 0 || len(nonce) > MaxNonce {
		return nil, fmt.Errorf("there are no answers, or the nonce has more than %d octets", MaxNonce)
	}
	b := cryptobyte.NewBuilder(make([]byte, 0, 64+len(nonce)+192*len(answers)))
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddBytes(r.id)
		b.AddASN1GeneralizedTime(producedAt.UTC())
		b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
			for n := range answers {
				r.addAnswer(b, &answers[n])
			}
		})
		if nonce != nil {
			b.AddASN1(der.Tag(1).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
				b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
					addExtension(b, oidOCSPNonce, false, func(b *cryptobyte.Builder) { b.AddASN1OctetString(nonce) })
				})
			})
		}
	})
	return b.Bytes()
}

// addAnswer writes a SingleResponse.
func (r *Responder) addAnswer(b *cryptobyte.Builder, a *OCSPAnswer) {
	thisUpdate, nextUpdate := a.ThisUpdate.UTC().Truncate(time.Second), a.NextUpdate.UTC().Truncate(time.Second)
	if _, ours := r.Form(a.ID); !ours || len(a.ID.Serial) == 0 {
		b.SetError(errors.New("an answer is about another authority's certificate"))
		return
	}
	if !nextUpdate.After(thisUpdate) {
		b.SetError(fmt.Errorf("nextUpdate is %s, not after thisUpdate, which is %s", stamp(nextUpdate), stamp(thisUpdate)))
		return
	}
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
			b.AddBytes(a.ID.issuer)
			addSerial(b, a.ID.Serial)
		})
		a.addStatus(b, thisUpdate)
		b.AddASN1GeneralizedTime(thisUpdate)
		b.AddASN1(der.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddASN1GeneralizedTime(nextUpdate) })
		if !a.ArchiveCutoff.IsZero() {
			b.AddASN1(der.Tag(1).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
				b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
					addExtension(b, oidArchiveCutoff, false, func(b *cryptobyte.Builder) { b.AddASN1GeneralizedTime(a.ArchiveCutoff.UTC()) })
				})
			})
		}
	})
}

// addStatus writes a CertStatus. The reason is absent where it is unspecified, as on CRLs.
func (a *OCSPAnswer) addStatus(b *cryptobyte.Builder, thisUpdate time.Time) {
	switch a.Status {
	case OCSPGood, OCSPUnknown:
		b.AddASN1(der.Tag(a.Status).ContextSpecific(), func(*cryptobyte.Builder) {})
	case OCSPRevoked:
		revokedAt := a.RevokedAt.UTC().Truncate(time.Second)
		if revokedAt.After(thisUpdate) {
			revokedAt = thisUpdate
		}
		b.AddASN1(der.Tag(a.Status).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1GeneralizedTime(revokedAt)
			if a.Reason != Unspecified {
				b.AddASN1(der.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) { b.AddASN1Enum(int64(a.Reason)) })
			}
		})
	default:
		b.SetError(fmt.Errorf("%d is no status", a.Status))
	}
}

// addSerial writes a serial number without an octet of the sign as an INTEGER.
func addSerial(b *cryptobyte.Builder, serial []byte) {
	b.AddASN1(der.INTEGER, func(b *cryptobyte.Builder) {
		if serial[0]&0x80 != 0 {
			b.AddUint8(0)
		}
		b.AddBytes(serial)
	})
}

// assemble joins a ResponseData and its signature to an OCSPResponse with a BasicOCSPResponse in it.
func (r *Responder) assemble(tbs, signature []byte) ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, len(tbs)+len(signature)+len(r.trailer)+80))
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Enum(0) // successful
		b.AddASN1(der.Tag(0).ContextSpecific().Constructed(), func(b *cryptobyte.Builder) {
			b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
				b.AddASN1ObjectIdentifier(oidOCSPBasic)
				b.AddASN1(der.OCTET_STRING, func(b *cryptobyte.Builder) {
					b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
						b.AddBytes(tbs)
						r.key.algorithm.add(b)
						b.AddASN1BitString(signature)
						b.AddBytes(r.trailer)
					})
				})
			})
		})
	})
	return b.Bytes()
}

// OCSPRefusal is a response without an answer, and so without a signature (RFC 6960, section 2.3).
type OCSPRefusal int

// The refusals, by their number in OCSPResponseStatus.
const (
	OCSPMalformed     OCSPRefusal = 1
	OCSPInternalError OCSPRefusal = 2
	OCSPTryLater      OCSPRefusal = 3
	OCSPUnauthorized  OCSPRefusal = 6 // this responder does not answer for that authority
)

// String is the refusal's name in RFC 6960.
func (r OCSPRefusal) String() string {
	switch r {
	case OCSPMalformed:
		return "malformedRequest"
	case OCSPInternalError:
		return "internalError"
	case OCSPTryLater:
		return "tryLater"
	case OCSPUnauthorized:
		return "unauthorized"
	}
	return fmt.Sprintf("refusal(%d)", int(r))
}

// DER is the refusal as an OCSPResponse.
func (r OCSPRefusal) DER() []byte { return []byte{0x30, 0x03, 0x0a, 0x01, byte(r)} }
