package issuance

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"
)

// signingKey is a key with what it signs with.
type signingKey struct {
	signer    crypto.Signer
	public    crypto.PublicKey
	algorithm algorithm
	multiples func() *multiples // of the point of a key on P-256, made at the first signature; nil for every other key
	id        []byte            // subject key identifier
}

func newSigningKey(key crypto.Signer) (signingKey, error) {
	public := key.Public()
	algorithm, err := algorithmOf(public)
	if err != nil {
		return signingKey{}, err
	}
	k := signingKey{signer: key, public: public, algorithm: algorithm}
	if point, ok := public.(*ecdsa.PublicKey); ok && haveMultiples(point) {
		k.multiples = sync.OnceValue(func() *multiples { return newMultiples(point) })
	}
	return k, nil
}

// verify checks a signature of the key over a message.
func (k *signingKey) verify(message, signature []byte) error {
	if k.multiples == nil {
		return k.algorithm.verify(k.public, message, signature)
	}
	if !k.multiples().verify(k.algorithm.digest(message), signature) {
		return errSignature
	}
	return nil
}

// draft is a certificate or a CRL with a placeholder in place of its signature, to be linted.
func (k *signingKey) draft(tbs []byte) ([]byte, error) {
	signature, err := placeholder(k.public, tbs)
	if err != nil {
		return nil, err
	}
	return k.algorithm.assemble(tbs, signature)
}

// Sign has the intent recorded, has the key sign exactly the prepared bytes, and verifies the signature. When the intent cannot be
// recorded that error is returned, and nothing was signed. Every later error, the end of ctx included, is ErrPossiblySigned. A Prepared
// is spent by the first Sign, whatever comes of it.
func (i *Issuer) Sign(ctx context.Context, p *Prepared, r Recorder) (*Certificate, error) {
	if p == nil || p.issuer != i {
		return nil, errors.New("signing a certificate: it was not prepared by this issuer")
	}
	if err := p.spend(); err != nil {
		return nil, err
	}
	signing := Signing{Kind: p.kind, Serial: p.serial, TBS: p.tbs, Digest: p.digest}
	certificate, err := i.key.certificate(ctx, signing, p.digest, r)
	if err != nil {
		return nil, fmt.Errorf("signing certificate %s: %w", p.serial, err)
	}
	if err := i.clearKey(certificate.DER); err != nil {
		return nil, fmt.Errorf("signing certificate %s: %w: %w", p.serial, ErrPossiblySigned, err)
	}
	return certificate, nil
}

// clearKey runs compromisedIssuer on the first certificate that an issuer signs, before it is released. See there.
func (i *Issuer) clearKey(certificate []byte) error {
	if i.keyCleared.Load() {
		return nil
	}
	if err := checkIssuerKey(certificate); err != nil {
		return err
	}
	i.keyCleared.Store(true)
	return nil
}

// certificate records, signs and verifies one certificate.
func (k *signingKey) certificate(ctx context.Context, s Signing, digest [sha256.Size]byte, r Recorder) (*Certificate, error) {
	certificate, signature, err := k.record(ctx, s, digest, r)
	if err != nil {
		return nil, err
	}
	return &Certificate{DER: certificate, TBS: s.TBS, Serial: s.Serial, Kind: s.Kind, Signature: signature}, nil
}

// record is the one way to a signature: the intent is made durable, then the key signs, then the signature is verified and joined to
// the bytes. Everything that goes wrong after the intent is ErrPossiblySigned.
func (k *signingKey) record(ctx context.Context, s Signing, digest [sha256.Size]byte, r Recorder) ([]byte, Signature, error) {
	if r == nil {
		return nil, Signature{}, errors.New("there is no recorder")
	}
	if err := r.Record(ctx, s); err != nil {
		return nil, Signature{}, fmt.Errorf("recording the intent: %w", err)
	}
	whole, signature, err := k.signRecorded(ctx, s.TBS, digest)
	if err != nil {
		return nil, Signature{}, fmt.Errorf("%w: %w", ErrPossiblySigned, err)
	}
	return whole, signature, nil
}

var errChanged = errors.New("the bytes were changed after they had been linted")

func (k *signingKey) signRecorded(ctx context.Context, tbs []byte, digest [sha256.Size]byte) ([]byte, Signature, error) {
	if err := ctx.Err(); err != nil {
		return nil, Signature{}, fmt.Errorf("before the key was asked: %w", err)
	}
	if sha256.Sum256(tbs) != digest {
		return nil, Signature{}, errChanged
	}
	started := time.Now()
	value, err := k.ask(ctx, tbs)
	if err != nil {
		return nil, Signature{}, err
	}
	took := time.Since(started)
	if err := k.verify(tbs, value); err != nil {
		return nil, Signature{}, err
	}
	whole, err := k.algorithm.assemble(tbs, value)
	if err != nil {
		return nil, Signature{}, err
	}
	return whole, Signature{KeyID: k.id, Algorithm: k.algorithm.name, Digest: digest[:], Duration: took}, nil
}

// reserve takes room for signatures, where the key is one that is limited in how often it signs.
func (k *signingKey) reserve(signatures int, now time.Time) error {
	limited, ok := k.signer.(interface {
		Reserve(signatures int, now time.Time) error
	})
	if !ok {
		return nil
	}
	return limited.Reserve(signatures, now)
}

// ask has the key sign a message.
func (k *signingKey) ask(ctx context.Context, message []byte) ([]byte, error) {
	return wait(ctx, func() ([]byte, error) { return k.signMessage(message) })
}

func (k *signingKey) signMessage(message []byte) ([]byte, error) {
	return crypto.SignMessage(k.signer, rand.Reader, message, k.algorithm.hash)
}

// askDigest has the key sign a message of which it is given the digest.
func (k *signingKey) askDigest(ctx context.Context, digest []byte) ([]byte, error) {
	return wait(ctx, func() ([]byte, error) { return k.signer.Sign(rand.Reader, digest, k.algorithm.hash) })
}

// wait lets a key sign, and waits no longer than ctx allows. A crypto.Signer cannot be interrupted: the goroutine of a key that hangs
// stays until the key answers or the process ends, and its late answer is thrown away. Callers bound how many those are by not asking
// a key again that has just failed.
func wait(ctx context.Context, sign func() ([]byte, error)) ([]byte, error) {
	type answer struct {
		signature []byte
		err       error
	}
	answers := make(chan answer, 1)
	go func() {
		a := answer{err: errors.New("the key did not answer")}
		defer func() {
			if p := recover(); p != nil {
				a = answer{err: fmt.Errorf("the key panicked: %v", p)}
			}
			answers <- a
		}()
		signature, err := sign()
		a = answer{signature: signature, err: err}
	}()
	select {
	case a := <-answers:
		return a.signature, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the key: %w", ctx.Err())
	}
}
