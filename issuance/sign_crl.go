package issuance

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"time"
)

// SignCRL is Sign for a CRL. What it returns has been read again as a whole.
func (i *Issuer) SignCRL(ctx context.Context, p *PreparedCRL, r Recorder) (*CRL, error) {
	if p == nil || p.issuer != i {
		return nil, errors.New("signing a CRL: it was not prepared by this issuer")
	}
	if err := p.spend(); err != nil {
		return nil, err
	}
	if r == nil {
		return nil, errors.New("signing a CRL: there is no recorder")
	}
	s := Signing{Kind: List, Number: new(big.Int).Set(p.number), TBS: p.tbs, Digest: p.digest}
	if err := r.Record(ctx, s); err != nil {
		return nil, fmt.Errorf("signing CRL %s: recording the intent: %w", p.number, err)
	}
	signed, err := i.signRecordedCRL(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("signing CRL %s: %w: %w", p.number, ErrPossiblySigned, err)
	}
	return signed, nil
}

// signRecordedCRL hashes the list as rarely as can be, for it may be long: a key that wants the digest is given that of the intent. That
// nobody changed the list meanwhile shows when it is read again.
func (i *Issuer) signRecordedCRL(ctx context.Context, p *PreparedCRL) (*CRL, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("before the key was asked: %w", err)
	}
	started := time.Now()
	value, err := i.key.askList(ctx, p)
	if err != nil {
		return nil, err
	}
	took := time.Since(started)
	list, err := p.finish(i.key.algorithm, value)
	if err != nil {
		return nil, err
	}
	if err := i.checkCRL(list, p); err != nil {
		return nil, fmt.Errorf("reading it again: %w", err)
	}
	return &CRL{
		DER: list, Number: new(big.Int).Set(p.number), ThisUpdate: p.thisUpdate, NextUpdate: p.nextUpdate, Entries: p.entries,
		Signature: Signature{KeyID: i.key.id, Algorithm: i.key.algorithm.name, Digest: p.digest[:], Duration: took},
	}, nil
}

func (k *signingKey) askList(ctx context.Context, p *PreparedCRL) ([]byte, error) {
	if _, whole := k.signer.(crypto.MessageSigner); whole {
		if sha256.Sum256(p.tbs) != p.digest {
			return nil, errChanged
		}
		return k.ask(ctx, p.tbs)
	}
	digest := p.digest[:]
	if k.algorithm.hash != crypto.SHA256 {
		digest = k.algorithm.digest(p.tbs)
	}
	return k.askDigest(ctx, digest)
}

// checkCRL reads a signed list from its first octet to its last, by other code than that which wrote it.
func (i *Issuer) checkCRL(list []byte, p *PreparedCRL) error {
	read, err := ReadCRL(list)
	if err != nil {
		return err
	}
	if sha256.Sum256(read.TBS) != p.digest {
		return errChanged
	}
	if err := read.verifiedBy(i.key.public, i.key.algorithm, p.digest); err != nil {
		return err
	}
	if read.Number.Cmp(p.number) != 0 || read.Entries != p.entries || !read.ThisUpdate.Equal(p.thisUpdate) ||
		!read.NextUpdate.Equal(p.nextUpdate) || !bytes.Equal(read.issuer, i.certificate.RawSubject) {
		return errors.New("it does not say what it was built from")
	}
	return nil
}
