// Package hsm owns tokens and the keys in them: it lists what a PKCS#11 module shows, initialises a token and sets its PINs, finds one
// token and logs in once, makes keys, works with them (signatures, MACs, encryption, wrapping), stores certificates beside them, attests
// what a token says of them, and hands a signing key out as a crypto.Signer that has been checked.
//
// It is the only door to crypto11 and to miekg/pkcs11. A key that is handed out as a signer is refused unless PKCS#11 vouches for it:
// generated in the token (CKA_LOCAL), never extractable, always sensitive, and of the public key that the caller expects.
//
// crypto11 makes RSA and elliptic curve key pairs, finds them and signs as a crypto.Signer. What it lacks, or answers a failing token with
// a panic, comes from miekg/pkcs11 on the same loaded library: token initialisation, token flags, the log-in (crypto11 would take "already
// logged in" for a right PIN), attributes object by object, and every operation of sign.go, mac.go, cipher.go and wrap.go.
//
// Every operation goes through one place, using in operation.go, where it is told to the observer that the token was opened with.
package hsm

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Algorithm is a kind of key that can be generated.
type Algorithm string

// The algorithms. RSA keys have the public exponent 65537. A key for HMAC is a generic secret of the length of the hash.
const (
	ECDSAP256  Algorithm = "ecdsa-p256"
	ECDSAP384  Algorithm = "ecdsa-p384"
	ECDSAP521  Algorithm = "ecdsa-p521"
	Ed25519    Algorithm = "ed25519"
	RSA2048    Algorithm = "rsa-2048"
	RSA3072    Algorithm = "rsa-3072"
	RSA4096    Algorithm = "rsa-4096"
	AES128     Algorithm = "aes-128"
	AES256     Algorithm = "aes-256"
	HMACSHA256 Algorithm = "hmac-sha256"
	HMACSHA384 Algorithm = "hmac-sha384"
	HMACSHA512 Algorithm = "hmac-sha512"
)

// Algorithms are all of them, by name.
func Algorithms() []Algorithm { return slices.Sorted(maps.Keys(algorithms)) }

// Secret tells whether keys of the algorithm have no public half.
func (a Algorithm) Secret() bool { return algorithms[a].secret() }

// Config names a token and how to log in to it.
type Config struct {
	Module      string   // path of the PKCS#11 library
	Token       Selector // exactly one token must match
	PIN         PIN
	MaxSessions int // sessions kept for signing, and as many for all else as the token has room for; 0 means 8. Two more are for housekeeping
	// RetryAfterFailedPIN permits a log-in although the token says that the last one failed. Without it a restarting service
	// could lock the token.
	RetryAfterFailedPIN bool
	// AcceptNotLocal takes keys for confined although the token does not say that they were generated in it (CKA_LOCAL). Some modules say
	// so of no key (NSS softokn); with them only procedure tells a generated key from an imported one.
	AcceptNotLocal bool
	SessionWait    time.Duration // how long an operation waits for a free session before it fails with ErrUnavailable; 0 means 5 s
	Actor          string        // who causes the operations, where no context says; see WithActor
	Observer       Observer      // is told of every operation; nil for nobody
	// Refused, when it is not nil, is told that the token has refused the PIN, before the library is called again: it may crash, and whoever
	// starts anew must know.
	Refused func(serial string, why error) `json:"-"`
	Usage   UsagePolicy                    // is asked before keys are used; nil permits everything
	Now     func() time.Time               `json:"-"` // nil means time.Now
}

// Selector selects a token. Every field that is set must match; at least one must be set. The serial is the safest.
type Selector struct {
	Label  string
	Serial string
	Slot   *uint
}

func (s Selector) String() string {
	var parts []string
	if s.Label != "" {
		parts = append(parts, fmt.Sprintf("label %q", s.Label))
	}
	if s.Serial != "" {
		parts = append(parts, fmt.Sprintf("serial %q", s.Serial))
	}
	if s.Slot != nil {
		parts = append(parts, fmt.Sprintf("slot %d", *s.Slot))
	}
	return strings.Join(parts, ", ")
}

// KeyRef names a key pair in a token. Both fields, where set, must match exactly one key pair; at least one must be set.
type KeyRef struct {
	Label string
	ID    []byte // CKA_ID
}

func (r KeyRef) String() string {
	var parts []string
	if r.Label != "" {
		parts = append(parts, fmt.Sprintf("label %q", r.Label))
	}
	if len(r.ID) > 0 {
		parts = append(parts, "id "+hex.EncodeToString(r.ID))
	}
	return strings.Join(parts, ", ")
}

// Names tells whether the ref, of which a part may be left out, names a key.
func (r KeyRef) Names(key KeyRef) bool {
	return (r.Label == "" || r.Label == key.Label) && (len(r.ID) == 0 || bytes.Equal(r.ID, key.ID))
}

// KeySpec is what Generate makes.
type KeySpec struct {
	Algorithm Algorithm
	Label     string // CKA_LABEL, required, unused in the token
	ID        []byte // CKA_ID; empty means the leftmost 20 octets of SHA-256 over 32 random octets of the token
	// Usages are what the key is for and nothing else; none means signing for a key pair, encryption for AES, a MAC for a generic secret.
	Usages []Usage
	// Mechanisms are the PKCS#11 names of those that the key may be used with (CKA_ALLOWED_MECHANISMS, where the token has it); none means
	// those that this package uses for the usages.
	Mechanisms []string
	// Extractable makes a key that may leave the token wrapped by another key. An authority's key never is.
	Extractable bool
	// Modifiable, Copyable and Indestructible become CKA_MODIFIABLE, CKA_COPYABLE and the opposite of CKA_DESTROYABLE, where the token has
	// them. Without Modifiable the key's label, too, stays as it is.
	Modifiable, Copyable, Indestructible bool
}

// Usage is what a key is for.
type Usage string

// The usages. Of a key pair the private half signs, decrypts and unwraps, and the public half does the opposite; a secret key does both.
const (
	UseSign    Usage = "sign"    // a generic secret makes MACs
	UseEncrypt Usage = "encrypt" // and decrypt
	UseWrap    Usage = "wrap"    // and unwrap
)

// KeyInfo describes a private key found in a token.
type KeyInfo struct {
	KeyRef
	Algorithm Algorithm // empty when it is none of ours
	Type      string    // CKA_KEY_TYPE by its PKCS#11 name, such as CKK_EC, or as a hexadecimal number
}

// TokenInfo describes an open token. The slot is that of this moment: tokens change slots, so it must not be stored.
type TokenInfo struct {
	Module, Label, Serial, Manufacturer, Model string
	Slot                                       uint
	Hardware                                   bool   // CKF_HW_SLOT
	Library                                    string // who made the library (CK_INFO.manufacturerID), which may not be who made the token
}

// Attributes are what the token says of a private or secret key (PKCS#11 2.40, section 4.9).
type Attributes struct {
	Label                                                            string
	ID                                                               []byte
	Token, Private, Sensitive, Extractable                           bool
	Local, NeverExtractable, AlwaysSensitive                         bool
	Sign, Decrypt, Unwrap, Derive, SignRecover, Modifiable, Copyable bool
	Verify, Encrypt, Wrap                                            bool     // of a secret key
	Destroyable                                                      bool     // where the token has the attribute
	AlwaysAuthenticate                                               bool     // each signature needs a log-in of its own
	Missing                                                          []string // attributes that the token did not tell
	untold                                                           []string // of those that a private key need not have
}

// Errors that a caller decides on. Every one is wrapped with what was being done and, where there is one, the CKR name.
var (
	ErrUnavailable = errors.New("the token is not available")
	ErrWrongPIN    = errors.New("the PIN is wrong")
	ErrPINAtRisk   = errors.New("an earlier log-in failed; another failure may lock the token")
	ErrPINLocked   = errors.New("the PIN is locked")
	ErrNoToken     = errors.New("no such token")
	ErrTokenExists = errors.New("the token is initialised already")
	ErrInUse       = errors.New("the token is in use in this process already")
	ErrAmbiguous   = errors.New("more than one matches")
	ErrKeyNotFound = errors.New("no such key")
	ErrKeyExists   = errors.New("the label or the CKA_ID is taken")
	ErrKeyNotKept  = errors.New("the key is not confined to the token")
	ErrKeyMismatch = errors.New("the key in the token is not the one expected")
)
