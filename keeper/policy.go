package keeper

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha1" // as a name of keys (RFC 6960, section 4.2.1), not for signatures
	"crypto/sha256"
	_ "crypto/sha512" // SHA-384
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/chancery-ca/chancery/hsm"
)

// KeyPolicy is a key and all that it may sign. What it does not name is refused. The zero value of each part is the strictest.
type KeyPolicy struct {
	Name string     // for people and for the journal; unique
	Ref  hsm.KeyRef // where it is in its tokens; the CKA_ID alone is best
	// Tokens are the names of the tokens that hold the key. Where there are several, they hold copies of it and stand in for each other.
	Tokens []string
	// Restored accepts a key that its token did not make: one restored from a backup or cloned. Several tokens need it.
	Restored bool
	// Require is what the key, and each token that holds it, must be besides.
	Require hsm.Requirement
	// Certificate is the authority's, which pins the public key, and whose names, identifier, validity and path length bind what is signed.
	Certificate *x509.Certificate
	// PublicKey pins the key where there is no certificate: that of a log.
	PublicKey crypto.PublicKey

	Certificates *CertificatePolicy
	CRLs         *CRLPolicy
	OCSP         *OCSPPolicy
	Checkpoints  *CheckpointPolicy

	// PerSecond is how many signatures there are in a second, with a burst of twice as many, or of two. For more the key is unavailable,
	// which passes by itself. 0: no bound.
	PerSecond float64
	Total     uint64 // signatures in the life of the journal; 0: no bound
}

// CertificatePolicy says which certificates an authority's key signs.
type CertificatePolicy struct {
	Authorities bool // certificates of authorities (CA:TRUE) below this one
	// OCSPResponders permits certificates for OCSPSigning, with which one can vouch for what is revoked: of the keys that the keeper's
	// policies pin as responders of the authority, or, with AnyResponder, of any key.
	OCSPResponders, AnyResponder bool
	MaxValidity                  time.Duration // from notBefore to notAfter; 0: as long as the authority's own lasts
	MaxResponderValidity         time.Duration // of certificates for OCSPSigning, which nobody can revoke; 0: 90 days
	// AnySerial accepts serial numbers of any form, of 8 octets at least and below 2^159. Otherwise they are of Chancery's form: 20 octets,
	// of which the first is 0x1c and the next six are the time in milliseconds.
	AnySerial bool
}

// responderValidity is the longest validity of a responder's certificate.
func (p *CertificatePolicy) responderValidity() time.Duration {
	return cmp.Or(p.MaxResponderValidity, 90*24*time.Hour)
}

// CRLPolicy says which CRLs an authority's key signs.
type CRLPolicy struct {
	MaxValidity time.Duration // from thisUpdate to nextUpdate; required
	// NumbersFrom is added to the time, of which the highest CRL number is made that is signed: for an authority whose numbers are higher.
	// Nil: 0.
	NumbersFrom *big.Int
}

// OCSPPolicy says which OCSP answers a key signs: an authority's own, or one that Responder pins for it.
type OCSPPolicy struct {
	MaxValidity time.Duration // from thisUpdate to nextUpdate; required
	// Responder is the certificate of a key that answers for the authority, whose certificate KeyPolicy.Certificate then is. Nil, and with
	// no ResponderKey: the authority answers by itself.
	Responder *x509.Certificate
	// ResponderKey pins such a key where it has no certificate yet, or one that is renewed: its answers then name it by its hash alone. The
	// key also signs requests (PKCS#10) for certificates of its own.
	ResponderKey crypto.PublicKey
}

// delegated tells whether another key than the authority's answers.
func (p *OCSPPolicy) delegated() bool { return p.Responder != nil || p.ResponderKey != nil }

// CheckpointPolicy says which checkpoints of a log a key signs.
type CheckpointPolicy struct {
	Origin string // the first line of the checkpoint
}

// maxOrigin is the longest origin of checkpoints, in octets: a whole checkpoint goes to a worker in one message.
const maxOrigin = 255

const minSerial = 8 // octets of a serial that AnySerial accepts: 64 bits of randomness fit

// key is a policy made ready.
type key struct {
	KeyPolicy
	id        keyID
	inHex     string // of id, as the journal has it
	public    crypto.PublicKey
	spki      []byte
	algorithm algorithm
	// What stands in the signed bytes.
	subject, authorityKeyID           []byte
	known, issuerKnown                string // the names of the authority, and of the one that has issued its certificate
	pathLen                           int    // of the authority; -1: not bounded
	responderName, responderKeyHash   []byte
	issuerNameHashes, issuerKeyHashes [][]byte // of CertIDs, with SHA-1 and SHA-256
	responders                        [][]byte // SubjectPublicKeyInfos of the authority's OCSP responders
}

// keyID names a key on the wire: SHA-256 over its SubjectPublicKeyInfo.
type keyID [sha256.Size]byte

// algorithm is what a key signs with, chosen by the key alone, as issuance chooses it.
type algorithm struct {
	hash       crypto.Hash
	identifier []byte // DER of the AlgorithmIdentifier; nil for keys that sign nothing with one
}

// The AlgorithmIdentifiers of RFC 5758 and, for PKCS #1 v1.5, of RFC 4055.
var (
	ecdsaSHA256 = algorithm{crypto.SHA256, []byte{0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02}}
	ecdsaSHA384 = algorithm{crypto.SHA384, []byte{0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03}}
	rsaSHA256   = algorithm{
		crypto.SHA256, []byte{0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00},
	}
)

func algorithmOf(public crypto.PublicKey) (algorithm, error) {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return ecdsaSHA256, nil
		case elliptic.P384():
			return ecdsaSHA384, nil
		}
	case *rsa.PublicKey:
		return rsaSHA256, nil
	case ed25519.PublicKey:
		return algorithm{}, nil // it hashes by itself
	}
	return algorithm{}, fmt.Errorf("keys of type %T, or of this curve, are not kept: use ECDSA on P-256 or P-384, RSA, or Ed25519 for a log",
		public)
}

// ready checks a policy and works out what the guard compares with.
func (p KeyPolicy) ready() (*key, error) {
	k, err := p.prepared()
	if err != nil {
		return nil, fmt.Errorf("the policy of key %q: %w", p.Name, err)
	}
	return k, nil
}

func (p KeyPolicy) prepared() (*key, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	k := &key{KeyPolicy: p, public: p.PublicKey, pathLen: -1}
	if p.Certificate != nil {
		k.public = p.Certificate.PublicKey
		k.subject, k.authorityKeyID = p.Certificate.RawSubject, p.Certificate.SubjectKeyId
		k.known, k.issuerKnown = knownAs(p.Certificate.RawSubject), knownAs(p.Certificate.RawIssuer)
		if p.Certificate.MaxPathLen > 0 || p.Certificate.MaxPathLenZero {
			k.pathLen = p.Certificate.MaxPathLen
		}
	}
	if p.OCSP != nil {
		if err := k.prepareOCSP(p.OCSP); err != nil {
			return nil, err
		}
	}
	var err error
	if k.algorithm, err = algorithmOf(k.public); err != nil {
		return nil, err
	}
	if _, edwards := k.public.(ed25519.PublicKey); edwards && (p.Certificates != nil || p.CRLs != nil || p.OCSP != nil) {
		return nil, errors.New("an Ed25519 key signs checkpoints alone")
	}
	if k.spki, err = x509.MarshalPKIXPublicKey(k.public); err != nil {
		return nil, fmt.Errorf("encoding the public key: %w", err)
	}
	k.id = sha256.Sum256(k.spki)
	k.inHex = hex.EncodeToString(k.id[:])
	return k, nil
}

func (p KeyPolicy) check() error {
	authority := p.Certificate != nil && p.Certificate.IsCA && p.Certificate.BasicConstraintsValid && len(p.Certificate.SubjectKeyId) > 0
	switch {
	case p.Name == "":
		return errors.New("it has no name")
	case len(p.Tokens) == 0:
		return errors.New("it names no token")
	case len(p.Tokens) > 1 && !p.Restored:
		return errors.New("a key in several tokens is a copy in all but one: accept that with restored, or name one token")
	case p.Restored && (p.Require.Local || p.Require.NeverExtractable):
		return errors.New("a restored key was outside its token: local and never_extractable cannot be required of it")
	case p.Ref.Label == "" && len(p.Ref.ID) == 0:
		return errors.New("the key is not named: give its CKA_ID or its label")
	case (p.Certificate == nil) == (p.PublicKey == nil):
		return errors.New("one of certificate and public_key is needed, which pins the key")
	case p.Certificates == nil && p.CRLs == nil && p.OCSP == nil && p.Checkpoints == nil:
		return errors.New("it may sign nothing")
	case !authority && (p.Certificates != nil || p.CRLs != nil || p.OCSP != nil):
		return errors.New("only a key whose certificate is an authority's, with a subjectKeyIdentifier, signs certificates, CRLs and " +
			"OCSP answers")
	case p.Certificates != nil && p.Certificates.AnyResponder && !p.Certificates.OCSPResponders:
		return errors.New("any_responder says of which keys ocsp_responders are, and the key signs none")
	case p.CRLs != nil && p.CRLs.MaxValidity <= 0:
		return errors.New("the longest validity of its CRLs is missing")
	case p.OCSP != nil && p.OCSP.MaxValidity <= 0:
		return errors.New("the longest validity of its OCSP answers is missing")
	case p.OCSP != nil && p.OCSP.delegated() && (p.Certificates != nil || p.CRLs != nil):
		return errors.New("a responder's key signs OCSP answers alone")
	case p.OCSP != nil && p.OCSP.Responder != nil && p.OCSP.ResponderKey != nil:
		return errors.New("a responder is pinned by its certificate or by its key, not by both")
	case p.Checkpoints != nil && len(p.Checkpoints.Origin) > maxOrigin:
		return fmt.Errorf("the origin of its checkpoints is longer than %d octets", maxOrigin)
	case p.Checkpoints != nil && (p.Checkpoints.Origin == "" || bytes.ContainsAny([]byte(p.Checkpoints.Origin), "\n\r")):
		return errors.New("the origin of its checkpoints is missing, or not one line")
	case p.PerSecond < 0:
		return errors.New("the rate is negative")
	}
	return nil
}

// pinResponders tells each authority's key which keys are pinned as its responders.
func pinResponders(keys []*key) error {
	for _, k := range keys {
		if k.Certificates == nil || !k.Certificates.OCSPResponders {
			continue
		}
		for _, other := range keys {
			if p := other.OCSP; p != nil && p.delegated() && bytes.Equal(other.subject, k.subject) &&
				bytes.Equal(other.Certificate.RawSubjectPublicKeyInfo, k.Certificate.RawSubjectPublicKeyInfo) {
				k.responders = append(k.responders, other.spki)
			}
		}
		if len(k.responders) == 0 && !k.Certificates.AnyResponder {
			return fmt.Errorf("the policy of key %q: ocsp_responders are those whose keys are pinned with this certificate (ocsp, responder), "+
				"and there is none: pin one, or accept any key with any_responder", k.Name)
		}
	}
	return nil
}

// prepareOCSP works out the names that an answer goes by (RFC 6960, sections 4.1.1 and 4.2.1).
func (k *key) prepareOCSP(p *OCSPPolicy) error {
	issuer, err := publicKeyBits(k.Certificate.RawSubjectPublicKeyInfo)
	if err != nil {
		return err
	}
	name1, key1, name2, key2 := sha1.Sum(k.subject), sha1.Sum(issuer), sha256.Sum256(k.subject), sha256.Sum256(issuer)
	k.issuerNameHashes = [][]byte{name1[:], name2[:]}
	k.issuerKeyHashes = [][]byte{key1[:], key2[:]}
	k.responderName, k.responderKeyHash = k.subject, key1[:]
	var spki []byte
	switch {
	case p.Responder != nil:
		k.public, k.responderName, spki = p.Responder.PublicKey, p.Responder.RawSubject, p.Responder.RawSubjectPublicKeyInfo
	case p.ResponderKey != nil:
		k.public, k.responderName = p.ResponderKey, nil
		if spki, err = x509.MarshalPKIXPublicKey(p.ResponderKey); err != nil {
			return fmt.Errorf("encoding the responder's public key: %w", err)
		}
	default:
		return nil
	}
	bits, err := publicKeyBits(spki)
	if err != nil {
		return err
	}
	own := sha1.Sum(bits)
	k.responderKeyHash = own[:]
	return nil
}

// publicKeyBits is the value of the BIT STRING subjectPublicKey, of which OCSP makes its hashes.
func publicKeyBits(spki []byte) ([]byte, error) {
	s, inner := cryptobyte.String(spki), cryptobyte.String(nil)
	var bits []byte
	if !s.ReadASN1(&inner, der.SEQUENCE) || !inner.SkipASN1(der.SEQUENCE) || !inner.ReadASN1BitStringAsBytes(&bits) {
		return nil, errors.New("the public key of the certificate cannot be read")
	}
	return bits, nil
}
