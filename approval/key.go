package approval

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// The forms of a key, and of the signatures by it.
const (
	FormSSH  = "ssh"  // an OpenSSH public key; signatures as ssh-keygen -Y sign makes them
	FormX509 = "x509" // a certificate; detached CMS signatures (RFC 5652)
)

// Key is an approver's public key. Its zero value is none.
type Key struct {
	Form string
	// Public is the key in SSH's wire format (RFC 4253, section 6.6), or the certificate in DER.
	Public []byte

	public crypto.PublicKey
	until  time.Time
}

const maxKey = 16 << 10 // octets

// ParseKey reads a key from a line of SSH (as in id_ed25519.pub), or from a certificate in PEM or DER. A private key is refused without
// being quoted.
func ParseKey(text []byte) (Key, error) {
	switch trimmed := bytes.TrimSpace(text); {
	case len(text) > maxKey:
		return Key{}, fmt.Errorf("a public key of %d octets is larger than %d", len(text), maxKey)
	case bytes.Contains(trimmed, []byte("PRIVATE KEY")):
		return Key{}, errors.New("this is a private key: keep it, and give the public one")
	case bytes.HasPrefix(trimmed, []byte("-----BEGIN ")):
		block, rest := pem.Decode(trimmed)
		if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
			return Key{}, errors.New("give one certificate, or an SSH public key")
		}
		return LoadKey(FormX509, block.Bytes)
	case len(trimmed) > 0 && trimmed[0] == 0x30:
		return LoadKey(FormX509, text)
	default:
		public, _, options, rest, err := ssh.ParseAuthorizedKey(trimmed)
		if err != nil {
			return Key{}, errors.New("this is neither an SSH public key nor a certificate")
		}
		if len(options) > 0 || len(bytes.TrimSpace(rest)) > 0 {
			return Key{}, errors.New("give one SSH public key, without options")
		}
		return LoadKey(FormSSH, public.Marshal())
	}
}

// LoadKey reads a key from what Key holds. It refuses keys that are too weak, and kinds of key that cannot sign here.
func LoadKey(form string, public []byte) (Key, error) {
	k := Key{Form: form, Public: public}
	switch form {
	case FormSSH:
		parsed, err := ssh.ParsePublicKey(public)
		if err != nil {
			return Key{}, fmt.Errorf("reading an SSH public key: %w", err)
		}
		if _, allowed := sshAlgorithms[parsed.Type()]; !allowed {
			return Key{}, fmt.Errorf("a key of type %q cannot approve: use ed25519, ecdsa, rsa, or the hardware-backed sk- forms", parsed.Type())
		}
		whole, ok := parsed.(ssh.CryptoPublicKey)
		if !ok {
			return Key{}, fmt.Errorf("a key of type %q cannot be compared with others", parsed.Type())
		}
		k.public = whole.CryptoPublicKey()
	case FormX509:
		certificate, err := x509.ParseCertificate(public)
		if err != nil {
			return Key{}, fmt.Errorf("reading a certificate: %w", err)
		}
		if certificate.KeyUsage != 0 && certificate.KeyUsage&(x509.KeyUsageDigitalSignature|x509.KeyUsageContentCommitment) == 0 {
			return Key{}, errors.New("the certificate's key is not for signing (its key usage lacks digitalSignature)")
		}
		if _, edwards := certificate.PublicKey.(ed25519.PublicKey); edwards {
			return Key{}, errors.New("Ed25519 is not verified in CMS here: give the key as an SSH public key, or use an ECDSA or RSA key")
		}
		k.public, k.until = certificate.PublicKey, certificate.NotAfter
	default:
		return Key{}, fmt.Errorf("there is no form of key %q", form)
	}
	return k, checkStrength(k.public)
}

func checkStrength(public crypto.PublicKey) error {
	const least, most = 2048, 8192
	switch key := public.(type) {
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n < least || n > most || key.E < 65537 {
			return fmt.Errorf("an RSA key of %d bits cannot approve: use %d to %d, with an exponent of 65537 or more", n, least, most)
		}
	case *ecdsa.PublicKey:
		if bits := key.Params().BitSize; bits < 256 {
			return fmt.Errorf("an elliptic-curve key of %d bits cannot approve", bits)
		}
	case ed25519.PublicKey:
	default:
		return fmt.Errorf("a key of type %T cannot approve", public)
	}
	return nil
}

// Fingerprint names the key itself, whichever form it has: the SHA-256 of its SubjectPublicKeyInfo. One key in two forms is one key.
func (k Key) Fingerprint() string {
	spki, err := x509.MarshalPKIXPublicKey(k.public)
	if err != nil { // of kinds that LoadKey refuses
		return ""
	}
	digest := sha256.Sum256(spki)
	return "sha256:" + hex.EncodeToString(digest[:])
}

// Is tells whether it is this public key, whatever form either has.
func (k Key) Is(public crypto.PublicKey) bool { return same(k.public, public) }

// Until is when the key's certificate ends; zero for a key without one.
func (k Key) Until() time.Time { return k.until }

// String is the key as ParseKey reads it.
func (k Key) String() string {
	if k.Form == FormX509 {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.Public}))
	}
	parsed, err := ssh.ParsePublicKey(k.Public)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(parsed)))
}

// same tells whether two public keys are one.
func same(a, b crypto.PublicKey) bool {
	comparable, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && comparable.Equal(b)
}
