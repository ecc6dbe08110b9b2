// Package hsm owns tokens and the keys in them: it opens a PKCS#11 module, finds one token, logs in once, makes keys that cannot
// leave, finds them again, and hands each out as a crypto.Signer that has been checked.
//
// It is the only door to crypto11 and to miekg/pkcs11. It knows nothing of certificates. A key is refused that PKCS#11 does not
// vouch for: generated in the token (CKA_LOCAL), never extractable, always sensitive, and of the public key that the caller expects.
//
// crypto11 makes the keys, finds them and signs. What it lacks comes from miekg/pkcs11 on the same loaded library: token
// initialisation, token flags, the log-in (crypto11 would take "already logged in" for a right PIN), and attributes object by object.
package hsm

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// Algorithm is a kind of key pair that can be generated.
type Algorithm string

// The algorithms. RSA keys have the public exponent 65537.
const (
	ECDSAP256 Algorithm = "ecdsa-p256"
	ECDSAP384 Algorithm = "ecdsa-p384"
	RSA2048   Algorithm = "rsa-2048"
	RSA3072   Algorithm = "rsa-3072"
	RSA4096   Algorithm = "rsa-4096"
)

// Config names a token and how to log in to it.
type Config struct {
	Module      string   // path of the PKCS#11 library
	Token       Selector // exactly one token must match
	PIN         PIN
	MaxSessions int // sessions kept for signing; 0 means 8. Two more are used for housekeeping
	// RetryAfterFailedPIN permits a log-in although the token says that the last one failed. Without it a restarting service
	// could lock the token.
	RetryAfterFailedPIN bool
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

// KeySpec is what Generate makes.
type KeySpec struct {
	Algorithm Algorithm
	Label     string // CKA_LABEL, required, unused in the token
	ID        []byte // CKA_ID; empty means the leftmost 20 octets of SHA-256 over 32 random octets of the token
}

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
	Hardware                                   bool // CKF_HW_SLOT
}

// Attributes are what the token says of a private key (PKCS#11 2.40, section 4.9).
type Attributes struct {
	Label                                                            string
	ID                                                               []byte
	Token, Private, Sensitive, Extractable                           bool
	Local, NeverExtractable, AlwaysSensitive                         bool
	Sign, Decrypt, Unwrap, Derive, SignRecover, Modifiable, Copyable bool
	AlwaysAuthenticate                                               bool     // each signature needs a log-in of its own
	Missing                                                          []string // attributes that the token did not tell
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
