package audit

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/mod/sumdb/note"
)

// The types of keys of signed notes (C2SP signed-note, "Signature types").
const (
	typeEd25519     = 0x01
	typeECDSA       = 0x02
	typeCosignature = 0x04 // C2SP tlog-cosignature, Ed25519
)

// maxNote is the longest signed note that is read: a checkpoint with the signatures of many witnesses. Octets.
const maxNote = 64 << 10

// Verifier verifies signatures of one key on signed notes. It is a note.Verifier of golang.org/x/mod/sumdb/note.
type Verifier struct {
	name    string
	kind    byte
	id      uint32
	encoded []byte // the public key, as the verifier key has it
	public  crypto.PublicKey
}

// NewVerifier makes the verifier of a log's key: Ed25519, or ECDSA on P-256 with SHA-256.
func NewVerifier(name string, public crypto.PublicKey) (*Verifier, error) {
	switch k := public.(type) {
	case ed25519.PublicKey:
		return newVerifier(name, typeEd25519, k)
	case *ecdsa.PublicKey:
		spki, err := x509.MarshalPKIXPublicKey(k)
		if err != nil {
			return nil, fmt.Errorf("audit: the key %q: %w", name, err)
		}
		return newVerifier(name, typeECDSA, spki)
	}
	return nil, fmt.Errorf("audit: the key %q: checkpoints are signed with Ed25519 or with ECDSA on P-256, not with a %T", name, public)
}

// NewWitness makes the verifier of a witness's cosignatures.
func NewWitness(name string, public ed25519.PublicKey) (*Verifier, error) {
	return newVerifier(name, typeCosignature, public)
}

// ParseVerifier reads a verifier key: name+ID+key, the ID in hexadecimal, the key with its type in base64.
func ParseVerifier(vkey string) (*Verifier, error) {
	name, rest, _ := strings.Cut(vkey, "+")
	id, key, ok := strings.Cut(rest, "+")
	octets, err := base64.StdEncoding.Strict().DecodeString(key)
	if !ok || err != nil || len(octets) < 2 {
		return nil, errors.New("audit: a verifier key is name+ID+key, the ID in hexadecimal, the key in base64")
	}
	v, err := newVerifier(name, octets[0], octets[1:])
	if err != nil {
		return nil, err
	}
	if v.String() != name+"+"+strings.ToLower(id)+"+"+key {
		return nil, fmt.Errorf("audit: the verifier key %q: the ID is not the key's", name)
	}
	return v, nil
}

func newVerifier(name string, kind byte, encoded []byte) (*Verifier, error) {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || r == '+' || r == unicode.ReplacementChar
	}) {
		return nil, fmt.Errorf("audit: %q is no name of a key: it has neither spaces nor plus signs", name)
	}
	v := &Verifier{name: name, kind: kind, encoded: encoded}
	hashed := sha256.Sum256(append([]byte(name+"\n"), append([]byte{kind}, encoded...)...))
	switch kind {
	case typeEd25519, typeCosignature:
		if len(encoded) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("audit: the key %q: an Ed25519 key has %d octets", name, ed25519.PublicKeySize)
		}
		v.public = ed25519.PublicKey(encoded)
	case typeECDSA:
		public, err := x509.ParsePKIXPublicKey(encoded)
		k, ok := public.(*ecdsa.PublicKey)
		if err != nil || !ok || k.Curve != elliptic.P256() {
			return nil, fmt.Errorf("audit: the key %q: ECDSA keys are on P-256", name)
		}
		v.public = k
		hashed = sha256.Sum256(encoded)
	default:
		return nil, fmt.Errorf("audit: the key %q is of the type %#02x, which is not known", name, kind)
	}
	v.id = binary.BigEndian.Uint32(hashed[:4])
	return v, nil
}

// Name is the key's name.
func (v *Verifier) Name() string { return v.name }

// KeyHash is the key's ID, which its signature lines begin with.
func (v *Verifier) KeyHash() uint32 { return v.id }

// String is the verifier key.
func (v *Verifier) String() string {
	return fmt.Sprintf("%s+%08x+%s", v.name, v.id, base64.StdEncoding.EncodeToString(append([]byte{v.kind}, v.encoded...)))
}

// Public is the public key.
func (v *Verifier) Public() crypto.PublicKey { return v.public }

// IsWitness tells whether the key is a witness's, whose signatures tell a time.
func (v *Verifier) IsWitness() bool { return v.kind == typeCosignature }

// Verify verifies a signature over the text of a note.
func (v *Verifier) Verify(text, signature []byte) bool {
	switch v.kind {
	case typeEd25519:
		return ed25519.Verify(v.public.(ed25519.PublicKey), text, signature)
	case typeECDSA:
		digest := sha256.Sum256(text)
		return ecdsa.VerifyASN1(v.public.(*ecdsa.PublicKey), digest[:], signature)
	case typeCosignature:
		if len(signature) != 8+ed25519.SignatureSize {
			return false
		}
		at := binary.BigEndian.Uint64(signature)
		return at>>63 == 0 && ed25519.Verify(v.public.(ed25519.PublicKey), cosigned(at, text), signature[8:])
	}
	return false
}

// cosigned is what a witness signs.
func cosigned(at uint64, text []byte) []byte {
	return append([]byte("cosignature/v1\ntime "+strconv.FormatUint(at, 10)+"\n"), text...)
}

// Signer signs checkpoints with a key that is elsewhere, in a token. It is a note.Signer.
type Signer struct {
	*Verifier
	key crypto.MessageSigner
}

// NewSigner makes a signer of a log's key. The key is given the whole text, so that whoever keeps it can see what it signs.
func NewSigner(name string, key crypto.MessageSigner) (*Signer, error) {
	v, err := NewVerifier(name, key.Public())
	if err != nil {
		return nil, err
	}
	return &Signer{v, key}, nil
}

// Consistency is what shows that a checkpoint extends an earlier one. With it a checkpoint is signed: it goes to the key as the options of
// the signature, for whoever keeps the key to verify.
type Consistency struct {
	From  Checkpoint
	Proof []Hash // RFC 6962, section 2.1.2

	hash crypto.Hash // of the key that is asked to sign
}

// HashFunc is the hash that the key signs with; 0 with Ed25519.
func (c Consistency) HashFunc() crypto.Hash { return c.hash }

// Earlier is the size and the root of the earlier tree, and the proof.
func (c Consistency) Earlier() (size int64, root []byte, proof [][]byte) {
	for _, h := range c.Proof {
		proof = append(proof, h[:])
	}
	return c.From.Size, c.From.Root[:], proof
}

// Unproven is the error of a key whose keeper did not see what it asks for: that the checkpoint extends the last one that the key signed.
// That one may be known to nobody else.
type Unproven interface {
	error
	// LastSize is the size of the last checkpoint that the key signed.
	LastSize() int64
}

// Sign signs the text of a note, and verifies the signature.
func (s *Signer) Sign(text []byte) ([]byte, error) { return s.sign(text, s.hash()) }

// hash is what the key signs with.
func (s *Signer) hash() crypto.Hash {
	if s.kind == typeEd25519 {
		return 0
	}
	return crypto.SHA256
}

func (s *Signer) sign(text []byte, options crypto.SignerOpts) ([]byte, error) {
	signature, err := s.key.SignMessage(nil, text, options)
	if err != nil {
		return nil, err
	}
	if !s.Verify(text, signature) {
		return nil, fmt.Errorf("audit: what the key %q made is no signature of its own", s.name)
	}
	return signature, nil
}

// showing is a signer that shows its key what a checkpoint extends.
type showing struct {
	*Signer
	shown Consistency
}

func (s showing) Sign(text []byte) ([]byte, error) { return s.sign(text, s.shown) }

// SignCheckpoint makes the signed note of a checkpoint, the first of its key.
func SignCheckpoint(c Checkpoint, by *Signer) ([]byte, error) { return signCheckpoint(c, by) }

// SignExtension makes the signed note of a checkpoint that is shown to extend an earlier one. The error is, or wraps, an Unproven when the
// key has signed a later one, or one that is not on record.
func SignExtension(c Checkpoint, shown Consistency, by *Signer) ([]byte, error) {
	shown.hash = by.hash()
	return signCheckpoint(c, showing{by, shown})
}

func signCheckpoint(c Checkpoint, by note.Signer) ([]byte, error) {
	if c.Origin == "" || strings.ContainsAny(c.Origin, "\r\n") || c.Size < 0 {
		return nil, fmt.Errorf("audit: %q is no origin of a log, or %d no size", c.Origin, c.Size)
	}
	signed, err := note.Sign(&note.Note{Text: c.Text()}, by)
	if err != nil {
		return nil, fmt.Errorf("signing a checkpoint: %w", err)
	}
	return signed, nil
}

// Cosign adds a witness's signature to a signed checkpoint. A witness has seen to it before that the log has only grown.
func Cosign(signed []byte, name string, key ed25519.PrivateKey, at time.Time) ([]byte, error) {
	w, err := NewWitness(name, key.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, err
	}
	text, err := noteText(signed)
	if err != nil {
		return nil, err
	}
	seconds := at.Unix()
	if seconds < 0 {
		return nil, fmt.Errorf("audit: a witness does not sign at %s, before 1970", at)
	}
	line := cosignature(w, uint64(seconds), ed25519.Sign(key, cosigned(uint64(seconds), text)))
	return append(append([]byte{}, signed...), line...), nil
}

func cosignature(w *Verifier, at uint64, signature []byte) string {
	octets := binary.BigEndian.AppendUint32(nil, w.id)
	octets = binary.BigEndian.AppendUint64(octets, at)
	return "— " + w.name + " " + base64.StdEncoding.EncodeToString(append(octets, signature...)) + "\n"
}

func noteText(signed []byte) ([]byte, error) {
	end := bytes.LastIndex(signed, []byte("\n\n"))
	if len(signed) > maxNote || end < 0 {
		return nil, errors.New("audit: this is no signed note, or it is too long")
	}
	return signed[:end+1], nil
}

// ReadCheckpoint reads a signed checkpoint without verifying it: for whoever made it.
func ReadCheckpoint(signed []byte) (Checkpoint, error) {
	text, err := noteText(signed)
	if err != nil {
		return Checkpoint{}, err
	}
	return ParseCheckpoint(string(text))
}

// Signature is a signature on a checkpoint that has been verified.
type Signature struct {
	By   *Verifier
	Line string    // as it stands in the note, with its line end
	At   time.Time // when a witness signed; zero for a log's own
}

// OpenCheckpoint verifies a signed checkpoint. One of the keys that are no witness's must have signed it, and every signature of a known
// key must be right. Signatures of other keys are passed over; the verified ones are returned, one of each key.
func OpenCheckpoint(signed []byte, known ...*Verifier) (Checkpoint, []Signature, error) {
	if len(signed) > maxNote {
		return Checkpoint{}, nil, fmt.Errorf("audit: a signed checkpoint has at most %d octets", maxNote)
	}
	verifiers := make([]note.Verifier, len(known))
	for i, v := range known {
		verifiers[i] = v
	}
	n, err := note.Open(signed, note.VerifierList(verifiers...))
	if err != nil {
		return Checkpoint{}, nil, fmt.Errorf("audit: opening a signed checkpoint: %w", err)
	}
	c, err := ParseCheckpoint(n.Text)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	var all []Signature
	byLog := false
	for _, s := range n.Sigs {
		v := of(known, s.Name, s.Hash)
		one := Signature{By: v, Line: "— " + s.Name + " " + s.Base64 + "\n"}
		if v.IsWitness() {
			octets, err := base64.StdEncoding.DecodeString(s.Base64)
			if err != nil || len(octets) < 12 {
				return Checkpoint{}, nil, errors.New("audit: a cosignature cannot be read")
			}
			one.At = time.Unix(int64(binary.BigEndian.Uint64(octets[4:])), 0).UTC()
		}
		byLog = byLog || !v.IsWitness()
		all = append(all, one)
	}
	if !byLog {
		return Checkpoint{}, nil, errors.New("audit: opening a signed checkpoint: the log's own key has not signed it")
	}
	return c, all, nil
}

func of(known []*Verifier, name string, id uint32) *Verifier {
	for _, v := range known {
		if v.name == name && v.id == id {
			return v
		}
	}
	return nil
}

var (
	_ note.Verifier = (*Verifier)(nil)
	_ note.Signer   = (*Signer)(nil)
)
