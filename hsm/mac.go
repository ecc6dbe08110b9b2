package hsm

import (
	"context"
	"crypto"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"

	"github.com/miekg/pkcs11"
)

// piece is how much is given to the token at once. Octets.
const piece = 32 << 10

// pour gives everything that from yields to the token, piece by piece, and notes its digest in the operation.
func pour(o *Operation, from io.Reader, give func([]byte) error) error {
	var sum hash.Hash = sha256.New()
	buffer := make([]byte, piece)
	for {
		n, err := io.ReadFull(from, buffer)
		if n > 0 {
			sum.Write(buffer[:n])
			if err := give(buffer[:n]); err != nil {
				return err
			}
		}
		switch err {
		case nil:
			continue
		case io.EOF, io.ErrUnexpectedEOF:
			o.Input, o.InputHash = sum.Sum(nil), crypto.SHA256
			return nil
		}
		return fmt.Errorf("reading the input: %w", err)
	}
}

// MAC makes an HMAC (RFC 2104) over a message with a secret key in the token. The token sees the whole message. A hash of 0 stands for the one
// that the key is as long as, and SHA-256 for a key of any other length.
func (t *Token) MAC(ctx context.Context, ref KeyRef, hash crypto.Hash, message io.Reader) (mac []byte, err error) {
	err = t.hmac(ctx, OpMAC, ref, hash, func(s session, k key, o *Operation, mechanism []*pkcs11.Mechanism) error {
		if err := s.ctx.SignInit(s.handle, mechanism, k.handle); err != nil {
			return err
		}
		if err := pour(o, message, func(p []byte) error { return s.ctx.SignUpdate(s.handle, p) }); err != nil {
			return err
		}
		mac, err = s.ctx.SignFinal(s.handle)
		return err
	})
	if err != nil {
		return nil, err
	}
	return mac, nil
}

// VerifyMAC verifies an HMAC in the token, with a hash as in MAC. It returns ErrSignature if it is not the key's over the message.
func (t *Token) VerifyMAC(ctx context.Context, ref KeyRef, hash crypto.Hash, message io.Reader, mac []byte) error {
	return t.hmac(ctx, OpVerify, ref, hash, func(s session, k key, o *Operation, mechanism []*pkcs11.Mechanism) error {
		if err := s.ctx.VerifyInit(s.handle, mechanism, k.handle); err != nil {
			return err
		}
		if err := pour(o, message, func(p []byte) error { return s.ctx.VerifyUpdate(s.handle, p) }); err != nil {
			return err
		}
		err := s.ctx.VerifyFinal(s.handle, mac)
		if is(err, pkcs11.CKR_SIGNATURE_INVALID, pkcs11.CKR_SIGNATURE_LEN_RANGE) {
			return fmt.Errorf("%w: %w", ErrSignature, err)
		}
		return err
	})
}

func (t *Token) hmac(ctx context.Context, op Op, ref KeyRef, hash crypto.Hash, work func(session, key, *Operation, []*pkcs11.Mechanism) error) error {
	o := &Operation{Op: op, Key: ref}
	err := t.withKey(ctx, o, []uint{pkcs11.CKO_SECRET_KEY}, ref, func(k key) (*pkcs11.Mechanism, error) {
		if hash == 0 {
			hash = hashOfLength(k.octets)
		}
		if err := strong(hash); err != nil {
			return nil, err
		}
		return pkcs11.NewMechanism(hashes[hash].mac, nil), nil
	}, func(s session, k key, mechanism []*pkcs11.Mechanism) error {
		return errMechanism(work(s, k, o, mechanism), "choose another hash, or a key of the type CKK_GENERIC_SECRET at least as long as the hash")
	})
	if err != nil {
		return fmt.Errorf("making the HMAC with the key with %s in token %q: %w", ref, t.info.Label, err)
	}
	return nil
}

// hashOfLength is the hash that makes so many octets, and SHA-256 where none does.
func hashOfLength(octets int) crypto.Hash {
	for _, hash := range []crypto.Hash{crypto.SHA384, crypto.SHA512} {
		if hash.Size() == octets {
			return hash
		}
	}
	return crypto.SHA256
}

// Digest hashes in the token.
func (t *Token) Digest(ctx context.Context, hash crypto.Hash, message io.Reader) (digest []byte, err error) {
	o := &Operation{Op: OpDigest}
	err = t.using(ctx, o, func() error {
		if err := strong(hash); err != nil {
			return err
		}
		o.Mechanism = mechanismName(hashes[hash].mechanism)
		return t.inOwnSession(o, func(s session) error {
			if err := s.ctx.DigestInit(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(hashes[hash].mechanism, nil)}); err != nil {
				return errMechanism(err, "choose another hash")
			}
			if err := pour(o, message, func(p []byte) error { return s.ctx.DigestUpdate(s.handle, p) }); err != nil {
				return err
			}
			digest, err = s.ctx.DigestFinal(s.handle)
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("hashing in token %q: %w", t.info.Label, err)
	}
	return digest, nil
}
