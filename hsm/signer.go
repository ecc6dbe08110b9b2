package hsm

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	_ "crypto/sha256" // the hashes that are signed with
	_ "crypto/sha512"
	"errors"
	"fmt"
	"io"

	"github.com/ThalesIgnite/crypto11"
)

// Signer is what Token.Signer returns: besides digests it takes whole messages, so that whoever stands between the caller and the
// key can see what is signed. It is safe for concurrent use. The random source of a call is not used: the token has its own.
//
// Hashes are SHA-256, SHA-384 and SHA-512; an Ed25519 key takes none (0), and what it is given is the message. RSA-PSS takes a salt of an
// explicit length or rsa.PSSSaltLengthEqualsHash.
type Signer interface {
	crypto.Signer
	crypto.MessageSigner
}

// Signer returns the key that ref names, if exactly one matches, the token vouches that it is confined to it (see Attributes.Kept), and
// its public key is want. A nil want accepts any. The signer works until the token is closed or lost; after opening the token again it
// must be asked for again.
func (t *Token) Signer(ref KeyRef, want crypto.PublicKey) (Signer, error) {
	s, err := t.signer(ref, want, t.kept)
	if err != nil {
		return nil, fmt.Errorf("signer with %s in token %q: %w", ref, t.info.Label, err)
	}
	return s, nil
}

// signer is Signer with another notion of how well the key must be kept.
func (t *Token) signer(ref KeyRef, want crypto.PublicKey, kept func(Attributes) error) (*signer, error) {
	var found pair
	o := &Operation{Op: OpFind, Key: ref}
	err := t.inSession(context.Background(), o, func(s session) (err error) {
		found, err = s.pair(ref)
		return err
	})
	if err != nil {
		return nil, err
	}
	public := found.public
	if err := kept(found.attributes); err != nil {
		return nil, err
	}
	if !found.attributes.Sign {
		return nil, errors.New("the key is not for signing: CKA_SIGN is not true")
	}
	if found.attributes.AlwaysAuthenticate {
		return nil, errors.New("the key needs a log-in for each signature (CKA_ALWAYS_AUTHENTICATE), which is not supported")
	}
	if want != nil {
		key, ok := public.(interface{ Equal(crypto.PublicKey) bool })
		if !ok || !key.Equal(want) {
			return nil, ErrKeyMismatch
		}
	}
	_, isRSA := public.(*rsa.PublicKey)
	return &signer{token: t, ref: found.attributes.ref(), key: found.key, public: public, rsa: isRSA}, nil
}

type signer struct {
	token  *Token
	ref    KeyRef
	key    crypto11.Signer // nil: an Ed25519 key, which crypto11 does not know
	public crypto.PublicKey
	rsa    bool
}

func (s *signer) Public() crypto.PublicKey { return s.public }

// Sign signs a digest that opts.HashFunc() made; with Ed25519, a message, and opts.HashFunc() is 0.
func (s *signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if s.key == nil {
		return s.signEdwards(digest, opts)
	}
	hash, err := s.hash(opts)
	if err != nil {
		return nil, s.wrap(err)
	}
	if len(digest) != hash.Size() {
		return nil, s.wrap(fmt.Errorf("the digest has %d octets, %v makes %d", len(digest), hash, hash.Size()))
	}
	return s.sign(digest, &Operation{Input: digest, InputHash: hash}, opts)
}

// SignMessage hashes the message with opts.HashFunc() and signs the digest.
func (s *signer) SignMessage(_ io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	if s.key == nil {
		return s.signEdwards(message, opts)
	}
	hash, err := s.hash(opts)
	if err != nil {
		return nil, s.wrap(err)
	}
	h := hash.New()
	h.Write(message)
	digest := h.Sum(nil)
	o := &Operation{Input: digest, InputHash: hash}
	if hash != crypto.SHA256 && s.token.observer != nil {
		o.digestOf(message)
	}
	return s.sign(digest, o, opts)
}

// signEdwards signs a message with Ed25519, without a context and not pre-hashed (RFC 8032, section 5.1).
func (s *signer) signEdwards(message []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts == nil || opts.HashFunc() != 0 {
		return nil, s.wrap(errors.New("Ed25519 signs messages, not digests: name no hash"))
	}
	if o, ok := opts.(*ed25519.Options); ok && (o == nil || o.Context != "") {
		return nil, s.wrap(errors.New("Ed25519 signs without a context here"))
	}
	signature, err := s.token.Sign(context.Background(), s.ref, SignOptions{Scheme: EdDSA}, bytes.NewReader(message))
	if err != nil {
		return nil, err
	}
	// The key is found by its names each time, and another one may have them by now.
	if public, ok := s.public.(ed25519.PublicKey); !ok || !ed25519.Verify(public, message, signature) {
		return nil, s.wrap(ErrKeyMismatch)
	}
	return signature, nil
}

// hash refuses options with which crypto11 would panic or would sign something else than a digest: an RSA key signs raw octets when it
// does not know the hash.
func (s *signer) hash(opts crypto.SignerOpts) (crypto.Hash, error) {
	if opts == nil {
		return 0, errors.New("no hash is named")
	}
	if pss, ok := opts.(*rsa.PSSOptions); ok {
		switch {
		case pss == nil:
			return 0, errors.New("no hash is named")
		case !s.rsa:
			return 0, errors.New("RSA-PSS needs an RSA key")
		case pss.SaltLength <= 0 && pss.SaltLength != rsa.PSSSaltLengthEqualsHash:
			return 0, errors.New("RSA-PSS needs a salt of an explicit length, or of the hash's")
		}
	}
	switch hash := opts.HashFunc(); hash {
	case crypto.SHA256, crypto.SHA384, crypto.SHA512:
		return hash, nil
	case 0:
		return 0, errors.New("no hash is named")
	default:
		return 0, fmt.Errorf("the hash %v is not signed with", hash)
	}
}

// signsWith is the mechanism by which a Signer's key signs, but where PSS is asked for.
func signsWith(isRSA bool) string {
	if isRSA {
		return "CKM_RSA_PKCS"
	}
	return "CKM_ECDSA"
}

func (s *signer) sign(digest []byte, o *Operation, opts crypto.SignerOpts) (signature []byte, err error) {
	o.Op, o.Key, o.Mechanism = OpSign, s.ref, signsWith(s.rsa)
	if _, pss := opts.(*rsa.PSSOptions); pss && s.rsa {
		o.Mechanism = "CKM_RSA_PKCS_PSS"
	}
	ctx := context.Background()
	err = s.token.using(ctx, o, func() error {
		if err := s.token.permit(ctx, o); err != nil {
			return err
		}
		if err := s.token.lent.enter(); err != nil {
			return err
		}
		defer s.token.lent.leave()
		signature, err = s.key.Sign(nil, digest, opts)
		return err
	})
	if err != nil {
		return nil, s.wrap(err)
	}
	return signature, nil
}

func (s *signer) wrap(err error) error {
	return fmt.Errorf("signing with the key %s: %w", s.ref, err)
}
