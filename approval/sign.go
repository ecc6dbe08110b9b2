package approval

import (
	"crypto"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"

	"github.com/smallstep/pkcs7"
	"golang.org/x/crypto/ssh"
)

// Signer signs statements with an approver's key.
type Signer interface {
	Key() Key
	// Sign makes the signature, in PEM, over a statement's text.
	Sign(text []byte) ([]byte, error)
}

// ErrPassphrase says that a private key is encrypted, and that the passphrase given, if any, is not its own.
var ErrPassphrase = errors.New("the private key is encrypted, and this is not its passphrase")

// OpenSSH reads a private key in OpenSSH's or in PKCS#8 form. An encrypted one needs its passphrase.
func OpenSSH(private, passphrase []byte, random io.Reader) (Signer, error) {
	signer, err := ssh.ParsePrivateKey(private)
	var missing *ssh.PassphraseMissingError
	if errors.As(err, &missing) {
		if len(passphrase) == 0 {
			return nil, ErrPassphrase
		}
		if signer, err = ssh.ParsePrivateKeyWithPassphrase(private, passphrase); err != nil {
			return nil, ErrPassphrase
		}
	}
	if err != nil {
		return nil, errors.New("reading the private key: it is none that is known here") // the cause may quote the key
	}
	return newSSHSigner(signer, random)
}

type sshSigner struct {
	signer ssh.Signer
	key    Key
	random io.Reader
}

func newSSHSigner(signer ssh.Signer, random io.Reader) (Signer, error) {
	key, err := LoadKey(FormSSH, signer.PublicKey().Marshal())
	if err != nil {
		return nil, err
	}
	return &sshSigner{signer, key, random}, nil
}

func (s *sshSigner) Key() Key { return s.key }

func (s *sshSigner) Sign(text []byte) ([]byte, error) {
	const hash = "sha512"
	signed, err := sshToBeSigned(SSHNamespace, hash, text)
	if err != nil {
		return nil, err
	}
	var signature *ssh.Signature
	if rsa, ok := s.signer.(ssh.AlgorithmSigner); ok && s.signer.PublicKey().Type() == ssh.KeyAlgoRSA {
		signature, err = rsa.SignWithAlgorithm(s.random, signed, ssh.KeyAlgoRSASHA512) // the default would be SHA-1
	} else {
		signature, err = s.signer.Sign(s.random, signed)
	}
	if err != nil {
		return nil, fmt.Errorf("signing with the SSH key: %w", err)
	}
	blob := append([]byte(sshMagic), ssh.Marshal(sshBlob{
		Version: 1, PublicKey: s.key.Public, Namespace: SSHNamespace, Hash: hash, Signature: ssh.Marshal(signature),
	})...)
	return pem.EncodeToMemory(&pem.Block{Type: pemSSH, Bytes: blob}), nil
}

// OpenX509 reads a certificate and its private key, both PEM.
func OpenX509(certificate, private []byte) (Signer, error) {
	pair, err := tls.X509KeyPair(certificate, private)
	if err != nil {
		return nil, errors.New("reading the certificate and its private key: they are not in PEM, or not a pair") // the cause may quote the key
	}
	key, err := LoadKey(FormX509, pair.Certificate[0])
	if err != nil {
		return nil, err
	}
	return &cmsSigner{pair, key}, nil
}

type cmsSigner struct {
	pair tls.Certificate
	key  Key
}

func (s *cmsSigner) Key() Key { return s.key }

func (s *cmsSigner) Sign(text []byte) ([]byte, error) {
	signing, err := pkcs7.NewSignedData(text)
	if err != nil {
		return nil, fmt.Errorf("signing with the certificate's key: %w", err)
	}
	signing.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	private, ok := s.pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, errors.New("the certificate's key cannot sign")
	}
	if err := signing.AddSigner(s.pair.Leaf, private, pkcs7.SignerInfoConfig{}); err != nil {
		return nil, fmt.Errorf("signing with the certificate's key: %w", err)
	}
	signing.Detach()
	der, err := signing.Finish()
	if err != nil {
		return nil, fmt.Errorf("signing with the certificate's key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemCMS, Bytes: der}), nil
}
