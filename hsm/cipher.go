package hsm

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"

	"github.com/miekg/pkcs11"

	"github.com/chancery-ca/chancery/hsm/sealed"
)

// Mode is a way of encrypting.
type Mode string

// The modes.
const (
	AESGCM  Mode = "aes-gcm"  // NIST SP 800-38D: a nonce of 12 octets, the ciphertext, a tag of 16 octets, in one
	RSAOAEP Mode = "rsa-oaep" // RFC 8017, section 7.1, with MGF1 of the same hash
)

// Cipher chooses how to encrypt. What is left out follows the key.
type Cipher struct {
	Mode Mode
	Hash crypto.Hash // of RSA-OAEP; 0 means SHA-256. Some tokens (SoftHSM) have SHA-1 alone, which is no weakness here
	// Context is authenticated and not encrypted: the additional data of AES-GCM, the label of RSA-OAEP. Decrypting needs the same.
	Context []byte
}

const (
	gcmNonce = 12 // octets
	gcmTag   = 16 // octets
	// maxAtOnce is the longest plaintext that is encrypted in one call; tokens have limits of their own. Longer ones are for EncryptFile.
	maxAtOnce = 1 << 20
)

// ErrCiphertext means that a ciphertext has been changed, or was made with another key, context or mode.
var ErrCiphertext = errors.New("the ciphertext is damaged, or was made with another key, context or mode")

// complete fills in what the caller left to the key.
func (c Cipher) complete(k key) (Cipher, error) {
	mode := map[string]Mode{"CKK_AES": AESGCM, "CKK_RSA": RSAOAEP}[k.keyType]
	switch {
	case mode == "":
		return c, fmt.Errorf("a key of type %s does not encrypt; take an AES or an RSA key", k.keyType)
	case c.Mode != "" && c.Mode != mode:
		return c, fmt.Errorf("a key of type %s does not encrypt with %q", k.keyType, c.Mode)
	}
	c.Mode = mode
	if c.Hash == 0 {
		c.Hash = crypto.SHA256
	}
	if _, known := hashes[c.Hash]; !known {
		return c, fmt.Errorf("RSA-OAEP with the hash %v is not supported", c.Hash)
	}
	return c, nil
}

// oaep is the mechanism of RSA-OAEP.
func oaep(hash crypto.Hash, label []byte) *pkcs11.Mechanism {
	h := hashes[hash]
	return pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_OAEP, pkcs11.NewOAEPParams(h.mechanism, h.mgf, pkcs11.CKZ_DATA_SPECIFIED, label))
}

// remedy says what to do where a token does not encrypt in this mode.
func (m Mode) remedy() string {
	if m == AESGCM {
		return "AES-GCM is missing, or something on the way to the token does not pass it on; take an RSA key that is for encryption"
	}
	return "RSA-OAEP with this hash or context is missing; take the hash sha1 and no context (as SoftHSM needs), or an AES key"
}

// Encrypt encrypts at most 1 MiB with a secret key, or a few octets with the public half of an RSA key pair.
//
// The nonce of AES-GCM is random, of the token; where the token insists on its own, that one is kept. With one key, at most 2^32
// encryptions are safe (NIST SP 800-38D, section 8.3).
func (t *Token) Encrypt(ctx context.Context, ref KeyRef, c Cipher, plaintext []byte) (ciphertext []byte, err error) {
	o := &Operation{Op: OpEncrypt, Key: ref}
	nonce, err := t.Random(gcmNonce)
	if err != nil {
		return nil, err
	}
	var gcm *pkcs11.GCMParams
	err = t.withKey(ctx, o, []uint{pkcs11.CKO_SECRET_KEY, pkcs11.CKO_PUBLIC_KEY}, ref, func(k key) (*pkcs11.Mechanism, error) {
		if c, err = c.complete(k); err != nil {
			return nil, err
		}
		if c.Mode == RSAOAEP {
			if most := k.octets - 2*c.Hash.Size() - 2; len(plaintext) > most {
				return nil, fmt.Errorf("this RSA key encrypts %d octets at most; use the file format for more", most)
			}
			return oaep(c.Hash, c.Context), nil
		}
		if len(plaintext) > maxAtOnce {
			return nil, fmt.Errorf("%d octets are too many at once; use the file format for more than %d", len(plaintext), maxAtOnce)
		}
		gcm = pkcs11.NewGCMParams(nonce, c.Context, 8*gcmTag)
		return pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, gcm), nil
	}, func(s session, k key, mechanism []*pkcs11.Mechanism) error {
		defer gcm.Free()
		if err := s.ctx.EncryptInit(s.handle, mechanism, k.handle); err != nil {
			return errMechanism(err, c.Mode.remedy())
		}
		if ciphertext, err = s.ctx.Encrypt(s.handle, plaintext); err != nil {
			return errMechanism(err, c.Mode.remedy())
		}
		if c.Mode == AESGCM {
			used := gcm.IV()
			if len(used) != gcmNonce || len(ciphertext) != len(plaintext)+gcmTag {
				return fmt.Errorf("the token made %d octets with a nonce of %d", len(ciphertext), len(used))
			}
			ciphertext = append(used, ciphertext...)
		}
		o.digestOf(ciphertext) // what was encrypted could be guessed by its digest
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("encrypting with the key with %s in token %q: %w", ref, t.info.Label, err)
	}
	return ciphertext, nil
}

// Decrypt is the opposite of Encrypt. It returns ErrCiphertext for what is not whole.
func (t *Token) Decrypt(ctx context.Context, ref KeyRef, c Cipher, ciphertext []byte) (plaintext []byte, err error) {
	o := &Operation{Op: OpDecrypt, Key: ref}
	o.digestOf(ciphertext)
	var gcm *pkcs11.GCMParams
	input := ciphertext
	err = t.withKey(ctx, o, []uint{pkcs11.CKO_SECRET_KEY, pkcs11.CKO_PRIVATE_KEY}, ref, func(k key) (*pkcs11.Mechanism, error) {
		if c, err = c.complete(k); err != nil {
			return nil, err
		}
		if c.Mode == RSAOAEP {
			if len(ciphertext) != k.octets {
				return nil, fmt.Errorf("%w: it has %d octets, the key makes %d", ErrCiphertext, len(ciphertext), k.octets)
			}
			return oaep(c.Hash, c.Context), nil
		}
		if len(ciphertext) < gcmNonce+gcmTag || len(ciphertext) > gcmNonce+maxAtOnce+gcmTag {
			return nil, fmt.Errorf("%w: %d octets cannot be one", ErrCiphertext, len(ciphertext))
		}
		input = ciphertext[gcmNonce:]
		gcm = pkcs11.NewGCMParams(ciphertext[:gcmNonce], c.Context, 8*gcmTag)
		return pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, gcm), nil
	}, func(s session, k key, mechanism []*pkcs11.Mechanism) error {
		defer gcm.Free()
		if err := s.ctx.DecryptInit(s.handle, mechanism, k.handle); err != nil {
			return errMechanism(err, c.Mode.remedy())
		}
		plaintext, err = s.ctx.Decrypt(s.handle, input)
		// SoftHSM says GENERAL_ERROR of a wrong tag and of wrong padding; the standard has names for it.
		if is(err, pkcs11.CKR_ENCRYPTED_DATA_INVALID, pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE, pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_DATA_INVALID) {
			return &notWhole{err}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("decrypting with the key with %s in token %q: %w", ref, t.info.Label, err)
	}
	return plaintext, nil
}

// notWhole is a ciphertext's fault although the token's answer may also mean that the token is away.
type notWhole struct{ answer error }

func (e *notWhole) Error() string        { return fmt.Sprintf("%s (%s)", ErrCiphertext, e.answer) }
func (e *notWhole) Is(target error) bool { return target == ErrCiphertext }

const dataKeySize = 32 // octets

// EncryptFile encrypts what src yields, of any length, into the format of the package sealed. A data key of its own, random of the token,
// encrypts the contents in this process; the key in the token encrypts the data key. Only that call is made to the token.
func (t *Token) EncryptFile(ctx context.Context, ref KeyRef, c Cipher, dst io.Writer, src io.Reader) error {
	dataKey, err := t.Random(dataKeySize)
	if err != nil {
		return err
	}
	defer clear(dataKey)
	if len(c.Context) > 0 {
		return errors.New("encrypting a file takes no context")
	}
	if c.Hash != 0 && c.Hash != crypto.SHA256 && c.Hash != crypto.SHA1 {
		return fmt.Errorf("the file format knows RSA-OAEP with SHA-256 and SHA-1, not with %v", c.Hash)
	}
	header := sealed.Header{Mode: sealed.AESGCM}
	all, err := t.Objects(ctx, ref)
	if err != nil {
		return err
	}
	for _, object := range all {
		switch object.Class {
		case "CKO_PUBLIC_KEY":
			if header.Mode = sealed.RSAOAEPSHA256; c.Hash == crypto.SHA1 {
				header.Mode = sealed.RSAOAEPSHA1
			}
			header.KeyID = object.ID
		case "CKO_SECRET_KEY":
			header.KeyID = object.ID
		}
	}
	if header.WrappedKey, err = t.Encrypt(ctx, ref, c, dataKey); err != nil {
		return err
	}
	return sealed.Seal(dst, src, header, dataKey)
}

// DecryptFile is the opposite of EncryptFile. The zero ref means the key that the file names. What it writes to dst is whole only if it
// returns nil: a file that was cut short shows at its end.
func (t *Token) DecryptFile(ctx context.Context, ref KeyRef, dst io.Writer, src io.Reader) error {
	header, err := sealed.ReadHeader(src)
	if err != nil {
		return err
	}
	if ref.Label == "" && len(ref.ID) == 0 {
		ref.ID = header.KeyID
	}
	if err := t.ownsFile(ctx, ref, header); err != nil {
		return err
	}
	c := Cipher{Mode: AESGCM}
	switch header.Mode {
	case sealed.RSAOAEPSHA256:
		c = Cipher{Mode: RSAOAEP, Hash: crypto.SHA256}
	case sealed.RSAOAEPSHA1:
		c = Cipher{Mode: RSAOAEP, Hash: crypto.SHA1}
	}
	dataKey, err := t.Decrypt(ctx, ref, c, header.WrappedKey)
	if err != nil {
		return err
	}
	defer clear(dataKey)
	return sealed.Open(dst, src, header, dataKey)
}

// ownsFile refuses a file that was encrypted for another key.
func (t *Token) ownsFile(ctx context.Context, ref KeyRef, header sealed.Header) error {
	all, err := t.Objects(ctx, ref)
	if err != nil {
		return err
	}
	for _, object := range all {
		if bytes.Equal(object.ID, header.KeyID) {
			return nil
		}
	}
	return fmt.Errorf("%w: the file was encrypted for the key with id %x, and in token %q no key with %s has it",
		ErrKeyMismatch, header.KeyID, t.info.Label, ref)
}
