package approval

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"github.com/smallstep/pkcs7"
	"golang.org/x/crypto/ssh"
)

// SSHNamespace is the namespace of SSH signatures (ssh-keygen -n): one made for another purpose is none here.
const SSHNamespace = "chancery-approval"

// MaxSignature is the largest signature, in octets of its text.
const MaxSignature = 32 << 10

// The types of PEM blocks that signatures come in.
const (
	pemSSH   = "SSH SIGNATURE"
	pemCMS   = "CMS"
	pemPKCS7 = "PKCS7"
)

// Verify checks a signature, in PEM, over the text of a statement. The key alone counts: what else a signature brings along, certificates
// or keys, must be the key's own and is not believed.
func (k Key) Verify(text, signature []byte) error {
	if len(signature) > MaxSignature {
		return fmt.Errorf("a signature of %d octets is larger than %d", len(signature), MaxSignature)
	}
	block, rest := pem.Decode(signature)
	switch {
	case block == nil || len(bytes.TrimSpace(rest)) > 0 || len(block.Headers) > 0:
		return errors.New("the signature is not one block of PEM, as ssh-keygen -Y sign and openssl cms -outform PEM write it")
	case k.Form == FormSSH && block.Type == pemSSH:
		return k.verifySSH(text, block.Bytes)
	case k.Form == FormX509 && (block.Type == pemCMS || block.Type == pemPKCS7):
		return k.verifyCMS(text, block.Bytes)
	}
	return fmt.Errorf("a signature of the form %q does not go with a key of the form %q", block.Type, k.Form)
}

// sshAlgorithms are the types of SSH keys that can approve, each with the algorithms of its signatures: none with SHA-1, no certificates.
var sshAlgorithms = map[string][]string{
	ssh.KeyAlgoED25519:   {ssh.KeyAlgoED25519},
	ssh.KeyAlgoSKED25519: {ssh.KeyAlgoSKED25519},
	ssh.KeyAlgoECDSA256:  {ssh.KeyAlgoECDSA256},
	ssh.KeyAlgoECDSA384:  {ssh.KeyAlgoECDSA384},
	ssh.KeyAlgoECDSA521:  {ssh.KeyAlgoECDSA521},
	ssh.KeyAlgoSKECDSA256: {
		ssh.KeyAlgoSKECDSA256,
	},
	ssh.KeyAlgoRSA: {ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512},
}

// sshBlob is a signature (OpenSSH, PROTOCOL.sshsig). The magic is cut off before.
type sshBlob struct {
	Version   uint32
	PublicKey []byte
	Namespace string
	Reserved  string
	Hash      string
	Signature []byte
}

// sshSigned is what such a signature is over, after the magic.
type sshSigned struct {
	Namespace string
	Reserved  string
	Hash      string
	Digest    []byte
}

const sshMagic = "SSHSIG"

func sshToBeSigned(namespace, hash string, text []byte) ([]byte, error) {
	var digest []byte
	switch hash {
	case "sha256":
		d := sha256.Sum256(text)
		digest = d[:]
	case "sha512":
		d := sha512.Sum512(text)
		digest = d[:]
	default:
		return nil, fmt.Errorf("the signature has the digest %q: use sha512 or sha256", hash)
	}
	return append([]byte(sshMagic), ssh.Marshal(sshSigned{Namespace: namespace, Hash: hash, Digest: digest})...), nil
}

func (k Key) verifySSH(text, blob []byte) error {
	rest, found := bytes.CutPrefix(blob, []byte(sshMagic))
	var s sshBlob
	if !found || ssh.Unmarshal(rest, &s) != nil || s.Version != 1 {
		return errors.New("the SSH signature cannot be read")
	}
	switch {
	case s.Namespace != SSHNamespace:
		return fmt.Errorf("the signature is for %q: sign with -n %s", s.Namespace, SSHNamespace)
	case s.Reserved != "":
		return errors.New("the SSH signature says something that is not known here")
	case !bytes.Equal(s.PublicKey, k.Public):
		return errors.New("the signature is by another key")
	}
	public, err := ssh.ParsePublicKey(k.Public)
	if err != nil {
		return fmt.Errorf("reading an SSH public key: %w", err)
	}
	var inner ssh.Signature
	if err := ssh.Unmarshal(s.Signature, &inner); err != nil {
		return errors.New("the SSH signature cannot be read")
	}
	allowed := false
	for _, algorithm := range sshAlgorithms[public.Type()] {
		allowed = allowed || inner.Format == algorithm
	}
	if !allowed {
		return fmt.Errorf("the signature's algorithm is %q, which does not count here", inner.Format)
	}
	signed, err := sshToBeSigned(s.Namespace, s.Hash, text)
	if err != nil {
		return err
	}
	if err := public.Verify(signed, &inner); err != nil { // of a key in hardware: that somebody touched it, too
		return fmt.Errorf("the signature does not verify: it is over another statement, or by another key: %w", err)
	}
	return nil
}

// cmsAlgorithms are the digests that count, each with the algorithms of signatures that go with it (RFC 5754): the attributes are signed by the
// signature's own digest, which must be no weaker than that of the statement. rsaEncryption takes that of the statement.
var cmsAlgorithms = []struct {
	digest     asn1.ObjectIdentifier
	signatures []asn1.ObjectIdentifier
}{
	{pkcs7.OIDDigestAlgorithmSHA256, []asn1.ObjectIdentifier{
		pkcs7.OIDDigestAlgorithmECDSASHA256, pkcs7.OIDEncryptionAlgorithmRSA, pkcs7.OIDEncryptionAlgorithmRSASHA256,
	}},
	{pkcs7.OIDDigestAlgorithmSHA384, []asn1.ObjectIdentifier{
		pkcs7.OIDDigestAlgorithmECDSASHA384, pkcs7.OIDEncryptionAlgorithmRSA, pkcs7.OIDEncryptionAlgorithmRSASHA384,
	}},
	{pkcs7.OIDDigestAlgorithmSHA512, []asn1.ObjectIdentifier{
		pkcs7.OIDDigestAlgorithmECDSASHA512, pkcs7.OIDEncryptionAlgorithmRSA, pkcs7.OIDEncryptionAlgorithmRSASHA512,
	}},
}

// checkCMSAlgorithms refuses a digest that does not count, and a signature with another.
func checkCMSAlgorithms(digest, signature asn1.ObjectIdentifier) error {
	for _, a := range cmsAlgorithms {
		switch {
		case !a.digest.Equal(digest):
		case slices.ContainsFunc(a.signatures, signature.Equal):
			return nil
		default:
			return fmt.Errorf("the signature's algorithm is %s, which does not go with its digest: sign with -md sha256", signature)
		}
	}
	return errors.New("the signature's digest does not count here: sign with -md sha256")
}

// verifyCMS checks a detached signature (RFC 5652, section 5.4). That the signed attributes' content type is not looked at by the library
// costs nothing: the digest must be that of a statement, and octets that are both a statement and a set of attributes do not exist.
func (k Key) verifyCMS(text, der []byte) error {
	p7, err := pkcs7.Parse(der)
	if err != nil {
		return fmt.Errorf("the CMS signature cannot be read: %w", err)
	}
	if len(p7.Content) > 0 && !bytes.Equal(p7.Content, text) {
		return errors.New("the signature is over another statement")
	}
	p7.Content = text
	signer := p7.GetOnlySigner()
	switch {
	case len(p7.Signers) != 1:
		return fmt.Errorf("%d have signed: it must be one", len(p7.Signers))
	case signer == nil:
		return errors.New("the CMS lacks the signer's certificate: sign without -nocerts")
	case !same(signer.PublicKey, k.public):
		return errors.New("the signature is by another key")
	}
	by := p7.Signers[0]
	if err := checkCMSAlgorithms(by.DigestAlgorithm.Algorithm, by.DigestEncryptionAlgorithm.Algorithm); err != nil {
		return err
	}
	if err := p7.Verify(); err != nil {
		return fmt.Errorf("the signature does not verify: it is over another statement (sign with -binary), or by another key: %w", err)
	}
	return nil
}

// Evidence is a signed word, whole: what was said, the signature, and by which key. It can be verified by whoever has it.
type Evidence struct {
	Statement []byte // its text
	Signature []byte // PEM
	Key       Key
}

// Verify checks the signature, and that the statement is one.
func (e Evidence) Verify() (Statement, error) {
	s, err := ParseStatement(e.Statement)
	if err != nil {
		return Statement{}, err
	}
	return s, e.Key.Verify(e.Statement, e.Signature)
}

// Digest is what the audit log says of evidence: the SHA-256 of statement, signature and key, each after its length in eight octets.
func (e Evidence) Digest() string {
	h := sha256.New()
	for _, part := range [][]byte{[]byte("chancery evidence 1"), e.Statement, e.Signature, []byte(e.Key.Form), e.Key.Public} {
		var length [8]byte
		for i, n := 7, len(part); i >= 0; i, n = i-1, n>>8 {
			length[i] = byte(n)
		}
		h.Write(length[:])
		h.Write(part)
	}
	return hex.EncodeToString(h.Sum(nil))
}
