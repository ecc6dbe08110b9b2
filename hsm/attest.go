package hsm

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/miekg/pkcs11"
)

// AttestationVersion is the version of the evidence's format.
const AttestationVersion = 1

// attestationPrefix stands before the signed octets, so that the signature can be taken for nothing else.
const attestationPrefix = "chancery hsm attestation v1\n"

// Evidence is what a token says of itself and of a key in it. Software tokens say what they like: it is worth as much as the token.
type Evidence struct {
	Version    int         `json:"version"`
	Time       time.Time   `json:"time"`                 // of the host's clock
	Module     Module      `json:"module"`               // without its slots
	Slot       Slot        `json:"slot"`                 // with the token, its flags and its mechanisms
	Declared   Declaration `json:"declared"`             // by the operator; the token does not say it
	Key        []KeyProof  `json:"key"`                  // both halves of a pair, or the secret key
	PublicKey  string      `json:"public_key,omitempty"` // PEM
	Confined   bool        `json:"confined"`             // generated in the token, not extractable, never was
	Unconfined string      `json:"unconfined,omitempty"` // why it is not
}

// KeyProof is one key object with its attributes. The mechanism that made it is CKA_KEY_GEN_MECHANISM.
type KeyProof struct {
	Class      string      `json:"class"`
	Attributes []Attribute `json:"attributes"`
}

// Attestation is evidence with a signature of a key in the same token.
type Attestation struct {
	// Evidence is the JSON of an Evidence. These octets, behind "chancery hsm attestation v1" and a line feed, are what is signed.
	Evidence  []byte        `json:"evidence"`
	Signature AttestationBy `json:"signature"`
}

// AttestationBy is a signature and who made it: the key that is PublicKey. Its names help to find it, and prove nothing: they are not
// signed.
type AttestationBy struct {
	Label     string `json:"label"`      // as the key was asked for; not signed
	ID        string `json:"id"`         // lower-case hex; not signed
	PublicKey string `json:"public_key"` // PEM
	Scheme    Scheme `json:"scheme"`
	Hash      string `json:"hash,omitempty"`
	Value     []byte `json:"value"`
}

// Attest gathers evidence on a key and signs it with a key in the token: with by, or, where by is the zero ref, with the key itself. Of a
// usage policy that is one use of the key, to attest; another key that signs is used to sign.
func (t *Token) Attest(ctx context.Context, ref, by KeyRef, declared Declaration) (Attestation, error) {
	a, err := t.attest(ctx, ref, by, declared)
	if err != nil {
		return Attestation{}, fmt.Errorf("attesting the key with %s in token %q: %w", ref, t.info.Label, err)
	}
	return a, nil
}

func (t *Token) attest(ctx context.Context, ref, by KeyRef, declared Declaration) (Attestation, error) {
	evidence := Evidence{Version: AttestationVersion, Time: t.clock().UTC(), Declared: declared}
	o, signing := &Operation{Op: OpAttest, Key: ref}, &Operation{Op: OpSign}
	named := by.Label != "" || len(by.ID) > 0
	err := t.inSession(ctx, o, func(s session) (err error) {
		if err := t.gather(s, o, &evidence); err != nil {
			return err
		}
		if pair := evidence.PublicKey != ""; pair && (!named || by.Names(o.Key)) {
			signing.permittedAs = OpAttest // it is asked once, when the mechanism is known
			return nil
		}
		return t.permit(ctx, o)
	})
	if err != nil {
		return Attestation{}, err
	}
	if !named {
		if by = o.Key; evidence.PublicKey == "" {
			return Attestation{}, errors.New("a secret key does not sign: name a key in the token to sign the evidence with")
		}
	}
	signing.Key = by
	public, err := t.PublicKey(by)
	if err != nil {
		return Attestation{}, err
	}
	signer, err := publicPEM(public)
	if err != nil {
		return Attestation{}, err
	}
	k, err := keyOf(public)
	if err != nil {
		return Attestation{}, err
	}
	options, err := SignOptions{}.complete(k)
	if err != nil {
		return Attestation{}, err
	}
	a := Attestation{Signature: AttestationBy{Label: by.Label, ID: hex.EncodeToString(by.ID), PublicKey: signer, Scheme: options.Scheme, Hash: hashes[options.Hash].name}}
	if a.Evidence, err = json.Marshal(evidence); err != nil {
		return Attestation{}, err
	}
	message := append([]byte(attestationPrefix), a.Evidence...)
	if a.Signature.Value, err = t.sign(ctx, signing, options, reading(bytes.NewReader(message))); err != nil {
		return Attestation{}, err
	}
	return a, nil
}

// gather reads what the token says.
func (t *Token) gather(s session, o *Operation, e *Evidence) error {
	k, err := s.oneAmong([]uint{pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_SECRET_KEY}, o.Key)
	if err != nil {
		return err
	}
	o.Key = k.ref
	described, err := t.module.describe(false)
	if err != nil {
		return err
	}
	for _, slot := range described.Slots {
		if slot.ID == t.info.Slot {
			e.Slot = slot
		}
	}
	token, err := t.module.tokenData(t.info.Slot, true)
	if err != nil {
		return err
	}
	e.Slot.Token = &token
	described.Slots = []Slot{}
	e.Module = described
	objects, err := s.objects(k.ref)
	if err != nil {
		return err
	}
	for _, object := range objects {
		if object.Class != "CKO_CERTIFICATE" {
			e.Key = append(e.Key, KeyProof{object.Class, object.Attributes})
		}
	}
	if len(e.Key) == 0 {
		return fmt.Errorf("%w: it was destroyed meanwhile", ErrKeyNotFound)
	}
	attributes, err := s.attributes(k.handle)
	if err != nil {
		return err
	}
	e.Confined = true
	if err := attributes.Kept(); err != nil {
		e.Confined, e.Unconfined = false, err.Error()
	}
	if e.Key[0].Class == "CKO_SECRET_KEY" {
		return nil
	}
	public, err := s.publicHalf(k.handle, k.ref)
	if err != nil {
		return err
	}
	e.PublicKey, err = publicPEM(public)
	return err
}

func publicPEM(public crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
}

func parsePublicPEM(text string) (crypto.PublicKey, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("it is not one PEM block PUBLIC KEY")
	}
	return x509.ParsePKIXPublicKey(block.Bytes)
}

// VerifyAttestation checks evidence without any token. It returns the evidence and the SHA-256 of the SubjectPublicKeyInfo of the key that
// signed it; a trusted public key, where it is not nil, must be that key.
func VerifyAttestation(data []byte, trusted crypto.PublicKey) (Evidence, [32]byte, error) {
	e, spki, err := verifyAttestation(data, trusted)
	if err != nil {
		return Evidence{}, [32]byte{}, fmt.Errorf("verifying the attestation: %w", err)
	}
	return e, spki, nil
}

func verifyAttestation(data []byte, trusted crypto.PublicKey) (e Evidence, spki [32]byte, err error) {
	var a Attestation
	if err := strictJSON(data, &a); err != nil {
		return e, spki, err
	}
	public, err := parsePublicPEM(a.Signature.PublicKey)
	if err != nil {
		return e, spki, fmt.Errorf("the signer's public key: %w", err)
	}
	if trusted != nil {
		if same, ok := trusted.(interface{ Equal(crypto.PublicKey) bool }); !ok || !same.Equal(public) {
			return e, spki, fmt.Errorf("%w: another key signed it", ErrKeyMismatch)
		}
	}
	options := SignOptions{Scheme: a.Signature.Scheme}
	if a.Signature.Hash != "" {
		if options.Hash, err = ParseHash(a.Signature.Hash); err != nil {
			return e, spki, err
		}
	}
	message := append([]byte(attestationPrefix), a.Evidence...)
	if err := VerifyWith(public, options, bytes.NewReader(message), a.Signature.Value); err != nil {
		return e, spki, err
	}
	if err := strictJSON(a.Evidence, &e); err != nil {
		return e, spki, err
	}
	if e.Version != AttestationVersion {
		return e, spki, fmt.Errorf("the evidence has version %d, which is not known", e.Version)
	}
	if e.Slot.Token == nil || len(e.Key) == 0 {
		return e, spki, errors.New("the evidence tells of no token, or of no key")
	}
	if e.PublicKey != "" { // which is shown as it stands
		half, err := parsePublicPEM(e.PublicKey)
		if err != nil {
			return e, spki, fmt.Errorf("the key's public half: %w", err)
		}
		if text, err := publicPEM(half); err != nil || text != e.PublicKey {
			return e, spki, errors.New("the key's public half is not one PEM block PUBLIC KEY and nothing else")
		}
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	return e, sha256.Sum256(der), err
}

// strictJSON reads one JSON value, and refuses what two readers could read differently: fields that are not known, that stand twice or
// in other letters, and whatever follows.
func strictJSON(data []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return fmt.Errorf("reading the JSON: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON")
	}
	if !utf8.Valid(data) {
		return errors.New("the JSON is not UTF-8")
	}
	return fieldsOnce(json.NewDecoder(bytes.NewReader(data)))
}

// fieldsOnce goes over a value that was decoded: encoding/json takes the last of the fields that stand twice, and "Evidence" for
// "evidence".
func fieldsOnce(decoder *json.Decoder) error {
	begin, err := decoder.Token()
	if err != nil {
		return err
	}
	if begin != json.Delim('{') && begin != json.Delim('[') {
		return nil
	}
	seen := map[string]bool{}
	for decoder.More() {
		if begin == json.Delim('{') {
			token, err := decoder.Token()
			if err != nil {
				return err
			}
			name, _ := token.(string)
			if seen[name] {
				return fmt.Errorf("the field %q stands in the JSON twice", name)
			}
			if strings.ContainsFunc(name, func(r rune) bool { return r > unicode.MaxASCII || unicode.IsUpper(r) }) {
				return fmt.Errorf("the field %q stands in the JSON in other letters", name)
			}
			seen[name] = true
		}
		if err := fieldsOnce(decoder); err != nil {
			return err
		}
	}
	_, err = decoder.Token() // what ends it
	return err
}
